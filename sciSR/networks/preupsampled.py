"""What the families share that refine a cubic upsampling on the fine grid: SRCNN, VDSR, DRRN, mDCSRN."""

from __future__ import annotations

from torch import Tensor

from sciSR.networks import receptive
from sciSR.networks.family import Family
from sciSR.networks.receptive import Reach
from sciSR.networks.skip import Skip
from sciSR.networks.upsamplers import CubicUpsampling

__all__ = ["PreUpsampled"]


class PreUpsampled(Family):
    """A network whose layers run on the fine grid, on the cubic upsampling of its input.

    With ``scale=1`` the input already lies on the fine grid.
    """

    def prepare(self) -> None:
        """Make the upsampling; for the constructors of families."""
        self.upsampling = CubicUpsampling(self.scale)

    def refine(self, fine: Tensor) -> Tensor:
        """What the layers make of the fine grid."""
        raise NotImplementedError

    def fine_path(self, axis: int) -> list[Reach]:
        """Reaches of the layers on the fine grid."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        return self.refine(self.upsampling(x))

    def forward(self, x: Tensor) -> Tensor:
        """The refined grid; the upsampling is done once where the skip is the same."""
        if self.skip != Skip("cubic"):
            return super().forward(x)
        fine: Tensor = self.upsampling(x)
        return fine + self.refine(fine)

    def path(self, axis: int) -> list[Reach]:
        """Two input pixels for the cubic kernel, then the layers."""
        return [receptive.taps(2, self.scale[axis]), *self.fine_path(axis)]

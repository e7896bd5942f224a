"""FSRCNN: shrink, map, expand, then one transposed convolution (Dong 2016, arXiv:1608.00367)."""

from __future__ import annotations

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach

__all__ = ["FSRCNN"]


class FSRCNN(Family):
    """A small fast network that works on the coarse grid.

    The paper's network FSRCNN(56, 12, 4) is the default with ``skip=None``.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels of feature extraction and expansion (d).
        shrink: channels of the mapping (s).
        layers: mapping layers (m).
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "fsrcnn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 56,
        shrink: int = 12,
        layers: int = 4,
        skip: AnySkip = "cubic",
        value_range: float | None = None,
    ) -> None:
        super().__init__(
            ndim=ndim,
            in_channels=in_channels,
            scale=scale,
            out_channels=out_channels,
            skip=skip,
            value_range=value_range,
            features=features,
            shrink=shrink,
            layers=layers,
        )
        self.mapping = layers
        self.first = nn.Sequential(convolution(ndim, self.in_channels, features, 5), nn.PReLU(features))
        middle: list[nn.Module] = [convolution(ndim, features, shrink, 1), nn.PReLU(shrink)]
        for _ in range(layers):
            middle += [convolution(ndim, shrink, shrink), nn.PReLU(shrink)]
        middle += [convolution(ndim, shrink, features, 1), nn.PReLU(features)]
        self.middle = nn.Sequential(*middle)
        kernel = tuple(_kernel(s) for s in self.scale)
        self.tail = Conv[Conv.CONVTRANS, ndim](
            features,
            self.out_channels,
            kernel_size=kernel,
            stride=self.scale,
            padding=tuple(k // 2 for k in kernel),
            output_padding=tuple(s - 1 for s in self.scale),
        )
        nn.init.normal_(self.tail.weight, std=0.001)
        nn.init.zeros_(self.tail.bias)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        result: Tensor = self.tail(self.middle(self.first(x)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Feature extraction, mapping, transposed convolution."""
        s = self.scale[axis]
        kernel = _kernel(s)
        return [
            receptive.conv(5),
            *[receptive.conv(3)] * self.mapping,
            receptive.transposed(kernel, s, kernel // 2),
        ]


def _kernel(scale: int) -> int:
    """The paper's 9; more only where 9 would leave gaps."""
    return max(9, 2 * scale + 1)

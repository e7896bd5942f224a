"""What every loss is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

__all__ = ["Loss"]


class Loss(nn.Module):
    """A scalar, 0 where the prediction is perfect, that falls as the prediction gets better.

    Attributes:
        needs: which facts of the training it is told when it is built: ``"data_range"``, ``"sensor"``, ``"scale"``.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            prediction: ``(b, c, [z,] y, x)``.
            target: the same shape.
            low: the network's input.
        """
        raise NotImplementedError

"""SRCNN: three convolutions on a cubic upsampling (Dong 2014/2016, arXiv:1501.00092)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.networks import receptive
from sciSR.networks.blocks import zero_
from sciSR.networks.family import AnySkip, Scale
from sciSR.networks.preupsampled import PreUpsampled
from sciSR.networks.receptive import Reach

__all__ = ["SRCNN"]


class SRCNN(PreUpsampled):
    """Patch extraction, non-linear mapping, reconstruction.

    The paper's networks are ``kernels=(9, 1, 5)`` and ``(9, 5, 5)`` with ``skip=None``; its MATLAB code pads by
    repeating the edge (``padding="replicate"``).

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis; 1: the input lies on the fine grid.
        out_channels: channels it gives; as many as it takes by default.
        features: channels after the first and after the second layer.
        kernels: odd sizes of the three kernels.
        padding: ``"zeros"`` or ``"replicate"`` around the image.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "srcnn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: Sequence[int] = (64, 32),
        kernels: Sequence[int] = (9, 1, 5),
        padding: Literal["zeros", "replicate"] = "zeros",
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
            features=tuple(features),
            kernels=tuple(kernels),
            padding=padding,
        )
        if len(features) != 2 or len(kernels) != 3 or any(k % 2 == 0 for k in kernels):
            raise InputError(f"srcnn: features {features} and kernels {kernels} are not two widths and three odd sizes")
        if padding not in ("zeros", "replicate"):
            raise InputError(f"srcnn: padding {padding!r} is not zeros or replicate")
        self.prepare()
        self.kernels = tuple(kernels)
        widths = (self.in_channels, *features, self.out_channels)
        self.layers = nn.ModuleList(
            Conv[Conv.CONV, ndim](i, o, k, padding=k // 2, padding_mode=padding)
            for i, o, k in zip(widths, widths[1:], kernels, strict=False)
        )
        self.act = nn.ReLU()
        if skip is not None:
            zero_(self.layers[2])

    def refine(self, fine: Tensor) -> Tensor:
        """Three layers on the fine grid."""
        mapped = self.act(self.layers[1](self.act(self.layers[0](fine))))
        result: Tensor = self.layers[2](mapped)
        return result

    def fine_path(self, axis: int) -> list[Reach]:
        """The three kernels."""
        return [receptive.conv(k) for k in self.kernels]

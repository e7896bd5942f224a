"""ESPCN: three layers on the coarse grid and one pixel shuffle (Shi 2016, arXiv:1609.05158)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelShuffle, icnr_

__all__ = ["ESPCN"]


class ESPCN(Family):
    """Efficient sub-pixel network: 5, 3, 3.

    The paper's network is the default with ``skip=None``.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels after the first and after the second layer.
        act: ``"tanh"`` as in the paper, or ``"relu"``.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "espcn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: Sequence[int] = (64, 32),
        act: Literal["tanh", "relu"] = "tanh",
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
            act=act,
        )
        if len(features) != 2:
            raise InputError(f"espcn: features {features} are not two widths")
        if act not in ("tanh", "relu"):
            raise InputError(f"espcn: act {act!r} is not tanh or relu")
        layer = nn.Tanh if act == "tanh" else nn.ReLU
        self.body = nn.Sequential(
            convolution(ndim, self.in_channels, features[0], 5),
            layer(),
            convolution(ndim, features[0], features[1]),
            layer(),
        )
        self.tail = icnr_(convolution(ndim, features[1], self.out_channels * math.prod(self.scale)), self.scale)
        self.shuffle = PixelShuffle(self.scale)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        result: Tensor = self.shuffle(self.tail(self.body(x)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Three convolutions and the shuffle."""
        return [receptive.conv(5), receptive.conv(3), receptive.conv(3), receptive.up(self.scale[axis])]

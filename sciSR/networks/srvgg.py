"""SRVGGNetCompact: a plain stack of convolutions and one pixel shuffle (Real-ESRGAN, Wang 2021, arXiv:2107.10833)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelShuffle, icnr_

__all__ = ["SRVGG"]


class SRVGG(Family):
    """Fast network without branches.

    The published networks are ``skip="nearest"`` with 16 or 32 layers.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        layers: convolutions between the first and the last.
        act: ``"prelu"`` (one slope per channel), ``"relu"`` or ``"leakyrelu"`` (slope 0.1).
        skip: classical upsampling that a zero-initialised last layer is added to.
        value_range: length of the number range it works in.
    """

    family = "srvgg"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        layers: int = 16,
        act: Literal["prelu", "relu", "leakyrelu"] = "prelu",
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
            layers=layers,
            act=act,
        )
        if act not in ("prelu", "relu", "leakyrelu"):
            raise InputError(f"srvgg: act {act!r} is not prelu, relu or leakyrelu")
        self.count = layers
        body: list[nn.Module] = []
        for number in range(layers + 1):
            body += [convolution(ndim, features if number else self.in_channels, features), _activation(act, features)]
        self.body = nn.Sequential(*body)
        self.tail = icnr_(convolution(ndim, features, self.out_channels * math.prod(self.scale)), self.scale)
        self.shuffle = PixelShuffle(self.scale)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        result: Tensor = self.shuffle(self.tail(self.body(x)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """One pixel a convolution."""
        return [*[receptive.conv(3)] * (self.count + 2), receptive.up(self.scale[axis])]


def _activation(act: str, features: int) -> nn.Module:
    if act == "prelu":
        return nn.PReLU(features)
    return nn.ReLU() if act == "relu" else nn.LeakyReLU(0.1)

"""A light network of depthwise-separable convolutions (after MobileNetV2, Sandler 2018, arXiv:1801.04381)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelShuffle, icnr_

__all__ = ["MobileSR"]


class MobileSR(Family):
    """Inverted residual blocks without norm, then one pixel shuffle: made for small machines.

    A block costs about a sixth of EDSR's at the same width in two dimensions, a fifteenth in three.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels between blocks.
        blocks: inverted residual blocks.
        expansion: factor on the channels inside a block.
        skip: classical upsampling that a zero-initialised last layer is added to, or None.
        value_range: length of the number range it works in.
    """

    family = "mobile"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 32,
        blocks: int = 8,
        expansion: int = 2,
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
            blocks=blocks,
            expansion=expansion,
        )
        self.blocks = blocks
        self.head = convolution(ndim, self.in_channels, features)
        self.body = nn.Sequential(*(InvertedResidual(ndim, features, expansion) for _ in range(blocks)))
        self.depthwise = convolution(ndim, features, features, groups=features)
        self.tail = icnr_(convolution(ndim, features, self.out_channels * math.prod(self.scale), 1), self.scale)
        self.shuffle = PixelShuffle(self.scale)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(x)
        deep = shallow + self.body(shallow)
        result: Tensor = self.shuffle(self.tail(self.depthwise(deep)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Head, one convolution a block, one before the tail."""
        return [*[receptive.conv(3)] * (self.blocks + 2), receptive.up(self.scale[axis])]


class InvertedResidual(nn.Module):
    """``x + narrow(relu(depthwise(relu(widen(x)))))``; only the depthwise convolution looks at neighbours."""

    def __init__(self, ndim: int, features: int, expansion: int) -> None:
        super().__init__()
        wide = features * expansion
        self.layers = nn.Sequential(
            convolution(ndim, features, wide, 1),
            nn.ReLU(),
            convolution(ndim, wide, wide, groups=wide),
            nn.ReLU(),
            convolution(ndim, wide, features, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.layers(x)
        return x + y

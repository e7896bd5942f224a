"""IMDN: information multi-distillation with contrast-aware attention (Hui 2019, arXiv:1909.11856)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.networks import receptive
from sciSR.networks.attention import ChannelAttention
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Scale
from sciSR.networks.pooled import Pooled
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelShuffle, icnr_

__all__ = ["IMDN"]


class IMDN(Pooled):
    """Light network that keeps a quarter of the features at each step and refines the rest.

    The paper's network is the default with ``skip=None``; its attention looks at the whole image (``pooling=None``).

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside, a multiple of 4.
        blocks: distillation blocks.
        reduction: of the attention's narrow layer.
        pooling: None: attention over the whole image; an odd number: over that many pixels per axis, exact in tiles.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "imdn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        blocks: int = 6,
        reduction: int = 16,
        pooling: int | None = None,
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
            reduction=reduction,
            pooling=pooling,
        )
        if features % 4:
            raise InputError(f"imdn: features {features} is no multiple of 4")
        self.pooling = self.check_pooling(pooling)
        self.count = blocks
        self.head = convolution(ndim, self.in_channels, features)
        self.blocks = nn.ModuleList(DistillationBlock(ndim, features, reduction, pooling) for _ in range(blocks))
        self.fuse = nn.Sequential(convolution(ndim, features * blocks, features, 1), nn.LeakyReLU(0.05))
        self.after_body = convolution(ndim, features, features)
        self.tail = icnr_(convolution(ndim, features, self.out_channels * math.prod(self.scale)), self.scale)
        self.shuffle = PixelShuffle(self.scale)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(x)
        y, levels = shallow, []
        for block in self.blocks:
            y = block(y)
            levels.append(y)
        deep = self.after_body(self.fuse(torch.cat(levels, 1))) + shallow
        result: Tensor = self.shuffle(self.tail(deep))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Head, four convolutions a block and its attention, two more, the shuffle."""
        three = receptive.conv(3)
        block = [three, three, three, three, receptive.conv(self.pooling or 1)]
        return [three, *block * self.count, three, three, receptive.up(self.scale[axis])]


class DistillationBlock(nn.Module):
    """Four convolutions; after each of the first three a quarter of the channels is kept and the rest goes on."""

    def __init__(self, ndim: int, features: int, reduction: int, window: int | None) -> None:
        super().__init__()
        self.kept = features // 4
        self.rest = features - self.kept
        self.first = convolution(ndim, features, features)
        self.second = convolution(ndim, self.rest, features)
        self.third = convolution(ndim, self.rest, features)
        self.fourth = convolution(ndim, self.rest, self.kept)
        self.act = nn.LeakyReLU(0.05)
        self.fuse = convolution(ndim, 4 * self.kept, features, 1)
        self.attention = ChannelAttention(ndim, 4 * self.kept, reduction, window=window, statistic="contrast")

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        kept, y = [], x
        for layer in (self.first, self.second, self.third):
            part, y = torch.split(self.act(layer(y)), [self.kept, self.rest], dim=1)
            kept.append(part)
        kept.append(self.fourth(y))
        result: Tensor = self.fuse(self.attention(torch.cat(kept, 1)))
        return result + x

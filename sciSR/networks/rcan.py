"""RCAN: residual groups of residual blocks with channel attention (Zhang 2018, arXiv:1807.02758)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.attention import ChannelAttention
from sciSR.networks.blocks import MeanShift, convolution, zero_
from sciSR.networks.family import AnySkip, Scale
from sciSR.networks.pooled import Pooled
from sciSR.networks.receptive import Reach
from sciSR.networks.upsamplers import SubpixelUpsampler, upsampler_path

__all__ = ["RCAN"]


class RCAN(Pooled):
    """Residual in residual network with channel attention.

    The paper's network is ``features=64, groups=10, blocks=20, reduction=16, skip=None`` with ``mean`` of DIV2K and
    ``value_range=255``; its attention looks at the whole image (``pooling=None``).

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        groups: residual groups.
        blocks: residual blocks of a group.
        reduction: of the attention's narrow layer.
        residual_scale: factor on each block's residual.
        pooling: None: attention over the whole image, as in the paper; an odd number: over that many pixels per axis
            around each pixel, so that tiles are exact (1.5 times the training patch works best).
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        mean: values subtracted per channel before and added after, as parts of ``value_range``.
        value_range: length of the number range it works in.
    """

    family = "rcan"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        groups: int = 5,
        blocks: int = 10,
        reduction: int = 16,
        residual_scale: float = 1.0,
        pooling: int | None = None,
        skip: AnySkip = "cubic",
        mean: Sequence[float] | None = None,
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
            groups=groups,
            blocks=blocks,
            reduction=reduction,
            residual_scale=residual_scale,
            pooling=pooling,
            mean=None if mean is None else [float(m) for m in mean],
        )
        self.pooling = self.check_pooling(pooling)
        self.groups, self.blocks = groups, blocks
        shift = None if mean is None else [m * (value_range or 1.0) for m in mean]
        self.before = MeanShift(ndim, shift, -1.0)
        self.head = convolution(ndim, self.in_channels, features)
        self.body = nn.Sequential(
            *(ResidualGroup(ndim, features, blocks, reduction, residual_scale, pooling) for _ in range(groups))
        )
        self.after_body = convolution(ndim, features, features)
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale)
        self.tail = convolution(ndim, features, self.out_channels)
        self.after = MeanShift(ndim, shift if skip is None else None, 1.0)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(self.before(x))
        deep = shallow + self.after_body(self.body(shallow))
        result: Tensor = self.after(self.tail(self.upsampler(deep)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Head, every block's two convolutions and its attention, a group's last, then as in EDSR."""
        three = receptive.conv(3)
        block = [three, three, receptive.conv(self.pooling or 1)]
        group = [*block * self.blocks, three]
        return [three, *group * self.groups, three, *upsampler_path(self.scale, axis), three]


class ResidualGroup(nn.Module):
    """``x + conv(blocks(x))``."""

    def __init__(
        self, ndim: int, features: int, blocks: int, reduction: int, residual_scale: float, window: int | None
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(AttentionBlock(ndim, features, reduction, residual_scale, window) for _ in range(blocks))
        )
        self.last = convolution(ndim, features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.last(self.blocks(x))
        return x + y


class AttentionBlock(nn.Module):
    """``x + residual_scale * attention(conv(relu(conv(x))))``."""

    def __init__(self, ndim: int, features: int, reduction: int, residual_scale: float, window: int | None) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.first = convolution(ndim, features, features)
        self.act = nn.ReLU()
        self.second = convolution(ndim, features, features)
        self.attention = ChannelAttention(ndim, features, reduction, window=window)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.attention(self.second(self.act(self.first(x))))
        return x + (y if self.residual_scale == 1.0 else y * self.residual_scale)

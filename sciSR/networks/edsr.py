"""EDSR: residual blocks without norm, then sub-pixel upsampling (Lim 2017, arXiv:1707.02921)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import MeanShift, ResidualBlock, convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.upsamplers import SubpixelUpsampler, upsampler_path

__all__ = ["EDSR"]


class EDSR(Family):
    """Enhanced deep residual network, in two or three dimensions.

    The paper's baseline is ``features=64, blocks=16, skip=None``, its large one ``features=256, blocks=32,
    residual_scale=0.1, skip=None``, both with ``mean`` of DIV2K and ``value_range=255`` for RGB.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        blocks: residual blocks.
        residual_scale: factor on each block's residual; 0.1 keeps wide networks stable.
        skip: ``"cubic"``: the network is a zero-initialised residual on cubic upsampling, so that untrained it *is*
            cubic upsampling; None: as in the paper.
        mean: values subtracted per channel before and added after, as parts of ``value_range``.
        value_range: length of the number range it works in.
    """

    family = "edsr"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
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
            blocks=blocks,
            residual_scale=residual_scale,
            mean=None if mean is None else [float(m) for m in mean],
        )
        shift = None if mean is None else [m * (value_range or 1.0) for m in mean]
        self.blocks = blocks
        self.before = MeanShift(ndim, shift, -1.0)
        self.head = convolution(ndim, self.in_channels, features)
        self.body = nn.Sequential(
            *(ResidualBlock(ndim, features, residual_scale=residual_scale) for _ in range(blocks)),
            convolution(ndim, features, features),
        )
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale)
        self.tail = convolution(ndim, features, self.out_channels)
        # the residual on a classical upsampling has no mean of its own
        self.after = MeanShift(ndim, shift if skip is None else None, 1.0)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(self.before(x))
        deep = shallow + self.body(shallow)
        result: Tensor = self.after(self.tail(self.upsampler(deep)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Head, two convolutions a block, the body's last, then the upsampler's and the tail."""
        inside = [receptive.conv(3)] * (2 + 2 * self.blocks)
        return [*inside, *upsampler_path(self.scale, axis), receptive.conv(3)]

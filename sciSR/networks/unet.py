"""Networks with a bottleneck: an encoder-decoder with transposed convolutions, and a U-Net with skips."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.borders import crop_to, pad_to_multiple
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import stages
from sciSR.networks.spec import NetworkSpec
from sciSR.networks.upsamplers import (
    SubpixelUpsampler,
    transposed_convolution,
    transposed_path,
    upsampler_path,
)

__all__ = ["EncoderDecoder", "UNet"]

for _whole in ("pad_to_multiple", "crop_to"):  # they ask for sizes, which a trace does not have
    fx.wrap(_whole)


class _Bottleneck(Family):
    """A family whose layers halve the grid ``depth`` times; images are mirrored at their far edges to a multiple."""

    depth: int

    def period(self, axis: int) -> int:
        """Strides double it at each level."""
        return int(2**self.depth)

    def describe(self, reach: tuple[int, ...]) -> NetworkSpec:
        """Tiles start where the strides do."""
        return replace(super().describe(reach), alignment=(self.period(0),) * self.ndim)


class EncoderDecoder(_Bottleneck):
    """Strided convolutions down, transposed convolutions up and on to the fine grid (after Mao 2016, arXiv:1603.09056).

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels on the input's grid; doubled at each level.
        depth: how often the grid is halved.
        skip: classical upsampling that a zero-initialised last layer is added to, or None.
        value_range: length of the number range it works in.
    """

    family = "encoder_decoder"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 32,
        depth: int = 2,
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
            depth=depth,
        )
        self.depth = depth
        down: list[nn.Module] = [convolution(ndim, self.in_channels, features), nn.ReLU()]
        up: list[nn.Module] = []
        for level in range(depth):
            narrow, wide = features * 2**level, features * 2 ** (level + 1)
            down += [convolution(ndim, narrow, wide, stride=2), nn.ReLU(), convolution(ndim, wide, wide), nn.ReLU()]
            up = [transposed_convolution(ndim, wide, narrow, (2,) * ndim), nn.ReLU(), *up]
        for factors in stages(self.scale):
            up += [transposed_convolution(ndim, features, features, factors), nn.ReLU()]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up)
        self.tail = convolution(ndim, features, self.out_channels)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        padded = pad_to_multiple(x, self.period(0))
        return crop_to(self.tail(self.decoder(self.encoder(padded))), x, self.scale)

    def path(self, axis: int) -> list[Reach]:
        """Down, up, the refinement, the tail."""
        three = receptive.conv(3)
        down = [three, *[receptive.conv(3, stride=2), three] * self.depth]
        return [*down, *transposed_path((2**self.depth,), 0), *transposed_path(self.scale, axis), three]


class UNet(_Bottleneck):
    """U-Net (Ronneberger 2015, arXiv:1505.04597): at each level the encoder's features join the decoder's.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels on the input's grid; doubled at each level.
        depth: how often the grid is halved.
        skip: classical upsampling that a zero-initialised last layer is added to, or None.
        value_range: length of the number range it works in.
    """

    family = "unet"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 32,
        depth: int = 3,
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
            depth=depth,
        )
        self.depth = depth
        widths = [features * 2**level for level in range(depth + 1)]
        self.head = _pair(ndim, self.in_channels, features)
        self.down = nn.ModuleList(
            nn.Sequential(convolution(ndim, n, w, stride=2), nn.ReLU(), _pair(ndim, w, w)) for n, w in pairwise(widths)
        )
        self.up = nn.ModuleList(transposed_convolution(ndim, w, n, (2,) * ndim) for n, w in pairwise(widths))
        self.join = nn.ModuleList(_pair(ndim, 2 * n, n) for n in widths[:-1])
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale)
        self.tail = convolution(ndim, features, self.out_channels)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        levels = [self.head(pad_to_multiple(x, self.period(0)))]
        for down in self.down:
            levels.append(down(levels[-1]))
        y = levels.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            y = join(torch.cat([up(y), levels.pop()], 1))
        return crop_to(self.tail(self.upsampler(y)), x, self.scale)

    def path(self, axis: int) -> list[Reach]:
        """Down to the bottom and up again, then the upsampler's and the tail."""
        three = receptive.conv(3)
        down = [three, three, *[receptive.conv(3, stride=2), three, three] * self.depth]
        up = [*transposed_path((2,), 0), three, three] * self.depth
        return [*down, *up, *upsampler_path(self.scale, axis), three]


def _pair(ndim: int, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(ndim, in_channels, out_channels),
        nn.ReLU(),
        convolution(ndim, out_channels, out_channels),
        nn.ReLU(),
    )

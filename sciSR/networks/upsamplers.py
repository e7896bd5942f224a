"""Upsamplers with a whole factor per axis: sub-pixel (ICNR), nearest neighbour and convolution, transposed convolution.

A scale is taken in small stages: 4 is 2 by 2, 3 is one step, and an axis of factor 1 keeps its pixels throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelShuffle, icnr_, stages
from sciSR.resampling import upsample

__all__ = [
    "CubicUpsampling",
    "NearestUpsampler",
    "SubpixelUpsampler",
    "transposed_convolution",
    "transposed_path",
    "upsampler_path",
]


class SubpixelUpsampler(nn.Sequential):
    """Convolution and pixel shuffle per stage of ``scale``, ICNR-initialised; nothing at all where the scale is 1.

    Args:
        ndim: spatial axes.
        features: channels it takes and gives.
        scale: whole factor per axis.
        act: makes the activation that follows each shuffle, or None.
        early: makes the activation between convolution and shuffle, or None.
        groups: of the convolutions.
    """

    def __init__(
        self,
        ndim: int,
        features: int,
        scale: Sequence[int],
        *,
        act: Callable[[], nn.Module] | None = None,
        early: Callable[[], nn.Module] | None = None,
        groups: int = 1,
    ) -> None:
        layers: list[nn.Module] = []
        for factors in stages(scale):
            layers.append(icnr_(convolution(ndim, features, features * math.prod(factors), groups=groups), factors))
            if early is not None:
                layers.append(early())
            layers.append(PixelShuffle(factors))
            if act is not None:
                layers.append(act())
        super().__init__(*layers)


class NearestUpsampler(nn.Sequential):
    """Each pixel repeated, then a convolution and an activation, per stage of ``scale``."""

    def __init__(self, ndim: int, features: int, scale: Sequence[int], *, act: Callable[[], nn.Module]) -> None:
        layers: list[nn.Module] = []
        for factors in stages(scale):
            repeat = nn.Upsample(scale_factor=tuple(float(f) for f in factors), mode="nearest")
            layers += [repeat, convolution(ndim, features, features), act()]
        super().__init__(*layers)


class CubicUpsampling(nn.Module):
    """Keys' cubic upsampling as a layer, so that whoever takes a network apart sees one operation."""

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(scale)

    def forward(self, x: Tensor) -> Tensor:
        """The refined grid."""
        return upsample(x, self.scale, kernel="cubic")


def upsampler_path(scale: Sequence[int], axis: int, *, kernel: int = 3, late: bool = False) -> list[Reach]:
    """Reaches along one axis of an upsampler by stages.

    Args:
        scale: whole factor per axis.
        axis: the axis.
        kernel: size of the convolutions.
        late: whether the convolution follows the refinement (nearest) or precedes it (sub-pixel).
    """
    path: list[Reach] = []
    for factors in stages(scale):
        step = [receptive.conv(kernel), receptive.up(factors[axis])]
        path += step[::-1] if late else step
    return path


def transposed_convolution(ndim: int, in_channels: int, out_channels: int, factors: Sequence[int]) -> nn.Module:
    """A centred transposed convolution that refines by ``factors``, which divide its kernel: no checkerboard."""
    from monai.networks.layers.factories import Conv

    kernel = [_transposed_kernel(f) for f in factors]
    layer: nn.Module = Conv[Conv.CONVTRANS, ndim](
        in_channels,
        out_channels,
        kernel_size=tuple(kernel),
        stride=tuple(factors),
        padding=tuple((k - f) // 2 for k, f in zip(kernel, factors, strict=True)),
    )
    return layer


def transposed_path(scale: Sequence[int], axis: int) -> list[Reach]:
    """Reaches along one axis of a :func:`transposed_convolution` per stage of ``scale``."""
    path: list[Reach] = []
    for factors in stages(scale):
        f = factors[axis]
        kernel = _transposed_kernel(f)
        path.append(receptive.transposed(kernel, f, (kernel - f) // 2))
    return path


def _transposed_kernel(factor: int) -> int:
    """Even factors get twice, odd ones three times their length, so that both stay centred."""
    return 2 * factor if factor % 2 == 0 else 3 * factor

"""CARN and CARN-M: cascading residual networks (Ahn 2018, arXiv:1803.08664)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import MeanShift, convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.upsamplers import SubpixelUpsampler, upsampler_path

__all__ = ["CARN"]


class CARN(Family):
    """Three cascading blocks of three residual units each.

    The paper's CARN-M is ``mobile=True, groups=4, skip=None``, its CARN ``mobile=False, groups=1, skip=None``, both
    with ``mean`` of DIV2K and ``value_range=1`` (and with upsamplers for 2, 3 and 4 in one file).

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        mobile: residual units of grouped convolutions, whose weights a block uses three times.
        groups: of the grouped convolutions and the upsampler.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        mean: values subtracted per channel before and added after, as parts of ``value_range``.
        value_range: length of the number range it works in.
    """

    family = "carn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        mobile: bool = True,
        groups: int = 4,
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
            mobile=mobile,
            groups=groups,
            mean=None if mean is None else [float(m) for m in mean],
        )
        shift = None if mean is None else [m * (value_range or 1.0) for m in mean]
        self.before = MeanShift(ndim, shift, -1.0)
        self.head = convolution(ndim, self.in_channels, features)
        self.cascade = Cascade(
            ndim, features, [CascadingBlock(ndim, features, mobile=mobile, groups=groups) for _ in range(3)]
        )
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale, early=nn.ReLU, groups=groups)
        self.tail = convolution(ndim, features, self.out_channels)
        self.after = MeanShift(ndim, shift if skip is None else None, 1.0)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        deep = self.cascade(self.head(self.before(x)))
        result: Tensor = self.after(self.tail(self.upsampler(deep)))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Head, nine units of two convolutions, the upsampler's and the tail."""
        three = receptive.conv(3)
        return [three, *[three] * 18, *upsampler_path(self.scale, axis), three]


class Cascade(nn.Module):
    """Steps one after the other; before each next one all earlier results are fused by a 1-wide convolution.

    ``steps`` may be fewer than three: then they are used again, with the same weights.
    """

    def __init__(self, ndim: int, features: int, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.fuse = nn.ModuleList(convolution(ndim, features * (k + 2), features, 1) for k in range(3))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        known = y = x
        for k, fuse in enumerate(self.fuse):
            known = torch.cat([known, self.steps[k % len(self.steps)](y)], 1)
            y = self.act(fuse(known))
        return y


class CascadingBlock(Cascade):
    """A cascade of residual units: one mobile unit used three times, or three plain ones."""

    def __init__(self, ndim: int, features: int, *, mobile: bool, groups: int) -> None:
        units = (
            [MobileUnit(ndim, features, groups)] if mobile else [PlainUnit(ndim, features, groups) for _ in range(3)]
        )
        super().__init__(ndim, features, units)


class PlainUnit(nn.Module):
    """``relu(x + conv(relu(conv(x))))``."""

    def __init__(self, ndim: int, features: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(ndim, features, features), nn.ReLU(), convolution(ndim, features, features)
        )
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        result: Tensor = self.act(self.layers(x) + x)
        return result


class MobileUnit(PlainUnit):
    """The same with two grouped convolutions and a 1-wide one."""

    def __init__(self, ndim: int, features: int, groups: int) -> None:
        super().__init__(ndim, features, groups)
        self.layers = nn.Sequential(
            convolution(ndim, features, features, groups=groups),
            nn.ReLU(),
            convolution(ndim, features, features, groups=groups),
            nn.ReLU(),
            convolution(ndim, features, features, 1),
        )

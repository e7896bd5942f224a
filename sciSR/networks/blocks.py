"""What the networks share, for two and three spatial axes from one definition, on MONAI's convolutions.

No block normalises: batch and instance norm lose the absolute intensities and break exact tiling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.grid import SPATIAL_AXES, scale_per_axis

__all__ = [
    "MeanShift",
    "PixelShuffle",
    "ResidualBlock",
    "SubpixelUpsampler",
    "axes_of",
    "convolution",
    "icnr_",
    "pixel_shuffle_nd",
    "stages",
    "whole_scale",
    "zero_",
]

Activation = str | tuple[str, dict[str, object]]
"""An activation as MONAI names it: ``"relu"``, ``("leakyrelu", {"negative_slope": 0.2})``."""


def axes_of(ndim: int) -> tuple[str, ...]:
    """Names of ``ndim`` spatial axes in array order.

    Raises:
        InputError: not 2 or 3.
    """
    if ndim not in (2, 3):
        raise InputError(f"network: ndim {ndim!r} came; expected 2 (y, x) or 3 (z, y, x)")
    return SPATIAL_AXES[-ndim:]


def whole_scale(scale: float | Sequence[int] | Mapping[str, float], ndim: int) -> tuple[int, ...]:
    """Whole factor per spatial axis in array order.

    Args:
        scale: one number for all axes, one per axis in array order, or ``{axis: factor}``.
        ndim: number of spatial axes.

    Raises:
        InputError: a factor that is not a whole number of at least 1, or an axis that is not there.

    Example:
        >>> whole_scale({"z": 4}, 3)
        (4, 1, 1)
    """
    axes = axes_of(ndim)
    if isinstance(scale, Sequence):
        if len(scale) != ndim:
            raise InputError(
                f"scale: {len(scale)} factors came for {ndim} axes; give one for each of {', '.join(axes)}"
            )
        scale = dict(zip(axes, scale, strict=True))
    factors = scale_per_axis(scale, axes)
    for axis, factor in factors.items():
        if factor != int(factor):
            raise InputError(f"scale: {factor:g} on axis {axis} is not whole; a network refines by whole factors")
    return tuple(int(factors[axis]) for axis in axes)


def convolution(
    ndim: int,
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
    act: Activation | None = None,
) -> Convolution:
    """A convolution that keeps the size (zeros around the image), without norm, activated if asked for."""
    return Convolution(
        spatial_dims=ndim,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel,
        strides=stride,
        groups=groups,
        bias=bias,
        act=act,
        norm=None,
        conv_only=act is None,
    )


def zero_(layer: nn.Module) -> nn.Module:
    """``layer`` with all parameters zero, so that what it ends adds nothing before training."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def pixel_shuffle_nd(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Channels rearranged into finer pixels, a factor per axis.

    The channel of output pixel ``(i, j, …)`` inside its coarse pixel is ``((c * f1 + i) * f2 + j) …``, which for equal
    factors in two dimensions is the order of :class:`torch.nn.PixelShuffle` (Shi 2016, arXiv:1609.05158).

    Args:
        x: ``(b, c * f1 * f2 …, [z,] y, x)``.
        factors: whole factor per spatial axis.

    Example:
        >>> pixel_shuffle_nd(torch.arange(4.0).reshape(1, 4, 1, 1), (4, 1)).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    n = len(factors)
    size = x.shape[2:]
    channels = x.shape[1] // math.prod(factors)
    parts = x.reshape(x.shape[0], channels, *factors, *size)
    order = [0, 1]
    for axis in range(n):
        order += [2 + n + axis, 2 + axis]
    return parts.permute(order).reshape(x.shape[0], channels, *(m * f for m, f in zip(size, factors, strict=True)))


class PixelShuffle(nn.Module):
    """:func:`pixel_shuffle_nd` as a layer."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        """Finer pixels, fewer channels."""
        return pixel_shuffle_nd(x, self.factors)

    def extra_repr(self) -> str:
        """The factors."""
        return f"factors={self.factors}"


def icnr_(layer: nn.Module, factors: Sequence[int]) -> nn.Module:
    """``layer``, a convolution before a pixel shuffle, initialised as convolution and nearest neighbour, bias zero.

    All sub-pixels of a coarse pixel start equal, so that there is no checkerboard (Aitken 2017, arXiv:1707.02937).
    """
    group = math.prod(factors)
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            with torch.no_grad():
                parameter.copy_(parameter[::group].repeat_interleave(group, dim=0))
    return layer


def stages(scale: Sequence[int]) -> list[tuple[int, ...]]:
    """``scale`` as a product of small steps per axis, as EDSR takes them: 4 is 2 by 2, 3 is one step.

    Example:
        >>> stages((4, 1, 1)), stages((3, 2))
        ([(2, 1, 1), (2, 1, 1)], [(3, 2)])
    """
    factors = [_primes(s) for s in scale]
    count = max(len(f) for f in factors)
    return [tuple(f[k] if k < len(f) else 1 for f in factors) for k in range(count)]


def _primes(n: int) -> list[int]:
    found, p = [], 2
    while n > 1:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return found


class SubpixelUpsampler(nn.Sequential):
    """Convolution and pixel shuffle per stage of ``scale``, ICNR-initialised; nothing at all where the scale is 1."""

    def __init__(self, ndim: int, features: int, scale: Sequence[int], *, act: Activation | None = None) -> None:
        layers: list[nn.Module] = []
        for factors in stages(scale):
            layers.append(icnr_(convolution(ndim, features, features * math.prod(factors)), factors))
            layers.append(PixelShuffle(factors))
            if act is not None:
                layers.append(activation(act))
        super().__init__(*layers)


def activation(act: Activation) -> nn.Module:
    """The activation layer that MONAI knows by this name."""
    from monai.networks.layers.utils import get_act_layer

    layer: nn.Module = get_act_layer(act)
    return layer


class ResidualBlock(nn.Module):
    """``x + residual_scale * conv(relu(conv(x)))``: EDSR's block, without norm (Lim 2017, arXiv:1707.02921)."""

    def __init__(self, ndim: int, features: int, *, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.first = convolution(ndim, features, features)
        self.act = nn.ReLU()
        self.second = convolution(ndim, features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.second(self.act(self.first(x)))
        return x + (y if self.residual_scale == 1.0 else y * self.residual_scale)


class MeanShift(nn.Module):
    """Adds ``sign * mean`` per channel, or nothing where there is no mean."""

    mean: Tensor

    def __init__(self, ndim: int, mean: Sequence[float] | None, sign: float) -> None:
        super().__init__()
        self.active = mean is not None
        values = torch.tensor([sign * m for m in mean or ()], dtype=torch.float32)
        self.register_buffer("mean", values.reshape(1, -1, *[1] * ndim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shifted values."""
        return x + self.mean if self.active else x

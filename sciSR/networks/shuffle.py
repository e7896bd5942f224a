"""Channels into finer pixels and back, a factor per axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["PixelShuffle", "PixelUnshuffle", "icnr_", "pixel_shuffle_nd", "pixel_unshuffle_nd", "stages"]


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
    batch, *size = x.shape[0], *x.shape[2:]
    channels = x.shape[1] // math.prod(factors)
    fine = [m * f for m, f in zip(size, factors, strict=True)]
    interleaved = [d for axis in range(n) for d in (2 + n + axis, 2 + axis)]
    parts = x.reshape(batch, channels, *factors, *size)
    if not x.is_contiguous() and x.is_contiguous(memory_format=_CHANNELS_LAST[n]):
        last = parts.permute(0, *interleaved, 1).reshape(batch, *fine, channels)
        return last.movedim(-1, 1)
    return parts.permute(0, 1, *interleaved).reshape(batch, channels, *fine)


_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Memory layout in which convolutions are fastest; the pixel shuffle keeps it."""


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


def pixel_unshuffle_nd(x: Tensor, factors: Sequence[int]) -> Tensor:
    """The inverse of :func:`pixel_shuffle_nd`: fine pixels into the channels of coarser ones.

    Args:
        x: ``(b, c, [z,] y, x)``, each axis a multiple of its factor.
        factors: whole factor per spatial axis.
    """
    n = len(factors)
    split = [part for m, f in zip(x.shape[2:], factors, strict=True) for part in (m // f, f)]
    parts = x.reshape(x.shape[0], x.shape[1], *split)
    order = [0, 1, *(3 + 2 * axis for axis in range(n)), *(2 + 2 * axis for axis in range(n))]
    coarse = [m // f for m, f in zip(x.shape[2:], factors, strict=True)]
    return parts.permute(order).reshape(x.shape[0], x.shape[1] * math.prod(factors), *coarse)


class PixelUnshuffle(nn.Module):
    """:func:`pixel_unshuffle_nd` as a layer."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        """Coarser pixels, more channels."""
        return pixel_unshuffle_nd(x, self.factors)


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

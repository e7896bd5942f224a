"""Patches drawn from crops by slicing: weighted to where there is detail, never over pixels without a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError
from sciSR.sampling.crops import Crop
from sciSR.sampling.draws import uniforms

__all__ = ["NoRoomError", "Patch", "PatchSampler"]

_BACKGROUND = 0.05
"""Mean gradient of background, as a part of that of the most detailed tenth."""
_LOWEST = 0.03
"""Part of the range of values that counts as background: air, the frame of a scene."""
_RARE = 0.02
"""How often a place that is mostly background is drawn, relative to others of as much detail."""


class NoRoomError(InputError):
    """No crop has room for a patch."""


class Patch(NamedTuple):
    """Where a drawn patch lies: number of its crop, first pixel and size per spatial axis."""

    crop: int
    start: tuple[int, ...]
    size: tuple[int, ...]


class PatchSampler:
    """Draws patches from crops.

    Args:
        crops: where to draw from.
        sizes: pixels per spatial axis, for each crop.
        align: patches start at multiples of this per axis (the scale, for real pairs).
        guard: pixels kept between a patch and what is held out.
        uniform: draw every place equally often (in a mask as it covers it), instead of where there is detail.

    Raises:
        NoRoomError: no crop has room for a patch.
    """

    DRAWS = 5
    """Random numbers that one position takes."""

    def __init__(
        self,
        crops: Sequence[Crop],
        sizes: Sequence[Sequence[int]],
        *,
        align: Sequence[int] | None = None,
        guard: int = 16,
        uniform: bool = False,
    ) -> None:
        self.crops = tuple(crops)
        self.sizes = [tuple(size) for size in sizes]
        self.align = tuple(align or (1,) * len(self.sizes[0]))
        self._starts: list[NDArray[np.int64]] = []
        self._sums: list[NDArray[np.float64]] = []
        for crop, size in zip(self.crops, self.sizes, strict=True):
            starts, weight = self._cells(crop, size, guard, uniform)
            self._starts.append(starts)
            self._sums.append(np.cumsum(weight))
        room = np.array([crop.weight * (len(s) > 0) for crop, s in zip(self.crops, self._starts, strict=True)])
        if not room.sum() > 0:
            shapes = ", ".join(f"{c.name} {c.shape}" for c in self.crops) or "none"
            raise NoRoomError(
                f"patches: no reference has room for {min(self.sizes)} valid pixels outside what is held out "
                f"{'and inside its mask ' if any(c.mask is not None for c in self.crops) else ''}"
                f"(references: {shapes}); take a smaller patch or hold out less"
            )
        self._shares = np.cumsum(room / room.sum())

    def draw(self, seed: int, step: int, samples: Sequence[int]) -> list[Patch]:
        """One patch per sample number."""
        numbers = uniforms(seed, step, samples, self.DRAWS)
        return [self._patch(row) for row in numbers]

    def release(self) -> None:
        """Keep names and shapes of the crops only; drawing needs no values."""
        self.crops = tuple(
            replace(crop, high=crop.high.to("meta"), low=None, valid=None, mask=None) for crop in self.crops
        )

    def where(self, patch: Patch) -> str:
        """The place of a patch in words, for messages."""
        crop = self.crops[patch.crop]
        axes = "zyx"[-len(patch.size) :]
        spans = zip(axes, crop.origin, patch.start, patch.size, strict=True)
        return f"{crop.name} " + " ".join(f"{axis}={o + a}:{o + a + n}" for axis, o, a, n in spans)

    def _patch(self, numbers: NDArray[np.float64]) -> Patch:
        number = min(int(np.searchsorted(self._shares, numbers[0], side="right")), len(self.crops) - 1)
        sums = self._sums[number]
        cell = min(int(np.searchsorted(sums, numbers[1] * sums[-1], side="right")), len(sums) - 1)
        size = self.sizes[number]
        start = []
        for axis, first in enumerate(self._starts[number][cell]):
            last = self.crops[number].shape[axis] - size[axis]
            steps = self._stride(size)[axis] // self.align[axis]
            jitter = int(numbers[2 + axis] * steps) * self.align[axis]
            start.append(min(int(first) + jitter, last - last % self.align[axis]))
        return Patch(number, tuple(start), size)

    def _stride(self, size: Sequence[int]) -> tuple[int, ...]:
        """Pixels between the cells in which patches start."""
        return tuple(a * max(1, n // 4 // a) for n, a in zip(size, self.align, strict=True))

    def _cells(
        self, crop: Crop, size: tuple[int, ...], guard: int, uniform: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """First pixels of the cells a patch may start in, and the weight of each."""
        if any(n < m for n, m in zip(crop.shape, size, strict=True)):
            return np.empty((0, len(size)), np.int64), np.empty(0)
        stride = self._stride(size)
        bad = torch.zeros(crop.shape) if crop.valid is None else (~crop.valid).float()
        for window in crop.held_out:
            bad[tuple(slice(max(0, w.start - guard), max(0, w.stop + guard)) for w in window)] = 1
        reach = [math.ceil((n + g - 1) / g) for n, g in zip(size, stride, strict=True)]
        count = [(n - m) // g + 1 for n, m, g in zip(crop.shape, size, stride, strict=True)]
        blocked = _windowed("max", bad, stride, reach, count)
        free = (blocked == 0).double()
        if crop.mask is not None:
            free = free * self._inside(crop.mask.float(), size, stride, count)
        weight = free
        if not uniform and bool(free.any()):
            weight = free * _interest(_windowed("avg", _gradient(crop.high), stride, reach, count).double(), free > 0)
            weight = weight * _full(_windowed("avg", _lowest(crop), stride, reach, count).double())
            weight = weight if bool(weight.any()) else free
        index = torch.nonzero(weight > 0)
        starts = (index * torch.tensor(stride)).numpy().astype(np.int64)
        return starts, weight[tuple(index.T)].numpy().astype(np.float64)

    def _inside(self, mask: Tensor, size: Sequence[int], stride: Sequence[int], count: Sequence[int]) -> Tensor:
        """Share of the mask in what every patch of a cell holds, wherever in the cell it starts."""
        moves = [g > a for g, a in zip(stride, self.align, strict=True)]
        first = [g if m else 0 for g, m in zip(stride, moves, strict=True)]
        reach = [n // g - m for n, g, m in zip(size, stride, moves, strict=True)]
        return _windowed("avg", mask[tuple(slice(f, None) for f in first)], stride, reach, count).double()


def _interest(energy: Tensor, free: Tensor) -> Tensor:
    """How often cells of this mean gradient are drawn: background never, detail above the tenth decile no oftener."""
    seen = energy[free]
    top = float(torch.quantile(seen[:: max(1, len(seen) // 100_000)], 0.9))
    return (energy / max(top, 1e-30) - _BACKGROUND).clamp(0, 1)


def _full(background: Tensor) -> Tensor:
    """How often cells of this share of background are drawn: as the others up to two fifths, rarely from three on."""
    return ((0.6 - background) / 0.2).clamp(_RARE, 1)


def _lowest(crop: Crop) -> Tensor:
    """1 where all channels are within the lowest part of their range, else 0."""
    found = torch.ones(crop.shape)
    for channel in crop.high:
        seen = channel if crop.valid is None else channel[crop.valid]
        seen = seen.flatten()[:: max(1, seen.numel() // 100_000)]
        low, high = torch.quantile(seen, torch.tensor([0.001, 0.999])).tolist() if seen.numel() else (0.0, 0.0)
        found.mul_(channel <= low + _LOWEST * (high - low))
    return found


def _gradient(values: Tensor) -> Tensor:
    """Sum over axes and channels of the size of forward differences: where there is detail."""
    total = torch.zeros(values.shape[1:])
    for channel in values:
        for axis in range(channel.dim()):
            step = channel.diff(dim=axis).abs_()
            total.narrow(axis, 0, step.shape[axis]).add_(step)
    return total


def _windowed(kind: str, field: Tensor, stride: Sequence[int], reach: Sequence[int], count: Sequence[int]) -> Tensor:
    """Greatest or mean value of ``field`` under the ``reach`` cells of ``stride`` pixels that begin at each cell."""
    n = field.dim()
    pool_max, pool_avg = (nnf.max_pool2d, nnf.avg_pool2d) if n == 2 else (nnf.max_pool3d, nnf.avg_pool3d)
    x = field[None, None]
    if kind == "max":
        x = pool_max(x, list(stride), ceil_mode=True)
    else:
        x = pool_avg(x, list(stride), ceil_mode=True, count_include_pad=False)
    missing = [max(0, c + r - 1 - have) for c, r, have in zip(count, reach, x.shape[2:], strict=True)]
    x = nnf.pad(x, [v for m in reversed(missing) for v in (0, m)], mode="replicate")
    x = pool_max(x, list(reach), 1) if kind == "max" else pool_avg(x, list(reach), 1)
    for axis, c in enumerate(count):
        x = x.narrow(axis + 2, 0, c)
    return x[0, 0]

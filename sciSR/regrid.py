"""Lazy resampling of a raster to another pixel count over the same field of view, by any factor.

Block by block and exact: an output block reads the input pixels under its kernel, mirrored only at the image's own
border, so the result does not depend on the blocks. Nearest neighbour keeps the values' own type. What comes out of a
network is taken as it streams, each value once, and only the rows under the kernel are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciSR.derived import DerivedSource, rows_in_order
from sciSR.encoding import work_dtype
from sciSR.filling import fill_invalid
from sciSR.pipeline import read_ahead
from sciSR.raster import Block, BlockSource, Raster, Window, streams_by_slabs, windows
from sciSR.resampling import KERNELS, apply_taps, taps

__all__ = ["RegriddedSource", "regrid"]

_FILL_REACH = 8
_BLOCK_VALUES = 2**23


def regrid(raster: Raster, shape: tuple[int, ...], *, kernel: str = "cubic", antialias: bool = True) -> Raster:
    """The raster on the same field of view with ``shape`` pixels per spatial axis; lazy.

    Args:
        raster: what to resample.
        shape: pixels per spatial axis in array order.
        kernel: ``"nearest"``, or a name of :data:`sciSR.resampling.KERNELS`.
        antialias: widen the kernel where the result is coarser.

    Returns:
        A raster of float32 values (float64 if the input's type is wider; the input's own type for nearest). A pixel is
        valid where the nearest input pixel is.
    """
    source = RegriddedSource(raster, shape, kernel, antialias)
    auxiliary = {key: regrid(aux, shape, kernel="nearest") for key, aux in raster.auxiliary.items()}
    return raster.replace(source=source, grid=raster.grid.resize(shape), auxiliary=auxiliary)


class RegriddedSource(DerivedSource):
    """Blocks of a resampled raster."""

    def __init__(self, raster: Raster, shape: tuple[int, ...], kernel: str, antialias: bool) -> None:
        super().__init__(raster.source)
        self._raster = raster
        self._lead = len(raster.leading)
        self._shape = raster.leading + tuple(shape)
        self._kernel = kernel
        self._axes = [_AxisTaps(n, m, kernel, antialias) for n, m in zip(raster.grid.shape, shape, strict=True)]
        self._near = [_AxisTaps(n, m, "nearest", False) for n, m in zip(raster.grid.shape, shape, strict=True)]
        self._antialias = antialias
        self._reach = max(_FILL_REACH, *(axis.reach + 1 for axis in self._axes))
        self._work = work_dtype(raster.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64; for nearest the input's type."""
        return self._raster.dtype if self._kernel == "nearest" else self._work

    @property
    def chunks(self) -> tuple[int, ...]:
        """Slabs along the first spatial axis, one time step and all channels, of some eight million values."""
        lead, (first, *rest) = self._raster.one_time, self._shape[self._lead :]
        rows = _BLOCK_VALUES // max(1, math.prod((*lead, *rest)))
        return (*lead, max(1, min(first, rows)), *rest)

    def record(self) -> dict[str, Any]:
        """What was done, for the run record."""
        return {"executor": "regrid", "kernel": self._kernel, "shape": list(self._shape)}

    def over(self, source: BlockSource) -> RegriddedSource:
        """The same resampling of another source of the same shape."""
        shape = self._shape[self._lead :]
        return RegriddedSource(self._raster.replace(source=source), shape, self._kernel, self._antialias)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, in slabs; of a file the next one is made while the last is taken."""
        slabs = windows(self._shape, self.chunks)
        if not streams_by_slabs(self._inner):
            yield from read_ahead(slabs, self.read, 1)
            return
        with rows_in_order(self._inner, self._lead) as read:
            for window in slabs:
                yield window, self._resampled(window, read)

    def read(self, window: Window) -> Block:
        """The values under ``window``."""
        return self._resampled(window, self._inner.read)

    def _needed(self, window: Window) -> Window:
        """The input's window under the kernels of ``window``."""
        lead, spatial = window[: self._lead], window[self._lead :]
        spans = [axis.span(part, self._reach) for axis, part in zip(self._axes, spatial, strict=True)]
        return lead + tuple(slice(a, b) for a, b in spans)

    def _resampled(self, window: Window, read: Callable[[Window], Block]) -> Block:
        needed = self._needed(window)
        block = read(needed)
        spatial = window[self._lead :]
        starts = [part.start for part in needed[self._lead :]]
        valid = None if block.valid is None else self._pick(block.valid, spatial, starts)
        if self._kernel == "nearest":
            return Block(self._pick(block.values, spatial, starts), valid)
        values = block.values.astype(self._work)
        if block.valid is not None:
            values = self._filled(values, block.valid)
        x = torch.from_numpy(np.ascontiguousarray(values))
        for i, (axis, part) in enumerate(zip(self._axes, spatial, strict=True)):
            if not axis.identity:
                index, weight = axis.taps(part)
                x = apply_taps(x, self._lead + i, index - starts[i], weight)
            else:
                x = x.narrow(self._lead + i, part.start - starts[i], part.stop - part.start)
        return Block(x.numpy(), valid)

    def _pick(self, array: NDArray[Any], spatial: Window, starts: list[int]) -> NDArray[Any]:
        for i, (axis, part) in enumerate(zip(self._near, spatial, strict=True)):
            index, _ = axis.taps(part)
            array = array.take(index[:, 0] - starts[i], axis=self._lead + i)
        return array

    def _filled(self, values: NDArray[Any], valid: NDArray[Any]) -> NDArray[Any]:
        flat = values.reshape(-1, *values.shape[self._lead :])
        good = np.broadcast_to(valid, values.shape).reshape(flat.shape)
        parts = [fill_invalid(v, g, self._reach).astype(values.dtype) for v, g in zip(flat, good, strict=True)]
        return np.where(good, flat, np.stack(parts)).reshape(values.shape)


class _AxisTaps:
    """Which input pixels, with which weights, make each output pixel of one axis."""

    def __init__(self, n_in: int, n_out: int, kernel: str, antialias: bool) -> None:
        self.n_in, self.n_out, self.kernel = n_in, n_out, kernel
        self.step = n_in / n_out
        self.stretch = max(1.0, self.step) if antialias else 1.0
        self.identity = n_in == n_out
        radius = 0.0 if kernel == "nearest" or self.identity else KERNELS[kernel].radius * self.stretch
        self.reach = int(np.ceil(radius))

    def taps(self, part: slice) -> tuple[NDArray[np.int64], NDArray[Any]]:
        positions = (np.arange(part.start, part.stop) + 0.5) * self.step - 0.5
        if self.kernel == "nearest":
            rows = np.clip(np.floor(positions + 0.5), 0, self.n_in - 1).astype(np.int64)
            one = np.ones((len(rows), 1))
            return rows[:, None], one
        return taps(positions, self.n_in, KERNELS[self.kernel], self.stretch)

    def span(self, part: slice, margin: int) -> tuple[int, int]:
        """First and past-last input pixel needed for the output pixels ``part``."""
        near = np.floor((np.array([part.start, part.stop - 1]) + 0.5) * self.step)
        reach = self.reach + 1 + margin
        return max(0, int(near[0]) - reach), min(self.n_in, int(near[1]) + reach + 1)

"""Back-projection of a whole raster, tile by tile: whatever made it, it then explains its input."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.classical.back_projection import effective_radius
from sciSR.consistency.measure import factors_between
from sciSR.degradation import Sensor, load_sensor
from sciSR.derived import DerivedSource, rows_in_order
from sciSR.encoding import work_dtype
from sciSR.errors import InputError
from sciSR.kernels import KERNELS, Kernel, centres, mirrored, taps
from sciSR.raster import Block, BlockSource, Raster, Window, gathered
from sciSR.resampling import apply_taps, sample_axis, sampling_taps, upsample
from sciSR.tiling import Tile, TilePlan

__all__ = ["enforce"]

_TILE = {2: 256, 3: 48}
_KEPT_TILES = 4
_U_RADIUS = 2

_Taps = tuple[NDArray[np.int64], NDArray[Any]]
_Operator = Callable[[Tensor, int], Tensor]


def enforce(
    result: Raster,
    low: Raster,
    sensor: str | Mapping[str, Any] | Sensor,
    *,
    iterations: int = 10,
    exact: bool = False,
    floor: float | None = None,
) -> Raster:
    """``result`` after back-projections ``x + U(low - D(x))``; lazy, tile by tile with a halo, for any factor.

    U is cubic interpolation (Irani and Peleg 1991, doi:10.1016/1049-9652(91)90045-L). The tiles follow from the shapes
    alone, so the values do not depend on how they are asked for. Pixels without a value in ``low`` pull at nothing.

    Args:
        result: the refined raster.
        low: what it was made from.
        sensor: D: a sensor, its name or values; its noise is left out.
        iterations: back-projections. With noise in ``low`` take few, for they put the noise into the result.
        exact: read all that can matter around a tile, so that it has the whole image's values but for rounding; else
            the halo at which they are within 1e-6 of the range.
        floor: least value allowed (0 for magnitude images), or None.

    Raises:
        GeometryError: the two do not cover the same field of view.
        InputError: they differ in channels, or ``iterations`` is negative.
    """
    factors = factors_between(result, low)
    if iterations < 0:
        raise InputError(f"consistency: iterations {iterations} is not 0 or more")
    chosen = load_sensor(sensor).noiseless().for_channels([channel.name for channel in low.channels])
    chosen = chosen.at(low.grid.spacing) if low.grid.unit == "mm" else chosen
    source = _Enforced(result, low, chosen, iterations, exact, floor)
    record = json.dumps({"iterations": iterations, "scale": factors, "sensor": chosen.to_dict()})
    return result.replace(source=source, provenance=MappingProxyType({**result.provenance, "data_consistency": record}))


class _Enforced(DerivedSource):
    """Back-projected blocks; the tiles lie on the coarse grid."""

    by_slabs = True

    def __init__(
        self, result: Raster, low: Raster, sensor: Sensor, iterations: int, exact: bool, floor: float | None
    ) -> None:
        super().__init__(result.source)
        self._result, self._low = result, low
        self._sensor, self._iterations, self._exact, self._floor = sensor, iterations, exact, floor
        self._lead = len(result.leading)
        fine, coarse, axes = result.grid.shape, low.grid.shape, result.grid.axes
        sensor.factors([n / m for n, m in zip(fine, coarse, strict=True)], len(axes))
        self._axes = [
            _Axis(n, m, sensor.kernels(axis, n / m, len(low.channels)) if n > m else ())
            for n, m, axis in zip(fine, coarse, axes, strict=True)
        ]
        halo = [_halo(sensor, a, n / m, iterations, exact) for a, n, m in zip(axes, fine, coarse, strict=True)]
        tile = tuple(min(_TILE[len(coarse)], m) for m in coarse)
        self._plan = TilePlan(coarse, tile, tuple(halo), (1,) * len(coarse))
        self._cache: OrderedDict[Any, Block] = OrderedDict()
        self._lock = threading.Lock()

    def over(self, source: BlockSource) -> _Enforced:
        result = self._result.replace(source=source)
        return _Enforced(result, self._low, self._sensor, self._iterations, self._exact, self._floor)

    @property
    def dtype(self) -> np.dtype[Any]:
        return work_dtype(self._result.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        first = self._fine(self._plan[0].core)
        return self._result.one_time + tuple(p.stop - p.start for p in first)

    def read(self, window: Window) -> Block:
        tiles = self._meeting(window)
        return gathered(((w, self._tile(outer, tile)) for w, outer, tile in tiles), window, self.dtype)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, tile by tile; of a network's result in rows of tiles, so that it is computed once."""
        with rows_in_order(self._inner, self._lead) as read:
            for window, outer, tile in self._meeting(tuple(slice(0, n) for n in self.shape)):
                yield window, self._run(outer, tile, read)

    def _meeting(self, window: Window) -> Iterator[tuple[Window, Window, Tile]]:
        """The fine pixels of each tile that meet ``window``, the part of its axes before the spatial ones, the tile."""
        spatial = zip(window[self._lead :], self._result.grid.shape, self._low.grid.shape, strict=True)
        coarse = tuple(slice(p.start * m // n, -(-p.stop * m // n)) for p, n, m in spatial)
        lead = [
            [slice(0, n)] if axis == "c" else [slice(t, t + 1) for t in range(p.start, p.stop)]
            for axis, n, p in zip(self._result.axes, self._result.leading, window, strict=False)
        ]
        for outer in product(*lead):
            for tile in self._plan.covering(coarse):
                whole = (*outer, *self._fine(tile.core))
                if all(max(p.start, q.start) < min(p.stop, q.stop) for p, q in zip(window, whole, strict=True)):
                    yield whole, outer, tile

    def _fine(self, coarse: Window) -> Window:
        """The fine pixels whose centres lie in ``coarse``, so that cores cover the fine grid exactly once."""
        shapes = zip(coarse, self._result.grid.shape, self._low.grid.shape, strict=True)
        return tuple(slice(_first(p.start, n, m), _first(p.stop, n, m)) for p, n, m in shapes)

    def _tile(self, outer: Window, tile: Tile) -> Block:
        key = tuple(p.start for p in (*outer, *tile.core))
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        block = self._run(outer, tile, self._inner.read)
        with self._lock:
            self._cache[key] = block
            while len(self._cache) > _KEPT_TILES:
                self._cache.popitem(last=False)
        return block

    def _run(self, outer: Window, tile: Tile, read: Callable[[Window], Block]) -> Block:
        fine = self._fine(tile.read)
        result, low = read((*outer, *fine)), self._low.read((*outer, *tile.read))
        down = [axis.down(c, f) for axis, c, f in zip(self._axes, tile.read, fine, strict=True)]
        up = [axis.up(c, f) for axis, c, f in zip(self._axes, tile.read, fine, strict=True)]
        x, known = self._tensors(result)
        y, seen = self._tensors(low)
        if known is not None:
            weight = _sampled(known, down)
            seen = (weight >= 0.5).to(x) * (1 if seen is None else seen)
        for _ in range(self._iterations):
            missing = y - _sampled(x, down)
            x = x + _sampled(missing if seen is None else missing * seen, up)
        if self._floor is not None:
            x = x.clamp_min(self._floor)
        core = self._fine(tile.core)
        keep = tuple(slice(c.start - f.start, c.stop - f.start) for c, f in zip(core, fine, strict=True))
        keep = (slice(None),) * self._lead + keep
        values = x.numpy().reshape(result.values.shape)[keep]
        return Block(values, None if result.valid is None else result.valid[keep])

    def _tensors(self, block: Block) -> tuple[Tensor, Tensor | None]:
        """Values ``(1, c, spatial…)`` with 0 where there are none, and 1 or 0 where there are, or None."""
        spatial = block.values.shape[self._lead :]
        values = block.values.astype(self.dtype)
        valid = block.valid
        if not np.isfinite(values).all():
            valid = np.isfinite(values) if valid is None else valid & np.isfinite(values)
        if valid is not None:
            values = np.where(valid, values, 0).astype(self.dtype)
        x = torch.from_numpy(np.ascontiguousarray(values)).reshape(1, -1, *spatial)
        if valid is None:
            return x, None
        return x, torch.from_numpy(np.ascontiguousarray(valid)).reshape(1, -1, *spatial).to(x)


def _halo(sensor: Sensor, axis: str, step: float, iterations: int, exact: bool) -> int:
    """Coarse pixels around a tile."""
    if step == 1 or iterations == 0:
        return 0
    sampled = sensor.along(axis)
    bound = iterations * (_U_RADIUS + math.ceil(sampled.radius((step, step))[0] / step) + 1)
    return bound if exact else min(bound, effective_radius(sensor, axis, math.ceil(step), iterations) + 1)


def _first(edge: int, n: int, m: int) -> int:
    """The first of ``n`` fine pixels whose centre does not lie before the edge of coarse pixel ``edge`` of ``m``."""
    return -(-(2 * edge * n - m) // (2 * m))


class _Axis:
    """D and U along one axis, on windows that are mirrored where the kernels reach out of them."""

    def __init__(self, fine: int, coarse: int, kernels: tuple[Kernel, ...]) -> None:
        self.fine, self.coarse, self.kernels = fine, coarse, kernels

    def down(self, coarse: slice, fine: slice) -> _Operator | None:
        """From a fine window to the coarse one over it; None where both grids are the same."""
        if self.fine == self.coarse:
            return None
        if self.fine % self.coarse == 0:
            return lambda x, dim: sample_axis(x, dim, coarse.stop - coarse.start, self.kernels)
        return _on_window(_down_taps(self.fine, self.coarse, self.kernels), coarse, fine)

    def up(self, coarse: slice, fine: slice) -> _Operator | None:
        """From a coarse window to the fine one under it; None where both grids are the same."""
        if self.fine == self.coarse:
            return None
        if self.fine % self.coarse == 0:
            step = self.fine // self.coarse
            return lambda x, dim: upsample(x, [step if d == dim else 1 for d in range(2, x.dim())])
        return _on_window(taps(centres(self.coarse, self.fine), self.coarse, KERNELS["cubic"]), fine, coarse)


@lru_cache(maxsize=64)
def _down_taps(fine: int, coarse: int, kernels: tuple[Kernel, ...]) -> _Taps:
    return sampling_taps(fine, coarse, kernels)


def _on_window(weights: _Taps, rows: slice, cols: slice) -> _Operator:
    """The weights of ``rows`` on a window ``cols``."""
    index, weight = weights
    local = mirrored(index[rows] - cols.start, cols.stop - cols.start)
    return lambda x, dim: apply_taps(x, dim, local, weight[..., rows, :])


def _sampled(x: Tensor, operators: list[_Operator | None]) -> Tensor:
    for axis, operator in enumerate(operators):
        if operator is not None:
            x = operator(x, axis + 2)
    return x

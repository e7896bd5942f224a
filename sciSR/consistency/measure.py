"""How far the sensor applied to a result is from the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.degradation import Sensor, degrade, load_sensor
from sciSR.derived import DerivedSource
from sciSR.encoding import Encoding
from sciSR.errors import GeometryError, InputError
from sciSR.normalization import Normalization
from sciSR.raster import Block, Raster, Window

__all__ = ["Consistency", "factors_between", "residual"]


@dataclass(frozen=True)
class Consistency:
    """How well a result explains its input.

    Attributes:
        rmse: root of the mean square of D(result) - input, physical.
        relative: ``rmse`` as a fraction of ``data_range``.
        greatest: greatest absolute difference, physical.
        data_range: length of the range, physical.
        pixels: input pixels that were compared.
        sensor: name of D.
        map: D(result) - input on the input's grid, lazy.
    """

    rmse: float
    relative: float
    greatest: float
    data_range: float
    pixels: int
    sensor: str
    map: Raster

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        names = ("rmse", "relative", "greatest", "data_range", "pixels", "sensor")
        return {name: getattr(self, name) for name in names}


def residual(
    result: Raster,
    low: Raster,
    sensor: str | Mapping[str, Any] | Sensor,
    *,
    data_range: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Consistency:
    """How far ``sensor`` applied to ``result`` is from ``low``; both are streamed once, in blocks.

    Noise of the sensor is left out; pixels without a value in either do not count. A lazy result is computed for it,
    so give the saved one where there is one.

    Args:
        result: the refined raster.
        low: what it was made from.
        sensor: D: a sensor, its name or values.
        data_range: physical length of the range; None: from percentile 0.5 to 99.5 of ``low``.
        progress: called with (values done, values in all).

    Raises:
        GeometryError: the two do not cover the same field of view.
        InputError: they differ in channels, or not one pixel has a value in both.

    Example:
        >>> fine = Raster.from_array(np.random.default_rng(0).random((8, 8)), affine=np.eye(3), axes="yx")
        >>> residual(fine, degrade(fine, 2, sensor="box"), "box").relative < 1e-6
        True
    """
    seen = degrade(result, factors_between(result, low), sensor=sensor, noise=False)
    difference = low.replace(
        source=_Difference(seen, low), encoding=Encoding("float32"), auxiliary=MappingProxyType({}), name="residual"
    )
    if data_range is None:
        data_range = float(Normalization("percentile").fit(low).scale[0])
    total, count, greatest, done = 0.0, 0, 0.0, 0
    for _, block in difference.stream():
        values = block.values if block.valid is None else block.values[block.valid]
        total += float(np.square(values, dtype=np.float64).sum())
        count += values.size
        greatest = max(greatest, float(np.abs(values).max(initial=0.0)))
        done += block.values.size
        if progress is not None:
            progress(done, math.prod(low.shape))
    if count == 0:
        raise InputError(f"{low.name}: no pixel has a value both here and in {result.name}; nothing to compare")
    rmse = math.sqrt(total / count)
    return Consistency(rmse, rmse / data_range, greatest, data_range, count, load_sensor(sensor).name, difference)


def factors_between(result: Raster, low: Raster) -> dict[str, float]:
    """Fine pixels per coarse pixel by axis, of two rasters of the same field of view and channels.

    Raises:
        GeometryError: another field of view or frame.
        InputError: other channels or times.
    """
    if not result.grid.same_space(low.grid, tolerance_px=0.1):
        raise GeometryError(
            f"{result.name}: bounds {result.grid.bounds} in frame {result.grid.frame} are not those of {low.name}, "
            f"{low.grid.bounds} in {low.grid.frame}; compare a result with its own input"
        )
    if result.leading != low.leading:
        raise InputError(
            f"{result.name}: it has {result.leading} times or channels, {low.name} has {low.leading}; compare a result "
            "with its own input"
        )
    return result.grid.factors(low.grid)


class _Difference(DerivedSource):
    """D(result) minus the input."""

    def __init__(self, seen: Raster, low: Raster) -> None:
        super().__init__(seen.source)
        self._low = low

    def _changed(self, window: Window, seen: Block) -> Block:
        low = self._low.read(window)
        values = seen.values - low.values.astype(self.dtype)
        valid = _both(seen.valid, low.valid)
        if not np.isfinite(values).all():
            valid = _both(np.isfinite(values), valid)
        return Block(values if valid is None else np.where(valid, values, 0), valid)


def _both(a: NDArray[Any] | None, b: NDArray[Any] | None) -> NDArray[Any] | None:
    return b if a is None else a if b is None else a & b

"""Invertible intensity maps between physical values and what a network is trained on.

A :class:`Normalization` is a recipe (part of a checkpoint); :meth:`Normalization.fit` freezes it on one raster into an
:class:`IntensityMap`, the same for all of its tiles, whose :meth:`~IntensityMap.invert` undoes
:meth:`~IntensityMap.apply` exactly and never clips: true peaks may lie outside the input's range.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import work_dtype
from sciSR.errors import InputError, RadiometryWarning
from sciSR.raster import Raster, Window

__all__ = ["IntensityMap", "Normalization"]

_SAMPLES = 2**22
_LEAST_REACH = 0.003
"""Deep water under a clear sky still reflects some 0.01: below this the unit is another one."""
_GREATEST_REACH = 300.0
_GLANCE_PX = 64


@dataclass(frozen=True)
class IntensityMap:
    """``normalised = (physical - center) / scale`` per channel; one entry serves all channels.

    ``floor`` is the least physical value that :meth:`invert` may give (magnitude images are never negative), or None.
    """

    center: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    floor: float | None = None

    def apply(self, values: NDArray[Any], channel_axis: int | None = None) -> NDArray[np.float32]:
        """Normalised float32 values; the subtraction is done in float64 for types wider than float32 holds."""
        work = values.astype(work_dtype(values.dtype), copy=False)
        center, scale = (self._along(v, values.ndim, channel_axis, work.dtype) for v in (self.center, self.scale))
        normal: NDArray[Any] = np.asarray(work - center)
        normal /= scale
        return normal.astype(np.float32, copy=False)

    def invert(
        self, values: NDArray[np.float32], channel_axis: int | None = None, dtype: Any = np.float32
    ) -> NDArray[Any]:
        """Physical values in ``dtype`` (float32 or float64)."""
        center, scale = (self._along(v, values.ndim, channel_axis, dtype) for v in (self.center, self.scale))
        physical: NDArray[Any] = np.multiply(values, scale, dtype=dtype)
        physical = np.add(physical, center, out=np.asarray(physical))
        return physical if self.floor is None else np.maximum(physical, physical.dtype.type(self.floor), out=physical)

    def channel(self, number: int) -> IntensityMap:
        """The map of one channel."""
        if len(self.center) == 1:
            return self
        return IntensityMap((self.center[number],), (self.scale[number],), self.floor)

    @staticmethod
    def _along(values: tuple[float, ...], ndim: int, channel_axis: int | None, dtype: Any) -> NDArray[Any]:
        shape = [1] * ndim
        if len(values) > 1:
            if channel_axis is None:
                raise InputError(
                    f"normalization: {len(values)} channel values came for an array without a channel axis"
                )
            shape[channel_axis] = len(values)
        return np.array(values, dtype=dtype).reshape(shape)


@dataclass(frozen=True)
class Normalization:
    """How physical values become a network's input.

    Attributes:
        kind: ``"identity"``; ``"fixed"``: ``center`` and ``scale`` as given (HU, reflectance);
            ``"percentile"``: per raster, the robust range from percentile ``low`` to ``high`` of the valid values
            becomes 0 to 1.
        center: physical value that becomes 0, for ``"fixed"``; one entry or one per channel.
        scale: physical length that becomes 1, for ``"fixed"``; likewise.
        low: lower percentile, for ``"percentile"``.
        high: upper percentile, for ``"percentile"``.
        per_channel: fit each channel by itself, for ``"percentile"``.
        nonnegative: ``True``: results are not below 0; ``"auto"``: not if the input nowhere is; ``False``: they may be.

    Example:
        >>> hounsfield = Normalization("fixed", center=(-1024.0,), scale=(4095.0,))
        >>> hounsfield.fit(None).apply(np.array([-1024.0, 3071.0]))
        array([0., 1.], dtype=float32)
    """

    kind: Literal["identity", "fixed", "percentile"] = "identity"
    center: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    low: float = 0.5
    high: float = 99.5
    per_channel: bool = False
    nonnegative: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", tuple(float(v) for v in self.center))
        object.__setattr__(self, "scale", tuple(float(v) for v in self.scale))
        if self.kind not in ("identity", "fixed", "percentile"):
            raise InputError(f"normalization: kind {self.kind!r} is not identity, fixed or percentile")
        if any(not np.isfinite(s) or s == 0 for s in self.scale):
            raise InputError(f"normalization: scale {self.scale} must be finite and not 0")
        if not 0 <= self.low < self.high <= 100:
            raise InputError(f"normalization: percentiles {self.low} and {self.high} must rise within 0 to 100")

    def fit(self, raster: Raster | None) -> IntensityMap:
        """The map for one raster; deterministic, independent of chunks. A constant raster gets scale 1.

        Percentiles are taken of at most some four million values on a regular grid, extremes of all; where both
        percentiles are one value (a small object in much air) the extremes take their place.

        A fixed recipe for scenes is written for one unit (reflectance times 10000). Where a scene's values do not come
        near its range but its stored numbers do (a band scale of 0.0001), the recipe is restated in the scene's unit;
        where neither does, it is refused; a type too narrow for the recipe is told by a
        :class:`~sciSR.errors.RadiometryWarning`.

        Raises:
            InputError: no valid value at all, or a scene in another unit than the recipe's.
        """
        if self.kind != "percentile":
            center, scale = self._in_unit_of(raster) if self.kind == "fixed" else ((0.0,), (1.0,))
            low = None if raster is None or self.nonnegative != "auto" else _statistics(raster, self)[2]
            return IntensityMap(center, scale, self._floor(low))
        if raster is None:
            raise InputError("normalization: kind percentile needs a raster to be fitted on")
        lows, highs, least = _statistics(raster, self)
        spans = tuple(h - lo if h > lo else 1.0 for lo, h in zip(lows, highs, strict=True))
        return IntensityMap(lows, spans, self._floor(least))

    def _in_unit_of(self, raster: Raster | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Center and scale in the unit of the raster's values."""
        if raster is None or len(raster.grid.shape) != 2:
            return self.center, self.scale
        values = _glance(raster)
        unit = np.array(raster.encoding.scale)
        if not self._fits(values) and not (unit.min() > 0 and self._fits(values / unit.mean())):
            # five windows may all lie in deep water: look at the whole before refusing it
            values = np.concatenate([values, *_gather(raster, 1, _stride(raster))[0].samples]).astype(np.float64)
        if self._fits(values):
            self._doubt_narrow(raster)
            return self.center, self.scale
        if unit.min() > 0 and self._fits(values / unit.mean()):
            return tuple((np.array(self.center) * unit).tolist()), tuple((np.array(self.scale) * unit).tolist())
        reach = float(np.abs(values).max())
        hint = "--normalization fraction (values of 0 to 1), or " if 0.01 < reach < 3 else ""
        raise InputError(
            f"{raster.name}: values reach {reach:.4g}, the normalization is made for about {self.scale[0]:g}; pass "
            f"{hint}one of your own (kind: fixed, scale: the value that becomes 1), or set the scale the file lacks"
        )

    def _doubt_narrow(self, raster: Raster) -> None:
        """Warn where the stored type ends far below what the recipe is made for, as 8-bit pictures do."""
        stored = np.dtype(raster.encoding.dtype)
        if stored.kind not in "iu" or not raster.encoding.identity:
            return
        top = int(np.iinfo(stored).max)
        if top < abs(max(self.scale)) / 10:
            warnings.warn(
                f"{raster.name}: {stored} ends at {top}, the normalization is made for about {self.scale[0]:g}: the "
                f"result will be poor; pass a normalization of your own (kind: fixed, scale: {top})",
                RadiometryWarning,
                stacklevel=4,
            )

    def _fits(self, values: NDArray[np.float64]) -> bool:
        """Whether the recipe brings the greater values anywhere near 1; no value and nothing but zeros fit anything."""
        if not values.any():
            return True
        reach = float(np.percentile(np.abs(values - self.center[0]), 99.5)) / abs(max(self.scale))
        return _LEAST_REACH <= reach <= _GREATEST_REACH

    def _floor(self, least: float | None) -> float | None:
        if self.nonnegative == "auto":
            return 0.0 if least is not None and least >= 0 else None
        return 0.0 if self.nonnegative else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalization:
        """The recipe from :meth:`to_dict`'s values."""
        return cls(**values)


@dataclass
class _Group:
    """What is known of one channel, or of all together."""

    samples: list[NDArray[Any]] = field(default_factory=list)
    least: float = np.inf
    greatest: float = -np.inf

    def range(self, low: float, high: float) -> tuple[float, float]:
        """From one percentile to the other; the extremes where both are the same value."""
        ends = np.percentile(np.concatenate(self.samples).astype(np.float64), [low, high])
        return (float(ends[0]), float(ends[1])) if ends[1] > ends[0] else (self.least, self.greatest)


def _statistics(raster: Raster, recipe: Normalization) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Lower and upper end per channel (or of all together), and the least valid value of all."""
    count = raster.leading[raster.channel_axis] if recipe.per_channel and raster.channel_axis is not None else 1
    groups = _gather(raster, count, _stride(raster))
    if any(group.greatest >= group.least and not group.samples for group in groups):
        groups = _gather(raster, count, 1)  # values so sparse that the grid of samples missed them all
    for number, group in enumerate(groups, 1):
        if not group.samples:
            where = f" in channel {number}" if count > 1 else ""
            raise InputError(f"{raster.name}: no valid value{where}: every pixel is NaN or nodata, nothing to upscale")
    ends = [group.range(recipe.low, recipe.high) for group in groups]
    return tuple(e[0] for e in ends), tuple(e[1] for e in ends), min(group.least for group in groups)


def _stride(raster: Raster) -> int:
    """Every how-many-th pixel along each spatial axis is looked at, so that at most some 4 million are."""
    total = float(np.prod(raster.shape))
    return max(1, int(np.ceil((total / _SAMPLES) ** (1 / len(raster.grid.shape)))))


def _gather(raster: Raster, count: int, step: int) -> list[_Group]:
    """The extremes of all valid values, and those at every ``step``-th pixel of each spatial axis, per group."""
    groups = [_Group() for _ in range(count)]
    channel = raster.channel_axis
    for window, block in raster.stream():
        values, valid = block.values, block.valid
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            valid = np.isfinite(values) if valid is None else valid & np.isfinite(values)
        at = _strided(window, len(raster.grid.shape), step)
        for number in range(count):
            pick: Any = ...
            if count > 1 and channel is not None:
                part = window[channel]
                if not part.start <= number < part.stop:
                    continue
                pick = tuple(
                    slice(number - part.start, number - part.start + 1) if i == channel else slice(None)
                    for i in range(values.ndim)
                )
            _note(groups[number], values[pick], None if valid is None else valid[pick], at)
    return groups


def _note(group: _Group, values: NDArray[Any], valid: NDArray[Any] | None, at: tuple[slice, ...]) -> None:
    whole = values if valid is None else values[valid]
    if not whole.size:
        return
    group.least = min(group.least, float(whole.min()))
    group.greatest = max(group.greatest, float(whole.max()))
    chosen = values[at].reshape(-1) if valid is None else values[at][valid[at]]
    if chosen.size:
        group.samples.append(chosen)


def _strided(window: Window, spatial: int, step: int) -> tuple[slice, ...]:
    """Slices that pick the pixels whose whole-raster index is a multiple of ``step``, inside a block of ``window``."""
    leading = (slice(None),) * (len(window) - spatial)
    return leading + tuple(slice((-part.start) % step, None, step) for part in window[len(leading) :])


def _glance(raster: Raster) -> NDArray[np.float64]:
    """The valid values of five small windows, in the middle and towards the corners, whatever the chunks."""
    found = []
    height, width = raster.grid.shape[-2:]
    for row, column in ((0.5, 0.5), (0.15, 0.15), (0.15, 0.85), (0.85, 0.15), (0.85, 0.85)):
        spatial = []
        for part, n in ((row, height), (column, width)):
            start = int(part * max(0, n - _GLANCE_PX))
            spatial.append(slice(start, min(n, start + _GLANCE_PX)))
        block = raster.read((*(slice(0, n) for n in raster.leading), *spatial))
        found.append((block.values if block.valid is None else block.values[block.valid]).ravel())
    values = np.concatenate(found).astype(np.float64)
    return values[np.isfinite(values)]

"""How physical values become stored values and back: scale, offset, rounding, saturation, nodata.

``physical = stored * scale + offset`` per channel, as GDAL's band scale and offset and NIfTI's scl_slope and scl_inter
say it. Integers are rounded half to even, saturate at the limits of their type and never wrap, and a valid value never
takes the stored value that means nodata.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import InputError

__all__ = ["Encoding", "stored_mark", "work_dtype"]


@dataclass(frozen=True)
class Encoding:
    """The stored form of a raster's values.

    Attributes:
        dtype: numpy name of the stored type.
        scale: factor per channel (one entry serves all channels).
        offset: added after scaling, per channel.
        nodata: stored value that means "no value", per channel; None where there is none. NaN is allowed.
        mask: whether the file keeps validity in a mask beside the values.

    Example:
        >>> hounsfield = Encoding("int16", offset=(-1024.0,))
        >>> hounsfield.encode(np.array([-1000.5, 99999.0], np.float32))
        array([   24, 32767], dtype=int16)
    """

    dtype: str
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    nodata: tuple[float | None, ...] = (None,)
    mask: bool = False

    def __post_init__(self) -> None:
        for factor in self.scale:
            if not np.isfinite(factor) or factor == 0:
                raise InputError(f"encoding: scale {factor} cannot be inverted; expected a finite number other than 0")
        if not np.isfinite(self.offset).all():
            raise InputError(f"encoding: offset {self.offset} is not finite")

    @property
    def identity(self) -> bool:
        """Whether stored and physical values are the same numbers."""
        return all(s == 1 for s in self.scale) and all(o == 0 for o in self.offset)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Type of physical values: the stored type if nothing is scaled, else float32, or float64 for wide types."""
        stored = np.dtype(self.dtype)
        if self.identity:
            return stored
        return work_dtype(stored)

    def select(self, channels: slice) -> Encoding:
        """The encoding of some of the channels."""
        parts = {name: getattr(self, name) for name in ("scale", "offset", "nodata")}
        return replace(self, **{name: part[channels] if len(part) > 1 else part for name, part in parts.items()})

    def decode(self, stored: NDArray[Any], channel_axis: int | None = None) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Physical values of ``stored`` and where they are valid (bool, same shape), or None if all are.

        Args:
            stored: array of the stored type; NaN and infinity are no values.
            channel_axis: axis along which scale, offset and nodata vary; None if there is one channel.
        """
        valid = self._valid(stored, channel_axis)
        if self.identity:
            return stored, valid
        scale, offset = (_along(v, stored.ndim, channel_axis) for v in (self.scale, self.offset))
        with np.errstate(over="ignore", invalid="ignore"):  # marks of no value may lie at the end of the type's range
            physical = stored.astype(np.float64)
            physical *= scale
            physical += offset
            return physical.astype(self.value_dtype, copy=False), valid

    def encode(
        self, values: NDArray[Any], valid: NDArray[Any] | None = None, channel_axis: int | None = None
    ) -> NDArray[Any]:
        """Stored values of physical ``values``; where not ``valid``, nodata (or NaN, or 0 where the type has neither).

        Args:
            values: physical values; NaN in a float array counts as not valid.
            valid: bool, shape of ``values`` or broadcastable to it; None if all are valid.
            channel_axis: as for :meth:`decode`.
        """
        target = np.dtype(self.dtype)
        if self.identity and values.dtype == target:
            stored = values.copy()
        elif self.identity:
            stored = _cast(values, target)
        else:
            work = np.float32 if self._fits_float32(values.dtype, target) else np.float64
            scale: NDArray[Any] = _along(self.scale, values.ndim, channel_axis).astype(work)
            offset: NDArray[Any] = _along(self.offset, values.ndim, channel_axis).astype(work)
            stored = _cast((values.astype(work, copy=False) - offset) / scale, target)
        valid = _also_number(values, valid)
        for channel, part, ok in _per_channel(stored, valid, len(self.nodata), channel_axis):
            _settle_nodata(part, ok, self.nodata[channel])
        return stored

    def _fits_float32(self, dtype: np.dtype[Any], target: np.dtype[Any]) -> bool:
        """Whether float32 finds the nearest stored value: narrow whole numbers, not far from the offset's zero."""
        narrow = target.kind in "iu" and target.itemsize <= 2 and dtype == np.float32
        return narrow and all(abs(o / s) < 2**20 for s, o in product(self.scale, self.offset))

    def _valid(self, stored: NDArray[Any], channel_axis: int | None) -> NDArray[Any] | None:
        """Where there is a value, or None if everywhere, which costs no array of its own."""
        holes = None if stored.dtype.kind != "f" or _all_finite(stored) else ~np.isfinite(stored)
        for channel, part, _ in _per_channel(stored, None, len(self.nodata), channel_axis):
            mark = stored_mark(self.nodata[channel], stored.dtype)
            found = None if mark is None else part == mark
            if found is not None and found.any():
                holes = np.zeros(stored.shape, dtype=bool) if holes is None else holes
                _per_channel(holes, None, len(self.nodata), channel_axis)[channel][1][...] |= found
        return None if holes is None else ~holes


def _along(values: tuple[float, ...], ndim: int, channel_axis: int | None) -> NDArray[np.float64]:
    shape = [1] * ndim
    if len(values) > 1:
        if channel_axis is None:
            raise InputError(f"encoding: {len(values)} channel values came for an array without a channel axis")
        shape[channel_axis] = len(values)
    return np.array(values, dtype=np.float64).reshape(shape)


def _cast(values: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    """``values`` in ``target``: rounded half to even and saturated for integers."""
    if target.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(target)
    info = np.iinfo(target) if target.kind in "iu" else None
    low, high = (info.min, info.max) if info else (0, 1)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN has no stored value; whoever called puts nodata there
            if target.itemsize <= 2:
                near: NDArray[Any] = np.rint(values)
                return np.clip(near, low, high, out=near).astype(target)
            rounded = np.rint(values.astype(np.float64))
            # the greatest float64 below 2**63 or 2**64 is where a 64-bit integer saturates
            top = float(high) if high < 2**53 else float(np.nextafter(float(high), 0))
            saturated = np.clip(rounded, float(low), top).astype(target)
        saturated[rounded > top] = high
        return saturated
    clipped: NDArray[Any] = np.clip(values, low, high).astype(target)
    return clipped


def _all_finite(values: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite; sure where true, and found without an array of the values' size."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _also_number(values: NDArray[Any], valid: NDArray[Any] | None) -> NDArray[Any] | None:
    if values.dtype.kind == "f" and not _all_finite(values):
        number: NDArray[Any] = ~np.isnan(values) if valid is None else valid & ~np.isnan(values)
        return number
    return None if valid is None else np.broadcast_to(valid, values.shape)


def _per_channel(
    stored: NDArray[Any], valid: NDArray[Any] | None, channels: int, channel_axis: int | None
) -> list[tuple[int, NDArray[Any], NDArray[Any] | None]]:
    if channels == 1 or channel_axis is None:
        return [(0, stored, valid)]
    at: list[Any] = [slice(None)] * stored.ndim
    parts = []
    for channel in range(channels):
        at[channel_axis] = channel
        parts.append((channel, stored[tuple(at)], None if valid is None else valid[tuple(at)]))
    return parts


def _settle_nodata(part: NDArray[Any], valid: NDArray[Any] | None, nodata: float | None) -> None:
    """Write nodata where not valid, and move valid values that happen to equal it to the next legal value."""
    mark = stored_mark(nodata, part.dtype)
    if mark is not None:
        clash = part == mark if valid is None else (part == mark) & valid
        if clash.any():
            part[clash] = _neighbour(mark)
        if valid is not None:
            part[~valid] = mark
    elif valid is not None:
        part[~valid] = np.nan if part.dtype.kind == "f" else 0


def _neighbour(mark: Any) -> Any:
    """The legal stored value nearest to ``mark``, upwards unless it is the type's greatest."""
    one = mark.dtype.type(1)
    if mark.dtype.kind == "f":
        limit = np.finfo(mark.dtype).max
        return np.nextafter(mark, mark.dtype.type(-np.inf if mark >= limit else np.inf))
    if mark.dtype.kind == "b":
        return ~mark
    return mark - one if mark == np.iinfo(mark.dtype).max else mark + one


def work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What values of a type are computed in: float32 where it holds all of them exactly, else float64.

    Example:
        >>> work_dtype(np.dtype("uint16")), work_dtype(np.dtype("int32"))
        (dtype('float32'), dtype('float64'))
    """
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


def stored_mark(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """``nodata`` as a scalar of ``dtype``, or None where no value of that type other than NaN can equal it.

    A file may state a nodata value that its type cannot hold (-9999 for uint8, 0.5 or NaN for integers): such a value
    marks nothing, and is never wrapped or rounded into one that does. A finite value just beyond the largest float32
    (the text ``-3.4028234663852886e+38`` of many files) means that largest value.

    Example:
        >>> stored_mark(-9999, np.dtype("uint8")) is None, stored_mark(-9999, np.dtype("int16"))
        (True, np.int16(-9999))
    """
    if nodata is None or np.isnan(nodata):
        return None
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if not np.isfinite(nodata) or nodata != int(nodata) or not info.min <= int(nodata) <= info.max:
            return None
        return dtype.type(int(nodata))
    if dtype.kind == "f" and np.isfinite(nodata):
        limit = float(np.finfo(dtype).max)
        if abs(nodata) > limit * (1 + 1e-6):
            return None
        return dtype.type(min(max(float(nodata), -limit), limit))
    return dtype.type(nodata) if dtype.kind == "f" or nodata in (0, 1) else None

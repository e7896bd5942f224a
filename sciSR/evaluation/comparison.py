"""evaluate(): rasters against a reference raster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.consistency import residual
from sciSR.degradation import Sensor, load_sensor
from sciSR.errors import GeometryError, InputError
from sciSR.evaluation.table import Score, ScoreTable
from sciSR.evaluation.tally import Tally, slabs
from sciSR.inference import upscale
from sciSR.normalization import Normalization
from sciSR.raster import Raster, Window

__all__ = ["Steps", "check_comparable", "compare", "evaluate", "spread_mask"]

Progress = Callable[[int, int], None]
Mask = Raster | NDArray[Any]

_PIECE_VALUES = 2**21


def evaluate(
    result: Raster | Mapping[str, Raster],
    *,
    reference: Raster,
    low: Raster | None = None,
    sensor: Sensor | str | Mapping[str, Any] | None = None,
    baselines: Sequence[str] = (),
    data_range: float | None = None,
    mask: Mask | None = None,
    progress: Progress | None = None,
) -> ScoreTable:
    """How close a result, and classical methods beside it, come to a reference.

    A lazy result is computed as it is compared, and again for its consistency: give the saved one where there is one.

    Values are compared in physical units where both have one. A volume gets a second row for its foreground: reference
    values above the point 10 % of the way from percentile 2 to 98 (Smith 2002, doi:10.1002/hbm.10062).

    Args:
        result: what to judge, or several by name.
        reference: the truth, on the same grid.
        low: the raster that the result was made from; needed for ``baselines`` and for the consistency column.
        sensor: how ``low`` came from the truth: name, file, values or :class:`~sciSR.sensors.Sensor`.
        baselines: classical methods to run on ``low`` (``"cubic"``, ``"ibp"``).
        data_range: length of the value range for PSNR and SSIM; None: from percentile 0.1 to 99.9 of the reference,
            found once for all methods and said in the table.
        mask: compare only where it is not 0, beside all valid pixels: a raster on the reference's grid, or an array
            that broadcasts to its shape.
        progress: called with (values compared, values in all).

    Raises:
        GeometryError: result and reference do not lie on one grid.
        InputError: baselines without ``low``, channels that differ, or a mask that does not fit.

    Example:
        >>> truth = Raster.from_array(np.arange(400.0).reshape(1, 20, 20), affine=np.eye(3), axes="cyx")
        >>> table = evaluate(truth, reference=truth, data_range=400)
        >>> table.value("result", "psnr"), table.value("result", "ssim")
        (inf, 1.0)
    """
    methods = dict(result) if isinstance(result, Mapping) else {"result": result}
    if low is None and baselines:
        raise InputError("evaluate: baselines are made from the low-resolution raster; give low=")
    for raster in methods.values():
        check_comparable(raster, reference, mask)
    if low is not None:
        factors = _factors(low, reference)
        for name in baselines:
            methods.setdefault(name, upscale(low, name, scale=factors, sensor=_known(sensor)))
    return compare(methods, reference, low=low, sensor=sensor, data_range=data_range, mask=mask, progress=progress)


def compare(
    methods: Mapping[str, Raster],
    reference: Raster,
    *,
    low: Raster | None = None,
    sensor: Sensor | str | Mapping[str, Any] | None = None,
    data_range: float | None = None,
    mask: Mask | None = None,
    progress: Progress | None = None,
) -> ScoreTable:
    """The table of several results on the grid of one reference; arguments as for :func:`evaluate`."""
    peak, origin = (float(data_range), "given") if data_range is not None else _robust_range(reference)
    if not (math.isfinite(peak) and peak > 0):
        raise InputError(f"evaluate: data_range {data_range} is not a finite positive number")
    regions = _Regions.of(reference, mask)
    settings: dict[str, Any] = {"unit": reference.unit} if reference.unit else {}
    settings |= {"data_range": peak, "data_range_from": origin}
    if regions.threshold is not None:
        settings["foreground"] = f"reference > {regions.threshold:g}" + (f" {reference.unit}" if reference.unit else "")
    ratio = None if low is None else math.prod(_factors(low, reference).values()) ** (-1 / len(reference.grid.shape))
    consistent = low is not None and sensor is not None
    if sensor is not None:
        settings["sensor"] = load_sensor(sensor).name
    each = math.prod(reference.shape)
    steps = Steps(progress, len(methods) * each)
    rows: list[Score] = []
    for name, raster in methods.items():
        scored = _scores(name, raster, reference, regions, peak, ratio, steps.next(each))
        if consistent and low is not None and sensor is not None:
            relative = residual(raster, low, load_sensor(sensor), data_range=peak).relative
            scored = [
                _with(row, "consistency", relative) if (row.part, row.region) == ("all", "valid") else row
                for row in scored
            ]
        rows += scored
    rows.sort(key=lambda row: regions.names.index(row.region))
    return ScoreTable(tuple(rows), settings, _notes(rows))


@dataclass(frozen=True)
class _Regions:
    """Where to compare: names, and what tells the pixels."""

    names: tuple[str, ...]
    threshold: float | None = None
    mask: Mask | None = None

    @classmethod
    def of(cls, reference: Raster, mask: Mask | None) -> _Regions:
        if mask is None:
            if len(reference.grid.shape) < 3:
                return cls(("valid",))
            ends = Normalization("percentile", low=2, high=98).fit(reference)
            return cls(("valid", "foreground"), threshold=ends.center[0] + 0.1 * ends.scale[0])
        if isinstance(mask, Raster):
            _check_space(mask, reference, "mask")
        else:
            mask = spread_mask(mask, reference.shape)
        return cls(("valid", "mask"), mask=mask)

    def read(self, window: Window, target: NDArray[Any], axes: int) -> NDArray[np.bool_]:
        """Masks ``(regions, …)`` under a window of the reference whose values are ``target``."""
        parts = [np.ones(target.shape, bool)]
        if self.threshold is not None:
            parts.append(target > self.threshold)
        elif isinstance(self.mask, Raster):
            block = self.mask.read(tuple(slice(0, n) for n in self.mask.leading) + window[-axes:])
            inside = (block.values != 0) & _valid(block.valid, block.values.shape)
            parts.append(np.broadcast_to(inside.reshape(inside.shape[-axes:]), target.shape))
        elif self.mask is not None:
            parts.append(self.mask[window] != 0)
        return np.stack(parts)


def _scores(
    name: str,
    raster: Raster,
    reference: Raster,
    regions: _Regions,
    peak: float,
    ratio: float | None,
    progress: Progress | None,
) -> list[Score]:
    """The rows of one method."""
    spatial = reference.grid.shape
    channels = len(reference.channels)
    tallies = [
        Tally(spatial, channels=channels, regions=len(regions.names), data_range=peak) for _ in range(reference.times)
    ]
    done = 0
    for window, block in slabs(raster):
        truth = reference.read(window)
        for at, part in _pieces(window, len(reference.leading)):
            target = truth.values[part].astype(np.float64)
            masks = regions.read(at, target, len(spatial))
            valid = _valid(block.valid, truth.values.shape)[part] & _valid(truth.valid, truth.values.shape)[part]
            shape = (-1, channels, *target.shape[len(reference.leading) :])
            made = block.values[part].astype(np.float64)
            arrays = [_time_first(a, raster, shape) for a in (made, target, valid)]
            covers = np.stack([_time_first(m, raster, shape) for m in masks], axis=1)
            first = window[raster.axes.index("t")].start if "t" in raster.axes else 0
            for i, (x, y, exists) in enumerate(zip(*arrays, strict=True)):
                tallies[first + i].add(x, y, covers[i], exists)
            done += target.size
            if progress is not None:
                progress(done, math.prod(raster.shape))
    return _rows(name, reference, regions.names, tallies, ratio)


def _rows(
    name: str, reference: Raster, regions: tuple[str, ...], tallies: list[Tally], ratio: float | None
) -> list[Score]:
    everything = tuple(range(len(reference.channels)))
    parts: list[tuple[str, list[Tally], tuple[int, ...]]] = [("all", tallies, everything)]
    if len(everything) > 1:
        labels = [channel.name or f"channel {i + 1}" for i, channel in enumerate(reference.channels)]
        parts += [(label, tallies, (c,)) for c, label in enumerate(labels)]
    if len(tallies) > 1:
        parts += [(f"t={t}", [tally], everything) for t, tally in enumerate(tallies)]
    rows = []
    for region, where in enumerate(regions):
        for part, chosen, channels in parts:
            values = Tally.scores(chosen, region, channels, ratio)
            pixels = sum(tally.pixels(region, channels) for tally in chosen)
            rows.append(Score(reference.name, name, part, where, pixels, values))
    return rows


def _pieces(window: Window, lead: int) -> Iterator[tuple[Window, Window]]:
    """A slab in runs of rows of some two million values: where in the raster, and where in the slab."""
    sizes = [part.stop - part.start for part in window]
    rows = sizes[lead]
    step = max(1, _PIECE_VALUES * rows // math.prod(sizes))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        moved = slice(window[lead].start + start, window[lead].start + stop)
        yield (*window[:lead], moved, *window[lead + 1 :]), (*[slice(None)] * lead, slice(start, stop))


def _time_first(array: NDArray[Any], raster: Raster, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of the raster's axes as ``(t, c, spatial…)``."""
    leading = raster.axes[: len(raster.leading)]
    return (array.swapaxes(0, 1) if leading == ("c", "t") else array).reshape(shape)


def _valid(valid: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.ones(shape, bool) if valid is None else np.broadcast_to(valid, shape)


def _robust_range(reference: Raster) -> tuple[float, str]:
    ends = Normalization("percentile", low=0.1, high=99.9).fit(reference)
    return ends.scale[0], "percentiles 0.1 to 99.9 of the reference"


def check_comparable(raster: Raster, reference: Raster, mask: Mask | None = None) -> None:
    """Raise what makes a result not comparable with a reference; touches no value.

    Raises:
        GeometryError: result, reference and mask do not lie on one grid.
        InputError: axes or channels differ, or units.
    """
    _check_space(raster, reference, "result")
    if isinstance(mask, Raster):
        _check_space(mask, reference, "mask")
    if raster.shape != reference.shape or raster.axes != reference.axes:
        raise InputError(
            f"{raster.name}: axes {raster.axes} of shape {raster.shape} came, the reference {reference.name} has "
            f"{reference.axes} of {reference.shape}; compare like with like"
        )
    if raster.unit is not None and reference.unit is not None and raster.unit != reference.unit:
        raise InputError(
            f"{raster.name}: values in {raster.unit}, the reference {reference.name} in {reference.unit}; convert one"
        )


def _check_space(raster: Raster, reference: Raster, what: str) -> None:
    if not raster.grid.same_space(reference.grid):
        raise GeometryError(
            f"{raster.name}: the {what} covers {raster.grid.bounds} in {raster.grid.frame}, the reference "
            f"{reference.name} {reference.grid.bounds} in {reference.grid.frame}; crop or resample one to the other"
        )
    if raster.grid.shape != reference.grid.shape:
        raise GeometryError(
            f"{raster.name}: the {what} has {raster.grid.shape} pixels over the field of view, the reference "
            f"{reference.name} {reference.grid.shape}; resample one to the other"
        )


def _factors(low: Raster, high: Raster) -> dict[str, float]:
    if not low.grid.same_space(high.grid):
        raise GeometryError(
            f"{low.name}: the low-resolution raster covers {low.grid.bounds} in {low.grid.frame}, {high.name} "
            f"{high.grid.bounds} in {high.grid.frame}; give the raster that the result was made from"
        )
    return high.grid.factors(low.grid)


def _known(sensor: Sensor | str | Mapping[str, Any] | None) -> Sensor | None:
    return None if sensor is None else load_sensor(sensor)


def _with(row: Score, metric: str, value: float) -> Score:
    return Score(row.subject, row.method, row.part, row.region, row.pixels, {**row.values, metric: value})


def spread_mask(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A mask given as an array, over all of a raster's axes.

    Raises:
        InputError: it does not broadcast to them.
    """
    try:
        return np.broadcast_to(np.asarray(mask), shape)
    except ValueError as error:
        raise InputError(f"mask: shape {np.shape(mask)} does not fit {shape}") from error


class Steps:
    """One progress over several steps."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = 0

    def next(self, size: int) -> Progress | None:
        """Progress of the next step, which has ``size`` values."""
        before, self._before = self._before, self._before + size
        progress, total = self._progress, self._total
        return None if progress is None else lambda done, _: progress(before + done, total)


def _notes(rows: list[Score]) -> tuple[str, ...]:
    counts = {row.method: row.pixels for row in rows if (row.part, row.region) == ("all", "valid")}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        return (f"The methods have values at different numbers of pixels ({told}); each is judged where it has.",)
    return ()

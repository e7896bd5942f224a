"""From fine to coarse with a stated sensor: of tensors for training, and of whole rasters, lazily and exactly.

:class:`~sciSR.sensors.Sensor` holds the physics; here are the sensors that come with sciSR, by name, and
:func:`degrade`, whose blocks do not depend on how they are asked for.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sciSR.derived import rows_in_order
from sciSR.encoding import work_dtype
from sciSR.errors import GeometryError, InputError, MissingFileError
from sciSR.grid import scale_per_axis
from sciSR.normalization import Normalization
from sciSR.raster import Block, Raster, Window, windows
from sciSR.resampling import apply_taps, sampling_taps
from sciSR.sensors import Band, Noise, Profile, Sensor
from sciSR.tiling import central

__all__ = ["Band", "FittedSensor", "Noise", "Profile", "Sensor", "degrade", "fit_sensor", "list_sensors", "load_sensor"]

_BLOCK = 2**24
"""Fine values that a block of :func:`degrade` is made of, at most about."""


def list_sensors() -> list[str]:
    """Names of the sensors that come with sciSR."""
    return sorted(_files())


def load_sensor(sensor: str | os.PathLike[str] | Mapping[str, Any] | Sensor) -> Sensor:
    """A sensor by name, from a YAML file, or from its plain values.

    Names ignore case, dashes and underscores; common short forms (``"s2"``) are understood.

    Raises:
        InputError: no such sensor, or a file or mapping that is not one.
        MissingFileError: a path that is not there.

    Example:
        >>> load_sensor("sentinel2") == load_sensor("s2")
        True
    """
    if isinstance(sensor, Sensor):
        return sensor
    if isinstance(sensor, Mapping):
        return Sensor.from_dict(sensor)
    text = os.fspath(sensor)
    wanted = _plain(text)
    for name, path in _files().items():
        if wanted in (_plain(name), *_SHORT.get(name, ())):
            return _read(path)
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        if not os.path.exists(text):
            raise MissingFileError(f"{text}: no such sensor file")
        return _read(Path(text))
    raise InputError(f"sensor: {text!r} is not one of {', '.join(list_sensors())}, nor a YAML file")


_SHORT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sentinel-2": ("s2", "msi"),
        "landsat-8": ("l8", "oli", "landsat9", "landsat"),
        "generic-gaussian": ("gaussian", "generic"),
        "box": ("area",),
    }
)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    here = Path(__file__).resolve().parent
    for folder in (here / "configs" / "sensors", here.parent / "configs" / "sensors"):
        found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if found:
            return found
    return {}


def _read(path: Path) -> Sensor:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping with name, axes, noise, …; see configs/sensors for examples")
    try:
        return Sensor.from_dict({"name": path.stem, **values})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def degrade(
    raster: Raster,
    scale: float | Mapping[str, float],
    *,
    sensor: str | os.PathLike[str] | Mapping[str, Any] | Sensor,
    seed: int = 0,
    noise: bool = True,
    data_range: float | None = None,
) -> Raster:
    """What ``sensor`` would have seen of ``raster`` on a grid ``scale`` times coarser; lazy, the same field of view.

    A count that the factor does not divide is rounded (:meth:`~sciSR.grid.Grid.coarsen`); the step follows from it. A
    coarse pixel is valid where valid fine pixels carry at least half of the kernel's weight; it is their weighted
    mean. Any block is the same, to the bit, however it is asked for; so is the noise.

    Args:
        raster: the fine image; values are taken as physical.
        scale: factor of all spatial axes, or by axis name; need not be whole.
        sensor: a :class:`~sciSR.sensors.Sensor`, its name, file or values.
        seed: of the noise.
        noise: whether to add the sensor's noise.
        data_range: physical length of the range that the noise is a fraction of; None: from percentile 0.5 to 99.5 of
            the raster, found when the first noise is drawn.

    Raises:
        InputError: the sensor does not fit the axes or channels.
        GeometryError: a factor or axis that does not exist.
    """
    factors = scale_per_axis(scale, raster.grid.axes)
    chosen = load_sensor(sensor).for_channels([channel.name for channel in raster.channels])
    chosen.factors([factors[a] for a in raster.grid.axes], len(raster.grid.axes))
    grid = raster.grid.coarsen(factors)
    chosen = chosen.at(grid.spacing) if grid.unit == "mm" else chosen
    if not noise:
        chosen = chosen.noiseless()
    source = _Degraded(raster, grid.shape, chosen, seed, data_range)
    record = json.dumps({"scale": factors, "seed": seed, "sensor": chosen.to_dict()})
    return raster.replace(
        source=source, grid=grid, provenance=MappingProxyType({**raster.provenance, "degraded": record})
    )


class _Degraded:
    """Blocks of a coarser raster, each made from the fine pixels that its kernels reach."""

    def __init__(
        self, raster: Raster, spatial: tuple[int, ...], sensor: Sensor, seed: int, data_range: float | None
    ) -> None:
        self._raster = raster
        self._sensor = sensor
        self._seed = seed
        self._range = data_range
        self._lead = len(raster.leading)
        self.shape = (*raster.leading, *spatial)
        self.dtype = work_dtype(raster.dtype)
        self._taps = [
            None if coarse == fine else sampling_taps(fine, coarse, sensor.kernels(axis, fine / coarse, self._channels))
            for axis, fine, coarse in zip(raster.grid.axes, raster.grid.shape, spatial, strict=True)
        ]
        row = math.prod(raster.one_time) * math.prod(raster.grid.shape) // spatial[0]
        self.chunks = (*raster.one_time, max(1, min(spatial[0], _BLOCK // row)), *spatial[1:])

    @property
    def _channels(self) -> int:
        return len(self._raster.channels)

    def read(self, window: Window) -> Block:
        """The coarse values under ``window``, made in parts of ``chunks`` so that memory stays bounded."""
        shape = tuple(w.stop - w.start for w in window)
        values = np.empty(shape, self.dtype)
        valid = np.ones(shape, bool)
        for part in windows(shape, self.chunks):
            moved = tuple(slice(w.start + p.start, w.start + p.stop) for w, p in zip(window, part, strict=True))
            values[part], valid[part] = self._made(moved, self._raster.source.read)
        return Block(values, None if valid.all() else valid)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, in slabs; those of a network's result are taken as they come, each computed once."""
        with rows_in_order(self._raster.source, self._lead) as read:
            for window in windows(self.shape, self.chunks):
                values, valid = self._made(window, read)
                yield window, Block(values, None if valid.all() else valid)

    def _made(self, window: Window, read: Callable[[Window], Block]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        lead, spatial = window[: self._lead], window[self._lead :]
        cuts = [_cut(taps, part, self._bands(lead)) for taps, part in zip(self._taps, spatial, strict=True)]
        block = read((*lead, *(cut[0] for cut in cuts)))
        values = self._tensor(block.values.astype(self.dtype))
        holes = None if block.valid is None else self._tensor(~block.valid).to(values.dtype)
        if holes is not None:
            values = torch.where(holes > 0, 0.0, values)
        for axis, (_, taps) in enumerate(cuts):
            if taps is not None:
                values = apply_taps(values, axis + 2, *taps)
                holes = None if holes is None else apply_taps(holes, axis + 2, *taps)
        shape = tuple(w.stop - w.start for w in window)
        valid = np.ones(shape, bool)
        if holes is not None:
            # the weight that is missing is exactly 0 far from holes, so blocks with and without holes agree
            valid = (holes <= 0.5).numpy().reshape(shape)
            values = torch.where(holes <= 0.5, values / (1 - holes).clamp_min(0.5), 0.0)
        coarse = values.numpy().reshape(shape)
        return (self._noisy(coarse, window) if self._sensor.noise.active else coarse), valid

    def _bands(self, lead: Window) -> slice | None:
        axis = self._raster.channel_axis
        return None if axis is None else lead[axis]

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        """``(t or 1, c or 1, spatial…)`` of a block with the raster's axes."""
        spatial = array.shape[self._lead :]
        channels = 1 if self._raster.channel_axis is None else array.shape[self._raster.channel_axis]
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, channels, *spatial)

    def _noisy(self, values: NDArray[Any], window: Window) -> NDArray[Any]:
        if self._range is None:
            self._range = float(Normalization("percentile").fit(self._raster).scale[0])
        std = self._sensor.noise.std * self._range
        first = std * keyed_normal(self._seed, 0, window, self.shape)
        if self._sensor.noise.kind == "gaussian":
            return (values + first).astype(self.dtype)
        second = std * keyed_normal(self._seed, 1, window, self.shape)
        return np.hypot(values + first, second).astype(self.dtype)


def _cut(taps: Any, part: slice, bands: slice | None) -> tuple[slice, Any]:
    """Fine pixels to read for the coarse pixels of ``part`` along one axis, and the weights on them."""
    if taps is None:
        return part, None
    index, weight = taps
    index = index[part]
    first, last = int(index.min()), int(index.max()) + 1
    weight = weight[..., part, :]
    if weight.ndim == 3 and bands is not None:
        weight = weight[bands]
    return slice(first, last), (index - first, weight)


class FittedSensor(NamedTuple):
    """A sensor found from a real pair, and how well it explains it.

    Attributes:
        sensor: the sensor, without noise.
        rmse: root of the mean square of ``gain * D(fine) + offset - low``, as a fraction of the range of ``low``.
        gain: factor between the two images' values.
        offset: what is added after it.
    """

    sensor: Sensor
    rmse: float
    gain: float
    offset: float


def fit_sensor(
    fine: Raster, low: Raster, *, kinds: Sequence[str] = ("gaussian", "box"), name: str = "fitted"
) -> FittedSensor:
    """The sensor that best explains ``low`` as seen of ``fine``: kind and width along each axis that is coarser.

    Widths are searched between 0.3 and 4 coarse pixels, axis by axis, on the middle of the images; values may differ by
    a factor and an offset. Register the two first: a shift looks like a wider profile.

    Args:
        fine: the fine image.
        low: a coarse image of the same field of view.
        kinds: profile kinds to try.
        name: of the sensor.

    Raises:
        GeometryError: other fields of view.
        InputError: other channels, no axis that is coarser, or holes in the middle.

    Example:
        >>> fine = Raster.from_array(np.random.default_rng(0).random((60, 60)), affine=np.eye(3), axes="yx")
        >>> found = fit_sensor(fine, degrade(fine, 2, sensor={"axes": {"fwhm": 1.4}}))
        >>> round(found.sensor.y.fwhm, 2), round(found.sensor.x.fwhm, 2)
        (1.4, 1.4)
    """
    if not fine.grid.same_space(low.grid, tolerance_px=0.5) or fine.leading != low.leading:
        raise GeometryError(f"{low.name}: fields of view or channels are not those of {fine.name}; register them first")
    coarser = [axis for axis, step in fine.grid.factors(low.grid).items() if step > 1]
    if not coarser:
        raise InputError(f"{low.name}: no axis of it is coarser than in {fine.name}; give the coarse image second")
    x, y = _middle(fine, low)
    best: FittedSensor | None = None
    for kind in kinds:
        widths = dict.fromkeys(coarser, 1.0)
        for turn in range(2 if len(coarser) > 1 else 1):
            for axis in coarser:
                span = (0.3, 4.0) if turn == 0 else (widths[axis] / 1.3, widths[axis] * 1.3)
                widths[axis] = _least(partial(_misfit_at, x, y, kind, dict(widths), axis), *span)
        sensor = _profiles(widths, kind)
        found = FittedSensor(sensor, *_misfit(x, y, sensor))
        if best is None or found.rmse < best.rmse:
            best = found
    assert best is not None
    return best._replace(sensor=replace(best.sensor, name=name, source=f"fitted to the pair {fine.name}, {low.name}"))


def _profiles(widths: Mapping[str, float], kind: str) -> Sensor:
    return Sensor.from_dict({axis: {"kind": kind, "fwhm": width} for axis, width in widths.items()})


def _misfit_at(
    x: torch.Tensor, y: torch.Tensor, kind: str, widths: Mapping[str, float], axis: str, width: float
) -> float:
    return _misfit(x, y, _profiles({**widths, axis: width}, kind))[0]


def _middle(fine: Raster, low: Raster) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of both as ``(t, c, spatial…)`` in float64."""
    room = 128 if len(low.grid.shape) == 2 else 40
    spatial = [central(m, min(m, room)) for m in low.grid.shape]
    wide = [
        slice(round(p.start * n / m), round(p.stop * n / m))
        for p, n, m in zip(spatial, fine.grid.shape, low.grid.shape, strict=True)
    ]
    lead = tuple(slice(0, n) for n in low.leading)
    tensors = []
    for raster, window in ((fine, wide), (low, spatial)):
        block = raster.read((*lead, *window))
        if block.valid is not None or not np.isfinite(block.values).all():
            raise InputError(f"{raster.name}: it has holes in its middle; crop both images to a part without")
        shape = [w.stop - w.start for w in window]
        channels = len(raster.channels)
        tensors.append(torch.from_numpy(block.values.astype(np.float64)).reshape(-1, channels, *shape))
    return tensors[0], tensors[1]


def _misfit(x: torch.Tensor, y: torch.Tensor, sensor: Sensor) -> tuple[float, float, float]:
    """Relative error, gain and offset of the best line through D(x) and y; away from the borders."""
    seen = sensor.apply(x, [n / m for n, m in zip(x.shape[2:], y.shape[2:], strict=True)])
    inner = tuple(slice(min(4, (m - 1) // 2), m - min(4, (m - 1) // 2)) for m in y.shape[2:])
    a, b = seen[(slice(None), slice(None), *inner)].flatten(), y[(slice(None), slice(None), *inner)].flatten()
    spread = a - a.mean()
    gain = float((spread * (b - b.mean())).sum() / spread.square().sum().clamp_min(1e-30))
    offset = float(b.mean()) - gain * float(a.mean())
    span = float(b.max() - b.min()) or 1.0
    return float((gain * a + offset - b).square().mean().sqrt()) / span, gain, offset


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one valley is least, by golden section."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 0.005:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2


def keyed_normal(seed: int, stream: int, window: Window, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal numbers that depend on position, ``seed`` and ``stream`` alone, under ``window`` of ``shape``.

    A counter goes through the finaliser of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195), pairs of them
    through the Box-Muller transform.
    """
    position = np.zeros((1,) * len(shape), np.uint64)
    stride = 1
    for axis in range(len(shape) - 1, -1, -1):
        along = np.arange(window[axis].start, window[axis].stop, dtype=np.uint64) * np.uint64(stride)
        position = position + along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        stride *= shape[axis]
    key = _mix(np.array([(seed * 2 + stream) % 2**64], np.uint64))
    counter = _mix(position + key)
    first = (_mix(counter + np.uint64(0x632BE59BD9B4E019)) >> np.uint64(11)).astype(np.float64)
    second = (_mix(counter + np.uint64(0xD1342543DE82EF95)) >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((first + 1) / 2**53))
    drawn: NDArray[np.float64] = radius * np.cos(2 * np.pi * second / 2**53)
    return drawn


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed

"""wald(): how far to trust a network on a raster that has no finer reference.

Wald's protocol (Wald, Ranchin and Mangolini 1997, "Fusion of satellite images of different spatial resolutions"): make
the input coarser by the factor that the network refines by, with a stated sensor, refine that, and compare with the
input. What it says holds as far as the input's own detail resembles the detail that is to be added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sciSR.classical import CLASSICAL
from sciSR.degradation import Sensor, degrade, load_sensor
from sciSR.encoding import work_dtype
from sciSR.errors import GeometryError, InputError
from sciSR.evaluation.comparison import Mask, Steps, compare, spread_mask
from sciSR.evaluation.table import ScoreTable
from sciSR.grid import scale_per_axis
from sciSR.inference import upscale
from sciSR.networks import load_network
from sciSR.networks.spec import SRNetwork, model_name
from sciSR.raster import ArraySource, Raster
from sciSR.tiling import central

__all__ = ["WaldResult", "wald"]

Progress = Callable[[int, int], None]

_CROP_VALUES = 2**23


@dataclass(frozen=True)
class WaldResult:
    """What Wald's protocol gave.

    Attributes:
        table: the scores.
        truth: the part of the input that was compared with.
        low: it, degraded.
        outputs: each method's result on the grid of ``truth``, the network first.
        network: the network's name among the outputs.
    """

    table: ScoreTable
    truth: Raster
    low: Raster
    outputs: Mapping[str, Raster]
    network: str


def wald(
    raster: Raster,
    network: SRNetwork | str,
    *,
    sensor: Sensor | str | Mapping[str, Any] | None = None,
    scale: float | Mapping[str, float] | None = None,
    baselines: Sequence[str] = ("cubic", "ibp"),
    crop: int | Mapping[str, int] | Literal["auto"] | None = "auto",
    seed: int = 0,
    data_range: float | None = None,
    mask: Mask | None = None,
    progress: Progress | None = None,
    **upscale_options: Any,
) -> WaldResult:
    """Degrade the input, upscale that with the network and each baseline, and compare with the input.

    The results are held in memory, as float32, so that pictures can be drawn of them.

    Args:
        raster: the input.
        network: a network, shipped weights, a checkpoint's path, or a classical method (then give ``scale``).
        sensor: how to degrade; default the one that the checkpoint was trained for.
        scale: factor to degrade and refine by; default the network's own.
        baselines: classical methods to compare with.
        crop: evaluate on the central part of at most this many pixels per axis; ``"auto"``: on all of a raster of up to
            some 8 million values and on the central part of a larger one; None: on all. The table says which.
        seed: of the sensor's noise.
        data_range: as for :func:`~sciSR.evaluation.evaluate`.
        mask: as for :func:`~sciSR.evaluation.evaluate`, on the input's grid.
        progress: called with (values done, values in all).
        upscale_options: passed on to :func:`~sciSR.inference.upscale` for the network (``device``, ``tile``, …).

    Raises:
        InputError: no sensor is known, or no scale for a classical method.
        GeometryError: the raster is too small for the factor.
    """
    net = network if isinstance(network, SRNetwork) or network in CLASSICAL else load_network(network)
    name = model_name(net)
    known = _sensor(net, sensor)
    factors = _factors(raster, net, scale)
    window = _window(raster, factors, crop)
    truth = in_memory(raster.crop(**window))
    low = in_memory(degrade(truth, factors, sensor=known, seed=seed))
    lazy = {name: upscale(low, net, scale=factors, sensor=known, **upscale_options)}
    for baseline in baselines:
        if baseline not in lazy:
            lazy[baseline] = upscale(low, baseline, scale=factors, sensor=known)
    steps = Steps(progress, 2 * len(lazy) * math.prod(truth.shape))
    outputs = {key: in_memory(value, steps.next(math.prod(truth.shape))) for key, value in lazy.items()}
    table = compare(
        outputs,
        truth,
        low=low,
        sensor=known,
        data_range=data_range,
        mask=_cropped(mask, raster, window),
        progress=steps.next(len(lazy) * math.prod(truth.shape)),
    )
    settings = {
        "protocol": "Wald: the input, degraded and refined again, against the input",
        "scale": {axis: factor for axis, factor in factors.items() if factor != 1},
        **table.settings,
        "part": _told(window, raster),
    }
    return WaldResult(ScoreTable(table.rows, settings, table.notes), truth, low, outputs, name)


def in_memory(raster: Raster, progress: Progress | None = None) -> Raster:
    """The same raster, computed: float32 (or float64 where its type is), NaN where there is no value."""
    values = np.empty(raster.shape, work_dtype(raster.dtype))
    done = 0
    for window, block in raster.stream():
        values[window] = block.values
        if block.valid is not None:
            part = values[window]
            part[~np.broadcast_to(block.valid, part.shape)] = np.nan
        done += block.values.size
        if progress is not None:
            progress(done, values.size)
    return raster.replace(source=ArraySource(values))


def _sensor(network: SRNetwork | str, sensor: Sensor | str | Mapping[str, Any] | None) -> Sensor:
    if sensor is not None:
        return load_sensor(sensor)
    card = network.card if isinstance(network, SRNetwork) else None
    if card is None or card.sensor is None:
        raise InputError(f"wald: {model_name(network)} does not say which sensor it is for; give sensor=")
    return card.sensor


def _factors(raster: Raster, network: SRNetwork | str, scale: float | Mapping[str, float] | None) -> dict[str, float]:
    """Factor per axis; for a network without a given scale that by which it refines this raster."""
    if scale is not None:
        return scale_per_axis(scale, raster.grid.axes)
    if isinstance(network, str):
        raise InputError(f"wald: {network} refines by any factor; give scale=")
    return upscale(raster, network, precision="float32").grid.factors(raster.grid)


def _window(
    raster: Raster, factors: Mapping[str, float], crop: int | Mapping[str, int] | Literal["auto"] | None
) -> dict[str, slice]:
    """The central part, a multiple of each whole factor."""
    sizes = dict(zip(raster.grid.axes, raster.grid.shape, strict=True))
    limits = dict(sizes)
    window: dict[str, slice] = {}
    if crop == "auto":
        times = raster.times
        steps = max(1, min(times, _CROP_VALUES * times // math.prod(raster.shape)))
        if steps < times:
            window["t"] = central(times, steps)
        edge = _edge(list(sizes.values()), _CROP_VALUES // (steps * len(raster.channels)))
        limits = dict.fromkeys(sizes, edge)
    elif isinstance(crop, Mapping):
        limits |= {axis: int(n) for axis, n in crop.items()}
    elif crop is not None:
        limits = dict.fromkeys(sizes, int(crop))
    for axis, n in sizes.items():
        whole = round(factors[axis]) if abs(factors[axis] - round(factors[axis])) < 1e-9 else 1
        kept = min(n, limits[axis]) // whole * whole
        if kept < factors[axis]:
            raise GeometryError(
                f"{raster.name}: {min(n, limits[axis])} pixels along {axis} cannot be degraded by {factors[axis]:g}; "
                "Wald's protocol needs at least one coarse pixel"
            )
        window[axis] = central(n, kept)
    return window


def _edge(sizes: list[int], values: int) -> int:
    """The greatest edge length such that a box of it, cut to ``sizes``, holds at most ``values``."""
    low, high = 1, max(sizes)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if math.prod(min(n, middle) for n in sizes) <= values else (low, middle - 1)
    return low


def _cropped(mask: Mask | None, raster: Raster, window: Mapping[str, slice]) -> Mask | None:
    if mask is None:
        return None
    if isinstance(mask, Raster):
        return mask.crop(**{axis: part for axis, part in window.items() if axis in mask.axes})
    full = spread_mask(mask, raster.shape)
    return full[tuple(window.get(axis, slice(None)) for axis in raster.axes)]


def _told(window: Mapping[str, slice], raster: Raster) -> str:
    whole = dict(zip(raster.axes, raster.shape, strict=True))
    kept = {axis: part.stop - part.start for axis, part in window.items()}
    if all(whole[axis] == n for axis, n in kept.items()):
        return "the whole input"
    return "its centre, " + ", ".join(f"{axis} {n} of {whole[axis]}" for axis, n in kept.items())

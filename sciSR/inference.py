"""upscale(): a raster and a network make a lazy raster on the refined grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from sciSR import __version__
from sciSR.backends import Precision, Runner, has_fast_bfloat16, pick_device, prepare
from sciSR.classical import CLASSICAL, build_classical
from sciSR.degradation import Sensor
from sciSR.depth_first import NotStreamableError, derive
from sciSR.errors import GeometryError, InputError, PrecisionWarning
from sciSR.grid import Grid, scale_per_axis
from sciSR.networks import load_network
from sciSR.networks.spec import NetworkSpec, SRNetwork
from sciSR.normalization import Normalization
from sciSR.openvino_backend import prepare_openvino
from sciSR.precision import calibration_patches, check_precision
from sciSR.raster import Channel, Raster
from sciSR.regrid import regrid
from sciSR.strips import StripSource
from sciSR.tiles import TileJob, UpscaledSource, worker_count
from sciSR.tiling import TilePlan

__all__ = ["upscale"]

_TILE = {"cpu": {2: 256, 3: 64}, "openvino": {2: 512, 3: 96}, "device": {2: 1024, 3: 128}}
"""Pixels of a tile per axis: large enough for a small share of halo, small enough for cache and memory; the 2D sizes
make whole 512-pixel output blocks at factor 2, so that no block of a tiled GeoTIFF is encoded twice."""
_FILL_REACH = 16
_EXPECTED_DB = {"bf16": 60.0, "fp16": 60.0, "int8": 48.0}
"""Least PSNR to float32 that a low precision should keep on an image; below it a warning says so."""
_KERNELS = {"nearest", "linear", "cubic", "lanczos"}


@dataclass(frozen=True)
class _Target:
    """What was asked for: the wanted grid, the factor per axis, and which network axis runs along which raster axis."""

    grid: Grid
    order: tuple[int, ...]
    network_scale: tuple[int, ...]


def upscale(
    raster: Raster,
    network: SRNetwork | str,
    *,
    scale: float | Mapping[str, float] | None = None,
    target_spacing: float | Mapping[str, float] | Literal["isotropic"] | None = None,
    device: str = "auto",
    tile: int | Mapping[str, int] | Literal["auto"] | None = "auto",
    precision: Precision | Literal["auto", "int8"] = "auto",
    exact: bool = False,
    normalization: Normalization | None = None,
    sensor: Sensor | str | None = None,
    workers: int | None = None,
    backend: Literal["auto", "torch", "openvino"] = "auto",
) -> Raster:
    """The raster with finer pixels over the same field of view; lazy, computed tile by tile when read or saved.

    Args:
        raster: a volume or scene.
        network: a network, the name of shipped weights, the path of a checkpoint, or a classical method (``"nearest"``,
            ``"linear"``, ``"cubic"``, ``"lanczos"``, ``"ibp"``, …).
        scale: factor; a number means every spatial axis, a mapping names them (``{"z": 4}``); by default the
            network's own.
        target_spacing: pixel size to reach instead, in world units; a number, a mapping, or ``"isotropic"``: that of
            the finest axis. Bounds are kept and counts rounded; read what was reached from the result's grid.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        tile: pixels of a tile per axis; ``"auto"`` chooses, None takes the whole image at once.
        precision: of the network's residual; ``"auto"`` takes bfloat16 where the hardware is fast at it and the loss,
            measured on this raster, keeps 60 dB, else float32; ``"int8"`` quantises on this raster's own patches.
        exact: read the whole receptive field around a tile instead of the measured halo.
        normalization: how values become the network's; default the checkpoint's own, or as they are for a bare network.
        sensor: the degradation that back-projection assumes; default the checkpoint's, or a Gaussian.
        workers: tiles worked on at once; default one per core.
        backend: ``"torch"``, or ``"openvino"`` (CPU, optional extra); ``"auto"`` takes OpenVINO for int8 alone.

    Returns:
        A lazy raster of physical values in the input's units, on the refined grid. Its ``source.record()`` tells plan,
        device, precision and network.

    Raises:
        InputError: network and raster do not fit (channels, axes), or an argument is not understood.
        GeometryError: a factor or spacing that the network cannot reach.

    Example:
        >>> import numpy as np
        >>> low = Raster.from_array(np.ones((1, 6, 8), np.float32), affine=np.eye(3), axes="cyx")
        >>> upscale(low, "cubic", scale=2).shape
        (1, 12, 16)
    """
    if scale is not None and target_spacing is not None:
        raise InputError("upscale: scale and target_spacing exclude each other; give one")
    wanted = _wanted_grid(raster, scale, target_spacing)
    if backend not in ("auto", "torch", "openvino"):
        raise InputError(f"backend: {backend!r} came; expected auto, torch or openvino")
    if isinstance(network, str) and network in _KERNELS:
        return _interpolated(raster, network, wanted or raster.grid.refine(2))
    if isinstance(network, str):
        network = _named(network, raster, wanted, sensor)
    target = _target(raster, network.spec, wanted)
    _check_channels(raster, network)
    result = _run(raster, network, target, device, tile, precision, exact, normalization, workers, backend)
    if result.grid.shape == target.grid.shape:
        return result
    fine = regrid(result, target.grid.shape)
    return fine.replace(source=_Resampled(fine.source, result.source), grid=target.grid)


def _wanted_grid(raster: Raster, scale: Any, spacing: Any) -> Grid | None:
    if scale is not None:
        return raster.grid.refine(scale)
    if spacing is None:
        return None
    if spacing == "isotropic":
        spacing = min(raster.grid.spacing.values())
    return raster.grid.with_spacing(spacing)


def _factors(raster: Raster, grid: Grid) -> tuple[float, ...]:
    return tuple(new / old for new, old in zip(grid.shape, raster.grid.shape, strict=True))


def _interpolated(raster: Raster, kernel: str, grid: Grid) -> Raster:
    result = regrid(raster, grid.shape, kernel=kernel)
    return result.replace(grid=grid, provenance=_provenance(raster, kernel, grid, {}))


def _named(name: str, raster: Raster, wanted: Grid | None, sensor: Sensor | str | None) -> SRNetwork:
    """A classical method built for this raster, or a checkpoint."""
    if name not in CLASSICAL:
        return load_network(name)
    grid = wanted or raster.grid.refine(2)
    factors = tuple(max(1, math.ceil(f - 1e-9)) for f in _factors(raster, grid))
    extra = {} if sensor is None else {"sensor": sensor}
    return build_classical(name, ndim=len(factors), scale=factors, in_channels=1, **extra)


def _target(raster: Raster, spec: NetworkSpec, wanted: Grid | None) -> _Target:
    """Where the network's axes run and what grid is to be reached."""
    axes = raster.grid.axes
    if spec.ndim > len(axes):
        raise InputError(
            f"{raster.name}: a network for the axes {', '.join(spec.axes)} cannot run on a scene with "
            f"{', '.join(axes)}; choose a 2D network"
        )
    order = _axis_order(raster, spec, wanted)
    network_scale = [1] * len(axes)
    for position, s in zip(order, spec.scale, strict=True):
        network_scale[position] = s
    own = raster.grid.refine(dict(zip(axes, map(float, network_scale), strict=True)))
    grid = wanted or own
    for axis, factor, s in zip(axes, _factors(raster, grid), network_scale, strict=True):
        if factor > s + 1e-9:
            _warn_beyond(raster, axis, factor, s)
    return _Target(grid, order, tuple(network_scale))


def _warn_beyond(raster: Raster, axis: str, factor: float, s: int) -> None:
    warnings.warn(
        f"{raster.name}: factor {factor:g} on axis {axis} is more than the network's {s}; the rest is cubic "
        "interpolation, which adds pixels but no detail",
        PrecisionWarning,
        stacklevel=5,
    )


def _axis_order(raster: Raster, spec: NetworkSpec, wanted: Grid | None) -> tuple[int, ...]:
    """Raster axis of each network axis; an anisotropic 3D network turns its refined axis to the coarse one."""
    n = len(raster.grid.axes)
    natural = tuple(range(n - spec.ndim, n))
    if spec.ndim != 3 or len(set(spec.scale)) == 1 or sorted(spec.scale)[1] != 1:
        return natural
    measure = list(raster.grid.spacing.values() if wanted is None else _factors(raster, wanted))
    coarse = int(np.argmax(measure))
    special = int(np.argmax(spec.scale))
    order = list(natural)
    order[special], order[coarse] = order[coarse], order[special]
    return tuple(order)


def _check_channels(raster: Raster, network: SRNetwork) -> None:
    count, needs = len(raster.channels), network.spec.in_channels
    if needs not in (1, count):
        bands = network.card.bands if network.card is not None and network.card.bands else None
        which = f" ({', '.join(bands)})" if bands else ""
        raise InputError(
            f"{raster.name}: it has {count} channel(s), the network takes {needs}{which}; "
            "choose the bands or another network"
        )
    if needs > 1 and network.spec.ndim < len(raster.grid.shape):
        raise InputError(f"{raster.name}: a {needs}-band 2D network cannot run on a volume")


def _run(
    raster: Raster,
    network: SRNetwork,
    target: _Target,
    device: str,
    tile: Any,
    precision: Any,
    exact: bool,
    normalization: Normalization | None,
    workers: int | None,
    backend: str,
) -> Raster:
    """The lazy result at the network's own factors."""
    where = pick_device(device)
    recipe = normalization or (network.card.normalization if network.card else None) or Normalization()
    intensity = recipe.fit(raster)
    kind = "device" if where.type != "cpu" else "openvino" if backend == "openvino" or precision == "int8" else "cpu"
    plan, fill = _plan(raster, network.spec, target, tile, exact, kind)
    runner = prepare(network, where, "float32")
    job = TileJob(raster, runner, plan, intensity, target.order, fill)
    facts: dict[str, Any] = {
        "network": network.card.name if network.card else network.family,
        "network_sha256": network.card.checksum if network.card else None,
        "exact": exact,
        "normalization": recipe.to_dict(),
    }
    at_once = workers or worker_count(where, plan)
    job, facts["precision_check"] = _lowered(job, network, precision, backend, at_once)
    grid = raster.grid.resize(plan.output_shape)
    source = _source(job, tile, at_once, facts)
    channels = raster.channels if job.out_channels == len(raster.channels) else (Channel(),) * job.out_channels
    return raster.replace(
        source=source,
        grid=grid,
        channels=channels,
        auxiliary={key: regrid(aux, grid.shape, kernel="nearest") for key, aux in raster.auxiliary.items()},
        provenance=_provenance(raster, str(facts["network"]), grid, facts),
    )


def _source(job: TileJob, tile: Any, workers: int, facts: dict[str, Any]) -> UpscaledSource:
    """Depth-first where the network allows it and no tile size was asked for, else tiles; the record says why."""
    runner = job.runner
    in_order = list(job.order) == sorted(job.order)
    if tile != "auto" or not isinstance(runner, Runner) or runner.device.type != "cpu" or not in_order:
        return UpscaledSource(job, workers=workers, facts=facts)
    try:
        program = derive(runner.residual_network)
    except NotStreamableError as error:
        return UpscaledSource(job, workers=workers, facts={**facts, "not_depth_first": str(error)})
    return StripSource(job, program, workers=workers, facts=facts)


def _lowered(job: TileJob, network: SRNetwork, precision: Any, backend: str, workers: int) -> tuple[TileJob, Any]:
    """The job at the precision and on the backend asked for, and what was measured of its loss."""
    device = job.runner.device
    if backend == "openvino" or precision == "int8":
        if device.type != "cpu":
            raise InputError(f"precision: int8 and OpenVINO run on the CPU here, but the device is {device.type}")
        chosen = "float32" if precision == "auto" else precision
        runner = prepare_openvino(network, chosen, streams=workers, calibration=lambda: calibration_patches(job))
        compiled = replace(job, runner=runner)
        return compiled, {"asked": precision, **_told(job, compiled)} if chosen != "float32" else {"asked": precision}
    if precision == "float32":
        return job, {"asked": precision}
    if precision != "auto":
        lowered = replace(job, runner=prepare(network, device, precision))
        return lowered, {"asked": precision, **_told(job, lowered)}
    if not has_fast_bfloat16(device):
        return job, {"asked": "auto", "reason": "bfloat16 is not faster than float32 here"}
    lowered = replace(job, runner=prepare(network, device, "bf16"))
    report = check_precision(job, lowered)
    return (lowered if report["passed"] else job), {"asked": "auto", **report}


def _told(full: TileJob, low: TileJob) -> dict[str, Any]:
    """The measured loss of a precision that was asked for; a warning where it is larger than one would expect."""
    smallest = min(16, *(full.plan.shape[a] for a in full.order))
    report = check_precision(full, low, smallest=smallest)
    limit = _EXPECTED_DB[low.runner.precision]
    if report.get("psnr_db", limit) < limit:
        warnings.warn(
            f"{full.raster.name}: {low.runner.precision} is only {report['psnr_db']} dB from float32 on this image, "
            f"expected {limit:g} or more; use float32",
            PrecisionWarning,
            stacklevel=6,
        )
    return report


def _plan(
    raster: Raster, spec: NetworkSpec, target: _Target, tile: Any, exact: bool, kind: str
) -> tuple[TilePlan, int]:
    """The tiles over the raster's spatial axes, and how deep holes are filled."""
    shape = raster.grid.shape
    n = len(shape)
    halo, align, sizes = [0] * n, [1] * n, [16] * n
    for i, position in enumerate(target.order):
        radius = spec.receptive_radius
        halo[position] = radius[i] if exact and radius is not None else spec.halo[i]
        align[position] = spec.alignment[i]
        sizes[position] = _TILE[kind][spec.ndim]
    if isinstance(tile, int):
        sizes = [tile] * n
    elif isinstance(tile, Mapping):
        given = scale_per_axis(tile, raster.grid.axes)
        sizes = [int(given[a]) if a in tile else s for a, s in zip(raster.grid.axes, sizes, strict=True)]
    elif tile is None:
        sizes = list(shape)
    elif tile != "auto":
        raise InputError(f"tile: {tile!r} came; expected auto, null or a whole number of pixels")
    if min(sizes) < 1:
        raise GeometryError(f"tile: {sizes} has a size below one pixel")
    whole = [s if n_ > (1.5 * s if tile == "auto" else s) else n_ for s, n_ in zip(sizes, shape, strict=True)]
    sizes = [-(-s // a) * a for s, a in zip(whole, align, strict=True)]
    plan = TilePlan(shape, tuple(sizes), tuple(halo), target.network_scale, tuple(align))
    holes = raster.dtype.kind == "f" or raster.encoding.mask or any(v is not None for v in raster.encoding.nodata)
    return plan, min(_FILL_REACH, max(1, *halo)) if holes else 0


def _provenance(raster: Raster, model: str, grid: Grid, facts: Mapping[str, Any]) -> dict[str, str]:
    """What a file should say of how it was made; no time and no path, so that the same run gives the same bytes."""
    factors = ", ".join(f"{a}={f:g}" for a, f in zip(grid.axes, _factors(raster, grid), strict=True))
    entries = {**raster.provenance, "SCISR_VERSION": __version__, "SCISR_MODEL": model, "SCISR_SCALE": factors}
    if facts.get("network_sha256"):
        entries["SCISR_MODEL_SHA256"] = str(facts["network_sha256"])
    return entries


class _Resampled:
    """A resampled result that also tells how the network ran before."""

    def __init__(self, source: Any, before: Any) -> None:
        self._source = source
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def record(self) -> dict[str, Any]:
        return {**self._before.record(), "resampled": self._source.record()}

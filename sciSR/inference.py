"""upscale(): a raster and a network make a lazy raster on the refined grid."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from sciSR import __version__
from sciSR.backends import Precision, Runner, RunnerPool, has_fast_bfloat16, pick_devices, prepare
from sciSR.classical import CLASSICAL, build_classical
from sciSR.degradation import Sensor
from sciSR.derived import RecordedSource
from sciSR.errors import InputError, PrecisionWarning
from sciSR.grid import Grid
from sciSR.labels import check_labels, upscale_labels
from sciSR.networks import load_network
from sciSR.networks.fingerprint import fingerprint
from sciSR.networks.spec import SRNetwork, model_name
from sciSR.normalization import Normalization
from sciSR.openvino_backend import prepare_openvino
from sciSR.pipeline import core_count
from sciSR.plans import Target, factors, find_target, plan_tiles, twice, wanted_grid
from sciSR.precision import calibration_patches, check_precision
from sciSR.raster import Channel, Raster
from sciSR.regrid import regrid
from sciSR.row_ops import NotStreamableError
from sciSR.strips import StripSource, row_program
from sciSR.tiles import TileJob, UpscaledSource, fitting_plan, worker_count

__all__ = ["holds_classes", "upscale"]

_EXPECTED_DB = {"bf16": 60.0, "fp16": 60.0, "int8": 48.0}
"""Least PSNR to float32 that a low precision should keep on an image; below it a warning says so."""
_KERNELS = {"nearest", "linear", "cubic", "lanczos"}


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
    backend: Literal["auto", "torch", "compile", "openvino"] = "auto",
    labels: bool | None = None,
) -> Raster:
    """The raster with finer pixels over the same field of view; lazy, computed tile by tile when read or saved.

    Args:
        raster: a volume or scene.
        network: a network, the name of shipped weights, the path of a checkpoint, or a classical method (``"nearest"``,
            ``"linear"``, ``"cubic"``, ``"lanczos"``, ``"ibp"``, …).
        scale: factor; a number means every spatial axis but one of a volume with a single voxel, a mapping names them
            (``{"z": 4}``); by default the network's own.
        target_spacing: pixel size to reach instead, in world units; a number, a mapping, or ``"isotropic"``: that of
            the finest axis. Bounds are kept and counts rounded; read what was reached from the result's grid.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or several: ``"cuda:0,cuda:1"``.
        tile: pixels of a tile per axis; ``"auto"`` chooses, None takes the whole image at once.
        precision: of the network's residual; ``"auto"`` takes bfloat16 where the hardware is fast at it and the loss,
            measured on this raster, keeps 60 dB, else float32; ``"int8"`` quantises on this raster's own patches.
        exact: read the whole receptive field around a tile instead of the measured halo.
        normalization: how values become the network's; default the checkpoint's own, or as they are for a bare network.
        sensor: the degradation that back-projection assumes; default the checkpoint's, or a Gaussian.
        workers: tiles, or strips, worked on at once; default one per core, and at most two strips. Each has its share
            of the cores: one tile at a time leaves the others idle where there are many tiles.
        backend: ``"torch"``, ``"compile"`` (torch.compile), or ``"openvino"`` (CPU, optional extra); ``"auto"`` takes
            OpenVINO for int8 and torch for the rest, with convolutions in machine code made for this processor
            where float32 runs on a CPU; ``"torch"`` is PyTorch alone.
        labels: whether the raster is a label map; then it is refined as classes onto the grid that the network would
            give, by nearest neighbour or, where the network is ``"linear"``, by the greatest interpolated share. None:
            as said when the file was opened, else found out; what looks like a label map is refused.

    Returns:
        A lazy raster of physical values in the input's units, on the refined grid. Its ``source.record()`` tells plan,
        device, precision and network.

    Raises:
        InputError: network and raster do not fit (channels, axes), an argument is not understood, or the raster looks
            like a label map and nobody said what it is.
        GeometryError: a factor or spacing that the network cannot reach.

    Example:
        >>> import numpy as np
        >>> low = Raster.from_array(np.ones((1, 6, 8), np.float32), affine=np.eye(3), axes="cyx")
        >>> upscale(low, "cubic", scale=2).shape
        (1, 12, 16)
    """
    if scale is not None and target_spacing is not None:
        raise InputError("upscale: scale and target_spacing exclude each other; give one")
    _check_any_value(raster)
    wanted = wanted_grid(raster, scale, target_spacing)
    if workers is not None and workers < 1:
        raise InputError(f"workers: {workers} came; expected at least 1")
    if backend not in ("auto", "torch", "compile", "openvino"):
        raise InputError(f"backend: {backend!r} came; expected auto, torch, compile or openvino")
    classes = holds_classes(raster, labels)
    if isinstance(network, str) and network in _KERNELS:
        grid = wanted or twice(raster)
        return _as_classes(raster, grid, network) if classes else _interpolated(raster, network, grid)
    if isinstance(network, str):
        network = _named(network, raster, wanted, sensor)
    if classes:
        return _as_classes(raster, wanted or find_target(raster, network.spec, None).grid, "nearest")
    if not isinstance(network, SRNetwork):
        raise InputError(
            f"network: {type(network).__name__} came; expected a name, a file, or a sciSR.networks.SRNetwork; "
            "make a module of your own one by giving it a spec and a residual (docs/networks.md)"
        )
    target = find_target(raster, network.spec, wanted)
    _check_channels(raster, network)
    _check_band_order(raster, network)
    result = _run(raster, network, target, _Settings(device, tile, precision, exact, normalization, workers, backend))
    if result.grid.shape == target.grid.shape:
        return result
    fine = regrid(result, target.grid.shape)
    facts = {**result.source.record(), "resampled": fine.source.record()}  # type: ignore[attr-defined]
    return fine.replace(source=RecordedSource(fine.source, facts), grid=target.grid)


def _check_any_value(raster: Raster) -> None:
    """Refuse a raster without a single valid value; reads no farther than the first block that has one."""
    for _, block in raster.stream():
        valid = True if block.valid is None else block.valid
        if (np.isfinite(block.values) & valid).any():
            return
    raise InputError(f"{raster.name}: no valid value: every pixel is NaN or nodata, nothing to upscale")


def holds_classes(raster: Raster, labels: bool | None = None) -> bool:
    """Whether to refine as classes.

    A raster of several channels, or a part of a file, is one only if it was said; a whole one of a single channel is
    looked at.

    Raises:
        InputError: it looks like a label map and nobody said what it is.
    """
    part = raster.metadata is not None and raster.metadata.grid.shape != raster.grid.shape
    if len(raster.channels) > 1 or part:
        said = None if raster.metadata is None else raster.metadata.items.get("labels")
        return bool(labels if labels is not None else said)
    return check_labels(raster, labels)


def _as_classes(raster: Raster, grid: Grid, network: str) -> Raster:
    result = upscale_labels(raster, grid.shape, "linear" if network == "linear" else "nearest")
    return result.replace(grid=grid, provenance=_provenance(raster, "classes", grid, {}))


def _interpolated(raster: Raster, kernel: str, grid: Grid) -> Raster:
    result = regrid(raster, grid.shape, kernel=kernel)
    return result.replace(grid=grid, provenance=_provenance(raster, kernel, grid, {}))


def _named(name: str, raster: Raster, wanted: Grid | None, sensor: Sensor | str | None) -> SRNetwork:
    """A classical method built for this raster, or a checkpoint."""
    if name not in CLASSICAL:
        return load_network(name)
    grid = wanted or twice(raster)
    whole = tuple(max(1, math.ceil(f - 1e-9)) for f in factors(raster, grid))
    extra = {} if sensor is None else {"sensor": sensor}
    return build_classical(name, ndim=len(whole), scale=whole, in_channels=1, **extra)


def _check_band_order(raster: Raster, network: SRNetwork) -> None:
    """Refuse bands that are named as the network's in other places; unknown names are taken as they come."""
    bands = network.card.bands if network.card is not None else None
    names = tuple(channel.name for channel in raster.channels)
    if not bands or network.spec.in_channels == 1 or None in names:
        return
    found = [_band_number(str(name), bands) for name in names]
    if all(at in (None, i) for i, at in enumerate(found)):
        return
    raise InputError(
        f"{raster.name}: its bands are {', '.join(map(str, names))}, the network takes {', '.join(bands)} in this "
        "order; write them in that order (gdal_translate -b) and name them so"
    )


def _band_number(name: str, bands: tuple[str, ...]) -> int | None:
    """Which of the network's bands a description names (``"B02, blue"`` is B02), or None if it names none surely."""
    words = re.split(r"[^0-9A-Za-z]+", name.upper())
    hits = [i for i, band in enumerate(bands) if band.upper() in words]
    return hits[0] if len(hits) == 1 else None


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


@dataclass(frozen=True)
class _Settings:
    """How to run, as :func:`upscale` takes it."""

    device: str
    tile: Any
    precision: Any
    exact: bool
    normalization: Normalization | None
    workers: int | None
    backend: str

    @property
    def openvino(self) -> bool:
        return self.backend == "openvino" or self.precision == "int8"


def _run(raster: Raster, network: SRNetwork, target: Target, settings: _Settings) -> Raster:
    """The lazy result at the network's own factors."""
    devices = pick_devices(settings.device)
    recipe = settings.normalization or (network.card.normalization if network.card else None) or Normalization()
    kind = "device" if devices[0].type != "cpu" else "openvino" if settings.openvino else "cpu"
    plan, fill = plan_tiles(raster, network.spec, target, settings.tile, settings.exact, kind)
    job = TileJob(raster, prepare(network, devices[0], "float32"), plan, recipe.fit(raster), target.order, fill)
    facts: dict[str, Any] = {
        "network": model_name(network),
        "network_sha256": (network.card.checksum if network.card else None) or fingerprint(network),
        "exact": settings.exact,
        "normalization": recipe.to_dict(),
    }
    workers = settings.workers or worker_count(devices[0], plan, devices=len(devices), channels=job.out_channels)
    job, facts["precision_check"] = _lowered(job, network, settings, devices, workers)
    if kind == "device":
        job = replace(job, plan=fitting_plan(job))
    grid = raster.grid.resize(plan.output_shape)
    channels = raster.channels if job.out_channels == len(raster.channels) else (Channel(),) * job.out_channels
    return raster.replace(
        source=_source(job, settings, workers, facts),
        grid=grid,
        channels=channels,
        auxiliary={key: regrid(aux, grid.shape, kernel="nearest") for key, aux in raster.auxiliary.items()},
        provenance=_provenance(raster, str(facts["network"]), grid, facts),
    )


def _source(job: TileJob, settings: _Settings, workers: int, facts: dict[str, Any]) -> UpscaledSource:
    """Depth-first where the network allows it and no tile size was asked for, else tiles; the record says why."""
    runner = job.runner
    in_order = list(job.order) == sorted(job.order)
    if settings.tile != "auto" or not isinstance(runner, Runner) or runner.device.type != "cpu" or not in_order:
        return UpscaledSource(job, workers=workers, facts=facts)
    if runner.compiled is not None:
        return UpscaledSource(job, workers=workers, facts=facts)
    try:
        program = row_program(job, own_code=settings.backend == "auto")
    except NotStreamableError as error:
        return UpscaledSource(job, workers=workers, facts={**facts, "not_depth_first": str(error)})
    return StripSource(job, program, workers=settings.workers or core_count(), facts=facts)


def _lowered(
    job: TileJob, network: SRNetwork, settings: _Settings, devices: list[torch.device], workers: int
) -> tuple[TileJob, dict[str, Any]]:
    """The job at the precision, on the backend and the devices asked for, and what was measured of its loss."""
    asked: dict[str, Any] = {"asked": settings.precision}
    if settings.openvino:
        if devices[0].type != "cpu":
            raise InputError(f"precision: int8 and OpenVINO run on the CPU here, but the device is {devices[0].type}")
        chosen = "float32" if settings.precision == "auto" else settings.precision
        runner = prepare_openvino(network, chosen, streams=workers, calibration=lambda: calibration_patches(job))
        compiled = replace(job, runner=runner)
        return compiled, asked | (_told(job, compiled) if chosen != "float32" else {})

    def at(precision: Precision) -> TileJob:
        each = [prepare(network, d, precision, compiled=settings.backend == "compile") for d in devices]
        return replace(job, runner=each[0] if len(each) == 1 else RunnerPool(each))

    if settings.precision == "float32":
        return at("float32"), asked
    if settings.precision != "auto":
        if settings.precision == "bf16" and devices[0].type == "cpu" and not has_fast_bfloat16(devices[0]):
            _warn_slow(job.raster)
        lowered = at(settings.precision)
        return lowered, asked | _told(job, lowered)
    if not has_fast_bfloat16(devices[0]):
        return at("float32"), {**asked, "reason": "bfloat16 is not faster than float32 here"}
    lowered = at("bf16")
    report = check_precision(job, lowered)
    return (lowered if report["passed"] else at("float32")), {**asked, **report}


def _warn_slow(raster: Raster) -> None:
    warnings.warn(
        f"{raster.name}: precision bf16 is no faster than float32 on this processor, and less exact; use auto",
        PrecisionWarning,
        stacklevel=6,
    )


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


def _provenance(raster: Raster, model: str, grid: Grid, facts: Mapping[str, Any]) -> dict[str, str]:
    """What a file should say of how it was made; no time and no path, so that the same run gives the same bytes."""
    scale = ", ".join(f"{a}={f:g}" for a, f in zip(grid.axes, factors(raster, grid), strict=True))
    entries = {**raster.provenance, "SCISR_VERSION": __version__, "SCISR_MODEL": model, "SCISR_SCALE": scale}
    if facts.get("network_sha256"):
        entries["SCISR_MODEL_SHA256"] = str(facts["network_sha256"])
    return entries

"""Learning from one scan with thick slices and nothing else: what its plane shows is learned across its slices.

As SMORE does (Zhao et al. 2021, doi:10.1109/TMI.2020.3037187): the plane is finer than the slices are thick, so along
its two axes the scan itself shows what a thick slice looks like and what lies behind it. Here a 3D network sees both
orthogonal planes at once. It learns on its own present estimate of the fine volume: turned so that an axis of the plane
takes the place of the slice axis, blurred and sampled as slices are, with the plane's own detail as the target. The
estimate is renewed every round. An isotropic scan teaches by being made coarser itself (ZSSR, Shocher et al. 2018,
arXiv:1712.06087).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from inspect import Signature, signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sciSR.degradation import Sensor, load_sensor
from sciSR.errors import CheckpointError, InputError
from sciSR.files import check_free
from sciSR.inference import upscale
from sciSR.losses import build_loss
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Augmentation, Crop, PairMaker, Reference, decode
from sciSR.training.course import Course, finished, keeping, teach, write
from sciSR.training.data import Data, record_of
from sciSR.training.identity import difference
from sciSR.training.lessons import Supervised
from sciSR.training.loop import DivergedError, Outcome, Progress, Settings
from sciSR.training.outputs import Files, TrainingResult
from sciSR.training.profiles import estimate_fwhm, stated_fwhm
from sciSR.training.setup import band_names, launch, network_of, normalization_of, per_axis, settings_of
from sciSR.training.state import load_state, save_state
from sciSR.training.trackers import Tracker, open_trackers
from sciSR.training.validation import Validator

__all__ = ["only_one", "own_settings", "slice_sensor", "train_self"]

log = logging.getLogger(__name__)

_TURNS = ((1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
"""Turns that put an axis of the plane, y or x, in the place of the slice axis."""

_NEVER = 10**9
_KEPT = ("step", "steps", "weights", "history", "seconds")
_FREE = ("minutes",)
"""Settings that may change when an interrupted run goes on."""
_TRAINED = 0.9
"""Part of a round's time for its steps; the rest is for the estimate that follows."""


def train_self(
    scan: Raster,
    output: str | os.PathLike[str],
    *,
    network: SRNetwork | str | Mapping[str, Any] = "mri-z4",
    sensor: Sensor | str | Mapping[str, Any] | None = None,
    slice_width: float | Literal["header", "spectrum"] = "header",
    normalization: Normalization | Mapping[str, Any] | None = None,
    name: str | None = None,
    patch: int | Mapping[str, int] = 16,
    batch: int = 8,
    rounds: int = 2,
    steps: int | None = None,
    minutes: float | None = None,
    learning_rate: float = 1e-3,
    warmup: int = 50,
    loss: str | Mapping[str, Any] = "l1",
    data_range: float = 1.0,
    ema: float = 0.999,
    augment: Augmentation | Mapping[str, Any] | None = None,
    precision: str = "float32",
    device: str = "auto",
    seed: int = 0,
    trackers: Sequence[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a network for one scan on that scan alone, and write it as a checkpoint.

    Args:
        scan: a volume; its slice axis is the one along which the network refines.
        output: the checkpoint, ``.safetensors``.
        network: what to start from: shipped weights or a file (fine-tuning), or family and arguments (from noise).
        sensor: the profile of the slices; None: that of the weights, or a Gaussian; its width along z follows from
            ``slice_width``.
        slice_width: full width at half maximum of a slice as a part of the slice spacing; ``"header"``: what the scan's
            sidecar states, or one spacing; ``"spectrum"``: estimated from the scan itself.
        normalization: how values become the network's input; None: the weights' own, or percentile.
        name: of the weights; None: the output's file name.
        patch: coarse pixels of a patch along each axis that the network refines, fine pixels along the others.
        batch: patches per step.
        rounds: how often the estimate of the fine volume is renewed.
        steps: per round; None: 150, or as many as the minutes hold. Reproducible.
        minutes: instead of steps, for all rounds and the estimates between them; a later round makes up for what an
            earlier one took too long.
        learning_rate: the highest one.
        warmup: steps over which it rises to that, in each round; at most a quarter of them.
        loss: as for :func:`~sciSR.training.train`.
        data_range: of losses that need one, in normalised units.
        ema: decay of the moving average of the weights.
        augment: what is varied from patch to patch.
        precision: ``float32``, ``bf16`` or ``fp16``.
        device: auto, cpu, cuda, mps.
        seed: of everything random.
        trackers: as for :func:`~sciSR.training.train`; one entry per round.
        resume: go on after the last round that an interrupted run of the same settings finished, of which only the
            minutes may be others; a finished output of the same scan and settings is kept as it is.
        overwrite: replace the output.
        progress: called with (steps done, steps in all).

    Raises:
        InputError: not a volume the network can learn from, or scan or settings are not those of the run to be resumed.
        OutputExistsError: the output is there, and neither ``overwrite`` nor ``resume`` was given.
        RunError: the loss became NaN; the last good weights are written beside the output.
    """
    target = Path(output)
    check_free(target, overwrite or resume)
    if scan.channel_axis is not None or "t" in scan.axes:
        raise InputError(f"{scan.name}: axes {', '.join(scan.axes)}; self-supervised training takes one volume or band")
    if steps is not None and minutes is not None:
        raise InputError(f"training: steps {steps} and minutes {minutes} came; give one of them")
    if steps is None and minutes is None:
        steps = 150
    begun = time.perf_counter()
    torch.manual_seed(seed)
    reference = Reference(scan)
    net = network_of(network, [reference])
    if len(scan.grid.shape) != net.spec.ndim:
        raise InputError(f"{scan.name}: {len(scan.grid.shape)} spatial axes came, the network has {net.spec.ndim}")
    recipe = normalization_of(normalization, net)
    options: dict[str, Any] = {"normalization": recipe, "channels": 1, "scale": net.spec.scale}
    (measured,) = decode(reference, **options)
    physics = slice_sensor(scan, measured, net, sensor, slice_width)
    turns = _turns(net.spec.scale)
    settings = Settings(
        patch=_patch(patch, net, measured),
        batch=batch,
        steps=steps,
        minutes=minutes,
        learning_rate=learning_rate,
        warmup=warmup if steps is None else min(warmup, steps // 4),
        schedule="cosine",
        final_learning_rate=0.05,
        weight_decay=0.0,
        loss=loss,
        ema=ema,
        clip=1.0,
        accumulate=1,
        precision=precision,
        seed=seed,
        validate_every=_NEVER if steps is None else steps,
        patience=None,
        dry_run=False,
        augment=settings_of(Augmentation, augment, "augment"),
    )
    fabric = launch(device, 1, 1, precision)
    objective = build_loss(loss, ndim=net.spec.ndim, data_range=data_range, sensor=physics, scale=net.spec.scale)
    objective.to(fabric.device)
    course = Course(
        fabric=fabric,
        network=net,
        lesson=Supervised(objective),
        settings=settings,
        data=Data([measured], [], [record_of(reference, "the scan itself")]),
        validator=Validator([], patch=settings.patch, scale=net.spec.scale, sensor=physics),
        normalization=recipe,
        bands=band_names(None, [reference], 1),
        files=Files(target),
        name=name or target.name.removesuffix(".safetensors"),
        choices={"rounds": rounds, "data_range": data_range},
    )
    kept = finished(course, overwrite=overwrite) if resume else None
    if kept is not None:
        return kept

    def renewed() -> PairMaker:
        return PairMaker(
            [_estimate(course, scan, measured) if turns else measured],
            patch=settings.patch,
            scale=net.spec.scale,
            sensor=physics,
            augmentation=settings.augment,
            orders=turns,
            device=fabric.device,
        )

    return _taught(course, renewed, rounds, begun, trackers=trackers, resume=resume, progress=progress)


def _taught(
    course: Course,
    renewed: Callable[[], PairMaker],
    rounds: int,
    begun: float,
    *,
    trackers: Sequence[str] | None,
    resume: bool,
    progress: Progress | None,
) -> TrainingResult:
    """Teach in rounds, from where an interrupted run stopped if that is wanted, and write what it comes to."""
    first = course.fabric.global_rank == 0
    facts = {"rounds": rounds, "mode": "self"}
    book = _Book(course.files.state, course.identity)
    begin = book.opened() if resume else None
    if begin is None and first:
        book.write(0, Outcome(weights=course.network.state_dict()))
    settings = course.settings.to_dict()
    watchers = open_trackers(trackers, name=course.name, folder=course.files.log, settings=settings) if first else []
    try:
        with keeping(course.files.target, lambda: book.rounds() > 0):
            outcome = _in_rounds(course, renewed, rounds, begun, book, begin, trackers=watchers, progress=progress)
            return write(course, outcome, facts=facts)
    except DivergedError as error:
        course.network.load_state_dict(error.outcome.weights)
        write(course, error.outcome, good=False, facts=facts)
        raise
    finally:
        for tracker in watchers:
            tracker.close()


def _in_rounds(
    course: Course,
    renewed: Callable[[], PairMaker],
    rounds: int,
    begun: float,
    book: _Book,
    begin: tuple[int, Outcome] | None,
    *,
    trackers: Sequence[Tracker],
    progress: Progress | None,
) -> Outcome:
    """Teach several times, each time on pairs of the estimate that the network gives by then."""
    first, outcome = begin or (0, Outcome(weights=course.network.state_dict()))
    course.network.load_state_dict(outcome.weights)
    history, done = list(outcome.history), outcome.step
    begun -= outcome.seconds
    minutes, inner = course.settings.minutes, _inner(course.files)
    for number in range(first, rounds):
        maker = renewed()
        share = None if minutes is None else _share(minutes, begun, rounds - number)
        settings = replace(course.settings, seed=course.settings.seed + number, minutes=share)
        one = replace(course, settings=settings, files=inner)
        try:
            outcome = teach(one, maker, progress=_shifted(progress, done, rounds - number))
        finally:
            if course.fabric.global_rank == 0:
                inner.state.unlink(missing_ok=True)  # what is resumed from is the book
        history += [record | {"step": record["step"] + done} for record in outcome.history]
        done += outcome.step
        for tracker in trackers:
            tracker.record(done, {key: value for key, value in history[-1].items() if key != "step"})
        log.info("round %d of %d: loss %.4g", number + 1, rounds, history[-1]["loss"])
        outcome = replace(outcome, history=history, step=done, seconds=time.perf_counter() - begun)
        if course.fabric.global_rank == 0:
            book.write(number + 1, outcome)
        course.fabric.barrier()
    return outcome


@dataclass(frozen=True)
class _Book:
    """The file in which a run keeps what each round came to.

    Attributes:
        path: where it lies.
        identity: texts that tell this run from another; see :mod:`sciSR.training.identity`.
    """

    path: Path
    identity: Mapping[str, str]

    def write(self, rounds: int, outcome: Outcome) -> None:
        """Keep the outcome of so many rounds."""
        kept = {name: getattr(outcome, name) for name in _KEPT}
        save_state(self.path, kept | {"rounds": rounds, "settings": dict(self.identity)})

    def rounds(self) -> int:
        """How many rounds are kept."""
        return int(load_state(self.path).get("rounds", 0)) if self.path.exists() else 0

    def opened(self) -> tuple[int, Outcome] | None:
        """Rounds that an interrupted run finished, and their outcome; None: no run was interrupted, or in its first."""
        if not self.path.exists():
            return None
        kept = load_state(self.path)
        changed = difference(kept["settings"], self.identity, _FREE)
        if changed is not None:
            raise InputError(f"resume: {changed}; set it back, or train without resume")
        if "rounds" not in kept:
            raise CheckpointError(f"{self.path}: is not the state of a run of mode self; train without resume")
        if kept["rounds"] == 0:
            log.warning("resume: the run of %s was stopped before its first round was over; it begins anew", self.path)
            return None
        log.info("going on after round %d", kept["rounds"])
        return kept["rounds"], Outcome(**{name: kept[name] for name in _KEPT})


def _inner(files: Files) -> Files:
    """Where the loop keeps the state of a round until that is over."""
    return Files(files.target.with_name(files.target.name.removesuffix(".safetensors") + ".round.safetensors"))


def own_settings(given: Mapping[str, Any], whole: Signature) -> dict[str, Any]:
    """What :func:`train_self` takes of the settings of :func:`~sciSR.training.train`.

    Args:
        given: settings by name; those left away are as they are by default.
        whole: the signature of ``train``.

    Raises:
        InputError: a setting that mode self does not take is not as it is by default.
    """
    taken = signature(train_self).parameters
    others = [
        key
        for key, parameter in whole.parameters.items()
        if key not in (*taken, "references", "mode") and _changed(given.get(key, parameter.default), parameter.default)
    ]
    if others:
        raise InputError(
            f"{', '.join(others)}: mode self does not take it; leave it away, or use mode supervised; mode self takes "
            f"{', '.join(key for key in taken if key != 'scan')}"
        )
    if given.get("learning_rate") == "auto":
        raise InputError("learning_rate: auto is for mode supervised; give a number, such as 1e-3")
    return {key: value for key, value in given.items() if key in taken}


def _changed(value: Any, default: Any) -> bool:
    return bool((tuple(value) if isinstance(value, list) else value) != default)


def only_one(references: Sequence[Reference]) -> Raster:
    """The one scan that a self-supervised run learns from.

    Raises:
        InputError: none or several, or one of which more is said than where it is.
    """
    if len(references) != 1:
        names = ", ".join(r.raster.name for r in references) or "none"
        raise InputError(f"training: mode self learns from one scan, {len(references)} came ({names})")
    given, plain = references[0], Reference(references[0].raster)
    others = [
        f.name
        for f in fields(Reference)
        if f.name != "raster" and _changed(*(getattr(r, f.name) for r in (given, plain)))
    ]
    if others:
        raise InputError(
            f"{given.raster.name}: mode self learns from the whole scan and does not take {', '.join(others)}; leave "
            "it away, or use mode supervised"
        )
    return given.raster


def slice_sensor(
    scan: Raster,
    measured: Crop,
    network: SRNetwork,
    given: Sensor | str | Mapping[str, Any] | None,
    width: float | Literal["header", "spectrum"],
) -> Sensor:
    """The sensor whose profile along z is as wide as the slices of this scan are."""
    if given is None:
        given = network.card.sensor if network.card is not None and network.card.sensor is not None else "mri-thick"
    sensor = load_sensor(given)
    if not _turns(network.spec.scale):
        return sensor.at(scan.grid.coarsen(network.spec.scale_by_axis).spacing)
    if width == "spectrum":
        fwhm = estimate_fwhm(measured.high[0], measured.spacing)
        log.info("%s: slices estimated to be %.2f spacings thick", scan.name, fwhm)
    elif width == "header":
        stated = stated_fwhm(scan)
        fwhm = 1.0 if stated is None else stated
    elif isinstance(width, str) or not 0 < width < 10:
        raise InputError(f"slice_width: {width!r} came, expected header, spectrum, or a part of the slice spacing")
    else:
        fwhm = float(width)
    return replace(sensor, z=replace(sensor.z, fwhm=fwhm, fwhm_mm=None))


def _turns(scale: Sequence[int]) -> tuple[tuple[int, ...], ...] | None:
    """How patches are turned; None for a network that refines every axis alike and learns from the scan as it is."""
    if len(set(scale)) == 1:
        return None
    if len(scale) == 3 and scale[0] > 1 and tuple(scale[1:]) == (1, 1):
        return _TURNS
    raise InputError(
        f"self-supervised training: a network of scale {tuple(scale)} came; expected one that refines z alone, or all "
        "axes alike"
    )


def _patch(patch: int | Mapping[str, int], network: SRNetwork, measured: Crop) -> tuple[int, ...]:
    """The patch that was asked for, or as much of it as a small scan has room for."""
    if isinstance(patch, Mapping) or not _turns(network.spec.scale):
        return per_axis(patch, network.spec.axes, "patch")
    scale = network.spec.scale[0]
    depth = max(2, min(patch // 2, min(measured.shape[1:]) // scale - 4))
    plane = min(patch * 3 // 2, measured.shape[0] * scale, *measured.shape[1:])
    return (depth, plane, plane)


def _estimate(course: Course, scan: Raster, measured: Crop) -> Crop:
    """The fine volume as the network sees it now, normalised as the scan is."""
    network = course.network.to("cpu")
    fine = upscale(scan, network, normalization=course.normalization, precision="float32", labels=False)
    block = fine.read()
    values = measured.intensity.apply(block.values)
    valid = None if block.valid is None or block.valid.all() else torch.from_numpy(np.ascontiguousarray(block.valid))
    spacing = tuple(fine.grid.spacing[axis] for axis in fine.grid.axes)
    network.train()
    return replace(measured, high=torch.from_numpy(values)[None], valid=valid, spacing=spacing)


def _share(minutes: float, begun: float, rounds: int) -> float:
    """Minutes for the next of so many rounds that are left, and for what follows it."""
    left = minutes - (time.perf_counter() - begun) / 60
    return max(0.02, _TRAINED * left / rounds)


def _shifted(progress: Progress | None, before: int, rounds: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(before + done, before + total * rounds)

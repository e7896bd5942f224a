"""``train()``: from fine rasters to a checkpoint one can trust."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch

from sciSR.degradation import Sensor
from sciSR.errors import InputError
from sciSR.files import check_free
from sciSR.losses import Loss, build_loss
from sciSR.networks import load_network
from sciSR.networks.spec import SRNetwork, model_name
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Augmentation, Library, PairMaker, Reference, RotatingMaker, decoded_bytes
from sciSR.training.adversarial import AdversarialLesson, Game
from sciSR.training.compression import DistilledLesson, PrunedLesson
from sciSR.training.course import Course, finished, follow, rehearse
from sciSR.training.data import as_references, check_patience, gather, wide_enough
from sciSR.training.found import found_before, search_entry, trials_before
from sciSR.training.identity import weights_text
from sciSR.training.lessons import Lesson, Supervised
from sciSR.training.loop import Progress, Settings
from sciSR.training.outputs import Files, TrainingResult
from sciSR.training.rates import try_rates
from sciSR.training.search import Search, Trial, search_network
from sciSR.training.selfsupervised import only_one, own_settings, train_self
from sciSR.training.setup import (
    band_names,
    launch,
    network_of,
    normalization_of,
    per_axis,
    plain_network,
    sensor_of,
    settings_of,
    stated_sensor,
)
from sciSR.training.sizes import measure
from sciSR.training.trackers import open_trackers
from sciSR.training.validation import Validator

__all__ = ["teacher_of", "train"]

log = logging.getLogger(__name__)


def train(
    references: Sequence[Raster | Reference] | Raster | Reference,
    output: str | os.PathLike[str],
    *,
    network: SRNetwork | str | Mapping[str, Any],
    mode: Literal["supervised", "self"] = "supervised",
    validation: Sequence[Raster | Reference] | Raster | Reference = (),
    validation_fraction: float = 0.15,
    normalization: Normalization | Mapping[str, Any] | None = None,
    sensor: Sensor | str | Mapping[str, Any] | None = None,
    bands: Sequence[str] | None = None,
    name: str | None = None,
    patch: int | Mapping[str, int] = 16,
    batch: int = 8,
    steps: int | None = None,
    minutes: float | None = None,
    rounds: int = 2,
    slice_width: float | Literal["header", "spectrum"] = "header",
    learning_rate: float | Literal["auto"] = 1e-3,
    warmup: int = 50,
    schedule: str = "cosine",
    final_learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    loss: str | Mapping[str, Any] = "l1",
    ema: float = 0.999,
    clip: float | None = 1.0,
    accumulate: int = 1,
    augment: Augmentation | Mapping[str, Any] | None = None,
    adversarial: Game | Mapping[str, Any] | None = None,
    teacher: SRNetwork | str | None = None,
    teacher_weight: float = 0.7,
    prune: float | None = None,
    search: Search | Mapping[str, Any] | None = None,
    precision: str = "float32",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    cache_gb: float | None = None,
    seed: int = 0,
    deterministic: bool = False,
    validate_every: int = 200,
    validation_patch: int | Mapping[str, int] | None = None,
    validation_count: int = 4,
    data_range: float = 1.0,
    patience: int | None = None,
    dry_run: bool = False,
    compiled: bool = False,
    trackers: Sequence[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a network on rasters and write it as a checkpoint, with its record and its training curve beside it.

    Every random draw is a function of (seed, step, sample), so the same call gives the same weights on the same
    machine, resumed or not, and the same validation on many devices.

    Args:
        references: fine rasters to learn from; a :class:`~sciSR.sampling.Reference` says more about one: a measured
            coarse partner, what to hold out, bands, weight.
        output: the checkpoint, ``.safetensors``.
        network: a network; the name or file of weights to start from; or ``{"family": "edsr", "scale": 2, …}``, what
            :func:`~sciSR.networks.build_network` takes (``ndim`` and ``in_channels`` follow from the references).
        mode: ``"self"``: learn from one scan with thick slices alone; :func:`~sciSR.training.train_self` says what the
            settings then mean.
        validation: other rasters to be judged on. What references hold out is judged on too.
        validation_fraction: part that is held out where neither names anything: of 8 references or more whole ones (at
            most 16, files of one subject together), of fewer the far end of each.
        normalization: how values become the network's input; None: the weights' own, the teacher's, or percentile.
        sensor: the degradation to undo, a name of ``configs/sensors``, its values, or a Sensor; real pairs need it for
            a loss that asks for it only (``data_consistency``).
        bands: names of the channels; None: as the first reference names them.
        name: of the weights; None: the output's file name.
        patch: coarse pixels of a training patch, on every axis or by axis name.
        batch: patches per step, over all devices.
        steps: how long to train; reproducible.
        minutes: how long to train, turned into steps once their speed is known; the record holds the steps.
        rounds: for ``mode="self"``: how often the estimate is renewed; each round takes ``steps``, or all of them
            ``minutes``.
        slice_width: for ``mode="self"``: how thick the slices are, as a part of their spacing, or where to look.
        learning_rate: the highest one; ``"auto"``: found by :func:`~sciSR.training.try_rates`.
        warmup: steps over which it rises to that.
        schedule: how it falls afterwards: cosine, step, constant.
        final_learning_rate: what is left of it at the end, as a part.
        weight_decay: of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
        loss: name of a loss, ``{name: weight}``, or as :func:`sciSR.losses.build_loss` takes it.
        ema: decay of the moving average of the weights; the average is what is validated and kept.
        clip: longest gradient; None: any.
        accumulate: batches per step.
        augment: what is varied from patch to patch: an Augmentation or its values.
        adversarial: settings of a game against a discriminator, for a network that is trained already.
        teacher: a larger network, or the name or file of one, whose output is a second target (distillation); of the
            same normalization, and not together with ``adversarial``.
        teacher_weight: share of that target.
        prune: share of the weights to set to zero, the smallest, while the others adapt.
        search: find width and depth of the network first, by short trainings under a budget of operations.
        precision: ``float32``, ``bf16`` or ``fp16`` (CUDA only) arithmetic; weights stay float32.
        device: auto, cpu, cuda, mps.
        devices: processes or GPUs per node.
        nodes: machines.
        cache_gb: memory for all copies of decoded references that live at a time, in 10^9 bytes; more than that is read
            part by part while the training goes on. What is judged on is held beside it. None: all are held.
        seed: of everything random.
        deterministic: refuse operations that are not (slower on GPUs).
        validate_every: steps between validations, each of which also writes the state to resume from.
        validation_patch: coarse pixels of a validation crop; None: twice the patch.
        validation_count: crops per held-out raster.
        data_range: of PSNR and SSIM, in normalised units.
        patience: validations without a better one after which to stop; None: never.
        dry_run: see whether the network can learn at all: overfit the first batch for ``steps``, at most 200, without
            search, write nothing, and give the losses and the verdict as ``values["dry_run"]``.
        compiled: run the network through torch.compile: slower to start, faster on GPUs.
        trackers: where to log: some of tensorboard, wandb, mlflow; None: tensorboard where it is installed.
        resume: go on where an interrupted run of the same settings stopped, with the rate and the network that it had
            found; a finished output of the same settings and references is kept as it is.
        overwrite: replace the output.
        progress: called with (steps done, steps in all).

    Returns:
        Where everything lies, and the scores; of a dry run where it would lie, and the verdict.

    Raises:
        InputError: settings or references that do not fit, or are not those of the run to be resumed.
        OutputExistsError: the output exists and neither ``overwrite`` nor ``resume`` was given.
        RunError: the loss became NaN; the last good weights are written beside the output.
    """
    given = dict(locals())
    target = Path(output)
    check_free(target, overwrite or resume or dry_run)
    if (steps is None) == (minutes is None) or (steps or minutes or 0) <= 0:
        raise InputError(f"training: steps {steps} and minutes {minutes} came; give one of them, above 0")
    learned, judged = as_references(references), as_references(validation)
    if mode == "self":
        return train_self(only_one(learned), **own_settings(given, signature(train)))
    if mode != "supervised":
        raise InputError(f"mode: {mode!r} came, expected supervised or self")
    alone = [key for key in ("rounds", "slice_width") if given[key] != signature(train).parameters[key].default]
    if alone:
        raise InputError(f"{', '.join(alone)}: mode supervised does not take it; leave it away, or use mode self")
    before = found_before(Files(target)) if resume and not dry_run else {}
    found: dict[str, Any] = {}
    trials: list[Trial] = []
    if search is not None and not dry_run:
        network, trials, found["search"] = _searched(given, settings_of(Search, search, "search"), learned, before)
    torch.manual_seed(seed)
    net = network_of(network, learned)
    axes, scale = net.spec.axes, net.spec.scale
    guide = teacher_of(teacher, net, adversarial)
    recipe = normalization_of(normalization, net, guide)
    physics = sensor_of(sensor, net, learned, bands)
    settings = Settings(
        patch=per_axis(patch, axes, "patch"),
        batch=batch,
        steps=steps,
        minutes=minutes,
        learning_rate=1e-3 if learning_rate == "auto" else learning_rate,
        warmup=warmup,
        schedule=schedule,
        final_learning_rate=final_learning_rate,
        weight_decay=weight_decay,
        loss=loss,
        ema=ema,
        clip=clip,
        accumulate=accumulate,
        precision=precision,
        seed=seed,
        validate_every=validate_every,
        patience=patience,
        dry_run=dry_run,
        augment=settings_of(Augmentation, augment, "augment"),
        keep="best" if adversarial is None and prune is None else "last",
    )
    wide_enough(settings.patch, net.spec.minimum)
    stated = physics or stated_sensor(sensor, net, learned, bands)
    objective = build_loss(loss, ndim=len(axes), data_range=data_range, sensor=stated, scale=scale)
    fabric = launch(device, devices, nodes, precision)
    torch.use_deterministic_algorithms(deterministic)
    too_much = cache_gb is not None and 2 * decoded_bytes(learned) > cache_gb * 1e9  # as crops, and to gather from
    facts: dict[str, Any] = {"normalization": recipe, "channels": net.spec.in_channels, "scale": scale}
    data = gather(learned, judged, **facts, fraction=validation_fraction, seed=seed, held_only=too_much)
    if too_much and not data.validation:
        raise InputError("cache_gb: references this large are judged on what held_out or validation name; name some")
    check_patience(patience, bool(data.validation))
    pairs_of = partial(
        PairMaker,
        patch=settings.patch,
        scale=scale,
        sensor=physics,
        augmentation=settings.augment,
        device=fabric.device,
    )
    maker: PairMaker | RotatingMaker
    if too_much:
        least = [(n + 8) * s for n, s in zip(settings.patch, scale, strict=True)]
        library = Library(data.references, **facts, budget_gb=cache_gb or 0, least=least, seed=seed)
        maker = RotatingMaker(library, pairs_of)
    else:
        maker = pairs_of(data.training)
    wide = {axis: 2 * n for axis, n in zip(axes, settings.patch, strict=True)}
    validator = Validator(
        data.validation,
        patch=per_axis(validation_patch or wide, axes, "validation_patch"),
        scale=scale,
        sensor=physics,
        count=validation_count,
        noise=settings.augment.noise[1] or 0.01,
        data_range=data_range,
        device=fabric.device,
    )
    if validator.crops:
        validator.samples()  # what cannot be judged by is told before the first step
    net.to(fabric.device)
    objective.to(fabric.device)
    if learning_rate == "auto":
        rate = before.get("learning_rate")
        if rate is None:
            tested = try_rates(net, maker, Supervised(objective), settings, device=fabric.device)
            rate = fabric.broadcast(tested.suggestion)
            log.info("learning rate %.2g, from a test of %d rates", rate, len(tested.rates))
        found["learning_rate"] = rate
        settings = replace(settings, learning_rate=rate)
    game = None
    if adversarial is not None:
        game = settings_of(Game, adversarial, "adversarial")
        game.check(isinstance(network, str) or net.card is not None)
    course = Course(
        fabric=fabric,
        network=net,
        lesson=_lesson(net, objective, settings, fabric, guide, teacher_weight, game, prune),
        settings=settings,
        data=data,
        validator=validator,
        normalization=recipe,
        bands=band_names(bands, learned, net.spec.in_channels),
        files=Files(target),
        name=name or target.name.removesuffix(".safetensors"),
        choices={
            "sensor": None if stated is None else stated.to_dict(),
            "adversarial": game,
            "teacher": None if teacher is None else weights_text(teacher),
            "teacher_weight": teacher_weight,
            "prune": prune,
            "validation_fraction": validation_fraction,
            "validation_patch": validator.patch,
            "validation_count": validation_count,
            "data_range": data_range,
            "cache_gb": cache_gb if too_much else None,
        },
        found=found,
    )
    if dry_run:
        return rehearse(course, maker, compiled=compiled, progress=progress)
    kept = finished(course, overwrite=overwrite) if resume else None
    if kept is not None:
        return kept
    if before and not course.files.state.exists():
        return train(**(given | {"resume": False}))  # another run than the one whose findings these are
    beside = _beside(net, guide, prune)
    watchers = (
        open_trackers(trackers, name=course.name, folder=course.files.log, settings=settings.to_dict())
        if fabric.global_rank == 0
        else []
    )
    return follow(
        course,
        maker,
        resume=resume,
        compiled=compiled,
        trackers=watchers,
        facts=partial(_facts, course, trials, teacher, prune, beside),
        progress=progress,
    )


def _lesson(
    network: SRNetwork,
    objective: Loss,
    settings: Settings,
    fabric: Any,
    teacher: SRNetwork | None,
    teacher_weight: float,
    game: Game | None,
    prune: float | None,
) -> Lesson:
    """What every step asks of the network."""
    lesson: Lesson = Supervised(objective)
    if teacher is not None:
        lesson = DistilledLesson(objective, teacher.to(fabric.device), teacher_weight)
    if game is not None:
        torch.manual_seed(settings.seed)
        referee = game.referee(network.spec.ndim, network.spec.out_channels).to(fabric.device)
        lesson = AdversarialLesson(objective, game, referee, settings.learning_rate, fabric)
    if prune is None:
        return lesson
    return PrunedLesson(lesson, network, prune, settings.steps)


def _beside(network: SRNetwork, guide: SRNetwork | None, prune: float | None) -> dict[str, SRNetwork]:
    """The networks that a smaller one is compared with, by what the table calls them."""
    found: dict[str, SRNetwork] = {}
    if guide is not None:
        found[f"teacher {_called(guide)}"] = guide
    if prune is not None:
        found[f"before: {_called(network)}"] = copy.deepcopy(network).requires_grad_(False)
    return found


def _called(network: SRNetwork) -> str:
    return f"untrained {network.family}" if network.card is None else network.card.name


def _facts(
    course: Course,
    trials: Sequence[Trial],
    teacher: SRNetwork | str | None,
    prune: float | None,
    beside: Mapping[str, SRNetwork],
) -> dict[str, Any]:
    """What the record says beside the settings of the loop; the network has the weights to keep."""
    facts: dict[str, Any] = {"search": [trial.to_dict() for trial in trials]} if trials else {}
    if course.found:
        facts["found"] = dict(course.found)
    if teacher is not None:
        facts["teacher"] = model_name(teacher)
    if prune is not None:
        facts["pruned"] = prune
    if beside or trials:
        device = course.validator.device
        rows = [measure(name, other.to(device), course.validator) for name, other in beside.items()]
        rows.append(measure(course.name, course.network.to(device), course.validator))
        facts["sizes"] = [row.to_dict() for row in rows]
    return facts


def _searched(
    given: Mapping[str, Any], search: Search, references: Sequence[Reference], before: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Trial], dict[str, Any]]:
    """Arguments of the best network, what was tried now or by the run ``before``, and what to keep of it."""
    network = given["network"]
    if not isinstance(network, Mapping):
        raise InputError("search: network must name a family and its arguments; weights have their size already")
    plain = plain_network(network, references)
    own = {"search", "network", "minutes", "resume", "overwrite", "trackers", "progress", "output", "references"}
    common = {key: value for key, value in given.items() if key not in own}

    def score(arguments: dict[str, Any]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            changes: dict[str, Any] = {"network": arguments, "steps": search.steps, "validate_every": search.steps}
            tried = train(given["references"], Path(folder) / "trial.safetensors", **(common | changes), trackers=())
        if "psnr" not in tried.values["history"][-1]:
            raise InputError("search: nothing is held out to judge by; name validation or held_out")
        return float(tried.values["history"][-1]["psnr"])

    trials = trials_before(before, plain, search)
    if not trials:
        _, trials = search_network(plain, search, score, seed=given["seed"])
    size = {"features": trials[0].features, "blocks": trials[0].blocks}
    return {**plain, **size}, trials, search_entry(plain, search, trials)


def teacher_of(
    given: SRNetwork | str | None, student: SRNetwork, adversarial: Game | Mapping[str, Any] | None
) -> SRNetwork | None:
    """The larger network that a setting means, checked against the smaller one; None: none is asked for.

    Raises:
        InputError: it is of another scale or other channels, or a game is asked for too.
        MissingFileError: there is no such file.
    """
    if given is None:
        return None
    if adversarial is not None:
        raise InputError("teacher: adversarial does not take one; train with the teacher first, then the game without")
    teacher = load_network(given) if isinstance(given, str) else given
    theirs, ours = ((n.spec.scale, n.spec.in_channels, n.spec.out_channels, n.spec.axes) for n in (teacher, student))
    if theirs != ours:
        raise InputError(
            f"teacher: scale {theirs[0]}, channels {theirs[1]} to {theirs[2]}; the network has scale {ours[0]}, "
            f"channels {ours[1]} to {ours[2]}"
        )
    return teacher

"""Every error that can be found before work starts: inputs, channels, axes, factors, device, disk, memory, outputs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sciSR.backends import pick_devices
from sciSR.batch import Job, expand_inputs, pair_outputs
from sciSR.classical import classical_class
from sciSR.config import TrainSection, UpscaleSection, Workflow
from sciSR.degradation import load_sensor
from sciSR.disk import DiskNeed, crowded, disk_need, nearest_folder
from sciSR.errors import (
    InputError,
    MissingFileError,
    OutputExistsError,
    ResourceError,
    SciSRError,
    SciSRWarning,
)
from sciSR.evaluation import check_comparable
from sciSR.files import check_free
from sciSR.grid import Grid
from sciSR.io import adapter_for, check_target, open_raster
from sciSR.memory import available_memory, needed_memory
from sciSR.networks import list_weights, network_class, weights_path
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.record import is_remote
from sciSR.steps import (
    Model,
    coarsened,
    consistent,
    engine_facts,
    finished,
    known_sensor,
    load_model,
    open_input,
    refined,
)

__all__ = ["Outlook", "Preflight", "check_workflow"]


@dataclass(frozen=True)
class Outlook:
    """What one input will become.

    Attributes:
        job: input and output.
        shape: length of every axis of the input.
        result_shape: and of the result.
        grid: where the result's pixels lie.
        disk: expected size of the output, and of what lies beside it until then.
        memory_bytes: expected peak memory.
    """

    job: Job
    shape: tuple[int, ...]
    result_shape: tuple[int, ...]
    grid: Grid
    disk: DiskNeed
    memory_bytes: int


@dataclass
class Preflight:
    """What was found before the work.

    Attributes:
        ready: the inputs that can be worked on.
        outlooks: what becomes of them, as far as it can be told (not before the network is trained).
        model: the network or classical method, or None where it is yet to be trained or there is none.
        errors: what stands against the whole run.
        refused: inputs that cannot be worked on, and why.
        notes: warnings that the run will give.
    """

    ready: list[Job] = field(default_factory=list)
    outlooks: list[Outlook] = field(default_factory=list)
    model: Model | None = None
    errors: list[SciSRError] = field(default_factory=list)
    refused: list[tuple[Job, SciSRError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_workflow(
    workflow: Workflow,
    *,
    overwrite: bool = False,
    resume: bool = False,
    distributed: bool = False,
    finished: Sequence[Path] = (),
) -> Preflight:
    """Find what would make the workflow fail, from headers and a glance at the values.

    Args:
        workflow: what is to be run.
        overwrite: outputs that are there are no error.
        resume: training goes on, so its checkpoint may be there, and finished parts of outputs are kept beside them.
        distributed: workers of a cluster compute the results.
        finished: outputs that are there already and will be kept.
    """
    found = Preflight()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SciSRWarning)
        for step in (_check_settings, _check_training, _check_model):
            try:
                step(workflow, found)
            except SciSRError as error:
                found.errors.append(error)
        if workflow.train is not None:
            try:
                check_free(Path(workflow.train.output), overwrite or resume or workflow.train.dry_run)
            except OutputExistsError as error:
                found.errors.append(error)
        try:
            jobs = _jobs(workflow)
        except SciSRError as error:
            found.errors.append(error)
            jobs = []
        for job in jobs:
            if job.output not in finished:
                _check_job(workflow, job, found, overwrite, resume, distributed)
        found.errors += crowded((outlook.job.output, outlook.disk) for outlook in found.outlooks)
    found.notes = list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, SciSRWarning)))
    return found


def _jobs(workflow: Workflow) -> list[Job]:
    if workflow.input is None or (workflow.upscale is None and workflow.degrade is None):
        return []
    section, output = workflow.input, workflow.output
    return pair_outputs(expand_inputs(section.path), output.path, suffix=output.suffix, join=section.join)


def _check_settings(workflow: Workflow, found: Preflight) -> None:
    """Devices, sensors, baselines, and the files of the train and evaluate steps; each on its own."""
    for check in _setting_checks(workflow):
        try:
            check()
        except SciSRError as error:
            found.errors.append(error)


def _setting_checks(workflow: Workflow) -> Iterator[Callable[[], object]]:
    if workflow.upscale is not None:
        yield partial(pick_devices, workflow.upscale.device)
    for section in (workflow.upscale, workflow.consistency, workflow.degrade, workflow.evaluate):
        if section is not None and section.sensor is not None:
            yield partial(load_sensor, section.sensor)
    if workflow.evaluate is not None:
        for name in workflow.evaluate.baselines:
            yield partial(_check_baseline, name)
        for path in (workflow.evaluate.reference, workflow.evaluate.mask):
            if path is not None:
                yield partial(open_raster, path)
    if workflow.train is not None:
        yield from _training_checks(workflow.train)


def _check_training(workflow: Workflow, found: Preflight) -> None:
    """What the train step will meet, once its files are there; each on its own."""
    section = workflow.train
    if section is None or found.errors:
        return
    from sciSR.trainer import section_checks

    source = None if section.references else workflow.input
    try:
        scans = [] if source is None else [open_input(source, [path]) for path in expand_inputs(source.path)]
    except SciSRError:
        return  # the input is told of where it is refused
    for check in section_checks(section, scans):
        try:
            check()
        except SciSRError as error:
            if str(error) not in map(str, found.errors):
                found.errors.append(error)


def _check_baseline(name: str) -> None:
    """A classical method by name, shipped weights, or a file of weights (a fitted method's)."""
    if name not in list_weights() and not os.path.isfile(name):
        classical_class(name)


def _training_checks(section: TrainSection) -> Iterator[Callable[[], object]]:
    from sciSR.trainer import references  # takes seconds to load, and few workflows train

    yield partial(pick_devices, section.device)
    if section.sensor is not None:
        yield partial(load_sensor, section.sensor)
    if isinstance(section.network, str):
        yield partial(weights_path, section.network)
    elif "family" in section.network:
        yield partial(network_class, str(section.network["family"]))
    for reference in (*section.references, *section.validation):
        yield partial(references, (reference,))


def _check_model(workflow: Workflow, found: Preflight) -> None:
    if workflow.upscale is None or workflow.upscale.network is None:
        return
    found.model = load_model(workflow.upscale.network)
    section = workflow.evaluate
    if section is None or section.protocol != "wald" or section.sensor or workflow.upscale.sensor:
        return
    if known_sensor(found.model, None, None) is None:
        raise InputError(
            f"evaluate.sensor is missing: {workflow.upscale.network} does not state the sensor it is for; "
            "name a file of configs/sensors, such as mri, ct or sentinel-2"
        )


def _check_job(
    workflow: Workflow, job: Job, found: Preflight, overwrite: bool, resume: bool, distributed: bool
) -> None:
    try:
        _check_place(workflow, job, overwrite, resume)
        if workflow.input is None:
            return
        raster = open_input(workflow.input, job.sources)
        result = _outcome(workflow, raster, found.model)
        if result is None:
            adapter_for(job.output)
            found.ready.append(job)
            return
        check_target(result, job.output, overwrite=overwrite, **workflow.output.options)
        _check_reference(workflow, raster, result)
        disk = disk_need(raster, result, job, workflow.output.options, resume=resume, distributed=distributed)
        memory = needed_memory(raster, result, found.model, engine_facts(result), workflow.evaluate)
        outlook = Outlook(job, raster.shape, result.shape, result.grid, disk, memory)
        _check_room(outlook)
        found.outlooks.append(outlook)
        found.ready.append(job)
    except SciSRError as error:
        found.refused.append((job, error))


def _check_place(workflow: Workflow, job: Job, overwrite: bool, resume: bool) -> None:
    """Whether input and output may lie where they do. What a killed run has left beside no output may be replaced."""
    for source in job.sources:
        if not is_remote(source) and not os.path.exists(source):
            raise MissingFileError(f"{source}: no such file")
    endings = [".run.json"]
    if workflow.report is not None:
        endings += [e for e, wanted in ((".png", workflow.report.picture), (".html", workflow.report.html)) if wanted]
    for path in (job.output, *(job.beside(ending) for ending in endings)):
        if resume and path == job.output and path.exists() and not overwrite:
            raise OutputExistsError(
                f"{path}: exists already, but not made of this input with these settings and weights, or it has been "
                "changed since; choose another output or allow overwriting (--overwrite)"
            )
        if path.exists() and not overwrite and not (resume and not job.output.exists()):
            raise OutputExistsError(f"{path}: exists already; choose another output or allow overwriting (--overwrite)")
        if path.is_dir() and path.suffix.lower() != ".zarr":
            raise OutputExistsError(f"{path}: is a folder; choose another name for the output")
    parent = nearest_folder(job.output.parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{job.output}: cannot write into {parent}; choose another output")


def _outcome(workflow: Workflow, raster: Raster, model: Model | None) -> Raster | None:
    """The lazy result, set up without all of the values; None where the network is yet to be made."""
    if workflow.degrade is not None:
        return coarsened(raster, workflow.degrade)
    if workflow.upscale is None or model is None:
        return None
    section = workflow.upscale
    light: dict[str, Any] = {}
    if section.precision != "int8" and section.backend != "openvino":  # these look at the values to be set up
        recipe = _known_recipe(section, model)
        light = {"normalization": recipe} | ({"precision": "float32"} if section.precision == "auto" else {})
    result = refined(raster, model, section, **light)
    return finished(consistent(raster, result, model, workflow), workflow)


def _known_recipe(section: UpscaleSection, model: Model) -> Normalization:
    """The intensity map as far as a glance tells: a fixed one, which knows its unit and refuses scenes in another."""
    if section.normalization is not None:
        recipe = Normalization(**section.normalization.model_dump())
    else:
        card = model.card if isinstance(model, SRNetwork) else None
        recipe = (None if card is None else card.normalization) or Normalization()
    return replace(recipe, nonnegative=False) if recipe.kind == "fixed" else Normalization()


def _check_reference(workflow: Workflow, raster: Raster, result: Raster) -> None:
    """Whether the evaluate step can compare the result with the files that it names."""
    section = workflow.evaluate
    if section is None:
        return
    mask = None if section.mask is None else open_raster(section.mask)
    if section.reference is not None:
        check_comparable(result, open_raster(section.reference), mask)
    else:  # the input itself is the truth
        check_comparable(raster, raster, mask)


def _check_room(outlook: Outlook) -> None:
    free = available_memory()
    if free is not None and outlook.memory_bytes > free:
        raise ResourceError(
            f"{outlook.job.input}: needs about {outlook.memory_bytes / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free; give a smaller tile (--tile), or a smaller factor"
        )

"""``scisr check``: every error of a workflow, before any work."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from sciSR.config import Workflow, load_workflow, workflow_reference, workflow_schema
from sciSR.console import Console, clock
from sciSR.errors import InputError

if TYPE_CHECKING:
    from sciSR.preflight import Outlook, Preflight

__all__ = ["run"]

_PROBE = {2: 96, 3: 24}
"""Pixels per axis of the tile that is timed; its halo comes on top."""
_FILE_PROBE = {2: 512, 3: 64}
"""Pixels per axis of the part that is read and written."""


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what the workflow would do, or each error in one line; gives the exit code."""
    if arguments.schema:
        console.answer(json.dumps(workflow_schema(), indent=1, ensure_ascii=False))
        return 0
    if arguments.keys:
        console.answer(workflow_reference().rstrip())
        return 0
    if arguments.workflow is None:
        raise InputError("check: no workflow came; name a file, such as scisr check workflows/mri_x2.yaml")
    from sciSR.preflight import check_workflow
    from sciSR.record import is_record, read_record
    from sciSR.remake import recorded_workflow

    name = arguments.workflow
    if is_record(name):
        workflow = recorded_workflow(read_record(name), arguments.overrides, name, console)
    else:
        workflow = load_workflow(name, arguments.overrides)
    if arguments.output is not None:
        place = workflow.output.model_copy(update={"path": arguments.output})
        workflow = workflow.model_copy(update={"output": place})
    found = check_workflow(workflow, overwrite=arguments.overwrite)
    for note in found.notes:
        console.warn(note)
    for error in found.errors:
        console.problem(str(error))
    for job, refusal in found.refused:
        text = str(refusal).removeprefix(f"{os.path.basename(job.input)}: ")
        console.problem(text if job.input in text or str(job.output) in text else f"{job.input}: {text}")
    if found.errors or found.refused:
        return 2
    cost = _cost(found, workflow) if found.outlooks else None
    for outlook in found.outlooks:
        console.answer(_told(outlook, cost))
    if cost is not None and len(found.outlooks) > 1:
        console.answer(
            f"all {len(found.outlooks)} inputs: about {clock(sum(_seconds(o, cost) for o in found.outlooks))}"
        )
    steps = [step for step in ("train", "upscale", "degrade", "evaluate", "report") if getattr(workflow, step)]
    console.answer(f"{name}: no error found; steps: {', '.join(steps)}")
    return 0


def _told(outlook: Outlook, cost: _Cost | None) -> str:
    """One line: what becomes of an input, and what it takes."""
    shapes = ["x".join(str(n) for n in s[::-1]) for s in (outlook.shape, outlook.result_shape)]
    spacing = "x".join(f"{v:.4g}" for v in list(outlook.grid.spacing.values())[::-1])
    spent = "" if cost is None else f", {clock(_seconds(outlook, cost))}"
    return (
        f"{outlook.job.input} -> {outlook.job.output}: {shapes[0]} -> {shapes[1]}, "
        f"{spacing} {outlook.grid.unit or 'units'}, about {outlook.disk.output / 1e6:,.1f} MB on disk, "
        f"{outlook.memory_bytes / 1e9:,.1f} GB of memory{spent}"
    )


class _Cost(NamedTuple):
    """Seconds of the network per input value, and of reading and writing per output value."""

    network: float
    files: float


def _seconds(outlook: Outlook, cost: _Cost) -> float:
    return cost.network * math.prod(outlook.shape) + cost.files * math.prod(outlook.result_shape)


def _cost(found: Preflight, workflow: Workflow) -> _Cost | None:
    """What the first input costs, measured on small parts of it; None for classical methods."""
    network = _seconds_per_pixel(found, workflow)
    return None if network is None else _Cost(network, _file_seconds(found.outlooks[0], workflow))


def _file_seconds(outlook: Outlook, workflow: Workflow) -> float:
    """Time per output value of reading, encoding and writing: the middle of the input, its pixels repeated."""
    from sciSR.batch import split_suffix
    from sciSR.inference import upscale
    from sciSR.io import save_raster
    from sciSR.steps import open_input

    assert workflow.input is not None
    raster = open_input(workflow.input, outlook.job.sources)
    most = _FILE_PROBE[len(raster.grid.axes)]
    sizes = {axis: (n, min(n, most)) for axis, n in zip(raster.grid.axes, raster.grid.shape, strict=True)}
    part = raster.crop(**{axis: slice((n - m) // 2, (n - m) // 2 + m) for axis, (n, m) in sizes.items()})
    factors = {a: fine / n for a, fine, n in zip(raster.grid.axes, outlook.grid.shape, raster.grid.shape, strict=True)}
    result = upscale(part, "nearest", scale=factors, labels=False)
    spent = math.inf
    with TemporaryDirectory() as folder:
        for number in range(2):  # the first time also sets things up
            target = Path(folder) / f"{number}{split_suffix(outlook.job.output.name)[1]}"
            start = time.perf_counter()
            save_raster(result, target, **workflow.output.options)
            spent = min(spent, time.perf_counter() - start)
    return spent / math.prod(result.shape)


def _seconds_per_pixel(found: Preflight, workflow: Workflow) -> float | None:
    """Time of the network per input value, from one small tile in the middle; None for classical methods."""
    from sciSR.networks.spec import SRNetwork
    from sciSR.normalization import Normalization
    from sciSR.steps import engine_facts, open_input, refined
    from sciSR.strips import streamed_seconds

    section = workflow.upscale
    if section is None or workflow.input is None or not isinstance(found.model, SRNetwork):
        return None
    raster = open_input(workflow.input, found.outlooks[0].job.sources)
    section = section.model_copy(update={"scale": None, "target_spacing": None})
    size = _PROBE[found.model.spec.ndim]
    precision = "float32" if section.precision in ("auto", "int8") else section.precision
    plain: dict[str, Any] = {"precision": precision, "normalization": Normalization(), "workers": 1}
    if precision == "float32" and section.backend in ("auto", "torch"):
        facts = engine_facts(refined(raster, found.model, section, **plain))
        if "strip_rows" in facts:
            return streamed_seconds(found.model, 2 * size, own_code=facts["filters"] > 0)
    plain["backend"] = "torch"
    probe = refined(raster, found.model, section, tile=size, **plain)
    spatial = (slice(n // 2, n // 2 + 1) for n in probe.grid.shape)
    window = (*(slice(0, n) for n in probe.one_time), *spatial)
    probe.read(window)  # the first run also sets things up
    start = time.perf_counter()
    plan = refined(raster, found.model, section, tile=size, **plain)
    plan.read(window)
    spent = time.perf_counter() - start
    facts = engine_facts(plan)
    if "plan" not in facts:  # classes, which no network refines
        return None
    tile, halo, shape = (facts["plan"][key] for key in ("tile", "halo", "shape"))
    pixels = math.prod(min(t + 2 * h, n) for t, h, n in zip(tile, halo, shape, strict=True))
    return float(spent / (pixels * len(raster.channels)))

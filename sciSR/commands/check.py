"""``scisr check``: every error of a workflow, before any work."""

from __future__ import annotations

import argparse
import json

from sciSR.config import load_workflow, workflow_reference, workflow_schema
from sciSR.console import Console
from sciSR.errors import InputError

__all__ = ["run"]


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
    from sciSR.preflight import Preflight, check_workflow
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
    found: Preflight = check_workflow(workflow, overwrite=arguments.overwrite)
    for note in found.notes:
        console.warn(note)
    for error in found.errors:
        console.problem(str(error))
    for job, refusal in found.refused:
        text = str(refusal)
        console.problem(text if job.input in text or str(job.output) in text else f"{job.input}: {text}")
    if found.errors or found.refused:
        return 2
    for outlook in found.outlooks:
        shapes = ["x".join(str(n) for n in r.shape[::-1]) for r in (outlook.input, outlook.result)]
        spacing = "x".join(f"{v:.4g}" for v in list(outlook.result.grid.spacing.values())[::-1])
        console.answer(
            f"{outlook.job.input} -> {outlook.job.output}: {shapes[0]} -> {shapes[1]}, "
            f"{spacing} {outlook.result.grid.unit or 'units'}, about {outlook.disk_bytes / 1e6:,.1f} MB on disk, "
            f"{outlook.memory_bytes / 1e9:,.1f} GB of memory"
        )
    steps = [step for step in ("train", "upscale", "degrade", "evaluate", "report") if getattr(workflow, step)]
    console.answer(f"{name}: no error found; steps: {', '.join(steps)}")
    return 0

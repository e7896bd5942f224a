"""``scisr upscale``: a workflow of one step, from arguments."""

from __future__ import annotations

import argparse
from typing import Any

from sciSR.commands.run import finish
from sciSR.config import make_workflow
from sciSR.console import Console
from sciSR.workflow import run_workflow

__all__ = ["given", "run"]

ENGINE = ("device", "precision", "backend", "tile", "exact", "normalization", "workers")
INPUT = ("join", "series", "labels", "offset", "nodata", "unit")
OUTPUT = ("suffix", "cog", "dtype", "compress")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Upscale the inputs; gives the exit code."""
    values: dict[str, Any] = {
        "input": {"path": arguments.input, **given(arguments, INPUT)},
        "upscale": given(arguments, ("network", "scale", "target_spacing", "sensor", *ENGINE)),
        "output": {"path": arguments.output, **given(arguments, OUTPUT)},
    }
    if arguments.report:
        values |= {"evaluate": {"protocol": "wald"}, "report": {"picture": True, "html": True}}
    outcome = run_workflow(
        make_workflow(values, name=""),
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        scheduler=arguments.scheduler,
        watcher=console,
    )
    return finish(outcome, console)


def given(arguments: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """The options that came, by name."""
    return {name: getattr(arguments, name) for name in names if name in arguments}

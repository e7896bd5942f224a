"""``scisr degrade``: a workflow of one step that goes the other way."""

from __future__ import annotations

import argparse

from sciSR.commands.run import finish
from sciSR.commands.upscale import INPUT, OUTPUT, given
from sciSR.config import make_workflow
from sciSR.console import Console
from sciSR.workflow import run_workflow

__all__ = ["run"]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Degrade the inputs; gives the exit code."""
    values = {
        "input": {"path": arguments.input, **given(arguments, INPUT)},
        "degrade": given(arguments, ("scale", "sensor", "seed")),
        "output": {"path": arguments.output, **given(arguments, OUTPUT)},
    }
    outcome = run_workflow(
        make_workflow(values, name=""),
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        watcher=console,
    )
    return finish(outcome, console)

"""``scisr run``: a workflow file, or an output once more from its run record."""

from __future__ import annotations

import argparse

from sciSR.console import Console
from sciSR.errors import InputError, MissingFileError, OutputExistsError
from sciSR.workflow import Outcome, run_workflow

__all__ = ["finish", "run"]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the workflow; gives the exit code."""
    outcome = run_workflow(
        arguments.workflow,
        overrides=arguments.overrides,
        output=arguments.output,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        scheduler=arguments.scheduler,
        watcher=console,
    )
    return finish(outcome, console)


def finish(outcome: Outcome, console: Console) -> int:
    """Sum up; gives the exit code: 2 if every failure was a wrong input, else 1."""
    for path in outcome.kept:
        console.say(f"kept     {path}")
    if len(outcome.done) > 1 and outcome.table is not None:
        console.say(f"\nall inputs\n{outcome.table}\n")
    if not outcome.failed:
        return 0
    total = len(outcome.failed) + len(outcome.done) + len(outcome.kept)
    console.problem(f"{len(outcome.failed)} of {total} inputs failed")
    wrong = (InputError, MissingFileError, OutputExistsError)
    return 2 if all(isinstance(error, wrong) for _, error in outcome.failed) else 1

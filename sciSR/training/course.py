"""A run with everything prepared: follow it through the loop, and write what it leaves behind."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from sciSR.errors import InputError, RunError
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.sampling import PairMaker, RotatingMaker
from sciSR.training.data import Data
from sciSR.training.identity import difference, network_texts, reference_texts
from sciSR.training.lessons import Lesson
from sciSR.training.loop import DivergedError, Outcome, Progress, Settings, run
from sciSR.training.outputs import Files, TrainingResult, summary, write_outputs
from sciSR.training.trackers import Tracker, triptych
from sciSR.training.validation import Validator

__all__ = ["Course", "finished", "follow", "keeping", "recorded", "rehearse", "teach", "write"]

log = logging.getLogger(__name__)

_REHEARSAL = 200
"""Most steps of a dry run."""

_LEARNED = 0.8
"""What a dry run must leave of the loss: sound networks leave 0.5 to 0.7 of it in 200 steps of rate 1e-3."""


@dataclass(frozen=True)
class Course:
    """What a run needs, prepared.

    Attributes:
        fabric: a launched ``lightning_fabric.Fabric``.
        network: what learns.
        lesson: what a step asks of it.
        settings: the numbers.
        data: crops to learn from and to be judged on.
        validator: scores on the latter.
        normalization: how values become the network's input.
        bands: names of the channels.
        files: where the outputs go.
        name: of the weights.
        choices: other settings that the run depends on, by name.
        found: what was found out before the first step; see :mod:`sciSR.training.found`.
    """

    fabric: Any
    network: SRNetwork
    lesson: Lesson
    settings: Settings
    data: Data
    validator: Validator
    normalization: Normalization
    bands: Sequence[str] | None
    files: Files
    name: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, str]:
        """What tells this run from another; see :mod:`sciSR.training.identity`."""
        sensor = self.validator.sensor
        named = {
            "normalization": self.normalization.to_dict(),
            "sensor": None if sensor is None else sensor.to_dict(),
            "bands": None if self.bands is None else list(self.bands),
            **self.choices,
            **self.settings.to_dict(),
        }
        return (
            network_texts(self.network)
            | reference_texts(self.data.record)
            | {name: repr(value) for name, value in named.items()}
        )


def finished(course: Course, *, overwrite: bool = False) -> TrainingResult | None:
    """What this very run left when it was done before, to be kept; None: there is something to do.

    Args:
        course: of a run that may go on.
        overwrite: what another run left may be replaced.

    Raises:
        InputError: the output is there and is not of this run.
    """
    files = course.files
    if not files.target.exists() or files.state.exists():
        return None
    values = recorded(files)
    changed: str | None
    if values is None or "run" not in values:
        changed = f"{files.record.name} does not say of which run the output is"
    else:
        changed = difference(values["run"], course.identity)
    if changed is None:
        log.warning("%s: is finished and kept as it is; overwrite it to train anew", files.target)
        return TrainingResult(files.target, files.record, files.curve, values or {})
    if overwrite:
        return None
    raise InputError(
        f"{files.target}: is finished, and resume has nothing to go on with: {changed}; choose another output or allow "
        "overwriting (--overwrite)"
    )


def recorded(files: Files) -> dict[str, Any] | None:
    """What the record says, or None where there is none that can be read."""
    try:
        values = json.loads(files.record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def follow(
    course: Course,
    maker: PairMaker | RotatingMaker,
    *,
    resume: bool = False,
    compiled: bool = False,
    trackers: Sequence[Tracker] = (),
    facts: Callable[[], Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train, and write the checkpoint, its record and its curve; ``facts`` gives what the record says beside that.

    It is asked in the first process, when the network has the weights to keep.

    Raises:
        RunError: the loss became NaN; the last good weights are written beside the output.
    """
    stop: DivergedError | None = None
    with keeping(course.files.target, course.files.state.exists):
        try:
            outcome = teach(course, maker, resume=resume, compiled=compiled, trackers=trackers, progress=progress)
        except DivergedError as error:
            stop, outcome = error, error.outcome
            course.network.load_state_dict(outcome.weights)
        finally:
            for tracker in trackers:
                tracker.close()
        told = facts() if facts is not None and stop is None and course.fabric.global_rank == 0 else None
        result = write(course, outcome, good=stop is None, facts=told)
    if stop is not None:
        raise stop
    return result


@contextmanager
def keeping(target: Path, kept: Callable[[], bool]) -> Iterator[None]:
    """Note on an interruption that the state of the run that makes ``target`` stays, if ``kept`` says so."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if kept():
            stop.add_note(f"{target.name}: its state is kept; run it again with --resume")
        raise


def rehearse(
    course: Course, maker: PairMaker | RotatingMaker, *, compiled: bool = False, progress: Progress | None = None
) -> TrainingResult:
    """Overfit the first batch, and say whether the network learned; nothing is left on the disk.

    The rate rises in a tenth of the steps and stays, so that what matters is the network and not the schedule.

    Args:
        course: of a run that is to be tried; its files are not touched.
        maker: of the batches.
        compiled: run the network through torch.compile.
        progress: called with (steps done, steps in all).

    Returns:
        Where the run would write, and as ``values["dry_run"]`` the steps, the first and the last loss, whether the
        network ``learned`` and the ``verdict`` in words.

    Raises:
        RunError: the loss became NaN.
    """
    steps = min(course.settings.steps or _REHEARSAL, _REHEARSAL)
    warmup = min(course.settings.warmup, steps // 10)
    changes: dict[str, Any] = {"steps": steps, "warmup": warmup, "schedule": "constant", "validate_every": 1}
    tried = replace(course, settings=replace(course.settings, **changes, patience=None, dry_run=True))
    outcome = teach(tried, maker, compiled=compiled, progress=progress)
    first, last = (outcome.history[n]["loss"] for n in (0, -1))
    learned = last < _LEARNED * first
    verdict = (
        f"dry run: {outcome.step} steps on the first batch took its loss from {first:.4g} to {last:.4g}, "
        f"{'below' if learned else 'not below'} {_LEARNED:.0%} of it: the network "
        + ("learns" if learned else "did not learn; look at learning_rate, steps, normalization and the references")
        + "; nothing was written"
    )
    told = {"steps": outcome.step, "first": first, "last": last, "learned": learned, "verdict": verdict}
    values = {"dry_run": told, "history": outcome.history, "scores": {}}
    return TrainingResult(course.files.target, course.files.record, course.files.curve, values)


def teach(
    course: Course,
    maker: PairMaker | RotatingMaker,
    *,
    resume: bool = False,
    compiled: bool = False,
    trackers: Sequence[Tracker] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Train; the network then has the weights to keep."""
    course.network.to(course.fabric.device)

    def observe(record: Mapping[str, Any]) -> None:
        for tracker in trackers:
            tracker.record(record["step"], {key: value for key, value in record.items() if key != "step"})
            if course.validator.crops:
                tracker.picture(record["step"], _picture(course))

    outcome = run(
        course.fabric,
        course.network,
        maker,
        course.lesson,
        course.settings,
        validator=course.validator if course.validator.crops else None,
        state=course.files.state,
        identity=course.identity,
        found=course.found,
        resume=resume,
        compiled=compiled,
        observe=observe,
        progress=progress,
    )
    course.network.load_state_dict(outcome.weights)
    return outcome


def _picture(course: Course) -> NDArray[np.uint8]:
    """Input, result and truth of the first held-out crop."""
    sample = course.validator.samples()[0]
    with torch.no_grad():
        return triptych(sample.low, course.network(sample.low.to(course.fabric.device)), sample.high)


def write(
    course: Course, outcome: Outcome, *, good: bool = True, facts: Mapping[str, Any] | None = None
) -> TrainingResult:
    """Write the outputs of a run, one that is not good under the name of its last good weights.

    ``facts`` are added to its record.

    Raises:
        RunError: they could not be written, for lack of space for example.
    """
    state = course.files.state
    files = course.files if good else course.files.diverged
    if course.fabric.global_rank == 0:
        values = summary(
            course.network,
            course.validator,
            course.data.record,
            course.settings,
            outcome,
            name=course.name,
            device=course.fabric.device,
        )
        try:
            write_outputs(
                course.network,
                files,
                values | dict(facts or {}) | ({"run": course.identity} if good else {}),
                normalization=course.normalization,
                validator=course.validator,
                crops=course.data.training,
                bands=course.bands,
            )
        except (OSError, SafetensorError) as error:
            left = f"; {state} is kept, from which resume goes on" if state.exists() else ""
            raise RunError(f"{files.target}: could not be written ({error}); free some space{left}") from error
        if good:
            state.unlink(missing_ok=True)
    told = json.loads(files.record.read_text(encoding="utf-8")) if course.fabric.global_rank == 0 else {}
    return TrainingResult(files.target, files.record, files.curve, course.fabric.broadcast(told))

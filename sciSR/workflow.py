"""run_workflow(): the one place that joins settings, files and engines; writes the record beside each output."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciSR.batch import Job, expand_inputs, input_files, pair_outputs
from sciSR.cluster import save_on_cluster
from sciSR.config import Workflow, load_workflow, make_workflow
from sciSR.console import LogWatcher, Watcher, one_line
from sciSR.errors import SciSRError, SciSRWarning
from sciSR.evaluation import ScoreTable
from sciSR.io import open_raster, save_raster
from sciSR.journal import Journal, journal_folder, parted_source
from sciSR.networks import weights_path
from sciSR.networks.spec import model_name
from sciSR.preflight import check_workflow
from sciSR.raster import Raster
from sciSR.record import FileFact, RunRecord, is_record, is_remote, machine_facts, plain, read_record, version_facts
from sciSR.remake import check_same, only_moves, recorded_workflow
from sciSR.steps import (
    Model,
    coarsened,
    consistency_facts,
    consistent,
    engine_facts,
    evaluated,
    finished,
    known_sensor,
    load_model,
    open_input,
    refined,
    resolved,
)

if TYPE_CHECKING:
    from sciSR.training import TrainingResult

__all__ = ["Done", "Outcome", "run_workflow"]


@dataclass(frozen=True)
class Done:
    """One output that was made.

    Attributes:
        job: input and output.
        record: what ``<name>.run.json`` says.
        table: the scores of the evaluate step, or None.
        files: everything that was written for it, the output first.
    """

    job: Job
    record: RunRecord
    table: ScoreTable | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """What a workflow gave.

    Attributes:
        done: the outputs, in the order of the inputs.
        kept: outputs that were whole already and were kept (``resume``).
        failed: inputs that could not be worked on, and why.
        trained: the checkpoint that the train step made, or None.
        training: what the training said of itself; of a dry run the losses and the verdict.
    """

    done: tuple[Done, ...] = ()
    kept: tuple[Path, ...] = ()
    failed: tuple[tuple[Job, Exception], ...] = ()
    trained: Path | None = None
    training: Mapping[str, Any] | None = None

    @property
    def table(self) -> ScoreTable | None:
        """The scores of all outputs."""
        tables = [done.table for done in self.done if done.table is not None]
        return ScoreTable.join(tables) if tables else None


def run_workflow(
    workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any],
    *,
    overrides: Iterable[str] = (),
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Do the steps of a workflow, or remake the output of a run record.

    Errors that can be found before the work are found first. Of many inputs a bad one is reported to the watcher and
    the others go on; a single bad one raises. A run record (``X.run.json``) is done again with the tile plan, device
    and precision that it names, on inputs and weights that must have the recorded checksums, and must give the
    recorded bytes. Of several processes that train together (torchrun, ``devices: 2``) the first does what follows.

    Args:
        workflow: a YAML file, a run record, a :class:`~sciSR.config.Workflow`, or its plain values.
        overrides: changed settings, ``"upscale.scale=3"``.
        output: folder or file instead of the workflow's.
        overwrite: replace outputs that are there.
        resume: keep outputs that are whole and made from the same bytes with the same settings, go on with those
            that a killed run left unfinished, do the rest.
        scheduler: address of a dask scheduler (``tcp://host:8786``) whose workers compute the result; the values are
            the same.
        watcher: who is told of progress, warnings and failures; None: Python's logging.

    Raises:
        ConfigError: the workflow is not valid.
        InputError: an input does not fit, or its bytes are not those of the record.
        MissingFileError: an input is not there.
        OutputExistsError: an output is there.
        RunError: the work failed, or a remade output is not the recorded one.

    Example:
        >>> outcome = run_workflow({"input": "scan.nii.gz", "upscale": {"network": "cubic"}})  # doctest: +SKIP
    """
    follow = LogWatcher() if watcher is None else watcher
    changes, again = list(overrides), None
    if isinstance(workflow, (str, os.PathLike)) and is_record(workflow):
        again = read_record(workflow)
        plan = recorded_workflow(again, changes, os.fspath(workflow), follow)
    elif isinstance(workflow, Workflow):
        plan = make_workflow(workflow.model_dump(mode="json"), changes)
    elif isinstance(workflow, Mapping):
        plan = make_workflow(workflow, changes)
    else:
        plan = load_workflow(workflow, changes)
    if output is not None:
        place = plan.output.model_copy(update={"path": os.fspath(output)})
        plan = plan.model_copy(update={"output": place})
    outcome = _Run(plan, overwrite, resume, scheduler, follow).all_of_it()
    if again is not None and only_moves(changes):
        for done in outcome.done:
            check_same(again, done.record.output)
            follow.say("the output is the recorded one, byte for byte")
    return outcome


class _Run:
    """One workflow under way."""

    def __init__(
        self, workflow: Workflow, overwrite: bool, resume: bool, scheduler: str | None, watcher: Watcher
    ) -> None:
        self.workflow = workflow
        self.overwrite = overwrite
        self.resume = resume
        self.scheduler = scheduler
        self.watcher = watcher
        self.model: Model | None = None
        self.weights: FileFact | None = None
        self.training: dict[str, Any] | None = None
        self.helper = False

    def all_of_it(self) -> Outcome:
        """Check, train, and work on each input."""
        whole = self._whole(self._jobs()) if self.resume else {}
        found = check_workflow(
            self.workflow,
            overwrite=self.overwrite,
            resume=self.resume,
            distributed=self.scheduler is not None,
            finished=[job.output for job in whole],
        )
        if found.errors:
            raise found.errors[0]
        if self.workflow.train is not None and self.workflow.train.dry_run:
            return self._rehearsed()
        many = len(found.ready) + len(found.refused) + len(whole) > 1
        if found.refused and not many:
            raise found.refused[0][1]
        for job, error in found.refused:
            self._failed(job, error)
        self.model = found.model
        trained = self._train() if self.workflow.train is not None else None
        if self.helper:
            return Outcome(trained=trained, training=self.training)
        self._load(trained)
        done: list[Done] = []
        failed: list[tuple[Job, Exception]] = list(found.refused)
        before, whole = whole, whole if trained is None else self._whole(whole)
        stale = [job for job in before if job not in whole]  # by the weights that were made just now
        kept = tuple(job.output for job, record in whole.items() if self._is_judged(record))
        made = {job: record for job, record in whole.items() if job.output not in kept}
        for job in (*made, *stale, *found.ready):
            try:
                done.append(self._one(job, made.get(job)))
            except (SciSRError, OSError, MemoryError) as error:
                if not many:
                    raise
                self._failed(job, error)
                failed.append((job, error))
        return Outcome(tuple(done), kept, tuple(failed), trained, self.training)

    def _jobs(self) -> list[Job]:
        section, output = self.workflow.input, self.workflow.output
        if section is None or (self.workflow.upscale is None and self.workflow.degrade is None):
            return []
        return pair_outputs(expand_inputs(section.path), output.path, suffix=output.suffix, join=section.join)

    def _failed(self, job: Job, error: Exception) -> None:
        text = one_line(error)
        self.watcher.problem(text if job.input in text or Path(job.input).name in text else f"{job.input}: {text}")

    def _rehearsed(self) -> Outcome:
        """Try whether the network can learn; there are no weights for later steps."""
        told = dict(self._trained().values)["dry_run"]
        if self.helper:
            return Outcome(training=told)
        self.watcher.say(told["verdict"])
        if self.workflow.upscale is not None or self.workflow.degrade is not None:
            self.watcher.say("the steps after the training were left out: a dry run makes no weights")
        return Outcome(training=told)

    def _train(self) -> Path:
        section = self.workflow.train
        assert section is not None
        trained = self._trained()
        self.training = {"settings": section.model_dump(mode="json"), "scores": dict(trained.values).get("scores")}
        if self.helper:
            return trained.path
        self.watcher.say(f"weights  {trained.path}")
        self.watcher.say(f"curve    {trained.curve}")
        self.watcher.say(trained.table())
        if trained.sizes():
            self.watcher.say(f"\n{trained.sizes()}\n")
        return trained.path

    def _trained(self) -> TrainingResult:
        from sciSR.trainer import train_network  # takes seconds to load, and few workflows train
        from sciSR.training.setup import stand_down

        section = self.workflow.train
        assert section is not None
        source = None if section.references else self.workflow.input
        scans = [] if source is None else [open_input(source, [path]) for path in expand_inputs(source.path)]
        trained = train_network(section, scans, overwrite=self.overwrite, resume=self.resume, watcher=self.watcher)
        self.helper = stand_down()
        return trained

    def _load(self, trained: Path | None) -> None:
        """The model, and the facts of its file."""
        section = self.workflow.upscale
        if section is None:
            return
        name = section.network or str(trained)
        if self.model is None:
            self.model = load_model(name)
        if not isinstance(self.model, str):
            fact = FileFact.of(weights_path(name))
            self.weights = replace(fact, path=name)

    def _one(self, job: Job, record: RunRecord | None = None) -> Done:
        """Work on one input: the output and its record, then the evaluation, then the pictures.

        ``record``: of an output that a killed run has made, but not judged yet.
        """
        clock = _Clock()
        assert self.workflow.input is not None
        with clock.step("plan"):
            raster = open_input(self.workflow.input, job.sources)
            result = self._result(raster)
        if record is None:
            record = self._made(job, raster, result, clock)
            self.watcher.say(_told(job, raster, result))
        else:
            clock.seconds = {**record.timings, **clock.seconds}
        table: ScoreTable | None = None
        drawn: list[Path] = []
        if self.model is not None:
            record, table, drawn = self._afterwards(job, raster, result, record, clock)
            record.write(job.record)
        self.watcher.say(f"record   {job.record}")
        return Done(job, record, table, (job.output, job.record, *drawn))

    def _made(self, job: Job, raster: Raster, result: Raster, clock: _Clock) -> RunRecord:
        """Make the output. Its record is there before it is: an output without one would be nobody's."""
        found: list[RunRecord] = []
        with ThreadPoolExecutor(1) as reader:
            inputs = reader.submit(lambda: [FileFact.of(file) for file in input_files(job.sources)])

            def note(file: Path) -> None:
                with clock.step("checksum"):
                    fact = replace(FileFact.of(file), path=str(job.output), absolute=str(job.output.resolve()))
                    record = self._record(job, inputs.result(), fact, raster, result)
                found.append(replace(record, timings=clock.seconds))
                found[0].write(job.record)

            with clock.step("write"):
                self._write(result, job, note)
        record = replace(found[0], timings=clock.seconds)
        record.write(job.record)
        return record

    def _write(self, result: Raster, job: Job, made: Callable[[Path], None]) -> None:
        """Compute the result and write it; on a cluster, or going on where a killed run stopped, part by part."""
        parted = not job.remote and len(job.sources) == 1 and parted_source(result.source) is not None
        options = self.workflow.output.options
        progress = self.watcher.step(job.output.name)
        if self.scheduler is not None:
            parts = self.watcher.step("parts on the cluster", "part")
            save_on_cluster(
                result,
                job.output,
                self.scheduler,
                overwrite=self.overwrite,
                progress=parts,
                writing=progress,
                made=made,
                **options,
            )
            return
        resume = self.resume and parted
        if self.resume and not parted:
            self.watcher.say(
                f"{job.output.name}: made in one go; parts are kept of a network's result on one local file"
            )
        save_raster(
            result, job.output, overwrite=self.overwrite, resume=resume, progress=progress, made=made, **options
        )

    def _result(self, raster: Raster) -> Raster:
        if self.workflow.degrade is not None:
            return coarsened(raster, self.workflow.degrade)
        assert self.workflow.upscale is not None
        assert self.model is not None
        result = refined(raster, self.model, self.workflow.upscale)
        return finished(consistent(raster, result, self.model, self.workflow), self.workflow)

    def _afterwards(
        self, job: Job, raster: Raster, result: Raster, record: RunRecord, clock: _Clock
    ) -> tuple[RunRecord, ScoreTable | None, list[Path]]:
        """Consistency, evaluation and report of a finished output."""
        assert self.model is not None
        written = self._written(job, result)
        with clock.step("consistency"):
            step = self.workflow.consistency or self.workflow.evaluate
            sensor = known_sensor(self.model, step, self.workflow.upscale)
            record = replace(record, consistency=consistency_facts(raster, written, sensor))
            if record.consistency is not None:
                self.watcher.say(_consistent(record.consistency))
        table, judged = None, None
        drawn: list[Path] = []
        if self.workflow.evaluate is not None:
            with clock.step("evaluate"):
                table, judged = evaluated(self.workflow, raster, written, self.model, self.watcher.step("evaluating"))
            self.watcher.say(f"\n{table}\n")
            record = replace(record, evaluation=table.to_dict())
        if self.workflow.report is not None:
            from sciSR.drawing import draw_report

            with clock.step("report"):
                method = model_name(self.model)
                drawn = draw_report(self.workflow.report, job, raster, written, judged, table, record, method)
            for path in drawn:
                self.watcher.say(f"{'picture' if path.suffix == '.png' else 'report':8} {path}")
        return replace(record, timings=clock.seconds), table, drawn

    def _written(self, job: Job, result: Raster) -> Raster:
        """The output, opened again; what its metadata warn of was said when the input was opened.

        A file without a georeference counts pixels; it lies where the result does.
        """
        assert self.workflow.input is not None
        options = {k: v for k, v in self.workflow.input.options.items() if k in ("labels", "nodata", "unit")}
        if job.output.suffix.lower() in (".tif", ".tiff"):  # which keep stored numbers, and no word of an option
            options |= {k: v for k, v in self.workflow.input.options.items() if k == "offset"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SciSRWarning)
            written = open_raster(job.output, **options)
        nowhere = written.grid.frame is None and np.array_equal(written.grid.affine, np.eye(len(written.grid.affine)))
        return written.replace(grid=result.grid) if nowhere and written.shape == result.shape else written

    def _record(
        self, job: Job, inputs: Sequence[FileFact], output: FileFact, raster: Raster, result: Raster
    ) -> RunRecord:
        engine = engine_facts(result)
        model = None if self.workflow.upscale is None else self.workflow.upscale.network
        if model is None and self.weights is not None:
            model = self.weights.path
        exact = resolved(self.workflow, job.sources, str(job.output), engine, model)
        return RunRecord(
            workflow=exact.model_dump(mode="json"),
            inputs=inputs,
            weights=self.weights,
            output=output,
            engine=plain(engine),
            grids={"input": _grid_facts(raster), "output": _grid_facts(result)},
            values=plain(_value_facts(raster)),
            trained=self.training,
            versions=version_facts(),
            machine=machine_facts(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _whole(self, jobs: Iterable[Job]) -> dict[Job, RunRecord]:
        """The records of those outputs that are whole and would come out the same."""
        found = {job: record for job in jobs if (record := self._standing(job)) is not None}
        for job in found:
            Journal(journal_folder(job.output), "").remove()  # of a run that was killed at its very end
        return found

    def _standing(self, job: Job) -> RunRecord | None:
        """The record of an output that is whole and would come out the same: of the same bytes and settings."""
        if not job.record.is_file() or not job.output.exists() or job.remote:
            return None
        try:
            record = read_record(job.record)
            for fact, file in zip(record.inputs, input_files(job.sources), strict=True):
                if is_remote(file):
                    return None
                fact.verify(file)
            record.output.verify(str(job.output))
            before = make_workflow(record.workflow)
            if record.weights is not None:
                record.weights.verify(str(weights_path(record.weights.path)))
        except (SciSRError, ValueError):
            return None
        section, train = self.workflow.upscale, self.workflow.train
        model = None if section is None else section.network or (None if train is None else str(Path(train.output)))
        now = resolved(self.workflow, job.sources, str(job.output), record.engine, model)
        return record if now == before else None

    def _is_judged(self, record: RunRecord) -> bool:
        """Whether all that follows the output was done too."""
        follows = self.workflow.upscale is not None and "consistency" not in record.timings
        return not follows and (self.workflow.evaluate is None or record.evaluation is not None)


def _told(job: Job, raster: Raster, result: Raster) -> str:
    """One line: what became what, and the spacing that was reached."""
    sizes = " -> ".join("x".join(str(n) for n in r.shape[::-1]) for r in (raster, result))
    spacing = "x".join(f"{v:.4g}" for v in list(result.grid.spacing.values())[::-1])
    return f"output   {job.output}  ({sizes}, {spacing} {result.grid.unit or 'units'})"


def _consistent(facts: Mapping[str, Any]) -> str:
    unit = f" {facts['unit']}" if facts["unit"] else ""
    return (
        f"explains the input to {facts['relative']:.2%} of its range (RMSE {facts['rmse']:.4g}{unit} when degraded "
        f"again, sensor {facts['sensor']})"
    )


def _grid_facts(raster: Raster) -> dict[str, Any]:
    return {**raster.grid.to_dict(), "spacing": raster.grid.spacing, "bounds": raster.grid.bounds, "axes": raster.axes}


def _value_facts(raster: Raster) -> dict[str, Any]:
    """How the stored numbers become physical ones, and where a scene's scale and offset were found."""
    facts = {"unit": raster.unit, **asdict(raster.encoding)}
    radiometry = {} if raster.metadata is None else raster.metadata.items.get("radiometry", {})
    return {**facts, **({"origin": radiometry["origin"]} if "origin" in radiometry else {})}


@dataclass
class _Clock:
    """Seconds per step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds = {**self.seconds, name: round(time.perf_counter() - start, 3)}

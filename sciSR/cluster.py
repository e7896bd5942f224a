"""The distributed executor: the parts of a result computed by the workers of a dask cluster.

Into a format that takes it (Zarr, NIfTI, GeoTIFF) every worker writes its own chunks, planes or rows of blocks, as they
are stored. For the others it writes its finished parts into the folder of the journal, which all of them must reach,
and the writer then reads them in order. A worker that dies costs its task, not the run: dask gives the task to another.
The number of tasks under way is bounded, so memory does not grow with the number of parts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sciSR.errors import InputError, RunError
from sciSR.io import Progress, adapter_for, check_target, publish_all, save_raster, tell_kept
from sciSR.io.adapter import WithSharedWriting
from sciSR.journal import Journal, PartedSource, journal_folder, journal_key, parted_source
from sciSR.raster import Block, Raster, Window

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["compute_parts", "save_on_cluster"]

_PER_WORKER = 3
_RETRIES = 3
_PARTS_PER_TASK = 16
_WORTHWHILE = 4
"""Times as many parts in a task as are computed before its first, where there are workers for no more tasks."""


def save_on_cluster(
    raster: Raster,
    path: str | os.PathLike[str],
    scheduler: str | Client,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    writing: Progress | None = None,
    made: Callable[[Path], None] | None = None,
    **options: Any,
) -> Path:
    """:func:`sciSR.save_raster`, computed on a cluster; what a killed run has left is used.

    Args:
        raster: the lazy result of :func:`sciSR.upscale`.
        path: the output; its folder must be reachable from every worker by the same path, as must the input.
        scheduler: address of a dask scheduler (``"tcp://host:8786"``), or a client.
        overwrite: replace what is there.
        progress: called with (parts done, parts in all).
        writing: called with (values written, values in all), where one process writes the file in the end.
        made: called with the whole file, or folder, before it moves to its place.
        options: what the format understands.

    Returns:
        The path written.

    Raises:
        OutputExistsError: there is a file and ``overwrite`` is false.
        InputError: distributed is not installed, the scheduler does not answer, or the source has no parts.
        RunError: a part failed on every worker that tried it.
    """
    target = Path(path)
    adapter = adapter_for(target)
    check_target(raster, target, overwrite=overwrite, **options)
    if isinstance(adapter, WithSharedWriting) and isinstance(raster.source, PartedSource):
        return _shared(raster, target, adapter, scheduler, progress, made, options)
    try:
        compute_parts(raster, target, scheduler, progress=progress)
    except KeyboardInterrupt as stop:
        tell_kept(stop, target)
        raise
    return save_raster(raster, target, overwrite=overwrite, resume=True, progress=writing, made=made, **options)


def _shared(
    raster: Raster,
    target: Path,
    adapter: Any,
    scheduler: str | Client,
    progress: Progress | None,
    made: Callable[[Path], None] | None,
    options: Any,
) -> Path:
    """Every worker writes its own rows of one file or store, which then moves to its place."""
    with _connected(scheduler) as client:
        target.parent.mkdir(parents=True, exist_ok=True)
        stored = json.dumps(options, sort_keys=True, default=str)
        journal = Journal(journal_folder(target), f"{journal_key(raster)} units {stored}")
        journal.open()
        place = journal.folder / "output" / target.name
        begun = journal.folder / "begun"
        if not begun.exists():
            journal.remove()
            journal.open()
            with _on_disk(target):
                place.parent.mkdir()
                adapter.begin(raster, place, **options)
            begun.touch()
        work = _Rows(raster, journal, place, options, _units(raster, adapter.shared_rows(raster, **options)))
        missing = [number for number in range(len(work.units)) if not journal.noted(number)]
        try:
            _compute(client, work, missing, progress)
        except KeyboardInterrupt as stop:
            tell_kept(stop, target)
            raise
    with _on_disk(target):
        adapter.complete(raster, place, **options)
        if made is not None:
            made(place)
        begun.unlink()  # what is left after a kill while files are moved is no longer whole
        publish_all(adapter, raster, place.parent, target)
    journal.remove()
    return target


@contextmanager
def _on_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{target}: writing failed: {error}; free some space or choose another place") from error


@dataclass(frozen=True)
class _Unit:
    """Rows of a shared output that one process writes whole.

    Attributes:
        window: the rows; one time step.
        parts: numbers of the parts that hold them; the first and the last may hold other rows too.
        weight: how many parts begin in it.
    """

    window: Window
    parts: tuple[int, ...]
    weight: int


def _units(raster: Raster, rows: int) -> list[_Unit]:
    """Some times ``rows`` rows each, and no fewer than those of a part, of which one would be computed twice."""
    assert isinstance(raster.source, PartedSource)
    parts, lead = raster.source.parts, len(raster.leading)
    part = parts[0][lead].stop - parts[0][lead].start
    step = -(-part // rows) * rows
    found: dict[tuple[int, ...], list[int]] = {}
    for number, window in enumerate(parts):
        for place in range(window[lead].start // step, -(-window[lead].stop // step)):
            found.setdefault((*(w.start for w in window[:lead]), place), []).append(number)
    units = []
    for (*_, place), numbers in found.items():
        span = slice(place * step, min((place + 1) * step, raster.shape[lead]))
        weight = sum(parts[number][lead].start >= span.start for number in numbers)
        first = parts[numbers[0]]
        units.append(_Unit((*first[:lead], span, *first[lead + 1 :]), tuple(numbers), weight))
    return units


def compute_parts(
    raster: Raster,
    target: Path,
    scheduler: str | Client,
    *,
    progress: Progress | None = None,
) -> Journal:
    """Compute all missing parts of ``raster`` on a cluster, into the journal of the output ``target``.

    Follow it with ``save_raster(raster, target, resume=True)``, which then finds every part there.

    Args:
        raster: the lazy result of :func:`sciSR.upscale`, at ``tile=`` a number or ``"auto"``.
        target: the output file; the folder beside it must be reachable from every worker by the same path, as must the
            input.
        scheduler: address of a dask scheduler (``"tcp://host:8786"``), or a client.
        progress: called with (parts done, parts in all).

    Returns:
        The journal, with every part.

    Raises:
        InputError: distributed is not installed, the scheduler does not answer, or the source has no parts.
        RunError: a part failed on every worker that tried it.
    """
    source = parted_source(raster.source)
    if source is None:
        raise InputError(f"{raster.name}: only the result of a network can be computed on a cluster")
    with _connected(scheduler) as client:
        journal = Journal(journal_folder(target), journal_key(raster))
        target.parent.mkdir(parents=True, exist_ok=True)
        journal.open()
        missing = [n for n in range(len(source.parts)) if not journal.has(n)]
        _compute(client, _Parts(source, journal), missing, progress)
    return journal


class _Parts:
    """Parts that go into the journal, each by itself."""

    def __init__(self, source: PartedSource, journal: Journal) -> None:
        self.source = source
        self.journal = journal

    @property
    def weights(self) -> list[int]:
        return [1] * len(self.source.parts)

    @property
    def before(self) -> int:
        return self.source.before_a_part

    def __call__(self, numbers: list[int]) -> None:
        for number, block in self.source.stream_parts([n for n in numbers if not self.journal.has(n)]):
            self.journal.write(number, block)


class _Rows:
    """Rows that go into a file or store that all workers share."""

    def __init__(
        self, raster: Raster, journal: Journal, place: Path, options: dict[str, Any], units: list[_Unit]
    ) -> None:
        self.raster = raster
        self.journal = journal
        self.place = place
        self.options = options
        self.units = units

    @property
    def weights(self) -> list[int]:
        return [unit.weight for unit in self.units]

    @property
    def before(self) -> int:
        assert isinstance(self.raster.source, PartedSource)
        return self.raster.source.before_a_part

    def __call__(self, numbers: list[int]) -> None:
        source = self.raster.source
        adapter = adapter_for(self.place)
        assert isinstance(source, PartedSource)
        assert isinstance(adapter, WithSharedWriting)
        units = [self.units[number] for number in numbers]
        parts = source.parts
        writer = adapter.join(self.raster, self.place, **self.options)
        try:
            for number, block in source.stream_parts(sorted({part for unit in units for part in unit.parts})):
                for unit in units:
                    if number in unit.parts:
                        writer.write(*_common(parts[number], block, unit.window))
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        for number in numbers:
            self.journal.note(number)


def _common(window: Window, block: Block, wanted: Window) -> tuple[Window, Block]:
    """What of a block lies in ``wanted``."""
    both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, wanted, strict=True))
    inside = tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(window, both, strict=True))
    return both, Block(block.values[inside], None if block.valid is None else block.valid[inside])


def _compute(client: Client, work: _Parts | _Rows, missing: list[int], progress: Progress | None) -> None:
    """Do what is missing, telling how far it is. A task takes a run of it."""
    weights = work.weights
    run = _run_length(len(missing), max(weights), work.before, len(client.scheduler_info()["workers"]))
    tasks = [missing[i : i + run] for i in range(0, len(missing), run)]
    count = sum(weights)
    done = count - sum(weights[number] for number in missing)
    if progress is not None:
        progress(done, count)
    for finished in _finished(client, work, tasks):
        done += sum(weights[number] for number in finished)
        if progress is not None:
            progress(done, count)


def _run_length(missing: int, weight: int, before: int, workers: int) -> int:
    """Units of one task: several tasks for each worker, but none that mainly prepares its first unit.

    Args:
        missing: units that are yet to be done.
        weight: parts of each.
        before: parts that a task computes before its first.
        workers: of the cluster.
    """
    even = min(_PARTS_PER_TASK // weight, missing // (2 * _bound(workers)))
    worthwhile = -(-_WORTHWHILE * before // weight)
    return max(1, even, min(worthwhile, -(-missing // max(1, workers))))


@contextmanager
def _connected(scheduler: str | Client) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("scheduler: dask's distributed is not installed; pip install 'scisr[distributed]'") from error
    if not isinstance(scheduler, str):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout="15s")
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"scheduler: {scheduler!r} does not answer ({error}); is it running?") from error
    with client:
        yield client


def _bound(workers: int) -> int:
    """Tasks under way at once."""
    return max(2, _PER_WORKER * workers)


def _finished(client: Client, work: _Parts | _Rows, tasks: list[list[int]]) -> Iterator[list[int]]:
    """The numbers of each task, as they come; a bounded number of tasks is under way."""
    import dask
    from distributed import as_completed

    own = uuid4().hex[:12]  # a run that was stopped just now may still have tasks, whose data go with it
    # the result of a task, as what is scattered is gone with the last worker that has it
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "64 GiB"}):
        shared = client.submit(_itself, work, key=f"scisr-work-{own}", retries=_RETRIES, pure=False)
    waiting = iter(tasks)
    flow = as_completed()
    for _ in range(_bound(len(client.scheduler_info()["workers"]))):
        _submit(client, flow, shared, own, waiting)
    for future in flow:
        try:
            numbers = future.result()
        except Exception as error:  # whatever the worker raised, told with the part it was at
            raise RunError(f"{future.key}: failed on the cluster: {type(error).__name__}: {error}") from error
        _submit(client, flow, shared, own, waiting)
        yield numbers


def _submit(client: Client, flow: Any, shared: Any, own: str, waiting: Iterator[list[int]]) -> None:
    numbers = next(waiting, None)
    if numbers is not None:
        key = f"scisr-parts-{numbers[0]}-{numbers[-1]}-{own}"
        flow.add(client.submit(_done, shared, numbers, key=key, retries=_RETRIES, pure=False))


def _itself(work: _Parts | _Rows) -> _Parts | _Rows:
    """What every task needs; runs on a worker, again where one that had it is gone."""
    return work


def _done(work: _Parts | _Rows, numbers: list[int]) -> list[int]:
    """One task; runs on a worker."""
    work(numbers)
    return numbers

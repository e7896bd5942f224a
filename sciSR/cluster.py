"""The distributed executor: the parts of a result computed by the workers of a dask cluster.

Into a format that takes it (Zarr, NIfTI) every worker writes its own chunks or planes, as they are stored. For the
others it writes its finished parts into the folder of the journal, which all of them must reach, and the writer then
reads them in order. A worker that dies costs its task, not the run: dask gives the task to another. The number of tasks
under way is bounded, so memory does not grow with the number of parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciSR.errors import InputError, RunError
from sciSR.io import Progress, adapter_for, check_target, publish_all, save_raster
from sciSR.io.adapter import WithSharedWriting
from sciSR.journal import Journal, PartedSource, journal_folder, journal_key, parted_source
from sciSR.raster import Raster

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["compute_parts", "save_on_cluster"]

_PER_WORKER = 3
_RETRIES = 3
_PARTS_PER_TASK = 16


def save_on_cluster(
    raster: Raster,
    path: str | os.PathLike[str],
    scheduler: str | Client,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    writing: Progress | None = None,
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
        return _shared(raster, target, adapter, scheduler, progress, options)
    compute_parts(raster, target, scheduler, progress=progress)
    return save_raster(raster, target, overwrite=overwrite, resume=True, progress=writing, **options)


def _shared(
    raster: Raster, target: Path, adapter: Any, scheduler: str | Client, progress: Progress | None, options: Any
) -> Path:
    """Every worker writes its own rows of one file or store, which then moves to its place."""
    client, own = _connected(scheduler)
    target.parent.mkdir(parents=True, exist_ok=True)
    stored = json.dumps(options, sort_keys=True, default=str)
    journal = Journal(journal_folder(target), f"{journal_key(raster)} shared {stored}")
    journal.open()
    place = journal.folder / "output" / target.name
    begun = journal.folder / "begun"
    if not begun.exists():
        shutil.rmtree(place.parent, ignore_errors=True)
        place.parent.mkdir()
        adapter.begin(raster, place, **options)
        begun.touch()
    groups = _groups(raster, adapter.shared_rows(raster))
    missing = [group for group in groups if not journal.noted(group[0])]
    work = _Rows(raster, journal, place, options)
    try:
        _told(client, work, missing, sum(map(len, groups)), progress)
    finally:
        if own:
            client.close()
    adapter.complete(raster, place, **options)
    publish_all(adapter, raster, place.parent, target)
    journal.remove()
    return target


def _groups(raster: Raster, rows: int) -> list[list[int]]:
    """The numbers of the parts that one task writes: whole rows of chunks, or some planes."""
    assert isinstance(raster.source, PartedSource)
    lead = len(raster.leading)
    found: dict[tuple[int, ...], list[int]] = {}
    for number, window in enumerate(raster.source.parts):
        found.setdefault((*(w.start for w in window[:lead]), window[lead].start // rows), []).append(number)
    return list(found.values())


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
    journal = Journal(journal_folder(target), journal_key(raster))
    target.parent.mkdir(parents=True, exist_ok=True)
    journal.open()
    count = len(source.parts)
    missing = [n for n in range(count) if not journal.has(n)]
    client, own = _connected(scheduler)
    try:
        bound = _bound(client)
        run = max(1, min(_PARTS_PER_TASK, len(missing) // (2 * bound)))
        runs = [missing[i : i + run] for i in range(0, len(missing), run)]
        _told(client, _Parts(source, journal), runs, count, progress)
    finally:
        if own:
            client.close()
    return journal


class _Parts:
    """Parts that go into the journal. A task takes a run of them: rows begin some rows before their first part."""

    def __init__(self, source: PartedSource, journal: Journal) -> None:
        self.source = source
        self.journal = journal

    def __call__(self, numbers: list[int]) -> int:
        for number, block in self.source.stream_parts([n for n in numbers if not self.journal.has(n)]):
            self.journal.write(number, block)
        return len(numbers)


class _Rows:
    """Parts that go into a file or store that all workers share."""

    def __init__(self, raster: Raster, journal: Journal, place: Path, options: dict[str, Any]) -> None:
        self.raster = raster
        self.journal = journal
        self.place = place
        self.options = options

    def __call__(self, numbers: list[int]) -> int:
        source = self.raster.source
        adapter = adapter_for(self.place)
        assert isinstance(source, PartedSource)
        assert isinstance(adapter, WithSharedWriting)
        writer = adapter.join(self.raster, self.place, **self.options)
        parts = source.parts
        for number, block in source.stream_parts(numbers):
            writer.write(parts[number], block)
        writer.finish()
        self.journal.note(numbers[0])
        return len(numbers)


def _told(client: Client, work: _Parts | _Rows, runs: list[list[int]], count: int, progress: Progress | None) -> None:
    """Run all of it, telling how far it is."""
    done = count - sum(map(len, runs))
    if progress is not None:
        progress(done, count)
    for finished in _finished(client, work, runs):
        done += finished
        if progress is not None:
            progress(done, count)


def _connected(scheduler: str | Client) -> tuple[Client, bool]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("scheduler: dask's distributed is not installed; pip install 'scisr[distributed]'") from error
    if not isinstance(scheduler, str):
        return scheduler, False
    try:
        return Client(scheduler, timeout="15s"), True
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"scheduler: {scheduler!r} does not answer ({error}); is it running?") from error


def _bound(client: Client) -> int:
    """Tasks under way at once."""
    return max(2, _PER_WORKER * len(client.scheduler_info()["workers"]))


def _finished(client: Client, work: _Parts | _Rows, runs: list[list[int]]) -> Iterator[int]:
    """How many parts each task has finished, as they come; a bounded number of tasks is under way."""
    from distributed import as_completed

    shared = client.scatter(work, broadcast=True)
    waiting = iter(runs)
    flow = as_completed()
    for _ in range(_bound(client)):
        _submit(client, flow, shared, work, waiting)
    for future in flow:
        try:
            count = future.result()
        except Exception as error:  # whatever the worker raised, told with the part it was at
            raise RunError(f"{future.key}: failed on the cluster: {type(error).__name__}: {error}") from error
        _submit(client, flow, shared, work, waiting)
        yield count


def _submit(client: Client, flow: Any, shared: Any, work: _Parts | _Rows, waiting: Iterator[list[int]]) -> None:
    numbers = next(waiting, None)
    if numbers is not None:
        place = hashlib.sha256(f"{work.journal.folder.resolve()} {work.journal.key}".encode()).hexdigest()
        key = f"scisr-parts-{numbers[0]}-{numbers[-1]}-{place[:12]}"
        flow.add(client.submit(_done, shared, numbers, key=key, retries=_RETRIES, pure=False))


def _done(work: _Parts | _Rows, numbers: list[int]) -> int:
    """One task; runs on a worker."""
    return work(numbers)

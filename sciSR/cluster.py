"""The distributed executor: the parts of a result computed by the workers of a dask cluster.

Every worker writes its own finished parts into the folder of the journal, which all of them must reach; the writer then
reads them in order. A worker that dies costs its task, not the run: dask gives the task to another. The number of tasks
under way is bounded, so memory does not grow with the number of parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciSR.errors import InputError, RunError
from sciSR.journal import Journal, PartedSource, journal_folder, journal_key, parted_source
from sciSR.raster import Raster

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["compute_parts"]

_PER_WORKER = 3
_RETRIES = 3
_PARTS_PER_TASK = 16


def compute_parts(
    raster: Raster,
    target: Path,
    scheduler: str | Client,
    *,
    progress: Callable[[int, int], None] | None = None,
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
    parts = len(source.parts)
    missing = [n for n in range(parts) if not journal.has(n)]
    done = parts - len(missing)
    if progress is not None:
        progress(done, parts)
    client, own = _connected(scheduler)
    try:
        for count in _finished(client, source, journal, missing):
            done += count
            if progress is not None:
                progress(done, parts)
    finally:
        if own:
            client.close()
    return journal


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


def _finished(client: Client, source: PartedSource, journal: Journal, numbers: list[int]) -> Iterator[int]:
    """How many parts each task has finished, as they come; a bounded number of tasks is under way.

    A task takes a run of parts, since a source that streams by rows begins some rows before its first part.
    """
    from distributed import as_completed

    shared = client.scatter(source, broadcast=True)
    bound = max(2, _PER_WORKER * len(client.scheduler_info()["workers"]))
    run = max(1, min(_PARTS_PER_TASK, len(numbers) // (2 * bound)))
    waiting = iter([numbers[i : i + run] for i in range(0, len(numbers), run)])
    flow = as_completed()
    for _ in range(bound):
        _submit(client, flow, shared, journal, waiting)
    for future in flow:
        try:
            count = future.result()
        except Exception as error:  # whatever the worker raised, told with the part it was at
            raise RunError(f"{future.key}: failed on the cluster: {type(error).__name__}: {error}") from error
        _submit(client, flow, shared, journal, waiting)
        yield count


def _submit(client: Client, flow: Any, shared: Any, journal: Journal, waiting: Iterator[list[int]]) -> None:
    numbers = next(waiting, None)
    if numbers is not None:
        key = f"scisr-parts-{numbers[0]}-{numbers[-1]}-{journal.key[:12]}"
        flow.add(client.submit(compute_run, shared, journal, numbers, key=key, retries=_RETRIES, pure=False))


def compute_run(source: PartedSource, journal: Journal, numbers: list[int]) -> int:
    """Compute the parts with these numbers that are not there yet and keep them in the journal; runs on a worker."""
    for number, block in source.stream_parts([n for n in numbers if not journal.has(n)]):
        journal.write(number, block)
    return len(numbers)

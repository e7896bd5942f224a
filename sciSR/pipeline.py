"""Work in the background, with a bound on how much of it is under way."""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Lanes", "Turns", "core_count", "read_ahead"]

K = TypeVar("K")
V = TypeVar("V")


def core_count() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_ahead(
    keys: Iterable[K],
    load: Callable[[K], V],
    depth: int = 2,
    *,
    workers: int = 1,
    begin: Callable[[], None] | None = None,
    end: Callable[[], None] | None = None,
) -> Generator[tuple[K, V], None, None]:
    """``(key, load(key))`` in order, the next ``depth`` being loaded meanwhile.

    Args:
        keys: of what to load.
        load: called in a thread.
        depth: how many are under way beside the one that is given.
        workers: threads that load.
        begin: called once in each of them.
        end: called before they are waited for, at the end or where an error or the caller ends it: what is under way
            need not be finished then.
    """
    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        under_way: deque[tuple[K, Future[V]]] = deque()
        try:
            for key in keys:
                under_way.append((key, pool.submit(load, key)))
                if len(under_way) > depth:
                    first, future = under_way.popleft()
                    yield first, future.result()
            while under_way:
                first, future = under_way.popleft()
                yield first, future.result()
        finally:
            if end is not None:
                end()
            for _, future in under_way:
                future.cancel()


class Turns:
    """The order of jobs that go through the same steps, several of them at a time, each in a thread of its own.

    A step takes one job at a time, in order of their numbers from 0 on: what steps keep from job to job is what it
    would be had they run one by one. Every job goes through every step.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next: defaultdict[int, int] = defaultdict(int)
        self._last = math.inf
        self._busy = 0

    @property
    def busy(self) -> int:
        """Jobs under way that are not waiting for their turn."""
        return self._busy

    @contextmanager
    def job(self, number: int) -> Iterator[None]:
        """All of a job. Where one fails, those after it end with an error at the next step that they wait for."""
        self._count(1)
        try:
            yield
        except BaseException:
            self.stop(number)
            raise
        finally:
            self._count(-1)

    @contextmanager
    def step(self, number: int, step: int) -> Iterator[None]:
        """One step of a job, from when it is the job's turn."""
        with self._changed:
            if self._next[step] < number:
                self._busy -= 1
                self._changed.wait_for(lambda: self._next[step] == number or number > self._last)
                self._busy += 1
            if number > self._last:
                raise RuntimeError("a job before this one has failed, or nobody wants the result")
        yield
        with self._changed:
            self._next[step] = number + 1
            self._changed.notify_all()

    def stop(self, last: int = -1) -> None:
        """No job after this one need go on."""
        with self._changed:
            self._last = min(self._last, last)
            self._changed.notify_all()

    def _count(self, jobs: int) -> None:
        with self._changed:
            self._busy += jobs


class Lanes:
    """Jobs in the background: those of one lane one after the other, those of different lanes side by side.

    Args:
        count: lanes.
        depth: batches of jobs that may be under way; whoever adds one more waits.

    Example:
        >>> lanes, seen = Lanes(2, depth=1), []
        >>> lanes.add([(0, lambda: seen.append("a")), (2, lambda: seen.append("b"))])
        >>> lanes.finish()
        >>> seen
        ['a', 'b']
    """

    def __init__(self, count: int, depth: int) -> None:
        self._pools = [ThreadPoolExecutor(1) for _ in range(count)]
        self._depth = depth
        self._under_way: deque[list[Future[None]]] = deque()
        self._error: BaseException | None = None

    def add(self, jobs: Iterable[tuple[int, Callable[[], object]]]) -> None:
        """Begin a batch of jobs, each with the number of its lane, counted round; raises what an earlier one raised."""
        while len(self._under_way) >= self._depth:
            self._wait()
        self._under_way.append([self._pools[lane % len(self._pools)].submit(self._run, job) for lane, job in jobs])

    def finish(self) -> None:
        """Wait for all jobs; raises what one of them raised."""
        while self._under_way:
            self._wait()
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Begin no more jobs, and wait for those that are under way."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def _run(self, job: Callable[[], object]) -> None:
        if self._error is not None:  # nobody wants the rest
            return
        try:
            job()
        except BaseException as error:
            self._error = self._error or error

    def _wait(self) -> None:
        for job in self._under_way.popleft():
            job.result()
        if self._error is not None:
            raise self._error

"""Work done ahead in the background, with a bound on how far ahead."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["in_background", "read_ahead"]

K = TypeVar("K")
V = TypeVar("V")


def read_ahead(
    keys: Iterable[K],
    load: Callable[[K], V],
    depth: int = 2,
    *,
    workers: int = 1,
    begin: Callable[[], None] | None = None,
) -> Generator[tuple[K, V], None, None]:
    """``(key, load(key))`` in order, the next ``depth`` being loaded meanwhile.

    Args:
        keys: of what to load.
        load: called in a thread.
        depth: how many are under way beside the one that is given.
        workers: threads that load.
        begin: called once in each of them.
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
            for _, future in under_way:
                future.cancel()


def in_background(items: Iterator[V], depth: int = 2) -> Generator[V, None, None]:
    """The same items, made by a thread that is at most ``depth`` items ahead.

    An error in the thread is raised here; when the caller stops early, the thread stops after its current item.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, what: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, what), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:  # handed to the caller, who raises it
            put("error", error)
        else:
            put("end", None)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="scisr-background", daemon=True)
    thread.start()
    try:
        while True:
            kind, what = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise what
            yield what
    finally:
        stop.set()
        thread.join()

"""Background work keeps order, hands errors over, stops when asked."""

import threading
from collections.abc import Iterator

import pytest

from sciSR.pipeline import in_background, read_ahead


def test_read_ahead_keeps_order_and_pairs() -> None:
    assert list(read_ahead(range(20), lambda k: k * k)) == [(k, k * k) for k in range(20)]


def test_several_threads_read_ahead_in_order_and_no_farther_than_asked() -> None:
    begun: list[int] = []
    seen: list[int] = []

    def keys() -> Iterator[int]:
        for k in range(20):
            seen.append(k)
            yield k

    flow = read_ahead(keys(), lambda k: k * k, depth=3, workers=2, begin=lambda: begun.append(threading.get_ident()))
    for k in range(20):
        assert next(flow) == (k, k * k)
        assert len(seen) <= k + 4
    assert list(flow) == []
    assert len(set(begun)) == len(begun) <= 2


def test_background_gives_the_same_items() -> None:
    assert list(in_background(iter(range(50)))) == list(range(50))


def test_an_error_in_the_background_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    stream = in_background(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_a_caller_that_stops_early_stops_the_work() -> None:
    made = []
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            for k in range(10**6):
                made.append(k)
                yield k
        finally:
            closed.set()

    stream = in_background(items(), depth=2)
    assert next(stream) == 0
    stream.close()
    assert closed.wait(5)
    assert len(made) < 20
    assert not [t for t in threading.enumerate() if t.name == "scisr-background"]

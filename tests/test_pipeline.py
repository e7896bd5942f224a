"""Background work keeps order, hands errors over, stops when asked."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sciSR.pipeline import Lanes, Turns, read_ahead


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


def test_every_step_takes_the_jobs_in_their_order_while_others_are_elsewhere() -> None:
    turns = Turns()
    seen: list[tuple[int, int]] = []
    together = set()

    def run(number: int) -> None:
        with turns.job(number):
            for step in range(5):
                with turns.step(number, step):
                    time.sleep(0.001 * (number % 3))
                    seen.append((step, number))
                    together.add(turns.busy)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(12)))
    assert all([n for s, n in seen if s == step] == list(range(12)) for step in range(5))
    assert max(together) > 1, "jobs did not run side by side"
    assert turns.busy == 0


def test_a_job_that_fails_ends_those_after_it_and_lets_those_before_it_finish() -> None:
    turns = Turns()

    def run(number: int) -> int:
        with turns.job(number):
            for step in range(3):
                with turns.step(number, step):
                    if (step, number) == (1, 2):
                        raise ValueError("broken")
        return number

    flow = read_ahead(range(10), run, depth=3, workers=3)
    assert [next(flow) for _ in range(2)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="broken"):
        next(flow)
    assert turns.busy == 0


def test_an_error_among_the_keys_ends_jobs_that_wait_for_one_that_never_begins() -> None:
    turns = Turns()

    def keys() -> Iterator[int]:
        yield from (0, 2, 3)
        raise OSError("unreadable")

    def run(number: int) -> None:
        with turns.job(number), turns.step(number, 0):
            pass

    with pytest.raises(OSError, match="unreadable"):
        list(read_ahead(keys(), run, depth=9, workers=2, end=turns.stop))


def test_jobs_that_wait_end_when_nobody_wants_them() -> None:
    turns = Turns()

    def run(number: int) -> None:
        with turns.job(number), turns.step(number, 0):
            pass

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, 1)
        time.sleep(0.05)
        assert not waiting.done()
        turns.stop()
        with pytest.raises(RuntimeError, match="nobody wants"):
            waiting.result(5)


def test_lanes_keep_the_order_of_each_and_run_side_by_side() -> None:
    lanes = Lanes(2, depth=3)
    seen: list[tuple[int, int]] = []
    meet = threading.Barrier(2, timeout=10)  # passed only where two lanes are under way at once

    def note(lane: int, batch: int) -> None:
        meet.wait()
        seen.append((lane, batch))

    for batch in range(3):
        lanes.add([(lane, partial(note, lane, batch)) for lane in (0, 3)])
    lanes.finish()
    for lane in (0, 3):
        assert [batch for at, batch in seen if at == lane] == [0, 1, 2]


def test_lanes_take_no_more_than_asked() -> None:
    go = threading.Event()
    lanes = Lanes(1, depth=2)
    lanes.add([(0, partial(go.wait, 10))])
    lanes.add([(0, partial(go.wait, 10))])
    third = threading.Thread(target=lambda: lanes.add([(0, go.is_set)]))
    third.start()
    third.join(0.1)
    assert third.is_alive()
    go.set()
    third.join(10)
    assert not third.is_alive()
    lanes.finish()


def test_lanes_hand_over_the_first_error_and_begin_nothing_after_it() -> None:
    lanes = Lanes(1, depth=9)
    seen: list[str] = []
    lanes.add([(0, lambda: 1 / 0), (0, partial(seen.append, "after"))])
    with pytest.raises(ZeroDivisionError):
        lanes.finish()
    lanes.stop()
    lanes.stop()
    assert seen == []


def test_lanes_do_not_forget_an_error() -> None:
    lanes = Lanes(1, depth=1)
    lanes.add([(0, lambda: 1 / 0)])
    with pytest.raises(ZeroDivisionError):
        lanes.add([(0, int)])
    with pytest.raises(ZeroDivisionError):
        lanes.finish()


def test_lanes_that_are_stopped_wait_for_what_is_under_way() -> None:
    begun = threading.Event()
    seen: list[str] = []
    lanes = Lanes(1, depth=9)

    def slowly() -> None:
        begun.set()
        time.sleep(0.05)
        seen.append("first")

    lanes.add([(0, slowly), (0, partial(seen.append, "second"))])
    begun.wait(10)
    lanes.stop()
    assert seen == ["first"]

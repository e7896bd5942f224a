"""The loop's clock: minutes become steps, and fewer of them where the machine slows down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sciSR.sampling import Augmentation
from sciSR.training.loop import Outcome, Settings, _Clock

FABRIC: Any = SimpleNamespace(broadcast=lambda value: value)


def settings(minutes: float) -> Settings:
    return Settings(
        patch=(8, 8), batch=4, steps=None, minutes=minutes, learning_rate=1e-3, warmup=0, schedule="cosine",
        final_learning_rate=0.01, weight_decay=0.0, loss="l1", ema=0.9, clip=1.0, accumulate=1, precision="float32",
        seed=0, validate_every=100, patience=None, dry_run=False, augment=Augmentation(),
    )  # fmt: skip


@pytest.mark.parametrize(("slower", "steps"), [(1.0, range(500, 601)), (6.0, range(120, 181))])
def test_minutes_hold_though_the_machine_slows_down(
    monkeypatch: pytest.MonkeyPatch, slower: float, steps: range
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    outcome = Outcome(weights={})
    clock = _Clock(settings(minutes=1.0), outcome)
    while outcome.steps == 0 or outcome.step < outcome.steps:
        now[0] += 0.1 * (slower if outcome.step >= 60 else 1.0)
        outcome.step += 1
        clock.tick(FABRIC)
    assert 50 < now[0] <= 62
    assert outcome.step == outcome.steps
    assert outcome.step in steps


def test_processes_of_different_speed_plan_after_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now, outcome = [0.0], Outcome(weights={})
    told: list[tuple[int, Any]] = []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def go(fabric: Any, seconds: float) -> int:
        outcome.step = outcome.steps = 0
        clock = _Clock(settings(minutes=1.0), outcome)
        while outcome.steps == 0 or outcome.step < outcome.steps:
            now[0] += seconds
            outcome.step += 1
            clock.tick(fabric)
        return outcome.step

    def tell(value: Any) -> Any:
        told.append((outcome.step, value))
        return value

    def hear(replies: Iterator[tuple[int, Any]]) -> Any:
        step, value = next(replies)
        assert step == outcome.step
        return value

    first = go(SimpleNamespace(broadcast=tell), 0.1)
    replies = iter(told)
    assert go(SimpleNamespace(broadcast=lambda _: hear(replies)), 0.25) == first
    assert next(replies, None) is None

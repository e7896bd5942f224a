from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciSR.errors import InputError
from sciSR.training.schedules import SCHEDULES, learning_rate_at


@given(steps=st.integers(1, 500), warmup=st.integers(0, 50), name=st.sampled_from(sorted(SCHEDULES)))
def test_rates_rise_to_the_peak_and_never_again(steps: int, warmup: int, name: str) -> None:
    rates = [learning_rate_at(s, steps, peak=2.0, warmup=warmup, schedule=name, final=0.1) for s in range(steps)]
    assert all(0 < r <= 2.0 for r in rates)
    rising, falling = rates[: min(warmup, steps)], rates[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if steps > warmup:
        assert rates[warmup] == 2.0


def test_cosine_ends_at_the_final_rate_and_step_halves() -> None:
    assert learning_rate_at(1000, 1000, peak=1.0, final=0.05) == pytest.approx(0.05)
    assert learning_rate_at(500, 1000, peak=1.0) == pytest.approx(0.5)
    halved = [learning_rate_at(s, 400, peak=1.0, schedule="step") for s in (0, 99, 100, 200, 399)]
    assert halved == [1.0, 1.0, 0.5, 0.25, 0.125]
    assert learning_rate_at(399, 400, peak=1.0, schedule="constant") == 1.0


def test_unknown_schedules_are_refused() -> None:
    with pytest.raises(InputError, match="'polynomial' is not one of cosine, step, constant"):
        learning_rate_at(0, 1, peak=1.0, schedule="polynomial")

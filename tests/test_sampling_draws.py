from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciSR.sampling.draws import generators, uniforms


@given(seed=st.integers(-(2**40), 2**40), step=st.integers(0, 2**31), first=st.integers(0, 1000))
def test_a_draw_depends_on_its_key_alone(seed: int, step: int, first: int) -> None:
    many = uniforms(seed, step, range(first, first + 4), 6)
    assert np.array_equal(many[2:3], uniforms(seed, step, [first + 2], 6))
    assert np.array_equal(many[:, :3], uniforms(seed, step, range(first, first + 4), 3))
    assert ((many >= 0) & (many < 1)).all()


def test_draws_are_even_and_independent() -> None:
    numbers = uniforms(3, 17, range(4000), 8)
    assert abs(numbers.mean() - 0.5) < 4 * np.sqrt(1 / 12 / numbers.size)
    histogram, _ = np.histogram(numbers, bins=20, range=(0, 1))
    expected = numbers.size / 20
    chi_square = ((histogram - expected) ** 2 / expected).sum()
    assert chi_square < 44  # 99.9 % point of 19 degrees of freedom: 43.8
    correlation = np.corrcoef(numbers.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.07


def test_seed_step_and_sample_all_matter() -> None:
    base = uniforms(0, 0, [0], 4)
    for other in (uniforms(1, 0, [0], 4), uniforms(0, 1, [0], 4), uniforms(0, 0, [1], 4)):
        assert not np.array_equal(base, other)


def test_generators_do_not_depend_on_who_else_is_drawn() -> None:
    device = torch.device("cpu")
    alone = torch.randn(5, generator=generators(9, 4, [7], device)[0])
    among = torch.randn(5, generator=generators(9, 4, [6, 7, 8], device)[1])
    assert torch.equal(alone, among)
    assert not torch.equal(alone, torch.randn(5, generator=generators(9, 5, [7], device)[0]))

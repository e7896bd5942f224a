"""Holes are filled from near valid pixels, the same for a tile with margin as for the whole image."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sciSR.filling import fill_invalid


def test_valid_values_stay_and_holes_lie_between_their_neighbours() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 21)).astype(np.float32)
    valid = rng.random(values.shape) > 0.3
    filled = fill_invalid(np.where(valid, values, np.nan), valid, 20)
    np.testing.assert_array_equal(filled[valid], values[valid])
    assert np.isfinite(filled).all()
    assert filled.min() >= values[valid].min() - 1e-6
    assert filled.max() <= values[valid].max() + 1e-6


def test_what_lies_deeper_than_the_reach_gets_the_rest() -> None:
    valid = np.zeros((1, 30), bool)
    valid[0, 0] = True
    filled = fill_invalid(np.full((1, 30), 5, np.float32), valid, 3, rest=-1.0)
    np.testing.assert_array_equal(filled[0, :4], 5)
    np.testing.assert_array_equal(filled[0, 4:], -1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_window_with_a_margin_of_the_reach_is_filled_as_the_whole(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(24, 26)).astype(np.float32)
    valid = rng.random(values.shape) > 0.6
    whole = fill_invalid(values, valid, reach)
    core = (slice(8, 15), slice(9, 14))
    wide = tuple(slice(c.start - reach, c.stop + reach) for c in core)
    part = fill_invalid(values[wide], valid[wide], reach)
    np.testing.assert_allclose(part[reach:-reach, reach:-reach], whole[core], atol=1e-6)


def test_nothing_valid_at_all_gives_the_rest_everywhere() -> None:
    filled = fill_invalid(np.full((3, 4), np.nan, np.float32), np.zeros((3, 4), bool), 5, rest=2.0)
    np.testing.assert_array_equal(filled, 2)

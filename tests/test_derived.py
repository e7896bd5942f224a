"""Sources made from another: blocks changed one by one, and rows kept while a source streams."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR.derived import DerivedSource, RecordedSource, rows_in_order
from sciSR.raster import ArraySource, Block, Window, windows
from tests.made_files import Streamed

HALVES = (1, 2, 5, 4)
"""Slabs of two rows, each in two parts."""


class Doubled(DerivedSource):
    """Twice the values."""

    def _changed(self, window: Window, block: Block) -> Block:
        return Block(2 * block.values, block.valid)


def holed() -> NDArray[np.float32]:
    values = np.random.default_rng(0).normal(size=(2, 9, 5, 7)).astype(np.float32)
    values[1, 3, 2, 4] = np.nan
    return values


def overlapping(rows: int, margin: int) -> list[Window]:
    """Windows in order, with a margin of rows and columns around each."""
    parts = windows((2, 9, 5, 7), (1, rows, 5, 4))
    return [
        (t, slice(max(0, z.start - margin), min(9, z.stop + margin)), y, slice(max(0, x.start - 1), min(7, x.stop + 1)))
        for t, z, y, x in parts
    ]


@pytest.mark.parametrize(("rows", "margin"), [(1, 0), (3, 2), (4, 1), (9, 0)])
def test_what_streams_by_slabs_is_computed_once(rows: int, margin: int) -> None:
    values = holed()
    source = Streamed(values, chunks=HALVES)
    with rows_in_order(source, 1) as read:
        for window in overlapping(rows, margin):
            block = read(window)
            np.testing.assert_array_equal(block.values, values[window])
            known = np.ones(block.values.shape, bool) if block.valid is None else block.valid
            np.testing.assert_array_equal(known, np.isfinite(values[window]))


def test_a_stream_that_is_left_ends() -> None:
    source = Streamed(holed(), chunks=HALVES)
    with rows_in_order(source, 1) as read:
        read((slice(0, 1), slice(0, 3), slice(0, 5), slice(0, 7)))
        assert not source.ended
    assert source.ended


def test_any_other_source_is_read() -> None:
    values = holed()
    backwards = overlapping(3, 1)[::-1]
    with rows_in_order(ArraySource(values), 1) as read:
        for window in backwards:
            np.testing.assert_array_equal(read(window).values, values[window])


def test_blocks_are_changed_alike_however_they_are_asked_for() -> None:
    values = holed()
    doubled = Doubled(ArraySource(values, chunks=(1, 4, 5, 7)))
    assert (doubled.shape, doubled.chunks) == (values.shape, (1, 4, 5, 7))
    assert doubled.dtype == np.float32
    assert not doubled.by_slabs
    for window, block in doubled.stream():
        np.testing.assert_array_equal(block.values, 2 * values[window])
        np.testing.assert_array_equal(doubled.read(window).values, block.values)


def test_facts_stay_beside_the_values() -> None:
    noted = RecordedSource(Streamed(holed()), {"made": "here"})
    assert noted.by_slabs
    assert noted.over(ArraySource(holed())).record() == noted.record() == {"made": "here"}
    assert not noted.over(ArraySource(holed())).by_slabs

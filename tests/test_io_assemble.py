"""Chunks from blocks in any order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciSR.errors import RunError
from sciSR.io.assemble import ChunkAssembler
from sciSR.raster import Block, windows


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    blocks=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
)
def test_every_chunk_comes_once_and_whole(
    shape: tuple[int, int, int], chunks: tuple[int, int, int], blocks: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1000, shape)
    valid = rng.random(shape) > 0.2
    parts = ChunkAssembler(shape, chunks, values.dtype)
    order = list(windows(shape, blocks))
    rng.shuffle(order)
    seen = np.zeros(shape, int)
    for window in order:
        ok = valid[window]
        for whole, chunk in parts.add(window, Block(values[window], None if ok.all() else ok)):
            seen[whole] += 1
            np.testing.assert_array_equal(chunk.values, values[whole])
            np.testing.assert_array_equal(True if chunk.valid is None else chunk.valid, valid[whole])
    parts.close()
    assert (seen == 1).all()


def test_a_stream_of_rows_holds_one_row_of_chunks() -> None:
    parts = ChunkAssembler((64, 100), (16, 16), np.dtype("u1"))
    for start, stop in pairwise(range(0, 65, 4)):
        list(parts.add((slice(start, stop), slice(0, 100)), Block(np.zeros((stop - start, 100), np.uint8))))
        assert len(parts._begun) <= 7
    assert not parts._begun


def test_a_gap_is_found() -> None:
    parts = ChunkAssembler((4, 4), (2, 2), np.dtype("u1"))
    list(parts.add((slice(0, 1), slice(0, 4)), Block(np.zeros((1, 4), np.uint8))))
    with pytest.raises(RunError, match="2 chunks of the output are incomplete"):
        parts.close()

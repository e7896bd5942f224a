from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sciSR.errors import InputError
from sciSR.tiling import Tile, TilePlan, central


@given(st.integers(1, 99), st.data())
def test_the_middle_leaves_as_much_on_both_sides(n: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, n))
    part = central(n, kept)
    assert part.stop - part.start == kept
    assert 0 <= (n - part.stop) - part.start <= 1


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    """Plans of one to three axes: tiles larger than the image, halos larger than tiles, alignments, uneven factors."""
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        align = draw(st.sampled_from([1, 1, 2, 4]))
        axes.append(
            (
                draw(st.integers(1, 17)),
                align * draw(st.integers(1, 5)),
                draw(st.integers(0, 9)),
                draw(st.integers(1, 4)),
                align,
            )
        )
    shape, tile, halo, scale, alignment = zip(*axes, strict=True)
    return TilePlan(shape, tile, halo, scale, alignment)


def count(shape: tuple[int, ...], windows: list[tuple[slice, ...]]) -> NDArray[np.int64]:
    covered = np.zeros(shape, np.int64)
    for window in windows:
        covered[window] += 1
    return covered


@given(plans())
def test_cores_and_outputs_cover_exactly_once(plan: TilePlan) -> None:
    tiles = list(plan)
    assert len(tiles) == len(plan)
    assert (count(plan.shape, [t.core for t in tiles]) == 1).all()
    assert (count(plan.output_shape, [t.write for t in tiles]) == 1).all()


def _check_read(plan: TilePlan, tile: Tile) -> None:
    for read, core, n, halo, align in zip(tile.read, tile.core, plan.shape, plan.halo, plan.alignment, strict=True):
        assert 0 <= read.start <= max(0, core.start - halo)
        assert min(n, core.stop + halo) <= read.stop <= n
        assert read.start % align == 0
        # never more than the alignment asks for
        assert max(0, core.start - halo) - read.start < align
        assert read.stop - min(n, core.stop + halo) < align


@given(plans())
def test_read_holds_core_and_halo_and_stays_inside(plan: TilePlan) -> None:
    for tile in plan:
        _check_read(plan, tile)


@given(plans(), st.data())
def test_any_core_makes_a_tile(plan: TilePlan, data: st.DataObject) -> None:
    ends = [sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in plan.shape]
    tile = plan.around(tuple(slice(*end) for end in ends))
    assert [[core.start, core.stop] for core in tile.core] == ends
    _check_read(plan, tile)
    for read, core, keep, write, s in zip(tile.read, tile.core, tile.keep, tile.write, plan.scale, strict=True):
        assert (write.start, write.stop) == (core.start * s, core.stop * s)
        assert (read.start * s + keep.start, read.start * s + keep.stop) == (write.start, write.stop)


@given(plans())
def test_kept_part_is_the_one_that_is_written(plan: TilePlan) -> None:
    """Enlarging each read part and keeping ``keep`` puts together what enlarging the whole would give."""
    whole = np.arange(np.prod(plan.shape)).reshape(plan.shape)
    expected = whole
    for axis, s in enumerate(plan.scale):
        expected = np.repeat(expected, s, axis)
    result = np.full(plan.output_shape, -1)
    for tile in plan:
        part = whole[tile.read]
        for axis, s in enumerate(plan.scale):
            part = np.repeat(part, s, axis)
        result[tile.write] = part[tile.keep]
    np.testing.assert_array_equal(result, expected)


@given(plans(), st.data())
def test_covering_finds_all_tiles_of_a_window_and_no_other(plan: TilePlan, data: st.DataObject) -> None:
    window = []
    for n in plan.output_shape:
        a = data.draw(st.integers(0, n - 1))
        window.append(slice(a, data.draw(st.integers(a + 1, n))))
    found = [tile.write for tile in plan.covering(tuple(window))]
    meets = [
        tile.write
        for tile in plan
        if all(w.start < p.stop and p.start < w.stop for w, p in zip(tile.write, window, strict=True))
    ]
    assert found == meets


@given(plans())
def test_numbers_run_last_axis_fastest(plan: TilePlan) -> None:
    starts = [tuple(s.start for s in tile.core) for tile in plan]
    assert starts == sorted(starts)
    assert plan[len(plan) - 1] == list(plan)[-1]


def test_tiles_of_a_hand_drawn_plan() -> None:
    plan = TilePlan((5, 8), (4, 4), (1, 2), (1, 2), (2, 4))
    tile = plan.at((1, 1))
    assert tile.read == (slice(2, 5), slice(0, 8))
    assert tile.core == (slice(4, 5), slice(4, 8))
    assert tile.keep == (slice(2, 3), slice(8, 16))
    assert tile.write == (slice(4, 5), slice(8, 16))


def test_an_image_smaller_than_a_tile_is_one_tile() -> None:
    plan = TilePlan((3, 1), (64, 64), (16, 16), (2, 2))
    assert len(plan) == 1
    assert plan[0].read == plan[0].core == (slice(0, 3), slice(0, 1))
    assert plan[0].write == (slice(0, 6), slice(0, 2))


@pytest.mark.parametrize("number", [-1, 4])
def test_a_tile_that_is_not_there(number: int) -> None:
    with pytest.raises(IndexError):
        TilePlan((8, 8), (4, 4), (0, 0), (1, 1))[number]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((8, 8), (4,), (0, 0), (1, 1)), "axes differ"),
        (((8,), (0,), (0,), (1,)), "at least 1"),
        (((8,), (4,), (-1,), (1,)), "at least 0"),
        (((8,), (4,), (0,), (0,)), "at least 1"),
        (((8,), (6,), (0,), (1,), (4,)), "multiple of the network's alignment"),
    ],
)
def test_impossible_plans_are_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TilePlan(*arguments)


def test_record_remakes_the_plan() -> None:
    plan = TilePlan((10, 12), (4, 4), (3, 2), (2, 1), (2, 2))
    record = {name: tuple(value) for name, value in plan.to_dict().items()}
    assert TilePlan(**record) == plan

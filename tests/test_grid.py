from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sciSR.errors import GeometryError
from sciSR.grid import RAS_MM, Grid, scale_per_axis

_number = st.floats(-1, 1, allow_nan=False, width=32)


@st.composite
def affines(draw: st.DrawFn, n: int) -> NDArray[np.float64]:
    """Affines of all kinds: anisotropic, flipped, permuted, oblique and sheared, never near singular."""
    columns = np.eye(n)[list(draw(st.permutations(range(n))))]
    columns = columns + 0.25 / n * np.array(draw(st.lists(_number, min_size=n * n, max_size=n * n))).reshape(n, n)
    spacing = [draw(st.floats(0.01, 100)) * draw(st.sampled_from([1, -1])) for _ in range(n)]
    affine = np.eye(n + 1)
    affine[:n, :n] = columns @ np.diag(spacing)
    affine[:n, n] = [draw(st.floats(-1e6, 1e6)) for _ in range(n)]
    return affine


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    n = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 50)) for _ in range(n))
    return Grid(shape, draw(affines(n)), frame=RAS_MM if n == 3 else "EPSG:32618", unit="mm" if n == 3 else "m")


def pixel_error(grid: Grid, here: NDArray[Any], there: NDArray[Any]) -> float:
    """Greatest distance of two sets of world points, in pixels, beyond what float64 leaves of the coordinates."""
    finest = min(grid.spacing.values())
    rounding = 8 * np.finfo(float).eps * max(np.abs(here).max(), np.abs(there).max(), 1.0)
    return float(max(0.0, np.abs(here - there).max() - rounding) / finest)


@given(grids(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_refine_keeps_every_corner(grid: Grid, z: int, y: int, x: int) -> None:
    scale = dict(zip(grid.axes, (z, y, x)[-len(grid.shape) :], strict=True))
    fine = grid.refine(scale)
    assert fine.shape == tuple(n * scale[a] for n, a in zip(grid.shape, grid.axes, strict=True))
    assert pixel_error(fine, fine.corners, grid.corners) < 1e-9
    for axis in grid.axes:
        assert fine.spacing[axis] == pytest.approx(grid.spacing[axis] / scale[axis], rel=1e-12)


@given(grids(), st.floats(0.3, 7))
def test_any_factor_rounds_the_count_and_keeps_the_bounds(grid: Grid, factor: float) -> None:
    fine = grid.refine(factor)
    assert fine.shape == tuple(max(1, round(n * factor)) for n in grid.shape)
    assert pixel_error(fine, fine.corners, grid.corners) < 1e-9
    assert fine.same_space(grid)


@given(
    st.integers(1, 20000),
    st.integers(1, 20000),
    st.integers(-(2**26), 2**26),
    st.integers(-(2**26), 2**26),
    st.sampled_from([0.5, 10.0, 15.0, 28.5, 30.0, 60.0]),
    st.sampled_from([2, 4, {"y": 4, "x": 2}]),
)
def test_north_up_scene_keeps_its_bounds_bit_for_bit(
    height: int, width: int, left: int, top: int, pixel: float, scale: Any
) -> None:
    grid = Grid((height, width), [[pixel, 0, left / 4], [0, -pixel, top / 4], [0, 0, 1]])  # type: ignore[arg-type]
    assert grid.refine(scale).bounds == grid.bounds


@given(grids(), st.integers(1, 4))
def test_coarsen_undoes_refine(grid: Grid, factor: int) -> None:
    back = grid.refine(factor).coarsen(factor)
    assert back.shape == grid.shape
    np.testing.assert_allclose(back.affine, grid.affine, rtol=1e-14, atol=1e-14 * np.abs(grid.affine).max())


@given(grids(), st.data())
def test_crop_leaves_each_pixel_where_it_lay(grid: Grid, data: st.DataObject) -> None:
    window, start = [], []
    for n in grid.shape:
        a = data.draw(st.integers(0, n - 1))
        window.append(slice(a, data.draw(st.integers(a + 1, n))))
        start.append(a)
    part = grid.crop(tuple(window))
    assert part.shape == tuple(w.stop - w.start for w in window)
    at = np.array([0.5, 0.25, 0.75][: len(grid.shape)])
    assert pixel_error(grid, part.world(at), grid.world(at + start[::-1])) < 1e-9


@given(grids(), st.integers(0, 9), st.integers(0, 9))
def test_crop_undoes_pad(grid: Grid, before: int, after: int) -> None:
    n = len(grid.shape)
    wide = grid.pad((before,) * n, (after,) * n)
    assert wide.shape == tuple(before + m + after for m in grid.shape)
    back = wide.crop(tuple(slice(before, before + m) for m in grid.shape))
    assert back.shape == grid.shape
    assert pixel_error(grid, back.corners, grid.corners) < 1e-9


@given(grids())
def test_center_affine_goes_there_and_back(grid: Grid) -> None:
    back = Grid.from_center_affine(grid.shape, grid.center_affine, frame=grid.frame, unit=grid.unit)
    assert pixel_error(grid, back.corners, grid.corners) < 1e-9
    centre = np.zeros(len(grid.shape))
    assert pixel_error(grid, grid.world(centre + 0.5), (grid.center_affine @ [*centre, 1])[:-1]) < 1e-9


@given(grids(), st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_index_undoes_world(grid: Grid, point: list[float]) -> None:
    index = np.array(point[: len(grid.shape)])
    world = grid.world(index)
    # a world coordinate holds 53 bits; what it loses of the index grows with its size over the pixel's
    lost = 1e-12 * (1 + np.abs(world).max() / min(grid.spacing.values()))
    np.testing.assert_allclose(grid.index(world), index, atol=100 * lost, rtol=0)


def test_nifti_formula_of_the_refined_centres() -> None:
    """Centre of the first fine voxel: the old centre moved by (1/s - 1)/2 of an old voxel (NIfTI-1, section 6)."""
    affine = np.array([[2.0, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    fine = Grid.from_center_affine((5, 6, 7), affine).refine({"z": 3, "y": 1, "x": 2}).center_affine
    expected = [10 + 2 * (1 / 2 - 1) / 2, 20, 30 + 4 * (1 / 3 - 1) / 2]
    np.testing.assert_allclose(fine[:3, 3], expected, atol=1e-12)
    np.testing.assert_allclose(np.diag(fine)[:3], [1, -3, 4 / 3], atol=1e-12)


def test_with_spacing_rounds_the_count_and_says_what_was_reached() -> None:
    grid = Grid.from_center_affine((25, 256, 256), np.diag([0.78125, 0.78125, 6.5, 1]), frame=RAS_MM)
    thin = grid.with_spacing({"z": 0.8})
    assert thin.shape == (203, 256, 256)
    assert thin.spacing == pytest.approx({"z": 25 * 6.5 / 203, "y": 0.78125, "x": 0.78125})
    assert thin.same_space(grid)
    assert grid.with_spacing(1.0).shape == (round(25 * 6.5), 200, 200)


def test_same_space_sees_shift_frame_and_dimension() -> None:
    grid = Grid((10, 10), np.diag([10.0, -10.0, 1]), frame="EPSG:32618")
    assert grid.same_space(grid.refine(3))
    assert not grid.same_space(Grid((10, 10), grid.affine @ [[1, 0, 0.5], [0, 1, 0], [0, 0, 1]], frame="EPSG:32618"))
    assert not grid.same_space(Grid((10, 10), grid.affine, frame="EPSG:32621"))
    assert not grid.same_space(Grid((1, 10, 10), np.eye(4), frame="EPSG:32618"))


def test_corners_are_those_of_a_hand_drawn_grid() -> None:
    grid = Grid((2, 3), [[10, 1, 100], [0, -10, 50], [0, 0, 1]])  # type: ignore[arg-type]
    expected = [[100, 50], [130, 50], [102, 30], [132, 30]]
    np.testing.assert_allclose(grid.corners, expected)
    assert grid.bounds == (100.0, 30.0, 132.0, 50.0)


def test_a_grid_cannot_be_changed() -> None:
    affine = np.diag([2.0, 2.0, 1.0])
    grid = Grid((4, 4), affine)
    affine[0, 0] = 99
    assert grid.affine[0, 0] == 2
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 3
    with pytest.raises(AttributeError):
        grid.shape = (1, 1)  # type: ignore[misc]


def test_equal_grids_are_equal_and_hash_alike() -> None:
    one, two = (Grid((4, 5), np.diag([2.0, -2.0, 1.0]), frame="EPSG:4326") for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != one.refine(2)
    assert one != "a grid"


def test_record_is_plain_values() -> None:
    record = Grid((4, 5), np.diag([2.0, -2.0, 1.0]), frame="EPSG:4326", unit="degree").to_dict()
    assert record["shape"] == [4, 5]
    assert record["affine"] == [[2, 0, 0], [0, -2, 0], [0, 0, 1]]
    assert (record["frame"], record["unit"]) == ("EPSG:4326", "degree")


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((4,), np.eye(2), "1 spatial axes"),
        ((4, 4, 4, 4), np.eye(5), "4 spatial axes"),
        ((0, 4), np.eye(3), "empty axis"),
        ((4, 4), np.eye(4), "affine of shape"),
        ((4, 4), np.diag([1, np.nan, 1]), "NaN"),
        ((4, 4), np.diag([1, np.inf, 1]), "NaN or infinity"),
        ((4, 4, 4), np.diag([0.7, 0.7, 0.0, 1]), "spacing 0 on axis z"),
        ((4, 4), np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]]), "singular"),
        ((4, 4), np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1.0]]), "last row"),
    ],
)
def test_impossible_geometry_is_refused(shape: tuple[int, ...], affine: NDArray[Any], words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        Grid(shape, affine)


def test_small_pixels_are_not_taken_for_singular() -> None:
    metre_in_degrees = 1e-5
    grid = Grid((4, 4), np.diag([metre_in_degrees, -metre_in_degrees, 1]), frame="EPSG:4326", unit="degree")
    assert grid.spacing == {"y": metre_in_degrees, "x": metre_in_degrees}


@pytest.mark.parametrize("bad", [0, -2, math.nan, math.inf])
def test_impossible_scale_names_its_axis(bad: float) -> None:
    with pytest.raises(GeometryError, match="axis z"):
        scale_per_axis({"z": bad}, ("z", "y", "x"))
    with pytest.raises(GeometryError, match="not a positive number"):
        Grid((4, 4), np.eye(3)).refine(bad)


def test_scale_of_an_axis_that_is_not_there() -> None:
    with pytest.raises(GeometryError, match="no spatial axis z here"):
        Grid((4, 4), np.eye(3)).refine({"z": 2})
    with pytest.raises(GeometryError, match="no spatial axis z"):
        Grid((4, 4), np.eye(3)).with_spacing({"z": 2})
    assert scale_per_axis({"z": 4}, ("z", "y", "x")) == {"z": 4.0, "y": 1.0, "x": 1.0}


@pytest.mark.parametrize("shape", [(4,), (4, 0), (4, 4, 4)])
def test_resize_to_an_impossible_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="does not fit 2 axes"):
        Grid((4, 4), np.eye(3)).resize(shape)


@pytest.mark.parametrize(
    "window", [(slice(2, 2), slice(0, 4)), (slice(0, 9), slice(0, 4)), (slice(-1, 4), slice(0, 4))]
)
def test_crop_outside_or_empty_is_refused(window: tuple[slice, ...]) -> None:
    with pytest.raises(GeometryError):
        Grid((4, 4), np.eye(3)).crop(window)


@pytest.mark.parametrize("spacing", [0, -1.0, math.nan, {"y": 0}, {"x": -1}, {"x": math.nan}, {"x": math.inf}])
def test_impossible_target_spacing_is_refused(spacing: Any) -> None:
    with pytest.raises(GeometryError):
        Grid((4, 4), np.eye(3)).with_spacing(spacing)


@given(grids(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_factors_are_those_that_refined(grid: Grid, z: int, y: int, x: int) -> None:
    scale = {axis: factor for axis, factor in {"z": z, "y": y, "x": x}.items() if axis in grid.axes}
    assert grid.refine(scale).factors(grid) == scale

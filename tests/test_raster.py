from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import GeometryError, InputError
from sciSR.grid import RAS_MM, Grid
from sciSR.io import open_raster, save_raster
from sciSR.raster import ArraySource, Block, Channel, Raster, TimeAxis, gathered, slab_chunks, windows

OBLIQUE = np.array([[1.9, 0.3, 0.1, -40], [-0.2, -2.8, 0.2, 50], [0.1, 0.4, 3.9, 60], [0, 0, 0, 1]])
NORTH_UP = np.array([[10.0, 0, 500000], [0, -10, 4200000], [0, 0, 1]])


def volume(shape: tuple[int, ...] = (4, 5, 6), dtype: str = "int16") -> Raster:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return Raster.from_array(values, affine=OBLIQUE, axes="tzyx"[-len(shape) :], unit="HU", name="ct")


def scene(bands: int = 3, size: tuple[int, int] = (6, 7)) -> Raster:
    values = np.arange(bands * size[0] * size[1], dtype=np.uint16).reshape(bands, *size)
    names = tuple(f"B{i}" for i in range(bands))
    return Raster.from_array(values, affine=NORTH_UP, axes="cyx", crs="EPSG:32618", channels=names, name="s2")


shapes = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


@given(shapes, st.data())
def test_windows_cover_exactly_once_in_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    chunks = tuple(data.draw(st.integers(1, 14)) for _ in shape)
    covered = np.zeros(shape, int)
    starts = []
    for window in windows(shape, chunks):
        assert all(s.stop - s.start <= c for s, c in zip(window, chunks, strict=True))
        covered[window] += 1
        starts.append(tuple(s.start for s in window))
    assert (covered == 1).all()
    assert starts == sorted(starts)


@given(shapes, st.integers(1, 200))
def test_slab_chunks_hold_no_more_than_asked(shape: tuple[int, ...], room: int) -> None:
    chunks = slab_chunks(shape, room)
    assert len(chunks) == len(shape)
    assert all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))
    assert np.prod(chunks) <= room
    # trailing axes stay whole unless nothing leads them
    split = [i for i, (c, n) in enumerate(zip(chunks, shape, strict=True)) if c < n]
    if split:
        assert all(c == 1 for c in chunks[: split[-1]])


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_stream_gives_every_value_once(shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    raster = Raster.from_array(values, affine=OBLIQUE, axes="zyx")
    raster = raster.replace(source=ArraySource(values, chunks=chunks))
    seen = np.full(shape, np.nan, np.float32)
    for window, block in raster.stream():
        assert np.isnan(seen[window]).all()
        seen[window] = block.values
    np.testing.assert_array_equal(seen, values)


def test_read_of_everything_and_of_a_window() -> None:
    raster = volume()
    np.testing.assert_array_equal(raster.read().values, np.arange(120).reshape(4, 5, 6))
    part = raster.read((slice(1, 2), slice(2, 5), slice(0, 3)))
    assert part.values.shape == (1, 3, 3)
    assert part.values[0, 0, 0] == 1 * 30 + 2 * 6
    assert part.valid is None


def test_nan_and_nodata_are_not_valid() -> None:
    floats = np.array([[1, np.nan], [3, -9999]], np.float32)
    block = Raster.from_array(floats, affine=NORTH_UP, axes="yx", nodata=-9999).read()
    np.testing.assert_array_equal(block.valid, [[True, False], [True, False]])
    whole = np.array([[1, 0], [3, 4]], np.uint8)
    block = Raster.from_array(whole, affine=NORTH_UP, axes="yx", nodata=0).read()
    np.testing.assert_array_equal(block.valid, [[True, False], [True, True]])
    assert Raster.from_array(whole, affine=NORTH_UP, axes="yx").read().valid is None


@given(st.data())
def test_crop_moves_grid_and_values_together(data: st.DataObject) -> None:
    raster = volume((5, 6, 7))
    window = {}
    for axis, n in zip("zyx", raster.shape, strict=True):
        start = data.draw(st.integers(0, n - 1))
        window[axis] = slice(start, data.draw(st.integers(start + 1, n)))
    part = raster.crop(**window)
    index = tuple(window[axis] for axis in "zyx")
    np.testing.assert_array_equal(part.read().values, raster.read().values[index])
    first = np.array([window[axis].start for axis in "xyz"]) + 0.5
    np.testing.assert_allclose(part.grid.world([0.5, 0.5, 0.5]), raster.grid.world(first), atol=1e-9)
    assert part.shape == part.grid.shape


def test_crop_of_a_crop_is_the_crop_of_both() -> None:
    raster = volume((6, 7, 8))
    twice = raster.crop(z=slice(1, 6), x=slice(2, 8)).crop(z=slice(2, 4), x=slice(1, 3))
    once = raster.crop(z=slice(3, 5), x=slice(3, 5))
    np.testing.assert_array_equal(twice.read().values, once.read().values)
    np.testing.assert_allclose(twice.grid.affine, once.grid.affine, atol=1e-12)


def test_cropped_stream_covers_once() -> None:
    part = volume((6, 7, 8)).crop(z=slice(1, 5), y=slice(3, 4), x=slice(2, 8))
    seen = np.zeros(part.shape, int)
    for window, block in part.stream():
        assert block.values.shape == seen[window].shape
        seen[window] += 1
    assert (seen == 1).all()


def test_negative_indices_count_from_the_end() -> None:
    part = scene().crop(y=slice(-2, None), x=slice(None, -5))
    assert part.shape == (3, 2, 2)
    np.testing.assert_allclose(part.grid.affine[:2, 2], [500000, 4200000 - 4 * 10])


def test_crop_of_channels_takes_their_names_and_encoding_along() -> None:
    raster = scene().replace(encoding=Encoding("uint16", scale=(1.0, 2.0, 3.0), offset=(5.0,), nodata=(None, 0.0, 7.0)))
    part = raster.crop(c=slice(1, 3))
    assert [channel.name for channel in part.channels] == ["B1", "B2"]
    assert part.encoding.scale == (2.0, 3.0)
    assert part.encoding.offset == (5.0,)
    assert part.encoding.nodata == (0.0, 7.0)
    assert part.grid == raster.grid


def test_crop_in_time_moves_the_start() -> None:
    raster = volume((5, 2, 3, 4)).replace(time=TimeAxis(start=10.0, step=2.5, unit="s"))
    part = raster.crop(t=slice(2, 4))
    assert part.time == TimeAxis(start=15.0, step=2.5, unit="s")
    assert part.leading == (2,)


def test_auxiliary_rasters_follow_a_crop() -> None:
    values = np.arange(42, dtype=np.uint8).reshape(6, 7)
    alpha = Raster.from_array(values, affine=NORTH_UP, axes="yx", crs="EPSG:32618", name="alpha")
    part = scene().replace(auxiliary={"alpha": alpha}).crop(y=slice(2, 4), x=slice(3, 6))
    np.testing.assert_array_equal(part.auxiliary["alpha"].read().values, [[17, 18, 19], [24, 25, 26]])
    assert part.auxiliary["alpha"].grid == part.grid


@pytest.mark.parametrize("part", [slice(3, 3), slice(0, 6, 2), slice(9, 12), slice(4, 1)])
def test_an_empty_or_strided_crop_names_the_axis(part: slice) -> None:
    with pytest.raises(GeometryError, match="s2: crop of axis y"):
        scene().crop(y=part)


def test_crop_of_an_axis_that_is_not_there() -> None:
    with pytest.raises(GeometryError, match="no axis z; it has c, y, x"):
        scene().crop(z=slice(0, 1))


def test_from_array_reads_a_4x4_affine_as_voxel_centres() -> None:
    raster = volume()
    np.testing.assert_allclose(raster.grid.center_affine, OBLIQUE, atol=1e-12)
    assert (raster.grid.frame, raster.grid.unit, raster.unit) == (RAS_MM, "mm", "HU")


def test_from_array_reads_a_3x3_affine_as_pixel_corners() -> None:
    raster = scene()
    np.testing.assert_array_equal(raster.grid.affine, NORTH_UP)
    assert raster.grid.frame == "EPSG:32618"
    assert raster.grid.bounds == (500000.0, 4199940.0, 500070.0, 4200000.0)


def test_from_array_takes_rasterios_affine() -> None:
    from rasterio.transform import from_origin

    transform = from_origin(500000, 4200000, 10, 10)
    raster = Raster.from_array(np.zeros((2, 3), np.uint8), affine=transform, axes="yx")
    np.testing.assert_array_equal(raster.grid.affine, NORTH_UP)


def test_from_array_takes_nested_lists_and_dask() -> None:
    import dask.array as da

    assert Raster.from_array([[1, 2], [3, 4]], affine=NORTH_UP, axes="yx").read().values.sum() == 10
    lazy = da.arange(24, chunks=5).reshape(4, 6)
    raster = Raster.from_array(lazy, affine=NORTH_UP, axes="yx")
    np.testing.assert_array_equal(raster.read((slice(1, 3), slice(0, 2))).values, [[6, 7], [12, 13]])


@pytest.mark.parametrize(
    ("shape", "axes", "affine"),
    [
        ((4, 5), "zyx", OBLIQUE),
        ((4, 5, 6), "zyx", NORTH_UP),
        ((4, 5, 6), "xyz", OBLIQUE),
        ((4, 5, 6), "qyx", NORTH_UP),
        ((4, 5), "yx", np.eye(5)),
    ],
)
def test_axes_that_do_not_fit_are_refused(shape: tuple[int, ...], axes: str, affine: NDArray[Any]) -> None:
    with pytest.raises(GeometryError):
        Raster.from_array(np.zeros(shape), affine=affine, axes=axes)


def test_channels_must_be_as_many_as_the_array_has() -> None:
    with pytest.raises(InputError, match="2 channel entries came for 3 channels"):
        scene().replace(channels=(Channel("a"), Channel("b")))


def test_source_must_fit_the_grid() -> None:
    with pytest.raises(GeometryError, match="does not fit grid shape"):
        scene().replace(source=ArraySource(np.zeros((3, 5, 5))))


def test_unit_is_that_of_all_channels_or_none() -> None:
    raster = scene(2)
    assert raster.replace(channels=(Channel("a", "K"), Channel("b", "K"))).unit == "K"
    assert raster.replace(channels=(Channel("a", "K"), Channel("b", "m"))).unit is None


def test_reading_from_many_threads_gives_the_same() -> None:
    from concurrent.futures import ThreadPoolExecutor

    raster = volume((8, 9, 10)).crop(z=slice(1, 8))
    parts = list(windows(raster.shape, (2, 3, 4)))
    with ThreadPoolExecutor(8) as pool:
        blocks: list[Block] = list(pool.map(raster.read, parts))
    whole = raster.read().values
    for window, block in zip(parts, blocks, strict=True):
        np.testing.assert_array_equal(block.values, whole[window])


def test_a_raster_shows_itself_in_one_short_line(tmp_path: Path) -> None:
    scene = Raster.from_array(
        np.zeros((12, 5, 6), np.uint16), affine=[[10, 0, 0], [0, -20, 0], [0, 0, 1]], axes="cyx", crs="EPSG:32618",
        channels=tuple(f"B{i:02}" for i in range(1, 13)), name="scene.tif",
    )  # fmt: skip
    shown = repr(scene)
    assert shown.startswith("<Raster scene.tif: c 12, y 5, x 6; uint16; 20 x 10 units, EPSG:32618; B01, B02")
    assert shown.endswith("B08, …>")
    placed = scene.replace(grid=Grid((5, 6), np.eye(3), 'PROJCS["WGS 84 / UTM zone 18N",GEOGCS["WGS 84"]]', "m"))
    assert "1 x 1 m, WGS 84 / UTM zone 18N;" in repr(placed)
    volume = Raster.from_array(np.zeros((2, 3, 4)), affine=np.eye(4), axes="zyx", unit="HU", name="a")
    from_file = open_raster(save_raster(volume, tmp_path / "a.nii.gz"), unit="HU")
    assert repr(from_file) == "<Raster a.nii.gz: z 2, y 3, x 4; float64 HU; 1 x 1 x 1 mm, RAS+ mm>"


def test_blocks_that_reach_out_are_gathered_once() -> None:
    whole = np.arange(2 * 9 * 7).reshape(2, 9, 7)
    valid = whole % 5 > 0
    blocks = [
        (window, Block(whole[window], None if valid[window].all() else valid[window]))
        for window in windows(whole.shape, (2, 4, 3))
    ]
    window = (slice(0, 1), slice(3, 8), slice(2, 7))
    block = gathered(blocks, window, np.dtype("f8"))
    assert block.values.dtype == np.float64
    assert block.valid is not None
    np.testing.assert_array_equal(block.values, whole[window])
    np.testing.assert_array_equal(block.valid, valid[window])
    part = gathered(blocks, (slice(0, 1), slice(1, 2), slice(0, 3)))
    assert part.values.tolist() == [[[7, 8, 9]]]
    assert part.valid is None
    blocks[0][1].values[:] = -1
    assert part.values.min() == 7


def test_one_time_has_all_channels_and_not_the_space() -> None:
    series = Raster.from_array(np.zeros((4, 3, 2, 5, 6)), affine=np.eye(4), axes="tczyx")
    assert (series.times, series.one_time) == (4, (1, 3))
    scene = Raster.from_array(np.zeros((3, 5, 6)), affine=np.eye(3), axes="cyx")
    assert (scene.times, scene.one_time) == (1, (3,))

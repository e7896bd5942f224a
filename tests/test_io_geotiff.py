"""GeoTIFF in and out, read back with plain rasterio: position, values, layout."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from sciSR.errors import InputError, RunError
from sciSR.io import adapter_for, open_raster, save_raster
from sciSR.raster import Raster
from tests.scene_files import (
    NORTH_UP,
    ROTATED,
    SHEARED,
    physical,
    refined,
    repeat,
    scene,
    world,
    write,
    write_tagged,
)

FLIPPED = Affine(-10, 0, 500_000, 0, 10, 4_200_000)


@pytest.mark.parametrize("scale", [2, 4, (4, 2)])
@pytest.mark.parametrize(
    "transform", [NORTH_UP, Affine(28.49999999927454, 0, 288776.25000080315, 0, -28.5, 9120760.75)]
)
def test_bounds_stay_bit_for_bit(tmp_path: Path, transform: Affine, scale: Any) -> None:
    source = scene(tmp_path / "a.tif", transform=transform)
    target = save_raster(refined(open_raster(source), scale), tmp_path / "b.tif")
    with rasterio.open(source) as old, rasterio.open(target) as new:
        assert new.bounds == old.bounds
        factors = scale if isinstance(scale, tuple) else (scale, scale)
        assert new.shape == (old.height * factors[0], old.width * factors[1])


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 5])
@pytest.mark.parametrize(
    "transform", [NORTH_UP, ROTATED, SHEARED, FLIPPED], ids=["north", "rotated", "sheared", "flipped"]
)
def test_corners_stay(tmp_path: Path, transform: Affine, scale: int, point: bool) -> None:
    source = scene(tmp_path / "a.tif", transform=transform)
    if point:
        with rasterio.open(source, "r+") as dataset:
            dataset.update_tags(AREA_OR_POINT="Point")
    target = save_raster(refined(open_raster(source), scale), tmp_path / "b.tif")
    with rasterio.open(source) as old, rasterio.open(target) as new:
        assert new.tags()["AREA_OR_POINT"] == ("Point" if point else "Area")
        for row, column in [(0, 0), (0, old.width), (old.height, 0), (old.height, old.width)]:
            moved = world(new.transform, row * scale, column * scale) - world(old.transform, row, column)
            # a double near 4.2e6 m is 1e-9 m fine, which no arithmetic can beat
            assert np.abs(moved).max() <= max(1e-9 * new.res[0], 2e-9)


@pytest.mark.parametrize(
    "crs", ["EPSG:32618", "EPSG:4326", "EPSG:3857", "ESRI:54009", "+proj=lcc +lat_1=1 +lat_2=50 +R=1e6"]
)
def test_the_coordinate_reference_system_stays(tmp_path: Path, crs: str) -> None:
    degrees = Affine(1e-4, 0, -75.1, 0, -1e-4, 37.9)
    source = scene(tmp_path / "a.tif", crs=crs, transform=degrees if crs == "EPSG:4326" else NORTH_UP)
    raster = open_raster(source)
    assert raster.grid.unit == ("degree" if crs == "EPSG:4326" else "m")
    target = save_raster(refined(raster, 2), tmp_path / "b.tif")
    with rasterio.open(source) as old, rasterio.open(target) as new:
        assert new.crs == old.crs
        assert new.crs.to_wkt() == old.crs.to_wkt()
        assert new.bounds == old.bounds


def test_a_scene_without_a_reference_system_stays_without(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", crs=None)
    raster = open_raster(source)
    assert raster.grid.frame is None
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "b.tif")) as new:
        assert new.crs is None
        assert new.transform == Affine(5, 0, 499_980, 0, -5, 4_200_000)


def test_a_plain_image_gets_no_transform(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", crs=None, transform=None)
    target = save_raster(refined(open_raster(source), 2), tmp_path / "b.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(target) as new:
        assert new.transform == Affine.identity()


def test_a_crop_lies_where_it_was_cut(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif", alpha=True)
    part = open_raster(source).crop(y=slice(28, 40), x=slice(4, 24))
    target = save_raster(refined(part, 2), tmp_path / "b.tif")
    with rasterio.open(source) as old, rasterio.open(target) as new:
        assert new.bounds == rasterio.windows.bounds(rasterio.windows.Window(4, 28, 20, 12), old.transform)
        window = rasterio.windows.Window(4, 28, 20, 12)
        expected = old.read(window=window)
        expected[:4, expected[4] == 0] = 0  # under no opacity there is no value
        np.testing.assert_array_equal(new.read(), repeat(expected, (2, 2)))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
def test_every_type_keeps_its_values(tmp_path: Path, dtype: str, interleave: str) -> None:
    source = scene(tmp_path / "a.tif", dtype, interleave=interleave)
    raster = open_raster(source)
    assert raster.dtype == np.dtype(dtype)
    target = save_raster(refined(raster, 2), tmp_path / "b.tif")
    with rasterio.open(source) as old, rasterio.open(target) as new:
        assert new.dtypes == old.dtypes
        assert new.profile["interleave"] == interleave
        np.testing.assert_array_equal(new.read(), repeat(old.read(), (2, 2)))


def test_predictions_saturate_round_to_even_and_keep_clear_of_nodata(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", "uint16", (1, 1, 8), nodata=0)
    values = [[[-3.0, 0.4, 0.5, 1.5, 2.5, 10_500.2, 65_534.6, 9e9]]]
    with rasterio.open(save_raster(physical(open_raster(source), values), tmp_path / "b.tif")) as new:
        assert new.read().ravel().tolist() == [1, 1, 1, 2, 2, 10_500, 65_535, 65_535]
        assert new.read_masks(1).all()


def test_int16_does_not_wrap(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", "int16", (1, 1, 3))
    with rasterio.open(save_raster(physical(open_raster(source), [[[-4e4, 32767.4, 4e4]]]), tmp_path / "b.tif")) as new:
        assert new.read().ravel().tolist() == [-32768, 32767, 32767]


def test_values_are_physical_and_return_to_their_scale(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif")
    raster = open_raster(source)
    block = raster.read()
    with rasterio.open(source) as old:
        stored = old.read()
        expected = stored * np.array(old.scales)[:, None, None] + np.array(old.offsets)[:, None, None]
    assert block.valid is not None
    np.testing.assert_array_equal(block.valid, stored != 0)
    np.testing.assert_allclose(block.values[block.valid], expected[block.valid], rtol=1e-6)
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "b.tif")) as new:
        np.testing.assert_array_equal(new.read(), repeat(stored, (2, 2)))


def test_another_type_can_be_asked_for(tmp_path: Path) -> None:
    raster = open_raster(write_tagged(tmp_path / "a.tif"))
    with rasterio.open(save_raster(raster, tmp_path / "b.tif", dtype="float32")) as new:
        assert set(new.dtypes) == {"float32"}
        assert new.scales == (1e-4, 2e-4, 1e-4, 1e-4)


@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw"])
@pytest.mark.parametrize(("dtype", "predictor"), [("uint16", "2"), ("float32", "3")])
def test_compression_follows_the_input(tmp_path: Path, compress: str, dtype: str, predictor: str) -> None:
    source = scene(tmp_path / "a.tif", dtype, compress=compress, tiled=True, blockxsize=128, blockysize=256)
    with rasterio.open(save_raster(refined(open_raster(source), 8), tmp_path / "b.tif")) as new:
        structure = new.tags(ns="IMAGE_STRUCTURE")
        assert structure["COMPRESSION"].lower() == compress
        assert structure["PREDICTOR"] == predictor
        assert new.block_shapes[0] == (256, 128)


@pytest.mark.parametrize("profile", [{}, {"compress": "jpeg"}, {"compress": "packbits"}, {"blockysize": 1}])
def test_uncompressed_lossy_and_striped_inputs_give_tiled_deflate(tmp_path: Path, profile: dict[str, Any]) -> None:
    source = scene(tmp_path / "a.tif", "uint8", (3, 200, 300), photometric="rgb", **profile)
    with rasterio.open(save_raster(refined(open_raster(source), 4), tmp_path / "b.tif")) as new:
        assert new.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert new.block_shapes[0] == (512, 512)
        assert new.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def test_compression_can_be_chosen(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif"))
    with rasterio.open(save_raster(raster, tmp_path / "b.tif", compress="none")) as new:
        assert "COMPRESSION" not in new.tags(ns="IMAGE_STRUCTURE")
    with pytest.raises(InputError, match="compression 'jpeg' came; expected one of deflate, zstd, lzw, none"):
        save_raster(raster, tmp_path / "c.tif", compress="jpeg")


def test_overviews_come_back_where_the_input_had_them(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", "uint16", (2, 64, 96))
    plain = save_raster(refined(open_raster(source), 2), tmp_path / "plain.tif")
    with rasterio.open(source, "r+") as dataset:
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    target = save_raster(refined(open_raster(source), 2), tmp_path / "b.tif")
    with rasterio.open(plain) as none, rasterio.open(target) as new:
        assert none.overviews(1) == []
        assert new.overviews(1) == [2, 4, 8]
        full = new.read(1).astype(float)
        with rasterio.open(target, overview_level=0) as half:
            np.testing.assert_allclose(half.read(1), full.reshape(64, 2, 96, 2).mean(axis=(1, 3)), atol=0.5001)
    with rasterio.open(save_raster(refined(open_raster(source), 2), tmp_path / "c.tif", overviews=False)) as none:
        assert none.overviews(1) == []


def test_the_bytes_do_not_depend_on_the_run(tmp_path: Path) -> None:
    raster = refined(open_raster(write_tagged(tmp_path / "a.tif", alpha=True, mask=True)), 4)
    first, second = (save_raster(raster, tmp_path / n / "b.tif").read_bytes() for n in ("x", "y"))
    assert first == second
    assert os.fsencode(tmp_path) not in first


def test_blocks_may_come_in_any_order_and_size(tmp_path: Path) -> None:
    raster = refined(open_raster(write_tagged(tmp_path / "a.tif")), 12)
    expected = save_raster(raster, tmp_path / "b.tif")
    writer = adapter_for("c.tif").create(raster, tmp_path / "c.tif")
    assert writer.order == "any"
    windows = []
    for y in range(0, raster.shape[1], 100):
        for x in range(0, raster.shape[2], 130):
            for c in (slice(0, 1), slice(1, 4)):
                windows.append((c, slice(y, min(y + 100, raster.shape[1])), slice(x, min(x + 130, raster.shape[2]))))
    for i in np.random.default_rng(0).permutation(len(windows)):
        writer.write(windows[i], raster.read(windows[i]))
    writer.finish()
    with rasterio.open(expected) as one, rasterio.open(tmp_path / "c.tif") as two:
        np.testing.assert_array_equal(one.read(), two.read())
    # nothing was encoded twice: a rewritten tile would leave dead bytes behind
    assert (tmp_path / "c.tif").stat().st_size == expected.stat().st_size


def test_an_older_output_leaves_nothing_beside_a_new_one(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif"))
    for ending in (".aux.xml", ".ovr", ".msk"):
        (tmp_path / f"b.tif{ending}").write_bytes(b"old")
    save_raster(raster, tmp_path / "b.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("fill", [0, 7, -9999, np.nan])
def test_a_block_of_one_value_is_no_missing_block(tmp_path: Path, fill: float) -> None:
    values = np.full((2, 600, 550), fill, np.float32)
    values[0, 520:, :] = np.arange(550)
    for nodata in (None, fill):
        with write(tmp_path / "a.tif", values, transform=NORTH_UP, nodata=nodata):
            pass
        raster = open_raster(tmp_path / "a.tif")
        for compress in ("none", "deflate"):
            with rasterio.open(save_raster(raster, tmp_path / "b.tif", compress=compress, overwrite=True)) as new:
                np.testing.assert_array_equal(new.read(), values)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files there")
@pytest.mark.parametrize("options", [{}, {"compress": "none"}, {"overviews": True}, {"cog": True}], ids=str)
def test_what_the_disk_did_not_take_is_told(tmp_path: Path, options: dict[str, Any]) -> None:
    import resource

    values = np.random.default_rng(0).integers(0, 60_000, (2, 900, 600)).astype(np.uint16)
    values[:, :520] = 0  # blocks with nothing in them
    raster = Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="cyx")
    size = save_raster(raster, tmp_path / "whole.tif", **options).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (300, 5_000, size // 2, size - 4_000, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # writing beyond it fails, as on a full disk
        try:
            with pytest.raises(RunError, match=r"not whole|did not take|writing failed|not written"):
                save_raster(raster, tmp_path / "cut.tif", **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [path.name for path in tmp_path.iterdir()] == ["whole.tif"]
    assert save_raster(raster, tmp_path / "cut.tif", **options).read_bytes() == (tmp_path / "whole.tif").read_bytes()

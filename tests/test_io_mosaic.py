"""Several files as one raster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from sciSR.errors import GeometryError, InputError, MissingFileError
from sciSR.io import open_raster, save_raster
from sciSR.io.geotiff import open_mosaic
from sciSR.io.mosaic import combine
from tests.scene_files import NORTH_UP, UTM, refined, repeat, scene, values_of, write, write_tagged


def test_band_files_are_stacked_under_their_names(tmp_path: Path) -> None:
    paths, stored = [], []
    for seed, name in enumerate(("B04", "B03", "B02")):
        values = values_of((1, 30, 40), seed=seed)
        values[0, seed, :5] = 0
        stored.append(values[0])
        with write(tmp_path / f"{name}.tif", values, transform=NORTH_UP, crs=UTM, nodata=0) as dataset:
            dataset.update_tags(PLATFORM="S2A", BAND=name)
        paths.append(str(tmp_path / f"{name}.tif"))
    raster = open_mosaic(paths)
    assert [c.name for c in raster.channels] == ["B04", "B03", "B02"]
    block = raster.read()
    assert block.valid is not None
    np.testing.assert_array_equal(block.values, stored)
    np.testing.assert_array_equal(block.valid, np.array(stored) != 0)
    part = raster.read((slice(1, 3), slice(2, 9), slice(3, 7)))
    np.testing.assert_array_equal(part.values, np.array(stored)[1:3, 2:9, 3:7])
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "out.tif")) as new:
        np.testing.assert_array_equal(new.read(), repeat(np.array(stored), (2, 2)))
        assert new.descriptions == ("B04", "B03", "B02")
        assert new.tags()["PLATFORM"] == "S2A"
        assert "BAND" not in new.tags()
        assert new.nodata == 0


def test_stacked_files_keep_their_own_scale_and_type(tmp_path: Path) -> None:
    for name, dtype, scale in (("a", "uint8", 0.5), ("b", "int16", 2.0)):
        with write(tmp_path / f"{name}.tif", np.full((1, 4, 6), 10, dtype), transform=NORTH_UP, crs=UTM) as dataset:
            dataset.scales = (scale,)
    raster = open_mosaic([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    assert raster.encoding.dtype == "int16"
    assert raster.read().values[:, 0, 0].tolist() == [5.0, 20.0]
    with rasterio.open(save_raster(raster, tmp_path / "out.tif")) as new:
        assert new.scales == (0.5, 2.0)
        assert (new.read() == 10).all()


def test_tiles_are_joined_and_the_last_valid_value_counts(tmp_path: Path) -> None:
    whole = values_of((2, 40, 60))
    whole[:, 10:12, 20:30] = 0
    parts = {"nw": (0, 0, 25, 35), "ne": (0, 30, 25, 60), "s": (20, 0, 40, 60)}
    for name, (top, left, bottom, right) in parts.items():
        place = Affine(10, 0, NORTH_UP.c + 10 * left, 0, -10, NORTH_UP.f - 10 * top)
        values = whole[:, top:bottom, left:right].copy()
        if name == "s":
            values[:, :5] = 0  # what it lacks where it overlaps the others, they have
        with write(tmp_path / f"{name}.tif", values, transform=place, crs=UTM, nodata=0):
            pass
    raster = open_mosaic([str(tmp_path / f"{n}.tif") for n in ("ne", "s", "nw")])
    assert raster.shape == (2, 40, 60)
    assert raster.grid == open_raster(tmp_path / "nw.tif").grid.pad((0, 0), (15, 25))
    block = raster.read()
    assert block.valid is not None
    np.testing.assert_array_equal(block.valid, whole != 0)
    np.testing.assert_array_equal(block.values[block.valid], whole[whole != 0])
    with rasterio.open(save_raster(raster, tmp_path / "out.tif")) as new:
        np.testing.assert_array_equal(new.read(), whole)
        assert new.transform == NORTH_UP


def test_a_gap_between_tiles_is_not_valid(tmp_path: Path) -> None:
    for left in (0, 50):
        place = Affine(10, 0, 500_000 + 10 * left, 0, -10, 4_200_000)
        scene(tmp_path / f"{left}.tif", "uint8", (1, 8, 20), transform=place)
    raster = open_mosaic([str(tmp_path / "0.tif"), str(tmp_path / "50.tif")])
    valid = raster.read().valid
    assert valid is not None
    assert valid.any(axis=(0, 1)).tolist() == [True] * 20 + [False] * 30 + [True] * 20
    with rasterio.open(save_raster(raster, tmp_path / "out.tif")) as new:
        np.testing.assert_array_equal(new.dataset_mask() > 0, valid[0])


def test_tiles_with_alpha_join_their_alpha(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif", alpha=True)
    with rasterio.open(source) as dataset:
        values, profile = dataset.read(), dataset.profile
    whole = open_raster(source)
    halves = [whole.crop(x=slice(0, 32)), whole.crop(x=slice(32, 64))]
    joined = combine(halves)
    np.testing.assert_array_equal(joined.auxiliary["alpha"].read().values[0], values[4])
    assert joined.grid == whole.grid
    assert profile["count"] == 5


@pytest.mark.parametrize(
    ("transform", "crs", "message"),
    [
        (Affine(20, 0, 499_980, 0, -20, 4_200_000), UTM, "pixel size 20 x 20 differs from 10 x 10"),
        (Affine(10, 0, 499_983, 0, -10, 4_200_000), UTM, "its pixels lie between those"),
        (NORTH_UP, "EPSG:32619", "frame EPSG:32619 differs"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, transform: Affine, crs: str, message: str) -> None:
    scene(tmp_path / "a.tif")
    scene(tmp_path / "b.tif", transform=transform, crs=crs)
    with pytest.raises(GeometryError, match=rf"b\.tif: {message}"):
        open_mosaic([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])


def test_tiles_of_other_bands_or_types_are_refused(tmp_path: Path) -> None:
    beside = Affine(10, 0, 600_000, 0, -10, 4_200_000)
    scene(tmp_path / "a.tif")
    scene(tmp_path / "b.tif", shape=(3, 33, 47), transform=beside)
    scene(tmp_path / "c.tif", "int16", transform=beside)
    with pytest.raises(InputError, match="its bands are not those of"):
        open_mosaic([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    with pytest.raises(InputError, match="type, scale or offset differ"):
        open_mosaic([str(tmp_path / "a.tif"), str(tmp_path / "c.tif")])


def test_one_file_is_itself_and_none_is_refused(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    assert open_mosaic([str(source)]).name == "a.tif"
    with pytest.raises(InputError, match="no file came"):
        open_mosaic([])


def test_open_raster_takes_several_files(tmp_path: Path) -> None:
    first, second = scene(tmp_path / "B02.tif", shape=(1, 8, 9)), scene(tmp_path / "B03.tif", shape=(1, 8, 9))
    assert [c.name for c in open_raster([first, second]).channels] == ["B02", "B03"]
    with pytest.raises(MissingFileError, match=r"B04\.tif: no such file"):
        open_raster([first, tmp_path / "B04.tif"])

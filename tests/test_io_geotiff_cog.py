"""Cloud-optimized GeoTIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import shutil
from rasterio.enums import Resampling

from sciSR.io import open_raster, save_raster
from tests.scene_files import NORTH_UP, UTM, palette_file, refined, repeat, scene, values_of, write, write_tagged

rio_cogeo = pytest.importorskip("rio_cogeo")


def assert_cog(path: Path) -> None:
    valid, errors, warnings = rio_cogeo.cog_validate(str(path), strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])


@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_file_is_valid_and_holds_the_same_values(tmp_path: Path, dtype: str, compress: str) -> None:
    raster = refined(open_raster(scene(tmp_path / "a.tif", dtype, (3, 150, 200))), 4)
    target = save_raster(raster, tmp_path / "b.tif", cog=True, compress=compress)
    assert_cog(target)
    with rasterio.open(target) as new, rasterio.open(tmp_path / "a.tif") as old:
        np.testing.assert_array_equal(new.read(), repeat(old.read(), (4, 4)))
        assert new.bounds == old.bounds
        assert new.overviews(1) == [2]
        assert new.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "NONE").lower() == compress


def test_overviews_are_averages(tmp_path: Path) -> None:
    values = values_of((1, 600, 700), "float32")
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM):
        pass
    target = save_raster(open_raster(tmp_path / "a.tif"), tmp_path / "b.tif", cog=True)
    with rasterio.open(target, overview_level=0) as half:
        np.testing.assert_allclose(half.read(1), values[0].reshape(300, 2, 350, 2).mean(axis=(1, 3)), rtol=1e-5)


def test_overviews_of_classes_are_classes(tmp_path: Path) -> None:
    raster = refined(open_raster(palette_file(tmp_path / "a.tif"), labels=True), 250)
    target = save_raster(raster, tmp_path / "b.tif", cog=True)
    assert_cog(target)
    with rasterio.open(target, overview_level=0) as half:
        assert set(np.unique(half.read())) == {0, 1, 2}


@pytest.mark.parametrize(("alpha", "mask"), [(True, False), (False, True), (True, True)])
def test_masks_and_alpha_are_kept(tmp_path: Path, alpha: bool, mask: bool) -> None:
    raster = refined(open_raster(write_tagged(tmp_path / "a.tif", alpha=alpha, mask=mask)), 16)
    plain, target = save_raster(raster, tmp_path / "p.tif"), save_raster(raster, tmp_path / "b.tif", cog=True)
    assert_cog(target)
    with rasterio.open(plain) as one, rasterio.open(target) as two:
        np.testing.assert_array_equal(two.read(), one.read())
        np.testing.assert_array_equal(two.dataset_mask(), one.dataset_mask())
        assert two.mask_flag_enums == one.mask_flag_enums


def test_the_tags_that_gdal_would_leave_out_are_restored_in_place(tmp_path: Path) -> None:
    raster = refined(open_raster(write_tagged(tmp_path / "a.tif")), 12)
    target = save_raster(raster, tmp_path / "b.tif", cog=True)
    assert_cog(target)
    with rasterio.open(target) as new:
        assert new.tags(ns="MISSION")["ORBIT"] == "007"
        assert new.tags(2, ns="SENSOR") == {"DETECTOR": "02"}
        assert new.tags(2) == {"WAVELENGTH": "490.0"}
        assert not [key for key in new.tags() if "RESERVED" in key]
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.tif", "b.tif"]


def test_a_big_file_is_patched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # BigTIFF has another directory layout; the estimate that asks for it is forced here, the file stays small
    raster = open_raster(write_tagged(tmp_path / "a.tif"))
    with monkeypatch.context() as patch:
        patch.setattr("sciSR.io.geotiff_cog.copy", lambda *a, **k: shutil.copy(*a, **k | {"BIGTIFF": "YES"}))
        target = save_raster(raster, tmp_path / "b.tif", cog=True)
    assert target.read_bytes()[:4] == b"II+\0"
    with rasterio.open(target) as new:
        assert new.tags(ns="MISSION")["ORBIT"] == "007"
        assert new.tags(3) == {"WAVELENGTH": "490.0"}
    assert_cog(target)


def test_a_cog_opens_as_any_scene(tmp_path: Path) -> None:
    raster = open_raster(write_tagged(tmp_path / "a.tif"))
    again = open_raster(save_raster(raster, tmp_path / "b.tif", cog=True))
    assert again.grid == raster.grid
    assert again.encoding == raster.encoding
    np.testing.assert_array_equal(again.read().values, raster.read().values)


def test_the_input_of_a_cog_keeps_its_overviews_in_count(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", shape=(1, 700, 700))
    with rasterio.open(source, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    target = save_raster(open_raster(source), tmp_path / "b.tif", cog=True)
    assert_cog(target)
    with rasterio.open(target) as new:
        assert new.overviews(1) == [2]


def test_cogs_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    raster = refined(open_raster(write_tagged(tmp_path / "a.tif", mask=True)), 10)
    first, second = (save_raster(raster, tmp_path / n / "b.tif", cog=True).read_bytes() for n in "xy")
    assert first == second

"""Reading scenes: windows, threads, processes; and what is refused, in one line."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio import shutil
from rasterio.enums import ColorInterp

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, GeometryError, InputError, MetadataWarning, MissingFileError
from sciSR.grid import Grid
from sciSR.io import adapter_for, open_raster, save_raster
from sciSR.raster import ArraySource, Block, Raster
from tests.scene_files import (
    NORTH_UP,
    RPC,
    UTM,
    corner_gcps,
    palette_file,
    refined,
    repeat,
    scene,
    values_of,
    write,
    write_tagged,
)


def test_a_window_is_read_alone(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(3, 33, 47)))
    whole = raster.read().values
    window = (slice(1, 3), slice(5, 20), slice(40, 47))
    np.testing.assert_array_equal(raster.read(window).values, whole[window])


def test_the_stream_covers_the_scene_once(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", tiled=True, blockxsize=16, blockysize=16))
    seen = np.zeros(raster.shape, int)
    for window, block in raster.stream():
        seen[window] += 1
        assert block.values.shape == tuple(w.stop - w.start for w in window)
    assert (seen == 1).all()


def test_threads_read_at_once(tmp_path: Path) -> None:
    values = values_of((2, 256, 256))
    with write(tmp_path / "a.tif", values, tiled=True, blockxsize=32, blockysize=32, compress="deflate"):
        pass
    raster = open_raster(tmp_path / "a.tif")
    windows = [(slice(0, 2), slice(y, y + 40), slice(x, x + 40)) for y in range(0, 216, 9) for x in range(0, 216, 27)]
    with ThreadPoolExecutor(8) as pool:
        for window, block in zip(windows, pool.map(raster.read, windows), strict=True):
            np.testing.assert_array_equal(block.values, values[window])


def test_a_forked_process_opens_its_own_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(1, 8, 9)))
    source: Any = raster.source
    raster.read()
    first = source._local.dataset
    raster.read()
    assert source._local.dataset is first
    monkeypatch.setattr(os, "getpid", lambda: -1)
    raster.read()
    assert source._local.dataset is not first


def test_jpeg_2000_is_read_and_refined_to_a_geotiff(tmp_path: Path) -> None:
    # band files of Sentinel-2 products are JPEG 2000
    source = scene(tmp_path / "a.tif", "uint16", (1, 64, 80))
    shutil.copy(source, tmp_path / "T18SUG_B04.jp2", driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    raster = open_raster(tmp_path / "T18SUG_B04.jp2")
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "b.tif")) as new, rasterio.open(source) as old:
        np.testing.assert_array_equal(new.read(), repeat(old.read(), (2, 2)))
        assert (new.bounds, new.crs) == (old.bounds, old.crs)


def test_a_raster_may_travel_to_another_process(tmp_path: Path) -> None:
    raster = open_raster(write_tagged(tmp_path / "a.tif", alpha=True, mask=True))
    raster.read()
    copy = pickle.loads(pickle.dumps(raster.source))
    np.testing.assert_array_equal(copy.read((slice(0, 4), slice(0, 48), slice(0, 64))).values, raster.read().values)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("profile", [{"compress": "deflate"}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
def test_a_truncated_file_is_refused_at_once(tmp_path: Path, kept: float, profile: dict[str, Any]) -> None:
    source = scene(tmp_path / "a.tif", shape=(2, 300, 300), **profile)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FormatError, match=r"^a\.tif: (truncated|not a raster)") as caught:
        open_raster(source)
    assert "\n" not in str(caught.value)


def test_damage_inside_a_file_is_reported_with_its_place(tmp_path: Path) -> None:
    source = scene(
        tmp_path / "a.tif", shape=(1, 128, 128), compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    content = bytearray(source.read_bytes())
    with rasterio.open(source) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content[start : start + 200] = b"\xff" * 200
    source.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.tif: rows 0-128, columns 0-128 cannot be read: .*damaged") as caught:
        open_raster(source).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a tiff at all" * 9])
def test_what_is_no_tiff_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FormatError, match=r"^a\.tif: not a raster that GDAL can open: [^\n]+$") as caught:
        open_raster(tmp_path / "a.tif")
    assert str(caught.value).count("a.tif") == 1


def test_a_header_that_fails_only_when_asked_is_refused(tmp_path: Path) -> None:
    # GDAL opens it, and fails at its bands' colours: WebP is only for red, green and blue in one plane
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", values_of((3, 16, 16), "uint8"), planarconfig="separate", photometric="rgb")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(b"\x03\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # the tag Compression, 1
    content[at + 8 : at + 10] = (50001).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FormatError, match=r"^a\.tif: [^\n]*WEBP"):
        open_raster(tmp_path / "a.tif").read()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.tif: no such file"):
        open_raster(tmp_path / "nowhere.tif")


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    with write(tmp_path / "a.tif", np.ones((1, 4, 4), dtype)):
        pass
    with pytest.raises(FormatError, match=r"a\.tif: band 1 holds complex numbers"):
        open_raster(tmp_path / "a.tif")


def test_a_singular_transform_is_refused(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", transform=Affine(10, 5, 0, 20, 10, 0))
    with pytest.raises(GeometryError, match=r"a\.tif: .*singular"):
        open_raster(source)


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    with pytest.raises(InputError, match="option spacing means nothing for a GeoTIFF"):
        open_raster(source, spacing=1.0)
    with pytest.raises(InputError, match="option version means nothing"):
        save_raster(open_raster(source), tmp_path / "b.tif", version=2)


def test_other_formats_of_gdal_are_read_only(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif"))
    with pytest.raises(InputError, match=r"b\.vrt: \.vrt is read only; write b\.tif instead"):
        save_raster(raster, tmp_path / "b.vrt")


def test_what_a_tiff_cannot_hold_is_refused_before_work(tmp_path: Path) -> None:
    volume = Raster.from_array(np.zeros((2, 3, 4), np.float32), affine=np.eye(4), axes="zyx")
    with pytest.raises(InputError, match="a GeoTIFF holds scenes"):
        save_raster(volume, tmp_path / "b.tif")
    raster = open_raster(scene(tmp_path / "a.tif"))
    with pytest.raises(InputError, match="type float16 cannot be written"):
        save_raster(raster.replace(encoding=Encoding("float16")), tmp_path / "b.tif")
    unknown = raster.replace(grid=Grid(raster.grid.shape, raster.grid.affine, frame="nowhere at all"))
    with pytest.raises(GeometryError, match="'nowhere at all' is no coordinate reference system"):
        save_raster(unknown, tmp_path / "b.tif")
    assert not (tmp_path / "b.tif").exists()


def test_a_raster_made_in_memory_is_written(tmp_path: Path) -> None:
    values = values_of((3, 20, 30), "int16")
    made = Raster.from_array(
        values, affine=np.array(NORTH_UP), axes="cyx", crs=UTM, nodata=-1, unit="m", channels=("a", "b", "c")
    )
    with rasterio.open(save_raster(made, tmp_path / "b.tif")) as new:
        np.testing.assert_array_equal(new.read(), values)
        assert (new.crs.to_epsg(), new.transform, new.nodata) == (32618, NORTH_UP, -1)
        assert new.descriptions == ("a", "b", "c")
        assert new.units == ("m", "m", "m")


def test_a_scene_without_a_channel_axis_is_written(tmp_path: Path) -> None:
    values = values_of((20, 30), "float32")
    made = Raster.from_array(values, affine=np.array(NORTH_UP), axes="yx", crs=UTM)
    with rasterio.open(save_raster(made, tmp_path / "b.tif")) as new:
        np.testing.assert_array_equal(new.read(1), values)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    bands=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    scale=st.integers(1, 5),
    tiled=st.booleans(),
)
def test_any_scene_goes_round(
    tmp_path: Path, height: int, width: int, bands: int, dtype: str, scale: int, tiled: bool
) -> None:
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 32} if tiled else {}
    source = scene(tmp_path / "a.tif", dtype, (bands, height, width), **layout)
    target = save_raster(refined(open_raster(source), scale), tmp_path / "b.tif", overwrite=True)
    with rasterio.open(source) as old, rasterio.open(target) as new:
        np.testing.assert_array_equal(new.read(), repeat(old.read(), (scale, scale)))
        np.testing.assert_allclose(new.bounds, old.bounds, rtol=0, atol=1e-8)


def test_describe_tells_the_header(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif", alpha=True)
    facts = adapter_for(source).describe(str(source))
    assert facts["crs"] == "EPSG:32618"
    assert facts["transform"] == [10, 0, 499_980, 0, -10, 4_200_000]
    assert facts["compression"] == "lzw, predictor 2"
    assert facts["validity"] == "nodata 0, alpha band 5"
    assert [band["description"] for band in facts["bands"]] == ["B02", "B03", "B04", "B08", "opacity"]
    assert facts["bands"][1]["scale"] == 2e-4
    assert facts["bands"][1]["unit"] == "reflectance"
    assert facts["tags"]["PROCESSING"] == "05.10"
    assert facts["tags"]["MISSION:ORBIT"] == "007"


def test_describe_shows_what_opening_refuses(tmp_path: Path) -> None:
    source = palette_file(tmp_path / "a.tif")
    assert adapter_for(source).describe(str(source))["bands"][0]["color"] == "palette"


def test_a_lazy_block_that_fails_leaves_no_file(tmp_path: Path) -> None:
    class Broken(ArraySource):
        def read(self, window: Any) -> Block:
            raise FormatError("made to fail")

    raster = open_raster(scene(tmp_path / "a.tif"))
    with pytest.raises(FormatError, match="made to fail"):
        save_raster(raster.replace(source=Broken(np.zeros(raster.shape, np.uint16))), tmp_path / "b.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_more_images_in_one_file_are_told(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif", shape=(1, 8, 9))
    with rasterio.Env(), rasterio.open(source) as one:
        values, profile = one.read(), one.profile
    with rasterio.open(tmp_path / "a.tif", "w", **profile | {"append_subdataset": True}) as first:
        first.write(values)
    with rasterio.open(tmp_path / "a.tif", "w", **profile, append_subdataset=True) as second:
        second.write(values)
    with rasterio.open(tmp_path / "a.tif") as both:
        assert len(both.subdatasets) > 1
    with pytest.warns(MetadataWarning, match=r"a\.tif: holds \d images, the first is read"):
        assert open_raster(tmp_path / "a.tif").shape == (1, 8, 9)


def test_a_container_without_bands_is_refused(tmp_path: Path) -> None:
    arrays = {name: (("y", "x"), np.zeros((3, 4), np.float32)) for name in ("a", "b")}
    xarray.Dataset(arrays).to_netcdf(tmp_path / "a.nc", engine="scipy")
    (tmp_path / "a.nc").rename(tmp_path / "a.tif")
    with pytest.raises(FormatError, match=r"a\.tif: no band with values; it holds 2 subdatasets, name one of them"):
        open_raster(tmp_path / "a.tif")
    facts = adapter_for("a.tif").describe(str(tmp_path / "a.tif"))
    assert (facts["driver"], len(facts["subdatasets"])) == ("netCDF", 2)


def test_a_file_of_alpha_alone_is_refused(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((1, 4, 4), "uint8")) as dataset:
        dataset.colorinterp = [ColorInterp.alpha]
    with pytest.raises(FormatError, match=r"a\.tif: no band with values$"):
        open_raster(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_describe_tells_other_georeferences_and_masks(tmp_path: Path) -> None:
    mask = np.ones((24, 32), bool)
    mask[:4] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), write(tmp_path / "a.tif", values_of((1, 24, 32))) as dataset:
        dataset.gcps = (corner_gcps(32, 24), rasterio.CRS.from_string(UTM))
        dataset.write_mask(mask)
    facts = adapter_for("a.tif").describe(str(tmp_path / "a.tif"))
    assert (facts["crs"], facts["transform"]) == ("none", "none")
    assert facts["gcps"] == "5 points in EPSG:32618"
    assert facts["validity"] == "a mask"
    with write(tmp_path / "b.tif", values_of((1, 24, 32))) as dataset:
        dataset.update_tags(ns="RPC", **RPC)
    facts = adapter_for("b.tif").describe(str(tmp_path / "b.tif"))
    assert facts["rpcs"] == "rational polynomial coefficients"
    assert facts["validity"] == "every pixel"

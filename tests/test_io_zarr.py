"""Zarr stores, read back with plain xarray, rioxarray and GDAL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # registers the accessor
import xarray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, InputError, MetadataWarning, RunError
from sciSR.io import adapter_for, open_raster, save_raster
from sciSR.raster import ArraySource, Block, BlockSource, Raster, TimeAxis, Window
from tests.format_table import Row, check_table
from tests.scene_files import NORTH_UP, SHEARED, UTM, refined, repeat, scene, values_of, write, write_tagged

pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore:.*channels differ in scale:sciSR.errors.MetadataWarning")


def scaled(path: Path) -> Path:
    """A scene whose channels share scale, offset and nodata."""
    values = values_of((3, 60, 80))
    values[:, 4:7, 9:20] = 0
    with write(path, values, transform=NORTH_UP, crs=UTM, nodata=0) as dataset:
        dataset.scales, dataset.offsets, dataset.units = (1e-4,) * 3, (-0.1,) * 3, ("reflectance",) * 3
        dataset.descriptions = ("B02", "B03", "B04")
        dataset.update_tags(PROCESSING="05.10")
    return path


def test_a_scene_reads_with_xarray_rioxarray_and_gdal(tmp_path: Path) -> None:
    source = scaled(tmp_path / "a.tif")
    raster = refined(open_raster(source), 4)
    target = save_raster(raster, tmp_path / "b.zarr")
    with rasterio.open(source) as old:
        stored, bounds = repeat(old.read(), (4, 4)), old.bounds
    array = xarray.open_zarr(target)["data"]
    np.testing.assert_allclose(array.values, np.where(stored == 0, np.nan, stored * 1e-4 - 0.1), rtol=1e-6)
    assert array.dims == ("c", "y", "x")
    assert array.c.values.tolist() == ["B02", "B03", "B04"]
    assert array.attrs["units"] == "reflectance"
    assert array.rio.crs.to_epsg() == 32618
    assert array.rio.bounds() == tuple(bounds)
    with rasterio.open(f'ZARR:"{target}":/data') as dataset:
        assert dataset.crs.to_epsg() == 32618
        assert dataset.bounds == bounds
        assert (dataset.nodata, dataset.scales) == (0, (1e-4,) * 3)
        np.testing.assert_array_equal(dataset.read(), stored)


def test_a_scene_comes_back_with_what_its_geotiff_said(tmp_path: Path) -> None:
    source = scaled(tmp_path / "a.tif")
    first = open_raster(source)
    store = save_raster(first.replace(provenance={"SCISR_MODEL": "m"}), tmp_path / "b.zarr")
    again = open_raster(store)
    assert again.grid == first.grid
    assert again.encoding == first.encoding
    assert again.channels == first.channels
    with rasterio.open(save_raster(again, tmp_path / "c.tif")) as new, rasterio.open(source) as old:
        np.testing.assert_array_equal(new.read(), old.read())
        assert new.tags() == {**old.tags(), "SCISR_MODEL": "m"}
        assert (new.scales, new.offsets, new.units, new.nodata) == (old.scales, old.offsets, old.units, old.nodata)


@pytest.mark.parametrize(("alpha", "mask"), [(True, False), (False, True)])
def test_masks_and_alpha_come_back(tmp_path: Path, alpha: bool, mask: bool) -> None:
    raster = refined(open_raster(write_tagged(tmp_path / "a.tif", alpha=alpha, mask=mask)), 3)
    again = open_raster(save_raster(raster, tmp_path / "b.zarr"))
    expected = raster.read()
    block = again.read()
    assert expected.valid is not None
    assert block.valid is not None
    np.testing.assert_array_equal(block.valid, expected.valid)
    np.testing.assert_array_equal(block.values[block.valid], expected.values[expected.valid])
    if alpha:
        low = raster.auxiliary["alpha"].read().values[0]
        np.testing.assert_array_equal(again.auxiliary["alpha"].read().values[0], repeat(low, (3, 3)))


def test_a_mask_of_whole_numbers_without_nodata_is_stored(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(1, 6, 10)
    valid = np.ones(values.shape, bool)
    valid[0, 2, 3:8] = False
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM) as dataset:
        dataset.write_mask(valid[0])
    again = open_raster(save_raster(open_raster(tmp_path / "a.tif"), tmp_path / "b.zarr"))
    found = again.read().valid
    assert found is not None
    np.testing.assert_array_equal(found, valid)
    window = (slice(0, 1), slice(1, 4), slice(2, 5))
    part = again.read(window).valid
    assert part is not None
    np.testing.assert_array_equal(part, valid[window])


@pytest.mark.parametrize("source", ["file", "memory", "lost nodata"])
def test_holes_in_whole_numbers_are_kept_in_a_mask(tmp_path: Path, source: str) -> None:
    values = np.add.outer(np.arange(90.0), np.arange(80.0)).astype(np.float32)[None]
    holes = np.zeros(values.shape, bool)
    holes[0, 70:75, 3:9] = True
    marked = np.where(holes, -9999 if source == "lost nodata" else np.nan, values).astype(np.float32)
    nodata = -9999 if source == "lost nodata" else None
    if source == "memory":
        raster = Raster.from_array(marked, affine=np.array(NORTH_UP).reshape(3, 3), axes="cyx", crs=UTM)
    else:
        with write(tmp_path / "a.tif", marked, transform=NORTH_UP, crs=UTM, nodata=nodata):
            pass
        raster = open_raster(tmp_path / "a.tif")
    raster = raster.replace(source=_InRows(raster.source, 16))
    if source == "lost nodata":
        with pytest.warns(MetadataWarning, match="nodata -9999.0 cannot occur in uint8"):
            store = save_raster(raster, tmp_path / "b.zarr", dtype="uint8")
    else:
        store = save_raster(raster, tmp_path / "b.zarr", dtype="uint8")
    block = open_raster(store).read()
    assert block.values.dtype == np.uint8
    assert block.valid is not None
    np.testing.assert_array_equal(block.valid, ~holes)
    np.testing.assert_array_equal(block.values[~holes], values[~holes])
    np.testing.assert_array_equal(xarray.open_zarr(store)["mask"].values != 0, ~holes)


class _InRows(ArraySource):
    """A raster's blocks in runs of rows, of which most have no hole, each told as valid everywhere."""

    def __init__(self, source: BlockSource, rows: int) -> None:
        super().__init__(np.empty(source.shape, source.dtype), chunks=(1, rows, source.shape[2]))
        self._source = source

    def read(self, window: Window) -> Block:
        values, valid = self._source.read(window)
        return Block(values, None if valid is None or valid.all() else valid)


def test_a_mask_holds_beyond_the_chunks_that_have_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.io.zarr._SCENE_CHUNK", 16)
    valid = np.ones((50, 40), bool)
    valid[2, 3] = False
    with write(tmp_path / "a.tif", np.full((1, 50, 40), 7, np.uint8), transform=NORTH_UP, crs=UTM) as dataset:
        dataset.write_mask(valid)
    raster = open_raster(tmp_path / "a.tif")
    store = save_raster(raster.replace(source=_InRows(raster.source, 16)), tmp_path / "b.zarr")
    found = open_raster(store).read().valid
    assert found is not None
    np.testing.assert_array_equal(found[0], valid)


def test_alpha_alone_says_what_is_missing(tmp_path: Path) -> None:
    values = np.full((4, 30, 20), 9, np.uint8)
    values[3] = 255
    values[3, :10] = 0
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM, photometric="RGB", alpha="yes"):
        pass
    store = save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.zarr")
    again = open_raster(store)
    found = again.read().valid
    assert found is not None
    np.testing.assert_array_equal(found, np.broadcast_to(repeat(values[3:], (2, 2)) > 0, found.shape))
    assert "mask" not in xarray.open_zarr(store)
    with rasterio.open(save_raster(again, tmp_path / "c.tif")) as dataset:
        np.testing.assert_array_equal(dataset.read(4), repeat(values[3:], (2, 2))[0])


def test_a_missing_value_that_cannot_be_said_stops_the_writing(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", "uint8", (1, 8, 8)))
    holes = np.full((1, 8, 8), np.nan, np.float32)
    with pytest.raises(RunError, match="a value is missing, and type uint8 has no nodata"):
        save_raster(raster.replace(source=ArraySource(holes)), tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


def test_a_sheared_scene_keeps_its_place(tmp_path: Path) -> None:
    raster = refined(open_raster(scene(tmp_path / "a.tif", transform=SHEARED)), 2)
    again = open_raster(save_raster(raster, tmp_path / "b.zarr"))
    np.testing.assert_allclose(again.grid.affine, raster.grid.affine, rtol=0, atol=2e-9)


@pytest.mark.parametrize("axes", ["zyx", "tzyx"])
def test_volumes_and_series_come_back(tmp_path: Path, axes: str) -> None:
    shape = (3, 70, 65, 30)[-len(axes) :]
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[..., 3, 4] = np.nan
    affine = np.array([[0, 0, 2.0, 5], [0, -1.5, 0, 7], [0.8, 0, 0, -9], [0, 0, 0, 1]])
    volume = Raster.from_array(values, affine=affine, axes=axes, unit="HU", name="v.nii")
    if "t" in axes:
        volume = volume.replace(time=TimeAxis(1.5, 2.0, "s"))
    again = open_raster(save_raster(volume, tmp_path / "v.zarr"))
    np.testing.assert_array_equal(again.read().values, values)
    np.testing.assert_allclose(again.grid.affine, volume.grid.affine, atol=1e-12)
    assert again.grid.frame == volume.grid.frame
    assert again.unit == "HU"
    assert again.time == volume.time


def test_an_oblique_volume_keeps_its_place(tmp_path: Path) -> None:
    turn = np.array([[0.8, -0.6, 0.1, 3], [0.6, 0.8, 0, -4], [0, 0.1, 2.5, 5], [0, 0, 0, 1]])
    volume = Raster.from_array(np.zeros((4, 5, 6), np.int16), affine=turn, axes="zyx")
    again = open_raster(save_raster(volume, tmp_path / "v.zarr"))
    np.testing.assert_allclose(again.grid.affine, volume.grid.affine, atol=1e-12)


def test_channels_that_differ_in_scale_are_stored_as_they_are_physically(tmp_path: Path) -> None:
    raster = open_raster(write_tagged(tmp_path / "a.tif"))
    with pytest.warns(MetadataWarning, match="channels differ in scale or offset"):
        target = save_raster(raster, tmp_path / "b.zarr")
    again = open_raster(target)
    assert again.encoding.dtype == "float32"
    block, expected = again.read(), raster.read()
    assert expected.valid is not None
    np.testing.assert_array_equal(block.values[expected.valid], expected.values[expected.valid])


def test_blocks_may_come_in_any_order(tmp_path: Path) -> None:
    raster = refined(open_raster(scaled(tmp_path / "a.tif")), 12)
    writer = adapter_for("b.zarr").create(raster, tmp_path / "b.zarr")
    windows = [
        (slice(0, 3), slice(y, min(y + 170, 720)), slice(x, min(x + 230, 960)))
        for y in range(0, 720, 170)
        for x in range(0, 960, 230)
    ]
    for i in np.random.default_rng(1).permutation(len(windows)):
        writer.write(windows[i], raster.read(windows[i]))
    writer.finish()
    np.testing.assert_array_equal(open_raster(tmp_path / "b.zarr").read().values, raster.read().values)


def test_a_store_is_replaced_whole(tmp_path: Path) -> None:
    raster = open_raster(scaled(tmp_path / "a.tif"))
    save_raster(refined(raster, 4), tmp_path / "b.zarr")
    save_raster(raster, tmp_path / "b.zarr", overwrite=True)
    assert open_raster(tmp_path / "b.zarr").shape == (3, 60, 80)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.zarr"]


def test_another_type_can_be_asked_for(tmp_path: Path) -> None:
    raster = open_raster(scaled(tmp_path / "a.tif"))
    again = open_raster(save_raster(raster, tmp_path / "b.zarr", dtype="int32"))
    assert again.encoding.dtype == "int32"
    np.testing.assert_allclose(again.read().values, raster.read().values, rtol=1e-6)


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("error:.*consolidated:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_a_store_that_xarray_made_is_read(tmp_path: Path, version: Any, consolidated: bool) -> None:
    values = values_of((5, 6), "int16")
    array = xarray.DataArray(
        values, dims=("lat", "lon"), coords={"lat": 50 - 0.5 * np.arange(5), "lon": 5 + 0.25 * np.arange(6)}
    )
    array.to_dataset(name="height").to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated)
    raster = open_raster(tmp_path / "a.zarr")
    np.testing.assert_array_equal(raster.read().values[0], values)
    assert raster.grid.bounds == (4.875, 47.75, 6.375, 50.25)


def test_one_of_several_arrays_is_named(tmp_path: Path) -> None:
    array = xarray.DataArray(
        np.zeros((2, 3), np.float32), dims=("y", "x"), coords={"y": [1.5, 0.5], "x": [0.5, 1.5, 2.5]}
    )
    xarray.Dataset({"a": array, "b": array + 1}).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(FormatError, match="holds the arrays a, b; name one with variable="):
        open_raster(tmp_path / "a.zarr")
    assert (open_raster(tmp_path / "a.zarr", variable="b").read().values == 1).all()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FormatError, match=r"a\.zarr: not a Zarr store that xarray can open: [^\n]+$"):
        open_raster(tmp_path / "a.zarr")


def test_unknown_options_and_bad_types_are_refused(tmp_path: Path) -> None:
    raster = open_raster(scaled(tmp_path / "a.tif"))
    with pytest.raises(InputError, match="option cog means nothing for Zarr"):
        save_raster(raster, tmp_path / "b.zarr", cog=True)
    facts = adapter_for("b.zarr").describe(str(save_raster(raster, tmp_path / "b.zarr")))
    assert facts["arrays"][0] == {"name": "data", "dims": ["c", "y", "x"], "type": "uint16", "chunks": [3, 60, 80]}


def test_nodata_beyond_the_type_is_left_out(tmp_path: Path) -> None:
    made = Raster.from_array(values_of((1, 4, 4), "uint8"), affine=np.array(NORTH_UP), axes="cyx", crs=UTM)
    odd = made.replace(encoding=Encoding("uint8", nodata=(-9999.0,)))
    with pytest.warns(MetadataWarning, match="cannot occur in uint8"):
        target = save_raster(odd, tmp_path / "b.zarr")
    assert "_FillValue" not in xarray.open_zarr(target, mask_and_scale=False)["data"].attrs


ROWS = (
    Row(
        "position, reference system, scale, offset, nodata, unit, channel names",
        "kept, where xarray, rioxarray and GDAL look for them (CF, GeoZarr)",
        test_a_scene_reads_with_xarray_rioxarray_and_gdal,
    ),
    Row("rotation, shear", "kept in GeoTransform", test_a_sheared_scene_keeps_its_place),
    Row("mask", "kept as an array beside the values", test_a_mask_of_whole_numbers_without_nodata_is_stored),
    Row(
        "tags and the like of a GeoTIFF",
        "kept in one attribute, and back in their places when saved as GeoTIFF again",
        test_a_scene_comes_back_with_what_its_geotiff_said,
    ),
    Row(
        "channels that differ in scale or offset",
        "stored as physical values, with a warning: CF has one scale for all",
        test_channels_that_differ_in_scale_are_stored_as_they_are_physically,
    ),
    Row(
        "volumes, also oblique",
        "affine, unit and frame kept; the header of a NIfTI file is dropped with a warning",
        test_an_oblique_volume_keeps_its_place,
    ),
    Row("order of writing", "any; each chunk is encoded once", test_blocks_may_come_in_any_order),
)


def test_the_page_holds_the_table() -> None:
    check_table("Zarr", ROWS)

"""Where a scene has values: nodata, NaN, masks, alpha; and scenes whose values are classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from sciSR.errors import InputError, MetadataWarning
from sciSR.io import open_raster, save_raster
from tests.scene_files import (
    NORTH_UP,
    UTM,
    palette_file,
    physical,
    refined,
    repeat,
    scene,
    values_of,
    write,
    write_tagged,
)


def test_float_scenes_keep_nan_where_it_was(tmp_path: Path) -> None:
    values = values_of((2, 20, 30), "float32")
    values[0, 3:5, 4:9] = np.nan
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM):
        pass
    raster = open_raster(tmp_path / "a.tif")
    valid = raster.read().valid
    assert valid is not None
    np.testing.assert_array_equal(valid, ~np.isnan(values))
    with rasterio.open(save_raster(refined(raster, 3), tmp_path / "b.tif")) as new:
        np.testing.assert_array_equal(np.isnan(new.read()), repeat(np.isnan(values), (3, 3)))
        assert new.nodata is None


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        *(("uint8", 255), ("uint16", 0), ("int16", -9999), ("int32", -(2**31)), ("float32", -9999), ("float64", 1e20)),
        *(("float32", float("nan")), ("float32", -3.4028234663852886e38)),
    ],
)
def test_nodata_stays(tmp_path: Path, dtype: str, nodata: float) -> None:
    values = values_of((2, 16, 18), dtype)
    values[1, 2:5, 3:7] = nodata
    with write(tmp_path / "a.tif", values, nodata=nodata, transform=NORTH_UP, crs=UTM):
        pass
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif")) as new:
        np.testing.assert_equal(new.nodata, nodata)
        with rasterio.open(tmp_path / "a.tif") as old:
            np.testing.assert_array_equal(new.read_masks(), repeat(old.read_masks(), (2, 2)))
            np.testing.assert_array_equal(new.read(), repeat(old.read(), (2, 2)))


def test_the_dataset_mask_stays(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif", mask=True)
    raster = open_raster(source)
    assert raster.encoding.mask
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "b.tif")) as new, rasterio.open(source) as old:
        assert new.mask_flag_enums == ([MaskFlags.per_dataset],) * 4
        # what holds nodata in every band has no value either, and the mask says so
        expected = (old.dataset_mask() > 0) & (old.read() != 0).any(axis=0)
        np.testing.assert_array_equal(new.dataset_mask() > 0, repeat(expected, (2, 2)))
    assert not list(tmp_path.glob("*.msk"))


def test_a_mask_beside_the_file_is_read(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    mask = np.ones((33, 47), bool)
    mask[:9] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(source, "r+") as dataset:
        dataset.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists()
    valid = open_raster(source).read().valid
    assert valid is not None
    np.testing.assert_array_equal(valid[1], mask)
    with rasterio.open(save_raster(refined(open_raster(source), 2), tmp_path / "b.tif")) as new:
        np.testing.assert_array_equal(new.dataset_mask() > 0, repeat(mask, (2, 2)))


@pytest.mark.parametrize("low", [True, False], ids=["low-resolution alpha", "refined alpha"])
def test_alpha_is_its_own_raster_and_follows_by_nearest_neighbour(tmp_path: Path, low: bool) -> None:
    source = write_tagged(tmp_path / "a.tif", alpha=True)
    raster = open_raster(source)
    assert [c.name for c in raster.channels] == ["B02", "B03", "B04", "B08"]
    alpha = raster.auxiliary["alpha"]
    with rasterio.open(source) as old:
        opacity = old.read(5)
    np.testing.assert_array_equal(alpha.read().values[0], opacity)
    valid = raster.read().valid
    assert valid is not None
    assert not valid[:, opacity == 0].any()
    result = refined(raster, 3)
    if not low:
        result = result.replace(auxiliary={"alpha": refined(alpha, 3)})
    with rasterio.open(save_raster(result, tmp_path / "b.tif")) as new:
        assert new.colorinterp[4] == ColorInterp.alpha
        assert new.descriptions[4] == "opacity"
        np.testing.assert_array_equal(new.read(5), repeat(opacity, (3, 3)))


def test_partly_opaque_alpha_is_not_interpolated(tmp_path: Path) -> None:
    values = values_of((4, 12, 12), "uint8")
    values[3] = np.repeat(np.arange(12, dtype=np.uint8) * 20, 12).reshape(12, 12)
    with write(tmp_path / "a.tif", values, photometric="rgb", alpha="yes", transform=NORTH_UP, crs=UTM):
        pass
    result = refined(open_raster(tmp_path / "a.tif"), 2)
    with rasterio.open(save_raster(result, tmp_path / "b.tif")) as new:
        assert new.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        assert new.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        np.testing.assert_array_equal(new.read(4), repeat(values[3], (2, 2)))


def test_holes_in_an_integer_result_without_nodata_get_a_mask(tmp_path: Path) -> None:
    # the file has no way to say "no value": the writer adds one the moment it is needed, after some blocks are written
    raster = open_raster(scene(tmp_path / "a.tif", "uint8", (2, 90, 40)))
    values = np.full((2, 90, 40), 7, np.float32)
    values[1, 80:85, 5:9] = np.nan
    with rasterio.open(save_raster(physical(raster, values), tmp_path / "b.tif")) as new:
        np.testing.assert_array_equal(new.dataset_mask() == 0, np.isnan(values).any(axis=0))


def test_nodata_that_the_type_cannot_hold_is_dropped_aloud(tmp_path: Path) -> None:
    values = np.full((1, 4, 6), 241, np.int16)  # 241 is -9999 wrapped into a byte
    values[0, 0, 0] = -9999
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM, nodata=-9999):
        pass
    with pytest.warns(MetadataWarning, match="nodata -9999.* cannot occur in uint8"):
        target = save_raster(open_raster(tmp_path / "a.tif"), tmp_path / "b.tif", dtype="uint8")
    with rasterio.open(target) as new:
        assert new.nodata is None
        np.testing.assert_array_equal(new.dataset_mask() > 0, values[0] != -9999)
        assert set(new.read()[0][values[0] != -9999].tolist()) == {241}


def test_bands_with_nodata_of_their_own_share_one_in_a_tiff(tmp_path: Path) -> None:
    values = np.array([[[0, 1, 2, 9]], [[0, 1, 2, 9]]], np.uint8)
    with write(tmp_path / "a.tif", values):
        pass
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}"><NoDataValue>{n}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{b}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for b, n in ((1, 0), (2, 9))
    )
    text = f'<VRTDataset rasterXSize="4" rasterYSize="1"><GeoTransform>0,1,0,9,0,-1</GeoTransform>{bands}</VRTDataset>'
    (tmp_path / "a.vrt").write_text(text)
    raster = open_raster(tmp_path / "a.vrt")
    assert raster.encoding.nodata == (0, 9)
    with pytest.warns(MetadataWarning, match="one nodata value"):
        target = save_raster(raster, tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert new.nodata == 0
        # band 2: its own 0 is a value and moves off the mark, its 9 becomes the mark
        assert new.read(2).tolist() == [[1, 1, 2, 0]]
        assert (new.read_masks() > 0).tolist() == [[[False, True, True, True]], [[True, True, True, False]]]


def test_a_nodata_value_can_be_stated(tmp_path: Path) -> None:
    # Landsat scenes often have 0 around them without saying so
    values = values_of((2, 10, 10))
    values[:, :4] = 0
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM):
        pass
    raster = open_raster(tmp_path / "a.tif", nodata=0)
    valid = raster.read().valid
    assert valid is not None
    np.testing.assert_array_equal(valid, values != 0)
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "b.tif")) as new:
        assert new.nodata == 0


def test_palette_images_are_refused_or_refined_by_nearest_neighbour(tmp_path: Path) -> None:
    source = palette_file(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: a palette image.*--labels"):
        open_raster(source)
    raster = open_raster(source, labels=True)
    with rasterio.open(save_raster(refined(raster, 2), tmp_path / "b.tif")) as new, rasterio.open(source) as old:
        assert new.colorinterp == (ColorInterp.palette,)
        assert new.colormap(1) == old.colormap(1)
        np.testing.assert_array_equal(new.read(), repeat(old.read(), (2, 2)))


def test_a_one_bit_image_is_a_class_image(tmp_path: Path) -> None:
    values = (values_of((1, 8, 8), "uint8") > 100).astype(np.uint8)
    with write(tmp_path / "a.tif", values, nbits=1, transform=NORTH_UP, crs=UTM):
        pass
    with pytest.raises(InputError, match="--labels"):
        open_raster(tmp_path / "a.tif")
    target = save_raster(refined(open_raster(tmp_path / "a.tif", labels=True), 2), tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert new.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "1"
        np.testing.assert_array_equal(new.read(), repeat(values, (2, 2)))

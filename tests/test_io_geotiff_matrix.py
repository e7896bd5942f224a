"""Everything that a GeoTIFF means, through an upscaling by 2: one row of docs/formats.md each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags

import sciSR
from sciSR.encoding import Encoding
from sciSR.errors import FormatError, InputError, MetadataWarning, RadiometryWarning
from sciSR.io.geotiff import open_mosaic
from sciSR.labels import upscale_labels
from sciSR.raster import ArraySource, Block, Window
from tests.format_table import Row, check_table
from tests.scene_files import (
    NORTH_UP,
    ROTATED,
    RPC,
    SHEARED,
    UTM,
    corner_gcps,
    palette_file,
    repeat,
    scene,
    values_of,
    world,
    write,
    write_tagged,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


class StatedSource(ArraySource):
    """An array whose channels have nodata of their own."""

    def __init__(self, values: Any, encoding: Encoding) -> None:
        super().__init__(values)
        self._values, self._encoding = values, encoding

    def read(self, window: Window) -> Block:
        return Block(*self._encoding.select(window[0]).decode(self._values[window], channel_axis=0))


def twice(source: Path, out: Path, scale: Any = 2, **options: Any) -> Path:
    """Upscaled as a user would."""
    return sciSR.save_raster(sciSR.upscale(sciSR.open_raster(source), "cubic", scale=scale), out, **options)


@contextmanager
def pair(folder: Path, make: Callable[[Path], Any] = write_tagged, **options: Any) -> Iterator[tuple[Any, Any]]:
    """The open input, and its refinement."""
    make(folder / "in.tif")
    out = twice(folder / "in.tif", folder / "out.tif", **options)
    with rasterio.open(folder / "in.tif") as old, rasterio.open(out) as new:
        yield old, new


def plain(**profile: Any) -> Callable[[Path], Any]:
    return lambda path: scene(path, **profile)


def same(*names: str, **tagged: Any) -> Callable[[Path], None]:
    """That the file says the same of its bands."""

    def proof(folder: Path) -> None:
        with pair(folder, lambda path: write_tagged(path, **tagged)) as (old, new):
            for name in names:
                assert getattr(new, name) == getattr(old, name), name

    return proof


def frame_stays(folder: Path) -> None:
    for i, crs in enumerate((UTM, "EPSG:4326", "+proj=lcc +lat_1=1 +lat_2=50 +R=1e6", None)):
        with pair(folder / str(i), plain(crs=crs, transform=Affine(1e-3, 0, 5, 0, -1e-3, 50))) as (old, new):
            assert new.crs == old.crs
            assert not crs or new.crs.to_wkt() == old.crs.to_wkt()


def bounds_stay(folder: Path) -> None:
    for scale in (2, 4):
        with pair(folder / str(scale), plain(), scale=scale) as (old, new):
            assert new.bounds == old.bounds
            assert new.shape == (old.height * scale, old.width * scale)


def corners_stay(folder: Path) -> None:
    for i, transform in enumerate((ROTATED, SHEARED)):
        with pair(folder / str(i), plain(transform=transform), scale=3) as (old, new):
            for row, column in ((0, 0), (0, old.width), (old.height, 0), (old.height, old.width)):
                moved = world(new.transform, row * 3, column * 3) - world(old.transform, row, column)
                assert np.abs(moved).max() <= 1e-9 * new.res[0]


def point_stays(folder: Path) -> None:
    def make(path: Path) -> None:
        with rasterio.open(scene(path), "r+") as dataset:
            dataset.update_tags(AREA_OR_POINT="Point")

    with pair(folder, make) as (old, new):
        assert new.tags()["AREA_OR_POINT"] == "Point"
        np.testing.assert_allclose(new.bounds, old.bounds, rtol=0, atol=2e-9)


def gcps_follow(folder: Path) -> None:
    def make(path: Path) -> None:
        with write(path, values_of((1, 24, 32))) as dataset:
            dataset.gcps = (corner_gcps(32, 24), rasterio.CRS.from_string(UTM))

    with pair(folder, make) as (old, new):
        assert new.transform.is_identity
        assert new.crs is None
        assert new.gcps[1] == old.gcps[1]
        assert [(p.row, p.col, p.x, p.y, p.z) for p in new.gcps[0]] == [
            (2 * p.row, 2 * p.col, p.x, p.y, p.z) for p in old.gcps[0]
        ]


def rpcs_follow(folder: Path) -> None:
    def make(path: Path) -> None:
        with write(path, values_of((1, 24, 32))) as dataset:
            dataset.update_tags(ns="RPC", **RPC)

    with pair(folder, make) as (old, new):
        assert new.transform.is_identity
        assert new.rpcs.line_off == (old.rpcs.line_off + 0.5) * 2 - 0.5
        assert new.rpcs.samp_scale == old.rpcs.samp_scale * 2
        assert new.rpcs.line_num_coeff == old.rpcs.line_num_coeff


def geolocation_follows(folder: Path) -> None:
    def make(path: Path) -> None:
        with write(path, values_of((1, 24, 32))) as dataset:
            names = {"X_DATASET": "/a/lon.tif", "Y_DATASET": "/a/lat.tif"}
            dataset.update_tags(ns="GEOLOCATION", PIXEL_OFFSET="0", PIXEL_STEP="1", LINE_STEP="1", **names)

    with pair(folder, make) as (_, new):
        assert new.tags(ns="GEOLOCATION")["PIXEL_STEP"] == "2"


def types_stay(folder: Path) -> None:
    for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"):
        with pair(folder / dtype, plain(dtype=dtype)) as (old, new):
            assert new.dtypes == old.dtypes


def values_saturate(folder: Path) -> None:
    def make(path: Path) -> None:
        steps = np.where(np.arange(24) < 12, 0, 65235).astype(np.uint16) + values_of((1, 24, 24)) % 300
        with write(path, steps, transform=NORTH_UP, crs=UTM):
            pass

    with pair(folder, make) as (_, new):
        values = new.read(1)
        assert (values.min(), values.max()) == (0, 65535)
        # the cubic overshoots beside the edge by thousands: that is cut off, and nothing comes round
        assert values[:, :22].max() < 5000
        assert values[:, 26:].min() > 60_000


def bright_values_survive(folder: Path) -> None:
    with pair(folder, lambda path: write(path, np.full((1, 9, 9), 14_000, np.uint16)).close()) as (_, new):
        assert (new.read() == 14_000).all()


def nodata_stays(folder: Path) -> None:
    with pair(folder) as (old, new):
        assert new.nodata == old.nodata
        np.testing.assert_array_equal(new.read() == 0, repeat(old.read() == 0, (2, 2)))


def nan_stays(folder: Path) -> None:
    def make(path: Path) -> None:
        values = values_of((1, 20, 20), "float32")
        values[0, 3:6, 7:9] = np.nan
        with write(path, values, transform=NORTH_UP, crs=UTM):
            pass

    with pair(folder, make) as (old, new):
        np.testing.assert_array_equal(np.isnan(new.read()), repeat(np.isnan(old.read()), (2, 2)))


def infinity_is_no_value(folder: Path) -> None:
    for name, nodata in (("nan", None), ("mark", -9999.0)):

        def make(path: Path, nodata: float | None = nodata) -> None:
            values = values_of((1, 20, 20), "float32")
            values[0, 3, 7], values[0, 9, 9], values[0, 12, 4] = np.inf, -np.inf, np.nan
            with write(path, values, transform=NORTH_UP, crs=UTM, nodata=nodata):
                pass

        with pair(folder / name, make) as (old, new):
            holes = np.isnan(new.read()) if nodata is None else new.read() == nodata
            np.testing.assert_array_equal(holes, repeat(~np.isfinite(old.read()), (2, 2)))


def nodata_is_shared(folder: Path) -> None:
    values = np.array([[[0, 5, 6, 9]], [[0, 5, 6, 9]]], np.uint8)
    raster = sciSR.Raster.from_array(values, affine=np.eye(3), axes="cyx")
    raster = raster.replace(encoding=replace(raster.encoding, nodata=(None, 9.0)))
    raster = raster.replace(source=StatedSource(values, raster.encoding))
    with pytest.warns(MetadataWarning, match="one nodata value"):
        out = sciSR.save_raster(raster, folder / "a.tif")
    with rasterio.open(out) as new:
        assert new.read().tolist() == [[[0, 5, 6, 10]], [[0, 5, 6, 9]]]
        assert (new.read_masks() > 0).tolist() == [[[True] * 4], [[True, True, True, False]]]


def no_transform_is_made_up(folder: Path) -> None:
    for point in ("Area", "Point"):

        def make(path: Path, point: str = point) -> None:
            with write(path, values_of((1, 20, 20))) as dataset:
                dataset.update_tags(AREA_OR_POINT=point)

        with pair(folder / point, make) as (_, new):
            assert new.transform == Affine.identity()


def mask_stays(folder: Path) -> None:
    with pair(folder, lambda path: write_tagged(path, mask=True)) as (old, new):
        assert MaskFlags.per_dataset in new.mask_flag_enums[0]
        valid = (old.dataset_mask() > 0) & (old.read() != 0).any(axis=0)
        np.testing.assert_array_equal(new.dataset_mask() > 0, repeat(valid, (2, 2)))
    assert not list(folder.glob("*.msk"))


def alpha_follows(folder: Path) -> None:
    with pair(folder, lambda path: write_tagged(path, alpha=True)) as (old, new):
        assert new.colorinterp[4] == ColorInterp.alpha
        np.testing.assert_array_equal(new.read(5), repeat(old.read(5), (2, 2)))


def radiometry_is_found(folder: Path) -> None:
    values = values_of((1, 30, 30)) % 3000 + 1100
    with write(folder / "a.tif", values.astype(np.uint16)) as dataset:
        dataset.update_tags(BOA_ADD_OFFSET="-1000")
    raster = sciSR.open_raster(folder / "a.tif")
    np.testing.assert_array_equal(raster.read().values, values - 1000)
    assert raster.metadata is not None
    assert raster.metadata.items["radiometry"]["offset"] == [-1000]
    with rasterio.open(twice(folder / "a.tif", folder / "b.tif")) as new:
        assert abs(float(new.read().mean()) - values.mean()) < 5
    with write(folder / "c.tif", (values - 1100).astype(np.uint16)) as dataset:
        dataset.update_tags(BOA_ADD_OFFSET="-1000")
    with pytest.warns(RadiometryWarning):
        sciSR.open_raster(folder / "c.tif")


def tags_stay(folder: Path) -> None:
    with pair(folder) as (old, new):
        assert new.tags() | old.tags() == new.tags() | {"TIFFTAG_XRESOLUTION": "300", "TIFFTAG_YRESOLUTION": "150"}
        assert new.tags()["PROCESSING"] == "05.10"
        for domain in ("MISSION", "xml:XMP"):
            assert new.tags(ns=domain) == old.tags(ns=domain)


def band_tags_stay(folder: Path) -> None:
    with pair(folder) as (old, new):
        for band in old.indexes:
            assert new.tags(band) == {"WAVELENGTH": "490.0"}
            assert new.tags(band, ns="SENSOR") == old.tags(band, ns="SENSOR")


def resolution_follows(folder: Path) -> None:
    with pair(folder) as (_, new):
        assert (new.tags()["TIFFTAG_XRESOLUTION"], new.tags()["TIFFTAG_YRESOLUTION"]) == ("600", "300")


def statistics_are_dropped(folder: Path) -> None:
    with pair(folder) as (old, new):
        assert "STATISTICS_MAXIMUM" in old.tags(1)
        assert "STATISTICS_MAXIMUM" not in new.tags(1)
    assert not list(folder.glob("out.tif.*"))


def classes_are_refused(folder: Path) -> None:
    source = palette_file(folder / "a.tif")
    with pytest.raises(InputError, match="--labels"):
        sciSR.open_raster(source)
    raster = sciSR.open_raster(source, labels=True)
    out = sciSR.save_raster(upscale_labels(raster, (10, 8)), folder / "b.tif")
    with rasterio.open(source) as old, rasterio.open(out) as new:
        np.testing.assert_array_equal(new.read(), repeat(old.read(), (2, 2)))
        assert new.colormap(1) == old.colormap(1)


def complex_is_refused(folder: Path) -> None:
    with write(folder / "a.tif", np.ones((1, 4, 4), np.complex64)):
        pass
    with pytest.raises(FormatError, match="complex"):
        sciSR.open_raster(folder / "a.tif")


def layout_follows(folder: Path) -> None:
    with pair(folder) as (_, new):
        assert new.tags(ns="IMAGE_STRUCTURE") == {"COMPRESSION": "LZW", "INTERLEAVE": "BAND", "PREDICTOR": "2"}
    with pair(folder / "strips", plain(shape=(1, 300, 300), blockysize=1)) as (_, new):
        assert new.block_shapes == [(512, 512)]
        assert new.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"


def overviews_follow(folder: Path) -> None:
    def make(path: Path) -> None:
        with rasterio.open(scene(path, shape=(1, 64, 64)), "r+") as dataset:
            dataset.build_overviews([2, 4], rasterio.enums.Resampling.nearest)

    with pair(folder, make) as (_, new):
        assert new.overviews(1) == [2, 4, 8]


def cog_is_valid(folder: Path) -> None:
    rio_cogeo = pytest.importorskip("rio_cogeo")
    with pair(folder, lambda path: write_tagged(path, alpha=True, size=(300, 400)), cog=True) as (_, new):
        assert rio_cogeo.cog_validate(new.name, strict=True, quiet=True) == (True, [], [])
        assert new.overviews(1) == [2]
        assert new.tags(ns="MISSION") == {"ORBIT": "007", "NOTE": "a = b < c"}
        assert new.tags(1) == {"WAVELENGTH": "490.0"}


def files_combine(folder: Path) -> None:
    for name, left in (("a", 0), ("b", 47)):
        place = Affine(10, 0, 499_980 + 10 * left, 0, -10, 4_200_000)
        scene(folder / f"{name}.tif", transform=place)
    joined = open_mosaic([str(folder / "a.tif"), str(folder / "b.tif")])
    with rasterio.open(sciSR.save_raster(sciSR.upscale(joined, "cubic", scale=2), folder / "c.tif")) as new:
        assert new.bounds == (499_980, 4_200_000 - 330, 499_980 + 940, 4_200_000)


def provenance_is_told(folder: Path) -> None:
    with pair(folder) as (_, new):
        assert new.tags()["SCISR_MODEL"] == "cubic"
        assert new.tags()["SCISR_SCALE"] == "y=2, x=2"
        assert new.tags()["SCISR_VERSION"] == sciSR.__version__


def no_time_no_path(folder: Path) -> None:
    for name in ("one", "two"):
        with pair(folder / name):
            pass
    one, two = ((folder / n / "out.tif").read_bytes() for n in ("one", "two"))
    assert one == two


ROWS = (
    Row("coordinate reference system: EPSG code, WKT, none", "kept", frame_stays),
    Row("position, north up", "bounds equal bit for bit at factors 2 and 4", bounds_stay),
    Row("position, rotated or sheared", "corners stay within 1e-9 pixel", corners_stay),
    Row("no position", "none is made up", no_transform_is_made_up),
    Row("AREA_OR_POINT", "kept, with the bounds", point_stays),
    Row("ground control points", "row and column times the factor; also alone: no transform is made up", gcps_follow),
    Row("RPCs", "offset and scale restated from pixel centres; also alone", rpcs_follow),
    Row(
        "GEOLOCATION arrays",
        "offset and step restated; dropped with a warning if named relatively",
        geolocation_follows,
    ),
    Row("type of the values", "kept: 8 to 64-bit integers, float32, float64", types_stay),
    Row("limits of the type", "values saturate, none wraps", values_saturate),
    Row("reflectance above 10000", "kept", bright_values_survive),
    Row("nodata", "kept, in exactly the children of such pixels; no valid value equals it", nodata_stays),
    Row(
        "nodata that differs between bands",
        "one for all, as a GeoTIFF holds one; a warning; each band's holes stay its own",
        nodata_is_shared,
    ),
    Row("NaN", "filled for the network, NaN again in exactly the children", nan_stays),
    Row("infinity; NaN beside a nodata value", "no values: NaN, or nodata where there is one", infinity_is_no_value),
    Row(
        "mask of the dataset, inside or beside the file",
        "kept inside; pixels without any value are masked too",
        mask_stays,
    ),
    Row("alpha band", "nearest neighbour, at its place among the bands", alpha_follows),
    Row(
        "scale and offset per band",
        "kept; values are worked on physically and return to them",
        same("scales", "offsets"),
    ),
    Row(
        "Sentinel-2 BOA_ADD_OFFSET, RADIO_ADD_OFFSET",
        "applied while working, recorded; a warning where the values contradict it",
        radiometry_is_found,
    ),
    Row("unit, description per band", "kept", same("units", "descriptions")),
    Row("colour interpretation", "kept", same("colorinterp", alpha=True)),
    Row("tags of the dataset, in every domain", "kept, word for word", tags_stay),
    Row("tags of the bands, in every domain", "kept, word for word", band_tags_stay),
    Row("TIFFTAG_XRESOLUTION, TIFFTAG_YRESOLUTION", "times the factor", resolution_follows),
    Row("STATISTICS_*, histograms, .aux.xml, old overviews", "dropped: they no longer hold", statistics_are_dropped),
    Row("colour table, single bits", "refused, or refined by nearest neighbour with `--labels`", classes_are_refused),
    Row("complex numbers", "refused", complex_is_refused),
    Row(
        "interleave, tiling, compression, predictor",
        "as the input where lossless and tiled; else tiles of 512 and deflate; BigTIFF where it may be needed",
        layout_follows,
    ),
    Row("overviews", "made anew by averaging, down to the input's coarsest", overviews_follow),
    Row("cloud-optimized layout (`cog`)", "valid, with all of the above", cog_is_valid),
    Row("several files", "bands stacked, tiles joined (`open_mosaic`)", files_combine),
    Row("provenance", "network and factors in SCISR_ tags", provenance_is_told),
    Row("time and place of the run", "nowhere: the same work gives the same bytes", no_time_no_path),
)


@pytest.mark.parametrize("row", ROWS, ids=[row.kind for row in ROWS])
def test_row(row: Row, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetadataWarning)
        row.proof(tmp_path)


def test_the_page_holds_the_table() -> None:
    check_table("GeoTIFF and COG", ROWS)


@pytest.mark.parametrize("name", ["landsat7_28.5m_6bands", "landsat8_30m_b2b3b4", "sentinel2_10m_b02b03b04b08"])
def test_real_scenes_keep_everything(tmp_path: Path, full_data: Path, name: str) -> None:
    source = full_data / "sat" / f"{name}.tif"
    result = sciSR.upscale(sciSR.open_raster(source).crop(y=slice(0, 200), x=slice(0, 260)), "cubic", scale=2)
    with rasterio.open(sciSR.save_raster(result, tmp_path / "b.tif")) as new, rasterio.open(source) as old:
        assert new.bounds == rasterio.windows.bounds(rasterio.windows.Window(0, 0, 260, 200), old.transform)
        assert new.crs == old.crs
        assert new.dtypes == old.dtypes
        assert new.colorinterp == old.colorinterp
        assert {k: v for k, v in new.tags().items() if not k.startswith("SCISR")} == old.tags()
        assert bool(new.overviews(1)) == bool(old.overviews(1))
        low = old.read(window=rasterio.windows.Window(0, 0, 260, 200)).astype(float)
        high = new.read().astype(float).reshape(old.count, 200, 2, 260, 2).mean(axis=(2, 4))
        assert np.abs(high - low).mean() < 0.02 * (low.max() - low.min())


def test_the_shipped_crop_keeps_everything(tmp_path: Path, crops: Path) -> None:
    out = twice(crops / "sentinel2_crop.tif", tmp_path / "b.tif")
    with rasterio.open(crops / "sentinel2_crop.tif") as old, rasterio.open(out) as new:
        assert new.bounds == old.bounds
        assert new.descriptions == old.descriptions
        assert new.tags() | old.tags() == new.tags()

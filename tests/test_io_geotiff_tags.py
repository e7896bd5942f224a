"""What a scene says beside its values, read back with plain rasterio: tags, bands, GCPs, RPCs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio import rpc
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from sciSR.errors import MetadataWarning
from sciSR.grid import Grid
from sciSR.io import open_raster, save_raster
from sciSR.io.geotiff_tags import Facts, PixelMap, is_stale, pixel_map, restate
from tests.scene_files import (
    NORTH_UP,
    RPC,
    SHEARED,
    UTM,
    XMP,
    corner_gcps,
    refined,
    scene,
    values_of,
    write,
    write_tagged,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(params=[False, True], ids=["plain", "cog"])
def cog(request: pytest.FixtureRequest) -> bool:
    """Whether to write a cloud-optimized file."""
    return bool(request.param)


def test_tags_stay_verbatim_in_every_domain(tmp_path: Path, cog: bool) -> None:
    raster = open_raster(write_tagged(tmp_path / "a.tif"))
    target = save_raster(refined(raster, 2).replace(provenance={"SCISR_MODEL": "m"}), tmp_path / "b.tif", cog=cog)
    with rasterio.open(target) as new:
        tags = new.tags()
        assert tags["PROCESSING"] == "05.10"
        assert tags["ACQUIRED"] == "2023-01-05T10:11:12Z"
        assert tags["TIFFTAG_SOFTWARE"] == "maker 1.0"
        assert tags["SCISR_MODEL"] == "m"
        assert new.tags(ns="MISSION") == {"ORBIT": "007", "NOTE": "a = b < c"}
        assert new.tags(ns="xml:XMP")["xml:XMP"] == f"xml:XMP={XMP}" or new.tags(ns="xml:XMP")["xml:XMP"] == XMP
        for band in range(1, 5):
            assert new.tags(band) == {"WAVELENGTH": "490.0"}
            assert new.tags(band, ns="SENSOR") == {"DETECTOR": f"0{band}"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("text", ["a\r\nb", "trail  ", "a<b>&'\"c", "µ 中 \t", "100%s {x} \\n", "x" * 3000])
def test_no_character_of_a_tag_is_lost(tmp_path: Path, cog: bool, text: str) -> None:
    with write(tmp_path / "a.tif", values_of((2, 9, 12)), transform=NORTH_UP, crs=UTM) as dataset:
        dataset.update_tags(**{"a key": text})
        dataset.update_tags(2, ns="other domain", key=text)
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif", cog=cog)) as new:
        assert new.tags()["a key"] == text
        assert new.tags(2, ns="other domain") == {"key": text}


def test_the_alpha_band_keeps_its_scale_and_unit(tmp_path: Path, cog: bool) -> None:
    values = values_of((2, 9, 12))
    with write(tmp_path / "a.tif", values, transform=NORTH_UP, crs=UTM, photometric="minisblack") as dataset:
        dataset.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        dataset.scales, dataset.offsets, dataset.units = (0.1, 0.25), (5.0, 1.0), ("m", "share")
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif", cog=cog)) as new:
        assert (new.scales, new.offsets, new.units) == ((0.1, 0.25), (5.0, 1.0), ("m", "share"))


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_no_transform_is_made_up(tmp_path: Path, point: str, cog: bool) -> None:
    with write(tmp_path / "a.tif", values_of((1, 9, 12))) as dataset:
        dataset.update_tags(AREA_OR_POINT=point)
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif", cog=cog)) as new:
        assert new.transform == Affine.identity()


def test_a_transform_that_happens_to_be_the_identity_is_refined(tmp_path: Path, cog: bool) -> None:
    with write(tmp_path / "a.tif", values_of((1, 9, 12)), transform=Affine.identity()):
        pass
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif", cog=cog)) as new:
        assert new.transform == Affine.scale(0.5)


def test_bands_keep_what_they_say(tmp_path: Path, cog: bool) -> None:
    source = write_tagged(tmp_path / "a.tif", alpha=True)
    target = save_raster(refined(open_raster(source), 2), tmp_path / "b.tif", cog=cog)
    with rasterio.open(source) as old, rasterio.open(target) as new:
        for name in ("descriptions", "units", "scales", "offsets", "colorinterp", "nodatavals", "dtypes"):
            assert getattr(new, name) == getattr(old, name), name


def test_the_document_of_an_xml_domain_comes_out_as_it_went_in(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif")
    with rasterio.open(source) as old:
        text = old.tags(ns="xml:XMP")
    assert XMP in text["xml:XMP"]
    once = save_raster(open_raster(source), tmp_path / "b.tif")
    twice = save_raster(open_raster(once), tmp_path / "c.tif")
    with rasterio.open(once) as one, rasterio.open(twice) as two:
        assert one.tags(ns="xml:XMP") == two.tags(ns="xml:XMP") == text


def test_an_xml_document_without_an_equals_sign_is_kept(tmp_path: Path) -> None:
    text = "<root><leaf>value</leaf></root>"
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="3"><GeoTransform>0,1,0,9,0,-1</GeoTransform>'
        f'<Metadata domain="xml:NOTES" format="xml">{text}</Metadata>'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    target = save_raster(open_raster(tmp_path / "a.vrt"), tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert "<leaf>value</leaf>" in new.tags(ns="xml:NOTES")["xml:NOTES"]


@pytest.mark.parametrize("key", ["STATISTICS_MEAN", "statistics_maximum", "HISTOGRAM_MIN", "TIFFTAG_MAXSAMPLEVALUE"])
def test_numbers_about_old_values_are_stale(key: str) -> None:
    assert is_stale(key)


@pytest.mark.parametrize("key", ["WAVELENGTH", "TIFFTAG_SOFTWARE", "CLOUD_STATISTICS_MEAN", "AREA_OR_POINT"])
def test_other_tags_are_not(key: str) -> None:
    assert not is_stale(key)


def test_statistics_beside_the_file_do_not_follow(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif")
    with rasterio.open(source) as dataset:
        dataset.statistics(1, approx=False)  # GDAL keeps them in a.tif.aux.xml
    assert (tmp_path / "a.tif.aux.xml").exists()
    with rasterio.open(save_raster(refined(open_raster(source), 2), tmp_path / "b.tif")) as new:
        assert not [key for key in new.tags(1) if key.startswith("STATISTICS")]
    assert not (tmp_path / "b.tif.aux.xml").exists()


def test_print_resolution_grows_with_the_pixel_count(tmp_path: Path) -> None:
    raster = open_raster(write_tagged(tmp_path / "a.tif"))
    with rasterio.open(save_raster(refined(raster, (4, 2)), tmp_path / "b.tif")) as new:
        assert float(new.tags()["TIFFTAG_XRESOLUTION"]) == 600
        assert float(new.tags()["TIFFTAG_YRESOLUTION"]) == 600
        assert new.tags()["TIFFTAG_RESOLUTIONUNIT"].startswith("2")


@pytest.mark.parametrize("point", ["Area", "Point"])
@pytest.mark.parametrize("crs", [UTM, None])
def test_gcps_move_with_the_pixels(tmp_path: Path, point: str, crs: str | None, cog: bool) -> None:
    with write(tmp_path / "a.tif", values_of((1, 48, 64))) as dataset:
        dataset.gcps = (corner_gcps(64, 48), rasterio.CRS.from_string(crs) if crs else rasterio.CRS())
        dataset.update_tags(AREA_OR_POINT=point)
    raster = open_raster(tmp_path / "a.tif")
    assert raster.grid.frame is None
    target = save_raster(refined(raster, (3, 2)), tmp_path / "b.tif", cog=cog)
    with rasterio.open(tmp_path / "a.tif") as old, rasterio.open(target) as new:
        assert new.transform.is_identity
        assert new.crs is None
        assert new.gcps[1] == old.gcps[1]
        assert new.tags().get("AREA_OR_POINT") == old.tags().get("AREA_OR_POINT")
        assert len(new.gcps[0]) == 5
        for was, now in zip(old.gcps[0], new.gcps[0], strict=True):
            assert (now.row, now.col) == pytest.approx((was.row * 3, was.col * 2), abs=1e-9)
            assert (now.x, now.y, now.z) == (was.x, was.y, was.z)


def test_gcps_of_a_crop_are_counted_from_its_corner(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((1, 48, 64))) as dataset:
        dataset.gcps = (corner_gcps(64, 48), rasterio.CRS.from_string(UTM))
    part = open_raster(tmp_path / "a.tif").crop(y=slice(8, 40), x=slice(16, 48))
    with rasterio.open(save_raster(refined(part, 2), tmp_path / "b.tif")) as new:
        first = new.gcps[0][0]
        assert (first.row, first.col) == (-16, -32)


def test_a_scene_that_was_placed_since_gets_its_transform(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((1, 48, 64))) as dataset:
        dataset.gcps = (corner_gcps(64, 48), rasterio.CRS.from_string(UTM))
    raster = open_raster(tmp_path / "a.tif")
    placed = raster.replace(grid=Grid((48, 64), np.array(NORTH_UP).reshape(3, 3), frame=UTM, unit="m"))
    with pytest.warns(MetadataWarning, match="GCPs dropped"):
        target = save_raster(placed, tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert new.transform == NORTH_UP
        assert new.crs.to_string() == UTM
        assert new.gcps[0] == []


def test_gcps_beside_a_transform_are_dropped_aloud(tmp_path: Path) -> None:
    text = (
        f'<VRTDataset rasterXSize="4" rasterYSize="3"><SRS>{UTM}</SRS><GeoTransform>0,1,0,9,0,-1</GeoTransform>'
        f'<GCPList Projection="{UTM}"><GCP Id="1" Pixel="0" Line="0" X="0" Y="9" Z="0"/></GCPList>'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    (tmp_path / "a.vrt").write_text(text)
    with pytest.warns(MetadataWarning, match="transform or GCPs, not both; the GCPs are dropped"):
        target = save_raster(open_raster(tmp_path / "a.vrt"), tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert new.gcps[0] == []


def ground_to_pixel(model: rpc.RPC, longitude: float, latitude: float, height: float) -> tuple[float, float]:
    """Row and column, from pixel centres, of a place: the rational polynomials written out (NGA STDI-0002, RPC00B)."""
    p = (latitude - model.lat_off) / model.lat_scale
    l = (longitude - model.long_off) / model.long_scale  # noqa: E741  # the standard's letter
    h = (height - model.height_off) / model.height_scale
    terms = [
        1,
        l,
        p,
        h,
        l * p,
        l * h,
        p * h,
        l * l,
        p * p,
        h * h,
        p * l * h,
        l**3,
        l * p * p,
        l * h * h,
        l * l * p,
        p**3,
    ]
    terms += [p * h * h, l * l * h, p * p * h, h**3]
    row = np.dot(model.line_num_coeff, terms) / np.dot(model.line_den_coeff, terms)
    column = np.dot(model.samp_num_coeff, terms) / np.dot(model.samp_den_coeff, terms)
    return float(row * model.line_scale + model.line_off), float(column * model.samp_scale + model.samp_off)


def test_rpcs_point_at_the_same_place(tmp_path: Path, cog: bool) -> None:
    with write(tmp_path / "a.tif", values_of((2, 48, 64))) as dataset:
        dataset.update_tags(ns="RPC", **RPC)
    target = save_raster(refined(open_raster(tmp_path / "a.tif"), (3, 2)), tmp_path / "b.tif", cog=cog)
    with rasterio.open(tmp_path / "a.tif") as old, rasterio.open(target) as new:
        assert new.transform.is_identity
        assert new.crs is None
        assert new.rpcs is not None
        for place in [(5.5, 45.25, 100.0), (5.56, 45.2, 300.0), (5.41, 45.34, -20.0)]:
            was, now = ground_to_pixel(old.rpcs, *place), ground_to_pixel(new.rpcs, *place)
            # from centres to corners and back: the same place of the image, three and two times as fine
            assert now[0] == pytest.approx((was[0] + 0.5) * 3 - 0.5, abs=1e-9)
            assert now[1] == pytest.approx((was[1] + 0.5) * 2 - 0.5, abs=1e-9)
        for name in ("line_num_coeff", "samp_den_coeff", "lat_off", "height_scale", "err_bias", "err_rand"):
            assert getattr(new.rpcs, name) == getattr(old.rpcs, name), name


def test_rpcs_stay_beside_a_transform(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((1, 48, 64)), transform=NORTH_UP, crs=UTM) as dataset:
        dataset.update_tags(ns="RPC", **RPC)
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif")) as new:
        assert new.rpcs.line_off == 47.5
        assert new.bounds == (499_980, 4_200_000 - 480, 499_980 + 640, 4_200_000)


GEOLOCATION = {
    **{"X_DATASET": "/data/lon.tif", "X_BAND": "1", "Y_DATASET": "/data/lat.tif", "Y_BAND": "1"},
    **{"PIXEL_OFFSET": "1", "PIXEL_STEP": "2", "LINE_OFFSET": "0", "LINE_STEP": "4"},
}


@pytest.mark.parametrize(
    ("convention", "offsets"), [({}, ("3", "0")), ({"GEOREFERENCING_CONVENTION": "PIXEL_CENTER"}, ("4", "0.5"))]
)
def test_geolocation_arrays_keep_their_pixels(
    tmp_path: Path, convention: dict[str, str], offsets: tuple[str, str]
) -> None:
    with write(tmp_path / "a.tif", values_of((1, 12, 12))) as dataset:
        dataset.update_tags(ns="GEOLOCATION", **GEOLOCATION, **convention)
    with rasterio.open(save_raster(refined(open_raster(tmp_path / "a.tif"), (2, 3)), tmp_path / "b.tif")) as new:
        tags = new.tags(ns="GEOLOCATION")
        assert (tags["PIXEL_OFFSET"], tags["LINE_OFFSET"]) == offsets
        assert (tags["PIXEL_STEP"], tags["LINE_STEP"]) == ("6", "8")
        assert tags["X_DATASET"] == "/data/lon.tif"


def test_geolocation_arrays_named_by_a_relative_path_are_dropped_aloud(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((1, 12, 12))) as dataset:
        dataset.update_tags(ns="GEOLOCATION", **GEOLOCATION | {"X_DATASET": "lon.tif"})
    raster = refined(open_raster(tmp_path / "a.tif"), 2)
    with pytest.warns(MetadataWarning, match="GEOLOCATION dropped.*relative to the input"):
        target = save_raster(raster, tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert new.tags(ns="GEOLOCATION") == {}


def test_what_cannot_be_restated_is_dropped_aloud(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((1, 48, 64)), transform=NORTH_UP, crs=UTM) as dataset:
        dataset.update_tags(ns="RPC", **RPC)
    raster = open_raster(tmp_path / "a.tif")
    turned = raster.replace(grid=Grid(raster.grid.shape, np.array(SHEARED).reshape(3, 3), frame=raster.grid.frame))
    with pytest.warns(MetadataWarning, match="RPC dropped"):
        target = save_raster(turned, tmp_path / "b.tif")
    with rasterio.open(target) as new:
        assert new.rpcs is None
        assert new.transform == SHEARED


def test_a_colour_profile_stays(tmp_path: Path) -> None:
    options = {"source_primaries_red": "0.64, 0.33, 1.0", "source_whitepoint": "0.31, 0.33, 1.0"}
    options |= {"source_primaries_green": "0.3, 0.6, 1.0", "source_primaries_blue": "0.15, 0.06, 1.0"}
    with write(tmp_path / "a.tif", values_of((3, 16, 16), "uint8"), photometric="rgb", **options):
        pass
    target = save_raster(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path / "b.tif")
    with rasterio.open(tmp_path / "a.tif") as old, rasterio.open(target) as new:
        assert old.tags(ns="COLOR_PROFILE")["SOURCE_PRIMARIES_RED"].startswith("0.63999")
        assert new.tags(ns="COLOR_PROFILE") == old.tags(ns="COLOR_PROFILE")


def test_left_out_channels_take_their_tags_along(tmp_path: Path) -> None:
    part = open_raster(write_tagged(tmp_path / "a.tif", alpha=True)).crop(c=slice(1, 3))
    with rasterio.open(save_raster(part, tmp_path / "b.tif")) as new:
        assert new.count == 3
        assert new.descriptions[:2] == ("B03", "B04")
        assert new.scales[:2] == (2e-4, 1e-4)
        assert new.tags(2, ns="SENSOR") == {"DETECTOR": "03"}
        assert [c.name for c in new.colorinterp] == ["green", "red", "alpha"]


def test_left_out_channels_without_names_lose_their_tags_aloud(tmp_path: Path) -> None:
    part = open_raster(scene(tmp_path / "a.tif", shape=(3, 8, 8))).crop(c=slice(1, 3))
    with pytest.warns(MetadataWarning, match="2 channels came of 3 bands"):
        save_raster(part, tmp_path / "b.tif")


def test_check_is_silent(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    from sciSR.io import check_target

    part = open_raster(scene(tmp_path / "a.tif", shape=(3, 8, 8))).crop(c=slice(1, 3))
    check_target(part, tmp_path / "b.tif")
    assert not [w for w in recwarn if issubclass(w.category, MetadataWarning)]


def test_facts_survive_json(tmp_path: Path) -> None:
    with rasterio.Env():
        raster = open_raster(write_tagged(tmp_path / "a.tif", alpha=True))
    assert raster.metadata is not None
    facts = Facts.from_dict(raster.metadata.items)
    facts = Facts(**facts.to_dict() | {"gcps": ((0, 1, 2.0, 3.0, 0.0, "1", ""),), "colormaps": ({1: (1, 2, 3, 4)},)})
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize("scale", [1, 2, 3, 7, {"y": 5, "x": 2}])
def test_the_pixel_map_of_a_refined_grid_is_its_scale(scale: Any) -> None:
    grid = Grid((37, 53), np.array(SHEARED).reshape(3, 3), frame=UTM)
    pixels = pixel_map(grid, grid.refine(scale))
    expected = (scale["y"], scale["x"]) if isinstance(scale, dict) else (scale, scale)
    assert pixels == PixelMap((float(expected[0]), float(expected[1])))
    assert pixels.unchanged == (scale == 1)


def test_the_pixel_map_of_a_crop_is_its_corner() -> None:
    grid = Grid((37, 53), np.array(NORTH_UP).reshape(3, 3), frame=UTM)
    assert pixel_map(grid, grid.crop((slice(3, 9), slice(5, 50)))) == PixelMap(shift=(-3.0, -5.0))


def test_other_frames_and_turned_grids_have_no_pixel_map() -> None:
    grid = Grid((3, 5), np.array(NORTH_UP).reshape(3, 3), frame=UTM)
    assert not pixel_map(grid, Grid((3, 5), grid.affine, frame="EPSG:4326")).aligned
    assert not pixel_map(grid, Grid((3, 5), np.array(SHEARED).reshape(3, 3), frame=UTM)).aligned
    flipped = Grid((3, 5), grid.affine @ np.diag([-1.0, 1.0, 1.0]), frame=UTM)
    assert not pixel_map(grid, flipped).aligned


def test_unchanged_pixels_leave_every_word_as_it_was() -> None:
    facts = Facts(tags={"RPC": dict(RPC), "": {"TIFFTAG_XRESOLUTION": "72 dpi", "A": "01"}})
    assert restate(facts, PixelMap(), "a") == facts


def test_not_georeferenced_scenes_are_opened_in_silence(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with write(tmp_path / "a.tif", values_of((1, 8, 8))):
        pass
    recwarn.clear()
    save_raster(open_raster(tmp_path / "a.tif"), tmp_path / "b.tif")
    assert not [w for w in recwarn if issubclass(w.category, NotGeoreferencedWarning)]

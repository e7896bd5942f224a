"""Rasters as DataArrays and back."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import rioxarray
import xarray
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from sciSR.encoding import Encoding
from sciSR.errors import GeometryError, InputError
from sciSR.grid import RAS_MM, Grid
from sciSR.io import open_raster
from sciSR.raster import ArraySource, Channel, Raster, TimeAxis
from sciSR.view import from_xarray, to_xarray
from tests.scene_files import NORTH_UP, ROTATED, SHEARED, UTM, scene, values_of, write, write_tagged

OBLIQUE = np.array([[0.8, -0.6, 0.1, 3], [0.6, 0.8, 0, -4], [0, 0.1, 2.5, 5], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, -2.0, 5], [1.5, 0, 0, 7], [0, 0.8, 0, -9], [0, 0, 0, 1]])
"""The array's x runs to anterior, its y to superior, its z to the left."""


def made(values: Any = None, affine: Any = NORTH_UP, **more: Any) -> Raster:
    """A scene in memory."""
    array = values_of((2, 5, 7)) if values is None else values
    return Raster.from_array(array, affine=np.array(affine), axes="cyx", crs=UTM, **more)


def opened(path: Path, **options: Any) -> xarray.DataArray:
    """What rioxarray makes of a file with one image."""
    array = rioxarray.open_rasterio(path, **options)
    assert isinstance(array, xarray.DataArray)
    return array


# --- to xarray


def test_a_scene_works_with_rioxarray(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif")
    view = open_raster(source).array
    ours, theirs = view.rio, opened(source, masked=True).rio
    assert ours.crs == theirs.crs
    assert ours.transform() == theirs.transform()
    assert ours.bounds() == theirs.bounds()
    assert ours.resolution() == theirs.resolution()
    assert np.isnan(ours.nodata)
    assert np.isnan(theirs.nodata)
    assert (ours.width, ours.height) == (64, 48)
    clipped = view.rio.clip_box(500_000, 4_199_800, 500_200, 4_199_900)
    assert clipped.shape == (4, 10, 20)


def test_coordinates_are_pixel_centres_in_world_units() -> None:
    view = to_xarray(made().replace(grid=Grid((5, 7), np.array(NORTH_UP).reshape(3, 3), UTM, "m")))
    assert view.x.values[:2].tolist() == [499_985, 499_995]
    assert view.y.values[:2].tolist() == [4_199_995, 4_199_985]
    assert view.x.attrs["units"] == "m"
    assert view.x.attrs["standard_name"] == "projection_x_coordinate"


def test_degrees_are_longitude_and_latitude() -> None:
    grid = Grid((5, 7), np.array([[1e-3, 0, -75], [0, -1e-3, 37], [0, 0, 1]]), "EPSG:4326", "degree")
    view = to_xarray(made().replace(grid=grid))
    assert view.x.attrs["standard_name"] == "longitude"
    assert view.y.attrs["units"] == "degrees_north"


def test_channels_have_names_and_units() -> None:
    raster = made(channels=("red", "nir"), unit="reflectance")
    view = to_xarray(raster)
    assert view.sel(c="nir").shape == (5, 7)
    assert view.attrs["units"] == "reflectance"
    mixed = raster.replace(channels=(Channel("red", "1"), Channel(None, "K")))
    view = to_xarray(mixed)
    assert "units" not in view.attrs
    assert view.channel_unit.values.tolist() == ["1", "K"]
    assert from_xarray(view).channels == mixed.channels
    assert to_xarray(made()).c.values.tolist() == [1, 2]


def test_volumes_have_world_millimetres_along_their_axes() -> None:
    volume = Raster.from_array(np.zeros((2, 3, 4), np.float32), affine=np.diag([0.5, 0.6, 3, 1]), axes="zyx", unit="HU")
    view = to_xarray(volume)
    assert view.z.values.tolist() == [0, 3]
    assert view.x.attrs == {"axis": "X", "units": "mm", "long_name": "left to right"}
    assert view.attrs["units"] == "HU"
    turned = to_xarray(Raster.from_array(np.zeros((2, 3, 4), np.float32), affine=PERMUTED, axes="zyx"))
    assert turned.x.values.tolist() == [7, 8.5, 10, 11.5]
    assert turned.x.attrs["long_name"] == "posterior to anterior"
    assert turned.z.values.tolist() == [5, 3]
    oblique = to_xarray(Raster.from_array(np.zeros((2, 3, 4), np.float32), affine=OBLIQUE, axes="zyx"))
    assert oblique.y.values.tolist() == pytest.approx([0, 1.00498756, 2.00997512])
    assert oblique.y.attrs["long_name"] == "distance along axis y"


def test_time_is_a_coordinate_with_its_unit() -> None:
    series = Raster.from_array(np.zeros((3, 2, 2, 2), np.float32), affine=np.eye(4), axes="tzyx")
    view = to_xarray(series.replace(time=TimeAxis(1.0, 2.5, "s")))
    assert view.t.values.tolist() == [1, 3.5, 6]
    assert view.t.attrs["units"] == "s"


@pytest.mark.parametrize(
    ("dtype", "encoding", "view_type", "fill"),
    [
        ("float32", Encoding("float32"), "float32", np.nan),
        ("float32", Encoding("float32", nodata=(-1.0,)), "float32", np.nan),
        ("uint16", Encoding("uint16", nodata=(9.0,)), "uint16", 9),
        ("uint16", Encoding("uint16", mask=True), "float32", np.nan),
        ("int32", Encoding("int32", mask=True), "float64", np.nan),
        ("uint8", Encoding("uint8", nodata=(0.0, 255.0)), "float32", np.nan),
    ],
)
def test_missing_values_are_nan_or_the_fill_value(dtype: str, encoding: Encoding, view_type: str, fill: float) -> None:
    class Holed(ArraySource):
        def read(self, window: Any) -> Any:
            block = super().read(window)
            valid = np.ones(block.values.shape, bool)
            valid[0, 0, 0] = False
            return block._replace(valid=valid)

    view = to_xarray(made().replace(source=Holed(np.full((2, 5, 7), 4, dtype)), encoding=encoding))
    assert view.dtype == view_type
    np.testing.assert_equal(view.values[0, 0, 0], np.array(fill, view_type))
    assert (view.values.ravel()[1:] == 4).all()
    np.testing.assert_equal(view.rio.nodata, np.array(fill, view_type))


def test_scaled_values_tell_how_they_were_stored(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((2, 6, 8)), transform=NORTH_UP, crs=UTM, nodata=0) as dataset:
        dataset.scales, dataset.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    raster = open_raster(tmp_path / "a.tif")
    view = raster.array
    assert view.encoding["scale_factor"] == 1e-4
    view.to_dataset(name="a").drop_vars("spatial_ref").to_netcdf(tmp_path / "a.nc")
    stored = xarray.open_dataset(tmp_path / "a.nc", mask_and_scale=False)["a"]
    np.testing.assert_array_equal(stored.values, opened(tmp_path / "a.tif").values)
    assert from_xarray(view).encoding == raster.encoding


def test_the_view_is_lazy_and_reads_only_what_is_asked(tmp_path: Path) -> None:
    class Counted(ArraySource):
        windows: list[Any] = []  # noqa: RUF012  # counted for this one test

        def read(self, window: Any) -> Any:
            self.windows.append(window)
            return super().read(window)

    source = Counted(values_of((2, 400, 300)), chunks=(2, 100, 100))
    raster = Raster.from_array(np.zeros((2, 400, 300), np.uint16), affine=np.eye(3), axes="cyx").replace(source=source)
    view = raster.array
    assert view.chunks == ((2,), (100,) * 4, (100,) * 3)
    assert source.windows == []
    part = view[:, 110:120, 250:260].values
    assert len(source.windows) == 1
    np.testing.assert_array_equal(part, source._array[:, 110:120, 250:260])


@pytest.mark.parametrize(
    "index",
    [
        (0, 3, 4),
        (1, slice(None, None, 3), slice(5, 1, -1)),
        (slice(None), -1, slice(2, 40, 7)),
        (slice(1, 2), [3, 20, 4], slice(None)),
        (slice(None), slice(8, 8), slice(None)),
    ],
)
def test_any_part_of_the_view_is_the_part_of_the_values(index: Any) -> None:
    raster = made(values_of((2, 25, 50)))
    raster = raster.replace(source=ArraySource(raster.read().values, chunks=(2, 10, 16)))
    np.testing.assert_array_equal(to_xarray(raster)[index].values, raster.read().values[index])


def test_the_view_may_travel_to_another_process(tmp_path: Path) -> None:
    view = open_raster(write_tagged(tmp_path / "a.tif")).array
    copy = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(copy.values, view.values)


def test_a_band_plots_itself_with_names_and_units(tmp_path: Path) -> None:
    raster = open_raster(write_tagged(tmp_path / "scene.tif"))
    figure, axes = plt.subplots()
    band: Any = raster.array.sel(c="B03")
    image = band.plot(ax=axes)
    assert axes.get_xlabel() == "x coordinate of projection [m]"
    assert axes.get_ylabel() == "y coordinate of projection [m]"
    assert image.colorbar.ax.get_ylabel() == "scene"
    left, right = axes.get_xlim()
    assert (left, right) == (499_980, 500_620)
    plt.close(figure)


def test_the_view_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np; from sciSR.raster import Raster;"
        "Raster.from_array(np.zeros((2, 3), 'f4'), affine=np.eye(3), axes='yx').array.values;"
        "assert 'torch' not in sys.modules and 'rasterio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


# --- and back


@pytest.mark.parametrize("affine", [NORTH_UP, SHEARED, ROTATED], ids=["north", "sheared", "rotated"])
@pytest.mark.parametrize(
    ("y", "x"),
    [(slice(0, 5), slice(0, 7)), (slice(1, 4), slice(2, 7)), (slice(3, 4), slice(2, 3)), (slice(2, 5), slice(6, 7))],
)
def test_a_scene_and_its_cuts_come_back_in_place(affine: Any, y: slice, x: slice) -> None:
    raster = made(affine=affine, nodata=3)
    again = from_xarray(to_xarray(raster)[:, y, x])
    expected = raster.crop(y=y, x=x)
    np.testing.assert_allclose(again.grid.affine, expected.grid.affine, rtol=0, atol=1e-8)
    assert again.grid.frame == UTM
    np.testing.assert_array_equal(again.read().values, expected.read().values)
    assert again.encoding == raster.encoding


def test_a_strided_view_has_larger_pixels() -> None:
    raster = made(np.zeros((1, 20, 30), np.float32))
    grid = from_xarray(to_xarray(raster)[:, ::2, ::3]).grid
    assert grid.spacing == {"y": 20, "x": 30}
    # pixels 0, 2, 4, … keep their centres
    np.testing.assert_allclose(grid.world([0.5, 0.5]), raster.grid.world([0.5, 0.5]))


@pytest.mark.parametrize("affine", [np.diag([0.5, 0.6, 3, 1]), PERMUTED, OBLIQUE], ids=["plain", "permuted", "oblique"])
def test_a_volume_and_its_cuts_come_back_in_place(affine: Any) -> None:
    volume = Raster.from_array(values_of((4, 5, 6), "int16"), affine=affine, axes="zyx", unit="HU")
    again = from_xarray(to_xarray(volume))
    np.testing.assert_allclose(again.grid.affine, volume.grid.affine, atol=1e-12)
    assert (again.grid.frame, again.grid.unit, again.unit) == (RAS_MM, "mm", "HU")
    window = {"z": slice(1, 3), "y": slice(2, 3), "x": slice(0, 5)}
    part = from_xarray(to_xarray(volume).isel(window))
    np.testing.assert_allclose(part.grid.affine, volume.crop(**window).grid.affine, atol=1e-6)
    np.testing.assert_array_equal(part.read().values, volume.crop(**window).read().values)


def test_a_series_comes_back_with_its_time() -> None:
    series = Raster.from_array(np.zeros((3, 2, 2, 2), np.float32), affine=np.eye(4), axes="tzyx")
    series = series.replace(time=TimeAxis(1.0, 2.5, "s"))
    assert from_xarray(to_xarray(series)).time == series.time
    assert from_xarray(to_xarray(series)[1:]).time == TimeAxis(3.5, 2.5, "s")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", None])
def test_what_rioxarray_opens_is_understood(tmp_path: Path, crs: str | None, masked: bool) -> None:
    values = values_of((2, 6, 8))
    values[0, 1, 1] = 0
    degrees = [1e-3, 0, -75.0, 0, -1e-3, 37.0]
    place = Affine(*degrees) if crs == "EPSG:4326" else NORTH_UP
    with write(tmp_path / "a.tif", values, transform=place, crs=crs, nodata=0) as dataset:
        dataset.descriptions = ("B02", "B03")
    raster, expected = (
        from_xarray(opened(tmp_path / "a.tif", masked=masked)),
        open_raster(tmp_path / "a.tif"),
    )
    np.testing.assert_allclose(raster.grid.affine, expected.grid.affine, rtol=0, atol=1e-9)
    assert (raster.grid.frame, raster.grid.unit) == (expected.grid.frame, expected.grid.unit)
    assert raster.channels == expected.channels
    ours, theirs = raster.read(), expected.read()
    assert ours.valid is not None
    np.testing.assert_array_equal(ours.valid, theirs.valid)
    np.testing.assert_array_equal(ours.values[ours.valid], theirs.values[ours.valid])
    assert (raster.encoding.dtype, raster.encoding.nodata) == ("uint16", (0,))


def test_scale_and_offset_in_attributes_are_applied(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", values_of((2, 6, 8)), transform=NORTH_UP, crs=UTM) as dataset:
        dataset.scales, dataset.offsets = (0.5, 0.5), (-10, -10)
    raster = from_xarray(opened(tmp_path / "a.tif"))
    np.testing.assert_array_equal(raster.read().values, open_raster(tmp_path / "a.tif").read().values)
    assert [w for w, _ in raster.stream()]


def test_a_scale_for_each_band_is_applied(tmp_path: Path) -> None:
    source = write_tagged(tmp_path / "a.tif")
    raster, expected = from_xarray(opened(source)), open_raster(source)
    assert raster.encoding.scale == (1e-4, 2e-4, 1e-4, 1e-4)
    window = (slice(1, 3), slice(10, 48), slice(0, 64))
    np.testing.assert_array_equal(raster.read(window).values, expected.read(window).values)
    assert raster.channels == expected.channels


def test_plain_coordinates_are_enough() -> None:
    array = xarray.DataArray(
        np.zeros((4, 3)), dims=("lat", "lon"), coords={"lat": [1.5, 1.0, 0.5, 0.0], "lon": [10, 12, 14]}, name="rain"
    )
    raster = from_xarray(array)
    assert raster.axes == ("c", "y", "x")
    assert raster.grid.bounds == (9, -0.25, 15, 1.75)
    assert raster.name == "rain"


def test_arrays_without_any_place_are_images() -> None:
    raster = from_xarray(xarray.DataArray(np.zeros((4, 3)), dims=("y", "x")))
    np.testing.assert_array_equal(raster.grid.affine, np.eye(3))


def test_attributes_may_be_given() -> None:
    raster = from_xarray(to_xarray(made()), name="other", channels=(Channel("a"), Channel("b")))
    assert raster.name == "other"
    assert [c.name for c in raster.channels] == ["a", "b"]


@pytest.mark.parametrize(
    ("coords", "dims", "message"),
    [
        ({"y": [0.0, 1.0, 4.0], "x": [0.0, 1.0]}, ("y", "x"), "axis y are not evenly spaced"),
        ({"y": [1.0, 1.0, 1.0], "x": [0.0, 1.0]}, ("y", "x"), "axis y are not evenly spaced"),
        ({"y": [0.0, 1.0, 2.0]}, ("y", "x"), "axis x has no coordinates"),
        ({}, ("row", "x"), r"dimensions \('row', 'x'\) came"),
    ],
)
def test_places_that_cannot_be_told_are_refused(coords: dict[str, Any], dims: tuple[str, str], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        from_xarray(xarray.DataArray(np.zeros((3, 2)), dims=dims, coords=coords))


def test_one_pixel_needs_an_affine() -> None:
    with pytest.raises(GeometryError, match="axis x has one pixel and nothing says its size"):
        from_xarray(xarray.DataArray(np.zeros((3, 1)), dims=("y", "x"), coords={"y": [0.0, 1.0, 2.0], "x": [0.0]}))


def test_words_are_no_values() -> None:
    with pytest.raises(InputError, match="values of type <U1 came"):
        from_xarray(xarray.DataArray(np.full((2, 2), "a"), dims=("y", "x")))


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    entries=st.tuples(*[st.floats(-100, 100).filter(lambda v: abs(v) > 1e-2)] * 2, st.floats(-1, 1), st.floats(-1, 1)),
    origin=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
)
def test_any_grid_goes_round(size: Any, entries: Any, origin: Any) -> None:
    a, e, b, d = entries
    affine = np.array([[a, b * a, origin[0]], [d * e, e, origin[1]], [0, 0, 1]])
    if abs(1 - b * d) < 1e-2:
        return
    raster = Raster.from_array(np.zeros((1, *size), np.float32), affine=affine, axes="cyx", crs=UTM)
    np.testing.assert_allclose(from_xarray(to_xarray(raster)).grid.affine, raster.grid.affine, rtol=0, atol=1e-8)


def test_a_real_scene_goes_round(crops: Path) -> None:
    raster = open_raster(crops / "sentinel2_crop.tif")
    again = Raster.from_xarray(raster.array)
    assert again.grid == raster.grid
    np.testing.assert_array_equal(again.read().values, raster.read().values)


def test_a_scene_file_has_one_frame_however_it_was_opened(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    theirs, ours = from_xarray(opened(source)), open_raster(source)
    assert theirs.grid.same_space(ours.grid)

"""Scenes that lie nowhere are opened in silence, in any thread, and nobody else's warnings are touched."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

from sciSR.io import open_raster, save_raster
from sciSR.io.geotiff_datasets import has_transform, read_dataset
from sciSR.io.geotiff_source import gdal_environment
from tests.scene_files import UTM, values_of, write


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    with write(tmp_path / "a.tif", values_of((1, 64, 48))):
        pass
    return tmp_path / "a.tif"


def test_filters_of_the_process_are_not_swapped(nowhere: Path) -> None:
    before = warnings.filters
    with gdal_environment(str(nowhere)):
        assert warnings.filters is before
        with read_dataset(str(nowhere)):
            assert warnings.filters is before


def test_threads_that_open_at_once_leave_the_filters_as_they_were(nowhere: Path, tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(4):
            raster = open_raster(nowhere)
            raster.read()
            save_raster(raster, tmp_path / f"{number}-{turn}.tif")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        open_raster(nowhere).read()
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert list(warnings.filters) == before
    assert [str(w.message) for w in told] == []


@pytest.mark.parametrize("message", ["", "Dataset has no geotransform"])
def test_no_filter_that_comes_later_makes_it_an_error(nowhere: Path, tmp_path: Path, message: str) -> None:
    with warnings.catch_warnings():
        open_raster(nowhere).read()
        warnings.filterwarnings("ignore", message="something else")
        warnings.filterwarnings("error", message=message, category=UserWarning)
        save_raster(open_raster(nowhere), tmp_path / "b.tif", cog=True)


def test_others_are_warned_as_ever(nowhere: Path) -> None:
    open_raster(nowhere).read()
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(nowhere):
        pass


def test_a_transform_that_is_stated_is_told_from_none(tmp_path: Path) -> None:
    stated = {"none": {}, "identity": {"transform": Affine.identity()}, "crs": {"crs": UTM}}
    for name, profile in stated.items():
        with write(tmp_path / f"{name}.tif", values_of((2, 8, 8)), **profile):
            pass
    with write(tmp_path / "gcps.tif", values_of((1, 8, 8))) as dataset:
        corners = [(r, c) for r in (0, 8) for c in (0, 8)]
        dataset.gcps = ([GroundControlPoint(row=r, col=c, x=c + 9, y=r + 9) for r, c in corners], UTM)
    found = {}
    for file in sorted(tmp_path.glob("*.tif")):
        with rasterio.Env(), read_dataset(str(file)) as dataset:
            found[file.stem] = has_transform(dataset)
    assert found == {"none": False, "identity": True, "crs": False, "gcps": False}

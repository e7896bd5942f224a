"""Which offset turns stored values into physical ones, and whether the values agree."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from sciSR.errors import InputError, RadiometryWarning
from sciSR.io import open_raster, save_raster
from sciSR.raster import Raster
from tests.scene_files import NORTH_UP, UTM, refined, write

GROUND = np.random.default_rng(3).gamma(2, 600, (2, 96, 96)) + 100
"""Reflectance times 10000: dark water to bright roofs, never below 0."""


def sentinel(path: Path, added: int = 0, **tags: str) -> Path:
    with write(path, (GROUND + added).astype(np.uint16), transform=NORTH_UP, crs=UTM) as dataset:
        dataset.update_tags(**tags)
    return path


def origin(raster: Raster) -> Any:
    assert raster.metadata is not None
    return raster.metadata.items["radiometry"]


@pytest.mark.parametrize("key", ["BOA_ADD_OFFSET", "RADIO_ADD_OFFSET", "boa_add_offset"])
def test_a_tagged_offset_is_taken_off(tmp_path: Path, key: str) -> None:
    tags = {key: "-1000", "PROCESSING_BASELINE": "05.10", "QUANTIFICATION_VALUE": "10000"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        raster = open_raster(sentinel(tmp_path / "a.tif", 1000, **tags))
    np.testing.assert_allclose(raster.read().values, np.floor(GROUND), atol=1)
    assert origin(raster) == {
        "scale": [1, 1],
        "offset": [-1000, -1000],
        "origin": "tag BOA_ADD_OFFSET or RADIO_ADD_OFFSET",
    }


def test_stored_values_and_the_header_come_back_as_they_were(tmp_path: Path) -> None:
    source = sentinel(tmp_path / "a.tif", 1000, BOA_ADD_OFFSET="-1000", PROCESSING_BASELINE="05.10")
    target = save_raster(refined(open_raster(source), 2), tmp_path / "b.tif")
    with rasterio.open(source) as old, rasterio.open(target) as new:
        np.testing.assert_array_equal(new.read()[:, ::2, ::2], old.read())
        assert (new.scales, new.offsets) == ((1, 1), (0, 0))
        assert new.tags()["BOA_ADD_OFFSET"] == "-1000"


def test_an_offset_for_each_band_is_read_from_its_tags(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", (GROUND + 1000).astype(np.uint16)) as dataset:
        dataset.update_tags(1, BOA_ADD_OFFSET="-1000")
        dataset.update_tags(2, BOA_ADD_OFFSET="-900")
    assert origin(open_raster(tmp_path / "a.tif"))["offset"] == [-1000, -900]


def test_the_bands_own_scale_and_offset_come_first(tmp_path: Path) -> None:
    source = sentinel(tmp_path / "a.tif", 1000, BOA_ADD_OFFSET="-1000")
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    raster = open_raster(source)
    np.testing.assert_allclose(raster.read().values, np.floor(GROUND) / 1e4, atol=1e-4)
    assert origin(raster)["origin"] == "scale and offset of the bands"


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_a_given_offset_wins_and_is_in_stored_units(tmp_path: Path, scale: float) -> None:
    source = sentinel(tmp_path / "a.tif", 1000)
    with rasterio.open(source, "r+") as dataset:
        dataset.scales = (scale, scale)
    raster = open_raster(source, offset=-1000)
    np.testing.assert_allclose(raster.read().values, np.floor(GROUND) * scale, atol=scale)
    assert "as given" in origin(raster)["origin"]
    with rasterio.open(save_raster(raster, tmp_path / "b.tif")) as new, rasterio.open(source) as old:
        np.testing.assert_array_equal(new.read(), old.read())
        assert (new.scales, new.offsets) == (old.scales, old.offsets)


def test_an_offset_that_was_taken_off_already_is_doubted(tmp_path: Path) -> None:
    source = sentinel(tmp_path / "a.tif", 0, BOA_ADD_OFFSET="-1000")
    with pytest.warns(RadiometryWarning, match="negative with the stated offset.*pass offset=0"):
        open_raster(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        assert (open_raster(source, offset=0).read().values >= 0).all()


def test_an_applied_offset_is_not_applied_again(tmp_path: Path) -> None:
    tags = {"earthsearch:boa_offset_applied": "true", "BOA_ADD_OFFSET": "-1000", "s2:processing_baseline": "05.09"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        raster = open_raster(sentinel(tmp_path / "a.tif", 0, **tags))
    assert origin(raster)["offset"] == [0, 0]


def test_bands_that_contradict_the_applied_flag_are_doubted(tmp_path: Path) -> None:
    source = sentinel(tmp_path / "a.tif", 1000, boa_offset_applied="True")
    with rasterio.open(source, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    with pytest.warns(RadiometryWarning, match="boa_offset_applied says that the offset was taken off already"):
        open_raster(source)


def test_a_new_baseline_without_any_offset_is_doubted_where_the_values_have_it(tmp_path: Path) -> None:
    with pytest.warns(RadiometryWarning, match="baseline 05.10 adds 1000.*pass offset=-1000"):
        open_raster(sentinel(tmp_path / "a.tif", 1000, PROCESSING_BASELINE="05.10"))


@pytest.mark.parametrize(("baseline", "added"), [("05.10", 0), ("02.14", 1000), ("unknown", 1000)])
def test_other_scenes_raise_no_doubt(tmp_path: Path, baseline: str, added: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        raster = open_raster(sentinel(tmp_path / "a.tif", added, PROCESSING_BASELINE=baseline))
    assert origin(raster)["origin"] == "stored values as they are"


def test_a_positive_offset_is_doubted(tmp_path: Path) -> None:
    with pytest.warns(RadiometryWarning, match=r"positive, Sentinel-2's is -1000"):
        open_raster(sentinel(tmp_path / "a.tif", 1000, BOA_ADD_OFFSET="1000"))


def test_nodata_takes_no_part_in_the_doubts(tmp_path: Path) -> None:
    values = (GROUND + 1000).astype(np.uint16)
    values[:, :60] = 0
    with write(tmp_path / "a.tif", values, nodata=0) as dataset:
        dataset.update_tags(BOA_ADD_OFFSET="-1000")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        open_raster(tmp_path / "a.tif")


@pytest.mark.parametrize("text", ["minus a thousand", "nan"])
def test_an_offset_tag_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"a\.tif: tag BOA_ADD_OFFSET/RADIO_ADD_OFFSET is '.*'.*offset="):
        open_raster(sentinel(tmp_path / "a.tif", BOA_ADD_OFFSET=text))


def test_the_real_scene_has_no_offset(full_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        raster = open_raster(full_data / "sat" / "sentinel2_10m_b02b03b04b08.tif")
    assert origin(raster)["offset"] == [0, 0, 0, 0]

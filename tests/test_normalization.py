"""Intensity maps: exact inverse, fit on all that counts, independence of chunks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import InputError, RadiometryWarning
from sciSR.normalization import IntensityMap, Normalization
from sciSR.raster import ArraySource, Raster

AFFINE = np.eye(3)


def scene(array: NDArray[Any], chunks: tuple[int, ...] | None = None, nodata: float | None = None) -> Raster:
    raster = Raster.from_array(array, affine=AFFINE, axes="cyx", nodata=nodata)
    return raster if chunks is None else raster.replace(source=ArraySource(array, nodata=nodata, chunks=chunks))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_invert_undoes_apply(dtype: type) -> None:
    values: NDArray[Any] = np.random.default_rng(0).integers(0, 200, (3, 9, 11)).astype(dtype)
    fitted = Normalization("percentile", per_channel=True).fit(scene(values))
    back = fitted.invert(fitted.apply(values, 0), 0)
    assert np.abs(back - values).max() < 1e-4
    assert back.dtype == np.float32


def test_invert_does_not_clip_peaks() -> None:
    values = np.zeros((1, 100, 100), np.float32)
    values += np.linspace(0, 1, 100, dtype=np.float32)
    values[0, 5, 5] = 50
    fitted = Normalization("percentile").fit(scene(values))
    assert fitted.invert(fitted.apply(values))[0, 5, 5] == pytest.approx(50, rel=1e-6)


def test_large_integers_keep_their_differences() -> None:
    values = np.array([2**30, 2**30 + 1], np.int32)
    normal = IntensityMap((float(2**30),), (1.0,)).apply(values)
    assert normal.tolist() == [0.0, 1.0]


def test_percentiles_are_those_of_numpy_over_valid_values() -> None:
    values = np.random.default_rng(1).normal(size=(2, 40, 50)).astype(np.float32)
    values[:, :7] = np.nan
    fitted = Normalization("percentile", low=2, high=98).fit(scene(values))
    low, high = np.nanpercentile(values.astype(np.float64), [2, 98])
    assert fitted.center[0] == pytest.approx(low)
    assert fitted.scale[0] == pytest.approx(high - low)


def test_fit_does_not_depend_on_chunks() -> None:
    values = np.random.default_rng(2).normal(size=(3, 64, 50)).astype(np.float32)
    recipe = Normalization("percentile", per_channel=True)
    assert recipe.fit(scene(values)) == recipe.fit(scene(values, (1, 7, 13))) == recipe.fit(scene(values, (2, 64, 1)))


def test_nodata_and_nan_do_not_count() -> None:
    values = np.full((1, 20, 20), -9999.0, np.float32)
    values[0, 3:9, 3:9] = np.arange(36).reshape(6, 6)
    values[0, 4, 4] = np.nan
    fitted = Normalization("percentile", low=0, high=100).fit(scene(values, nodata=-9999.0))
    assert (fitted.center[0], fitted.scale[0]) == (0.0, 35.0)


def test_auto_floor_sees_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.normalization._SAMPLES", 100)
    values = np.ones((1, 60, 60), np.float32) + np.arange(60, dtype=np.float32)
    recipe = Normalization("percentile", nonnegative="auto")
    assert recipe.fit(scene(values)).floor == 0.0
    values[0, 31, 37] = -0.5
    assert recipe.fit(scene(values)).floor is None
    assert Normalization("fixed", nonnegative="auto").fit(scene(values)).floor is None


def test_a_lone_value_off_the_sample_grid_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.normalization._SAMPLES", 100)
    values = np.full((1, 60, 60), np.nan, np.float32)
    values[0, 31, 37] = 4.0
    fitted = Normalization("percentile").fit(scene(values))
    assert (fitted.center, fitted.scale) == ((4.0,), (1.0,))


def test_small_object_in_much_air_uses_the_extremes() -> None:
    values = np.zeros((1, 100, 100), np.float32)
    values[0, 50, 50:55] = 80
    fitted = Normalization("percentile").fit(scene(values))
    assert (fitted.center, fitted.scale) == ((0.0,), (80.0,))


def test_floor_holds_after_inversion() -> None:
    fitted = Normalization("fixed", center=(10.0,), scale=(2.0,), nonnegative=True).fit(None)
    assert fitted.invert(np.array([-100.0, 1.0], np.float32)).tolist() == [0.0, 12.0]


def test_per_channel_differs_and_one_channel_can_be_picked() -> None:
    values = np.stack([np.linspace(0, 1, 400), np.linspace(5, 25, 400)]).reshape(2, 20, 20).astype(np.float32)
    fitted = Normalization("percentile", low=0, high=100, per_channel=True).fit(scene(values))
    assert fitted.scale == pytest.approx((1.0, 20.0))
    assert fitted.channel(1) == IntensityMap(fitted.center[1:], fitted.scale[1:])
    assert IntensityMap().channel(3) == IntensityMap()
    with pytest.raises(InputError, match="without a channel axis"):
        fitted.apply(values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "zscore"}, "zscore"),
        ({"kind": "fixed", "scale": (0.0,)}, "not 0"),
        ({"kind": "percentile", "low": 60, "high": 40}, "percentiles 60 and 40"),
    ],
)
def test_wrong_recipes_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Normalization(**arguments)


def test_no_value_at_all_is_an_error() -> None:
    empty = np.full((2, 8, 8), np.nan, np.float32)
    with pytest.raises(InputError, match="no valid value"):
        Normalization("percentile").fit(scene(empty))
    half = empty.copy()
    half[0] = 1
    with pytest.raises(InputError, match="in channel 2"):
        Normalization("percentile", per_channel=True).fit(scene(half))
    with pytest.raises(InputError, match="needs a raster"):
        Normalization("percentile").fit(None)


def test_recipe_survives_its_plain_values() -> None:
    recipe = Normalization("percentile", low=1, high=99, per_channel=True, nonnegative="auto")
    assert Normalization.from_dict(recipe.to_dict()) == recipe


REFLECTANCE = Normalization("fixed", scale=(10000.0,))
DIGITAL = np.random.default_rng(4).gamma(2.0, 500.0, (2, 70, 80)).astype(np.float32)


@pytest.mark.parametrize("scale", [(1e-4,), (1e-4, 2e-4)])
def test_a_recipe_for_stored_numbers_is_restated_for_scaled_ones(scale: tuple[float, ...]) -> None:
    stored = scene(DIGITAL)
    unit = np.array(scale, np.float32)[:, None, None]
    physical = scene(DIGITAL * unit).replace(encoding=Encoding("uint16", scale, (-0.1,)))
    expected = REFLECTANCE.fit(stored).apply(DIGITAL, 0)
    fitted = REFLECTANCE.fit(physical)
    np.testing.assert_allclose(fitted.apply(DIGITAL * unit, 0), expected, rtol=1e-5)
    np.testing.assert_allclose(fitted.invert(expected, 0), DIGITAL * unit, rtol=1e-5)


def test_a_recipe_in_the_unit_of_scaled_values_stays() -> None:
    kelvin = scene(DIGITAL * 0.01 + 270).replace(encoding=Encoding("uint16", (0.01,), (270.0,)))
    recipe = Normalization("fixed", center=(250.0,), scale=(80.0,))
    assert recipe.fit(kelvin) == IntensityMap((250.0,), (80.0,))


@pytest.mark.parametrize(("factor", "advice"), [(1e-4, "pass --normalization fraction"), (1e5, "pass one of your own")])
def test_values_far_from_the_recipe_are_refused(factor: float, advice: str) -> None:
    with pytest.raises(InputError, match=f"values reach .*, the normalization is made for about 10000; {advice}"):
        REFLECTANCE.fit(scene(DIGITAL * np.float32(factor)))


def test_reflectance_of_0_to_1_is_seen_as_its_ten_thousandfold() -> None:
    fraction = Normalization("fixed", scale=(1.0,)).fit(scene(DIGITAL / np.float32(10000)))
    np.testing.assert_allclose(
        fraction.apply(DIGITAL / np.float32(10000)), REFLECTANCE.fit(scene(DIGITAL)).apply(DIGITAL)
    )


def test_a_scene_that_is_dark_where_it_is_glanced_at_is_not_refused() -> None:
    dark = np.ones((1, 900, 900), np.uint16)
    dark[0, 180:300, 180:300] = 2000  # between the five windows
    assert REFLECTANCE.fit(scene(dark)).scale == (10000.0,)


def test_eight_bits_for_a_recipe_of_ten_thousand_are_told() -> None:
    picture = np.random.default_rng(5).integers(0, 255, (3, 70, 80)).astype(np.uint8)
    with pytest.warns(RadiometryWarning, match=r"uint8 ends at 255, .* about 10000: .* scale: 255\)"):
        REFLECTANCE.fit(scene(picture))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        Normalization("fixed", scale=(255.0,)).fit(scene(picture))


@pytest.mark.parametrize("values", [np.zeros((1, 8, 8), np.uint16), np.full((1, 8, 8), np.nan, np.float32)])
def test_nothing_but_zeros_or_holes_raises_no_doubt(values: NDArray[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RadiometryWarning)
        assert REFLECTANCE.fit(scene(values)).scale == (10000.0,)


def test_hounsfield_units_are_never_restated() -> None:
    volume = Raster.from_array(np.zeros((4, 5, 6), np.float32), affine=np.eye(4), axes="zyx")
    volume = volume.replace(encoding=Encoding("int16", (0.01,)))
    assert Normalization("fixed", center=(-1024.0,), scale=(4095.0,)).fit(volume).scale == (4095.0,)

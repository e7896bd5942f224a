"""Lazy degradation of rasters: exact by blocks, same field of view, masks, noise that follows position."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR.degradation import degrade, fit_sensor, keyed_normal, load_sensor
from sciSR.errors import GeometryError, InputError
from sciSR.raster import ArraySource, Raster
from sciSR.sensors import Sensor
from tests.made_files import Streamed

OBLIQUE = np.array([[0.9, 0.1, 0.0, -40.0], [-0.1, 1.1, 0.2, 12.0], [0.0, -0.3, 2.0, 7.0], [0, 0, 0, 1.0]])


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(100, 20, shape).astype(np.float32)


def scene(array: NDArray[Any], **changes: Any) -> Raster:
    return Raster.from_array(array, affine=np.array([[10, 0, 5e5], [0, -10, 4e6], [0, 0, 1]]), axes="cyx", **changes)


def volume(array: NDArray[Any]) -> Raster:
    return Raster.from_array(array, affine=OBLIQUE, axes="tzyx" if array.ndim == 4 else "zyx")


NOISY = {"axes": {"kind": "gaussian"}, "noise": {"kind": "gaussian", "std": 0.02}}
RICIAN = {"axes": {"kind": "gaussian"}, "noise": {"kind": "rician", "std": 0.02}}


@pytest.mark.parametrize("sensor", ["s2", "box", "mri-kspace", NOISY, RICIAN])
@pytest.mark.parametrize("scale", [2, {"y": 3}, {"y": 2.7, "x": 4}])
def test_blocks_agree_with_the_whole_to_the_bit(sensor: Any, scale: Any) -> None:
    array = random(3, 50, 61)
    array[1, 20:26, 30:40] = np.nan
    low = degrade(scene(array, channels=("B02", "B8A", "red")), scale, sensor=sensor, seed=5)
    whole = low.read()
    assert whole.valid is not None
    window = (slice(1, 3), slice(3, 11), slice(2, 9))
    part = low.read(window)
    assert np.array_equal(part.values, whole.values[window])
    assert np.array_equal(np.ones(part.values.shape) if part.valid is None else part.valid, whole.valid[window])
    for place, block in low.stream():
        assert np.array_equal(block.values, whole.values[place])


def test_parts_of_bounded_size_agree_too(monkeypatch: pytest.MonkeyPatch) -> None:
    array = random(2, 40, 45)
    whole = degrade(scene(array), 2, sensor=NOISY).read().values
    monkeypatch.setattr("sciSR.degradation._BLOCK", 300)
    parts = degrade(scene(array), 2, sensor=NOISY)
    assert len(list(parts.stream())) > 4
    assert np.array_equal(parts.read().values, whole)


def test_a_result_that_streams_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    array = random(2, 40, 45)
    array[1, 20:26, 30:40] = np.nan
    fine = scene(array)
    whole = degrade(fine, 2, sensor="s2").read()
    monkeypatch.setattr("sciSR.degradation._BLOCK", 900)
    low = degrade(fine.replace(source=Streamed(array, chunks=(2, 7, 45))), 2, sensor="s2")
    blocks = list(low.stream())
    assert len(blocks) > 2
    assert sum(block.values.size for _, block in blocks) == whole.values.size
    for place, block in blocks:
        np.testing.assert_array_equal(block.values, whole.values[place])


@pytest.mark.parametrize("scale", [2, 3, {"y": 5, "x": 2.5}])
def test_equals_the_operator_on_tensors(scale: Any) -> None:
    array = random(2, 60, 45)
    sensor = load_sensor("s2").for_channels(["B02", "B05"])
    low = degrade(scene(array, channels=("B02", "B05")), scale, sensor="s2").read().values
    wanted = sensor.apply(torch.from_numpy(array)[None], scale)[0].numpy()
    assert np.abs(low - wanted).max() < 1e-4


@pytest.mark.parametrize("scale", [2, {"z": 3}, {"z": 2.5, "x": 4}, 7])
def test_field_of_view_stays(scale: Any) -> None:
    fine = volume(random(10, 21, 23))
    low = degrade(fine, scale, sensor="mri")
    assert low.grid.same_space(fine.grid, tolerance_px=1e-6)
    assert low.grid == fine.grid.coarsen(scale)
    assert low.read().values.shape == low.shape


def test_world_ramp_stays_at_pixel_centres() -> None:
    fine = volume(np.zeros((24, 20, 22), np.float32))
    index = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in (22, 20, 24)], indexing="ij"), -1)
    world = fine.grid.world(index).transpose(2, 1, 0, 3)
    for axis in range(3):
        low = degrade(volume(world[..., axis].astype(np.float64)), {"z": 3, "y": 2, "x": 2.2}, sensor="mri")
        at = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in low.shape[::-1]], indexing="ij"), -1)
        wanted = low.grid.world(at).transpose(2, 1, 0, 3)[..., axis]
        inside = (slice(2, -2), slice(3, -3), slice(3, -3))
        assert np.abs(low.read().values - wanted)[inside].max() < 1e-9


def test_valid_where_half_of_the_weight_is() -> None:
    array = np.full((1, 8, 8), 10.0, np.float32)
    array[0, :, :3] = np.nan
    block = degrade(scene(array), 2, sensor="box").read()
    assert block.valid is not None
    assert block.valid[0].tolist() == [[False, True, True, True]] * 4
    assert np.abs(block.values[block.valid] - 10).max() < 1e-5


def test_holes_do_not_leak_into_values() -> None:
    array = np.full((1, 30, 30), 7.0, np.float32)
    array[0, 9:15, 13:20] = -9999.0
    block = degrade(scene(array, nodata=-9999.0), 3, sensor="generic-gaussian").read()
    assert block.valid is not None
    assert np.abs(block.values[block.valid] - 7).max() < 1e-5


def test_channels_unit_encoding_and_time_stay() -> None:
    fine = scene(random(2, 12, 12).astype(np.int16), channels=("a", "b"), unit="DN", nodata=0)
    low = degrade(fine, 2, sensor="box")
    assert (low.channels, low.encoding, low.metadata) == (fine.channels, fine.encoding, fine.metadata)
    record = json.loads(low.provenance["degraded"])
    assert record["scale"] == {"y": 2.0, "x": 2.0}
    assert Sensor.from_dict(record["sensor"]).name == "box"
    series = degrade(volume(random(3, 8, 9, 10)), {"z": 2}, sensor="mri-thick")
    assert series.shape == (3, 4, 9, 10)
    assert series.time == volume(random(3, 8, 9, 10)).time


def test_series_are_degraded_time_by_time() -> None:
    array = random(3, 8, 9, 10)
    series = degrade(volume(array), 2, sensor="mri").read().values
    for t in range(3):
        assert np.array_equal(series[t], degrade(volume(array[t]), 2, sensor="mri").read().values)


@pytest.mark.parametrize(
    ("dtype", "wanted"), [(np.int16, np.float32), (np.float64, np.float64), (np.int32, np.float64)]
)
def test_type_is_wide_enough(dtype: type, wanted: type) -> None:
    low = degrade(scene(random(1, 8, 8).astype(dtype)), 2, sensor="box")
    assert low.dtype == low.read().values.dtype == wanted


def test_millimetre_sensors_follow_the_grid() -> None:
    fine = Raster.from_array(random(12, 6, 6), affine=np.diag([1, 1, 1.5, 1]), axes="zyx")
    slab = {"z": {"kind": "box", "fwhm_mm": 3.0}, "y": "none", "x": "none"}
    low = degrade(fine, {"z": 4}, sensor=slab).read().values
    wanted = fine.read().values.reshape(3, 4, 6, 6)[:, 1:3].mean(axis=1)
    assert np.abs(low - wanted).max() < 1e-4


def test_noise_has_its_deviation_seed_and_switch() -> None:
    fine = scene(np.tile(np.linspace(0, 100, 400, dtype=np.float32), (1, 400, 1)))
    clean = degrade(fine, 2, sensor=NOISY, noise=False).read().values
    first = degrade(fine, 2, sensor=NOISY, seed=1).read().values
    assert np.std(first - clean) == pytest.approx(0.02 * 99, rel=0.05)
    assert np.array_equal(first, degrade(fine, 2, sensor=NOISY, seed=1).read().values)
    assert not np.array_equal(first, degrade(fine, 2, sensor=NOISY, seed=2).read().values)
    stated = degrade(fine, 2, sensor=NOISY, seed=1, data_range=1000.0).read().values
    assert np.std(stated - clean) == pytest.approx(20, rel=0.05)


def test_keyed_normal_is_normal_and_white() -> None:
    shape = (3, 300, 400)
    drawn = keyed_normal(0, 0, tuple(slice(0, n) for n in shape), shape)
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert (drawn**4).mean() == pytest.approx(3, abs=0.1)
    for axis in range(3):
        near = np.corrcoef(
            drawn.take(range(shape[axis] - 1), axis).ravel(), drawn.take(range(1, shape[axis]), axis).ravel()
        )
        assert abs(near[0, 1]) < 0.01
    other = keyed_normal(0, 1, tuple(slice(0, n) for n in shape), shape)
    assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.01


def test_reads_no_more_than_the_halo() -> None:
    array = random(1, 400, 30)
    seen: list[tuple[slice, ...]] = []

    class Watched(ArraySource):
        def read(self, window: tuple[slice, ...]) -> Any:
            seen.append(window)
            return super().read(window)

    low = degrade(scene(array).replace(source=Watched(array)), 2, sensor="generic-gaussian")
    low.read((slice(0, 1), slice(100, 110), slice(0, 15)))
    halo = load_sensor("generic-gaussian").radius(2, 2)[0]
    assert (seen[0][1].start, seen[0][1].stop) == (200 - halo, 220 + halo)


@pytest.mark.parametrize("kind", ["gaussian", "box"])
def test_a_sensor_is_found_from_a_pair(kind: str) -> None:
    fine = volume(random(40, 36, 38))
    truth = {"z": {"kind": kind, "fwhm": 1.3}, "y": {"kind": kind, "fwhm": 1.6}, "x": "none"}
    low = degrade(fine, {"z": 4, "y": 2}, sensor=truth)
    changed = low.replace(source=ArraySource(low.read().values * 2.5 - 30))
    found = fit_sensor(fine, changed, name="mine")
    assert found.sensor.z.kind == found.sensor.y.kind == kind
    assert found.sensor.z.fwhm == pytest.approx(1.3, abs=0.03)
    assert found.sensor.y.fwhm == pytest.approx(1.6, abs=0.03)
    assert found.gain == pytest.approx(2.5, rel=0.01)
    assert found.offset == pytest.approx(-30, abs=2)
    assert found.rmse < 0.005
    assert found.sensor.name == "mine"


def test_pairs_that_cannot_be_fitted_are_refused() -> None:
    fine = scene(random(1, 20, 20))
    low = degrade(fine, 2, sensor="box")
    with pytest.raises(GeometryError, match="register them first"):
        fit_sensor(fine.crop(y=slice(0, 10)), low)
    with pytest.raises(InputError, match="give the coarse image second"):
        fit_sensor(low, low)
    holed = random(1, 20, 20)
    holed[0, 9, 9] = np.nan
    with pytest.raises(InputError, match="holes in its middle"):
        fit_sensor(scene(holed), low)


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(GeometryError, match="no spatial axis z"):
        degrade(scene(random(1, 8, 8)), {"z": 2}, sensor="box")
    with pytest.raises(InputError, match="a sensor makes an image coarser"):
        degrade(scene(random(1, 8, 8)), 0.5, sensor="box")
    with pytest.raises(InputError, match="axis y has no profile"):
        degrade(volume(random(4, 8, 8)), 2, sensor="mri-thick")

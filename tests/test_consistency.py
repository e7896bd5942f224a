"""Consistency: what is measured, what back-projection removes, and independence of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sciSR.consistency import enforce, residual
from sciSR.degradation import degrade
from sciSR.errors import GeometryError, InputError
from sciSR.inference import upscale
from sciSR.journal import Journal, journalled
from sciSR.networks import build_network
from sciSR.raster import ArraySource, Raster
from sciSR.regrid import regrid
from sciSR.tiles import TileJob
from tests.made_files import Streamed


def random(*shape: int) -> NDArray[np.float32]:
    values = np.random.default_rng(1).normal(size=shape)
    return ndimage.gaussian_filter(values, (0,) * (len(shape) - 2) + (1.2, 1.2)).astype(np.float32) * 100


def scene(array: NDArray[Any]) -> Raster:
    return Raster.from_array(array, affine=np.array([[10, 0, 5e5], [0, -10, 4e6], [0, 0, 1]]), axes="cyx")


def volume(array: NDArray[Any]) -> Raster:
    return Raster.from_array(array, affine=np.diag([1, 1, 2, 1.0]), axes="tzyx"[-array.ndim :])


def held(raster: Raster) -> Raster:
    """The same in memory."""
    block = raster.read()
    values = block.values if block.valid is None else np.where(block.valid, block.values, np.nan)
    return raster.replace(source=ArraySource(values))


def pair(fine: Raster, scale: Any, sensor: Any) -> tuple[Raster, Raster]:
    """The coarse raster and its cubic interpolation."""
    low = held(degrade(fine, scale, sensor=sensor))
    return low, held(regrid(low, fine.grid.shape))


@pytest.mark.parametrize("scale", [2, {"y": 3.1, "x": 2}])
def test_truth_has_no_residual(scale: Any) -> None:
    fine = scene(random(2, 40, 44))
    found = residual(fine, degrade(fine, scale, sensor="s2"), "s2")
    assert found.relative < 1e-6
    assert found.pixels == np.prod(found.map.shape)


def test_residual_is_the_root_mean_square_over_the_range() -> None:
    fine = scene(random(1, 40, 40))
    low = held(degrade(fine, 2, sensor="box"))
    off = low.replace(source=ArraySource(low.read().values + 3))
    calls: list[tuple[int, int]] = []
    found = residual(fine, off, "box", data_range=60.0, progress=lambda done, total: calls.append((done, total)))
    assert found.rmse == pytest.approx(3, rel=1e-5)
    assert found.relative == pytest.approx(3 / 60, rel=1e-5)
    assert found.greatest == pytest.approx(3, rel=1e-4)
    assert np.abs(found.map.read().values + 3).max() < 1e-4
    assert calls[-1] == (400, 400)
    assert set(found.to_dict()) == {"rmse", "relative", "greatest", "data_range", "pixels", "sensor"}
    plain = residual(fine, off, "box")
    assert plain.data_range == pytest.approx(float(np.diff(np.percentile(off.read().values, [0.5, 99.5]))[0]))


def test_noise_of_the_sensor_is_left_out() -> None:
    fine = scene(random(1, 40, 40))
    noisy = {"axes": {"kind": "box"}, "noise": {"kind": "gaussian", "std": 0.5}}
    assert residual(fine, degrade(fine, 2, sensor="box"), noisy).relative < 1e-6


def test_pixels_without_a_value_do_not_count() -> None:
    array = random(1, 40, 40)
    fine = scene(array)
    low = held(degrade(fine, 2, sensor="box"))
    values = low.read().values.copy()
    values[0, :5] = np.nan
    holed = array.copy()
    holed[0, 30:] = np.nan
    found = residual(scene(holed), low.replace(source=ArraySource(values)), "box")
    assert found.pixels == 20 * 20 - 5 * 20 - 5 * 20
    assert found.relative < 1e-6
    with pytest.raises(InputError, match="nothing to compare"):
        residual(scene(np.full_like(array, np.nan)), low, "box")


@pytest.mark.parametrize(
    ("scale", "sensor"), [(2, "s2"), ({"y": 3}, "box"), ({"y": 2.3, "x": 3.4}, "generic-gaussian")]
)
def test_enforcing_removes_the_residual_of_a_scene(scale: Any, sensor: str) -> None:
    low, cubic = pair(scene(random(3, 60, 66)), scale, sensor)
    before = residual(cubic, low, sensor).relative
    assert residual(enforce(cubic, low, sensor), low, sensor).relative < 0.15 * before
    assert residual(enforce(cubic, low, sensor, iterations=0), low, sensor).relative == pytest.approx(before)


@pytest.mark.parametrize("scale", [2, {"z": 4}, {"z": 2.5}])
def test_enforcing_a_volume_brings_it_nearer_to_the_truth(scale: Any) -> None:
    truth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(20, 24, 26)), 1.3).astype(np.float32)
    low, cubic = pair(volume(truth), scale, "mri")
    better = enforce(cubic, low, "mri").read().values
    assert np.mean((better - truth) ** 2) < 0.9 * np.mean((cubic.read().values - truth) ** 2)


@pytest.mark.parametrize("scale", [2, {"y": 2.3, "x": 3.4}])
def test_blocks_agree_to_the_bit_and_tiles_with_the_whole(scale: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    array = random(2, 90, 96)
    array[1, 50:60, 20:33] = np.nan
    low, cubic = pair(scene(array), scale, "s2")
    whole = enforce(cubic, low, "s2").read()
    monkeypatch.setitem(__import__("sciSR.consistency.enforce", fromlist=["_TILE"])._TILE, 2, 13)
    tiled = enforce(cubic, low, "s2")
    assert len(list(tiled.stream())) > 6
    together = tiled.read()
    span = np.ptp(whole.values[whole.valid] if whole.valid is not None else whole.values)
    assert np.abs(together.values - whole.values)[whole.valid].max() < 4e-6 * span
    window = (slice(0, 2), slice(7, 55), slice(13, 80))
    assert np.array_equal(tiled.read(window).values, together.values[window])
    for place, block in tiled.stream():
        assert np.array_equal(block.values, together.values[place])
    exact = enforce(cubic, low, "s2", exact=True, iterations=2).read()
    monkeypatch.undo()
    once = enforce(cubic, low, "s2", exact=True, iterations=2).read()
    assert np.abs(exact.values - once.values)[whole.valid].max() < 1e-6 * span


@pytest.mark.parametrize("scale", [2, {"y": 2.3, "x": 3.4}])
def test_a_result_that_streams_is_taken_once(scale: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    array = random(2, 90, 96)
    array[1, 50:60, 20:33] = np.nan
    low, cubic = pair(scene(array), scale, "s2")
    monkeypatch.setitem(__import__("sciSR.consistency.enforce", fromlist=["_TILE"])._TILE, 2, 13)
    slabs = Streamed(cubic.read().values, chunks=(2, 7, cubic.shape[2]))
    enforced = enforce(cubic.replace(source=slabs), low, "s2")
    expected = enforce(cubic, low, "s2")
    for (place, block), (expected_place, known) in zip(enforced.stream(), expected.stream(), strict=True):
        assert place == expected_place
        np.testing.assert_array_equal(block.values, known.values)
        marks = [np.ones(block.values.shape, bool) if v is None else v for v in (block.valid, known.valid)]
        assert np.array_equal(marks[0], marks[1])


def test_back_projection_of_a_network_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low = scene(random(1, 40, 36))
    torch.manual_seed(0)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1)
    enforced = enforce(upscale(low, network, tile=16, precision="float32"), low, "box", iterations=2)
    plain = list(enforced.stream())
    journal = Journal(tmp_path / "j", "key")
    journal.open()
    list(journalled(enforced, journal).stream())
    assert journal.has(2)
    monkeypatch.setattr(TileJob, "run", lambda *_: pytest.fail("computed again"))
    for (place, block), (expected_place, known) in zip(journalled(enforced, journal).stream(), plain, strict=True):
        assert place == expected_place
        np.testing.assert_array_equal(block.values, known.values)


def test_series_keep_their_times_and_provenance_is_noted() -> None:
    series = volume(np.random.default_rng(0).normal(size=(2, 8, 12, 12)).astype(np.float32))
    low, cubic = pair(series, {"z": 2}, "mri-thick")
    both = enforce(cubic, low, "mri-thick")
    assert "data_consistency" in both.provenance
    for t in range(2):
        one = enforce(cubic.crop(t=slice(t, t + 1)), low.crop(t=slice(t, t + 1)), "mri-thick")
        assert np.array_equal(both.read().values[t], one.read().values[0])


def test_holes_pull_at_nothing_and_a_floor_holds() -> None:
    array = np.abs(random(1, 40, 40))
    low, cubic = pair(scene(array), 2, "box")
    values = low.read().values.copy()
    values[0, 8:12, 8:12] = np.nan
    holed = enforce(cubic, low.replace(source=ArraySource(values)), "box", floor=0.0).read().values
    assert np.isfinite(holed).all()
    assert holed.min() >= 0
    assert np.abs(holed[0, 18:22, 18:22] - cubic.read().values[0, 18:22, 18:22]).max() < 5


def test_wrong_pairs_are_refused() -> None:
    fine = scene(random(1, 40, 40))
    low = degrade(fine, 2, sensor="box")
    with pytest.raises(GeometryError, match="compare a result with its own input"):
        residual(fine.crop(y=slice(0, 20)), low, "box")
    with pytest.raises(InputError, match="times or channels"):
        enforce(scene(random(2, 40, 40)), low, "box")
    with pytest.raises(InputError, match="iterations -1"):
        enforce(fine, low, "box", iterations=-1)
    with pytest.raises(InputError, match="makes an image coarser"):
        enforce(low, fine, "box")

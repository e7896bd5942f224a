"""Real pairs: the displacement that is measured, and what moves it away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from sciSR.degradation import load_sensor
from sciSR.errors import GeometryError
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Reference, decode
from sciSR.sampling.pairs import moved, pair_shift
from sciSR.training import train
from tests.training_cases import QUICK


def fine(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    values = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), 2.0)
    scaled: np.ndarray[Any, Any] = (values / values.std()).astype(np.float32)
    return scaled


def pair(shape: tuple[int, ...], shift: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A fine image, and what a sensor of half the resolution sees of it displaced."""
    values = fine(shape)
    seen = torch.from_numpy(ndimage.shift(values, shift, order=3, mode="mirror"))[None, None]
    low = load_sensor("generic-gaussian").apply(seen, 2)[0]
    return low, torch.from_numpy(values)[None]


@pytest.mark.parametrize(
    ("shape", "shift"), [((80, 96), (0.0, 0.0)), ((80, 96), (0.6, -1.3)), ((40, 44, 48), (0.5, -0.25, 3.0))]
)
def test_a_displacement_is_found_to_a_tenth_of_a_pixel(shape: tuple[int, ...], shift: tuple[float, ...]) -> None:
    low, high = pair(shape, shift)
    assert pair_shift(low, high) == pytest.approx(shift, abs=0.1)


def test_gain_and_offset_do_not_look_like_one() -> None:
    low, high = pair((80, 96), (0.6, -1.3))
    assert pair_shift(3 * low + 7, high) == pytest.approx((0.6, -1.3), abs=0.1)


def test_a_flat_pair_stands_still() -> None:
    assert pair_shift(torch.zeros(1, 10, 10), torch.zeros(1, 20, 20)) == (0.0, 0.0)


def test_moving_back_leaves_nothing_and_marks_the_rim() -> None:
    low, high = pair((80, 96), (1.0, -3.0))
    back, inside = moved(low, (0.5, -1.5))
    assert pair_shift(back, high) == pytest.approx((0, 0), abs=0.05)
    assert bool(inside[:-1, 2:].all())
    assert not bool(inside[-1].any() or inside[:, 0].any())


def rasters(shift: tuple[float, ...]) -> tuple[Raster, Raster]:
    low, high = pair((80, 96), shift)
    fine_map, coarse_map = np.diag([10.0, -10.0, 1.0]), np.diag([20.0, -20.0, 1.0])
    return (
        Raster.from_array(high[0].numpy(), affine=fine_map, axes="yx", name="fine"),
        Raster.from_array(low[0].numpy(), affine=coarse_map, axes="yx", name="coarse"),
    )


def test_decoding_moves_it_on_request() -> None:
    high, low = rasters((0.8, 0.4))
    options: dict[str, Any] = {"normalization": Normalization(), "channels": 1, "scale": (2, 2)}
    (left,), (put,) = (decode(Reference(high, low=low, align=align), **options) for align in (False, True))
    assert left.shift == pytest.approx(put.shift, abs=1e-9)
    assert left.shift == pytest.approx((0.8, 0.4), abs=0.1)
    assert left.low is not None
    assert put.low is not None
    assert pair_shift(put.low, put.high) == pytest.approx((0, 0), abs=0.05)
    assert left.valid is None
    assert put.valid is not None
    assert not bool(put.valid[-2:].any())


@pytest.mark.parametrize("align", [False, True])
def test_training_reports_it(tmp_path: Path, caplog: pytest.LogCaptureFixture, align: bool) -> None:
    high, low = rasters((0.8, 0.4))
    options = QUICK | {"sensor": None, "steps": 2}
    with caplog.at_level("INFO", logger="sciSR.training.data"):
        result = train(
            Reference(high, low=low, align=align, held_out={"x": (50, 96)}), tmp_path / "net.safetensors", **options
        )
    told = result.values["data"][0]["low"]
    assert told["aligned"] is align
    assert told["shift"] == pytest.approx((0.8, 0.4), abs=0.1)
    assert ("the network will learn that too" in caplog.text) is not align
    assert "coarse: displaced by y +0." in caplog.text


def test_pictures_need_only_sizes_that_fit() -> None:
    low, high = pair((80, 96), (0.0, 0.0))
    fine, coarse, other = (
        Raster.from_array(v.numpy(), affine=np.eye(3), axes="yx", name=name)
        for v, name in ((high[0], "fine"), (low[0], "coarse"), (low[0, :-1], "other"))
    )
    options: dict[str, Any] = {"normalization": Normalization(), "channels": 1, "scale": (2, 2)}
    (crop,) = decode(Reference(fine, low=coarse), **options)
    assert crop.low is not None
    with pytest.raises(GeometryError, match="crop or regrid one of them"):
        decode(Reference(fine, low=other), **options)
    placed = rasters((0.0, 0.0))[0]
    with pytest.raises(GeometryError, match="does not cover the field of view"):
        decode(Reference(placed, low=coarse), **options)


def test_of_a_pair_each_is_mapped_by_its_own_percentiles() -> None:
    """A coarse scan of other gain and offset teaches what one without them does, as its own map is used afterwards."""
    high, low = rasters((0.0, 0.0))
    loud = low.replace(source=Raster.from_array(low.read().values * 3 + 100, affine=np.eye(3), axes="yx").source)
    options: dict[str, Any] = {"normalization": Normalization("percentile"), "channels": 1, "scale": (2, 2)}
    (plain,), (other,) = (decode(Reference(high, low=coarse), **options) for coarse in (low, loud))
    assert plain.low is not None
    assert other.low is not None
    torch.testing.assert_close(plain.low, other.low, atol=1e-4, rtol=1e-4)
    assert other.gain == pytest.approx((1.0, 0.0), abs=0.1)
    own = Normalization("percentile").fit(low)
    np.testing.assert_allclose(plain.low[0], own.apply(low.read().values), atol=1e-6)


def test_another_gain_under_a_fixed_map_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    high, low = rasters((0.0, 0.0))
    loud = low.replace(source=Raster.from_array(low.read().values * 3 + 100, affine=np.eye(3), axes="yx").source)
    options = QUICK | {"sensor": None, "steps": 1, "normalization": {"kind": "fixed", "scale": (1.0,)}}
    for coarse, warned in ((low, False), (loud, True)):
        caplog.clear()
        result = train(
            Reference(high, low=coarse, held_out={"x": (50, 96)}), tmp_path / f"{warned}.safetensors", **options
        )
        assert ("times as wide as those of fine" in caplog.text) is warned
        told = result.values["data"][0]["low"]
        assert told["gain"] == pytest.approx(3.0 if warned else 1.0, rel=0.1)

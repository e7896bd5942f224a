"""SSIM: against scikit-image, in slabs, under masks, on thin axes."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from sciSR.errors import InputError
from sciSR.metrics import SSIMStream, ssim


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.cumsum(rng.normal(0, 60, shape), axis=-1) + 1000
    return target + rng.normal(0, 40, shape), target


def scikit(prediction: np.ndarray, target: np.ndarray, data_range: float, **options: object) -> float:
    value = structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image leaves it untyped
        prediction, target, data_range=data_range, gaussian_weights=True, use_sample_covariance=False, **options
    )
    return float(value)


@pytest.mark.parametrize("shape", [(11, 11), (23, 40), (150, 90), (12, 13, 21)])
def test_agrees_with_scikit_image(shape: tuple[int, ...]) -> None:
    prediction, target = pair(shape)
    expected = scikit(prediction, target, 2000.0)
    assert 0.1 < expected < 0.99
    assert ssim(prediction, target, data_range=2000.0) == pytest.approx(expected, abs=1e-9)


def test_float32_hounsfield_values_lose_nothing() -> None:
    prediction, target = (image.astype(np.float32) + 3000 for image in pair((20, 24)))
    expected = scikit(prediction.astype(np.float64), target.astype(np.float64), 4000.0)
    assert ssim(torch.from_numpy(prediction), torch.from_numpy(target), data_range=4000.0) == pytest.approx(
        expected, abs=1e-7
    )


def test_channels_and_items_are_averaged() -> None:
    prediction, target = pair((4, 16, 15))
    expected = np.mean([scikit(p, t, 900.0) for p, t in zip(prediction, target, strict=True)])
    batch = [torch.from_numpy(image).reshape(2, 2, 16, 15) for image in (prediction, target)]
    assert ssim(*batch, data_range=900.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_an_axis_shorter_than_the_window_takes_the_longest_odd_window_that_fits(n: int) -> None:
    prediction, target = pair((n, 16, 16))
    value = ssim(prediction, target, data_range=2000.0)
    assert 0 < value < 1
    assert ssim(target, target, data_range=2000.0) == pytest.approx(1)
    if n == 1:
        assert value == pytest.approx(ssim(prediction[0], target[0], data_range=2000.0), abs=1e-12)


@pytest.mark.parametrize("cuts", [(1, 2, 30), (10,), (11,), (3, 17)])
@pytest.mark.parametrize("ndim", [2, 3])
def test_slabs_give_the_value_of_the_whole(cuts: tuple[int, ...], ndim: int) -> None:
    prediction, target = (torch.from_numpy(image) for image in pair((33, 14, 13)[:ndim]))
    rng = np.random.default_rng(5)
    valid = torch.from_numpy(rng.random(target.shape) > 0.002)
    mask = torch.from_numpy(rng.random(target.shape) > 0.4)
    stream = SSIMStream(tuple(target.shape), data_range=2000.0)
    for a, b in zip((0, *cuts), (*cuts, 33), strict=True):
        stream.add(prediction[a:b], target[a:b], masks=mask[a:b][None], valid=valid[a:b])
    whole = ssim(prediction, target, data_range=2000.0, mask=mask, valid=valid)
    assert stream.counts[0] > 0
    assert stream.means[0] == pytest.approx(whole, abs=1e-12)


def test_the_mask_picks_windows_by_their_centre() -> None:
    prediction, target = pair((24, 24))
    _, full = structural_similarity(  # type: ignore[no-untyped-call]  # scikit-image leaves it untyped
        prediction, target, data_range=2000.0, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    mask = np.zeros((24, 24), bool)
    mask[0:9, 7:12] = True
    inner = np.zeros_like(mask)
    inner[5:-5, 5:-5] = True
    expected = full[mask & inner].mean()
    assert ssim(prediction, target, data_range=2000.0, mask=mask) == pytest.approx(expected, abs=1e-9)


def test_windows_that_reach_a_missing_pixel_do_not_count() -> None:
    prediction, target = pair((20, 30))
    whole = ssim(prediction[:, :14], target[:, :14], data_range=2000.0)
    valid = np.ones((20, 30), bool)
    valid[:, 14:] = False
    broken = prediction.copy()
    broken[:, 14:] = np.nan
    assert ssim(broken, target, data_range=2000.0, valid=valid) == pytest.approx(whole, abs=1e-12)


def test_nan_outside_the_mask_spoils_only_the_windows_that_reach_it() -> None:
    prediction, target = pair((20, 90))
    mask = np.zeros((20, 90), bool)
    mask[:, :20] = True
    clean = ssim(prediction, target, data_range=2000.0, mask=mask)
    prediction[10, 80] = np.nan
    assert ssim(prediction, target, data_range=2000.0, mask=mask) == pytest.approx(clean, abs=1e-12)


def test_nan_that_claims_to_be_valid_is_not_hidden() -> None:
    prediction, target = pair((20, 30))
    prediction[10, 10] = np.nan
    assert math.isnan(ssim(prediction, target, data_range=2000.0))


def test_no_window_at_all_gives_nan() -> None:
    prediction, target = pair((12, 12))
    valid = np.zeros((12, 12), bool)
    valid[3:6, 3:6] = True
    assert math.isnan(ssim(prediction, target, data_range=1.0, valid=valid))


def test_range_must_be_positive() -> None:
    with pytest.raises(InputError, match="data_range: -1"):
        ssim(np.zeros((12, 12)), np.zeros((12, 12)), data_range=-1)

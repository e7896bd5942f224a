"""Pixel errors: by hand, against scikit-image, under masks."""

import math

import numpy as np
import pytest
import torch
from skimage import metrics as reference

from sciSR.errors import InputError
from sciSR.metrics import mae, nrmse, psnr, rmse


def test_by_hand() -> None:
    target = np.array([[0.0, 10.0], [20.0, 30.0]])
    prediction = target + np.array([[1.0, -1.0], [3.0, -3.0]])
    assert mae(prediction, target) == 2.0
    assert rmse(prediction, target) == pytest.approx(math.sqrt(5))
    assert nrmse(prediction, target, data_range=30) == pytest.approx(math.sqrt(5) / 30)
    assert psnr(prediction, target, data_range=30) == pytest.approx(20 * math.log10(30 / math.sqrt(5)))


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 7)])
def test_psnr_agrees_with_scikit_image(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    target, prediction = rng.normal(500, 200, shape), rng.normal(500, 200, shape)
    expected = reference.peak_signal_noise_ratio(  # type: ignore[no-untyped-call]  # scikit-image leaves it untyped
        target, prediction, data_range=1800
    )
    assert psnr(prediction, target, data_range=1800) == pytest.approx(expected, abs=1e-10)


def test_a_batch_gives_the_mean_of_its_items_not_the_pooled_error() -> None:
    target = torch.zeros(2, 1, 4, 4)
    prediction = torch.cat([torch.full((1, 1, 4, 4), 0.1), torch.full((1, 1, 4, 4), 0.01)])
    assert psnr(prediction, target, data_range=1) == pytest.approx(30, abs=1e-5)
    assert rmse(prediction, target) == pytest.approx(0.055, abs=1e-7)


def test_equal_images_have_infinite_psnr_and_no_error() -> None:
    image = torch.rand(1, 2, 5, 5)
    assert psnr(image, image, data_range=1) == math.inf
    assert mae(image, image) == 0


def test_what_lies_outside_the_mask_counts_for_nothing_even_nan() -> None:
    target = torch.zeros(1, 2, 3, 3)
    prediction = torch.full_like(target, 2.0)
    prediction[..., 0] = torch.nan
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[:, 0] = False
    assert mae(prediction, target, mask=mask) == 2
    assert psnr(prediction, target, data_range=2, mask=mask.numpy()) == 0
    assert math.isnan(rmse(prediction, target))


def test_unsigned_integers_do_not_wrap() -> None:
    low, high = np.zeros((3, 3), np.uint16), np.full((3, 3), 7, np.uint16)
    assert mae(low, high) == mae(high, low) == 7


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mae(np.zeros((2, 2)), np.zeros((2, 3))), "shapes .* differ"),
        (lambda: mae(np.zeros(4), np.zeros(4)), "expected"),
        (lambda: psnr(np.zeros((2, 2)), np.zeros((2, 2)), data_range=0), "data_range: 0"),
        (lambda: psnr(np.zeros((2, 2)), np.zeros((2, 2)), data_range=float("nan")), "data_range"),
        (lambda: rmse(np.zeros((2, 2)), np.zeros((2, 2)), mask=np.zeros((2, 2), bool)), "no pixel"),
        (lambda: rmse(np.zeros((2, 2)), np.zeros((2, 2)), mask=np.ones((3, 3), bool)), "does not fit"),
    ],
)
def test_wrong_input_is_refused_in_words(call: object, words: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=words):
        call()

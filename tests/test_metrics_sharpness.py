"""HFEN: the filter is the one of the definition, and only detail counts."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from sciSR.errors import InputError
from sciSR.metrics import hfen


def kernel(ndim: int) -> NDArray[np.float64]:
    """Laplacian of a Gaussian as its definition says: 15 taps, sigma 1.5, sum 0."""
    r2 = sum(np.meshgrid(*[(np.arange(15) - 7.0) ** 2] * ndim, indexing="ij"))
    bell = np.exp(-r2 / (2 * 1.5**2))
    bell /= bell.sum()
    log = bell * (r2 - ndim * 1.5**2) / 1.5**4
    return np.asarray(log - log.mean())


@pytest.mark.parametrize("shape", [(31, 24), (17, 18, 20)])
def test_agrees_with_the_definition(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    target = rng.random(shape)
    prediction = target + 0.1 * rng.standard_normal(shape)
    error, reference = (ndimage.convolve(v, kernel(len(shape)), mode="reflect") for v in (prediction - target, target))
    expected = np.linalg.norm(error) / np.linalg.norm(reference)
    assert hfen(prediction, target) == pytest.approx(expected, rel=1e-9)


def test_an_offset_is_not_detail() -> None:
    target = np.random.default_rng(0).random((20, 20))
    assert hfen(target + 5, target) == pytest.approx(0, abs=1e-9)


def test_a_blur_is_worse_the_wider_it_is() -> None:
    target = np.random.default_rng(0).random((40, 40))
    values = [hfen(ndimage.gaussian_filter(target, width), target) for width in (0.5, 1, 2, 8)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1, abs=0.01)


def test_a_mask_picks_pixels_and_one_pixel_axes_drop_out() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((30, 30))
    prediction = target.copy()
    prediction[20:, 20:] += rng.random((10, 10))
    mask = np.zeros((30, 30), bool)
    mask[:10, :10] = True
    assert hfen(prediction, target, mask=mask) == 0
    assert hfen(prediction, target) > 0.1
    assert hfen(prediction[None], target[None]) == pytest.approx(hfen(prediction, target))


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match="differ"):
        hfen(np.zeros((4, 4)), np.zeros((4, 5)))

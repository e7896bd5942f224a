"""Displacement by phase correlation: known shifts, and scikit-image's answer."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from sciSR.errors import InputError
from sciSR.metrics import spatial_shift


def moved(image: NDArray[np.float64], by: tuple[float, ...]) -> NDArray[np.float64]:
    """A periodic sub-pixel displacement through the spectrum."""
    phase = sum(
        np.expand_dims(np.fft.fftfreq(n) * d, tuple(a for a in range(image.ndim) if a != axis))
        for axis, (n, d) in enumerate(zip(image.shape, by, strict=True))
    )
    return np.fft.ifftn(np.fft.fftn(image) * np.exp(-2j * np.pi * np.asarray(phase))).real


@pytest.mark.parametrize(
    ("shape", "by"),
    [
        ((31, 33), (0.37, -2.61)),
        ((32, 40), (0.0, 0.5)),
        ((15, 17, 19), (1.25, -0.4, 3.08)),
        ((1, 21, 23), (0, 0.3, -0.7)),
    ],
)
def test_finds_known_displacements(shape: tuple[int, ...], by: tuple[float, ...]) -> None:
    image = np.random.default_rng(0).random(shape)
    odd = moved(image, by)
    assert spatial_shift(odd, image) == pytest.approx(by, abs=0.011)
    assert spatial_shift(image, odd) == pytest.approx([-v for v in by], abs=0.011)


@pytest.mark.parametrize("upsampling", [1, 50])
def test_agrees_with_scikit_image(upsampling: int) -> None:
    rng = np.random.default_rng(1)
    image = rng.random((40, 37))
    other = moved(image, (1.4, -0.82)) + 0.2 * rng.random((40, 37))
    registered, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]  # scikit-image leaves it untyped
        image, other, upsample_factor=upsampling
    )
    assert spatial_shift(other, image, upsampling=upsampling) == pytest.approx(-registered, abs=1e-9)


def test_a_batch_gives_the_mean_and_channels_are_averaged() -> None:
    image = np.random.default_rng(0).random((24, 24))
    pair = np.stack([np.roll(image, (2, 0), (0, 1)), np.roll(image, (4, 1), (0, 1))])[:, None]
    batch = torch.from_numpy(np.concatenate([pair, pair], axis=1))
    fixed = torch.from_numpy(np.broadcast_to(image, (2, 2, 24, 24)).copy())
    assert spatial_shift(batch, fixed) == pytest.approx((3, 0.5))


def test_upsampling_must_be_whole_steps() -> None:
    with pytest.raises(InputError, match="upsampling 0"):
        spatial_shift(np.eye(8), np.eye(8), upsampling=0)

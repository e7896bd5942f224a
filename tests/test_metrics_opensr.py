"""The opensr-test families: the package's own numbers on the same arrays, and what they mean."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR.errors import InputError
from sciSR.metrics.opensr import consistency, correctness, harmonized, synthesis

CASES = [(0, 4, 4, 0.0), (1, 2, 3, 0.7), (2, 4, 4, 1.5)]
"""Seed, factor, bands, displacement in high-resolution pixels."""


def smooth(image: NDArray[np.float64], width: float, moved: float = 0.0) -> NDArray[np.float64]:
    """A periodic Gaussian blur and a displacement down and to the left, through the spectrum."""
    spectrum = np.fft.fft2(image)
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape[-2:]), indexing="ij")
    bell = np.exp(-2 * (np.pi * width) ** 2 * (y**2 + x**2))
    return np.fft.ifft2(spectrum * bell * np.exp(-2j * np.pi * moved * (y - x))).real


def triplet(
    seed: int, scale: int, bands: int, moved: float, n: int = 24
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Low, result and truth: the result holds half of the missing detail, some invented one, and a small offset."""
    rng = np.random.RandomState(seed)
    size = n * scale
    texture = 0.6 * smooth(rng.standard_normal((bands, size, size)), 1.2)
    truth = 0.3 * np.linspace(0.5, 1.5, bands)[:, None, None] + 0.2 * texture
    low = truth.reshape(bands, n, scale, n, scale).mean(axis=(2, 4))
    coarse = smooth(low.repeat(scale, axis=1).repeat(scale, axis=2), scale / 3)
    invented = 0.05 * smooth(rng.standard_normal(truth.shape), 1.0)
    result = smooth(coarse + 0.5 * (truth - coarse) + invented, 0.0, moved) + 0.01
    return low[None], result[None], truth[None]


# From opensr-test 1.3.3 (with satalign 0.1.17), Metrics().compute on these arrays in float32, all settings default.
PACKAGE = {
    CASES[0]: {
        "reflectance": 0.012532, "spectral": 1.661572, "spatial": 0.028284, "synthesis": 0.015621,
        "ha_metric": 0.421273, "om_metric": 0.245612, "im_metric": 0.333115,
    },
    CASES[1]: {
        "reflectance": 0.019017, "spectral": 2.609709, "spatial": 0.372021, "synthesis": 0.014822,
        "ha_metric": 0.7693, "om_metric": 0.139448, "im_metric": 0.091252,
    },
    CASES[2]: {
        "reflectance": 0.014727, "spectral": 2.203293, "spatial": 0.425206, "synthesis": 0.017244,
        "ha_metric": 0.622402, "om_metric": 0.275809, "im_metric": 0.101789,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_package(case: tuple[int, int, int, float]) -> None:
    low, result, truth = triplet(*case)
    expected = PACKAGE[case]
    seen = consistency(low, result)
    assert seen.reflectance == pytest.approx(expected["reflectance"], rel=1e-4)
    assert seen.spectral == pytest.approx(expected["spectral"], rel=1e-4)
    assert seen.spatial == pytest.approx(expected["spatial"], abs=1e-4)
    assert synthesis(low, result, truth) == pytest.approx(expected["synthesis"], rel=1e-3)
    shares = correctness(low, result, truth)
    assert shares.improvement == pytest.approx(expected["im_metric"], abs=2e-4)
    assert shares.omission == pytest.approx(expected["om_metric"], abs=2e-4)
    assert shares.hallucination == pytest.approx(expected["ha_metric"], abs=2e-4)


def test_the_truth_improves_and_the_interpolation_omits() -> None:
    low, _, truth = triplet(*CASES[0])
    best = correctness(low, truth, truth)
    assert best.improvement > 0.8
    lazy = correctness(low, low.repeat(4, axis=2).repeat(4, axis=3), truth)
    assert lazy.omission > lazy.improvement
    assert lazy.omission > lazy.hallucination


def test_noise_hallucinates() -> None:
    low, _, truth = triplet(*CASES[0])
    noise = truth + 0.5 * smooth(np.random.RandomState(9).standard_normal(truth.shape), 1.0)
    shares = correctness(low, noise, truth)
    assert shares.hallucination > 0.5
    assert shares.improvement + shares.omission + shares.hallucination == pytest.approx(1)


def test_a_result_that_averages_to_its_input_is_consistent() -> None:
    low, _, truth = triplet(*CASES[0])
    good, off = consistency(low, truth), consistency(low, truth + 0.05)
    assert good.reflectance < 0.02
    assert off.reflectance == pytest.approx(0.05, abs=0.01)
    assert off.spectral > good.spectral


def test_the_displacement_is_in_low_resolution_pixels() -> None:
    low, _, truth = triplet(5, 4, 3, 0.0, n=40)
    moved = smooth(truth, 0.0, 4.0)
    assert consistency(low, moved).spatial == pytest.approx(math.sqrt(2), abs=0.2)


def test_a_common_displacement_and_gain_are_taken_out_before_detail_is_judged() -> None:
    _, _, truth = triplet(*CASES[0])
    odd = torch.from_numpy(smooth(truth, 0.0, 1.0) * 1.1 + 0.02)
    fixed = harmonized(odd, torch.from_numpy(truth))[..., 4:-4, 4:-4]
    expected = torch.from_numpy(truth)[..., 4:-4, 4:-4]
    assert float((fixed - expected).abs().mean()) < 0.1 * float((odd[..., 4:-4, 4:-4] - expected).abs().mean())


def test_what_does_not_fit_is_refused() -> None:
    low, result, truth = triplet(*CASES[0])
    with pytest.raises(InputError, match="whole factor"):
        consistency(low[..., :-1], result)
    with pytest.raises(InputError, match="truth of shape"):
        synthesis(low, result, truth[..., :-4])
    with pytest.raises(InputError, match="nothing is left"):
        consistency(low, result, border=47)

"""Interpolation: constants, ramps, borders, equality of the fast and the general way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from sciSR.errors import InputError
from sciSR.kernels import KERNELS, box_kernel, centres, gaussian_kernel, ramped_kernel, sinc_kernel, taps
from sciSR.resampling import apply_taps, mirror_pad, resample, resample_axis, sample_axis, upsample

SMOOTH = [name for name in KERNELS if name != "box"]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kernel", ["nearest", *KERNELS])
@pytest.mark.parametrize("size", [5, 12, 23, 40])
def test_constant_stays_constant(kernel: str, size: int) -> None:
    out = resample(torch.full((1, 2, 12, 12), 7.25, dtype=torch.float64), (size, size), kernel=kernel)
    assert (out - 7.25).abs().max() < 1e-12


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
@pytest.mark.parametrize("size", [13, 24, 36, 61])
def test_ramp_of_the_world_is_met_at_pixel_centres(kernel: str, size: int) -> None:
    n = 12
    ramp = torch.arange(n, dtype=torch.float64).add(0.5).div(n).reshape(1, 1, 1, n)
    out = resample_axis(ramp, 3, size, kernel=kernel)[0, 0, 0]
    world = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    inside = (world > 2.5 / n) & (world < 1 - 2.5 / n)
    assert (out - world)[inside].abs().max() < 1e-12


def test_keys_cubic_reproduces_parabolas() -> None:
    n, size = 16, 48
    at = torch.from_numpy(centres(n, n))
    fine = torch.from_numpy(centres(n, size))
    out = resample_axis((at**2).reshape(1, 1, 1, n), 3, size, kernel="cubic")[0, 0, 0]
    inside = (fine > 2) & (fine < n - 3)
    assert (out - fine**2)[inside].abs().max() < 1e-11


@pytest.mark.parametrize("kernel", SMOOTH)
@pytest.mark.parametrize("scale", [(2, 2), (3, 1), (4, 5)])
def test_upsample_equals_resample(kernel: str, scale: tuple[int, int]) -> None:
    x = noise(2, 3, 9, 14)
    wanted = resample(x, (9 * scale[0], 14 * scale[1]), kernel=kernel)
    assert (upsample(x, scale, kernel=kernel) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("n", [1, 2, 3])
def test_axes_shorter_than_the_kernel(n: int) -> None:
    x = noise(1, 1, n, 6)
    assert (upsample(x, (2, 2)) - resample(x, (2 * n, 12))).abs().max() < 1e-12
    assert upsample(x, (2, 2)).shape == (1, 1, 2 * n, 12)


def test_three_axes_and_a_factor_of_one() -> None:
    x = noise(1, 1, 4, 5, 6)
    out = upsample(x, (3, 1, 1))
    assert out.shape == (1, 1, 12, 5, 6)
    assert (out[:, :, 1::3] - x).abs().max() < 1e-12


@pytest.mark.parametrize("before", [0, 2, 13])
def test_mirror_pad_is_numpys_symmetric(before: int) -> None:
    x = noise(1, 1, 5, 3)
    wanted = np.pad(x.numpy(), ((0, 0), (0, 0), (before, 4), (0, 0)), mode="symmetric")
    assert np.array_equal(mirror_pad(x, 2, before, 4).numpy(), wanted)


def test_gaussian_sampling_is_scipys() -> None:
    x = noise(1, 1, 24, 30)
    sigma = 3 / (2 * np.sqrt(2 * np.log(2)))
    blurred = ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="reflect", truncate=4.0)
    out = sample_axis(sample_axis(x, 2, 8, [gaussian_kernel(3)]), 3, 10, [gaussian_kernel(3)])
    assert np.abs(out[0, 0].numpy() - blurred[1::3, 1::3]).max() < 1e-4


@pytest.mark.parametrize("kernel", [gaussian_kernel(3.5), gaussian_kernel(0.1), box_kernel(4), ramped_kernel(4, 0.5)])
@pytest.mark.parametrize("n", [8, 20, 4])
def test_strided_sampling_equals_the_general_one(kernel: object, n: int) -> None:
    x = noise(1, 2, n, 3)
    index, weight = taps(centres(n, n // 4), n, kernel)  # type: ignore[arg-type]  # parametrized
    assert (sample_axis(x, 2, n // 4, [kernel]) - apply_taps(x, 2, index, weight)).abs().max() < 1e-12  # type: ignore[list-item]  # parametrized


def test_one_kernel_per_channel() -> None:
    x = noise(1, 2, 12, 4)
    both = sample_axis(x, 2, 4, [gaussian_kernel(2), gaussian_kernel(5)])
    for channel, fwhm in enumerate((2, 5)):
        alone = sample_axis(x[:, channel : channel + 1], 2, 4, [gaussian_kernel(fwhm)])
        assert (both[:, channel : channel + 1] - alone).abs().max() < 1e-12
    odd = sample_axis(x, 2, 5, [gaussian_kernel(2), gaussian_kernel(5)])
    assert (odd[:, 1:] - sample_axis(x[:, 1:], 2, 5, [gaussian_kernel(5)])).abs().max() < 1e-12


def test_box_of_one_pixel_is_the_mean() -> None:
    x = noise(1, 1, 12, 9)
    out = sample_axis(sample_axis(x, 2, 4, [box_kernel(3)]), 3, 3, [box_kernel(3)])
    assert (out[0, 0] - x[0, 0].reshape(4, 3, 3, 3).mean(dim=(1, 3))).abs().max() < 1e-12


def test_kernels_have_the_width_they_state() -> None:
    d = np.linspace(0, 20, 20001)
    for kernel, width in ((gaussian_kernel(6), 6.0), (ramped_kernel(6, 0.5), 6.0), (ramped_kernel(6, 1.0), 6.0)):
        values = kernel(d) / kernel(np.zeros(1))
        half = d[np.flatnonzero(values >= 0.5)[-1]]
        assert half * 2 == pytest.approx(width, abs=0.05)
        assert kernel(np.array([kernel.radius + 0.01]))[0] == 0


def test_sinc_passes_what_is_below_nyquist() -> None:
    n, step = 240, 4
    at = torch.arange(n, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * at / 16).reshape(1, 1, 1, n)
    out = sample_axis(wave, 3, n // step, [sinc_kernel(step, 6)])[0, 0, 0]
    wanted = torch.cos(2 * torch.pi * torch.from_numpy(centres(n, n // step)) / 16)
    assert (out - wanted)[8:-8].abs().max() < 0.02


def test_results_can_be_differentiated() -> None:
    x = noise(1, 2, 6, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: upsample(v, (2, 2)), x)
    assert torch.autograd.gradcheck(lambda v: sample_axis(v, 3, 4, [gaussian_kernel(2), gaussian_kernel(3)]), x)
    assert torch.autograd.gradcheck(lambda v: resample(v, (5, 11)), x)


def test_unknown_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="'sinc5' is not one of nearest"):
        resample(noise(1, 1, 4, 4), (8, 8), kernel="sinc5")


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("period", [1, 2, 5, 9])
def test_weighted_sums_do_not_depend_on_how_rows_are_taken(dim: int, channels: int, step: int, period: int) -> None:
    rng = np.random.default_rng(step)
    x = torch.from_numpy(rng.normal(size=(2, channels, 130, 131)))
    places, phase = np.divmod(np.arange(40), period)
    index = np.abs((places * step + (2 * phase > period))[:, None] + np.arange(-3, 4))
    index[35:] = index[35:, ::-1]
    weight = rng.normal(size=(channels, 40, 7)) if channels > 1 else rng.normal(size=(40, 7))
    moved = x.movedim(dim, -1).numpy()
    picked = moved[..., index]
    each = weight if channels == 1 else weight[:, None]
    expected = np.moveaxis((picked * each).sum(-1), -1, dim)
    np.testing.assert_allclose(apply_taps(x, dim, index, weight).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [40, 36, 30])
def test_weighted_sums_have_the_gradient_of_their_weights(size: int) -> None:
    n = 20
    index, weight = taps(centres(n, size), n, KERNELS["cubic"])
    x = torch.randn(1, 1, n, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(apply_taps(x, 2, index, weight).sum(), x)
    expected = np.zeros(n)
    np.add.at(expected, index, weight)
    np.testing.assert_allclose(gradient[0, 0].numpy(), expected, rtol=0, atol=1e-12)

"""MS-SSIM: against MONAI at every number of scales, and on what is small or thin."""

import numpy as np
import pytest
import torch
from monai.metrics.regression import MultiScaleSSIMMetric

from sciSR.metrics import ms_ssim, ssim


def pair(shape: tuple[int, ...], noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(shape, generator=generator, dtype=torch.float64).cumsum(-1).cos() * 0.5 + 0.5
    return target + noise * torch.randn(shape, generator=generator, dtype=torch.float64), target


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((2, 1, 180, 200), 5), ((1, 1, 100, 104), 4), ((1, 1, 30, 43), 2), ((1, 1, 24, 26, 30), 2)],
)
def test_agrees_with_monai(shape: tuple[int, ...], scales: int) -> None:
    prediction, target = pair(shape)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    metric = MultiScaleSSIMMetric(len(shape) - 2, data_range=1.0, weights=tuple(weights / weights.sum()))
    expected = float(torch.as_tensor(metric(prediction.float(), target.float())).mean())
    assert ms_ssim(prediction, target, data_range=1.0) == pytest.approx(expected, abs=2e-5)


def test_equal_images_give_one_in_2d_and_3d() -> None:
    for shape in ((1, 2, 40, 30), (1, 1, 24, 26, 22), (5, 7)):
        image = torch.rand(shape)
        assert ms_ssim(image, image, data_range=1.0) == pytest.approx(1, abs=1e-9)


def test_an_image_with_room_for_one_scale_gives_ssim() -> None:
    prediction, target = pair((1, 1, 21, 20))
    assert ms_ssim(prediction, target, data_range=1.0) == pytest.approx(
        ssim(prediction, target, data_range=1.0), abs=1e-12
    )


def test_a_thin_axis_is_not_averaged_and_does_not_end_the_scales() -> None:
    prediction, target = pair((1, 1, 3, 64, 64))
    thin = ms_ssim(prediction, target, data_range=1.0)
    assert 0 < thin < 1
    assert thin != pytest.approx(ssim(prediction, target, data_range=1.0), abs=1e-3)


def test_more_noise_is_worse() -> None:
    values = [ms_ssim(*pair((1, 1, 96, 96), noise), data_range=1.0) for noise in (0.01, 0.1, 0.4)]
    assert values == sorted(values, reverse=True)
    assert np.all(np.diff(values) < -0.005)

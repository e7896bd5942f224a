"""SAM, ERGAS, UIQI by hand and against references."""

import math

import numpy as np
import pytest
import torch

from sciSR.errors import InputError
from sciSR.metrics import ergas, sam, uiqi


def pair(shape: tuple[int, ...] = (2, 4, 20, 24)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64), target


def test_sam_is_the_mean_angle_of_the_spectra() -> None:
    prediction, target = (v.numpy() for v in pair((1, 4, 5, 6)))
    angles = [
        math.degrees(math.acos(float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))))
        for a, b in zip(prediction.reshape(4, -1).T, target.reshape(4, -1).T, strict=True)
    ]
    assert sam(prediction, target) == pytest.approx(np.mean(angles), rel=1e-9)


def test_sam_and_ergas_agree_with_torchmetrics() -> None:
    reference = pytest.importorskip("torchmetrics.functional.image")
    prediction, target = pair()
    angle = reference.spectral_angle_mapper(prediction, target)
    assert sam(prediction, target) == pytest.approx(math.degrees(float(angle)), rel=1e-9)
    error = reference.error_relative_global_dimensionless_synthesis(prediction, target, ratio=4)
    assert ergas(prediction, target, scale=4) == pytest.approx(float(error), rel=1e-6)


def test_sam_ignores_brightness_and_counts_angles() -> None:
    _, target = pair()
    assert sam(3 * target, target) == pytest.approx(0, abs=1e-5)
    turned = torch.stack([-target[:, 1], target[:, 0]], dim=1)
    assert sam(turned, target[:, :2]) == pytest.approx(90)


def test_sam_leaves_out_zero_spectra_and_what_is_masked() -> None:
    prediction, target = pair((1, 3, 4, 4))
    target[..., 0, 0] = 0
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1:] = False
    cosine = (prediction * target).sum(1) / (prediction.norm(dim=1) * target.norm(dim=1))
    expected = math.degrees(float(cosine[0, 0, 1:].acos().mean()))
    assert sam(prediction, target, mask=mask) == pytest.approx(expected)


def test_sam_of_volumes() -> None:
    prediction, target = pair((1, 3, 2, 10, 12))
    flat = [v.reshape(1, 3, 20, 12) for v in (prediction, target)]
    assert sam(prediction, target) == pytest.approx(sam(*flat))


def test_sam_needs_two_bands() -> None:
    with pytest.raises(InputError, match="two or more"):
        sam(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))


def test_ergas_by_hand_and_under_a_mask() -> None:
    target = torch.full((1, 2, 4, 4), 10.0)
    target[:, 1] = 20
    prediction = target + torch.tensor([1.0, 4.0]).reshape(1, 2, 1, 1)
    expected = 100 / 2 * math.sqrt((0.1**2 + 0.2**2) / 2)
    assert ergas(prediction, target, scale=2) == pytest.approx(expected)
    prediction[..., 0] = math.nan
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[:, 0] = False
    assert ergas(prediction, target, scale=2, mask=mask) == pytest.approx(expected)
    with pytest.raises(InputError, match="scale 0"):
        ergas(target, target, scale=0)


def by_definition(x: np.ndarray, y: np.ndarray, size: int) -> float:
    """The index window by window, with the sample variances of the paper."""
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = (v[i : i + size, j : j + size].ravel() for v in (x, y))
            (aa, ab), (_, bb) = np.cov(a, b)
            values.append(4 * ab * a.mean() * b.mean() / ((aa + bb) * (a.mean() ** 2 + b.mean() ** 2)))
    return float(np.mean(values))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_uiqi_is_the_paper_s(offset: float) -> None:
    rng = np.random.default_rng(0)
    target = rng.random((14, 15)) + offset
    prediction = target + 0.2 * rng.standard_normal(target.shape)
    assert uiqi(prediction, target) == pytest.approx(by_definition(prediction, target, 8), abs=1e-9)


def test_uiqi_of_constants_is_their_luminance() -> None:
    assert uiqi(np.full((9, 9), 2.0), np.full((9, 9), 1.0)) == pytest.approx(0.8)
    assert uiqi(np.zeros((9, 9)), np.zeros((9, 9))) == 1
    assert uiqi(np.ones((9, 9)), np.ones((9, 9))) == 1


def test_uiqi_of_thin_volumes() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((2, 12, 12)) + 1
    assert uiqi(target, target) == pytest.approx(1)
    assert 0 < uiqi(target + 0.2 * rng.standard_normal(target.shape), target) < 1

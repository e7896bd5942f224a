"""Losses: right by hand, zero at perfection, a gradient that leads there, in 2D and 3D, by name and in sums."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciSR import metrics
from sciSR.errors import InputError
from sciSR.losses import LOSSES, Content, DataConsistency, Perceptual, WeightedSum, build_loss
from sciSR.losses.pixel import L1, L2, Charbonnier, Edge, Fourier, Gradient, TotalVariation
from sciSR.losses.structural import MSSSIM, SSIM
from sciSR.metrics.features import build_backbone
from sciSR.sensors import Profile, Sensor

SENSOR = Sensor("box", z=Profile("box"), y=Profile("box"), x=Profile("box"))
SHAPES = [(2, 1, 24, 32), (1, 4, 32, 24), (1, 2, 12, 14, 16)]
OPTIONS: dict[str, dict[str, Any]] = {
    "perceptual": {"backbone": "vgg16", "seed": 0, "layers": ["relu1_2", "relu2_2"]},
    "content": {"backbone": "vgg19", "seed": 0, "layer": "relu2_2"},
}


def pair(shape: tuple[int, ...], noise: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    return target + noise * torch.randn(shape, generator=generator), target


def build(name: str, ndim: int) -> Any:
    term = {name: {"weight": 1.0, **OPTIONS.get(name, {})}}
    return build_loss(term, ndim=ndim, data_range=1.0, sensor=SENSOR, scale=2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "total_variation"])
def test_zero_at_perfection_positive_elsewhere_and_larger_when_worse(name: str, shape: tuple[int, ...]) -> None:
    loss = build(name, len(shape) - 2)
    prediction, target = pair(shape)
    assert float(loss(target, target)) == pytest.approx(0, abs=2e-6)
    small, large = float(loss(prediction, target)), float(loss(pair(shape, 0.3)[0], target))
    assert 0 < small < large


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_following_the_gradient_lowers_it(name: str, shape: tuple[int, ...]) -> None:
    loss = build(name, len(shape) - 2)
    start, target = pair(shape)
    prediction = start.clone().requires_grad_(True)
    value = loss(prediction, target)
    assert value.shape == ()
    (slope,) = torch.autograd.grad(value, prediction)
    assert torch.isfinite(slope).all()
    step = 1e-3 * slope / slope.abs().max()
    assert float(loss(start - step, target)) < value.item()


def test_pixel_losses_by_hand() -> None:
    target = torch.zeros(1, 1, 2, 2)
    prediction = torch.tensor([[1.0, -1.0], [3.0, 0.0]]).reshape(1, 1, 2, 2)
    assert float(L1()(prediction, target)) == 5 / 4
    assert float(L2()(prediction, target)) == 11 / 4
    expected = sum(math.sqrt(e * e + 0.25) - 0.5 for e in (1, 1, 3, 0)) / 4
    assert float(Charbonnier(eps=0.5)(prediction, target)) == pytest.approx(expected)


def test_gradient_loss_is_the_error_of_the_differences() -> None:
    target = torch.zeros(1, 1, 2, 3)
    prediction = torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]]).reshape(1, 1, 2, 3)
    assert float(Gradient()(prediction, target)) == pytest.approx((0 + (1 + 2) / 2) / 2)
    assert float(Gradient()(prediction + 7, prediction)) == pytest.approx(0, abs=1e-6)


def test_edge_loss_is_blind_to_ramps_and_sees_bends() -> None:
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    ramp, bowl = (2 * y - x)[None, None], (0.5 * y**2 + 1.5 * x**2)[None, None]
    assert float(Edge()(ramp, torch.zeros_like(ramp))) == pytest.approx(0, abs=1e-6)
    assert float(Edge(eps=1e-6)(bowl, ramp)) == pytest.approx(1 + 3, rel=1e-5)
    volume = bowl[:, :, None].expand(1, 1, 5, 9, 8)
    assert float(Edge(eps=1e-6)(volume, torch.zeros_like(volume))) == pytest.approx(4, rel=1e-5)


def test_fourier_loss_of_a_single_wave() -> None:
    n = 16
    wave = torch.cos(2 * math.pi * 3 * torch.arange(n) / n).reshape(1, 1, 1, n).expand(1, 1, n, n)
    # two coefficients of n/2 (orthonormal), real, among 2 n² real numbers
    assert float(Fourier()(wave, torch.zeros_like(wave))) == pytest.approx(2 * (n / 2) / (2 * n * n), rel=1e-5)


def test_total_variation_of_a_step_and_of_a_constant() -> None:
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    assert float(TotalVariation()(step, step)) == pytest.approx((0 + 1 / 3) / 2)
    assert float(TotalVariation()(torch.ones(1, 1, 1, 1), step)) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_structural_losses_are_one_minus_the_metrics(shape: tuple[int, ...]) -> None:
    prediction, target = pair(shape)
    assert float(SSIM(data_range=2.0)(prediction, target)) == pytest.approx(
        1 - metrics.ssim(prediction, target, data_range=2.0), abs=1e-5
    )
    assert float(MSSSIM(data_range=2.0)(prediction, target)) == pytest.approx(
        1 - metrics.ms_ssim(prediction, target, data_range=2.0), abs=1e-5
    )


def test_ssim_agrees_with_monai() -> None:
    from monai.losses.ssim_loss import SSIMLoss

    for shape in ((2, 1, 24, 32), (1, 1, 12, 14, 16)):
        prediction, target = pair(shape)
        expected = SSIMLoss(len(shape) - 2, data_range=1.0)(prediction, target)
        assert float(SSIM(data_range=1.0)(prediction, target)) == pytest.approx(float(expected), abs=1e-5)


def test_ms_ssim_has_a_gradient_where_the_structure_is_inverted() -> None:
    _, target = pair((1, 1, 32, 32))
    prediction = (1 - target).requires_grad_(True)
    MSSSIM(data_range=1.0)(prediction, target).backward()
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_perceptual_loss_is_the_weighted_error_of_the_features() -> None:
    prediction, target = pair((1, 3, 16, 16))
    loss = Perceptual(backbone="vgg16", seed=1, layers={"relu1_2": 0.5, "conv2_1": 2.0}, data_range=10.0, lowest=-1.0)
    features = build_backbone("vgg16", seed=1, layers=("relu1_2", "conv2_1"))
    made, wanted = (features((x + 1) / 10) for x in (prediction, target))
    expected = sum(w * (a - b).abs().mean() for w, a, b in zip((0.5, 2.0), made, wanted, strict=True))
    assert float(loss(prediction, target)) == pytest.approx(float(expected), rel=1e-5)


def test_content_loss_is_the_squared_error_of_one_layer() -> None:
    prediction, target = pair((1, 3, 16, 16))
    features = build_backbone("vgg19", seed=1, layers=("relu2_2",))
    expected = (features(prediction)[0] - features(target)[0]).square().mean()
    loss = Content(backbone="vgg19", seed=1, layer="relu2_2")
    assert float(loss(prediction, target)) == pytest.approx(float(expected), rel=1e-5)


def test_perceptual_loss_on_volumes_with_a_3d_backbone() -> None:
    loss = build_loss(
        {"perceptual": {"weight": 1, "backbone": "medicalnet10", "seed": 0, "layers": ["layer1"]}}, ndim=3
    )
    prediction, target = pair((1, 1, 16, 16, 16))
    assert float(loss(target, target)) == 0
    assert float(loss(prediction, target)) > 0


def test_weights_come_from_a_file_and_never_from_the_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is ever downloaded"):
        build_loss("perceptual")
    features = build_backbone("vgg16", seed=7, layers=("relu1_2",))
    layers = [layer for stage in features.stages for layer in stage.children()]
    tensors = {f"features.{i}.{k}": v for i, layer in enumerate(layers) for k, v in layer.state_dict().items()}
    torch.save(tensors, tmp_path / "vgg.pth")
    prediction, target = pair((1, 3, 16, 16))
    values = [
        float(Perceptual(backbone="vgg16", layers=["relu1_2"], **options)(prediction, target))
        for options in ({"seed": 7}, {"weights": tmp_path / "vgg.pth"})
    ]
    assert values[0] == values[1]


def test_data_consistency_compares_with_the_input_or_with_the_target_seen_coarsely() -> None:
    loss = DataConsistency(sensor=SENSOR, scale=2)
    target = torch.rand(1, 2, 8, 8)
    low = target.reshape(1, 2, 4, 2, 4, 2).mean(dim=(3, 5))
    assert float(loss(target, target, low)) == pytest.approx(0, abs=1e-12)
    assert float(loss(target, target, low + 0.5)) == pytest.approx(0.25, rel=1e-5)
    checker = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
    assert float(loss(target + checker, target)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="give the scale of the network"):
        loss(target, target, low[..., :-1])


def test_sums_weigh_their_terms_and_tell_them_apart() -> None:
    prediction, target = pair((1, 1, 16, 16))
    loss = build_loss({"l1": 1.0, "ssim": 0.1, "charbonnier": {"weight": 2, "eps": 0.1}}, data_range=1.0)
    assert isinstance(loss, WeightedSum)
    values = {name: float(value) for name, value in loss.values(prediction, target).items()}
    assert list(values) == ["l1", "ssim", "charbonnier"]
    assert values["l1"] == pytest.approx(float(L1()(prediction, target)))
    assert values["charbonnier"] == pytest.approx(float(Charbonnier(eps=0.1)(prediction, target)))
    expected = values["l1"] + 0.1 * values["ssim"] + 2 * values["charbonnier"]
    assert float(loss(prediction, target)) == pytest.approx(expected)


def test_the_input_reaches_the_term_that_needs_it() -> None:
    loss = build_loss({"l1": 0.0, "data_consistency": 1.0}, sensor=SENSOR, scale={"y": 2, "x": 2})
    target = torch.rand(1, 1, 8, 8)
    assert float(loss(target, target, torch.zeros(1, 1, 4, 4))) > 0.1


@pytest.mark.parametrize(
    ("spec", "facts", "words"),
    [
        ("l3", {}, "'l3' is not one of l1, l2"),
        ({}, {}, "name at least one"),
        ({"l1": -1.0}, {}, "weight -1.0 is not a number"),
        ({"l1": "1"}, {}, "weight '1' is not a number"),
        ({"l1": True}, {}, "weight True is not a number"),
        ({"l1": {"weight": 1, "eps": 3}}, {}, "loss l1: no option eps; it has none"),
        ({"charbonnier": {"epsilon": 3}}, {}, "no option epsilon; it has eps"),
        ({"content": {"layers": ["relu1_2"], "seed": 0}}, {}, "give layer="),
        ("data_consistency", {"scale": 2}, "it needs sensor"),
        ({"perceptual": {"backbone": "medicalnet10", "seed": 0}}, {"ndim": 2}, "3D backbone came for 2D"),
        ("ssim", {"data_range": 0.0}, "data_range: 0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(spec: Any, facts: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_loss(spec, **facts)

"""Backbones and LPIPS: the authors' numbers, files of weights, and no download."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciSR.errors import CheckpointError, InputError, MissingFileError
from sciSR.metrics import LPIPS
from sciSR.metrics.features import BACKBONES, build_backbone


def waves(shape: tuple[int, ...], fan: float) -> Tensor:
    """Weights from a formula, so that they are the same everywhere."""
    n = int(np.prod(shape))
    return torch.from_numpy((np.sin(np.arange(n) * 0.7 + n) * np.sqrt(4 / fan)).reshape(shape)).float()


def weights_of(name: str) -> dict[str, Tensor]:
    """torchvision's key names of a backbone, filled with waves."""
    plain = build_backbone(name, seed=0)
    layers = [layer for stage in plain.stages for layer in stage.children()]
    found = {}
    for i, layer in enumerate(layers):
        for key, value in layer.state_dict().items():
            fan = float(np.prod(value.shape[1:])) if value.dim() > 1 else 1e4
            found[f"features.{i}.{key}"] = waves(tuple(value.shape), fan)
    return found


def images() -> tuple[Tensor, Tensor]:
    y, x = np.mgrid[0:64, 0:72] / 64
    one = np.stack([0.5 + 0.4 * np.sin(9 * x + c) * np.cos(7 * y) for c in range(3)])
    return torch.from_numpy(one)[None], torch.from_numpy(one + 0.1 * np.sin(40 * x * y))[None]


# From the authors' package lpips 0.1.4 (lpips=False, normalize=True) with these weights on these images.
@pytest.mark.parametrize(("name", "expected"), [("alexnet", 2.2338154), ("vgg16", 2.6737471)])
def test_agrees_with_the_package(name: str, expected: float, tmp_path: Path) -> None:
    torch.save(weights_of(name), tmp_path / "weights.pth")
    distance = LPIPS(name, weights=tmp_path / "weights.pth")
    assert distance(*images(), data_range=1.0) == pytest.approx(expected, rel=2e-5)
    first, second = images()
    assert distance(first * 4000 - 1000, second * 4000 - 1000, data_range=4000.0, lowest=-1000.0) == pytest.approx(
        expected, rel=1e-4
    )


def test_linear_layers_weigh_the_channels(tmp_path: Path) -> None:
    widths = (64, 192, 384, 256, 256)
    ones = {f"lin{i}.model.1.weight": torch.full((1, n, 1, 1), 0.25) for i, n in enumerate(widths)}
    torch.save(ones, tmp_path / "linear.pth")
    plain = LPIPS("alexnet", seed=1)(*images(), data_range=1.0)
    weighted = LPIPS("alexnet", seed=1, linear=tmp_path / "linear.pth")(*images(), data_range=1.0)
    assert weighted == pytest.approx(plain / 4, rel=1e-5)
    with pytest.raises(CheckpointError, match="different networks"):
        LPIPS("vgg16", seed=1, linear=tmp_path / "linear.pth")(*images(), data_range=1.0)
    torch.save({"a": torch.ones(2)}, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match="linear layers"):
        LPIPS("alexnet", seed=1, linear=tmp_path / "wrong.pth")


def test_distance_grows_with_noise_and_is_symmetric() -> None:
    distance = LPIPS("alexnet", seed=0)
    first, second = images()
    assert distance(first, first, data_range=1.0) == 0
    one, two = distance(first, second, data_range=1.0), distance(second, first, data_range=1.0)
    assert one == pytest.approx(two, rel=1e-6)
    assert 0 < one < distance(first, first + 4 * (second - first), data_range=1.0)


@pytest.mark.parametrize("shape", [(40, 40), (2, 4, 40, 40), (3, 40, 40)])
def test_any_channels_and_volumes(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator)
    assert LPIPS("alexnet", seed=0)(image, image + 0.1, data_range=1.0) > 0


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_are_frozen_repeatable_and_pass_gradients(name: str) -> None:
    volume = name.startswith("medicalnet")
    x = torch.rand((1, 1, 16, 16, 16) if volume else (1, 3, 32, 32), requires_grad=True)
    one, two = (build_backbone(name, seed=3) for _ in range(2))
    one.train()
    features, again = one(x), two(x)
    assert len(features) == len(BACKBONES[name])
    for a, b in zip(features, again, strict=True):
        torch.testing.assert_close(a, b)
    features[0].sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in one.parameters())
    assert not any(m.training for m in one.modules())
    other = build_backbone(name, seed=4)(x)
    assert not torch.allclose(features[0], other[0])


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_backbone("alexnet", seed=0)
    assert torch.rand(1) == expected


def test_medicalnet_weights_load_as_published(tmp_path: Path) -> None:
    from monai.networks.nets import resnet

    net = resnet.resnet10(
        spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="B", bias_downsample=False
    )
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "resnet_10.pth")
    found = build_backbone("medicalnet10", weights=tmp_path / "resnet_10.pth", layers=("conv1",))
    x = torch.rand(1, 1, 12, 12, 12)
    net.eval()
    expected = torch.relu(net.bn1(net.conv1((x - x.mean()) / x.std())))
    torch.testing.assert_close(found(x)[0], expected)


def test_safetensors_and_a_whole_classifier_load(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = weights_of("vgg16") | {"classifier.0.weight": torch.zeros(2, 2)}
    save_file(tensors, tmp_path / "vgg.safetensors")
    found = build_backbone("vgg16", weights=tmp_path / "vgg.safetensors", layers=("conv1_1",))
    torch.testing.assert_close(found.state_dict()["stages.0.0.weight"], tensors["features.0.weight"])


def test_layers_before_the_activation_can_be_tapped() -> None:
    x = torch.rand(1, 3, 32, 32)
    before, after = build_backbone("vgg19", seed=0, layers=("conv5_4", "relu5_4"))(x)
    torch.testing.assert_close(after, before.relu())
    assert float(before.min()) < 0


def test_what_cannot_be_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is ever downloaded"):
        build_backbone("vgg16")
    with pytest.raises(InputError, match="'resnet50' is not one of"):
        build_backbone("resnet50", seed=0)
    with pytest.raises(InputError, match="no layer relu9_9"):
        build_backbone("vgg16", seed=0, layers=("relu9_9",))
    with pytest.raises(InputError, match="too few for relu5_3"):
        build_backbone("vgg16", seed=0)(torch.rand(1, 3, 8, 8))
    with pytest.raises(InputError, match="choose a 2D one"):
        build_backbone("medicalnet10", seed=0)(torch.rand(1, 3, 32, 32))
    with pytest.raises(InputError, match="'vgg19' is not one of"):
        LPIPS("vgg19", seed=0)
    with pytest.raises(MissingFileError, match=r"none\.pth: no such file"):
        build_backbone("vgg16", weights=tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        build_backbone("vgg16", weights=tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not weights of vgg16: 25 tensors are missing"):
        build_backbone("vgg16", weights=tmp_path / "other.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        build_backbone("vgg16", weights=tmp_path / "list.pth")

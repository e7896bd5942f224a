"""Feature extractors for perceptual losses and LPIPS: VGG, AlexNet, and MedicalNet's 3D ResNets.

Their weights come from a file that the user gives (torchvision's and MedicalNet's key names are understood); nothing is
ever downloaded. A seed instead of a file gives random features, which are reproducible and need no file.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sciSR.errors import CheckpointError, InputError, MissingFileError

__all__ = ["BACKBONES", "Backbone", "build_backbone", "read_weights"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_VGG_WIDTHS = (64, 128, 256, 512, 512)
_MEDICALNET = {"medicalnet10": ("resnet10", "B", False), "medicalnet18": ("resnet18", "A", True)}
"""MONAI's constructor, and how MedicalNet's weights of that depth shorten (arXiv:1904.00625)."""

BACKBONES: dict[str, tuple[str, ...]] = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "vgg19": ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4"),
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "medicalnet10": ("layer1", "layer2", "layer3", "layer4"),
    "medicalnet18": ("layer1", "layer2", "layer3", "layer4"),
}
"""Name -> the layers that are tapped unless others are named."""


class Backbone(nn.Module):
    """Frozen features of images in the range 0 to 1.

    A 2D backbone takes three channels as red, green and blue and any other number one by one as grey, and of a volume
    every slice along its first spatial axis. A 3D backbone takes every channel by itself, scaled to mean 0 and
    deviation 1, as MedicalNet was trained.

    Args:
        stages: consecutive layers; the output of each is one feature map.
        names: what each stage's output is called.
        ndim: 2 or 3.
        minimum: least pixels per axis.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Sequence[nn.Module], names: Sequence[str], *, ndim: int, minimum: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.names = tuple(names)
        self.ndim = ndim
        self.minimum = minimum
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the features never change."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of ``(b, c, [z,] y, x)`` images, one for each tapped layer.

        Raises:
            InputError: too few pixels for the layers, or a 3D backbone on a flat image.
        """
        if x.dim() - 2 < self.ndim:
            raise InputError(f"backbone: a 3D network came for images of shape {tuple(x.shape)}; choose a 2D one")
        if min(x.shape[-self.ndim :]) < self.minimum:
            raise InputError(
                f"backbone: {tuple(x.shape[-self.ndim :])} pixels are too few for {self.names[-1]}, which needs "
                f"{self.minimum} per axis; take larger patches or a lower layer"
            )
        x = self._volumes(x) if self.ndim == 3 else self._planes(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def _planes(self, x: Tensor) -> Tensor:
        if x.dim() == 5:
            x = x.movedim(2, 1).flatten(0, 1)
        if x.shape[1] != 3:
            x = x.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)
        return (x - self.mean) / self.std

    def _volumes(self, x: Tensor) -> Tensor:
        x = x.flatten(0, 1)[:, None]
        axes = tuple(range(1, x.dim()))
        return (x - x.mean(dim=axes, keepdim=True)) / x.std(dim=axes, keepdim=True).clamp_min(1e-6)


def build_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    layers: Sequence[str] | None = None,
) -> Backbone:
    """A feature extractor.

    Args:
        name: one of :data:`BACKBONES`.
        weights: file of its weights (``.pth``, ``.pt`` or ``.safetensors``).
        seed: of random weights, where there is no file.
        layers: what is tapped, such as ``("relu2_2", "conv5_4")``; default as in :data:`BACKBONES`.

    Raises:
        InputError: no such backbone or layer, or neither file nor seed.
        CheckpointError: the file does not fit.

    Example:
        >>> features = build_backbone("vgg16", seed=0, layers=("relu1_2", "relu2_2"))(torch.rand(1, 1, 16, 16))
        >>> [tuple(f.shape) for f in features]
        [(1, 64, 16, 16), (1, 128, 8, 8)]
    """
    if name not in BACKBONES:
        raise InputError(f"backbone: {name!r} is not one of {', '.join(BACKBONES)}")
    if (weights is None) == (seed is None):
        raise InputError(
            f"backbone {name}: give either weights=, the file of its weights (nothing is ever downloaded), or seed= "
            "for random features"
        )
    wanted = tuple(layers or BACKBONES[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed)
        if name in _MEDICALNET:
            return _medicalnet(name, wanted, weights)
        return _plain(name, wanted, weights)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file by name, ``module.`` and such wrappings removed; no code in it is run.

    Raises:
        MissingFileError: no such file.
        CheckpointError: it does not hold tensors.
    """
    file = Path(path)
    if not file.exists():
        raise MissingFileError(f"{file}: no such file; give the file of the backbone's weights")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{file}: not a file of weights: {error}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{file}: holds a {type(found).__name__}, expected tensors by name")
    tensors = {str(key).removeprefix("module."): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{file}: holds no tensor")
    return tensors


def _plain(name: str, wanted: tuple[str, ...], weights: str | os.PathLike[str] | None) -> Backbone:
    """VGG and AlexNet: one row of layers, cut after each tap."""
    labels, layers = _alexnet() if name == "alexnet" else _vgg(_VGG_BLOCKS[name])
    ends = _positions(name, labels, wanted)
    row = nn.Sequential(*layers[: ends[-1] + 1])
    if weights is not None:
        tensors = {key.removeprefix("features."): value for key, value in read_weights(weights).items()}
        _load(row, tensors, weights, name)
    else:
        _randomise(row)
    starts = [0, *(end + 1 for end in ends[:-1])]
    stages = [row[a : b + 1] for a, b in zip(starts, ends, strict=True)]
    halvings = sum(isinstance(layer, nn.MaxPool2d) for layer in row)
    minimum = 31 if name == "alexnet" else 2**halvings
    return Backbone(stages, [labels[end] for end in ends], ndim=2, minimum=minimum)


def _vgg(blocks: tuple[int, ...]) -> tuple[list[str], list[nn.Module]]:
    """Configurations D and E of Simonyan and Zisserman 2015 (arXiv:1409.1556)."""
    labels: list[str] = []
    layers: list[nn.Module] = []
    channels = 3
    for b, (count, width) in enumerate(zip(blocks, _VGG_WIDTHS, strict=True), start=1):
        for i in range(1, count + 1):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            labels += [f"conv{b}_{i}", f"relu{b}_{i}"]
            channels = width
        layers.append(nn.MaxPool2d(2))
        labels.append(f"pool{b}")
    return labels, layers


def _alexnet() -> tuple[list[str], list[nn.Module]]:
    """Krizhevsky 2014 (arXiv:1404.5997), one column."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    ]
    labels = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    return [*labels, "conv3", "relu3", "conv4", "relu4", "conv5", "relu5"], layers


def _medicalnet(name: str, wanted: tuple[str, ...], weights: str | os.PathLike[str] | None) -> Backbone:
    from monai.networks.nets import resnet

    constructor, shortcut, bias = _MEDICALNET[name]
    net = getattr(resnet, constructor)(
        spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type=shortcut, bias_downsample=bias
    )
    if weights is not None:
        _load(net, read_weights(weights), weights, name)
    else:
        _randomise(net)
    first = nn.Sequential(net.conv1, net.bn1, nn.ReLU())
    labels = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    parts = [first, nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]
    ends = _positions(name, labels, wanted)
    starts = [0, *(end + 1 for end in ends[:-1])]
    stages = [nn.Sequential(*parts[a : b + 1]) for a, b in zip(starts, ends, strict=True)]
    return Backbone(stages, [labels[end] for end in ends], ndim=3, minimum=8)


def _randomise(net: nn.Module) -> None:
    """Weights that keep the size of the features from layer to layer (He et al. 2015, doi:10.1109/ICCV.2015.123)."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _positions(name: str, labels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    unknown = [label for label in wanted if label not in labels]
    if unknown or not wanted:
        raise InputError(f"backbone {name}: no layer {', '.join(unknown)}; it has {', '.join(labels)}")
    return sorted(labels.index(label) for label in set(wanted))


def _load(net: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str], name: str) -> None:
    """Fill ``net``; what the file has beyond it (a classifier, higher layers) is left alone."""
    own = net.state_dict()
    missing = [key for key in own if key not in tensors and not key.endswith("num_batches_tracked")]
    wrong = [key for key in own if key in tensors and tensors[key].shape != own[key].shape]
    if missing or wrong:
        told = f"{len(missing)} tensors are missing ({', '.join(missing[:3])}…)" if missing else ""
        told += f"{len(wrong)} have another shape ({', '.join(wrong[:3])}…)" if wrong else ""
        raise CheckpointError(f"{os.fspath(path)}: not weights of {name}: {told}")
    net.load_state_dict({key: tensors[key] for key in own if key in tensors}, strict=False)

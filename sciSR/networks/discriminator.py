"""Discriminators for adversarial training: MONAI's patch discriminator, and one in the style of VGG.

Both give unbounded scores (logits), one per receptive patch or one per image; losses decide what they mean.
"""

from __future__ import annotations

from typing import Any, Literal

from monai.networks.nets.patchgan_discriminator import PatchDiscriminator as MonaiPatchDiscriminator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sciSR.errors import InputError
from sciSR.networks.blocks import convolution
from sciSR.networks.spec import axes_of

__all__ = ["DISCRIMINATORS", "Discriminator", "PatchDiscriminator", "VGGDiscriminator", "build_discriminator"]

Norm = Literal["batch", "instance"] | None


class Discriminator(nn.Module):
    """Scores images: high where they look real.

    Attributes:
        ndim: spatial axes.
        in_channels: channels it takes.
        minimum: least pixels per axis of an image.
    """

    def __init__(self, ndim: int, in_channels: int, minimum: int) -> None:
        super().__init__()
        axes_of(ndim)
        self.ndim = ndim
        self.in_channels = in_channels
        self.minimum = minimum

    def features(self, x: Tensor) -> list[Tensor]:
        """What each layer makes of ``x``, for feature matching; the last entry is the score."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the images ``(b, c, [z,] y, x)``.

        Raises:
            InputError: other channels or axes, or an image that is too small.
        """
        if x.dim() != self.ndim + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"discriminator: a tensor of shape {tuple(x.shape)} came; expected {self.in_channels} channels and "
                f"{self.ndim} spatial axes"
            )
        if min(x.shape[2:]) < self.minimum:
            raise InputError(
                f"discriminator: patches of {tuple(x.shape[2:])} pixels came; this one needs {self.minimum} per axis: "
                f"train on larger patches or take fewer layers"
            )
        return self.features(x)[-1]


class PatchDiscriminator(Discriminator):
    """One score per overlapping patch (Isola 2017, arXiv:1611.07004), on MONAI's network.

    Spectral normalisation of the weights takes the place of MONAI's batch normalisation, which fails on small patches
    (Miyato 2018, arXiv:1802.05957).

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        features: channels of the first layer, doubled at each next one.
        layers: layers after the first.
        norm: ``"batch"`` or ``"instance"`` between layers, or None.
        spectral: normalise the weights spectrally.
    """

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        features: int = 64,
        layers: int = 3,
        norm: Norm = None,
        spectral: bool = True,
    ) -> None:
        # 4-wide convolutions with padding 1: all but two halve, the last two take a pixel each and must leave one
        super().__init__(ndim, in_channels, minimum=3 * 2**layers)
        options: dict[str, Any] = {"norm": norm, "bias": norm is None, "num_layers_d": layers}
        self.network = MonaiPatchDiscriminator(ndim, features, in_channels, **options)
        if spectral:
            _spectral(self.network)

    def features(self, x: Tensor) -> list[Tensor]:
        """What each layer makes of ``x``; last the map of scores."""
        found: list[Tensor] = self.network(x)
        return found


class VGGDiscriminator(Discriminator):
    """One score per image, as in SRGAN (Ledig 2017, arXiv:1609.04802), for patches of any size.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        features: channels of the first layer, doubled at each level up to eight times.
        levels: how often the image is halved.
        norm: ``"batch"`` (the paper's) or ``"instance"`` between layers, or None.
        spectral: normalise the weights spectrally.
    """

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        features: int = 64,
        levels: int = 4,
        norm: Norm = None,
        spectral: bool = True,
    ) -> None:
        super().__init__(ndim, in_channels, minimum=2**levels * (1 if norm is None else 2))
        stages, width = [], in_channels
        for level in range(levels):
            wide = features * min(8, 2**level)
            stages.append(
                nn.Sequential(
                    convolution(ndim, width, wide),
                    *([] if level == 0 else [_norm(ndim, wide, norm)]),
                    nn.LeakyReLU(0.2),
                    convolution(ndim, wide, wide, stride=2),
                    _norm(ndim, wide, norm),
                    nn.LeakyReLU(0.2),
                )
            )
            width = wide
        self.stages = nn.ModuleList(stages)
        pool = nn.AdaptiveAvgPool2d(1) if ndim == 2 else nn.AdaptiveAvgPool3d(1)
        self.score = nn.Sequential(
            pool, nn.Flatten(), nn.Linear(width, 2 * width), nn.LeakyReLU(0.2), nn.Linear(2 * width, 1)
        )
        if spectral:
            _spectral(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """What each stage makes of ``x``; last the scores ``(b, 1)``."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return [*found, self.score(x)]


def _norm(ndim: int, features: int, norm: Norm) -> nn.Module:
    if norm is None:
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(features) if ndim == 2 else nn.BatchNorm3d(features)
    if norm == "instance":
        return nn.InstanceNorm2d(features) if ndim == 2 else nn.InstanceNorm3d(features)
    raise InputError(f"discriminator: norm {norm!r} is not batch, instance or None")


def _spectral(network: nn.Module) -> None:
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            spectral_norm(module)


DISCRIMINATORS: dict[str, type[PatchDiscriminator] | type[VGGDiscriminator]] = {
    "patch": PatchDiscriminator,
    "vgg": VGGDiscriminator,
}
"""Name -> class."""


def build_discriminator(
    kind: str, *, ndim: int, in_channels: int, **arguments: int | str | bool | None
) -> Discriminator:
    """A discriminator by name.

    Raises:
        InputError: no discriminator of this name, or an argument that it does not have.

    Example:
        >>> import torch
        >>> critic = build_discriminator("patch", ndim=3, in_channels=1, features=4, layers=2)
        >>> critic(torch.zeros(1, 1, 16, 16, 16)).shape
        torch.Size([1, 1, 2, 2, 2])
    """
    if kind not in DISCRIMINATORS:
        raise InputError(f"discriminator: {kind!r} is not one of {', '.join(DISCRIMINATORS)}")
    try:
        return DISCRIMINATORS[kind](ndim=ndim, in_channels=in_channels, **arguments)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"discriminator {kind}: {error}") from error

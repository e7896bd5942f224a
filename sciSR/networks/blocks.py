"""What the networks share, for two and three spatial axes from one definition, on MONAI's convolutions.

No block normalises: batch and instance norm lose the absolute intensities and break exact tiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sciSR.networks.shuffle import PixelShuffle

if TYPE_CHECKING:
    from monai.networks.blocks.convolutions import Convolution

__all__ = [
    "MeanShift",
    "PixelShuffle",
    "ResidualBlock",
    "convolution",
    "zero_",
]


def convolution(
    ndim: int,
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> Convolution:
    """A convolution padded with zeros to keep the size (divided by ``stride``), without norm or activation."""
    # here, as MONAI takes seconds to load and classical methods do without
    from monai.networks.blocks.convolutions import Convolution

    return Convolution(
        spatial_dims=ndim,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel,
        strides=stride,
        groups=groups,
        bias=bias,
        norm=None,
        conv_only=True,
    )


def zero_(layer: nn.Module) -> nn.Module:
    """``layer`` with all parameters zero, so that what it ends adds nothing before training."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResidualBlock(nn.Module):
    """``x + residual_scale * conv(relu(conv(x)))``: EDSR's block, without norm (Lim 2017, arXiv:1707.02921)."""

    def __init__(self, ndim: int, features: int, *, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.first = convolution(ndim, features, features)
        self.act = nn.ReLU()
        self.second = convolution(ndim, features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.second(self.act(self.first(x)))
        return x + (y if self.residual_scale == 1.0 else y * self.residual_scale)


class MeanShift(nn.Module):
    """Adds ``sign * mean`` per channel, or nothing where there is no mean."""

    mean: Tensor

    def __init__(self, ndim: int, mean: Sequence[float] | None, sign: float) -> None:
        super().__init__()
        self.active = mean is not None
        values = torch.tensor([sign * m for m in mean or ()], dtype=torch.float32)
        self.register_buffer("mean", values.reshape(1, -1, *[1] * ndim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shifted values."""
        return x + self.mean if self.active else x

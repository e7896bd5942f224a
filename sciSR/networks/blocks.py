"""What the networks share, for two and three spatial axes from one definition, on MONAI's convolutions.

No block normalises: batch and instance norm lose the absolute intensities and break exact tiling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from sciSR.networks.shuffle import PixelShuffle

__all__ = [
    "MeanShift",
    "PixelShuffle",
    "ResidualBlock",
    "convolution",
    "crop_to",
    "pad_to_multiple",
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


def crop_to(fine: Tensor, x: Tensor, scale: Sequence[int]) -> Tensor:
    """The part of ``fine``, refined by ``scale``, that lies in the image ``x`` before its far edges were padded."""
    for dim, s in enumerate(scale):
        fine = fine.narrow(dim + 2, 0, x.shape[dim + 2] * s)
    return fine


def pad_to_multiple(x: Tensor, multiple: int, first: int = 2) -> Tensor:
    """``x`` with its far edges mirrored (edge pixel not repeated) up to a multiple of pixels, axes from ``first`` on.

    Any size will do: an image smaller than what is added is mirrored again and again.
    """
    for dim in range(first, x.dim()):
        n = x.shape[dim]
        extra = -n % multiple
        if extra:
            period = max(1, 2 * n - 2)
            rows = [min(k % period, period - k % period) for k in range(n, n + extra)]
            x = torch.cat([x, x.index_select(dim, torch.tensor(rows, device=x.device))], dim)
    return x


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

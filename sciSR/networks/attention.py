"""Channel attention with global or local statistics.

Global statistics are those of the papers; they look at the whole image, so tiles differ from it. Local ones (test-time
local converter, Chu 2022, arXiv:2112.04491) take them over a window around each pixel, about as wide as the patches
that the network was trained on, and are exact in tiles.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciSR.networks.blocks import convolution

__all__ = ["ChannelAttention", "window_mean"]


def window_mean(x: Tensor, window: int | None) -> Tensor:
    """Mean over the whole image (None; one pixel left), or over ``window`` pixels per axis around each pixel.

    At the image's edge the mean is over the part of the window that lies inside.
    """
    ndim = x.dim() - 2
    if window is None:
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)
    pool = functional.avg_pool2d if ndim == 2 else functional.avg_pool3d
    half = window // 2
    for axis in range(ndim):
        size = x.shape[axis + 2]
        around = [half if i // 2 == ndim - 1 - axis else 0 for i in range(2 * ndim)]
        mean = pool(functional.pad(x, around), [window if i == axis else 1 for i in range(ndim)], stride=1)
        at = torch.arange(size, device=x.device)
        inside = (at + half).clamp(max=size - 1) - (at - half).clamp(min=0) + 1
        shape = [size if i == axis else 1 for i in range(ndim)]
        x = mean * (window / inside).to(x.dtype).reshape(shape)
    return x


class ChannelAttention(nn.Module):
    """Each channel scaled by a gate that its own statistics open.

    Args:
        ndim: spatial axes.
        channels: channels it takes and gives.
        reduction: factor to the narrow layer.
        window: odd number of pixels per axis over which statistics are taken, or None: the whole image.
        statistic: ``"mean"`` (RCAN, Zhang 2018, arXiv:1807.02758) or ``"contrast"``: standard deviation plus mean
            (IMDN, Hui 2019, arXiv:1909.11856).
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        reduction: int,
        *,
        window: int | None = None,
        statistic: Literal["mean", "contrast"] = "mean",
    ) -> None:
        super().__init__()
        self.window = window
        self.statistic = statistic
        narrow = max(1, channels // reduction)
        self.gate = nn.Sequential(
            convolution(ndim, channels, narrow, 1), nn.ReLU(), convolution(ndim, narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        gate: Tensor = self.gate(self._statistics(x))
        return x * gate

    def _statistics(self, x: Tensor) -> Tensor:
        mean = window_mean(x, self.window)
        if self.statistic == "mean":
            return mean
        spread = window_mean((x - mean) ** 2, None) if self.window is None else _local_variance(x, mean, self.window)
        return spread.sqrt() + mean


def _local_variance(x: Tensor, mean: Tensor, window: int) -> Tensor:
    return (window_mean(x * x, window) - mean * mean).clamp(min=0)

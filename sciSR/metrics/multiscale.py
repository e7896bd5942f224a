"""Structural similarity over several scales (Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216).

The contrast-structure part of SSIM at each scale, and the whole of it at the coarsest, raised to the paper's weights
and multiplied. From scale to scale the image is averaged over two pixels along each axis that still holds an 11-pixel
window afterwards; an image too small for five scales takes as many as fit, with the weights normalised to sum 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciSR.metrics.arrays import Image, as_pair, check_range
from sciSR.metrics.structural import WINDOW, ssim_map

__all__ = ["ms_ssim", "ms_ssim_values"]

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(prediction: Image, target: Image, *, data_range: float) -> float:
    """Multi-scale SSIM, 1 where the images are equal; the mean over channels and items.

    Args:
        prediction: the image to judge.
        target: the reference, same shape; 176 pixels per axis or more give all five scales.
        data_range: length of the value range.

    Raises:
        InputError: shapes differ, or the range is not positive.

    Example:
        >>> ms_ssim(torch.eye(32), torch.eye(32), data_range=1.0)
        1.0
    """
    first, second = as_pair(prediction, target)
    return float(ms_ssim_values(first, second, data_range=check_range(data_range)).mean())


def ms_ssim_values(prediction: Tensor, target: Tensor, *, data_range: float, least: float = 0.0) -> Tensor:
    """MS-SSIM of each item and channel ``(b, c)`` of tensors ``(b, c, [z,] y, x)``; differentiable.

    Args:
        prediction: the image to judge.
        target: the reference.
        data_range: length of the value range.
        least: what a factor is at least; negative ones have no root.
    """
    ndim = prediction.dim() - 2
    axes = tuple(range(2, prediction.dim()))
    factors = []
    for scale in range(len(_WEIGHTS)):
        full, structure = ssim_map(prediction, target, data_range=data_range, ndim=ndim)
        halved = tuple(2 if n // 2 >= WINDOW else 1 for n in prediction.shape[2:])
        if scale == len(_WEIGHTS) - 1 or max(halved) == 1:
            factors.append(full.mean(dim=axes))
            break
        factors.append(structure.mean(dim=axes))
        prediction, target = (_averaged(x, halved) for x in (prediction, target))
    weights = torch.tensor(_WEIGHTS[: len(factors)], dtype=prediction.dtype, device=prediction.device)
    stacked = torch.stack(factors).clamp_min(least)
    return (stacked ** (weights / weights.sum()).reshape(-1, 1, 1)).prod(dim=0)


def _averaged(x: Tensor, step: tuple[int, ...]) -> Tensor:
    """Means over blocks of ``step`` pixels; what does not fill a block is left out."""
    pool = torch.nn.functional.avg_pool2d if len(step) == 2 else torch.nn.functional.avg_pool3d
    return pool(x, step)

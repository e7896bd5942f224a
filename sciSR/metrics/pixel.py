"""Errors pixel by pixel: MAE, RMSE, NRMSE, PSNR.

With ``e`` the difference over the pixels of one item (all channels, inside the mask):
MAE = mean |e|, RMSE = sqrt(mean e²), NRMSE = RMSE / range, PSNR = 20 log10(range / RMSE) in dB
(Wang and Bovik 2009, doi:10.1109/MSP.2008.930649). Pixels outside the mask count for nothing, whatever they hold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciSR.metrics.arrays import Image, as_mask, as_pair, check_range

__all__ = ["mae", "nrmse", "psnr", "rmse"]


def mae(prediction: Image, target: Image, *, mask: Image | None = None) -> float:
    """Mean absolute error in the unit of the values (HU in, HU out).

    Args:
        prediction: the image to judge.
        target: the reference, same shape.
        mask: bool, the pixels that count; None: all.

    Raises:
        InputError: shapes differ, or the mask is empty.

    Example:
        >>> mae(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
        2.0
    """
    return float(_item_means(prediction, target, mask, power=1).mean())


def rmse(prediction: Image, target: Image, *, mask: Image | None = None) -> float:
    """Root of the mean squared error in the unit of the values; arguments as for :func:`mae`."""
    return float(_item_means(prediction, target, mask, power=2).sqrt().mean())


def nrmse(prediction: Image, target: Image, *, data_range: float, mask: Image | None = None) -> float:
    """RMSE as a fraction of ``data_range``; other arguments as for :func:`mae`."""
    return rmse(prediction, target, mask=mask) / check_range(data_range)


def psnr(prediction: Image, target: Image, *, data_range: float, mask: Image | None = None) -> float:
    """Peak signal-to-noise ratio in dB; infinite where the images are equal.

    Args:
        prediction: the image to judge.
        target: the reference, same shape.
        data_range: length of the value range (255 for 8-bit images); it is part of the result, so it is never guessed.
        mask: bool, the pixels that count; None: all.

    Raises:
        InputError: shapes differ, the mask is empty, or the range is not positive.

    Example:
        >>> round(psnr(torch.zeros(4, 4), torch.full((4, 4), 0.1), data_range=1.0), 3)
        20.0
    """
    peak = check_range(data_range)
    mean_square = _item_means(prediction, target, mask, power=2)
    return float((10 * torch.log10(peak**2 / mean_square)).mean())


def _item_means(prediction: Image, target: Image, mask: Image | None, *, power: int) -> Tensor:
    """Mean of ``|prediction - target| ** power`` over each batch item's pixels."""
    first, second = as_pair(prediction, target)
    error = (first - second).abs() ** power
    inside = as_mask(mask, first)
    if inside is None:
        return error.flatten(1).mean(dim=1)
    kept = torch.where(inside, error, torch.zeros((), dtype=error.dtype, device=error.device))
    return kept.flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1)

"""Quality of images with several bands, and the universal quality index."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciSR.errors import InputError
from sciSR.metrics.arrays import Image, as_mask, as_pair

__all__ = ["ergas", "sam", "spectral_angles", "uiqi"]


def sam(prediction: Image, target: Image, *, mask: Image | None = None) -> float:
    """Spectral angle in degrees, mean over the pixels (Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N).

    A pixel that is 0 in all bands of either image has no angle and does not count.

    Args:
        prediction: ``(b, c, [z,] y, x)`` with two bands or more.
        target: the same shape.
        mask: bool, the pixels that count: those whose bands all do.

    Raises:
        InputError: one band only, shapes that differ, or an empty mask.

    Example:
        >>> one = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
        >>> round(sam(one, torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1)), 6)
        45.0
    """
    first, second = _bands(prediction, target)
    inside = as_mask(mask, first)
    angles = spectral_angles(first, second)
    if inside is not None:
        angles = torch.where(inside.all(dim=1), angles, torch.full_like(angles, math.nan))
    return math.degrees(float(angles.flatten(1).nanmean(dim=1).mean()))


def spectral_angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Angle in radians between the spectra of each pixel ``(b, [z,] y, x)``; NaN where a spectrum is zero."""
    lengths = prediction.norm(dim=1) * target.norm(dim=1)
    cosine = (prediction * target).sum(dim=1) / lengths
    return torch.where(lengths > 0, cosine.clamp(-1, 1).acos(), torch.full_like(lengths, math.nan))


def ergas(prediction: Image, target: Image, *, scale: float, mask: Image | None = None) -> float:
    """Relative dimensionless global error, 100/scale sqrt(mean over bands of (RMSE / mean)²); 0 is perfect.

    Wald 2000, "Quality of high resolution synthesised images: is there a simple criterion?", Fusion of Earth Data.

    Args:
        prediction: ``(b, c, [z,] y, x)``.
        target: the same shape; its bands' means must not be 0.
        scale: size of a low-resolution pixel over that of a high-resolution one: the factor of the super-resolution.
        mask: bool, the pixels that count.

    Raises:
        InputError: shapes that differ, a scale that is not positive, or an empty mask.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"ergas: scale {scale} is not a positive number")
    first, second = as_pair(prediction, target)
    inside = as_mask(mask, first)
    kept = torch.ones_like(first, dtype=torch.bool) if inside is None else inside
    zero = torch.zeros((), dtype=first.dtype, device=first.device)
    axes = tuple(range(2, first.dim()))
    count = kept.sum(dim=axes)
    square = torch.where(kept, (first - second) ** 2, zero).sum(dim=axes) / count
    mean = torch.where(kept, second, zero).sum(dim=axes) / count
    return float((100 / scale * (square / mean**2).mean(dim=1).sqrt()).mean())


def uiqi(prediction: Image, target: Image, *, window: int = 8) -> float:
    """Universal image quality index, 1 where the images are equal; the mean over windows, channels and items.

    As defined by Wang and Bovik 2002 (doi:10.1109/97.995823): flat windows of 8 pixels per axis at every position;
    where both windows are constant it is their luminance term, and 1 where both are 0. An axis shorter than the window
    takes one of its own length.

    Args:
        prediction: ``(b, c, [z,] y, x)``.
        target: the same shape.
        window: pixels per axis.

    Raises:
        InputError: shapes that differ.

    Example:
        >>> uiqi(torch.eye(16), torch.eye(16))
        1.0
    """
    first, second = as_pair(prediction, target)
    # The covariances are taken about the images' means, so that a large offset costs no digits.
    base_x, base_y = (v.mean(dim=tuple(range(2, v.dim())), keepdim=True) for v in (first, second))
    x, y = first - base_x, second - base_y
    mean_x, mean_y, xx, yy, xy = (_boxed(v, window) for v in (x, y, x * x, y * y, x * y))
    spread = (xx - mean_x**2).clamp_min(0) + (yy - mean_y**2).clamp_min(0)
    shared = xy - mean_x * mean_y
    mean_x, mean_y = mean_x + base_x, mean_y + base_y
    squares = mean_x**2 + mean_y**2
    one = torch.ones((), dtype=first.dtype, device=first.device)
    tiny = 1e-12 * squares
    structure = torch.where(spread > tiny, 2 * shared / spread, one)
    luminance = torch.where(squares > 0, 2 * mean_x * mean_y / squares, one)
    return float((structure * luminance).mean())


def _boxed(x: Tensor, window: int) -> Tensor:
    """Means over windows at every position."""
    for dim in range(2, x.dim()):
        size = min(window, x.shape[dim])
        sums = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1)), x.cumsum(dim=dim)], dim=dim)
        n = x.shape[dim] - size + 1
        x = (sums.narrow(dim, size, n) - sums.narrow(dim, 0, n)) / size
    return x


def _bands(prediction: Image, target: Image) -> tuple[Tensor, Tensor]:
    first, second = as_pair(prediction, target)
    if first.shape[1] < 2:
        raise InputError(f"sam: images of shape {tuple(first.shape)} have one band; an angle needs two or more")
    return first, second

"""Structural similarity, in 2D and 3D, whole or slab by slab.

SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) with its Gaussian window: 11 taps, sigma 1.5, K1 = 0.01,
K2 = 0.03, population variances, averaged over the windows that lie wholly inside the image. An axis shorter than 11
pixels takes the longest odd window that fits it, with the weights normalised again; an axis of one pixel drops out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciSR.metrics.arrays import Image, as_mask, as_pair, check_range

__all__ = [
    "SIGMA",
    "WINDOW",
    "SSIMStream",
    "gaussian_window",
    "similarity",
    "smooth",
    "ssim",
    "ssim_map",
    "window_sizes",
]

WINDOW = 11
SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


def window_sizes(shape: Sequence[int], size: int = WINDOW) -> tuple[int, ...]:
    """Taps of the window along each axis of an image: ``size``, or the greatest odd number that fits."""
    return tuple(min(size, n - 1 + n % 2) for n in shape)


def gaussian_window(size: int, sigma: float = SIGMA) -> list[float]:
    """Weights of ``size`` taps of a Gaussian, sum 1."""
    raw = [math.exp(-0.5 * ((k - size // 2) / sigma) ** 2) for k in range(size)]
    return [value / sum(raw) for value in raw]


def smooth(x: Tensor, dim: int, size: int, sigma: float = SIGMA) -> Tensor:
    """``x`` under the Gaussian window along ``dim``, where the window fits: ``size - 1`` pixels fewer."""
    if size == 1:
        return x
    length = x.shape[dim] - size + 1
    weights = gaussian_window(size, sigma)
    middle = size // 2
    total = x.narrow(dim, middle, length) * weights[middle]
    for k in range(middle):
        total = total + (x.narrow(dim, k, length) + x.narrow(dim, size - 1 - k, length)) * weights[k]
    return total


def similarity(moments: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM, and its contrast-structure part, of smoothed ``x, y, x², y², xy`` stacked along the first axis."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_x, mean_y, xx, yy, xy = moments[:5]
    product = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    structure = (2 * (xy - product) + c2) / (xx + yy - squares + c2)
    return structure * (2 * product + c1) / (squares + c1), structure


def ssim_map(prediction: Tensor, target: Tensor, *, data_range: float, ndim: int) -> tuple[Tensor, Tensor]:
    """SSIM of every window that fits, and its contrast-structure part; differentiable, in the tensors' own type.

    Args:
        prediction: axes ``(…, [z,] y, x)``.
        target: the same shape.
        data_range: length of the value range.
        ndim: number of spatial axes, the last ones.

    Returns:
        Two tensors whose spatial axes are shorter by the window's size less one.
    """
    moments = torch.stack(_products(prediction, target))
    for dim, size in zip(range(-ndim, 0), window_sizes(prediction.shape[-ndim:]), strict=True):
        moments = smooth(moments, dim, size)
    return similarity(moments, data_range)


def ssim(
    prediction: Image,
    target: Image,
    *,
    data_range: float,
    mask: Image | None = None,
    valid: Image | None = None,
) -> float:
    """Structural similarity, 1 where the images are equal; the mean over channels and items.

    The values agree with scikit-image's ``structural_similarity(gaussian_weights=True,
    use_sample_covariance=False)``.

    Args:
        prediction: the image to judge.
        target: the reference, same shape.
        data_range: length of the value range.
        mask: bool, the windows that count, by their centre pixel; None: all.
        valid: bool, the pixels that hold a value; windows that reach a pixel without one do not count.

    Returns:
        The mean, or NaN if no window counts.

    Raises:
        InputError: shapes differ, a mask is empty, or the range is not positive.

    Example:
        >>> ssim(torch.eye(16), torch.eye(16), data_range=1.0)
        1.0
    """
    first, second = as_pair(prediction, target)
    inside, exists = as_mask(mask, first), as_mask(valid, first, "valid")
    values = []
    for b in range(first.shape[0]):
        for c in range(first.shape[1]):
            stream = SSIMStream(tuple(first.shape[2:]), data_range=data_range)
            stream.add(
                first[b, c],
                second[b, c],
                mask=None if inside is None else inside[b, c],
                valid=None if exists is None else exists[b, c],
            )
            values.append(stream.mean)
    return sum(values) / len(values)


class SSIMStream:
    """SSIM of one image or volume that arrives in slabs along its first axis; the same value as for the whole.

    Args:
        shape: pixels of the whole image per spatial axis.
        data_range: length of the value range.

    Example:
        >>> stream = SSIMStream((16, 16), data_range=1.0)
        >>> stream.add(torch.eye(16)[:9], torch.eye(16)[:9])
        >>> stream.add(torch.eye(16)[9:], torch.eye(16)[9:])
        >>> stream.mean
        1.0
    """

    def __init__(self, shape: tuple[int, ...], *, data_range: float) -> None:
        self._sizes = window_sizes(shape)
        self._range = check_range(data_range)
        self._moments: Tensor | None = None
        self._mask: Tensor | None = None
        self._total = 0.0
        self._count = 0

    @property
    def mean(self) -> float:
        """Mean over the windows so far; NaN if none counted."""
        return self._total / self._count if self._count else math.nan

    @property
    def total(self) -> tuple[float, int]:
        """Sum over the windows that counted, and their number."""
        return self._total, self._count

    def add(
        self, prediction: Tensor, target: Tensor, *, mask: Tensor | None = None, valid: Tensor | None = None
    ) -> None:
        """Take the next rows: axes as the image's, the first one of any length; masks are bool of that shape."""
        x, y = prediction.double(), target.double()
        exists = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        x, y = (torch.where(exists, values, torch.zeros_like(values)) for values in (x, y))
        fields = torch.stack([*_products(x, y), (~exists).double()])
        for dim, size in enumerate(self._sizes[1:], start=2):
            fields = smooth(fields, dim, size)
        counted = self._trimmed(torch.ones_like(exists) if mask is None else mask)
        if self._moments is not None and self._mask is not None:
            fields, counted = torch.cat([self._moments, fields], dim=1), torch.cat([self._mask, counted])
        keep = self._sizes[0] - 1
        if fields.shape[1] > keep:
            self._score(smooth(fields, 1, self._sizes[0]), counted[keep // 2 : counted.shape[0] - keep // 2])
        self._moments, self._mask = (v.narrow(d, max(0, v.shape[d] - keep), min(keep, v.shape[d])).clone()
                                     for v, d in ((fields, 1), (counted, 0)))  # fmt: skip

    def _trimmed(self, mask: Tensor) -> Tensor:
        """``mask`` at the centres of the windows that fit along all axes but the first."""
        for dim, size in enumerate(self._sizes[1:], start=1):
            mask = mask.narrow(dim, size // 2, mask.shape[dim] - size + 1)
        return mask

    def _score(self, fields: Tensor, mask: Tensor) -> None:
        values, _ = similarity(fields, self._range)
        counts = mask & (fields[5] == 0)
        self._total += float(values[counts].sum())
        self._count += int(counts.sum())


def _products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return x, y, x * x, y * y, x * y

"""Structural similarity, in 2D and 3D, whole or slab by slab.

SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) with its Gaussian window: 11 taps, sigma 1.5, K1 = 0.01,
K2 = 0.03, population variances, averaged over the windows that lie wholly inside the image. An axis shorter than 11
pixels takes the longest odd window that fits it, with the weights normalised again; an axis of one pixel drops out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
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
_BLOCK = 64


def window_sizes(shape: Sequence[int], size: int = WINDOW) -> tuple[int, ...]:
    """Taps of the window along each axis of an image: ``size``, or the greatest odd number that fits."""
    return tuple(min(size, n - 1 + n % 2) for n in shape)


def gaussian_window(size: int, sigma: float = SIGMA) -> list[float]:
    """Weights of ``size`` taps of a Gaussian, sum 1."""
    raw = [math.exp(-0.5 * ((k - size // 2) / sigma) ** 2) for k in range(size)]
    return [value / sum(raw) for value in raw]


def smooth(x: Tensor, dim: int, size: int, sigma: float = SIGMA) -> Tensor:
    """``x`` under the Gaussian window along ``dim``, where the window fits: ``size - 1`` pixels fewer.

    Done as products with band matrices, block by block, which processors are far faster at than at sums of shifts.
    """
    if size == 1:
        return x
    dim %= x.dim()
    before, after = x.shape[:dim], x.shape[dim + 1 :]
    flat = x.reshape(math.prod(before), x.shape[dim], math.prod(after))
    length = x.shape[dim] - size + 1
    parts = []
    for start in range(0, length, _BLOCK):
        count = min(_BLOCK, length - start)
        piece = flat.narrow(1, start, count + size - 1)
        band = torch.tensor(_band(count, size, sigma), dtype=x.dtype, device=x.device)
        parts.append((piece[..., 0] @ band.T)[..., None] if flat.shape[2] == 1 else band @ piece)
    return torch.cat(parts, dim=1).reshape(*before, length, *after)


@lru_cache(maxsize=64)
def _band(count: int, size: int, sigma: float) -> NDArray[np.float64]:
    """Matrix ``(count, count + size - 1)`` whose rows are the window, each one pixel further."""
    matrix = np.zeros((count, count + size - 1))
    for row in range(count):
        matrix[row, row : row + size] = gaussian_window(size, sigma)
    return matrix


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
        mask: bool, the windows that count, by their centre pixel; None: all. Pixels outside it that are not finite
            count as not valid.
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
    if inside is not None:
        known = inside | (torch.isfinite(first) & torch.isfinite(second))
        exists = known if exists is None else exists & known
    values = []
    for b in range(first.shape[0]):
        for c in range(first.shape[1]):
            stream = SSIMStream(tuple(first.shape[2:]), data_range=data_range)
            stream.add(
                first[b, c],
                second[b, c],
                masks=None if inside is None else inside[b, c][None],
                valid=None if exists is None else exists[b, c],
            )
            values.append(stream.means[0])
    return sum(values) / len(values)


class SSIMStream:
    """SSIM of one image or volume that arrives in slabs along its first axis; the same value as for the whole.

    Args:
        shape: pixels of the whole image per spatial axis.
        data_range: length of the value range.
        regions: number of masks that come with each slab; a mean is kept for each.

    Example:
        >>> stream = SSIMStream((16, 16), data_range=1.0)
        >>> stream.add(torch.eye(16)[:9], torch.eye(16)[:9])
        >>> stream.add(torch.eye(16)[9:], torch.eye(16)[9:])
        >>> stream.means
        [1.0]
    """

    def __init__(self, shape: tuple[int, ...], *, data_range: float, regions: int = 1) -> None:
        self._sizes = window_sizes(shape)
        self._range = check_range(data_range)
        self._moments: Tensor | None = None
        self._masks: Tensor | None = None
        self._totals = [0.0] * regions
        self._counts = [0] * regions

    @property
    def means(self) -> list[float]:
        """Mean over the windows that counted so far, per region; NaN if none did."""
        return [total / n if n else math.nan for total, n in zip(self._totals, self._counts, strict=True)]

    @property
    def counts(self) -> list[int]:
        """Number of windows that counted so far, per region."""
        return list(self._counts)

    def add(
        self, prediction: Tensor, target: Tensor, *, masks: Tensor | None = None, valid: Tensor | None = None
    ) -> None:
        """Take the next rows.

        Args:
            prediction: axes as the image's, the first one of any length.
            target: the same shape.
            masks: bool ``(regions, …)``, the windows that count by their centre pixel; None: all.
            valid: bool, the pixels that hold a value; windows that reach one without do not count.
        """
        x, y = prediction.double(), target.double()
        exists = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        x, y = (torch.where(exists, values, torch.zeros_like(values)) for values in (x, y))
        fields = torch.stack([*_products(x, y), (~exists).double()])
        for dim, size in enumerate(self._sizes[1:], start=2):
            fields = smooth(fields, dim, size)
        counted = self._trimmed(exists.new_ones((len(self._totals), *x.shape)) if masks is None else masks)
        if self._moments is not None and self._masks is not None:
            fields, counted = torch.cat([self._moments, fields], dim=1), torch.cat([self._masks, counted], dim=1)
        keep, rows = self._sizes[0] - 1, fields.shape[1]
        if rows > keep:
            self._score(smooth(fields, 1, self._sizes[0]), counted[:, keep // 2 : rows - keep // 2])
        last = slice(max(0, rows - keep), rows)
        self._moments, self._masks = fields[:, last].clone(), counted[:, last].clone()

    def _trimmed(self, masks: Tensor) -> Tensor:
        """``masks`` at the centres of the windows that fit along all axes but the first."""
        for dim, size in enumerate(self._sizes[1:], start=2):
            masks = masks.narrow(dim, size // 2, masks.shape[dim] - size + 1)
        return masks

    def _score(self, fields: Tensor, masks: Tensor) -> None:
        values, _ = similarity(fields, self._range)
        whole = fields[5] == 0
        for region, mask in enumerate(masks):
            counts = mask & whole
            self._totals[region] += float(values[counts].sum())
            self._counts[region] += int(counts.sum())


def _products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return x, y, x * x, y * y, x * y

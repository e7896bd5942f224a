"""How much fine detail is right."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.metrics.arrays import Image, as_mask, as_pair

__all__ = ["hfen"]

_SIZE = 15
_SIGMA = 1.5


def hfen(prediction: Image, target: Image, *, mask: Image | None = None) -> float:
    """High-frequency error norm: the norm of the filtered error over that of the filtered reference; 0 is perfect.

    The filter is a Laplacian of a Gaussian of 15 taps per axis and sigma 1.5 (Ravishankar and Bresler 2011,
    doi:10.1109/TMI.2010.2090538), over two or three axes as the image has, borders mirrored. 1 is the error of an image
    without any detail of that scale.

    Args:
        prediction: ``(b, c, [z,] y, x)``.
        target: the same shape.
        mask: bool, the filtered pixels that count.

    Raises:
        InputError: shapes that differ, or an empty mask.

    Example:
        >>> hfen(torch.zeros(20, 20), torch.eye(20))
        1.0
    """
    first, second = as_pair(prediction, target)
    inside = as_mask(mask, first)
    error, reference = _detail(first - second), _detail(second)
    if inside is not None:
        error, reference = (torch.where(inside, v, torch.zeros_like(v)) for v in (error, reference))
    return float((error.flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)).mean())


def _detail(x: Tensor) -> Tensor:
    """``x`` under the Laplacian of a Gaussian: a sum of separable filters, less the mean of the whole kernel."""
    ndim = x.dim() - 2
    axes = [dim for dim in range(2, x.dim()) if x.shape[dim] > 1]
    bell, bend = _profiles()
    total = torch.zeros_like(x)
    for curved in axes:
        part = x
        for dim in axes:
            part = _filtered(part, dim, bend if dim == curved else bell)
        total = total + part
    flat = x
    for dim in axes:
        flat = _filtered(flat, dim, np.full(_SIZE, 1 / _SIZE))
    count = len(axes) if axes else ndim
    return total - flat * (count * float(bend.sum()))


def _profiles() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Gaussian of sum 1, and its second derivative; products of them over the axes make the kernel."""
    at = np.arange(_SIZE) - _SIZE // 2
    bell = np.exp(-0.5 * (at / _SIGMA) ** 2)
    bell /= bell.sum()
    return bell, bell * (at**2 - _SIGMA**2) / _SIGMA**4


def _filtered(x: Tensor, dim: int, taps: NDArray[np.float64]) -> Tensor:
    n = x.shape[dim]
    folded = np.mod(np.arange(-(len(taps) // 2), n + len(taps) // 2), 2 * n)
    rows = torch.from_numpy(np.where(folded < n, folded, 2 * n - 1 - folded)).to(x.device)
    wide = x.index_select(dim, rows)
    total = torch.zeros_like(x)
    for k, weight in enumerate(taps):
        total.add_(wide.narrow(dim, k, n), alpha=float(weight))
    return total

"""Far edges of an image mirrored to a size that a network takes, and cut off again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["crop_to", "pad_to_multiple"]


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

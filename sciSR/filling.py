"""Values for pixels that have none, so that a network sees no holes: from their nearest valid neighbours.

Holes are closed from their rim inwards, one pixel a turn, each pixel by the mean of those of its neighbours that have
a value. A filled pixel therefore depends on nothing farther away than it lies from the rim, and a tile that is read
with a margin of ``reach`` pixels is filled as the whole image would be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_invalid"]


def fill_invalid(values: NDArray[Any], valid: NDArray[Any], reach: int, rest: float = 0.0) -> NDArray[np.float32]:
    """``values`` with every pixel that is not ``valid`` filled.

    Args:
        values: float32, any axes; all of them count as neighbours, so give one channel at a time.
        valid: bool, shape of ``values``.
        reach: how many pixels deep holes are closed from their rim.
        rest: value of what lies deeper.

    Returns:
        float32 of the same shape, without NaN where ``values`` had none among the valid.

    Example:
        >>> fill_invalid(np.array([[1, np.nan, 3]], np.float32), np.array([[True, False, True]]), 4)
        array([[1., 2., 3.]], dtype=float32)
    """
    filled = np.where(valid, values, np.float32(rest)).astype(np.float32, copy=False)
    known = valid.copy()
    for _ in range(reach):
        if known.all() or not known.any():
            break
        weight = _box_sum(known.astype(np.float32))
        total = _box_sum(np.where(known, filled, np.float32(0)))
        rim = (weight > 0.5) & ~known
        filled[rim] = total[rim] / weight[rim]
        known |= rim
    return filled


def _box_sum(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over the 3-pixel box along every axis, nothing beyond the border."""
    from scipy import ndimage

    for axis in range(array.ndim):
        array = ndimage.correlate1d(array, np.ones(3), axis=axis, mode="constant", cval=0.0)
    return array

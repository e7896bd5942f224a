"""Real pairs: whether the coarse raster lies where its fine partner does, how far off it is, how it is moved there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciSR.errors import GeometryError
from sciSR.grid import Grid
from sciSR.kernels import KERNELS, taps
from sciSR.metrics import spatial_shift
from sciSR.raster import Raster
from sciSR.resampling import apply_taps, resample

__all__ = ["check_pair", "moved", "pair_gain", "pair_shift"]

_ROUNDS = 4


def check_pair(high: Raster, low: Raster, scale: Sequence[int]) -> None:
    """Raise GeometryError where the two do not cover the same field of view at that factor, by what their grids say.

    Two pictures, which lie in no space, are taken to cover the same field of view: only their sizes must fit.
    """
    fine, coarse = high.grid, low.grid
    wanted = tuple(n * s for n, s in zip(coarse.shape, scale, strict=True))
    if wanted != fine.shape:
        raise GeometryError(
            f"{low.name}: {coarse.shape} pixels refined by {tuple(scale)} are {wanted}, "
            f"its fine partner {high.name} has {fine.shape}; crop or regrid one of them"
        )
    if not (_placeless(fine) and _placeless(coarse)) and not fine.same_space(coarse, tolerance_px=0.5):
        raise GeometryError(
            f"{low.name}: does not cover the field of view of {high.name} to half a fine pixel; register the two first"
        )


def _placeless(grid: Grid) -> bool:
    """Whether a file said nothing of where its pixels lie."""
    return grid.frame is None and grid.unit is None and bool((grid.affine == np.eye(len(grid.affine))).all())


def pair_gain(low: Tensor, high: Tensor) -> tuple[float, float]:
    """Spread of the coarse values as a multiple of the fine ones', and what they lie above those in such spreads.

    Neither a displacement nor noise of a few per cent matters to it. Constant values have gain 1.

    Args:
        low: ``(c, [z,] y, x)``.
        high: the same field of view, finer.
    """
    seen = resample(high[None], low.shape[1:])[0]
    spread, own = float(seen.std()), float(low.std())
    if spread == 0 or own == 0:
        return 1.0, 0.0
    return own / spread, float(low.mean() - seen.mean()) / spread


def pair_shift(low: Tensor, high: Tensor) -> tuple[float, ...]:
    """How far what the coarse values show is displaced against the fine ones, in fine pixels per spatial axis.

    Phase correlation finds it to some tenths of a pixel; from there least squares, linear in the shift and in a gain
    and an offset between the two, finds the rest (Lucas and Kanade 1981). Axes of less than 8 coarse pixels count as
    still.

    Args:
        low: ``(c, [z,] y, x)``.
        high: the same field of view, finer.
    """
    seen = resample(high.mean(dim=0)[None, None], low.shape[1:])[0]
    shown = low.mean(dim=0)[None]
    axes = [axis for axis, n in enumerate(shown.shape[1:]) if n >= 8]
    shift = [0.0] * (shown.dim() - 1)
    if not axes or float(shown.std()) == 0 or float(seen.std()) == 0:
        return tuple(shift)
    first = spatial_shift(shown[None], seen[None])
    for axis in axes:
        shift[axis] = first[axis]
    for _ in range(_ROUNDS):
        here, inside = moved(shown, shift)
        rim = tuple(slice(2, -2) if axis in axes else slice(None) for axis in range(len(shift)))
        keep = inside[rim].flatten()
        columns = [torch.gradient(here[0], dim=axis)[0][rim].flatten()[keep] for axis in axes]
        flat = here[0][rim].flatten()[keep]
        matrix = torch.stack([*columns, flat, torch.ones_like(flat)], dim=1).double()
        found = torch.linalg.lstsq(matrix, seen[0][rim].flatten()[keep].double()[:, None]).solution[:, 0]
        gain = float(found[-2]) or 1.0
        for axis, step in zip(axes, found.tolist(), strict=False):
            shift[axis] += max(-1.0, min(1.0, step / gain))
    return tuple(d * n / m for d, n, m in zip(shift, high.shape[1:], low.shape[1:], strict=True))


def moved(values: Tensor, shift: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The coarse values moved back by a shift, cubic; and where they come from inside the image.

    Args:
        values: ``(c, [z,] y, x)``.
        shift: displacement in their own pixels per spatial axis.
    """
    x = values[None]
    inside = torch.ones(values.shape[1:], dtype=torch.bool)
    for axis, d in enumerate(shift):
        n = values.shape[axis + 1]
        positions = np.arange(n) + d
        x = apply_taps(x, axis + 2, *taps(positions, n, KERNELS["cubic"]))
        good = torch.from_numpy((positions >= -0.01) & (positions <= n - 0.99))
        inside &= good.reshape(-1, *(1,) * (inside.dim() - 1 - axis))
    return x[0], inside

"""Where a pixel lies: the one place that knows.

Index space follows the corner convention for volumes and scenes alike: along each axis pixel ``k`` covers the index
interval ``[k, k + 1]``, its centre is at ``k + 0.5``, and index 0 is the outer edge of the first pixel. Formats that
count from pixel centres (NIfTI, ITK) convert with :meth:`Grid.from_center_affine` and :attr:`Grid.center_affine`.

Arrays are ordered ``(z, y, x)``; the affine acts on index columns ``(x, y[, z], 1)``, as GDAL's geotransform and
NIfTI's sform do. All geometry is done with matrix products, so flips, rotations and shears need no special case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciSR.errors import GeometryError

__all__ = ["RAS_MM", "SPATIAL_AXES", "Grid", "scale_per_axis"]

SPATIAL_AXES = ("z", "y", "x")
RAS_MM = "RAS+ mm"
"""The frame of medical volumes: x to the patient's right, y to anterior, z to superior, in millimetres (NIfTI-1)."""

_Matrix = NDArray[np.float64]


def scale_per_axis(scale: float | Mapping[str, float], axes: tuple[str, ...]) -> dict[str, float]:
    """Factor for each of ``axes``; a plain number means all of them, an axis not named keeps factor 1.

    Raises:
        GeometryError: a factor that is not finite and positive, or an axis that is not one of ``axes``.
    """
    named = dict(scale) if isinstance(scale, Mapping) else dict.fromkeys(axes, scale)
    unknown = sorted(set(named) - set(axes))
    if unknown:
        raise GeometryError(f"scale: no spatial axis {', '.join(unknown)} here; name some of {', '.join(axes)}")
    for axis, factor in named.items():
        if not (np.isfinite(factor) and factor > 0):
            raise GeometryError(f"scale: {factor} on axis {axis} is not a positive number")
    return {axis: float(named.get(axis, 1)) for axis in axes}


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape, position and frame of a raster; immutable.

    Attributes:
        shape: number of pixels per spatial axis, in array order ``(z, y, x)`` or ``(y, x)``.
        affine: float64 matrix ``(n + 1, n + 1)`` from index columns ``(x, y[, z], 1)``, corner convention, to world.
        frame: coordinate reference system as WKT or ``"EPSG:n"``, :data:`RAS_MM`, or None where the file names none.
        unit: length unit of world coordinates (``"mm"``, ``"m"``, ``"degree"``), or None where it is not known.

    Example:
        >>> grid = Grid((3, 4), [[10, 0, 500], [0, -10, 900], [0, 0, 1]], frame="EPSG:32618", unit="m")
        >>> fine = grid.refine(2)
        >>> fine.shape, fine.spacing, fine.bounds == grid.bounds
        ((6, 8), {'y': 5.0, 'x': 5.0}, True)
    """

    shape: tuple[int, ...]
    affine: _Matrix
    frame: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        n = len(shape)
        if n not in (2, 3):
            raise GeometryError(f"grid: {n} spatial axes came, expected 2 (y, x) or 3 (z, y, x)")
        if min(shape) < 1:
            raise GeometryError(f"grid: shape {shape} has an empty axis; every axis needs at least one pixel")
        if affine.shape != (n + 1, n + 1):
            raise GeometryError(f"grid: affine of shape {affine.shape} came, expected {(n + 1, n + 1)}")
        _check_affine(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_center_affine(
        cls, shape: tuple[int, ...], affine: ArrayLike, *, frame: str | None = None, unit: str | None = None
    ) -> Grid:
        """Grid from an affine that maps whole indices to pixel *centres* (NIfTI-1 section 6, ITK).

        Args:
            shape: pixels per spatial axis in array order.
            affine: matrix ``(n + 1, n + 1)`` on columns ``(x, y[, z], 1)``.
            frame: as for the class.
            unit: as for the class.
        """
        n = len(tuple(shape))
        return cls(tuple(shape), np.asarray(affine, dtype=np.float64) @ _shift(n, -0.5), frame, unit)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the spatial axes in array order: ``("z", "y", "x")`` or ``("y", "x")``."""
        return SPATIAL_AXES[-len(self.shape) :]

    @property
    def center_affine(self) -> _Matrix:
        """The affine that maps whole indices ``(x, y[, z], 1)`` to pixel centres, as NIfTI stores it."""
        return self.affine @ _shift(len(self.shape), 0.5)

    @property
    def spacing(self) -> dict[str, float]:
        """Pixel size in world units per axis: the length of the affine's column."""
        lengths = np.sqrt((self.affine[:-1, :-1] ** 2).sum(axis=0))
        return {axis: float(lengths[-1 - i]) for i, axis in enumerate(self.axes)}

    @property
    def corners(self) -> _Matrix:
        """World coordinates ``(2**n, n)`` of the outer corners, first index axis (x) fastest."""
        size = self.shape[::-1]
        index = np.array([c[::-1] for c in product(*[(0, s) for s in size[::-1]])], dtype=np.float64)
        return self.world(index)

    @property
    def bounds(self) -> tuple[float, ...]:
        """Least and greatest world coordinate of the outer corners: ``(x_min, y_min[, z_min], x_max, …)``."""
        corners = self.corners
        return tuple(float(v) for v in (*corners.min(axis=0), *corners.max(axis=0)))

    def world(self, index: ArrayLike) -> _Matrix:
        """World coordinates ``(…, n)`` of index points ``(…, n)``, both in order ``(x, y[, z])``.

        Indices follow the corner convention: the centre of pixel k is ``k + 0.5``.
        """
        points = np.asarray(index, dtype=np.float64)
        return points @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def index(self, world: ArrayLike) -> _Matrix:
        """Index points ``(…, n)`` in order ``(x, y[, z])``, corner convention, of world points ``(…, n)``."""
        points = np.asarray(world, dtype=np.float64)
        index = np.linalg.solve(self.affine[:-1, :-1], (points - self.affine[:-1, -1])[..., None])[..., 0]
        return np.asarray(index, dtype=np.float64)

    def refine(self, scale: float | Mapping[str, float]) -> Grid:
        """The same field of view with ``scale`` times the pixels per axis; counts are rounded, bounds stay.

        A plain number means every spatial axis; a mapping names axes (``{"z": 4}``), the others keep their count.
        """
        factors = scale_per_axis(scale, self.axes)
        return self.resize(tuple(max(1, round(n * factors[a])) for n, a in zip(self.shape, self.axes, strict=True)))

    def coarsen(self, scale: float | Mapping[str, float]) -> Grid:
        """The same field of view with the pixel count divided by ``scale`` per axis, rounded; bounds stay."""
        factors = scale_per_axis(scale, self.axes)
        return self.refine({axis: 1 / f for axis, f in factors.items()})

    def resize(self, shape: tuple[int, ...]) -> Grid:
        """The same field of view with the given pixel counts in array order: ``affine @ diag(old / new)``."""
        if len(shape) != len(self.shape) or min(shape) < 1:
            raise GeometryError(f"grid: shape {tuple(shape)} does not fit {len(self.shape)} axes of at least one pixel")
        ratio = [old / new for old, new in zip(self.shape, shape, strict=True)]
        return replace(self, shape=tuple(shape), affine=self.affine @ np.diag([*ratio[::-1], 1.0]))

    def with_spacing(self, spacing: float | Mapping[str, float]) -> Grid:
        """The same field of view at about ``spacing`` world units per pixel: counts rounded, bounds kept.

        A mapping names axes; the others keep theirs. Read the spacing that was reached from the result.
        """
        wanted = scale_per_axis(spacing, self.axes) if not isinstance(spacing, Mapping) else dict(spacing)
        have = self.spacing
        unknown = sorted(set(wanted) - set(have))
        if unknown:
            raise GeometryError(f"target_spacing: no spatial axis {', '.join(unknown)}; name some of {', '.join(have)}")
        for axis, value in wanted.items():
            if not (np.isfinite(value) and value > 0):
                raise GeometryError(f"target_spacing: {value} on axis {axis} is not a positive length")
        return self.refine({axis: have[axis] / value for axis, value in wanted.items()})

    def factors(self, coarse: Grid) -> dict[str, float]:
        """Pixels along each axis for one of ``coarse``, a grid of the same axes and field of view.

        Example:
            >>> coarse = Grid((4, 6), np.eye(3))
            >>> coarse.refine({"y": 2.5}).factors(coarse)
            {'y': 2.5, 'x': 1.0}
        """
        return {axis: n / m for axis, n, m in zip(self.axes, self.shape, coarse.shape, strict=True)}

    def crop(self, window: tuple[slice, ...]) -> Grid:
        """The part of the grid under ``window`` (slices with start and stop in array order)."""
        start = [0 if s.start is None else s.start for s in window]
        stop = [n if s.stop is None else s.stop for s, n in zip(window, self.shape, strict=True)]
        if any(a < 0 or b > n or b <= a for a, b, n in zip(start, stop, self.shape, strict=True)):
            raise GeometryError(f"grid: window {window} does not lie inside shape {self.shape}")
        return self._moved(start, tuple(b - a for a, b in zip(start, stop, strict=True)))

    def pad(self, before: tuple[int, ...], after: tuple[int, ...]) -> Grid:
        """The grid with pixels added before and after each axis, in array order."""
        shape = tuple(b + n + a for b, n, a in zip(before, self.shape, after, strict=True))
        return self._moved([-b for b in before], shape)

    def same_space(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """Whether both cover the same field of view in the same frame, corner by corner.

        ``tolerance_px`` is in pixels of the finer of the two. Shapes may differ.
        """
        if len(self.shape) != len(other.shape) or self.frame != other.frame:
            return False
        finest = min(*self.spacing.values(), *other.spacing.values())
        return bool(np.abs(self.corners - other.corners).max() <= tolerance_px * finest)

    def _moved(self, start: list[int], shape: tuple[int, ...]) -> Grid:
        shift = np.eye(len(shape) + 1)
        shift[:-1, -1] = start[::-1]
        return replace(self, shape=shape, affine=self.affine @ shift)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and (self.shape, self.frame, self.unit) == (other.shape, other.frame, other.unit)
            and np.array_equal(self.affine, other.affine)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.frame, self.unit, self.affine.tobytes()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record: shape, affine rows, frame, unit."""
        return {"shape": list(self.shape), "affine": self.affine.tolist(), "frame": self.frame, "unit": self.unit}


def _shift(n: int, by: float) -> _Matrix:
    matrix = np.eye(n + 1)
    matrix[:-1, -1] = by
    return matrix


def _check_affine(affine: _Matrix) -> None:
    """Raise GeometryError for an affine that cannot place pixels: NaN, a zero column, or singular."""
    n = affine.shape[0] - 1
    if not np.isfinite(affine).all():
        raise GeometryError(f"grid: the affine holds NaN or infinity: {affine.tolist()}; repair the header")
    if not np.array_equal(affine[-1], [0] * n + [1]):
        raise GeometryError(f"grid: the affine's last row is {affine[-1].tolist()}, expected {[0] * n + [1]}")
    lengths = np.sqrt((affine[:-1, :-1] ** 2).sum(axis=0))
    for name, length in zip("xyz", lengths, strict=False):
        if length == 0:
            raise GeometryError(f"grid: spacing 0 on axis {name}; repair the header or pass spacing=")
    if abs(np.linalg.det(affine[:-1, :-1] / lengths)) < 1e-6:
        raise GeometryError(f"grid: the affine is singular, two axes are parallel: {affine.tolist()}")

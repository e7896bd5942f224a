"""From what was asked for to where a network runs: the grid to reach, the turn of its axes, the tiles."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciSR.errors import GeometryError, InputError, PrecisionWarning
from sciSR.grid import Grid, scale_per_axis
from sciSR.networks.spec import NetworkSpec
from sciSR.raster import Raster
from sciSR.tiling import TilePlan

__all__ = ["Target", "factors", "find_target", "plan_tiles", "twice", "wanted_grid"]

_TILE = {"cpu": {2: 256, 3: 64}, "openvino": {2: 512, 3: 96}, "device": {2: 1024, 3: 128}}
"""Pixels of a tile per axis: large enough for a small share of halo, small enough for cache and memory; the 2D sizes
make whole 512-pixel output blocks at factor 2, so that no block of a tiled GeoTIFF is encoded twice."""
_FILL_REACH = 16


@dataclass(frozen=True)
class Target:
    """What is to be reached.

    Attributes:
        grid: the wanted grid.
        order: for each of the network's spatial axes, which spatial axis of the raster it runs along.
        network_scale: the network's factor per axis of the raster.
    """

    grid: Grid
    order: tuple[int, ...]
    network_scale: tuple[int, ...]


def wanted_grid(raster: Raster, scale: Any, spacing: Any) -> Grid | None:
    """The grid of a scale or target spacing, or None where neither was given.

    What is said for all axes is not meant for an axis along which a volume has a single voxel: a slice has nothing to
    refine across it. By name (``{"z": 2}``) it can be.

    Raises:
        GeometryError: a factor or spacing that is no positive number, or an axis that is not there.
    """
    if scale is not None:
        return raster.grid.refine(_by_name(raster, scale))
    if spacing is None:
        return None
    if spacing == "isotropic":
        spacing = min(raster.grid.spacing[axis] for axis in _long_axes(raster))
    return raster.grid.with_spacing(_by_name(raster, spacing))


def twice(raster: Raster) -> Grid:
    """The grid of factor 2, which methods without a factor of their own take where none is given."""
    return raster.grid.refine(_by_name(raster, 2.0))


def _by_name(raster: Raster, value: float | Mapping[str, float]) -> Mapping[str, float]:
    return value if isinstance(value, Mapping) else dict.fromkeys(_long_axes(raster), value)


def _long_axes(raster: Raster) -> list[str]:
    """The axes that have anything to refine: of a volume those with more than one voxel, unless none has."""
    axes = raster.grid.axes
    found = [axis for axis, n in zip(axes, raster.grid.shape, strict=True) if n > 1 or len(axes) < 3]
    return found or list(axes)


def factors(raster: Raster, grid: Grid) -> tuple[float, ...]:
    """Pixels of ``grid`` per pixel of the raster, per spatial axis in array order."""
    return tuple(grid.factors(raster.grid).values())


def find_target(raster: Raster, spec: NetworkSpec, wanted: Grid | None) -> Target:
    """Where the network's axes run and what grid is to be reached.

    Raises:
        InputError: the network has more axes than the raster, or refines none that has more than one voxel.
    """
    axes = raster.grid.axes
    if spec.ndim > len(axes):
        raise InputError(
            f"{raster.name}: a network for the axes {', '.join(spec.axes)} cannot run on a scene with "
            f"{', '.join(axes)}; choose a 2D network"
        )
    order = _axis_order(raster, spec, wanted)
    network_scale = [1] * len(axes)
    for position, s in zip(order, spec.scale, strict=True):
        network_scale[position] = s
    scales = {axis: float(s) for axis, s in zip(axes, network_scale, strict=True)}
    long = _long_axes(raster)
    grid = wanted or raster.grid.refine({axis: scales[axis] for axis in long})
    flat = [axis for axis in axes if axis not in long and scales[axis] > 1]
    if flat:
        _tell_flat(raster, flat, enough=wanted is not None or any(scales[axis] > 1 for axis in long))
    for axis, factor, s in zip(axes, factors(raster, grid), network_scale, strict=True):
        if factor > s + 1e-9:
            _warn_beyond(raster, axis, factor, s)
    return Target(grid, order, tuple(network_scale))


def _tell_flat(raster: Raster, axes: list[str], *, enough: bool) -> None:
    """Warn, or refuse, where a network works across a single voxel."""
    where = f"{raster.name}: the network refines along {', '.join(axes)}, where there is a single voxel"
    if not enough:
        raise InputError(f"{where}; choose a network for the other axes")
    warnings.warn(
        f"{where}: it was trained on neighbours that are not there; ibp or a 2D network may do better",
        PrecisionWarning,
        stacklevel=5,
    )


def _warn_beyond(raster: Raster, axis: str, factor: float, s: int) -> None:
    warnings.warn(
        f"{raster.name}: factor {factor:g} on axis {axis} is more than the network's {s}; the rest is cubic "
        "interpolation, which adds pixels but no detail",
        PrecisionWarning,
        stacklevel=5,
    )


def _axis_order(raster: Raster, spec: NetworkSpec, wanted: Grid | None) -> tuple[int, ...]:
    """Raster axis of each network axis; an anisotropic 3D network turns its refined axis to the coarse one."""
    n = len(raster.grid.axes)
    natural = tuple(range(n - spec.ndim, n))
    if spec.ndim != 3 or len(set(spec.scale)) == 1 or sorted(spec.scale)[1] != 1:
        return natural
    measure = list(raster.grid.spacing.values() if wanted is None else factors(raster, wanted))
    coarse = int(np.argmax(measure))
    special = int(np.argmax(spec.scale))
    order = list(natural)
    order[special], order[coarse] = order[coarse], order[special]
    return tuple(order)


def plan_tiles(
    raster: Raster, spec: NetworkSpec, target: Target, tile: Any, exact: bool, kind: str
) -> tuple[TilePlan, int]:
    """The tiles over the raster's spatial axes, and how deep holes are filled.

    Args:
        raster: the input.
        spec: of the network.
        target: from :func:`find_target`.
        tile: ``"auto"``, pixels per axis, or None for the whole image; a network that cannot tile exactly keeps to its
            own fixed windows, whatever is asked for.
        exact: the halo is the receptive radius instead of the measured one.
        kind: ``"cpu"``, ``"openvino"`` or ``"device"``, for the automatic size.

    Raises:
        InputError: a tile that is none.
        GeometryError: a tile below one pixel.
    """
    shape = raster.grid.shape
    n = len(shape)
    halo, align, sizes = [0] * n, [1] * n, [16] * n
    fixed = not spec.exact_tiling and tile is not None
    for i, position in enumerate(target.order):
        radius = spec.receptive_radius
        halo[position] = radius[i] if exact and radius is not None else spec.halo[i]
        align[position] = spec.alignment[i]
        sizes[position] = spec.window[i] if fixed and spec.window else _TILE["cpu" if fixed else kind][spec.ndim]
    if fixed:
        tile = "fixed"
    elif isinstance(tile, int):
        sizes = [tile] * n
    elif isinstance(tile, Mapping):
        given = scale_per_axis(tile, raster.grid.axes)
        sizes = [int(given[a]) if a in tile else s for a, s in zip(raster.grid.axes, sizes, strict=True)]
    elif tile is None:
        sizes = list(shape)
    elif tile != "auto":
        raise InputError(f"tile: {tile!r} came; expected auto, null or a whole number of pixels")
    if min(sizes) < 1:
        raise GeometryError(f"tile: {sizes} has a size below one pixel")
    whole = [s if n_ > (1.5 * s if tile == "auto" else s) else n_ for s, n_ in zip(sizes, shape, strict=True)]
    sizes = [-(-s // a) * a for s, a in zip(whole, align, strict=True)]
    plan = TilePlan(shape, tuple(sizes), tuple(halo), target.network_scale, tuple(align))
    holes = raster.dtype.kind == "f" or raster.encoding.mask or any(v is not None for v in raster.encoding.nodata)
    return plan, min(_FILL_REACH, max(1, *halo)) if holes else 0

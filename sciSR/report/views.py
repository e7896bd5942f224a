"""Cuts through rasters as they are looked at: three anatomical planes of a volume, a colour window of a scene.

A :class:`View` says where to cut, in fractions of the field of view, so that the same place is cut out of the input and
of everything refined from it. Only what is drawn is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from sciSR.grid import RAS_MM, Grid
from sciSR.raster import Raster

__all__ = ["Cut", "View", "anatomy", "cut", "detail", "moved", "scene_views", "volume_views"]

_METRES_PER_DEGREE = 111_320.0
"""Length of a degree of latitude, mean over the ellipsoid (WGS 84)."""
_OVERVIEW = 512
"""Pixels of the input along the longer side of a scene's first view; a larger scene shows its centre."""
_DETAIL = 80
_RED_GREEN_BLUE = (("red", r"(sr_)?b0*4"), ("green", r"(sr_)?b0*3"), ("blue", r"(sr_)?b0*2"))
"""Band names of Sentinel-2 and Landsat 8/9; GDAL's colour interpretation and plain words come first."""

_Image = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Where to cut, and how to lay it on the page.

    Attributes:
        title: what it is called.
        window: first and last place per spatial axis as fractions of the field of view; equal ends: one pixel layer.
        rows: the spatial axis that runs down the page, and whether its index falls.
        columns: the spatial axis that runs to the right, and whether its index falls.
        letters: what lies left, right, top and bottom, or None.
        channels: the channels shown: one (grey) or three (red, green, blue).
        magnified: whether it is a detail of another view.
    """

    title: str
    window: Mapping[str, tuple[float, float]]
    rows: tuple[str, bool]
    columns: tuple[str, bool]
    letters: tuple[str, str, str, str] | None = None
    channels: tuple[int, ...] = (0,)
    magnified: bool = False


@dataclass(frozen=True)
class Cut:
    """What was read under a view.

    Attributes:
        image: ``(rows, columns)`` or ``(rows, columns, 3)`` physical values, NaN where there are none.
        height: length down the page in ``unit``.
        width: length to the right.
        unit: ``"mm"``, ``"m"`` or ``"px"``.
    """

    image: _Image
    height: float
    width: float
    unit: str


def cut(raster: Raster, view: View) -> Cut:
    """The part of a raster under a view; the first time step of a series."""
    axes = raster.grid.axes
    part = {axis: _pixels(view.window[axis], n) for axis, n in zip(axes, raster.grid.shape, strict=True)}
    window = tuple(
        part[axis] if axis in part else slice(0, 1 if axis == "t" else n)
        for axis, n in zip(raster.axes, raster.shape, strict=True)
    )
    block = raster.read(window)
    values = block.values.astype(np.float64)
    if block.valid is not None:
        values[~np.broadcast_to(block.valid, values.shape)] = np.nan
    if raster.channel_axis is None:
        values = values[None]
    elif raster.axes[0] == "t":
        values = values[0]
    values = values.reshape(-1, *(part[a].stop - part[a].start for a in axes))[list(view.channels)]
    order = [axes.index(view.rows[0]) + 1, axes.index(view.columns[0]) + 1]
    rest = [i + 1 for i in range(len(axes)) if i + 1 not in order]
    image = values.transpose([*order, *rest, 0]).reshape(*(values.shape[i] for i in order), -1)
    image = image[:: -1 if view.rows[1] else 1, :: -1 if view.columns[1] else 1]
    size, unit = _pixel_lengths(raster.grid)
    height, width = (n * size[axis] for n, axis in zip(image.shape, (view.rows[0], view.columns[0]), strict=False))
    return Cut(image[..., 0] if image.shape[-1] == 1 else image, height, width, unit)


def _pixels(ends: tuple[float, float], n: int) -> slice:
    """The pixels between two fractions of an axis; the one layer at a single fraction."""
    if ends[0] == ends[1]:
        at = min(n - 1, max(0, math.floor(ends[0] * n)))
        return slice(at, at + 1)
    start = min(n - 1, max(0, round(ends[0] * n)))
    return slice(start, max(start + 1, min(n, round(ends[1] * n))))


def moved(view: View, source: Grid, target: Grid) -> View:
    """The same place in another grid of the same axes, kept inside it."""
    window = {}
    for axis, n in zip(source.axes, source.shape, strict=True):
        position = len(source.shape) - 1 - source.axes.index(axis)
        low, high = view.window[axis]
        origin = np.zeros(len(source.shape))
        ends = []
        for fraction in (low, high):
            point = origin.copy()
            point[position] = fraction * n
            ends.append(target.index(source.world(point))[position] / target.shape[source.axes.index(axis)])
        if low == high:
            at = min(1.0, max(0.0, ends[0]))
            window[axis] = (at, at)
        elif view.magnified:
            length = min(1.0, ends[1] - ends[0])
            start = min(1 - length, max(0.0, ends[0]))
            window[axis] = (start, start + length)
        else:
            window[axis] = (max(0.0, ends[0]), min(1.0, ends[1]))
    return replace(view, window=window)


def anatomy(grid: Grid) -> dict[str, tuple[str, bool]]:
    """For each anatomical direction the voxel axis that runs along it, and whether its index rises with it.

    Keys are ``"R"``, ``"A"`` and ``"S"``; oblique axes count to the direction that they are nearest to.
    """
    columns = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    best = max(permutations(range(3)), key=lambda order: sum(abs(columns[w, i]) for w, i in enumerate(order)))
    return {letter: ("xyz"[i], bool(columns[w, i] > 0)) for w, (letter, i) in enumerate(zip("RAS", best, strict=True))}


def volume_views(raster: Raster) -> list[View]:
    """Axial, coronal and sagittal view through the centre of the foreground, in the radiological convention.

    The patient's right is on the left of the page, front is up or left, head is up. Planes follow the voxel axes.
    """
    known = raster.grid.frame == RAS_MM
    run = anatomy(raster.grid) if known else {"R": ("x", False), "A": ("y", False), "S": ("z", False)}
    whole = dict.fromkeys(raster.grid.axes, (0.0, 1.0))
    (right, r_rises), (front, a_rises), (head, s_rises) = run["R"], run["A"], run["S"]
    views = [
        View("axial" if known else "x, y", whole, (front, a_rises), (right, r_rises), ("R", "L", "A", "P")),
        View("coronal" if known else "x, z", whole, (head, s_rises), (right, r_rises), ("R", "L", "S", "I")),
        View("sagittal" if known else "y, z", whole, (head, s_rises), (front, a_rises), ("A", "P", "S", "I")),
    ]
    normals = (head, front, right)
    if not known:
        views = [replace(view, letters=None) for view in views]
    centre = _foreground_centre(raster, views, normals)
    return [
        replace(view, window={**whole, axis: (centre[axis], centre[axis])})
        for view, axis in zip(views, normals, strict=True)
    ]


def _foreground_centre(raster: Raster, views: list[View], normals: tuple[str, ...]) -> dict[str, float]:
    """Centre of what is brighter than the background in the three middle planes, as fractions; two rounds."""
    centre = dict.fromkeys(raster.grid.axes, 0.5)
    for _ in range(2):
        sums = dict.fromkeys(raster.grid.axes, 0.0)
        seen = dict.fromkeys(raster.grid.axes, 0)
        for view, axis in zip(views, normals, strict=True):
            at = replace(view, window={**view.window, axis: (centre[axis], centre[axis])})
            image = cut(raster, at).image
            low, high = np.nanpercentile(image, [2, 98]) if np.isfinite(image).any() else (0.0, 0.0)
            inside = np.argwhere(image > low + 0.1 * (high - low))
            for i, (name, falls) in enumerate((view.rows, view.columns)):
                if len(inside):
                    fraction = float((inside[:, i] + 0.5).mean() / image.shape[i])
                    sums[name] += 1 - fraction if falls else fraction
                    seen[name] += 1
        centre = {axis: (sums[axis] / seen[axis] if seen[axis] else 0.5) for axis in centre}
    return {
        axis: (math.floor(f * n) + 0.5) / n
        for (axis, f), n in zip(((a, centre[a]) for a in raster.grid.axes), raster.grid.shape, strict=True)
    }


def scene_views(raster: Raster) -> list[View]:
    """The scene in colour, or the central part of a large one."""
    window = {}
    for axis, n in zip(raster.grid.axes, raster.grid.shape, strict=True):
        kept = min(n, _OVERVIEW)
        start = (n - kept) // 2
        window[axis] = (start / n, (start + kept) / n)
    whole = all(ends == (0.0, 1.0) for ends in window.values())
    matrix = raster.grid.affine[:2, :2]
    aligned = matrix[0, 0] > 0 and matrix[1, 1] < 0 and abs(matrix[0, 1]) + abs(matrix[1, 0]) < 1e-9 * abs(matrix[0, 0])
    letters = ("W", "E", "N", "S") if aligned and raster.grid.frame is not None else None
    title = "whole scene" if whole else "centre"
    return [View(title, window, ("y", False), ("x", False), letters, _colours(raster))]


def _colours(raster: Raster) -> tuple[int, ...]:
    """Channels for red, green and blue: by colour interpretation, by name, else the first three; one if fewer."""
    if len(raster.channels) < 3:
        return (0,)
    marks = raster.metadata.items.get("colors", ()) if raster.metadata is not None else ()
    if len(marks) == len(raster.channels) and {3, 4, 5} <= set(marks):
        return tuple(marks.index(mark) for mark in (3, 4, 5))
    names = [(channel.name or "").strip().lower() for channel in raster.channels]
    found = [
        next((i for i, name in enumerate(names) if name == word or re.fullmatch(pattern, name)), None)
        for word, pattern in _RED_GREEN_BLUE
    ]
    chosen = tuple(i for i in found if i is not None)
    return chosen if len(chosen) == 3 else (0, 1, 2)


def detail(raster: Raster, view: View) -> View:
    """A square part of a view, a quarter of its shorter side or 80 pixels, where the raster has most detail."""
    seen = cut(raster, view)
    image = seen.image if seen.image.ndim == 2 else seen.image.mean(axis=2)
    pixel = min(seen.height / image.shape[0], seen.width / image.shape[1])
    side = min(_DETAIL * pixel, 0.25 * min(seen.height, seen.width))
    size = [
        max(2, min(n, round(side / length * n)))
        for n, length in zip(image.shape, (seen.height, seen.width), strict=True)
    ]
    steps = np.nan_to_num(np.hypot(*np.gradient(image)) if min(image.shape) > 1 else np.zeros(image.shape))
    edges = steps[steps > 0]
    steps = np.minimum(steps, np.percentile(edges, 90)) if edges.size else steps
    top, left = _busiest(steps, size)
    window = dict(view.window)
    for (axis, falls), start, length, n in zip((view.rows, view.columns), (top, left), size, image.shape, strict=True):
        low, high = view.window[axis]
        a, b = start / n, (start + length) / n
        a, b = (1 - b, 1 - a) if falls else (a, b)
        window[axis] = (low + a * (high - low), low + b * (high - low))
    return replace(view, title=f"{view.title}, detail", window=window, magnified=True)


def _busiest(steps: _Image, size: list[int]) -> tuple[int, int]:
    """Corner of the box of ``size`` with the largest sum, among those not in the outer sixth of the image."""
    sums = np.zeros((steps.shape[0] + 1, steps.shape[1] + 1))
    sums[1:, 1:] = steps.cumsum(axis=0).cumsum(axis=1)
    h, w = size
    boxes = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    rim = [min(n // 6, (m - 1) // 2) for n, m in zip(steps.shape, boxes.shape, strict=True)]
    inner = boxes[rim[0] : boxes.shape[0] - rim[0], rim[1] : boxes.shape[1] - rim[1]]
    top, left = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(top) + rim[0], int(left) + rim[1]


def _pixel_lengths(grid: Grid) -> tuple[dict[str, float], str]:
    """Length of a pixel per axis, and its unit; degrees become metres at the grid's centre."""
    if grid.unit == "degree":
        latitude = grid.world([[n / 2 for n in grid.shape[::-1]]])[0, 1]
        metres = np.array([_METRES_PER_DEGREE * math.cos(math.radians(latitude)), _METRES_PER_DEGREE])
        lengths = np.sqrt(((grid.affine[:2, :2] * metres[:, None]) ** 2).sum(axis=0))
        return {"x": float(lengths[0]), "y": float(lengths[1])}, "m"
    return grid.spacing, grid.unit or "px"

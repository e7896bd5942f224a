"""draw_picture(): input, classical and super-resolved image side by side, and the errors on a degraded copy.

All images share one window, all errors one scale, and proportions are true: a millimetre is as long down as across.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciSR.evaluation import WaldResult
from sciSR.files import whole_file
from sciSR.grid import Grid
from sciSR.raster import Raster
from sciSR.report.canvas import Box, Canvas
from sciSR.report.views import Cut, View, cut, detail, moved, scene_views, volume_views

__all__ = ["draw_picture"]

_CELL = 2.45
_CELL_ALONE = 3.4
_TALLEST = 3.1
_GAP = 0.07
_BLOCK_GAP = 0.42
_LEFT, _RIGHT, _TOP = 0.34, 0.2, 1.5
_BAR_ROOM = 0.95
_LINE = 0.19
_GREY = "#555555"
_NOTICE = "Super-resolved values are estimates, not measurements. Not for diagnosis."


@dataclass(frozen=True)
class _Column:
    """One column of the picture: what it shows, under which words."""

    title: str
    raster: Raster
    truth: Raster | None = None
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class _Sheet:
    """Everything that is drawn, before it has a place."""

    views: Sequence[View]
    left: Sequence[_Column]
    right: Sequence[_Column]
    window: tuple[NDArray[np.float64], NDArray[np.float64]]
    limit: float
    cuts: Mapping[tuple[int, int], Cut] = field(default_factory=dict)


def draw_picture(
    path: str | os.PathLike[str],
    *,
    input: Raster,
    cubic: Raster | None,
    result: Raster,
    wald: WaldResult | None = None,
    method: str | None = None,
    window: tuple[float, float] | None = None,
    dpi: int = 150,
) -> Path:
    """Draw a PNG of the input, its cubic interpolation and the result, and of the errors by Wald's protocol.

    A volume is shown in three planes through the centre of its foreground, a scene in colour (by colour interpretation,
    by band names, or its first three bands), both with a detail. Only what is drawn is read, so give rasters that can
    be read in parts at little cost: for ``result`` the saved file, opened again.

    Args:
        path: the PNG; it is replaced.
        input: the low-resolution raster.
        cubic: it, interpolated; None leaves the column out.
        result: it, super-resolved.
        wald: how the methods did on a degraded copy; None leaves the errors out.
        method: name of what made the result; default the network's of ``wald``.
        window: physical values shown black and white; default percentiles 0.5 and 99.5 of the input's cuts.
        dpi: pixels per inch of the picture.

    Returns:
        The path written.
    """
    name = method or (wald.network if wald is not None else "result")
    views = _views(input, result)
    left = [_Column("input", input), *([_Column("cubic", cubic)] if cubic is not None else []), _Column(name, result)]
    right = [] if wald is None else _error_columns(wald)
    cuts = _cuts(views, [*left, *right], input)
    sheet = _Sheet(views, left, right, _window(cuts, views, window), _limit(cuts, views, len(left), right), cuts)
    image = _draw(sheet, input, result, wald, dpi)
    target = Path(path)
    with whole_file(target) as temporary:
        temporary.write_bytes(image)
    return target


def _views(input: Raster, result: Raster) -> list[View]:
    """The views, and a detail of the plane in which the result adds most."""
    if len(input.grid.shape) == 2:
        views = scene_views(input)
        return [*views, detail(input, views[0])]
    views = volume_views(input)
    gain = result.grid.factors(input.grid)
    finest = max(views, key=lambda view: gain[view.rows[0]] * gain[view.columns[0]])
    return [*views, detail(input, finest)]


def _error_columns(wald: WaldResult) -> list[_Column]:
    """Truth and each method's error, the network last."""
    names = [name for name in wald.outputs if name != wald.network] + [wald.network]
    scores = {name: wald.table.value(name, "psnr") for name in names}
    columns = [_Column("truth", wald.truth)]
    for name in names:
        note = f"{scores[name]:.2f} dB · SSIM {wald.table.value(name, 'ssim'):.3f}"
        best = scores[name] == max(scores.values())
        columns.append(_Column(name, wald.outputs[name], wald.truth, note, best))
    return columns


def _cuts(views: Sequence[View], columns: Sequence[_Column], input: Raster) -> dict[tuple[int, int], Cut]:
    """Every image, by row and column; errors where a column has a truth and the row is no detail."""
    found = {}
    for i, view in enumerate(views):
        for j, column in enumerate(columns):
            grid = column.raster.grid
            here = view if grid.same_space(input.grid) else moved(view, input.grid, grid)
            seen = cut(column.raster, here)
            if column.truth is not None and not view.magnified:
                error = np.abs(seen.image - cut(column.truth, here).image)
                seen = Cut(error.mean(axis=2) if error.ndim == 3 else error, seen.height, seen.width, seen.unit)
            found[i, j] = seen
    return found


def _window(
    cuts: Mapping[tuple[int, int], Cut], views: Sequence[View], given: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values shown black and white, per shown channel."""
    depth = len(views[0].channels)
    if given is not None:
        return np.full(depth, float(given[0])), np.full(depth, float(given[1]))
    values = np.concatenate([cuts[i, 0].image.reshape(-1, depth) for i, view in enumerate(views) if not view.magnified])
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return np.zeros(depth), np.ones(depth)
    low, high = np.percentile(values, [0.5, 99.5], axis=0)
    return low, np.where(high > low, high, low + 1)


def _limit(cuts: Mapping[tuple[int, int], Cut], views: Sequence[View], first: int, right: Sequence[_Column]) -> float:
    """The error shown brightest: percentile 99.5 of all that are drawn."""
    errors = [
        cuts[i, first + j].image
        for i, view in enumerate(views)
        for j, column in enumerate(right)
        if column.truth is not None and not view.magnified
    ]
    if not errors:
        return 1.0
    limit = float(np.nanpercentile(np.concatenate([e.ravel() for e in errors]), 99.5))
    return limit if limit > 0 else 1.0


def _draw(sheet: _Sheet, input: Raster, result: Raster, wald: WaldResult | None, dpi: int) -> bytes:
    cell = _CELL if sheet.right else _CELL_ALONE
    scales, heights = _scales(sheet, cell)
    columns = len(sheet.left) + len(sheet.right)
    width = _LEFT + columns * cell + (columns - 1) * _GAP + _RIGHT
    width += _BLOCK_GAP + _BAR_ROOM if sheet.right else 0
    notes = _notes(sheet, input, wald)
    height = _TOP + sum(heights) + _GAP * (len(heights) - 1) + 0.18 + _LINE * len(notes) + 0.1
    canvas = Canvas(width, height, dpi)
    canvas.text(_LEFT, 0.3, input.name + " · " + sheet.left[-1].title, size=15, bold=True)
    canvas.text(_LEFT, 0.56, f"{_size(input.grid)}  →  {_size(result.grid)}", size=10, colour=_GREY)
    lefts = [_LEFT + j * (cell + _GAP) + (_BLOCK_GAP if j >= len(sheet.left) else 0) for j in range(columns)]
    _headings(canvas, sheet, lefts, cell, _TOP + sum(heights) + _GAP * (len(heights) - 1))
    top = _TOP
    for i, (view, scale, tall) in enumerate(zip(sheet.views, scales, heights, strict=True)):
        canvas.text(_LEFT - 0.12, top + tall / 2, view.title, size=9, rotation=90, centred=True)
        for j, left in enumerate(lefts):
            _panel(canvas, sheet, i, j, Box(left, top, cell, tall), scale)
        top += tall + _GAP
    if sheet.right:
        planes = sum(h + _GAP for h, view in zip(heights, sheet.views, strict=True) if not view.magnified) - _GAP
        unit = f" [{input.unit}]" if input.unit else " [values of the file]"
        box = Box(lefts[-1] + cell + 0.13, _TOP, 0.13, planes)
        canvas.colour_bar(box, sheet.limit, "|refined − truth|" + unit)
    for k, note in enumerate(notes):
        canvas.text(_LEFT, top + 0.16 + k * _LINE, note, size=8.5, colour=_GREY)
    buffer = io.BytesIO()
    canvas.save(buffer)
    return buffer.getvalue()


def _scales(sheet: _Sheet, cell: float) -> tuple[list[float], list[float]]:
    """Inches per unit of length, and height in inches, of each row: one scale for all planes where they allow it."""
    firsts = [sheet.cuts[i, 0] for i in range(len(sheet.views))]
    scales = [min(cell / c.width, _TALLEST / c.height) for c in firsts]
    plain = [i for i, view in enumerate(sheet.views) if not view.magnified]
    common = min(scales[i] for i in plain)
    if all(common >= 0.6 * scales[i] for i in plain):
        for i in plain:
            scales[i] = common
    return scales, [c.height * s for c, s in zip(firsts, scales, strict=True)]


def _headings(canvas: Canvas, sheet: _Sheet, lefts: Sequence[float], cell: float, bottom: float) -> None:
    for column, left in zip([*sheet.left, *sheet.right], lefts, strict=True):
        words = column.title + (" error" if column.truth is not None else "")
        line = _TOP - 0.26 if column.note else _TOP - 0.1
        canvas.text(left + cell / 2, line, words, size=11, bold=True, centred=True)
        if column.note:
            colour = "#0a7d33" if column.best else "#333333"
            canvas.text(
                left + cell / 2, _TOP - 0.09, column.note, size=9, centred=True, colour=colour, bold=column.best
            )
    canvas.text(lefts[0], 0.9, "Result", size=10, colour=_GREY)
    if sheet.right:
        first = lefts[len(sheet.left)]
        canvas.text(
            first, 0.9, "Trust: the input, degraded and refined again, against the input", size=10, colour=_GREY
        )
        canvas.rule(first - _BLOCK_GAP / 2, 0.78, bottom)


def _panel(canvas: Canvas, sheet: _Sheet, i: int, j: int, cell: Box, scale: float) -> None:
    view, seen = sheet.views[i], sheet.cuts[i, j]
    column = [*sheet.left, *sheet.right][j]
    width, height = min(cell.width, seen.width * scale), min(cell.height, seen.height * scale)
    box = Box(cell.left + (cell.width - width) / 2, cell.top + (cell.height - height) / 2, width, height)
    if column.truth is not None and not view.magnified:
        canvas.error(box, seen.image, sheet.limit)
        return
    low, high = sheet.window
    scaled = (seen.image - low) / (high - low) if seen.image.ndim == 3 else (seen.image - low[0]) / (high[0] - low[0])
    panel = canvas.image(box, scaled)
    if column.truth is not None:
        canvas.caption(panel, column.title)
    if j == 0:
        if view.letters is not None and not view.magnified:
            canvas.letters(panel, view.letters)
        length, words = _bar(seen)
        canvas.scale_bar(panel, words, share=length / seen.width)
    elif j == len(sheet.left) and column.truth is None and view.magnified:
        canvas.caption(panel, "truth")


def _bar(seen: Cut) -> tuple[float, str]:
    """A round length of at most a third of the width, and its unit."""
    most = seen.width / 3
    decade = 10 ** math.floor(math.log10(most))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= most)
    if seen.unit == "m" and length >= 1000:
        return length, f"{length / 1000:g} km"
    return length, f"{length:g} {seen.unit}"


def _size(grid: Grid) -> str:
    """Counts and pixel size, in the order x, y, z."""
    counts = " × ".join(str(n) for n in grid.shape[::-1])
    sizes = [grid.spacing[a] for a in grid.axes[::-1]]
    shown = f"{sizes[0]:.4g}" if max(sizes) - min(sizes) < 5e-4 * max(sizes) else " × ".join(f"{s:.3g}" for s in sizes)
    what = "voxels" if len(grid.shape) == 3 else "pixels"
    return f"{counts} {what} of {shown} {grid.unit or ''}".rstrip()


def _notes(sheet: _Sheet, input: Raster, wald: WaldResult | None) -> list[str]:
    low, high = sheet.window
    unit = f" {input.unit}" if input.unit else ""
    views = sheet.views
    if len(views[0].channels) == 3:
        labels = [input.channels[c].name or f"band {c + 1}" for c in views[0].channels]
        ends = ", ".join(f"{label} {a:.4g}–{b:.4g}" for label, a, b in zip(labels, low, high, strict=True))
        notes = [f"Red, green, blue: {ends}{unit}; the same stretch in all images. Errors: mean over these bands."]
    else:
        notes = [f"Grey from {low[0]:.4g} to {high[0]:.4g}{unit}, the same in all images."]
    if views[0].letters == ("R", "L", "A", "P"):
        tilt = _tilt(input.grid)
        turned = f"; they are {tilt:.0f}° off the anatomical ones" if tilt >= 2 else ""
        notes[0] += (
            f" Radiological convention: the patient's right is on the left. Planes follow the voxel axes{turned}."
        )
    if wald is not None:
        told = wald.table.settings
        factors = ", ".join(f"{axis} {factor:g}" for axis, factor in told["scale"].items())
        notes.append(
            f"Trust: degraded by {factors} with sensor {told['sensor']}; PSNR and SSIM over all valid pixels of "
            f"{told['part']}, data range {told['data_range']:.4g}{unit}."
        )
    if len(input.grid.shape) == 3:
        notes.append(_NOTICE)
    return notes


def _tilt(grid: Grid) -> float:
    """Greatest angle in degrees between a voxel axis and the world axis nearest to it."""
    columns = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(columns).max(axis=0).min(), -1, 1))))

"""What the formats of volumes share: what they refuse, values without scaling, and LPS against RAS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, GeometryError, InputError
from sciSR.grid import RAS_MM, Grid
from sciSR.raster import Raster

__all__ = [
    "LENGTH_MM",
    "LPS",
    "check_input_safe",
    "check_options",
    "check_volume",
    "grid_from_lps",
    "index_map",
    "integer_type",
    "numbers",
    "unscaled",
]

_Number = TypeVar("_Number", int, float)

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From left, posterior, superior (DICOM PS3.3 C.7.6.2.1.1, ITK) to right, anterior, superior (NIfTI), and back."""

LENGTH_MM = {None: 1.0, "mm": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001, "µm": 0.001, "μm": 0.001, "nm": 1e-6}
"""Unit of length -> millimetres; none stated counts as millimetres."""


def numbers(text: str, kind: Callable[[str], _Number], key: str, name: str) -> list[_Number]:
    """The numbers of a header's line, by ``int`` or ``float``.

    Raises:
        FormatError: one that is none.
    """
    try:
        return [kind(word) for word in text.split()]
    except ValueError as error:
        whole = "whole " if kind is int else ""
        raise FormatError(f"{name}: {key} {text!r} are not {whole}numbers; the header is damaged") from error


def index_map(old: Grid, new: Grid) -> NDArray[np.float64]:
    """The matrix from voxel indices of ``new`` to those of ``old``, both counted from centres.

    Exact where ``new`` is a refinement or coarsening of ``old``: a diagonal of count ratios and the shift they imply.
    """
    if old.shape == new.shape and np.array_equal(old.affine, new.affine):
        return np.eye(4)
    moved = np.linalg.solve(old.affine, new.affine)  # corner convention
    ratio = np.diag([*(a / b for a, b in zip(old.shape[::-1], new.shape[::-1], strict=True)), 1.0])
    size = max(old.shape)
    if np.abs(moved - ratio).max() < 1e-9 * size:
        moved = ratio
    else:
        near = np.rint(moved)
        moved = np.where(np.abs(moved - near) < 1e-9 * size, near, moved)
    half = np.eye(4)
    half[:3, 3] = 0.5
    return np.asarray(np.linalg.inv(half) @ moved @ half)


def grid_from_lps(shape: tuple[int, ...], affine: NDArray[np.float64], name: str) -> Grid:
    """The grid of voxel centres that an affine places in LPS millimetres.

    Args:
        shape: voxels along z, y, x.
        affine: 4x4, columns x, y, z.
        name: for messages.

    Raises:
        GeometryError: the affine is impossible.
    """
    try:
        return Grid.from_center_affine(shape, LPS @ affine, frame=RAS_MM, unit="mm")
    except GeometryError as error:
        raise GeometryError(f"{name}: {error}") from error


def check_options(options: Iterable[str], names: tuple[str, ...], path: str, form: str) -> None:
    """Raise InputError for an option that the format does not have."""
    unknown = sorted(set(options) - set(names))
    if unknown:
        known = ", ".join(names) or "none"
        raise InputError(f"{path}: {form} has no option {', '.join(unknown)}; expected one of: {known}")


def check_volume(raster: Raster, form: str) -> None:
    """Raise for what no format of volumes holds: scenes, other frames, several channels."""
    if len(raster.grid.shape) != 3:
        raise GeometryError(f"{raster.name}: {form} holds volumes (z, y, x), a scene came; save it as .tif")
    if raster.grid.frame not in (RAS_MM, None) or raster.grid.unit not in LENGTH_MM:
        place = f"{raster.grid.frame!r:.40} in {raster.grid.unit}"
        raise GeometryError(f"{raster.name}: {form} cannot place {place}; expected {RAS_MM!r} in mm, m or um")
    if "c" in raster.axes:
        raise InputError(f"{raster.name}: {form} is written with one channel, {len(raster.channels)} came; split it")


def check_input_safe(written: Iterable[Path], read: Iterable[str | Path]) -> None:
    """Raise InputError if a file that would be written is one that the raster is read from."""
    own = [Path(file) for file in read if os.path.exists(file)]
    for file in written:
        if file.exists() and any(file.samefile(other) for other in own):
            raise InputError(f"{file}: belongs to the input; choose another name for the output")


def unscaled(encoding: Encoding) -> Encoding:
    """A stored form of the same values for a format without slope and intercept.

    The type itself where nothing is scaled; the smallest integer that holds all where scaling keeps whole numbers; else
    float32, or float64 for wide types.
    """
    if encoding.identity:
        return encoding
    scale, offset, stored = encoding.scale[0], encoding.offset[0], np.dtype(encoding.dtype)
    nodata = tuple(None if v is None else v * scale + offset for v in encoding.nodata)
    name = encoding.value_dtype.name
    if stored.kind in "iu" and scale == int(scale) and offset == int(offset):
        info = np.iinfo(stored)
        ends = sorted((int(info.min) * int(scale) + int(offset), int(info.max) * int(scale) + int(offset)))
        name = integer_type(*ends) or name
    return replace(Encoding(name), nodata=nodata)


def integer_type(low: int, high: int) -> str | None:
    """The smallest of int16, uint16 and int32 that holds all values from ``low`` to ``high``."""
    for name in ("int16", "uint16", "int32"):
        info: Any = np.iinfo(name)
        if info.min <= low and high <= info.max:
            return name
    return None

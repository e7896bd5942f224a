"""Where a NIfTI's voxels lie: qform, sform and pixdim read by the standard, and moved along when the grid changes.

All by matrix product on voxel-centre affines (nifti1.h, 3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE), so that
oblique, flipped and sheared volumes need no special case. qform and sform each keep their own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nibabel.quaternions import mat2quat
from numpy.typing import ArrayLike, NDArray

from sciSR.errors import GeometryError
from sciSR.grid import RAS_MM, SPATIAL_AXES, Grid
from sciSR.io.nifti_header import Fields

__all__ = ["locate", "move", "place", "qform", "sform", "with_spacing"]

Matrix = NDArray[np.float64]

_DISAGREE = 1e-2  # voxels; float32 quaternions of whole heads agree with their sform to about 1e-3
_SHEAR = 1e-4  # cosine between two axes that a quaternion still stands for
_XYZ = "xyz"


def sform(fields: Fields) -> Matrix:
    """The voxel-to-world matrix of srow_x, srow_y and srow_z (method 3)."""
    rows = [np.asarray(fields[f"srow_{axis}"], dtype=np.float64) for axis in _XYZ]
    return np.vstack([*rows, [0, 0, 0, 1]])


def qform(fields: Fields) -> Matrix:
    """The voxel-to-world matrix of the quaternion, pixdim and qoffset (method 2).

    Raises:
        GeometryError: b, c and d are no unit quaternion.
    """
    b, c, d = (float(fields[f"quatern_{k}"]) for k in "bcd")
    rest = 1.0 - (b * b + c * c + d * d)
    if not rest > -1e-3:
        raise GeometryError(f"quaternion ({b}, {c}, {d}) is longer than 1")
    if rest < 1e-7:  # a turn by 180 degrees, as nifti1.h says to treat it
        b, c, d = (float(v) for v in np.array([b, c, d]) / np.sqrt(b * b + c * c + d * d))
        rest = 0.0
    a = np.sqrt(rest)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    handed = -1.0 if float(fields["pixdim"][0]) < 0 else 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * (np.asarray(fields["pixdim"][1:4], dtype=np.float64) * [1, 1, handed])
    matrix[:3, 3] = [float(fields[f"qoffset_{axis}"]) for axis in _XYZ]
    return matrix


def locate(fields: Fields, shape: tuple[int, ...], to_mm: float, name: str, notes: list[str]) -> tuple[Grid, str]:
    """The grid in millimetres, and which of ``"sform"``, ``"qform"`` and ``"pixdim"`` it was taken from.

    The sform if its code is above 0, else the qform if its code is, else pixdim alone (methods 3, 2 and 1).

    Args:
        fields: the header; a pixdim that is negative or unusable beside a good sform is repaired in it.
        shape: voxels along z, y, x.
        to_mm: millimetres per unit of the file.
        name: for messages.
        notes: what is doubtful is added here.

    Raises:
        GeometryError: the transform that counts is impossible.
    """
    pixdim = fields["pixdim"]
    if (pixdim[1:4] < 0).any():
        notes.append(f"pixdim {_triple(pixdim[1:4])} is negative; its absolute value was used")
        pixdim[1:4] = np.abs(pixdim[1:4])
    qcode, scode = int(fields["qform_code"]), int(fields["sform_code"])
    _repair_hand(pixdim, qcode, notes)
    used = "sform" if scode > 0 else "qform" if qcode > 0 else "pixdim"
    affine = _usable(used, fields, name)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if used == "sform":
        _compare_pixdim(pixdim, lengths, qcode, notes)
        if qcode > 0:
            _compare(fields, affine, shape, name, notes)
    try:
        grid = Grid.from_center_affine(shape, np.diag([to_mm] * 3 + [1.0]) @ affine, frame=RAS_MM, unit="mm")
    except GeometryError as error:
        raise GeometryError(f"{name}: {used}: {error}") from error
    return grid, used


def _repair_hand(pixdim: NDArray[Any], qcode: int, notes: list[str]) -> None:
    """Make pixdim[0] say by 1 or -1 what its sign says (nifti1.h, METHOD 2); some readers ask for no less."""
    said = float(pixdim[0])
    if said in (-1, 0, 1):
        return
    pixdim[0] = -1 if said < 0 else 1
    if qcode > 0:
        notes.append(f"pixdim[0] is {said:g}, neither 1 nor -1; read as {pixdim[0]:g}, by its sign")


def _usable(used: str, fields: Fields, name: str) -> Matrix:
    """The affine of one method, or GeometryError naming the axis that has no spacing."""
    try:
        affine = {"sform": sform, "qform": qform, "pixdim": _method1}[used](fields)
    except GeometryError as error:
        raise GeometryError(f"{name}: qform: {error}; repair the header") from error
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, length in zip(_XYZ, lengths, strict=True):
        if not (np.isfinite(length) and length > 0):
            what = "a zero" if length == 0 else "no number"
            raise GeometryError(
                f"{name}: spacing {_triple(lengths)} ({used}) has {what} on axis {axis}; "
                "repair the header or pass spacing="
            )
    if not np.isfinite(affine).all():
        raise GeometryError(f"{name}: the offset of the {used} is no number; repair the header")
    return affine


def _method1(fields: Fields) -> Matrix:
    return np.diag([*np.asarray(fields["pixdim"][1:4], dtype=np.float64), 1.0])


def _compare_pixdim(pixdim: NDArray[Any], lengths: Matrix, qcode: int, notes: list[str]) -> None:
    bad = ~(np.isfinite(pixdim[1:4]) & (pixdim[1:4] > 0))
    off = ~bad & (np.abs(pixdim[1:4] - lengths) > 1e-2 * lengths)
    if bad.any() or (off.any() and qcode <= 0):
        notes.append(f"pixdim says {_triple(pixdim[1:4])}, the sform {_triple(lengths)}; the sform was used")
    pixdim[1:4] = np.where(bad, lengths, pixdim[1:4])


def _compare(fields: Fields, affine: Matrix, shape: tuple[int, ...], name: str, notes: list[str]) -> None:
    """Note a qform that places the corners elsewhere than the sform does."""
    codes = f"qform (code {int(fields['qform_code'])}) and sform (code {int(fields['sform_code'])})"
    try:
        other = qform(fields)
    except GeometryError as error:
        notes.append(f"{codes} disagree, the qform's {error}; the sform was used")
        return
    corners = np.array([[i, j, k, 1] for i in (0, shape[2]) for j in (0, shape[1]) for k in (0, shape[0])])
    gap = np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max()
    if not gap <= _DISAGREE * np.linalg.norm(affine[:3, :3], axis=0).min():
        notes.append(f"{codes} disagree by up to {gap:.4g} units; the sform was used, and both are kept")


def with_spacing(
    fields: Fields, spacing: float | Mapping[str, float], to_mm: float, name: str, notes: list[str]
) -> None:
    """Put the given spacing, millimetres for all or per axis, into the header instead of what it says.

    Directions and the place of the first voxel stay. A sform that has no direction along an axis is switched off; then
    the qform, or pixdim alone, places the volume.

    Raises:
        GeometryError: an axis that is not x, y or z, or a spacing that is not a positive number.
    """
    wanted = dict(spacing) if isinstance(spacing, Mapping) else dict.fromkeys(SPATIAL_AXES, spacing)
    for axis, value in wanted.items():
        if axis not in SPATIAL_AXES or not (np.isfinite(value) and value > 0):
            raise GeometryError(f"{name}: spacing: {value} for axis {axis}; expected a positive number for x, y or z")
    matrix = sform(fields)
    for i, axis in enumerate(_XYZ):
        if axis in wanted:
            fields["pixdim"][1 + i] = wanted[axis] / to_mm
            length = np.linalg.norm(matrix[:3, i])
            if int(fields["sform_code"]) > 0 and np.isfinite(length) and length > 0:
                matrix[:3, i] *= wanted[axis] / to_mm / length
    if int(fields["sform_code"]) > 0:
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if not (np.isfinite(matrix).all() and (lengths > 0).all()):
            fields["sform_code"] = 0
            matrix = np.eye(4) * 0
            notes.append("the sform has no direction along some axis; it was switched off for the given spacing")
        _set_sform(fields, matrix)


def move(fields: Fields, change: Matrix, notes: list[str]) -> None:
    """Update qform, sform and pixdim for voxels renumbered by ``change`` (:func:`~sciSR.io.volumes.index_map`)."""
    if np.array_equal(change, np.eye(4)):
        return
    if int(fields["sform_code"]) > 0:
        _set_sform(fields, sform(fields) @ change)
    steps = np.linalg.norm(change[:3, :3], axis=0)
    along = bool((change[:3, :3] == np.diag(np.diag(change)[:3])).all() and (np.diag(change) > 0).all())
    if int(fields["qform_code"]) <= 0:
        fields["pixdim"][1:4] = (
            fields["pixdim"][1:4] * steps if along else np.linalg.norm(_best(fields, change)[:3, :3], axis=0)
        )
        return
    try:
        moved = qform(fields) @ change
    except GeometryError as error:
        notes.append(f"the qform's {error}; it was switched off")
        fields["qform_code"] = 0
        return
    if along:  # the quaternion stays, bit for bit
        fields["pixdim"][1:4] = fields["pixdim"][1:4] * steps
        for axis, value in zip(_XYZ, moved[:3, 3], strict=True):
            fields[f"qoffset_{axis}"] = value
    else:
        _set_qform(fields, moved, int(fields["qform_code"]), notes)


def place(fields: Fields, affine: ArrayLike, code: int, notes: list[str]) -> None:
    """Write a centre affine into a fresh header: as sform, and as qform if a quaternion can hold it."""
    matrix = np.asarray(affine, dtype=np.float64)
    _set_sform(fields, matrix)
    fields["sform_code"] = code
    _set_qform(fields, matrix, code, notes)


def _best(fields: Fields, change: Matrix) -> Matrix:
    return sform(fields) if int(fields["sform_code"]) > 0 else _method1(fields) @ change


def _set_sform(fields: Fields, matrix: Matrix) -> None:
    for axis, row in zip(_XYZ, matrix, strict=False):
        fields[f"srow_{axis}"] = row


def _set_qform(fields: Fields, matrix: Matrix, code: int, notes: list[str]) -> None:
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    fields["pixdim"][1:4] = lengths
    axes = matrix[:3, :3] / lengths
    handed = 1.0 if np.linalg.det(axes) > 0 else -1.0
    fields["pixdim"][0] = handed
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    if skew > _SHEAR:
        notes.append(
            f"axes are sheared (cosine {skew:.3g}), which a qform cannot hold; its code is 0, the sform has it"
        )
        fields["qform_code"] = 0
        for k in "bcd":
            fields[f"quatern_{k}"] = 0
        for axis in _XYZ:
            fields[f"qoffset_{axis}"] = 0
        return
    quaternion: Matrix = mat2quat(axes * [1, 1, handed])
    for k, value in zip("bcd", quaternion[1:], strict=True):
        fields[f"quatern_{k}"] = value
    for axis, value in zip(_XYZ, matrix[:3, 3], strict=True):
        fields[f"qoffset_{axis}"] = value
    fields["qform_code"] = code


def _triple(values: ArrayLike) -> str:
    return "(" + ", ".join(f"{float(v):.6g}" for v in np.asarray(values).ravel()) + ")"

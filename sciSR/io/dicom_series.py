"""One DICOM series as a stack of slices: gathered from a folder, put in order, and refused where it is none.

A file holds one slice, or several as frames (enhanced CT, MR and PET: PS3.3 C.7.6.16); each frame counts as a slice.
Positions and directions: DICOM PS3.3 C.7.6.2 (Image Plane). World coordinates are LPS millimetres.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder

from sciSR.errors import FormatError, GeometryError
from sciSR.io.dicom_head import TELLING, check_numbers, frames, number, read_head

__all__ = ["Series", "Slice", "read_series"]

_TILT = 1e-3  # sideways drift of the slices along the stack that is still rounding: 0.06 degrees
_UNEVEN = 1e-2  # deviation of one slice distance from their mean that is still rounding
_SAME = 1e-4  # difference of direction cosines that is still rounding
Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slice:
    """One image.

    Attributes:
        path: the file.
        frame: which of the file's frames, from 0.
        position: centre of its first pixel, LPS millimetres.
        slope: factor from stored values to physical ones.
        intercept: added after scaling.
    """

    path: str
    frame: int
    position: Vector
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class Series:
    """A stack of parallel, equidistant slices.

    Attributes:
        head: the first slice's data set, without pixels.
        slices: in the direction of row x column.
        affine: voxel centres, columns x, y, z, to LPS millimetres.
        notes: what is doubtful, and what was made of it.
    """

    head: Any
    slices: tuple[Slice, ...]
    affine: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return len(self.slices), int(self.head.Rows), int(self.head.Columns)


def read_series(path: str, series: int | str | None = None) -> Series:
    """The series in a folder, or the one that a file belongs to, from headers alone.

    Args:
        path: a folder, of which subfolders are not searched, or one of its files.
        series: SeriesNumber or SeriesInstanceUID, where the folder holds several.

    Raises:
        FormatError: no DICOM image there, several series, or one that is not a stack of equal slices.
        GeometryError: slices are missing, unevenly spaced, turned against each other or tilted.
    """
    folder, name = path, os.path.basename(os.path.normpath(path))
    if not os.path.isdir(path):
        folder = os.path.dirname(path) or "."
        series = str(_head(path, name).SeriesInstanceUID)
    found: dict[str, list[Any]] = defaultdict(list)
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_file() and not entry.name.startswith("."):
            head = read_head(entry.path)
            if head is not None:
                found[str(head.get("SeriesInstanceUID", ""))].extend(frames(head))
    heads = _chosen(found, series, name)
    _check_alike(heads, name)
    return _stacked(heads, name)


def _head(path: str, name: str) -> Any:
    head = read_head(path)
    if head is None:
        raise FormatError(f"{name}: not a DICOM image")
    return head


def _chosen(found: dict[str, list[Any]], series: int | str | None, name: str) -> list[Any]:
    """The data sets of the series that was asked for, or of the only one."""
    if not found:
        raise FormatError(f"{name}: no DICOM image in this folder; subfolders are not searched")
    wanted = [
        heads
        for uid, heads in found.items()
        if series is None or str(series) == uid or str(series) == str(heads[0].get("SeriesNumber", ""))
    ]
    if len(wanted) == 1:
        return wanted[0]
    known = "; ".join(_title(heads) for heads in list(found.values())[:8])
    if series is None:
        raise FormatError(f"{name}: {len(found)} series in one folder ({known}); pass series= with a number or UID")
    raise FormatError(f"{name}: series {series!r} names {len(wanted)} of its series ({known})")


def _title(heads: list[Any]) -> str:
    first = heads[0]
    return f"{first.get('SeriesNumber', '?')} {str(first.get('SeriesDescription', '')).strip()!r}, {len(heads)} images"


def _check_alike(heads: Sequence[Any], name: str) -> None:
    """Refuse what is not one scalar image a file, all of one size, type and direction."""
    for head in heads:
        check_numbers(head, name)
        if int(head.get("NumberOfFrames") or 1) > 1:
            raise FormatError(f"{name}: several frames in one file that does not say where they lie; convert it first")
        if int(head.BitsAllocated) == 1:
            raise FormatError(f"{name}: single bits, a segmentation; convert it to a label map in NIfTI first")
        colors = str(head.get("PhotometricInterpretation"))
        if int(head.get("SamplesPerPixel") or 1) != 1 or not colors.startswith("MONOCHROME"):
            raise FormatError(f"{name}: {colors} images; expected one grey value a pixel")
        if "ModalityLUTSequence" in head:
            raise FormatError(f"{name}: values through a lookup table; expected RescaleSlope and RescaleIntercept")
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if not head.get(tag):
                raise FormatError(
                    f"{name}: images without {tag}; expected cross-sections (CT, MR, PET), not projections"
                )
    for tag in ("Modality", "Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
        values = Counter(str(head.get(tag)) for head in heads)
        if len(values) > 1:
            raise FormatError(f"{name}: {tag} differs between its images ({_counts(values)}); split the series")
    for tag, tolerance in (("PixelSpacing", 1e-4), ("ImageOrientationPatient", _SAME)):
        vectors = np.array([head[tag].value for head in heads], dtype=np.float64)
        if np.abs(vectors - vectors[0]).max() > tolerance:
            raise GeometryError(f"{name}: {tag} differs between its images (a scout among them?); split the series")
    syntax = heads[0].file_meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_transfer_syntax:
        raise FormatError(f"{name}: TransferSyntaxUID {syntax} is none; the file is damaged")
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise FormatError(f"{name}: compressed as {syntax.name}; install pylibjpeg with its plug-ins, or decompress it")


def _counts(values: Counter[str]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in values.most_common(4))


def _stacked(heads: Sequence[Any], name: str) -> Series:
    """The slices in order, and the affine of the stack."""
    direction = np.array(heads[0].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    if np.abs(direction @ direction.T - np.eye(2)).max() > 1e-3:
        raise GeometryError(f"{name}: ImageOrientationPatient {direction.ravel().tolist()} is not two unit vectors")
    normal = np.cross(*direction)
    ordered = sorted(
        heads, key=lambda h: (float(np.dot(h.ImagePositionPatient, normal)), number(h, "InstanceNumber") or 0)
    )
    positions = np.array([h.ImagePositionPatient for h in ordered], dtype=np.float64)
    notes: list[str] = []
    step = _step(ordered, positions, normal, name, notes)
    spacing = [float(v) for v in heads[0].PixelSpacing]  # between rows, then between columns
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = direction[0] * spacing[1], direction[1] * spacing[0], step
    affine[:3, 3] = positions[0]
    slices = tuple(
        Slice(
            str(h.filename),
            getattr(h, "number", 0),
            p,
            float(h.get("RescaleSlope") or 1),
            float(h.get("RescaleIntercept") or 0),
        )
        for h, p in zip(ordered, positions, strict=True)
    )
    return Series(ordered[0], slices, affine, tuple(notes))


def _step(ordered: Sequence[Any], positions: Vector, normal: Vector, name: str, notes: list[str]) -> Vector:
    """The vector from each slice to the next."""
    if len(ordered) == 1:
        thickness = float(ordered[0].get("SpacingBetweenSlices") or ordered[0].get("SliceThickness") or 0)
        if thickness <= 0:
            raise GeometryError(f"{name}: one slice, and no SliceThickness; its extent along z is not known")
        notes.append(f"one slice; its thickness, {thickness:g} mm, was taken as spacing along z")
        return normal * thickness
    along = positions @ normal
    gaps = np.diff(along)
    _check_repeats(ordered, along, name)
    typical = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - typical) > _UNEVEN * typical)
    if len(odd):
        i = int(odd[0])
        lost = round(float(gaps[i]) / typical) - 1
        between = f"{along[i]:.2f} and {along[i + 1]:.2f} mm along the stack"
        if all(abs(gaps[k] / typical - round(gaps[k] / typical)) < 0.05 and gaps[k] > typical for k in odd):
            total = sum(round(float(gaps[k]) / typical) - 1 for k in odd)
            raise GeometryError(
                f"{name}: {total} slice(s) missing, {lost} of them between {between}; complete the series"
            )
        raise GeometryError(
            f"{name}: slices {typical:g} mm apart, but {gaps[i]:g} mm between {between}; expected equal distances"
        )
    step: Vector = (positions[-1] - positions[0]) / (len(ordered) - 1)
    drift = float(np.linalg.norm(step - normal * (step @ normal)) / np.linalg.norm(step))
    if drift > _TILT:
        said = ordered[0].get("GantryDetectorTilt")
        tilt = f"{np.degrees(np.arcsin(drift)):.1f} degrees" + (f" (GantryDetectorTilt {said})" if said else "")
        raise GeometryError(
            f"{name}: the gantry was tilted by {tilt}, its slices form a sheared box; straighten it first"
        )
    return step


def _check_repeats(ordered: Sequence[Any], along: Vector, name: str) -> None:
    """Refuse several images of one place, and say in what they differ."""
    same = np.flatnonzero(np.diff(along) < 1e-3)
    if not len(same):
        return
    first, second = ordered[int(same[0])], ordered[int(same[0]) + 1]
    differs = [tag for tag in TELLING if str(first.get(tag)) != str(second.get(tag))]
    why = f"they differ in {', '.join(differs)}" if differs else "they are copies, by their headers"
    shared = f"{len({*same, *(same + 1)})} of {len(ordered)} images share their place with another"
    raise FormatError(f"{name}: {shared}, {why}; split the series")

"""DICOM headers: a data set for each image of a file, with every number that places or scales it known to be one.

pydicom decodes an element when it is asked for, and raises whatever the bytes lead to; here that is one message.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError

from sciSR.errors import FormatError

__all__ = ["TELLING", "check_numbers", "frames", "number", "read_head"]

TELLING = (
    "EchoTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "DiffusionBValue",
    "InversionTime",
    "ImageType",
)
"""Tags that tell images of one place apart."""
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality",
    "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices",
    "GantryDetectorTilt", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "Manufacturer",
    "ManufacturerModelName", "ProtocolName", "BodyPartExamined", "PatientPosition", "MagneticFieldStrength",
    "RepetitionTime", "FlipAngle", "KVP", "ConvolutionKernel", "Units", *TELLING,
)  # fmt: skip
_SHARED, _EACH = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_OF_FRAMES = {"EffectiveEchoTime": "EchoTime", "TemporalPositionIndex": "TemporalPositionIdentifier"}
"""Keyword of a frame -> that of a file of one slice, where they differ."""


_REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
_OPTIONAL = {
    "PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3, "SliceThickness": 1,
    "SpacingBetweenSlices": 1, "RescaleSlope": 1, "RescaleIntercept": 1, "NumberOfFrames": 1, "SamplesPerPixel": 1,
}  # fmt: skip
"""Tags and how many numbers they hold."""
_DAMAGE = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, IndexError, KeyError, NotImplementedError,
    RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip
"""What pydicom raises on bytes that are no elements."""


def read_head(path: str) -> Any:
    """The data set of an image file without its pixels; None of a file that is no DICOM, or no image.

    Raises:
        FormatError: it is damaged, so that an image of the series would be missed.
    """
    name = os.path.basename(path)
    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS, _SHARED, _EACH])
        kind = str(head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID") or "")
        image = "Rows" in head
        str(head.get("SeriesInstanceUID")), str(head.get("SeriesNumber"))
    except InvalidDicomError:
        return None
    except _DAMAGE as error:
        with open(path, "rb") as file:
            marked = file.read(132)[128:] == b"DICM"
        if not marked:
            return None
        raise FormatError(f"{name}: its header is damaged ({_words(error)}); copy it again, or take it out") from error
    if not image and (kind == "" or "Image Storage" in pydicom.uid.UID(kind).name):
        raise FormatError(f"{name}: its header ends before it says how large the image is; copy it again")
    return head if image else None


def frames(head: Any) -> list[Any]:
    """A data set for each frame as if it were a file of its own: what all share, and what its own groups say.

    Raises:
        FormatError: the groups are damaged.
    """
    if _EACH not in head:
        return [head]
    try:
        return _divided(head)
    except _DAMAGE as error:
        name = os.path.basename(str(head.filename))
        raise FormatError(f"{name}: the groups of its frames are damaged ({_words(error)}); copy it again") from error


def _divided(head: Any) -> list[Any]:
    general = [element for element in head if element.keyword not in (_SHARED, _EACH, "NumberOfFrames")]
    found = []
    for count, own in enumerate(head[_EACH]):
        frame = pydicom.Dataset()
        for element in general:
            frame.add(element)
        for groups in (*head.get(_SHARED, []), own):
            for group in groups:
                for element in group.value[0] if group.VR == "SQ" and group.value else ():
                    keyword = _OF_FRAMES.get(element.keyword, element.keyword)
                    if keyword in _TAGS:
                        setattr(frame, keyword, element.value)
        frame.filename, frame.file_meta, frame.number = head.filename, head.file_meta, count
        found.append(frame)
    return found


def check_numbers(head: Any, name: str) -> None:
    """Raise FormatError for what cannot be decoded, and for a number that is missing, none, or impossible."""
    file = os.path.basename(str(head.filename))
    for tag in _TAGS:
        _value(head, tag, f"{name}: {file}")
    needed = {tag: _numbers(head, tag, 1, f"{name}: {file}") for tag in _REQUIRED}
    missing = [tag for tag, value in needed.items() if value is None]
    if missing:
        raise FormatError(f"{name}: {file} does not say {', '.join(missing)}; it is damaged")
    given = {tag: _numbers(head, tag, count, f"{name}: {file}") for tag, count in _OPTIONAL.items()}
    found = {tag: value for tag, value in (needed | given).items() if value is not None}
    if not 1 <= found["BitsStored"][0] <= found["BitsAllocated"][0] <= 64:
        bits = f"{found['BitsStored'][0]:g} of {found['BitsAllocated'][0]:g}"
        raise FormatError(f"{name}: {file} stores {bits} bits; it is damaged")
    for tag in ("Rows", "Columns", "PixelSpacing"):
        if tag in found and found[tag].min() <= 0:
            raise FormatError(f"{name}: {file}: {tag} {found[tag].tolist()}; expected more than 0: repair the header")
    if found.get("RescaleSlope", np.ones(1))[0] == 0:
        raise FormatError(f"{name}: {file}: RescaleSlope 0 makes all values one; repair the header")
    padding = head.get("PixelPaddingValue")
    if not isinstance(padding, (int, bytes, type(None))):
        raise FormatError(
            f"{name}: {file}: PixelPaddingValue {padding!r}; expected one whole number: repair the header"
        )


def number(head: Any, tag: str) -> float | None:
    """The one finite number of a tag, or None where it has none."""
    try:
        found = _numbers(head, tag, 1, "")
    except FormatError:
        return None
    return None if found is None else float(found[0])


def _value(head: Any, tag: str, name: str) -> Any:
    """What an element holds; None where it is absent."""
    try:
        return head.get(tag)
    except _DAMAGE as error:
        raise FormatError(f"{name}: {tag} is damaged ({_words(error)}); copy it again, or take it out") from error


def _numbers(head: Any, tag: str, count: int, name: str) -> NDArray[np.float64] | None:
    """The numbers of a tag; None where it is absent or empty."""
    value = _value(head, tag, name)
    if value is None or value == "":
        return None
    try:
        found = np.array(value, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise FormatError(f"{name}: {tag} {value!r} is no number; copy it again, or take it out") from error
    if len(found) == 0:
        return None
    if len(found) != count or not np.isfinite(found).all():
        raise FormatError(f"{name}: {tag} is {found.tolist()}, expected {count} finite number(s); repair the header")
    return found


def _words(error: Exception) -> str:
    return " ".join(str(error).split())

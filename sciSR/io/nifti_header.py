"""What the header of a NIfTI-1 or NIfTI-2 file says, checked: shape, type, position, units, extensions.

The standard is https://nifti.nimh.nih.gov/nifti-1 (nifti1.h) and https://nifti.nimh.nih.gov/nifti-2; section names
below are nifti1.h's. Fields stay as the file had them; what is wrong beyond doubt is refused, what is doubtful becomes
a note.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import header_dtype as nifti1_dtype
from nibabel.nifti2 import header_dtype as nifti2_dtype
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, MissingFileError
from sciSR.io.gzipped import DAMAGED, is_gzip, open_decompressed

__all__ = ["DTYPES", "LAYOUTS", "TO_MM", "Extension", "Header", "decode_encoding", "partner", "read_header"]

Fields = NDArray[Any]
"""The header as a numpy record of shape (), little endian, fields named as in nifti1.h."""

DTYPES = {
    2: "uint8",
    4: "int16",
    8: "int32",
    16: "float32",
    64: "float64",
    256: "int8",
    512: "uint16",
    768: "uint32",
    1024: "int64",
    1280: "uint64",
}
"""NIfTI datatype code -> numpy name (nifti1.h, TYPE OF DATA)."""

_REFUSED = {
    0: "of unknown type",
    1: "of single bits",
    32: "complex",
    128: "RGB colours",
    255: "of unknown type",
    1536: "128-bit floats",
    1792: "complex",
    2048: "complex",
    2304: "RGBA colours",
}

TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""xyzt_units & 7 -> millimetres per unit: unknown (taken as mm), m, mm, µm (nifti1.h, UNITS OF SPATIAL DIMENSIONS)."""

LAYOUTS = {348: nifti1_dtype, 540: nifti2_dtype}
"""sizeof_hdr -> numpy layout of the record."""

_MAGIC = {b"n+1\0": (348, True), b"ni1\0": (348, False), b"n+2\0": (540, True), b"ni2\0": (540, False)}
_MOST_EXTENSIONS = 2**26  # bytes of a .hdr that are read
_MOST_BETWEEN = 2**30  # bytes between header and values of a single file; the extensions are held in memory
_DEFLATE_RATIO = 1032  # the most that deflate can expand, https://zlib.net/zlib_tech.html


@dataclass(frozen=True)
class Extension:
    """A header extension: its registered code, and its bytes as they are in the file, padding and all."""

    code: int
    data: bytes


@dataclass(frozen=True, eq=False)
class Header:
    """A header that holds together.

    Attributes:
        fields: the record.
        byteorder: of the file's values, ``"<"`` or ``">"``.
        single: header and values in one file (``n+1``), or a pair (``ni1``).
        extensions: in file order.
        data_path: the file with the values.
        offset: bytes before them, decompressed.
        notes: what is doubtful, and what was made of it.
    """

    fields: Fields
    byteorder: Literal["<", ">"]
    single: bool
    extensions: tuple[Extension, ...]
    data_path: str
    offset: int
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """1 or 2."""
        return 1 if int(self.fields["sizeof_hdr"]) == 348 else 2

    @property
    def dims(self) -> tuple[int, ...]:
        """Length of x, y, z and t, 1 where the file has no such axis."""
        count = int(self.fields["dim"][0])
        sizes = [int(n) for n in self.fields["dim"][1 : count + 1]] + [1] * 4
        return tuple(sizes[:4])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type with the file's byte order."""
        return np.dtype(DTYPES[int(self.fields["datatype"])]).newbyteorder(self.byteorder)

    @property
    def series(self) -> bool:
        """Whether there is a time axis of more than one step."""
        return self.dims[3] > 1

    @property
    def to_mm(self) -> float:
        """Millimetres per unit of the file's coordinates."""
        return TO_MM.get(int(self.fields["xyzt_units"]) & 7, 1.0)


def partner(path: str) -> tuple[str, str]:
    """Header file and data file of a NIfTI: the same for ``.nii``, the pair for ``.hdr`` and ``.img``."""
    for header, image in ((".hdr", ".img"), (".HDR", ".IMG")):
        for gz in (".gz", ".GZ", ""):
            if path.endswith(header + gz):
                return path, path[: -len(header + gz)] + image + gz
            if path.endswith(image + gz):
                return path[: -len(image + gz)] + header + gz, path
    return path, path


def read_header(path: str) -> Header:
    """The checked header of a file.

    Raises:
        FormatError: not NIfTI, damaged, truncated, or of a kind that sciSR refuses.
        MissingFileError: one file of a pair is not there.
    """
    header_path, data_path = partner(path)
    for file in (header_path, data_path):
        if not os.path.exists(file):
            hint = "; an image of GDAL's (ERDAS, ENVI) is read as .tif or .vrt" if file == header_path != path else ""
            raise MissingFileError(f"{path}: {os.path.basename(file)}, the other file of the pair, is not there{hint}")
    try:
        with open_decompressed(header_path) as stream:
            raw = stream.read(540)
            fields, byteorder, single = _record(raw, path)
            size = int(fields["sizeof_hdr"])
            notes = _check_fields(fields, path)
            offset = _offset(fields, single, size + 4, path, notes)
            limit = offset if single else _MOST_EXTENSIONS
            raw += stream.read(max(0, limit - len(raw)))
    except DAMAGED as error:
        raise FormatError(f"{path}: the compressed data are damaged or cut off ({error})") from error
    if single != (header_path == data_path):
        said = "a single file" if single else "one of a pair"
        raise FormatError(f"{path}: its magic calls it {said}, its name does not; rename it (.nii, or .hdr with .img)")
    extensions = _extensions(raw[size:limit], byteorder, notes)
    header = Header(fields, byteorder, single, extensions, data_path, offset, tuple(notes))
    _check_size(header, path)
    return header


def decode_encoding(fields: Fields, path: str) -> Encoding:
    """The stored form of the values: type, scl_slope and scl_inter (slope 0 or NaN: not scaled).

    Raises:
        FormatError: an infinite slope, or a slope with an intercept that is no number.
    """
    dtype = DTYPES[int(fields["datatype"])]
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return Encoding(dtype)
    if not np.isfinite([slope, intercept]).all():
        raise FormatError(f"{path}: scl_slope {slope}, scl_inter {intercept} cannot scale values; repair the header")
    return Encoding(dtype, scale=(slope,), offset=(intercept,))


def _record(raw: bytes, path: str) -> tuple[Fields, Literal["<", ">"], bool]:
    """The header record, its byte order, and whether the values are in the same file."""
    if len(raw) < 348:
        raise FormatError(f"{path}: {len(raw)} bytes are too few for a NIfTI header of 348; the file is cut off")
    byteorder: Literal["<", ">"]
    for byteorder in ("<", ">"):
        size = struct.unpack(byteorder + "i", raw[:4])[0]
        layout = LAYOUTS.get(size)
        if layout is not None and len(raw) >= size:
            record = np.frombuffer(raw[:size], dtype=layout.newbyteorder(byteorder))[0]
            break
    else:
        size = struct.unpack("<i", raw[:4])[0]
        raise FormatError(f"{path}: not a NIfTI file: it begins with {size}, a NIfTI header with 348 or 540")
    magic = raw[344:348] if size == 348 else raw[4:8]
    if magic not in _MAGIC or _MAGIC[magic][0] != size:
        hint = (
            "ANALYZE 7.5, which does not say left from right; convert it to NIfTI first" if size == 348 else "damaged"
        )
        raise FormatError(f"{path}: the magic is {magic!r}, not a NIfTI header's; perhaps the file is {hint}")
    fields = np.array(record).astype(layout.newbyteorder("<"))
    return fields, byteorder, _MAGIC[magic][1]


def _check_fields(fields: Fields, path: str) -> list[str]:
    """Refuse impossible dimensions and types; notes on what is merely odd."""
    count = int(fields["dim"][0])
    if not 1 <= count <= 7:
        raise FormatError(f"{path}: dim[0] says {count} axes, expected 1 to 7; the header is damaged")
    sizes = [int(n) for n in fields["dim"][1 : count + 1]]
    for axis, size in zip("xyztuvw", sizes, strict=False):
        if size < 1:
            raise FormatError(f"{path}: axis {axis} has length {size}; an empty volume cannot be upscaled")
    code, intent = int(fields["datatype"]), int(fields["intent_code"])
    if any(size > 1 for size in sizes[4:]):
        kind = "a CIFTI file" if 3000 <= intent < 3100 else "vectors or tensors"
        raise FormatError(
            f"{path}: {len(sizes)} axes of lengths {sizes}, {kind}; expected a volume or a time series: split the file"
        )
    if code not in DTYPES:
        kind = _REFUSED.get(code, "of unknown type")
        raise FormatError(f"{path}: values are {kind} (datatype {code}); expected real numbers: convert the file first")
    notes = []
    bits = np.dtype(DTYPES[code]).itemsize * 8
    if int(fields["bitpix"]) != bits:
        notes.append(f"bitpix says {int(fields['bitpix'])}, datatype {code} has {bits}; the datatype was used")
    if int(fields["xyzt_units"]) & 7 not in TO_MM:
        notes.append(f"xyzt_units {int(fields['xyzt_units'])} names no unit of length; millimetres were assumed")
    return notes


def _offset(fields: Fields, single: bool, least: int, path: str, notes: list[str]) -> int:
    said = float(fields["vox_offset"])
    if not np.isfinite(said) or said < 0 or said != int(said):
        raise FormatError(f"{path}: vox_offset {said} is not a position in the file; the header is damaged")
    if single and said < least:
        if said:
            notes.append(f"vox_offset {int(said)} lies inside the header; {least} was used")
        return least
    if single and said > least + _MOST_BETWEEN:
        raise FormatError(f"{path}: vox_offset {said:g} leaves {said - least:g} bytes for extensions; it is damaged")
    return int(said)


def _extensions(raw: bytes, byteorder: Literal["<", ">"], notes: list[str]) -> tuple[Extension, ...]:
    """The extensions after the header (nifti1.h, EXTENDING THE HEADER); ``raw`` starts at the four flag bytes."""
    found: list[Extension] = []
    if len(raw) < 4 or raw[0] == 0:
        return ()
    at = 4
    while at + 8 <= len(raw):
        size, code = struct.unpack(byteorder + "ii", raw[at : at + 8])
        if size == 0 and code == 0:
            break  # padding before the values
        if size < 8 or size % 16 or at + size > len(raw):
            notes.append(f"a header extension of {size} bytes is damaged; it and what follows it were dropped")
            break
        found.append(Extension(code, raw[at + 8 : at + size]))
        at += size
    return tuple(found)


def _check_size(header: Header, path: str) -> None:
    """Raise if the file cannot hold what the header promises."""
    values = int(np.prod(header.dims, dtype=object)) * header.dtype.itemsize
    have = os.path.getsize(header.data_path)
    if is_gzip(header.data_path):
        if values > have * _DEFLATE_RATIO:
            raise FormatError(
                f"{path}: the header promises {values} bytes of values, more than {have} compressed bytes can hold; "
                "the file is cut off or its header is wrong"
            )
    elif have < header.offset + values:
        raise FormatError(
            f"{path}: the header promises {values} bytes of values after {header.offset}, the file has {have} bytes; "
            "it is cut off or its header is wrong"
        )

"""Writing NIfTI: the header of a result from the header of its input, and its values slab by slab."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sciSR.encoding import Encoding
from sciSR.errors import InputError
from sciSR.io.gzipped import GzipSink, PlainSink, Sink
from sciSR.io.nifti_geometry import move, place
from sciSR.io.nifti_header import DTYPES, LAYOUTS, Extension, Fields, Header, decode_encoding, partner
from sciSR.io.slab_writer import SlabWriter
from sciSR.io.volumes import LENGTH_MM, index_map
from sciSR.raster import Raster, TimeAxis

__all__ = [
    "comment",
    "header_bytes",
    "header_of",
    "nifti_writer",
    "output_fields",
    "slice_axis",
    "stored_form",
    "time_axis",
    "version_for",
]

MOST_NIFTI1 = 32767
"""Greatest length of an axis in NIfTI-1, whose dim is int16; longer ones take NIfTI-2."""

TIME_UNITS = {8: "s", 16: "ms", 24: "us", 32: "hz", 40: "ppm", 48: "rads"}
"""xyzt_units & 56 -> unit of the fourth axis (nifti1.h, UNITS OF SPATIAL AND TEMPORAL DIMENSIONS)."""

_COMMENT = 6  # registered code of plain text, https://nifti.nimh.nih.gov/nifti-1/documentation/faq#Q21
_FRAME = {"sizeof_hdr", "magic", "eol_check"}
_SLICE_FIELDS = ("slice_start", "slice_end", "slice_duration", "slice_code")


def time_axis(fields: Fields) -> TimeAxis:
    """The t axis that toffset, pixdim[4] and xyzt_units describe; step 1 without unit where pixdim[4] is no number."""
    step, start = float(fields["pixdim"][4]), float(fields["toffset"])
    unit = TIME_UNITS.get(int(fields["xyzt_units"]) & 56)
    start = start if np.isfinite(start) else 0.0
    return TimeAxis(start, step, unit) if np.isfinite(step) and step > 0 else TimeAxis(start, 1.0, None)


def stored_form(raster: Raster, dtype: str | None, version: int) -> Encoding:
    """How the values are stored: the raster's encoding, or plain ``dtype``, with what NIfTI can hold.

    Raises:
        InputError: a type that NIfTI does not know.
    """
    encoding = raster.encoding if dtype is None else Encoding(dtype)
    name = {"bool": "uint8", "float16": "float32"}.get(encoding.dtype, encoding.dtype)
    if name not in DTYPES.values():
        raise InputError(f"{raster.name}: NIfTI cannot store {name}; expected one of {', '.join(DTYPES.values())}")
    if len(encoding.scale) > 1 or len(encoding.offset) > 1:
        raise InputError(f"{raster.name}: NIfTI stores one scale and offset, {len(encoding.scale)} channels came")
    real = np.float32 if version == 1 else np.float64
    return replace(
        encoding, dtype=name, scale=(float(real(encoding.scale[0])),), offset=(float(real(encoding.offset[0])),)
    )


def version_for(raster: Raster, version: int | None) -> int:
    """1 or 2: as asked, as the input had it, and 2 wherever an axis is too long for 1.

    Raises:
        InputError: 1 was asked for and cannot hold the shape.
    """
    head = header_of(raster)
    needed = 2 if max(raster.shape) > MOST_NIFTI1 else 1
    if version is not None and version < needed:
        raise InputError(f"{raster.name}: shape {raster.shape} needs NIfTI-2, its axes end at {MOST_NIFTI1} in NIfTI-1")
    return version or max(needed, 1 if head is None else head.version)


def output_fields(raster: Raster, encoding: Encoding, version: int) -> tuple[Fields, list[str]]:
    """The header record of a result, and what could not be kept in it.

    From the input's record where there is one: everything stays but what the new grid, type or time changes. Otherwise
    a fresh one: sform and qform with code 1 for scanner coordinates (DICOM), else 2.
    """
    head = header_of(raster)
    notes: list[str] = []
    fields = np.zeros((), dtype=LAYOUTS[348 if version == 1 else 540].newbyteorder("<"))
    if head is None:
        _fresh(fields, raster, notes)
    else:
        for name in set(fields.dtype.names or ()) & set(head.fields.dtype.names or ()) - _FRAME:
            fields[name] = head.fields[name]
        assert raster.metadata is not None
        change = index_map(raster.metadata.grid, raster.grid)
        move(fields, change, notes)
        if not np.array_equal(change, np.eye(4)):
            _drop_stale(fields, change, raster, notes)
    _set_dims(fields, raster, head)
    _set_time(fields, raster, head)
    code = {name: code for code, name in DTYPES.items()}[encoding.dtype]
    fields["datatype"], fields["bitpix"] = code, np.dtype(encoding.dtype).itemsize * 8
    if head is None or decode_encoding(fields, raster.name) != replace(encoding, nodata=(None,), mask=False):
        fields["scl_slope"], fields["scl_inter"] = encoding.scale[0], encoding.offset[0]
    fields["sizeof_hdr"] = 348 if version == 1 else 540
    return fields, notes


def header_bytes(fields: Fields, extensions: tuple[Extension, ...], single: bool) -> bytes:
    """Header and extensions as they stand in the file; sets magic and vox_offset in ``fields``."""
    version = 1 if int(fields["sizeof_hdr"]) == 348 else 2
    packed = b"".join(struct.pack("<ii", len(e.data) + 8, e.code) + e.data for e in extensions)
    fields["magic"] = (b"n+" if single else b"ni") + (b"1" if version == 1 else b"2")
    if version == 2:
        fields["eol_check"] = (13, 10, 26, 10)
    fields["vox_offset"] = int(fields["sizeof_hdr"]) + 4 + len(packed) if single else 0
    flag = bytes([1 if extensions else 0, 0, 0, 0])
    return fields.tobytes() + flag + packed


def comment(text: str) -> Extension:
    """Text as a header extension, padded to the 16 bytes that the standard asks for."""
    data = text.encode("utf-8") + b"\0"
    return Extension(_COMMENT, data + b"\0" * (-(len(data) + 8) % 16))


def nifti_writer(
    raster: Raster,
    path: Path,
    *,
    head: bytes,
    encoding: Encoding,
    beside: Mapping[Path, str],
    threads: int | None = None,
) -> SlabWriter:
    """A NIfTI file in the making, its header written.

    Args:
        raster: what is written.
        path: the temporary path; its name says whether it is compressed and whether a pair.
        head: header and extensions, as :func:`header_bytes` gives them.
        encoding: the stored form.
        beside: text files to write with it, such as a sidecar.
        threads: how many deflate.
    """
    header_path, data_path = (Path(p) for p in partner(str(path)))
    sink = _sink(data_path, threads)
    if header_path == data_path:
        sink.write(head)
    write_header(header_path, data_path, head)

    def write_beside() -> None:
        for file, text in beside.items():
            file.write_text(text, encoding="utf-8")

    return SlabWriter(raster, encoding, sink, write_beside)


def write_header(header_path: Path, data_path: Path, head: bytes) -> None:
    """Write the header of a pair; that of a single file goes before its values."""
    if header_path != data_path:
        sink = _sink(header_path, 1)
        sink.write(head)
        sink.close()


def _sink(path: Path, threads: int | None) -> Sink:
    return GzipSink(path, threads=threads) if path.name.lower().endswith(".gz") else PlainSink(path)


def header_of(raster: Raster) -> Header | None:
    """The header of the NIfTI file that the raster comes from, if it does."""
    if raster.metadata is None or raster.metadata.format != "NIfTI":
        return None
    head = raster.metadata.items["header"]
    assert isinstance(head, Header)
    return head


def _fresh(fields: Fields, raster: Raster, notes: list[str]) -> None:
    items = {} if raster.metadata is None else raster.metadata.items
    scale = LENGTH_MM[raster.grid.unit]
    affine = np.diag([scale, scale, scale, 1.0]) @ raster.grid.center_affine
    place(fields, affine, int(items.get("xform_code", 2)), notes)
    fields["pixdim"][4:] = 1
    fields["xyzt_units"] = 2


def _set_dims(fields: Fields, raster: Raster, head: Header | None) -> None:
    sizes = raster.shape[::-1]
    count = max(len(sizes), 0 if head is None else int(head.fields["dim"][0]))
    if head is not None and int(head.fields["dim"][0]) < 3:
        longest = max((i + 1 for i, n in enumerate(sizes) if n > 1), default=1)
        count = max(int(head.fields["dim"][0]), longest)
    fields["dim"][0] = count
    fields["dim"][1:] = 1
    fields["dim"][1 : len(sizes) + 1] = sizes


def _set_time(fields: Fields, raster: Raster, head: Header | None) -> None:
    """Write the t axis unless it is what the header says already."""
    time = raster.time
    if time is None or (head is not None and time == time_axis(head.fields)):
        return
    fields["toffset"], fields["pixdim"][4] = time.start, time.step
    code = {unit: code for code, unit in TIME_UNITS.items()}.get(time.unit or "", 0)
    fields["xyzt_units"] = (int(fields["xyzt_units"]) & 7) | code


def slice_axis(fields: Fields) -> str | None:
    """The axis along which slices were taken, if dim_info says so (nifti1.h, MRI-SPECIFIC SPATIAL INFORMATION)."""
    return (None, "x", "y", "z")[int(fields["dim_info"]) >> 4 & 3]


def _drop_stale(fields: Fields, change: Any, raster: Raster, notes: list[str]) -> None:
    """Clear what no longer holds on a changed grid: slice timing along a changed slice axis, global extremes."""
    if "glmax" in (fields.dtype.names or ()):
        fields["glmax"] = fields["glmin"] = 0
    axis = "xyz".index(slice_axis(fields) or "z")
    column = np.eye(4)[:, axis]
    same = np.array_equal(change[:, axis], column) and change[axis, 3] == 0
    assert raster.metadata is not None
    same = same and raster.grid.shape[2 - axis] == raster.metadata.grid.shape[2 - axis]
    stale = [name for name in _SLICE_FIELDS if float(fields[name]) != 0]
    if not same and stale:
        for name in stale:
            fields[name] = 0
        notes.append(f"{', '.join(stale)} no longer hold along the changed slice axis {'xyz'[axis]} and were dropped")

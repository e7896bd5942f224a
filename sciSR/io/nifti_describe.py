"""What ``scisr info`` shows of a NIfTI header beyond what every raster has."""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.nifti1 import intent_codes
from nibabel.orientations import aff2axcodes

from sciSR.io.nifti_header import Fields, Header
from sciSR.io.nifti_write import slice_axis, time_axis
from sciSR.raster import Raster

__all__ = ["described", "orientation"]

_XFORM = {0: "unknown", 1: "scanner", 2: "aligned to another scan", 3: "Talairach", 4: "MNI 152", 5: "other template"}
_UNITS = {0: "not stated, taken as mm", 1: "m", 2: "mm", 3: "um"}
_SLICE_ORDER = {
    1: "sequential, rising",
    2: "sequential, falling",
    3: "alternating, rising",
    4: "alternating, falling",
    5: "alternating, rising from the second",
    6: "alternating, falling from the last but one",
}
_EXTENSIONS = {2: "DICOM", 4: "AFNI", 6: "comment", 8: "XCEDE", 32: "CIFTI", 44: "MRS"}


def orientation(raster: Raster) -> str:
    """Letters of the directions towards which x, y and z grow, such as ``"RAS"``."""
    letters: tuple[str, ...] = aff2axcodes(raster.grid.center_affine)
    return "".join(letters)


def described(head: Header, raster: Raster, used: str) -> dict[str, Any]:
    """Plain values; what the header leaves empty is left out."""
    fields = head.fields
    facts: dict[str, Any] = {
        "version": f"NIfTI-{head.version}, " + ("single file" if head.single else "pair"),
        "byte order": "little" if head.byteorder == "<" else "big",
        "orientation": f"{orientation(raster)} (towards these x, y and z grow)",
        "qform": _form(int(fields["qform_code"])),
        "sform": _form(int(fields["sform_code"])),
        "placed by": used if used != "pixdim" else "pixdim alone: the file states spacing, but no position",
        "file unit": _UNITS.get(int(fields["xyzt_units"]) & 7, "unknown, taken as mm"),
        "intent": _intent(fields),
        "descrip": _text(fields["descrip"]),
        "aux_file": _text(fields["aux_file"]),
        "display range": [float(fields["cal_min"]), float(fields["cal_max"])] if fields["cal_max"] > 0 else None,
        "time": time_axis(fields)._asdict() if head.series else None,
        "slices": _slices(fields),
        "extensions": [_extension(e.code, len(e.data)) for e in head.extensions],
        "sidecar": None if raster.metadata is None or not raster.metadata.items.get("sidecar") else "carried over",
    }
    return {key: value for key, value in facts.items() if value not in (None, "", [], {})}


def _form(code: int) -> str:
    return f"code {code}, {_XFORM.get(code, 'unknown')}"


def _extension(code: int, size: int) -> dict[str, Any]:
    return {"code": code, "name": _EXTENSIONS.get(code, "other"), "bytes": size}


def _intent(fields: Fields) -> str:
    code = int(fields["intent_code"])
    if code == 0 and not _text(fields["intent_name"]):
        return ""
    known = {c: intent_codes.label[c] for c in intent_codes.value_set()}
    return f"code {code}, {known.get(code, 'unknown')} {_text(fields['intent_name'])}".rstrip()


def _slices(fields: Fields) -> dict[str, Any]:
    facts = {
        "axis": slice_axis(fields),
        "order": _SLICE_ORDER.get(int(fields["slice_code"])),
        "first": int(fields["slice_start"]) or None,
        "last": int(fields["slice_end"]) or None,
        "duration": float(fields["slice_duration"]) or None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _text(field: Any) -> str:
    """A fixed-length text, up to its first NUL."""
    raw: bytes = np.asarray(field).item()
    return raw.split(b"\0")[0].decode("latin-1").strip()

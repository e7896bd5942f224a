"""The JSON sidecar of a BIDS image: carried over to a result, with what no longer holds replaced.

Field names and meanings: https://bids-specification.readthedocs.io (MRI metadata; ``GeneratedBy`` under derivatives).
BIDS calls the voxel axes i, j and k; they are x, y and z here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciSR import __version__
from sciSR.errors import FormatError

__all__ = ["carry_over", "made_here", "read_sidecar", "sidecar_path", "stable", "to_json"]

_Axes = Mapping[str, tuple[int, float]]

_ENDING = re.compile(r"(\.nii|\.hdr|\.img|\.nrrd|\.nhdr|\.mha|\.mhd)?(\.gz)?$", re.IGNORECASE)
_PATH = re.compile(r"""(?:^|[\s='"(,])(?:(?:~|\.{1,2})?[/\\]+\w|[A-Za-z]:[/\\]|file:)""")
_TIME = re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d")
_COUNTS = {"Columns": "x", "Rows": "y", "NumberOfSlices": "z"}
_ECHO_SPACING = ("EffectiveEchoSpacing", "DerivedVendorReportedEchoSpacing")
_AXES = {"i": "x", "j": "y", "k": "z"}


def sidecar_path(path: str | Path) -> Path:
    """Where the sidecar of an image lies: ``sub-01_T1w.json`` beside ``sub-01_T1w.nii.gz``."""
    path = Path(path)
    return path.with_name(_ENDING.sub("", path.name) + ".json")


def read_sidecar(path: str | Path) -> dict[str, Any] | None:
    """The sidecar of an image, or None if there is none.

    Raises:
        FormatError: the file beside the image is not a JSON object.
    """
    file = sidecar_path(path)
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise FormatError(f"{file.name}: not a JSON sidecar ({error})") from error
    if not isinstance(content, dict):
        raise FormatError(f"{file.name}: a sidecar is a JSON object, {type(content).__name__} came")
    return content


def made_here(path: str | Path) -> bool:
    """Whether the sidecar of an image is one that sciSR wrote."""
    try:
        entries = (read_sidecar(path) or {}).get("GeneratedBy")
    except FormatError:
        return False
    last = entries[-1] if isinstance(entries, list) and entries else None
    return isinstance(last, dict) and last.get("Name") == "sciSR"


def stable(provenance: Mapping[str, str]) -> dict[str, str]:
    """The entries that hold no path and no time, so that the same work gives the same bytes on every machine."""
    return {k: v for k, v in provenance.items() if not (_PATH.search(v) or _TIME.search(v))}


def carry_over(
    sidecar: Mapping[str, Any],
    *,
    before: _Axes,
    after: _Axes,
    slice_axis: str | None,
    provenance: Mapping[str, str],
) -> dict[str, Any]:
    """The sidecar of a result.

    Fields stay in their order. Along a refined slice axis SliceThickness and SpacingBetweenSlices become the new
    spacing and SliceTiming goes; along a refined phase-encoding axis ReconMatrixPE and the effective echo spacing
    follow the new count, so that TotalReadoutTime still holds. What was acquired (AcquisitionMatrixPE, …) stays.

    Args:
        sidecar: the input's.
        before: voxel count and spacing in mm per axis ``x``, ``y``, ``z`` of the input.
        after: the same of the result.
        slice_axis: along which slices were taken, if the image's header says so; else the sidecar's
            SliceEncodingDirection, else z.
        provenance: what was done, entries as :func:`stable` leaves them.
    """
    result = dict(sidecar)
    slices = slice_axis or _AXES.get(str(sidecar.get("SliceEncodingDirection", "k"))[:1], "z")
    changed = {axis for axis in "xyz" if before[axis] != after[axis]}
    if slices in changed:
        for key in ("SliceThickness", "SpacingBetweenSlices"):
            if key in result:
                result[key] = _rounded(after[slices][1])
        result.pop("SliceTiming", None)
    for key, axis in _COUNTS.items():
        if key in result and axis in changed:
            if result[key] == before[axis][0]:
                result[key] = after[axis][0]
            else:
                result.pop(key)
    _follow_phase(result, before, after)
    if changed and "PixelSize" in result:
        result["PixelSize"] = _pixel_size(result["PixelSize"], before, after)
    if changed and "Resolution" in result:
        result["Resolution"] = " x ".join(f"{_rounded(after[axis][1])}" for axis in "xyz") + " mm, upsampled"
    stale = {k: v for k, v in sidecar.items() if k != "GeneratedBy" and (k not in result or result[k] != v)}
    earlier = sidecar.get("GeneratedBy", [])
    earlier = earlier if isinstance(earlier, list) else [earlier]
    result["GeneratedBy"] = [*earlier, _generated_by(provenance, stale)]
    return result


def to_json(sidecar: Mapping[str, Any]) -> str:
    """The sidecar as text; equal content gives equal bytes."""
    return json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n"


def _follow_phase(result: dict[str, Any], before: _Axes, after: _Axes) -> None:
    """Set what counts phase-encoding lines to the new grid; drop it if the axis is not known."""
    axis = _AXES.get(str(result.get("PhaseEncodingDirection", result.get("PhaseEncodingAxis", "")))[:1])
    if before == after or (axis is not None and before[axis] == after[axis]):
        return
    lines = result.get("ReconMatrixPE", before[axis][0] if axis else None)
    if axis is None or not isinstance(lines, int) or lines < 2:
        for key in (*_ECHO_SPACING, "ReconMatrixPE"):
            result.pop(key, None)
        return
    refined = max(2, round(lines * before[axis][1] / after[axis][1]))
    for key in _ECHO_SPACING:
        if isinstance(result.get(key), (int, float)):
            result[key] *= (lines - 1) / (refined - 1)
    if "ReconMatrixPE" in result:
        result["ReconMatrixPE"] = refined


def _pixel_size(value: Any, before: _Axes, after: _Axes) -> Any:
    """PixelSize in its own unit, one number or one per axis x, y, z."""
    ratios = [after[axis][1] / before[axis][1] for axis in "xyz"]
    if isinstance(value, (int, float)):
        return _rounded(value * ratios[0])
    return [_rounded(v * r) for v, r in zip(value, ratios, strict=False)]


def _generated_by(provenance: Mapping[str, str], stale: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"Name": "sciSR", "Version": __version__}
    if provenance:
        entry["Description"] = "; ".join(f"{key}: {value}" for key, value in provenance.items())
    if stale:
        entry["ReplacedFields"] = dict(stale)
    return entry


def _rounded(value: float) -> float:
    """Without the noise of float32 headers."""
    return float(f"{value:.6g}")

"""``scisr info``: what a file holds, in one table or as JSON, from its header alone."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from sciSR.console import Console
from sciSR.errors import InputError, MissingFileError
from sciSR.grid import RAS_MM, Grid
from sciSR.io import adapter_for, open_raster
from sciSR.raster import Raster
from sciSR.record import is_remote, plain

__all__ = ["axis_directions", "describe_file", "run"]

_ANATOMY = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
"""Ends of the world axes of RAS+ (NIfTI-1: +x right, +y anterior, +z superior)."""
_MAP = (("west", "east"), ("south", "north"), ("down", "up"))
_OBLIQUE_DEGREES = 0.5
_SHOWN = ("axes", "extent", "grid", "shape", "spacing")
"""What adapters tell that the tables above have already."""


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the facts of each file; gives the exit code."""
    code = 0
    found = []
    for path in arguments.file:
        try:
            found.append(describe_file(path))
        except (InputError, MissingFileError) as error:
            if len(arguments.file) == 1:
                raise
            console.problem(str(error))
            code = 2
    if arguments.json:
        console.answer(json.dumps(found[0] if len(arguments.file) == 1 else found, indent=1, ensure_ascii=False))
    else:
        console.answer("\n\n".join(_as_text(facts) for facts in found))
    return code


def describe_file(path: str) -> dict[str, Any]:
    """Plain values: format, axes with size, spacing and direction, position, values, and the format's own metadata.

    Raises:
        MissingFileError: no such file.
        FormatError: not what its name says.
    """
    adapter = adapter_for(path)
    if not is_remote(path) and not os.path.exists(path):
        raise MissingFileError(f"{path}: no such file")
    facts: dict[str, Any] = {"file": path, "format": adapter.name}
    if not is_remote(path):
        facts["bytes"] = _size(Path(path))
    metadata = adapter.describe(path)
    try:
        facts.update(_raster_facts(open_raster(path)))
    except InputError as error:
        facts["refused"] = str(error)
    described: dict[str, Any] = plain({**facts, "metadata": metadata})
    return described


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def axis_directions(grid: Grid) -> dict[str, str]:
    """Where each axis runs as its index grows: ``"left to right"``, ``"north to south"``, with its angle if oblique.

    Example:
        >>> axis_directions(Grid((3, 4), [[10, 0, 500], [0, -10, 900], [0, 0, 1]], frame="EPSG:32618"))
        {'y': 'north to south', 'x': 'west to east'}
    """
    ends = _ANATOMY if grid.frame == RAS_MM else _MAP
    directions = {}
    for i, axis in enumerate(grid.axes):
        column = grid.affine[:-1, len(grid.axes) - 1 - i]
        unit = column / np.linalg.norm(column)
        main = int(np.argmax(np.abs(unit)))
        start, stop = ends[main] if unit[main] > 0 else ends[main][::-1]
        angle = float(np.degrees(np.arccos(min(1.0, abs(unit[main])))))
        tilt = f", {angle:.1f}° oblique" if angle >= _OBLIQUE_DEGREES else ""
        directions[axis] = f"{start} to {stop}{tilt}"
    return directions


def _raster_facts(raster: Raster) -> dict[str, Any]:
    grid, encoding = raster.grid, raster.encoding
    directions = axis_directions(grid)
    axes = [
        {"axis": a, "size": n, "spacing": grid.spacing[a], "unit": grid.unit, "direction": directions[a]}
        for a, n in zip(grid.axes, grid.shape, strict=True)
    ][::-1]
    if raster.time is not None and "t" in raster.axes:
        size = raster.shape[raster.axes.index("t")]
        axes.append({"axis": "t", "size": size, "spacing": raster.time.step, "unit": raster.time.unit, "direction": ""})
    return {
        "axes": axes,
        "frame": grid.frame,
        "bounds": list(grid.bounds),
        "affine": grid.affine.tolist(),
        "values": {
            "stored": encoding.dtype,
            "scale": list(encoding.scale),
            "offset": list(encoding.offset),
            "nodata": list(encoding.nodata),
            "mask": encoding.mask,
        },
        "channels": [{"name": c.name, "unit": c.unit} for c in raster.channels],
        "auxiliary": sorted(raster.auxiliary),
    }


def _as_text(facts: dict[str, Any]) -> str:
    size = f", {facts['bytes'] / 1e6:,.1f} MB" if "bytes" in facts else ""
    lines = [f"{facts['file']}: {facts['format']}{size}"]
    if "refused" in facts:
        lines.append(f"  refused    {facts['refused']}")
    if "axes" in facts:
        lines += [*_axes_lines(facts), *_value_lines(facts)]
    lines += _metadata_lines(facts["metadata"], "  ")
    return "\n".join(lines)


def _axes_lines(facts: dict[str, Any]) -> list[str]:
    rows = [("axis", "size", "spacing", "extent", "runs from")]
    for axis in facts["axes"]:
        unit = f" {axis['unit']}" if axis["unit"] else ""
        extent = f"{axis['size'] * axis['spacing']:.6g}{unit}"
        rows.append((axis["axis"], str(axis["size"]), f"{axis['spacing']:.6g}{unit}", extent, axis["direction"]))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        cells = (row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4])
        lines.append("  " + "  ".join(cells).rstrip())
    n = len(facts["bounds"]) // 2
    low, high = facts["bounds"][:n], facts["bounds"][n:]
    spans = ", ".join(f"{k} {a:.10g} to {b:.10g}" for k, a, b in zip("xyz", low, high, strict=False))
    return [*lines, f"  bounds     {spans}", f"  frame      {_frame_name(facts['frame'])}"]


def _frame_name(frame: str | None) -> str:
    """The frame in a few words: a WKT's own name, or the code."""
    if frame is None:
        return "none stated"
    head, quote, rest = frame.partition('["')
    return f"{rest.partition(chr(34))[0]} ({head})" if quote else frame


def _value_lines(facts: dict[str, Any]) -> list[str]:
    values = facts["values"]
    stored = values["stored"]
    if any(s != 1 for s in values["scale"]) or any(o != 0 for o in values["offset"]):
        stored += f", physical = stored x {_several(values['scale'])} + {_several(values['offset'])}"
    nodata = _several(["none" if v is None else v for v in values["nodata"]])
    mask = ", and a mask" if values["mask"] else ""
    lines = [f"  values     {stored}", f"  nodata     {nodata}{mask}"]
    named = [c for c in facts["channels"] if c["name"] or c["unit"]]
    if named or len(facts["channels"]) > 1:
        names = [f"{c['name'] or k}" + (f" [{c['unit']}]" if c["unit"] else "") for k, c in _numbered(facts)]
        lines.append(f"  channels   {len(names)}: {', '.join(names)}")
    if facts["auxiliary"]:
        lines.append(f"  with       {', '.join(facts['auxiliary'])}")
    return lines


def _numbered(facts: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(facts["channels"], start=1))


def _several(values: list[Any]) -> str:
    shown = [f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def _metadata_lines(metadata: Any, indent: str) -> list[str]:
    """Nested plain values, one a line; long ones are cut."""
    lines = []
    for key, value in metadata.items():
        if key in _SHOWN and indent == "  ":
            continue
        if isinstance(value, dict):
            lines.append(f"{indent}{key}")
            lines += _metadata_lines(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}")
            for item in value:
                lines.append(f"{indent}  " + ", ".join(f"{k}={v}" for k, v in item.items() if v not in (None, "", {})))
        else:
            text = ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
            text = " ".join(text.split())
            lines.append(f"{indent}{key:<10} {text if len(text) <= 160 else text[:157] + '…'}")
    return lines

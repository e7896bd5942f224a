"""NRRD: ``.nrrd`` and ``.nhdr`` with its data file, values raw, gzip or bzip2.

The format: https://teem.sourceforge.net/nrrd/format.html. A header is lines of text; they are kept as they are, in
their order, and those that a new grid or type changes are rewritten. Values run x fastest, so a C-ordered array is
(z, y, x).
"""

from __future__ import annotations

import bz2
import math
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError
from sciSR.io.adapter import Writer
from sciSR.io.bids import stable
from sciSR.io.gzipped import GzipSink, GzipSlabs, PlainSink
from sciSR.io.headered import HeaderedVolumes, data_beside, mapped_planes, stored_volume
from sciSR.io.planes import StoredPlanes, WholeArray
from sciSR.io.slab_writer import SlabWriter
from sciSR.io.volumes import (
    LENGTH_MM,
    LPS,
    grid_from_lps,
    index_map,
    numbers,
)
from sciSR.raster import Metadata, Raster, TimeAxis

__all__ = ["NrrdAdapter"]

_TYPES = {
    "int8": ("signed char", "int8", "int8_t"),
    "uint8": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "int16": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "uint16": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "int32": ("int", "signed int", "int32", "int32_t"),
    "uint32": ("uint", "unsigned int", "uint32", "uint32_t"),
    "int64": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "uint64": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "float32": ("float",),
    "float64": ("double",),
}
_WRITTEN = {"float32": "float", "float64": "double"}
_DTYPES = {alias: name for name, aliases in _TYPES.items() for alias in aliases}
_ALIASES = {
    "centerings": "centers",
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "oldmin": "old min",
    "oldmax": "old max",
}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_STALE = ("min", "max", "axis mins", "axis maxs", "data file", "line skip", "byte skip")
_SAMPLED = ("domain", "space", "time", "list", "none", "???", "")

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Header:
    """A parsed header.

    Attributes:
        lines: all of it, from the magic on.
        fields: field -> description, names in lower case and without their second spellings.
        keys: the file's own key/value pairs.
        end: bytes of the header file up to the values, if they are in it.
    """

    lines: tuple[str, ...]
    fields: dict[str, str]
    keys: dict[str, str]
    end: int


class NrrdAdapter(HeaderedVolumes):
    """Reads and writes NRRD.

    Options of ``open``: ``labels`` (True: a label map, False: not one, None: found out before work).
    Options of ``create``: ``dtype`` (numpy name), ``threads`` (how many deflate).
    """

    name = "NRRD"
    suffixes = (".nrrd", ".nhdr")
    detached = ".nhdr"
    types = tuple(_TYPES)

    def describe(self, path: str) -> dict[str, Any]:
        """The header's fields and the file's own keys."""
        header, _, notes = self.opened(path)
        facts: dict[str, Any] = {"version": header.lines[0], "fields": header.fields, "keys": header.keys}
        return {k: v for k, v in {**facts, "notes": notes}.items() if v}

    def opened(self, path: str, *, labels: bool | None = None) -> tuple[_Header, Raster, list[str]]:
        """The header, the lazy raster, and what is to be said of them."""
        return _opened(path, labels)

    def create(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """Start the file: its header is written at once."""
        encoding, raw = self.stored_form(raster, options.get("dtype")), self.raw(path)
        lines, packed = _output_lines(raster, encoding, None if raw is None else raw.name)
        text = "\n".join(lines) + "\n" + ("\n" if raw is None else "")
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        if raw is not None:
            return SlabWriter(raster, encoding, PlainSink(raw))
        sink = GzipSink(path, threads=options.get("threads"), append=True) if packed else PlainSink(path, append=True)
        return SlabWriter(raster, encoding, sink)


def _opened(path: str, labels: bool | None) -> tuple[_Header, Raster, list[str]]:
    name = os.path.basename(path)
    header = _read_header(path, name)
    fields = header.fields
    notes: list[str] = []
    sizes = numbers(_need(fields, "sizes", name), int, "sizes", name)
    affine, to_lps = _geometry(fields, sizes, name, notes)
    series = len(sizes) == 4 and sizes[3] > 1
    shape = tuple(sizes[2::-1])
    grid = grid_from_lps(shape, to_lps @ affine, name)
    dtype = _dtype(fields, name)
    full = (sizes[3], *shape) if series else shape
    stored, data_path = _planes(path, header, dtype, full, name)
    raster = stored_volume(
        path,
        NrrdAdapter.name,
        stored,
        full,
        grid,
        dtype,
        unit=fields.get("sample units", "").strip('"') or None,
        time=_time(fields, name) if series else None,
        header=header,
        affine=affine,
        labels=labels,
        data=data_path,
    )
    return header, raster, notes


def _read_header(path: str, name: str) -> _Header:
    """Fields and keys of the header, which ends at an empty line or with the file."""
    lines: list[str] = []
    with open(path, "rb") as file:
        if not (line := file.readline(64)).startswith(b"NRRD000"):
            raise FormatError(f"{name}: not an NRRD file: it begins with {line[:16]!r}, expected NRRD000…")
        while (text := line.decode("utf-8", "surrogateescape").rstrip("\r\n")) or not lines:
            lines.append(text)
            line = file.readline(2**20)
        end = file.tell()
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for text in lines[1:]:
        field, colon, value = text.partition(":")
        if text.startswith("#") or not colon:
            continue
        if value.startswith("="):
            keys[field] = value[1:]
        else:
            fields[_ALIASES.get(field.strip().lower(), field.strip().lower())] = value.strip()
    return _Header(tuple(lines), fields, keys, end)


def _need(fields: dict[str, str], field: str, name: str) -> str:
    if field not in fields:
        raise FormatError(f"{name}: the header has no field {field!r}; it is damaged")
    return fields[field]


def _dtype(fields: dict[str, str], name: str) -> np.dtype[Any]:
    said = _need(fields, "type", name)
    if said.lower() not in _DTYPES:
        raise FormatError(
            f"{name}: values of type {said!r} are no numbers that sciSR reads; expected one of {list(_TYPES)}"
        )
    dtype = np.dtype(_DTYPES[said.lower()])
    return dtype.newbyteorder(">") if fields.get("endian", "little").lower() == "big" else dtype.newbyteorder("<")


def _geometry(fields: dict[str, str], sizes: list[int], name: str, notes: list[str]) -> tuple[Matrix, Matrix]:
    """The centre affine in the file's own space and unit, and the matrix from there to LPS millimetres."""
    count = len(sizes)
    if count not in (3, 4) or min(sizes, default=0) < 1:
        raise FormatError(f"{name}: sizes {sizes}; expected a volume (x, y, z) or a series of volumes (x, y, z, t)")
    kinds = [k.lower() for k in fields.get("kinds", "").split()] or [""] * count
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", "")) or _from_spacings(
        fields, count, name
    )
    spatial = [i for i, text in enumerate(directions) if text != "none"]
    if len(kinds) != count or len(directions) != count or spatial != [0, 1, 2] or any(k not in _SAMPLED for k in kinds):
        raise FormatError(
            f"{name}: axes of kinds {fields.get('kinds', '')!r}, directions {directions}; expected three spatial axes "
            "and perhaps a list or time after them: split vectors and colours into scalar volumes"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.array([_vector(directions[i], name) for i in spatial]).T
    if "space origin" in fields:
        affine[:3, 3] = _vector(fields["space origin"], name)
    else:
        notes.append("states no space origin; its first voxel was placed at 0")
    space = fields.get("space", "")
    if space.lower() not in _TO_LPS:
        notes.append(f"its space, {space or 'not stated'}, is no anatomical one; left-posterior-superior was assumed")
    signs = _TO_LPS.get(space.lower(), (1, 1, 1))
    return affine, np.diag([*(sign * _unit(fields, notes) for sign in signs), 1.0])


def _from_spacings(fields: dict[str, str], count: int, name: str) -> list[str]:
    """Directions along the axes from ``spacings``, 1 where it says nothing."""
    lengths = numbers(fields.get("spacings", " ".join(["nan"] * count)), float, "spacings", name)
    units = np.eye(3)
    found = [_text(units[i] * (1.0 if np.isnan(v) else v)) for i, v in enumerate(lengths[:3])]
    return found + ["none"] * (count - 3)


def _vector(text: str, name: str) -> list[float]:
    try:
        values = [float(v) for v in text.strip("() ").split(",")]
    except ValueError as error:
        raise FormatError(f"{name}: {text!r} is not a vector; the header is damaged") from error
    if len(values) != 3:
        raise FormatError(f"{name}: {text!r} has {len(values)} components; expected a space of 3 dimensions")
    return values


def _unit(fields: dict[str, str], notes: list[str]) -> float:
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {""}
    unit = units.pop() if len(units) == 1 else None
    if units or unit not in LENGTH_MM:
        notes.append(f"space units {fields['space units']} are not one unit of length; millimetres were assumed")
        return 1.0
    return LENGTH_MM[unit]


def _time(fields: dict[str, str], name: str) -> TimeAxis:
    """Step of the fourth axis from ``spacings`` and ``units``, 1 without unit where they say nothing."""
    spacings = numbers(fields.get("spacings", ""), float, "spacings", name)
    units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    step = spacings[3] if len(spacings) == 4 else np.nan
    return TimeAxis(0.0, step, (units[3] or None) if len(units) == 4 else None) if step > 0 else TimeAxis()


def _planes(
    path: str, header: _Header, dtype: np.dtype[Any], shape: tuple[int, ...], name: str
) -> tuple[StoredPlanes, str]:
    """The stored values, and the file that they are in."""
    fields = header.fields
    said = _need(fields, "encoding", name).lower()
    if said not in _ENCODINGS:
        raise FormatError(f"{name}: encoding {said!r}; expected raw, gzip or bzip2: convert the file")
    data, start = path, header.end
    if "data file" in fields:
        data, start = data_beside(path, fields["data file"], name), 0
    lines, skip = (_one(fields, key, name) for key in ("line skip", "byte skip"))
    start += _skipped_lines(data, start, lines)
    kind = _ENCODINGS[said]
    if kind == "gzip":
        return GzipSlabs(data, dtype, shape, max(0, skip), start=start), data
    if kind == "bzip2":
        return WholeArray(partial(_load_bzip2, data, start, max(0, skip), dtype, shape)), data
    return mapped_planes(data, dtype, shape, start, skip, name), data


def _one(fields: dict[str, str], key: str, name: str) -> int:
    """The one whole number of a field, 0 where it is not there."""
    found = numbers(fields.get(key, "0"), int, key, name)
    if len(found) != 1 or found[0] < (-1 if key == "byte skip" else 0):
        raise FormatError(f"{name}: {key} {fields[key]!r}; expected one whole number: the header is damaged")
    return found[0]


def _skipped_lines(path: str, start: int, count: int) -> int:
    with open(path, "rb") as file:
        file.seek(start)
        for _ in range(count):
            if not file.readline():
                break
        return file.tell() - start


def _load_bzip2(path: str, start: int, skip: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            raw = bz2.decompress(file.read())[skip:]
        values = np.frombuffer(raw, dtype=dtype, count=math.prod(shape))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: the compressed data are damaged or cut off ({error})") from error
    return values.reshape(shape).astype(dtype.newbyteorder("="))


def _output_lines(raster: Raster, encoding: Encoding, data_file: str | None) -> tuple[list[str], bool]:
    """The header's lines, and whether the values after it are to be compressed."""
    meta = raster.metadata
    header = meta.items["header"] if meta is not None and meta.format == NrrdAdapter.name else None
    packed = data_file is None and (header is None or _ENCODINGS[header.fields["encoding"].lower()] != "raw")
    sizes = raster.shape[::-1]
    if header is None:
        lines, fields = ["NRRD0004"], _fresh_fields(raster)
    else:
        assert meta is not None
        lines, fields = list(header.lines), _changed_fields(raster, header, meta)
        if len(sizes) == 3 and len(header.fields["sizes"].split()) == 4:
            sizes = (*sizes, 1)
    known = None if header is None else _DTYPES[header.fields["type"].lower()]
    if known != encoding.dtype:
        fields["type"] = _WRITTEN.get(encoding.dtype, encoding.dtype)
    fields |= {"dimension": str(len(sizes)), "sizes": " ".join(map(str, sizes)), "endian": "little"}
    fields["encoding"] = "gzip" if packed else "raw"
    lines = _merged(lines, fields, _STALE)
    lines += [f"{k}:={v}".replace("\n", "\\n") for k, v in stable(raster.provenance).items()]
    return (lines if data_file is None else [*lines, f"data file: {data_file}"]), packed


def _fresh_fields(raster: Raster) -> dict[str, str]:
    scale = LENGTH_MM[raster.grid.unit]
    affine = LPS @ np.diag([scale, scale, scale, 1.0]) @ raster.grid.center_affine
    rest = len(raster.shape) - 3
    fields = {
        "type": "",
        "dimension": "",
        "space": "left-posterior-superior",
        "sizes": "",
        "space directions": " ".join([_text(v) for v in affine[:3, :3].T] + ["none"] * rest),
        "kinds": " ".join(["domain"] * 3 + ["time"] * rest),
        "endian": "",
        "encoding": "",
        "space origin": _text(affine[:3, 3]),
    }
    if raster.time is not None:
        fields["units"] = f'"" "" "" "{raster.time.unit or ""}"'
        fields["spacings"] = f"nan nan nan {raster.time.step:.17g}"
    return fields


def _changed_fields(raster: Raster, header: _Header, meta: Metadata) -> dict[str, str]:
    """The fields that place the voxels, moved along with the grid; none where it is the file's own."""
    change = index_map(meta.grid, raster.grid)
    if np.array_equal(change, np.eye(4)):
        return {}
    affine: Matrix = meta.items["affine"] @ change
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    moved = np.linalg.norm(change[:3, :3], axis=0) != 1
    fields = {}
    if header.fields.get("space", "").lower() not in _TO_LPS:
        fields["space"] = "left-posterior-superior"  # as it was taken; must come before what depends on it
    rest = len(header.fields["sizes"].split()) - 3
    fields["space directions"] = " ".join([_text(v) for v in affine[:3, :3].T] + ["none"] * rest)
    fields["space origin"] = _text(affine[:3, 3])
    if "spacings" in header.fields:
        fields["spacings"] = " ".join(["nan"] * 3 + header.fields["spacings"].split()[3:])
    if "thicknesses" in header.fields:  # of the slices as they are now, not as they were acquired
        old = header.fields["thicknesses"].split()
        new = [f"{n:.17g}" if m and float(v) == float(v) else v for v, n, m in zip(old, lengths, moved, strict=False)]
        fields["thicknesses"] = " ".join([*new, *old[3:]])
    return fields


def _merged(lines: list[str], fields: dict[str, str], stale: tuple[str, ...]) -> list[str]:
    """The lines with ``fields`` replaced in place or added before the first key, and ``stale`` ones left out."""
    result, todo = [], dict(fields)
    for text in lines:
        field, colon, value = text.partition(":")
        name = _ALIASES.get(field.strip().lower(), field.strip().lower())
        if text.startswith("#") or not colon or value.startswith("="):
            result.append(text)
        elif name in fields:
            if name in todo:
                result.append(f"{field}: {todo.pop(name)}")
        elif name not in stale:
            result.append(text)
    at = next((i for i, text in enumerate(result) if re.match(r"[^:#]+:=", text)), len(result))
    return [*result[:at], *(f"{name}: {value}" for name, value in todo.items()), *result[at:]]


def _text(vector: Any) -> str:
    return "(" + ",".join(f"{float(v) + 0.0:.17g}" for v in vector) + ")"

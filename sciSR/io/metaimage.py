"""MetaImage: ``.mha``, and ``.mhd`` with its data file, as ITK, 3D Slicer and elastix write them.

The format: https://itk.org/Wiki/ITK/MetaIO/Documentation. A header is lines ``Key = Value``; they are kept as they are,
in their order, and those that a new grid or type changes are rewritten. Values run x fastest.
"""

from __future__ import annotations

import os
import zlib
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
from sciSR.io.gzipped import PlainSink, ZlibSink
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

__all__ = ["MetaImageAdapter"]

_TYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG": "int32",  # four bytes in MetaIO on every machine
    "MET_ULONG": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
_WRITTEN = {name: met for met, name in reversed(_TYPES.items())}
_ALIASES = {
    "Origin": "Offset",
    "Position": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_STALE = ("HeaderSize", "CompressedDataSize", "ElementMin", "ElementMax", "ElementDataFile")
_MOST_HEADER = 2**20
_DIGITS = 16

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Header:
    """A parsed header: its lines, its keys without their second spellings, and where it ends in the file."""

    lines: tuple[str, ...]
    keys: dict[str, str]
    end: int


class MetaImageAdapter(HeaderedVolumes):
    """Reads and writes MetaImage.

    Options of ``open``: ``labels`` (True: a label map, False: not one, None: found out before work).
    Options of ``create``: ``dtype`` (numpy name), ``threads`` (how many deflate).
    """

    name = "MetaImage"
    suffixes = (".mha", ".mhd")
    detached = ".mhd"
    types = tuple(_WRITTEN)

    def describe(self, path: str) -> dict[str, Any]:
        """The header's keys."""
        header, _, notes = self.opened(path)
        return {"keys": header.keys, **({"notes": notes} if notes else {})}

    def opened(self, path: str, *, labels: bool | None = None) -> tuple[_Header, Raster, list[str]]:
        """The header, the lazy raster, and what is to be said of them."""
        return _opened(path, labels)

    def create(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """Start the file: its header is written at once."""
        encoding, raw = self.stored_form(raster, options.get("dtype")), self.raw(path)
        lines, packed = _output_lines(raster, encoding, "LOCAL" if raw is None else raw.name)
        head = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
        path.write_bytes(head)
        if raw is not None:
            return SlabWriter(raster, encoding, PlainSink(raw))
        if not packed:
            return SlabWriter(raster, encoding, PlainSink(path, append=True))
        sink = ZlibSink(path, threads=options.get("threads"), append=True)
        return SlabWriter(raster, encoding, sink, partial(_fill_in_size, path, head))


def _fill_in_size(path: Path, head: bytes) -> None:
    """Put the compressed size, which is known at the end only, into its place in the header."""
    mark = b"CompressedDataSize = "
    with path.open("r+b") as file:
        file.seek(head.index(mark) + len(mark))
        file.write(b"%0*d" % (_DIGITS, path.stat().st_size - len(head)))


def _opened(path: str, labels: bool | None) -> tuple[_Header, Raster, list[str]]:
    name = os.path.basename(path)
    header = _read_header(path, name)
    keys = header.keys
    notes: list[str] = []
    sizes = numbers(_need(keys, "DimSize", name), int, "DimSize", name)
    if len(sizes) not in (3, 4) or min(sizes) < 1:
        raise FormatError(f"{name}: DimSize {sizes}; expected a volume (x, y, z) or a series of volumes (x, y, z, t)")
    affine, to_mm = _geometry(keys, len(sizes), name, notes)
    shape, series = tuple(sizes[2::-1]), len(sizes) == 4 and sizes[3] > 1
    grid = grid_from_lps(shape, np.diag([to_mm] * 3 + [1.0]) @ affine, name)
    full = (sizes[3], *shape) if series else shape
    dtype = _dtype(keys, name)
    stored, data_path = _planes(path, header, dtype, full, name)
    time = None
    if series:
        time = TimeAxis(_numbers(keys, "Offset", 4, name)[3], _numbers(keys, "ElementSpacing", 4, name)[3] or 1.0)
    raster = stored_volume(
        path,
        MetaImageAdapter.name,
        stored,
        full,
        grid,
        dtype,
        time=time,
        header=header,
        affine=affine,
        labels=labels,
        data=data_path,
    )
    return header, raster, notes


def _read_header(path: str, name: str) -> _Header:
    """The lines up to ElementDataFile, which is the last."""
    lines: list[str] = []
    with open(path, "rb") as file:
        while not lines or not lines[-1].startswith("ElementDataFile"):
            line = file.readline(_MOST_HEADER)
            if not line or file.tell() > _MOST_HEADER or b"=" not in line:
                raise FormatError(f"{name}: not a MetaImage header, or cut off: no line 'ElementDataFile = …' found")
            lines.append(line.decode("utf-8", "surrogateescape").rstrip("\r\n"))
        end = file.tell()
    keys: dict[str, str] = {}
    for text in lines:
        key, _, value = text.partition("=")
        keys[_ALIASES.get(key.strip(), key.strip())] = value.strip()
    return _Header(tuple(lines), keys, end)


def _need(keys: dict[str, str], key: str, name: str) -> str:
    if key not in keys:
        raise FormatError(f"{name}: the header has no {key!r}; it is damaged")
    return keys[key]


def _true(keys: dict[str, str], key: str) -> bool:
    return keys.get(key, "False").lower() in ("true", "1", "yes", "t")


def _numbers(keys: dict[str, str], key: str, count: int, name: str) -> list[float]:
    """The numbers of a key; zeros where it is not there.

    Raises:
        FormatError: no numbers, or another count of them.
    """
    try:
        values = [float(v) for v in keys.get(key, " ".join(["0"] * count)).split()]
    except ValueError as error:
        raise FormatError(f"{name}: {key} = {keys[key]!r} are not numbers; the header is damaged") from error
    if len(values) != count:
        raise FormatError(f"{name}: {key} = {keys[key]!r} has {len(values)} numbers, expected {count}")
    return values


def _dtype(keys: dict[str, str], name: str) -> np.dtype[Any]:
    said = _need(keys, "ElementType", name)
    channels = keys.get("ElementNumberOfChannels", "1")
    if said not in _TYPES or channels.strip() != "1":
        raise FormatError(f"{name}: {channels} channel(s) of type {said}; expected one channel of {', '.join(_TYPES)}")
    if not _true({"BinaryData": "True", **keys}, "BinaryData"):
        raise FormatError(f"{name}: values as text; expected BinaryData = True: convert the file")
    return np.dtype(_TYPES[said]).newbyteorder(">" if _true(keys, "BinaryDataByteOrderMSB") else "<")


def _geometry(keys: dict[str, str], count: int, name: str, notes: list[str]) -> tuple[Matrix, float]:
    """The centre affine in LPS and the file's unit, and millimetres per unit."""
    if "ElementSpacing" not in keys and "ElementSize" not in keys:
        notes.append("states no ElementSpacing; 1 was assumed")
    spacing = _spacing(keys, count, name)
    unit_matrix = {"TransformMatrix": " ".join(f"{v:g}" for v in np.eye(count).ravel())}
    rows = np.reshape(_numbers({**unit_matrix, **keys}, "TransformMatrix", count * count, name), (count, count))
    if count == 4 and not np.allclose(rows[3, :3], 0):
        raise FormatError(f"{name}: TransformMatrix mixes time with space; expected time as an axis of its own")
    affine = np.eye(4)
    affine[:3, :3] = rows[:3, :3].T * spacing[:3]  # each row is the direction of one axis
    affine[:3, 3] = _numbers(keys, "Offset", count, name)[:3]
    unit = keys.get("DistanceUnits", "mm")
    if unit not in LENGTH_MM and unit != "?":
        notes.append(f"DistanceUnits {unit!r} are not known; millimetres were assumed")
    return affine, LENGTH_MM.get(unit, 1.0)


def _spacing(keys: dict[str, str], count: int, name: str) -> list[float]:
    """Distance of voxels along each axis; 1 where the file does not say."""
    sized = "ElementSpacing" if "ElementSpacing" in keys else "ElementSize"
    return _numbers({sized: " ".join(["1"] * count), **keys}, sized, count, name)


def _planes(
    path: str, header: _Header, dtype: np.dtype[Any], shape: tuple[int, ...], name: str
) -> tuple[StoredPlanes, str]:
    """The stored values, and the file that they are in."""
    keys = header.keys
    said = keys["ElementDataFile"]
    data, start = path, header.end
    if said.upper() != "LOCAL":
        data, start = data_beside(path, said, name), 0
    if _true(keys, "CompressedData"):
        return WholeArray(partial(_inflated, data, start, dtype, shape)), data
    skipped = numbers(keys.get("HeaderSize", "0"), int, "HeaderSize", name)
    if len(skipped) != 1 or skipped[0] < -1:
        raise FormatError(
            f"{name}: HeaderSize {keys['HeaderSize']!r}; expected one whole number: the header is damaged"
        )
    return mapped_planes(data, dtype, shape, start, skipped[0], name), data


def _inflated(path: str, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """All values of a zlib stream."""
    values = np.empty(shape, dtype)
    view, done = values.reshape(-1).view(np.uint8).data, 0
    machine = zlib.decompressobj()
    try:
        with open(path, "rb") as file:
            file.seek(start)
            while done < len(view) and (piece := file.read(2**22)):
                part = machine.decompress(piece, len(view) - done)
                view[done : done + len(part)] = part
                done += len(part)
            machine.decompress(machine.unconsumed_tail + file.read(2**10))  # the checksum
    except (OSError, zlib.error) as error:
        raise FormatError(f"{path}: the compressed data are damaged ({error})") from error
    if done < len(view):
        raise FormatError(f"{path}: the header promises {len(view)} bytes of values, {done} came; the file is cut off")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _output_lines(raster: Raster, encoding: Encoding, data_file: str) -> tuple[list[str], bool]:
    """The header's lines, and whether the values after it are to be compressed."""
    meta = raster.metadata
    header = meta.items["header"] if meta is not None and meta.format == MetaImageAdapter.name else None
    packed = data_file == "LOCAL" and (header is None or _true(header.keys, "CompressedData"))
    sizes = raster.shape[::-1]
    if header is None:
        lines, keys = [], _fresh_keys(raster)
    else:
        assert meta is not None
        lines, keys = list(header.lines), _changed_keys(raster, header, meta)
        if len(sizes) == 3 and len(header.keys["DimSize"].split()) == 4:
            sizes = (*sizes, 1)
    if header is None or _TYPES[header.keys["ElementType"]] != encoding.dtype:
        keys["ElementType"] = _WRITTEN[encoding.dtype]
    keys |= {"NDims": str(len(sizes)), "DimSize": " ".join(map(str, sizes))}
    keys |= {"BinaryData": "True", "BinaryDataByteOrderMSB": "False", "CompressedData": str(packed)}
    lines = _merged(lines, keys)
    lines += [f"{k} = {v}".replace("\n", " ") for k, v in stable(raster.provenance).items()]
    if packed:
        lines.append(f"CompressedDataSize = {'0' * _DIGITS}")
    return [*lines, f"ElementDataFile = {data_file}"], packed


def _fresh_keys(raster: Raster) -> dict[str, str]:
    scale = LENGTH_MM[raster.grid.unit]
    affine = LPS @ np.diag([scale, scale, scale, 1.0]) @ raster.grid.center_affine
    return {
        "ObjectType": "Image",
        "NDims": "",
        "BinaryData": "",
        "BinaryDataByteOrderMSB": "",
        "CompressedData": "",
        **_placed(affine, len(raster.shape), raster.time),
        "DimSize": "",
    }


def _placed(affine: Matrix, count: int, time: TimeAxis | None) -> dict[str, str]:
    """The keys that place voxels, for three axes or four."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    rows = np.eye(count)
    rows[:3, :3] = (affine[:3, :3] / lengths).T
    late = [] if count == 3 else [TimeAxis() if time is None else time]
    return {
        "TransformMatrix": _text(rows.ravel()),
        "Offset": _text([*affine[:3, 3], *(t.start for t in late)]),
        "CenterOfRotation": _text([0] * count),
        "ElementSpacing": _text([*lengths, *(t.step for t in late)]),
    }


def _changed_keys(raster: Raster, header: _Header, meta: Metadata) -> dict[str, str]:
    """The keys that place the voxels, moved along with the grid; none where it is the file's own."""
    change = index_map(meta.grid, raster.grid)
    if np.array_equal(change, np.eye(4)):
        return {}
    count = len(header.keys["DimSize"].split())
    keys = _placed(meta.items["affine"] @ change, count, raster.time)
    if (change[:3, :3] == np.diag(np.diag(change)[:3])).all() and (np.diag(change) > 0).all():
        keys.pop("TransformMatrix")  # refining turns nothing; its rows need not be of length 1
        before = _spacing(header.keys, count, raster.name)
        late = keys["ElementSpacing"].split()[3:]
        keys["ElementSpacing"] = " ".join([_text(np.array(before[:3]) * np.diag(change)[:3]), *late])
    keys.pop("CenterOfRotation")
    if "ElementSize" in header.keys:  # of the voxels as they are now, not as they were acquired
        keys["ElementSize"] = keys["ElementSpacing"]
    return keys


def _merged(lines: list[str], keys: dict[str, str]) -> list[str]:
    """The lines with ``keys`` replaced in place or added at the end, and stale ones left out."""
    result, todo = [], dict(keys)
    for text in lines:
        key = text.partition("=")[0].strip()
        name = _ALIASES.get(key, key)
        if name in todo:
            result.append(f"{key} = {todo.pop(name)}")
        elif name not in keys and name not in _STALE:
            result.append(text)
    return [*result, *(f"{key} = {value}" for key, value in todo.items())]


def _text(values: Any) -> str:
    return " ".join(f"{float(v) + 0.0:.17g}" for v in values)

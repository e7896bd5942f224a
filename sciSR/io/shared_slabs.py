"""One file of slabs written by several processes, with the bytes that one process would write.

A plain file is made at its full length, and each process writes at its own places. A gzip file is a row of pieces of
fixed length, each deflated by itself (:mod:`sciSR.io.gzipped`): a process deflates the pieces that lie whole in what it
has, and keeps the bytes before and after them as they are. In the end the pieces are put one behind the other; only
those that a border between two processes cuts are deflated then. All of it lies in a folder beside the file.
"""

from __future__ import annotations

import os
import struct
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Literal
from uuid import uuid4

import numpy as np
from isal import isal_zlib

from sciSR.encoding import Encoding
from sciSR.errors import MetadataWarning, RunError
from sciSR.io import gzipped
from sciSR.io.slab_writer import holes_lost, stored_bytes
from sciSR.raster import Block, Raster, Window

__all__ = ["SharedSlabWriter", "begin_slabs", "complete_slabs"]

_POLYNOMIAL = 0xEDB88320
"""Of gzip's checksum, bits reversed (RFC 1952, section 8)."""
_HOLES = "holes"


def begin_slabs(path: Path, head: bytes, size: int) -> None:
    """Start the file at ``path``: ``head``, then room for ``size`` bytes of values."""
    if not _packed(path):
        path.write_bytes(head)
        os.truncate(path, len(head) + size)
    _folder(path).mkdir()
    if _packed(path):
        _keep(_folder(path), 0, bytearray(head), last=True)


class SharedSlabWriter:
    """A writer for some slabs of a file that is begun.

    Args:
        raster: what is written, for shape and name.
        encoding: the stored form.
        path: the file.
        start: bytes before the values.
    """

    order: Literal["any", "slabs"] = "slabs"

    def __init__(self, raster: Raster, encoding: Encoding, path: Path, start: int) -> None:
        self.chunks = raster.source.chunks
        self._shape = raster.shape
        self._encoding = encoding
        self._path = path
        self._start = start
        self._at = -1
        self._pending = bytearray()

    def write(self, window: Window, block: Block) -> None:
        """Take some whole planes."""
        if holes_lost(self._encoding, block):
            (_folder(self._path) / _HOLES).touch()
        index = int(np.ravel_multi_index(tuple(s.start for s in window), self._shape))
        at = self._start + index * np.dtype(self._encoding.dtype).itemsize
        data = stored_bytes(self._encoding, block)
        if not _packed(self._path):
            with self._path.open("r+b") as file:
                file.seek(at)
                file.write(data)
            return
        folder = _folder(self._path)
        if at != self._at + len(self._pending):
            _keep(folder, self._at, self._pending, last=True)
            self._at = at
        self._pending += data
        self._at = _keep(folder, self._at, self._pending, last=False)

    def finish(self) -> None:
        """Keep what is left."""
        self._at = _keep(_folder(self._path), self._at, self._pending, last=True)

    def abort(self) -> None:
        """Nothing is held open."""


def _keep(folder: Path, at: int, data: bytearray, *, last: bool) -> int:
    """Take from ``data``, which stands at ``at``, every piece and what comes before the first; with ``last`` all of it.

    Pieces are deflated, the rest stays as it is. Gives where what is left in ``data`` stands.
    """
    piece = gzipped.PIECE
    while data:
        room = piece - at % piece
        if len(data) < room and not last:
            break
        part = bytes(data[:room])
        if len(part) == piece:
            packed = struct.pack("<I", isal_zlib.crc32(part)) + gzipped.deflated(part)
            _write_whole(folder / f"{at:020d}.piece", packed)
        else:
            _write_whole(folder / _raw(at), part)
        del data[:room]
        at += len(part)
    return at


def complete_slabs(path: Path, size: int, name: str, encoding: Encoding) -> None:
    """Make the file whole once every slab of it is written.

    Args:
        path: the file.
        size: bytes that it holds uncompressed.
        name: of the raster, for messages.
        encoding: the stored form.

    Raises:
        RunError: a part is not there.
    """
    if _packed(path):
        _join(path, size)
    if (_folder(path) / _HOLES).exists():
        told = f"{name}: voxels without a value are stored as {encoding.offset[0]:g}, {encoding.dtype} has no NaN"
        warnings.warn(f"{told}; pass dtype='float32' to keep them apart", MetadataWarning, stacklevel=3)


def _join(path: Path, size: int) -> None:
    folder, piece = _folder(path), gzipped.PIECE
    edges = sorted(int(file.stem) for file in folder.glob("*.raw"))
    check = 0
    with path.open("wb") as out:
        out.write(gzipped.FRAME)
        for at in range(0, size, piece):
            length = min(piece, size - at)
            whole = folder / f"{at:020d}.piece"
            if whole.exists():
                packed = whole.read_bytes()
                own, data = int(struct.unpack("<I", packed[:4])[0]), packed[4:]
            else:
                raw = b"".join((folder / _raw(k)).read_bytes() for k in edges if at <= k < at + piece)
                if len(raw) != length:
                    raise RunError(f"{path.name}: {length - len(raw)} bytes are missing at {at}; run it again")
                own, data = isal_zlib.crc32(raw), gzipped.deflated(raw)
            check = _product(_shift(length), check) ^ own
            out.write(data)
        out.write(gzipped.END + struct.pack("<II", check, size & 0xFFFFFFFF))


def _packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _raw(at: int) -> str:
    return f"{at:020d}.raw"


def _write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all, also where a process is killed or two write the same."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}")
    partial.write_bytes(data)
    os.replace(partial, path)


@lru_cache(maxsize=8)
def _shift(count: int) -> int:
    """What a checksum is multiplied with when ``count`` bytes follow: x to the power of their bits."""
    power, factor, bits = 1 << 31, 1 << 30, 8 * count
    while bits:
        if bits & 1:
            power = _product(factor, power)
        factor = _product(factor, factor)
        bits >>= 1
    return power


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the checksum's; the highest bit is the constant term."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product

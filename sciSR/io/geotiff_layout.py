"""Where things stand in a TIFF or BigTIFF file: its directories, and the offset and length of each of its blocks.

After TIFF 6.0, section 2, and the BigTIFF description of libtiff (https://libtiff.gitlab.io/libtiff/specification/).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sciSR.errors import RunError

__all__ = ["BlockTable", "Entry", "block_tables", "check_whole", "read_directories"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each field type."""
_NUMBERS = {3: "H", 4: "L", 16: "Q"}
"""The field types of offsets and lengths, as struct codes."""
_SUBFILE_TYPE, _TILE_OFFSETS, _TILE_LENGTHS = 254, 324, 325
_IS_MASK = 4


@dataclass(frozen=True)
class Entry:
    """A tag of a directory.

    Attributes:
        kind: field type.
        count: number of values.
        at: where in the file they stand.
    """

    kind: int
    count: int
    at: int


def read_directories(file: BinaryIO) -> tuple[str, list[dict[int, Entry]]]:
    """The byte order (``<`` or ``>``) and the directories of an open file, each from tag to entry."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    count_form, entry_form, next_form = (order + f for f in (("Q", "HHQQ", "Q") if big else ("H", "HHLL", "L")))
    inline, size = (8, 20) if big else (4, 12)
    (place,) = struct.unpack(next_form, head[8:16] if big else head[4:8])
    found = []
    while place:
        file.seek(place)
        (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
        first = file.tell()
        data = file.read(count * size)
        directory = {}
        for number, (code, kind, length, value) in enumerate(struct.iter_unpack(entry_form, data)):
            short = length * _SIZES.get(kind, 1) <= inline
            directory[code] = Entry(kind, length, first + (number + 1) * size - inline if short else value)
        found.append(directory)
        (place,) = struct.unpack(next_form, file.read(struct.calcsize(next_form)))
    return order, found


class BlockTable:
    """Offset and length of each tile of one directory of an open file.

    Args:
        file: the file.
        order: its byte order.
        directory: the directory, of an image in tiles.
    """

    def __init__(self, file: BinaryIO, order: str, directory: dict[int, Entry]) -> None:
        self._file = file
        self._order = order
        self._fields = (directory[_TILE_OFFSETS], directory[_TILE_LENGTHS])

    def __len__(self) -> int:
        return self._fields[0].count

    def read(self) -> list[tuple[int, int]]:
        """Offset and length of every block."""
        offsets, lengths = (self._values(field) for field in self._fields)
        return list(zip(offsets, lengths, strict=True))

    def put(self, number: int, offset: int, length: int) -> None:
        """State where a block stands."""
        for field, value in zip(self._fields, (offset, length), strict=True):
            self._file.seek(field.at + number * _SIZES[field.kind])
            self._file.write(struct.pack(self._order + _NUMBERS[field.kind], value))

    def _values(self, field: Entry) -> tuple[int, ...]:
        form = f"{self._order}{field.count}{_NUMBERS[field.kind]}"
        self._file.seek(field.at)
        return struct.unpack(form, self._file.read(struct.calcsize(form)))


def block_tables(file: BinaryIO) -> tuple[BlockTable, BlockTable | None]:
    """The blocks of the first image of an open file, and those of its mask where it has one."""
    order, directories = read_directories(file)
    mask = None
    for directory in directories[1:]:
        kind = directory.get(_SUBFILE_TYPE)
        if kind is None:
            continue
        file.seek(kind.at)
        if struct.unpack(order + "L", file.read(4))[0] == _IS_MASK:
            mask = BlockTable(file, order, directory)
    return BlockTable(file, order, directories[0]), mask


def check_whole(path: Path, what: str, *, sparse: bool = False) -> None:
    """See that every block of every image of a tiled TIFF lies in the file; GDAL closes in silence on a full disk.

    Args:
        path: the file.
        what: its name for the message.
        sparse: blocks may be missing altogether.

    Raises:
        RunError: one is not there.
    """
    if not _is_whole(path, sparse):
        raise RunError(f"{what} is not whole on the disk; free some space or choose another place")


def _is_whole(path: Path, sparse: bool) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            order, directories = read_directories(file)
            blocks = [block for directory in directories for block in BlockTable(file, order, directory).read()]
        except (struct.error, KeyError):
            return False
    return bool(blocks) and all((sparse or length > 0) and offset + length <= size for offset, length in blocks)

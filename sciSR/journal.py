"""Finished parts of a long computation, kept on disk, so that a killed run goes on where it stopped.

A source that can be journalled cuts its values into *parts*: slabs along the first spatial axis over the whole of the
others, one time step each. The journal is a folder beside the output that holds each finished part in one file, written
under a temporary name and then moved. It belongs to one key, the checksum of input, network and settings; the parts of
any other key are not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import numpy as np

from sciSR import __version__
from sciSR.derived import DerivedSource
from sciSR.errors import InputError
from sciSR.raster import Block, BlockSource, Metadata, Raster, Window, windows

_PLAIN = (str, int, float, bool, type(None))

__all__ = [
    "FollowingSource",
    "Journal",
    "PartedSource",
    "file_checksum",
    "journal_folder",
    "journal_key",
    "journalled",
    "parted_source",
]


@runtime_checkable
class PartedSource(BlockSource, Protocol):
    """A source that can compute chosen parts."""

    @property
    def parts(self) -> Sequence[Window]:
        """The window of each part; together they cover everything once, in streaming order."""
        ...

    @property
    def before_a_part(self) -> int:
        """How many parts' work it takes to begin at one which does not follow another."""
        ...

    def stream_parts(self, numbers: Sequence[int]) -> Iterator[tuple[int, Block]]:
        """The parts with these rising numbers, one after the other; the same bytes whichever others were asked for."""
        ...

    def record(self) -> dict[str, Any]:
        """What decides the values, as plain values."""
        ...


@runtime_checkable
class FollowingSource(Protocol):
    """A source whose values are made from those of another, row by row."""

    @property
    def inner(self) -> BlockSource:
        """The other source."""
        ...

    def over(self, source: BlockSource) -> BlockSource:
        """The same over a source with the same values."""
        ...


class Journal:
    """The finished parts in one folder.

    Attributes:
        folder: where they lie.
        key: the computation that they belong to.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    def open(self) -> None:
        """Make the folder; parts that belong to another computation are removed."""
        mark = self.folder / "key"
        if self.folder.exists() and (not mark.exists() or mark.read_text() != self.key):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(self.key)

    def remove(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def has(self, number: int) -> bool:
        """Whether the part is finished; one that a machine that went down has left in pieces is removed."""
        path = self._path(number)
        if not path.exists():
            return False
        try:
            with zipfile.ZipFile(path) as file:
                whole = file.testzip() is None
        except (zipfile.BadZipFile, EOFError):
            whole = False
        if not whole:
            path.unlink()
        return whole

    def read(self, number: int) -> Block:
        """The finished part."""
        with np.load(self._path(number), allow_pickle=False) as file:
            values = file["values"]
            valid = np.unpackbits(file["valid"], count=values.size) if "valid" in file else None
        return Block(values, None if valid is None else valid.astype(bool).reshape(values.shape))

    def write(self, number: int, block: Block) -> None:
        """Keep a part; it is there whole or not at all."""
        entries = {"values": block.values}
        if block.valid is not None:
            entries["valid"] = np.packbits(np.broadcast_to(block.valid, block.values.shape))
        partial = self.folder / f"{number}.{uuid4().hex}.partial"
        with open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, **entries)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path(number))

    def noted(self, number: int) -> bool:
        """Whether the part was noted as written elsewhere."""
        return self._note(number).exists()

    def note(self, number: int) -> None:
        """Note that a part is written elsewhere, whole."""
        self._note(number).touch()

    def _note(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.written"

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.npz"


def journal_folder(target: Path) -> Path:
    """The folder for the parts of an output."""
    return target.parent / f".{target.name}.resume"


def journal_key(raster: Raster) -> str:
    """Checksum of everything that decides the values: the source's record and the input file.

    Raises:
        InputError: the raster's source cannot be computed in parts, or its input is no file that can be told again, or
            is made of one that is not.
    """
    if parted_source(raster.source) is None:
        raise InputError(f"{raster.name}: resume works on the result of a network, and there was none")
    path = raster.metadata.path if raster.metadata is not None else None
    if path is None or not Path(path).exists():
        raise InputError(f"{raster.name}: resume needs an input that is a local file or folder; run without it")
    facts = {
        "record": _records(raster.source),
        "input": [file_checksum(Path(file)) for file in _input_files(path, raster.metadata)],
        "grid": raster.grid.to_dict(),
        "encoding": asdict(raster.encoding),
        "opened": {k: v for k, v in raster.metadata.items.items() if isinstance(v, _PLAIN)} if raster.metadata else {},
        "channels": [tuple(channel) for channel in raster.channels],
        "time": raster.time,
        "shape": raster.shape,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _input_files(path: str, metadata: Metadata | None) -> list[str]:
    """The named file first, then those that it refers to: the data of a header, the parts of a VRT, a mask beside."""
    beside = () if metadata is None else metadata.items.get("files", ())
    unknown = [str(file) for file in beside if not os.path.exists(file)]
    if unknown:
        raise InputError(f"{path}: resume needs local files, and this one is made of {unknown[0]}; run without it")
    return [path, *sorted(str(file) for file in beside if str(file) != path)]


def file_checksum(path: Path) -> str:
    """sha256 of a file, or of all files under a folder with their names."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path)} {file_checksum(file)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def journalled(raster: Raster, journal: Journal) -> Raster:
    """The same raster, whose finished parts come from the journal and whose new ones go into it."""
    return raster.replace(source=_rebuilt(raster.source, journal))


def parted_source(source: BlockSource) -> PartedSource | None:
    """The source itself, or the one that it follows, that can compute chosen parts; None where there is none."""
    while not isinstance(source, PartedSource):
        if not isinstance(source, FollowingSource):
            return None
        source = source.inner
    return source


def _records(source: BlockSource) -> list[dict[str, Any]]:
    """What the source and those that it follows say of themselves, but for what happened while they ran."""
    said = source.record() if hasattr(source, "record") else None
    own = [] if said is None else [{k: v for k, v in said.items() if k != "out_of_memory"}]
    return own + (_records(source.inner) if isinstance(source, FollowingSource) else [])


def _rebuilt(source: BlockSource, journal: Journal) -> BlockSource:
    if isinstance(source, PartedSource):
        return _JournalledSource(source, journal)
    assert isinstance(source, FollowingSource)
    return source.over(_rebuilt(source.inner, journal))


class _JournalledSource(DerivedSource):
    """A source that streams its parts through a journal."""

    by_slabs = True

    def __init__(self, source: PartedSource, journal: Journal) -> None:
        super().__init__(source)
        self._source = source
        self._journal = journal

    def over(self, source: BlockSource) -> BlockSource:
        assert isinstance(source, PartedSource)
        return _JournalledSource(source, self._journal)

    def record(self) -> dict[str, Any]:
        return self._source.record()

    def stream(self) -> Iterator[tuple[Window, Block]]:
        parts = self._source.parts
        missing = [n for n in range(len(parts)) if not self._journal.has(n)]
        new = self._source.stream_parts(tuple(missing))
        for number, window in enumerate(parts):
            if number in missing[:1]:
                missing.pop(0)
                found, block = next(new)
                assert found == number
                self._journal.write(number, block)
            else:
                block = self._journal.read(number)
            yield window, block


def part_windows(shape: tuple[int, ...], lead: int, times: bool, rows: int) -> list[Window]:
    """Slabs of ``rows`` along the first spatial axis, one time step each if ``times``, whole along all other axes."""
    chunks = [1 if times and axis == 0 else n for axis, n in enumerate(shape)]
    chunks[lead] = rows
    return list(windows(shape, tuple(chunks)))

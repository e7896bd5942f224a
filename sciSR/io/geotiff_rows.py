"""The writers of a GeoTIFF, for one process or several: rows of blocks, joined in order without compressing them again.

Every row of blocks is a small GeoTIFF of its own in a folder beside the output, with the compression, predictor and
layout of the whole. In the end GDAL makes the file with everything but the values, and the blocks of the rows are
appended to it in order, their places entered into its directories. So the bytes do not depend on who wrote what and
when. A row is removed once its blocks are in, so no more than eight rows are on disk twice. A join that was killed goes
on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import uuid4

import numpy as np

from sciSR.errors import RunError
from sciSR.io.assemble import ChunkAssembler
from sciSR.io.geotiff_datasets import create_dataset
from sciSR.io.geotiff_layout import BlockTable, block_tables, check_whole
from sciSR.io.geotiff_plan import Plan
from sciSR.io.geotiff_source import gdal_environment
from sciSR.io.geotiff_write import TileWriter, begin_file, draft_path, finish_file, stored_block, tile_shape
from sciSR.pipeline import Lanes, core_count
from sciSR.raster import Block, Window

__all__ = ["GeoTiffWriter", "RowsWriter", "begin_rows", "complete_rows"]

_LAYOUT = ("driver", "dtype", "nbits", "interleave", "tiled", "blockysize", "blockxsize", "bigtiff")
_CODEC = ("compress", "predictor", "zlevel", "zstd_level", "num_threads")
"""The creation options that decide how a block is stored; the others are tags of the whole file."""
_MOST_THREADS = 8
_DEPTH = 2
"""Blocks that may wait to be encoded: enough for no lane to wait for the next, little beside what computes them."""


def begin_rows(plan: Plan, path: Path) -> None:
    """Make the folder for the rows of the file at ``path``; what GDAL refuses of all but the values is told now."""
    folder = _folder(path)
    folder.mkdir()
    with gdal_environment(str(path)):
        begin_file(plan, folder / "trial.tif", sparse_ok=True).close()
    (folder / "trial.tif").unlink()


@dataclass
class _Row:
    """A row of blocks in the making.

    Attributes:
        tiles: its file.
        parts: values that are no whole block yet.
        missing: blocks that are not in the file yet.
    """

    tiles: TileWriter
    parts: ChunkAssembler
    missing: int


class RowsWriter:
    """A writer for whole rows of blocks of a file that is begun; blocks come in any order, each value once.

    Values are encoded in threads, and rows written side by side, as each has a file of its own.

    Args:
        plan: of the whole file.
        path: the file.
    """

    order: Literal["any", "slabs"] = "any"

    def __init__(self, plan: Plan, path: Path) -> None:
        self.chunks = tile_shape(plan)
        self._plan = plan
        self._folder = _folder(path)
        self._own = uuid4().hex  # nobody else's name, as two may write the same row
        self._rows: dict[int, _Row] = {}
        threads = _threads()
        self._encoders = ThreadPoolExecutor(threads)
        self._lanes = Lanes(threads, _DEPTH)

    def write(self, window: Window, block: Block) -> None:
        """Take the values of ``window``."""
        *lead, rows, columns = window
        high = self.chunks[1]
        jobs = []
        for number in range(rows.start // high, -(-rows.stop // high)):
            own = slice(max(rows.start, number * high), min(rows.stop, (number + 1) * high))
            inside = (..., slice(own.start - rows.start, own.stop - rows.start), slice(None))
            part = Block(block.values[inside], None if block.valid is None else block.valid[inside])
            stored = self._encoders.submit(stored_block, self._plan, (*lead, own, columns), part)
            jobs.append((number, partial(self._put, number, stored)))
        self._lanes.add(jobs)

    def finish(self) -> None:
        """Bring all to disk, and check that all rows that were begun are whole."""
        self._lanes.finish()
        self._encoders.shutdown()
        if self._rows:
            raise RunError(f"{self._plan.name}: row {min(self._rows)} of blocks came in part; a defect of the source")

    def abort(self) -> None:
        """Release the rows that are not whole."""
        self._lanes.stop()
        self._encoders.shutdown(cancel_futures=True)
        with ExitStack() as rows:
            for number, row in self._rows.items():
                rows.callback(self._partial(number).unlink, missing_ok=True)
                rows.callback(row.tiles.close)

    def _put(self, number: int, stored: Future[tuple[Window, Block]]) -> None:
        """Write what lies in one row of blocks; one call at a time for each row."""
        with gdal_environment(str(self._folder)):
            row = self._rows.get(number) or self._begin(number)
            for whole, chunk in row.parts.add(*stored.result()):
                row.tiles.put(whole, chunk)
                row.missing -= 1
            if row.missing == 0:
                row.tiles.finish()
                self._keep(number)
                del self._rows[number]

    def _begin(self, number: int) -> _Row:
        """A file for one row of blocks."""
        _, height, width = self._plan.shape
        first = number * self.chunks[1]
        profile = {key: value for key, value in self._plan.options.items() if key in (*_LAYOUT, *_CODEC)}
        profile |= {"count": self._plan.count, "height": min(self.chunks[1], height - first), "width": width}
        tiles = TileWriter.start(self._plan, create_dataset(str(self._partial(number)), **profile), first)
        parts = ChunkAssembler(self._plan.shape, self.chunks, np.dtype(self._plan.encoding.dtype))
        self._rows[number] = _Row(tiles, parts, -(-width // self.chunks[2]))
        return self._rows[number]

    def _keep(self, number: int) -> None:
        """Give the file of a row its name."""
        check_whole(self._partial(number), f"{self._plan.name}: row {number} of blocks")
        os.replace(self._partial(number), _row_path(self._folder, number))

    def _partial(self, number: int) -> Path:
        return self._folder / f"{self._own}.{number}.partial"


class GeoTiffWriter(RowsWriter):
    """The writer of a whole file."""

    def __init__(self, plan: Plan, path: Path) -> None:
        begin_rows(plan, path)
        super().__init__(plan, path)
        self._path = path

    def finish(self) -> None:
        """Join the rows, with overviews; a cloud-optimized file is laid out anew."""
        super().finish()
        complete_rows(self._plan, self._path, resumable=False)
        shutil.rmtree(self._folder)


@dataclass(frozen=True)
class _Joined:
    """How far a file is joined.

    Attributes:
        rows: rows of blocks that are in it.
        start: bytes before the first of them.
        end: bytes after the last.
    """

    rows: int
    start: int
    end: int

    @classmethod
    def read(cls, folder: Path) -> _Joined | None:
        """What is noted, or None where nothing is joined."""
        note = folder / "joined.json"
        return cls(**json.loads(note.read_text())) if note.exists() else None

    def write(self, folder: Path) -> _Joined:
        """Note it."""
        (folder / "joined.partial").write_text(json.dumps(asdict(self)))
        os.replace(folder / "joined.partial", folder / "joined.json")
        return self


def complete_rows(plan: Plan, path: Path, *, resumable: bool = True) -> None:
    """Make the file at ``path`` of its rows once all of them are written.

    Args:
        plan: of the file.
        path: where to.
        resumable: wait for the disk before a row goes, so that a join that broke off can go on.

    Raises:
        RunError: a row is not there, or GDAL could not make overviews or a cloud-optimized file.
    """
    folder, draft = _folder(path), draft_path(plan, path)
    joined = _Joined.read(folder)
    if joined is not None and not draft.exists():
        return  # a run that was killed later has used it up
    with gdal_environment(str(path)):
        _check_rows(plan, folder, joined.rows if joined else 0)
        joined = joined or _begin_join(plan, draft, folder)
        joined = _join(plan, draft, folder, joined, resumable)
        if resumable and (plan.cog or plan.overviews):
            _as_joined(draft, folder, joined)
        finish_file(plan, path)


def _check_rows(plan: Plan, folder: Path, first: int) -> None:
    """All rows from ``first`` on are there."""
    count = _row_count(plan)
    lost = next((number for number in range(first, count) if not _row_path(folder, number).exists()), None)
    if lost is not None:
        raise RunError(
            f"{plan.name}: row {lost} of {count} rows of blocks is missing; what lies beside the output has been "
            "changed: remove it and run it again"
        )


def _begin_join(plan: Plan, draft: Path, folder: Path) -> _Joined:
    """Make the file without blocks; with a mask where any row has one."""
    rows = [_row_path(folder, number) for number in range(_row_count(plan))]
    tiles = begin_file(plan, draft, sparse_ok=True)
    if any(map(_has_mask, rows)):
        tiles.begin_mask()
    tiles.close()
    check_whole(draft, f"{plan.name}: the head of the GeoTIFF", sparse=True)
    size = draft.stat().st_size
    return _Joined(0, size, size).write(folder)


def _join(plan: Plan, draft: Path, folder: Path, joined: _Joined, resumable: bool) -> _Joined:
    """Append the rows that are not in the file yet; several at a time where a kill is the end of it anyway."""
    columns = -(-plan.shape[2] // tile_shape(plan)[2])
    todo = range(joined.rows, _row_count(plan))
    pool = ThreadPoolExecutor(_threads())
    with ExitStack() as stack, draft.open("r+b") as out:
        stack.callback(pool.shutdown, cancel_futures=True)  # where one fails nobody wants the others
        out.truncate(joined.end)
        tables = block_tables(out) if todo else ()
        moves = []
        for number in todo:
            row = _row_path(folder, number)
            end, pieces = joined.end, []
            with row.open("rb") as file:
                for target, source in zip(tables, block_tables(file), strict=True):
                    if target is not None and source is not None:
                        pieces += _enter(target, source, (number, columns), end)
                        end = sum(pieces[-1][1:])
            joined = _Joined(number + 1, joined.start, end)
            if not resumable:
                moves.append(pool.submit(_move, row, pieces, draft))
                continue
            _copy(row, pieces, draft)
            out.flush()
            os.fsync(out.fileno())
            joined.write(folder)
            row.unlink()
        for move in moves:
            move.result()
    return joined


def _enter(target: BlockTable, source: BlockTable, place: tuple[int, int], end: int) -> list[tuple[int, int, int]]:
    """Enter the blocks of one row, plane by plane, into the table as they will stand from ``end`` on.

    ``place`` is the row's number and its columns. Of each block: where it stands in the row's file, where it will in
    the whole, and its length.
    """
    row, columns = place
    planes = len(source) // columns
    pieces = []
    for number, (offset, length) in enumerate(source.read()):
        plane, column = divmod(number, columns)
        target.put(plane * (len(target) // planes) + row * columns + column, end, length)
        pieces.append((offset, end, length))
        end += length
    return pieces


def _move(row: Path, pieces: list[tuple[int, int, int]], draft: Path) -> None:
    _copy(row, pieces, draft)
    row.unlink()


def _copy(row: Path, pieces: list[tuple[int, int, int]], draft: Path) -> None:
    """Copy blocks of a row into the whole file."""
    with row.open("rb") as file, draft.open("r+b") as out:
        out.seek(pieces[0][1])
        for start, _, length in pieces:
            file.seek(start)
            out.write(file.read(length))


def _as_joined(draft: Path, folder: Path, joined: _Joined) -> None:
    """The file as it was when the last row came in, whatever a killed run has made of it since.

    GDAL adds at the end and changes directories before the blocks, never the blocks.
    """
    head = folder / "head"
    with draft.open("r+b") as file:
        if head.exists():
            file.write(head.read_bytes())
            file.truncate(joined.end)
        else:
            partial = folder / "head.partial"
            partial.write_bytes(file.read(joined.start))
            os.replace(partial, head)


def _has_mask(row: Path) -> bool:
    with row.open("rb") as file:
        return block_tables(file)[1] is not None


def _threads() -> int:
    return min(_MOST_THREADS, core_count())


def _row_count(plan: Plan) -> int:
    return -(-plan.shape[1] // tile_shape(plan)[1])


def _row_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.tif"


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")

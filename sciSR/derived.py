"""Sources made from another: block by block, with facts beside them, or row by row as the other streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import RunError
from sciSR.raster import Block, BlockSource, Raster, Window, gathered, streams_by_slabs

__all__ = ["DerivedSource", "RecordedSource", "RollingRows", "rows_in_order", "whole_slabs"]


class DerivedSource:
    """The blocks of another source, each changed by itself: not at all here, as it says by who derives from this."""

    def __init__(self, inner: BlockSource) -> None:
        self._inner = inner

    @property
    def inner(self) -> BlockSource:
        """The other source."""
        return self._inner

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self._inner.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical values."""
        return self._inner.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Block shape in which reading costs least."""
        return self._inner.chunks

    @property
    def by_slabs(self) -> bool:
        """Whether the other source streams slab after slab, and so this one too."""
        return streams_by_slabs(self._inner)

    def read(self, window: Window) -> Block:
        """The values under ``window``."""
        return self._changed(window, self._inner.read(window))

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value exactly once, in the other source's order."""
        for window, block in self._inner.stream():
            yield window, self._changed(window, block)

    def _changed(self, window: Window, block: Block) -> Block:
        """What the other source's block under ``window`` becomes."""
        return block


class RecordedSource(DerivedSource):
    """The blocks of another source; :meth:`record` gives the facts."""

    def __init__(self, inner: BlockSource, facts: dict[str, Any]) -> None:
        super().__init__(inner)
        self._facts = facts

    def over(self, source: BlockSource) -> RecordedSource:
        """The same facts beside another source."""
        return RecordedSource(source, self._facts)

    def record(self) -> dict[str, Any]:
        """The facts."""
        return self._facts


def whole_slabs(raster: Raster) -> Iterator[tuple[Window, Block]]:
    """A raster's stream in whole slabs along the first spatial axis, as thick as its blocks are.

    Raises:
        RunError: the source began a slab before the last one was whole, which is a defect of it.
    """
    lead = len(raster.leading)
    pending: list[tuple[Window, Block]] = []
    for window, block in raster.stream():
        if pending and window[: lead + 1] != pending[0][0][: lead + 1]:
            raise RunError(f"{raster.name}: a slab was left incomplete; this is a defect of the source")
        pending.append((window, block))
        whole = window[: lead + 1] + tuple(slice(0, n) for n in raster.shape[lead + 1 :])
        if sum(part.values.size for _, part in pending) == math.prod(p.stop - p.start for p in whole):
            yield whole, pending[0][1] if len(pending) == 1 else gathered(pending, whole)
            pending = []


@contextmanager
def rows_in_order(source: BlockSource, lead: int) -> Iterator[Callable[[Window], Block]]:
    """How to read windows of ``source`` that follow each other along its first spatial axis, and then along the others.

    A source that streams by slabs is streamed, so that each value is computed once; any other is read at random.

    Args:
        source: what is read.
        lead: number of the axes before the spatial ones.
    """
    if not streams_by_slabs(source):
        yield source.read
        return
    rows = RollingRows(source, lead)
    try:
        yield rows.take
    finally:
        rows.close()


class RollingRows:
    """The rows that are still needed of a source that streams slab after slab along its first spatial axis."""

    def __init__(self, source: BlockSource, lead: int) -> None:
        self._stream = source.stream()
        self._axis = lead
        self._shape = source.shape
        self._step: Window = ()
        self._first = 0
        self._rows: list[_Row] = []

    def take(self, window: Window) -> Block:
        """The values under ``window``; rows before it are forgotten."""
        lead, part = window[: self._axis], window[self._axis]
        if lead != self._step:
            self._step, self._first, self._rows = lead, 0, []
        drop = min(part.start - self._first, len(self._rows))
        self._first, self._rows = self._first + drop, self._rows[drop:]
        while not self._whole(part.stop):
            self._put(*next(self._stream))
        rows = self._rows[: part.stop - self._first]
        across = (*[slice(None)] * self._axis, *window[self._axis + 1 :])
        values = np.stack([row.values[across] for row in rows], self._axis)
        if all(row.valid is None for row in rows):
            return Block(values, None)
        marks = [np.ones(row.values.shape, bool) if row.valid is None else row.valid for row in rows]
        return Block(values, np.stack([mark[across] for mark in marks], self._axis))

    def close(self) -> None:
        """End the stream."""
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()

    def _whole(self, stop: int) -> bool:
        return len(self._rows) >= stop - self._first and all(r.missing == 0 for r in self._rows[: stop - self._first])

    def _put(self, window: Window, block: Block) -> None:
        if window[: self._axis] != self._step:
            return
        part = window[self._axis]
        across = window[: self._axis] + window[self._axis + 1 :]
        at = tuple(slice(None) if i < self._axis else p for i, p in enumerate(across))
        size = [n.stop - n.start for n in window[: self._axis]] + list(self._shape[self._axis + 1 :])
        for number in range(max(part.start, self._first), part.stop):
            while len(self._rows) <= number - self._first:
                self._rows.append(_Row(size, block.values.dtype))
            pick = (*[slice(None)] * self._axis, number - part.start)
            valid = None if block.valid is None else np.broadcast_to(block.valid, block.values.shape)[pick]
            self._rows[number - self._first].put(at, block.values[pick], valid)


class _Row:
    """One row, as far as it has come."""

    def __init__(self, size: list[int], dtype: np.dtype[Any]) -> None:
        self.values = np.empty(size, dtype)
        self.valid: NDArray[Any] | None = None
        self.missing = self.values.size

    def put(self, at: Window, values: NDArray[Any], valid: NDArray[Any] | None) -> None:
        self.values[at] = values
        self.missing -= values.size
        if valid is not None:
            if self.valid is None:
                self.valid = np.ones(self.values.shape, bool)
            self.valid[at] = valid

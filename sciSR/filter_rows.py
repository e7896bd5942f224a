"""Streams of rows through the filters of :mod:`sciSR.filters`: no row is copied on its way from one to the next.

Every result lies in memory with zeros around each of its rows, as the next filter reads them. A filter finds its rows
by their addresses, so those that it keeps, those that come, and those beyond the edges need not lie together.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.filters import Addresses, Filter, addresses
from sciSR.row_ops import ROWS, RowOp, after, joined

__all__ = ["FilterRows", "Frames", "SummedRows"]

_TILE = 4
_LINE = 16
"""Floats in a line of the cache; vectors that cross its border are slower."""


class _Block:
    """Memory for rows of one frame at a time.

    Attributes:
        size: floats.
        frame: pixels across and channels of the rows that it is laid out for.
    """

    def __init__(self, size: int, frame: tuple[int, ...]) -> None:
        whole = np.zeros(size + _LINE, np.float32)
        skipped = -whole.ctypes.data // 4 % _LINE
        self._array: NDArray[np.float32] = whole[skipped : skipped + size]
        self.size = size
        self.frame = frame

    def references(self) -> int:
        """To its memory; every tensor there adds one."""
        return sys.getrefcount(self._array)

    def tensor(self) -> Tensor:
        """All of it."""
        return torch.from_numpy(self._array)

    def holds(self, x: Tensor) -> bool:
        """Whether a tensor lies there."""
        return bool(x.untyped_storage().data_ptr() == self._array.ctypes.data)


_UNUSED = _Block(0, ()).references()


class Frames:
    """Memory for rows between zeros, used again once nobody holds it; for several threads.

    Fresh pages cost as much time as a tenth of a convolution.

    Args:
        margin: pixels of zeros around each row and, in three dimensions, each plane; at the far ends as many more as
            fill the last tile.
    """

    def __init__(self, margin: int = 1) -> None:
        self.margin = margin
        self._blocks: list[_Block] = []
        self._most = 0
        self._zeros: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, batch: int, rows: int, frame: Sequence[int]) -> Tensor:
        """``(b, rows, [y,] x, c)`` float32 of any values; ``frame`` is ``([y,] x, c)``."""
        frame = tuple(frame)
        sides = self._sides(frame)
        row = math.prod(sides)
        size = batch * rows * row
        with self._lock:
            block = self._fitting(size, frame)
            every = block.tensor()
        if block.frame != frame:
            block.frame = frame
            self._clear_sides(every[: block.size // row * row].view(-1, *sides), frame)
        sheet = every[:size].view(batch, rows, *sides)
        return sheet[(slice(None), slice(None), *(slice(self.margin, self.margin + n) for n in frame[:-1]))]

    def _fitting(self, size: int, frame: tuple[int, ...]) -> _Block:
        """Memory that nobody holds; never more in all than was once in use at the same time."""
        free = [block for block in self._blocks if block.references() == _UNUSED]
        fitting = [block for block in free if size <= block.size <= 2 * size]
        if fitting:
            return min(fitting, key=lambda b: (b.frame != frame, b.size))
        used = size + sum(block.size for block in self._blocks if block not in free)
        self._most = max(self._most, used)
        while used + sum(block.size for block in free) > self._most:
            self._blocks.remove(free.pop(0))
        self._blocks.append(_Block(size, frame))
        return self._blocks[-1]

    def sheet(self, x: Tensor) -> Tensor:
        """Rows ``(b, c, rows, [y,] x)`` with their margins as ``(b, rows, [y,] x, c)``: where they lie, or a copy."""
        inner = x.movedim(1, -1)
        frame = tuple(inner.shape[2:])
        sides = self._sides(frame)
        strides = tuple(math.prod(sides[n:]) for n in range(len(sides) + 1))
        with self._lock:
            there = any(block.frame == frame and block.holds(x) for block in self._blocks)
        if not there or inner.stride()[1:] != strides:
            taken = self.take(x.shape[0], x.shape[ROWS], frame)
            inner = taken.copy_(inner)
        start = inner.storage_offset() - self.margin * sum(strides[1:-1])
        return inner.as_strided((*inner.shape[:2], *sides), inner.stride(), start)

    def inside(self, sheet: Tensor, across: Sequence[int]) -> Tensor:
        """Rows ``(b, c, rows, [y,] x)`` of a sheet without their margins."""
        cuts = (slice(self.margin, self.margin + n) for n in across)
        return sheet[(slice(None), slice(None), *cuts)].movedim(-1, 1)

    def zeros(self, floats: int) -> int:
        """The address of so many zeros, which stay there."""
        with self._lock:
            if not self._zeros or self._zeros[-1].numel() < floats:
                self._zeros.append(torch.zeros(floats))
            return self._zeros[-1].data_ptr()

    def _sides(self, frame: tuple[int, ...]) -> tuple[int, ...]:
        """The size of a row or plane with its margins."""
        return (*(-(-n // _TILE) * _TILE + 2 * self.margin for n in frame[:-1]), frame[-1])

    def _clear_sides(self, rows: Tensor, frame: tuple[int, ...]) -> None:
        for dim, n in enumerate(frame[:-1], 1):
            rows.narrow(dim, 0, self.margin).zero_()
            rows.narrow(dim, self.margin + n, rows.shape[dim] - self.margin - n).zero_()


class FilterRows(RowOp):
    """A convolution in machine code of our own.

    Rows go in tiles from the first of a step on. Strips of whole tiles leave nothing of them unused but at the edges.

    Rows of a second stream, where there is one, are added to the results.

    Args:
        filters: what to compute.

    Attributes:
        frames: where the results lie; all operations of a pass share them.
        threads: says how many may compute now.
        also_kept: what another operation that takes the second stream, too, has kept of it after this step; shared.
    """

    def __init__(self, filters: Filter) -> None:
        self.frames = Frames(max(filters.margins))
        self.threads: Callable[[], int] = torch.get_num_threads
        self.also_kept: Tensor | None = None
        self._filter = filters
        self._tall, self._margin = filters.tile[0], filters.margins[0]
        self._above = self._margin
        self._sheets: list[Tensor] = []
        self._others: list[Tensor] = []
        self._across: tuple[int, ...] = ()

    @property
    def margins(self) -> tuple[int, ...]:
        """Pixels around a row that are read."""
        return self._filter.margins[1:]

    @property
    def kept(self) -> Tensor | None:
        """The last rows that came, as many as are still needed; None where zeros beyond the edge are among them."""
        return None if self._above or len(self._sheets) != 1 else self.frames.inside(self._sheets[0], self._across)

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's. ``_above`` rows before those kept lie beyond the true edge."""
        new, adds = inputs[0], len(inputs) > 1
        if new is not None:
            self._across = tuple(new.shape[ROWS + 1 :])
            self._sheets.append(self.frames.sheet(new))
        if adds and (other := inputs[1]) is not None:
            self._others.append(_side_by_side(other))
            del other
        inputs.clear()
        del new  # large rows need not outlive their use
        count = self._above + sum(sheet.shape[1] for sheet in self._sheets) - self._margin * (1 if last else 2)
        if adds:
            count = min(count, sum(part.shape[ROWS] for part in self._others))
        if count <= 0:
            return None
        fine = self._filter.fine
        rows, *across = (n * f for n, f in zip((count, *self._across), fine, strict=True))
        out = self.frames.take(self._sheets[0].shape[0], rows, (*across, self._filter.results))
        for n, target in enumerate(out):
            added = self._added(n, count) if adds else None
            self._filter(self._read(n, count), target, added, threads=self.threads())
        self._forget(count)
        return out.movedim(-1, 1)

    def _read(self, n: int, count: int) -> Addresses:
        """The rows of image ``n`` that so many results are made of, up to whole tiles."""
        *spare_rows, spare = (self.frames.margin - m for m in self.margins)
        columns, channels = self._sheets[0].shape[-2:]
        held = np.concatenate([addresses(sheet[n]) for sheet in self._sheets]) + 4 * spare * channels
        held = held[(slice(None), *(slice(rows, None) for rows in spare_rows))]
        total = -(-count // self._tall) * self._tall + 2 * self._margin
        found = np.full((total, *held.shape[1:]), self.frames.zeros(columns * channels), np.int64)
        found[self._above : self._above + len(held)] = held[: total - self._above]
        return found

    def _added(self, n: int, count: int) -> Addresses:
        return np.concatenate([addresses(part[n].movedim(0, -1)) for part in self._others])[:count]

    def _forget(self, count: int) -> None:
        """Keep what later results need, in memory that holds no more than that."""
        hidden = min(self._above, count)
        self._above -= hidden
        left = _rest(self._sheets, count - hidden, 1)
        self._sheets = [torch.cat(left, 1)] if left else []
        self._others = _rest(self._others, count, ROWS)
        if self._others:
            kept, rest = self.also_kept, self._others[0]
            alike = kept is not None and len(self._others) == 1 and kept.shape == rest.shape
            self._others[0] = kept if alike and kept is not None else rest.clone()
        self.also_kept = None


def _rest(parts: list[Tensor], count: int, dim: int) -> list[Tensor]:
    """What follows so many rows."""
    left = []
    for part in parts:
        gone = min(count, part.shape[dim])
        count -= gone
        if gone < part.shape[dim]:
            left.append(part.narrow(dim, gone, part.shape[dim] - gone))
    return left


def _side_by_side(x: Tensor) -> Tensor:
    """``(b, c, rows, …)`` with the channels of a pixel side by side, and the pixels of a row."""
    if x.stride(1) == 1 and x.stride(-1) == x.shape[1]:
        return x
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


class SummedRows(RowOp):
    """A convolution along the rows, once each row is multiplied with all its weights: the products, moved and summed.

    Args:
        depth: weights along the rows.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._kept: Tensor | None = None
        self._started = False

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's; takes ``(b, depth * c, rows, …)``."""
        (new,) = inputs
        if new is not None and not self._started:
            new = torch.cat([torch.zeros_like(new.narrow(ROWS, 0, 1))] * (self._depth // 2) + [new], ROWS)
            self._started = True
        rows = joined(self._kept, new)
        if rows is None:
            return None
        if last:
            rows = torch.cat([rows] + [torch.zeros_like(rows.narrow(ROWS, 0, 1))] * (self._depth // 2), ROWS)
        count = rows.shape[ROWS] - self._depth + 1
        self._kept = rows if count <= 0 else after(rows, count)
        if count <= 0:
            return None
        parts = rows.chunk(self._depth, 1)
        total = parts[0].narrow(ROWS, 0, count).clone()
        for d, part in enumerate(parts[1:], 1):
            total += part.narrow(ROWS, d, count)
        return total

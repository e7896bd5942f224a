"""Blocks in any order, gathered into whole chunks, so that no chunk of a file is encoded twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import RunError
from sciSR.raster import Block, Window

__all__ = ["ChunkAssembler"]


class ChunkAssembler:
    """Gives each chunk of an array once, when its last value has come.

    Only chunks that are begun and not complete are held: for a stream of rows that is one row of chunks.

    Args:
        shape: of the whole array.
        chunks: chunk shape; those at the far edge are smaller.
        dtype: of the values.

    Example:
        >>> parts = ChunkAssembler((2, 3), (2, 2), np.dtype("i4"))
        >>> list(parts.add((slice(0, 1), slice(0, 3)), Block(np.array([[1, 2, 3]]))))
        []
        >>> done = parts.add((slice(1, 2), slice(0, 3)), Block(np.array([[4, 5, 6]])))
        >>> [(window[1].start, block.values.tolist()) for window, block in done]
        [(0, [[1, 2], [4, 5]]), (2, [[3], [6]])]
    """

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape = shape
        self._chunks = tuple(min(c, n) for c, n in zip(chunks, shape, strict=True))
        self._dtype = dtype
        self._begun: dict[tuple[int, ...], _Chunk] = {}

    def add(self, window: Window, block: Block) -> Iterator[tuple[Window, Block]]:
        """Take the block of ``window``; the chunks that this completes."""
        touched = [range(w.start // c, -(-w.stop // c)) for w, c in zip(window, self._chunks, strict=True)]
        for at in product(*touched):
            whole = tuple(
                slice(k * c, min((k + 1) * c, n)) for k, c, n in zip(at, self._chunks, self._shape, strict=True)
            )
            common = tuple(
                slice(max(w.start, b.start), min(w.stop, b.stop)) for w, b in zip(window, whole, strict=True)
            )
            at_part = _inside(common, window)
            part = Block(block.values[at_part], None if block.valid is None else block.valid[at_part])
            if common == whole:
                yield whole, part
                continue
            chunk = self._begun.get(at) or _Chunk(tuple(b.stop - b.start for b in whole), self._dtype)
            chunk.fill(_inside(common, whole), part)
            if chunk.missing:
                self._begun[at] = chunk
            else:
                self._begun.pop(at, None)
                yield whole, Block(chunk.values, chunk.valid)

    def close(self) -> None:
        """Check that nothing is left over.

        Raises:
            RunError: some chunks are incomplete.
        """
        if self._begun:
            raise RunError(f"{len(self._begun)} chunks of the output are incomplete; this is a defect of the source")


def _inside(part: Window, whole: Window) -> Window:
    """``part`` as counted from the start of ``whole``."""
    return tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))


class _Chunk:
    """A chunk in the making; validity is kept only once something is not valid."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.values: NDArray[Any] = np.empty(shape, dtype)
        self.valid: NDArray[Any] | None = None
        self.missing = self.values.size

    def fill(self, at: Window, part: Block) -> None:
        self.values[at] = part.values
        if part.valid is not None:
            if self.valid is None:
                self.valid = np.ones(self.values.shape, dtype=bool)
            self.valid[at] = part.valid
        self.missing -= part.values.size

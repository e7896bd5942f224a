"""A source with facts for the run record beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sciSR.raster import Block, BlockSource, Window

__all__ = ["RecordedSource"]


class RecordedSource:
    """The blocks of another source; :meth:`record` gives the facts."""

    def __init__(self, source: BlockSource, facts: dict[str, Any]) -> None:
        self._source = source
        self._facts = facts

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical values."""
        return self._source.dtype

    @property
    def by_slabs(self) -> bool:
        """Whether the source streams slab after slab."""
        return getattr(self._source, "by_slabs", False)

    @property
    def inner(self) -> BlockSource:
        """The other source."""
        return self._source

    def over(self, source: BlockSource) -> RecordedSource:
        """The same facts beside another source."""
        return RecordedSource(source, self._facts)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Block shape in which reading costs least."""
        return self._source.chunks

    def read(self, window: Window) -> Block:
        """The values under ``window``."""
        return self._source.read(window)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value exactly once, in order."""
        return self._source.stream()

    def record(self) -> dict[str, Any]:
        """The facts."""
        return self._facts

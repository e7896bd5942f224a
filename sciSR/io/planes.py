"""Stored arrays by windows: mapped from a plain file, from inside a gzip file, or whole; and the source on top."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError
from sciSR.raster import Block, Window, windows

__all__ = ["MappedPlanes", "StoredPlanes", "StoredSource", "WholeArray", "slab_length"]

SLAB_VALUES = 2**22
"""Values of a block in which volumes are streamed."""


class StoredPlanes(Protocol):
    """An array as a file stores it; ``read`` may be called from several threads."""

    def read(self, window: Window) -> NDArray[Any]:
        """Stored values under ``window``, in the machine's byte order; the caller may change them."""
        ...


class MappedPlanes:
    """An array in a plain file; mapped when first read.

    Args:
        path: the file.
        dtype: stored type, with its byte order.
        shape: the array's shape.
        offset: bytes before it.
    """

    def __init__(self, path: str, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> None:
        self._args = (path, dtype, shape, offset)
        self._map: NDArray[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args

    def read(self, window: Window) -> NDArray[Any]:
        """Stored values under ``window``."""
        path, dtype, shape, offset = self._args
        if self._map is None:
            try:
                self._map = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
            except ValueError as error:
                raise FormatError(f"{path}: shorter than its header promises; it was cut off") from error
        return np.array(self._map[window], dtype=dtype.newbyteorder("="))


class WholeArray:
    """An array that its format only gives as a whole; loaded when first read, then kept.

    Args:
        load: a picklable function without arguments that gives the array.
    """

    def __init__(self, load: Callable[[], NDArray[Any]]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._array: NDArray[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._load,)

    def read(self, window: Window) -> NDArray[Any]:
        """Stored values under ``window``."""
        with self._lock:
            if self._array is None:
                self._array = self._load()
        return np.array(self._array[window])


class StoredSource:
    """Blocks of physical values over stored planes; safe to read from several threads, and picklable.

    Args:
        stored: where the stored values come from.
        shape: length of every axis, ending in z, y, x.
        encoding: how the values are stored.
    """

    def __init__(self, stored: StoredPlanes, shape: tuple[int, ...], encoding: Encoding) -> None:
        self._stored = stored
        self._shape = shape
        self._encoding = encoding

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical values."""
        return self._encoding.value_dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Slabs of whole planes, one time step, of some four million values."""
        return (1,) * (len(self._shape) - 3) + (slab_length(self._shape), *self._shape[-2:])

    def read(self, window: Window) -> Block:
        """The values under ``window``."""
        return Block(*self._encoding.decode(self._stored.read(window)))

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, slab by slab."""
        for window in windows(self._shape, self.chunks):
            yield window, self.read(window)


def slab_length(shape: tuple[int, ...]) -> int:
    """How many whole planes of ``shape`` make a block of some four million values."""
    return max(1, min(shape[-3], SLAB_VALUES // int(np.prod(shape[-2:]))))

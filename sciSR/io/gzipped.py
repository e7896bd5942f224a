"""Gzip written on several cores, and read by slabs from several threads.

Writing cuts the data into pieces of a fixed size, deflates each on its own and joins them as one gzip member, as pigz
does (RFC 1951 section 3.2.4: an empty stored block ends a piece on a byte; RFC 1952 for the frame). One member, because
browser viewers that use fflate or pako read the first member of several and drop the rest. The bytes depend on the data
alone: not on the number of threads, nor on how the data came, and they hold no time and no file name.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from sciSR.errors import FormatError
from sciSR.pipeline import core_count

__all__ = [
    "DAMAGED",
    "END",
    "FRAME",
    "PIECE",
    "GzipSink",
    "GzipSlabs",
    "PlainSink",
    "Sink",
    "ZlibSink",
    "deflated",
    "is_gzip",
    "open_decompressed",
]

PIECE = 2**22
"""Bytes that are deflated together; larger gains no ratio, smaller loses some."""

CACHE_BYTES = 2**29
"""Decompressed bytes that one open file keeps; a larger file is decompressed again when reading goes back."""

SLAB_BYTES = 2**23
"""Decompressed bytes of one cached slab."""

DAMAGED: tuple[type[Exception], ...] = (EOFError, OSError, isal_zlib.IsalError)  # type: ignore[assignment]  # a stub slip
"""What reading damaged gzip raises."""

_LEVEL = 1  # of isal, 0 (fastest) to 3; 2 and 3 gain 2 % and lose 15 % of the speed on CT

FRAME = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""The head of a gzip member: deflate, no flags, mtime 0, fastest, unknown system (RFC 1952)."""

END = b"\x03\x00"
"""An empty final block with fixed codes (RFC 1951)."""


class Sink(Protocol):
    """Where a writer's bytes go, in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; they may be changed by the caller afterwards."""
        ...

    def close(self) -> None:
        """Complete the file."""
        ...

    def abort(self) -> None:
        """Release everything, leaving what is on disk."""
        ...


class PlainSink:
    """A file as it is.

    Args:
        path: the file to write.
        append: go on after what is in it.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self._file: IO[bytes] = path.open("ab" if append else "wb")

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        self._file.write(data)

    def close(self) -> None:
        """Complete the file."""
        self._file.close()

    def abort(self) -> None:
        """Close the file."""
        self._file.close()


class _DeflateSink:
    """A stream deflated by a pool of threads; at most two pieces a thread are held.

    Args:
        path: the file to write.
        threads: how many deflate; None takes the machine's cores, eight at most.
        append: go on after what is in the file.
    """

    _head: bytes
    _first_check: int

    def __init__(self, path: Path, *, threads: int | None = None, append: bool = False) -> None:
        count = threads or min(8, core_count())
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sciSR-gzip")
        self._room = 2 * count
        self._queue: deque[Future[bytes]] = deque()
        self._pending = bytearray()
        self._check = self._first_check
        self._size = 0
        self._file: IO[bytes] = path.open("ab" if append else "wb")
        self._file.write(self._head)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data).cast("B")
        while len(view):
            part = view[: PIECE - len(self._pending)]
            self._pending += part
            view = view[len(part) :]
            if len(self._pending) == PIECE:
                self._submit()

    def close(self) -> None:
        """Deflate what is left and complete the frame."""
        if self._pending:
            self._submit()
        self._drain(0)
        self._file.write(END)
        self._file.write(self._tail())
        self._file.close()
        self._pool.shutdown()

    def abort(self) -> None:
        """Stop the threads and close the file."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._file.close()

    def _update(self, data: bytes) -> int:
        raise NotImplementedError

    def _tail(self) -> bytes:
        raise NotImplementedError

    def _submit(self) -> None:
        self._drain(self._room - 1)
        piece = bytes(self._pending)
        self._pending.clear()
        self._check = self._update(piece)
        self._size += len(piece)
        self._queue.append(self._pool.submit(deflated, piece))

    def _drain(self, left: int) -> None:
        """Write finished pieces in order until at most ``left`` are under way."""
        while self._queue and (len(self._queue) > left or self._queue[0].done()):
            self._file.write(self._queue.popleft().result())


class GzipSink(_DeflateSink):
    """A gzip file (RFC 1952) of one member, deflated by a pool of threads; holds no time and no name."""

    _head = FRAME
    _first_check = 0

    def _update(self, data: bytes) -> int:
        return isal_zlib.crc32(data, self._check)

    def _tail(self) -> bytes:
        return struct.pack("<II", self._check, self._size & 0xFFFFFFFF)


class ZlibSink(_DeflateSink):
    """A zlib stream (RFC 1950), deflated by a pool of threads."""

    _head = b"\x78\x01"  # deflate, window of 32 kB, fastest
    _first_check = 1

    def _update(self, data: bytes) -> int:
        return isal_zlib.adler32(data, self._check)

    def _tail(self) -> bytes:
        return struct.pack(">I", self._check)


def deflated(data: bytes) -> bytes:
    """The piece deflated, ending on a byte."""
    machine = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
    return machine.compress(data) + machine.flush(isal_zlib.Z_FULL_FLUSH)


def is_gzip(path: str) -> bool:
    """Whether a file's content is gzip, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_decompressed(path: str) -> IO[bytes]:
    """The file's bytes, decompressed if its content is gzip."""
    return _gunzip(path) if is_gzip(path) else open(path, "rb")


def _gunzip(path: str, start: int = 0) -> IO[bytes]:
    raw = open(path, "rb")  # noqa: SIM115  # stays open as long as the stream above it
    raw.seek(start)
    file: Any = igzip.IGzipFile(fileobj=raw, mode="rb")  # type: ignore[no-untyped-call]  # isal declares no types for it
    file.myfileobj = raw  # closed along with it
    opened: IO[bytes] = file
    return opened


class GzipSlabs:
    """Planes of an array inside a gzip file, by windows; safe to read from several threads.

    The file is decompressed forwards, slab by slab; the latest slabs stay in memory, all of them if they fit. Going
    back beyond them starts again, unless ``indexed_gzip`` is installed, which finds its way directly.

    Args:
        path: the file.
        dtype: stored type, with its byte order.
        shape: the array's shape; the last two axes are a plane.
        offset: decompressed bytes before the array.
        cache_bytes: decompressed bytes kept.
        start: bytes of the file before the gzip begins.
    """

    def __init__(
        self,
        path: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int,
        *,
        cache_bytes: int = CACHE_BYTES,
        start: int = 0,
    ) -> None:
        self._args = (path, dtype, shape, offset)
        self._cache_bytes, self._start = cache_bytes, start
        self._path, self._dtype, self._shape, self._offset = path, dtype, shape, offset
        self._planes = int(np.prod(shape[:-2], dtype=np.int64))
        self._plane_bytes = int(np.prod(shape[-2:], dtype=np.int64)) * dtype.itemsize
        self._per_slab = max(1, min(SLAB_BYTES // max(1, self._plane_bytes), self._planes))
        self._room = max(2, cache_bytes // (self._per_slab * max(1, self._plane_bytes)))
        self._seekable = self._planes * self._plane_bytes > cache_bytes
        self._cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._file: Any = None
        self._next = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), cache_bytes=self._cache_bytes, start=self._start), self._args

    def read(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Stored values under ``window``, in the machine's byte order."""
        out = np.empty([s.stop - s.start for s in window], dtype=self._dtype.newbyteorder("="))
        depth = self._shape[-3]
        flat = out.reshape(-1, *out.shape[-3:])
        lead = [np.arange(s.start, s.stop) for s in window[:-3]]
        volumes = np.arange(int(np.prod(self._shape[:-3]))).reshape(self._shape[:-3])[np.ix_(*lead)].ravel()
        zs, plane = window[-3], window[-2:]
        for target, volume in zip(flat, volumes, strict=True):
            at, end = int(volume) * depth + zs.start, int(volume) * depth + zs.stop
            row = 0
            while at < end:
                slab = self._slab(at // self._per_slab)
                first = at % self._per_slab
                count = min(end - at, len(slab) - first)
                target[row : row + count] = slab[(slice(first, first + count), *plane)]
                at, row = at + count, row + count
        return out

    def _slab(self, number: int) -> NDArray[Any]:
        with self._lock:
            if number not in self._cache:
                try:
                    self._load(number)
                except DAMAGED as error:
                    self._forget()
                    raise FormatError(f"{self._path}: the compressed data are damaged or cut off ({error})") from error
            self._cache.move_to_end(number)
            return self._cache[number]

    def _load(self, number: int) -> None:
        """Decompress up to slab ``number`` and keep what is passed."""
        if self._file is None or (number < self._next and not self._indexed()):
            self._forget()
            self._file = self._opened()
            self._file.seek(self._offset)
            self._next = 0
        if self._indexed() and number != self._next:
            self._next = number
            self._file.seek(self._offset + number * self._per_slab * self._plane_bytes)
        while self._next <= number:
            self._cache[self._next] = self._read_slab(self._next)
            while len(self._cache) > self._room:
                self._cache.popitem(last=False)
            self._next += 1
        if len(self._cache) * self._per_slab >= self._planes:
            self._forget()  # all of it is in memory

    def _read_slab(self, number: int) -> NDArray[Any]:
        count = min(self._per_slab, self._planes - number * self._per_slab)
        slab = np.empty((count, *self._shape[-2:]), dtype=self._dtype)
        view = slab.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])
            if not got:
                raise EOFError(f"{self._planes * self._plane_bytes} bytes of values expected, the file ends before")
            done += got
        if (number + 1) * self._per_slab >= self._planes:
            self._file.read(1)  # reaches the trailer, so that the checksum is verified
        return slab.astype(self._dtype.newbyteorder("="), copy=False)

    def _opened(self) -> Any:
        if self._seekable and self._start == 0:
            try:
                import indexed_gzip
            except ImportError:
                return _gunzip(self._path)
            return indexed_gzip.IndexedGzipFile(self._path)
        return _gunzip(self._path, self._start)

    def _indexed(self) -> bool:
        return type(self._file).__module__.startswith("indexed_gzip")

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._next = 0

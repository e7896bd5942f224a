"""Blocks of a GDAL dataset: windowed reads, one handle per thread, four sources of validity.

A pixel is valid where its band's nodata value, NaN, the dataset's mask and the alpha band all say so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.session import DummySession
from rasterio.windows import Window as RasterioWindow

from sciSR.encoding import Encoding
from sciSR.errors import FormatError
from sciSR.io.block_cache import BLOCK_CACHE
from sciSR.io.geotiff_datasets import read_dataset
from sciSR.raster import Block, Window, windows

__all__ = [
    "GDAL_ERRORS",
    "GdalSource",
    "gdal_environment",
    "gdal_path",
    "header",
    "is_remote",
    "open_dataset",
    "reason",
]

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises where GDAL fails; the second comes through from some attributes of a dataset."""

_SCHEMES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/", "oss": "/vsioss/", "swift": "/vsiswift/"}
_VALUES_PER_CHUNK = 2**22


def gdal_path(path: str) -> str:
    """The name by which GDAL opens ``path``: addresses become its virtual file systems, files stay.

    Example:
        >>> gdal_path("https://example.org/a.tif"), gdal_path("s3://bucket/a.tif"), gdal_path("a.tif")
        ('/vsicurl/https://example.org/a.tif', '/vsis3/bucket/a.tif', 'a.tif')
    """
    scheme, found, rest = path.partition("://")
    if not found or path.startswith(("/vsi", "<")):
        return path
    if scheme in ("http", "https", "ftp"):
        return f"/vsicurl/{path}"
    if scheme == "file":
        return rest
    if scheme in _SCHEMES:
        return _SCHEMES[scheme] + rest
    raise FormatError(f"{path}: cannot read {scheme}:// addresses; use https://, s3://, gs://, az:// or a /vsi path")


def is_remote(path: str) -> bool:
    """Whether reading ``path`` goes over the network."""
    return any(part in gdal_path(path) for part in ("/vsicurl/", *_SCHEMES.values()))


@contextmanager
def gdal_environment(path: str) -> Iterator[None]:
    """GDAL's settings while ``path`` is read or written; what the user set in the environment is left alone."""
    # rasterio takes bytes where GDAL takes megabytes
    wanted: dict[str, Any] = {"GDAL_CACHEMAX": BLOCK_CACHE.size, "GDAL_TIFF_INTERNAL_MASK": True}
    if is_remote(path):
        # no listing of the folder and no search for side files: each would be a request
        wanted |= {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": True}
        wanted |= {"GDAL_HTTP_MAX_RETRY": 3, "GDAL_HTTP_RETRY_DELAY": 0.5, "GDAL_HTTP_MULTIRANGE": "YES"}
    chosen = {key: value for key, value in wanted.items() if key not in os.environ}
    # credentials are GDAL's own business: rasterio would make a new boto3 session for each read
    with rasterio.Env(session=DummySession(), **chosen):
        yield


def open_dataset(path: str, shown: str | None = None) -> Any:
    """An open rasterio dataset for reading; call inside :func:`gdal_environment`.

    Raises:
        FormatError: GDAL cannot open it; the message says why in one line.
    """
    try:
        return read_dataset(gdal_path(path))
    except GDAL_ERRORS as error:
        raise FormatError(f"{shown or path}: not a raster that GDAL can open: {reason(error, path)}") from error


@contextmanager
def header(path: str, shown: str | None = None) -> Iterator[Any]:
    """An open dataset inside :func:`gdal_environment`, to read what it says beside its values.

    Raises:
        FormatError: GDAL cannot open it, or finds one of its attributes damaged.
    """
    with gdal_environment(path):
        try:
            with open_dataset(path, shown) as dataset:
                yield dataset
        except GDAL_ERRORS as error:
            raise FormatError(f"{shown or path}: its header cannot be read: {reason(error, path)}") from error


def reason(error: Exception, path: str) -> str:
    """GDAL's words in one line, without the file's name before them: every message of ours begins with it."""
    text = " ".join(str(error).split())
    name = gdal_path(path)
    shorter = True
    while shorter:
        before = text
        for known in (f"'{name}'", name, os.path.basename(name)):
            text = text.removeprefix(known).lstrip(" :,")
        shorter = text != before and text != ""
    return text


@dataclass(frozen=True)
class GdalSource:
    """Some bands of a dataset as a source of blocks with axes ``(c, y, x)``; may be sent to another process.

    Attributes:
        path: what to open.
        shown: the name for messages.
        bands: band numbers, from 1.
        size: rows and columns.
        encoding: how the values are stored.
        block: rows and columns of the file's own blocks.
        mask: band number whose per-dataset mask applies, or None.
        alpha: band number of the alpha band, or None.
        row_bytes: of a row of blocks across the image, with all bands that GDAL reads together.
    """

    path: str
    shown: str
    bands: tuple[int, ...]
    size: tuple[int, int]
    encoding: Encoding
    block: tuple[int, int]
    mask: int | None = None
    alpha: int | None = None
    row_bytes: int = 0

    def __post_init__(self) -> None:
        BLOCK_CACHE.hold(self.row_bytes)
        object.__setattr__(self, "_local", threading.local())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return (len(self.bands), *self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical values."""
        return self.encoding.value_dtype

    @property
    def chunks(self) -> tuple[int, int, int]:
        """All bands of some whole blocks of the file, about four million values."""
        rows, columns = (min(b, n) for b, n in zip(self.block, self.size, strict=True))
        room = max(1, _VALUES_PER_CHUNK // len(self.bands))
        if columns < self.size[1]:
            columns *= max(1, int((room / (rows * columns)) ** 0.5))
        rows *= max(1, room // (rows * min(columns, self.size[1])))
        return (len(self.bands), min(rows, self.size[0]), min(columns, self.size[1]))

    def read(self, window: Window) -> Block:
        """Physical values and validity under ``window``."""
        channels, rows, columns = window
        bands = list(self.bands[channels])
        area = RasterioWindow.from_slices((rows.start, rows.stop), (columns.start, columns.stop))
        with gdal_environment(self.path):
            try:
                stored, mask = self._stored(bands, area)
            except (*GDAL_ERRORS, ValueError) as error:
                raise FormatError(
                    f"{self.shown}: rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop} cannot be "
                    f"read: {reason(error, self.path)}; the file is damaged or incomplete"
                ) from error
        encoding = self.encoding.select(channels)
        values, valid = encoding.decode(stored, channel_axis=0)
        if mask is not None and not mask.all():
            valid = np.broadcast_to(mask, values.shape).copy() if valid is None else valid & mask
        return Block(values, valid)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, in chunks, row by row of chunks."""
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)

    def _stored(self, bands: list[int], area: RasterioWindow) -> tuple[NDArray[Any], NDArray[Any] | None]:
        dataset = self._handle()
        stored = dataset.read(bands, window=area, out_dtype=self.encoding.dtype)
        mask = None
        if self.mask is not None:
            mask = dataset.read_masks(self.mask, window=area) > 0
        if self.alpha is not None:
            opaque = dataset.read(self.alpha, window=area) > 0
            mask = opaque if mask is None else mask & opaque
        return stored, mask

    def _handle(self) -> Any:
        """This thread's own dataset: GDAL's handles are shared neither between threads nor with a forked process."""
        local: threading.local = self._local  # type: ignore[attr-defined]  # set in __post_init__
        if getattr(local, "owner", None) != os.getpid():
            local.dataset = open_dataset(self.path, self.shown)
            local.owner = os.getpid()
        return local.dataset

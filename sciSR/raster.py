"""Raster: a lazy array with its grid, channels, unit and validity: what every step takes and gives.

A raster is a *source of blocks*. :meth:`Raster.read` gives any window, :meth:`Raster.stream` gives all of it in order,
and :attr:`Raster.array` is an xarray view on the same source over dask, computed when asked for. Values are physical
(HU, reflectance, …); :class:`~sciSR.encoding.Encoding` says how a file stores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciSR.encoding import Encoding
from sciSR.errors import GeometryError, InputError
from sciSR.grid import RAS_MM, Grid

if TYPE_CHECKING:
    import xarray

__all__ = [
    "ArraySource",
    "Block",
    "BlockSource",
    "Channel",
    "Metadata",
    "Raster",
    "TimeAxis",
    "Window",
    "gathered",
    "windows",
]

Window = tuple[slice, ...]
"""One slice with whole start and stop per axis of the raster, step 1."""


class Block(NamedTuple):
    """Values of a window, and where they are valid.

    ``values`` are physical; ``valid`` is bool of the same shape, True where there is a value, or None if all are valid.
    What ``values`` holds where they are not valid has no meaning.
    """

    values: NDArray[Any]
    valid: NDArray[Any] | None = None


@runtime_checkable
class BlockSource(Protocol):
    """Where a raster's values come from. Implementations must allow ``read`` from several threads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis of the raster."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical values that ``read`` returns."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Block shape in which reading costs least."""
        ...

    def read(self, window: Window) -> Block:
        """The values under ``window``; never touches the rest more than the format forces it to."""
        ...

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value exactly once, in blocks ordered so that the leading axes grow (t, then c or z, then y)."""
        ...


class Channel(NamedTuple):
    """One channel: its name (band description) and physical unit, where known."""

    name: str | None = None
    unit: str | None = None


class TimeAxis(NamedTuple):
    """The t axis of a series: start and step in ``unit`` (``"s"``, ``"ms"``, ``"us"``, ``"hz"``, …)."""

    start: float = 0.0
    step: float = 1.0
    unit: str | None = None


@dataclass(frozen=True)
class Metadata:
    """What a file said beyond grid, channels and encoding; only the adapter that made it looks inside.

    Attributes:
        format: name of the adapter.
        grid: the grid of the file itself, so that a writer can tell how far a result was refined or cropped.
        items: the adapter's own keeping (header, tags, GCPs, …).
        path: where it was read from, for messages and provenance, or None.
    """

    format: str
    grid: Grid
    items: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None


@dataclass(frozen=True, repr=False)
class Raster:
    """A lazy array on a grid.

    Attributes:
        source: where the values come from.
        grid: where the pixels lie.
        axes: name of each array axis: some leading ones of ``("t", "c")``, then the grid's. Scenes have
            ``("c", "y", "x")``, volumes ``("z", "y", "x")``, series of volumes ``("t", "z", "y", "x")``.
        channels: one entry per channel; a raster without a ``c`` axis has one.
        encoding: how the values were or will be stored.
        time: the ``t`` axis, where there is one.
        metadata: what its file said beyond this, or None for a raster made in memory.
        auxiliary: rasters of the same field of view that follow it by nearest neighbour (``"alpha"``).
        provenance: what was done to it, for the file's record: plain text per key.
        name: short name for messages, file name without folder.
    """

    source: BlockSource
    grid: Grid
    axes: tuple[str, ...]
    channels: tuple[Channel, ...]
    encoding: Encoding
    time: TimeAxis | None = None
    metadata: Metadata | None = None
    auxiliary: Mapping[str, Raster] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    name: str = "raster"

    def __post_init__(self) -> None:
        if self.axes[-len(self.grid.shape) :] != self.grid.axes or set(self.axes[: -len(self.grid.shape)]) - {"t", "c"}:
            raise GeometryError(f"{self.name}: axes {self.axes} do not end in the grid's axes {self.grid.axes}")
        if len(self.source.shape) != len(self.axes) or self.source.shape[-len(self.grid.shape) :] != self.grid.shape:
            raise GeometryError(
                f"{self.name}: array shape {self.source.shape} does not fit grid shape {self.grid.shape}"
            )
        expected = self.source.shape[self.axes.index("c")] if "c" in self.axes else 1
        if len(self.channels) != expected:
            raise InputError(f"{self.name}: {len(self.channels)} channel entries came for {expected} channels")

    def __repr__(self) -> str:
        """One line: name, axes, type and unit, pixel size in the same order and frame, channels.

        Example:
            >>> Raster.from_array(np.zeros((2, 3, 4), np.int16), affine=np.eye(4), axes="zyx", unit="HU", name="ct")
            <Raster ct: z 2, y 3, x 4; int16 HU; 1 x 1 x 1 mm, RAS+ mm>
        """
        spacing, frame = self.grid.spacing, self.grid.frame or "no frame"
        size = " x ".join(f"{spacing[axis]:.6g}" for axis in self.grid.axes)
        named = [channel.name for channel in self.channels if channel.name]
        parts = [
            ", ".join(f"{axis} {n}" for axis, n in zip(self.axes, self.shape, strict=True)),
            f"{self.dtype} {self.unit or ''}".rstrip(),
            f"{size} {self.grid.unit or 'units'}, {frame.split(chr(34))[1] if chr(34) in frame else frame}",
            *([", ".join(named[:8]) + ", …" * (len(named) > 8)] if named else []),
        ]
        return f"<{type(self).__name__} {self.name}: {'; '.join(parts)}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis, in the order of ``axes``."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical values."""
        return self.source.dtype

    @property
    def channel_axis(self) -> int | None:
        """Position of the channel axis, or None."""
        return self.axes.index("c") if "c" in self.axes else None

    @property
    def unit(self) -> str | None:
        """Physical unit of the values, if all channels share one."""
        units = {channel.unit for channel in self.channels}
        return units.pop() if len(units) == 1 else None

    @property
    def leading(self) -> tuple[int, ...]:
        """Lengths of the axes before the spatial ones (t, c)."""
        return self.shape[: -len(self.grid.shape)]

    @property
    def times(self) -> int:
        """Number of time steps; 1 where there is no time axis."""
        return self.shape[self.axes.index("t")] if "t" in self.axes else 1

    @property
    def one_time(self) -> tuple[int, ...]:
        """Lengths of the axes before the spatial ones in one time step: all channels."""
        return tuple(1 if axis == "t" else n for axis, n in zip(self.axes, self.leading, strict=False))

    def read(self, window: Window | None = None) -> Block:
        """Values and validity under ``window`` (None: all of it).

        All of a network's result is streamed, as a writer takes it: its engine then computes each value once.
        """
        whole = tuple(slice(0, n) for n in self.shape)
        if window in (None, whole) and streams_by_slabs(self.source):
            return gathered(self.source.stream(), whole, self.dtype)
        return self.source.read(whole if window is None else window)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value exactly once, in blocks ordered so that the leading axes grow."""
        return self.source.stream()

    def replace(self, **changes: Any) -> Raster:
        """A raster with some attributes changed."""
        return replace(self, **changes)

    def crop(self, **window: slice) -> Raster:
        """The part under slices named by axis, ``raster.crop(y=slice(10, 50))``; lazy, moves the grid along."""
        full = []
        for axis, n in zip(self.axes, self.shape, strict=True):
            part = window.pop(axis, slice(None))
            start, stop, step = part.indices(n)
            if step != 1 or stop <= start:
                raise GeometryError(f"{self.name}: crop of axis {axis} to {part} is empty or strided; length is {n}")
            full.append(slice(start, stop))
        if window:
            raise GeometryError(f"{self.name}: no axis {', '.join(window)}; it has {', '.join(self.axes)}")
        return self._cut(tuple(full))

    def _cut(self, full: Window) -> Raster:
        spatial = full[-len(self.grid.shape) :]
        channels, encoding, time = self.channels, self.encoding, self.time
        if self.channel_axis is not None:
            part = full[self.channel_axis]
            channels = channels[part]
            encoding = replace(
                encoding,
                **{k: v[part] if len(v := getattr(encoding, k)) > 1 else v for k in ("scale", "offset", "nodata")},
            )
        if time is not None and "t" in self.axes:
            time = time._replace(start=time.start + full[self.axes.index("t")].start * time.step)
        auxiliary = {
            key: aux.crop(**dict(zip(self.grid.axes, spatial, strict=True)))
            for key, aux in self.auxiliary.items()
            if aux.grid.shape == self.grid.shape
        }
        return replace(
            self,
            source=_CroppedSource(self.source, full),
            grid=self.grid.crop(spatial),
            channels=channels,
            encoding=encoding,
            time=time,
            auxiliary=auxiliary,
        )

    @property
    def array(self) -> xarray.DataArray:
        """The values as a lazy :class:`xarray.DataArray` with coordinates and units; see :mod:`sciSR.view`.

        To look at it, ``array.plot()`` wants two axes: ``array.sel(c="B04").plot()`` for one channel of a scene,
        ``array.plot(col="c")`` for all, ``array.isel(z=20).plot()`` for a slice.
        """
        from sciSR.view import to_xarray

        return to_xarray(self)

    @classmethod
    def from_array(
        cls,
        array: ArrayLike,
        *,
        affine: ArrayLike,
        axes: str | tuple[str, ...],
        unit: str | None = None,
        crs: str | None = None,
        nodata: float | None = None,
        channels: tuple[str, ...] | None = None,
        name: str = "array",
    ) -> Raster:
        """Raster of an array in memory (numpy, or anything that slices like it).

        Args:
            array: values, axes as named; NaN means no value.
            affine: 4x4: NIfTI's, of voxel centres, columns x, y, z, world RAS+ mm. 3x3, or a rasterio ``Affine``:
                GDAL's, of pixel corners, columns x, y.
            axes: letter of each axis in array order, ending in ``zyx`` or ``yx``; ``t`` and ``c`` may lead.
            unit: physical unit of the values (``"HU"``).
            crs: coordinate reference system of a scene, WKT or ``"EPSG:n"``.
            nodata: value that means no value.
            channels: a name for each channel.
            name: for messages.

        Raises:
            GeometryError: axes, affine and shape do not fit together.

        Example:
            >>> volume = Raster.from_array(np.zeros((4, 5, 6), np.float32), affine=np.eye(4), axes="zyx", unit="HU")
            >>> volume.grid.spacing
            {'z': 1.0, 'y': 1.0, 'x': 1.0}
        """
        values = array if hasattr(array, "dtype") and hasattr(array, "shape") else np.asarray(array)
        names = tuple(axes)
        matrix = np.array(affine, dtype=np.float64)
        if matrix.shape == (9,):
            matrix = matrix.reshape(3, 3)
        n = matrix.shape[0] - 1
        if len(names) != len(values.shape):
            raise GeometryError(
                f"{name}: axes {''.join(names)!r} name {len(names)} axes, the array has {len(values.shape)}"
            )
        shape = tuple(values.shape)[len(names) - n :]
        if n == 3:
            grid = Grid.from_center_affine(shape, matrix, frame=RAS_MM, unit="mm")
        else:
            grid = Grid(shape, matrix, frame=crs)
        count = values.shape[names.index("c")] if "c" in names else 1
        labels = channels or (None,) * count
        return cls(
            source=ArraySource(values, nodata=nodata),
            grid=grid,
            axes=names,
            channels=tuple(Channel(label, unit) for label in labels),
            encoding=Encoding(np.dtype(values.dtype).name, nodata=(nodata,)),
            time=TimeAxis() if "t" in names else None,
            name=name,
        )

    @classmethod
    def from_xarray(cls, array: xarray.DataArray, **changes: Any) -> Raster:
        """Raster of a DataArray; rioxarray's and sciSR's own coordinates are understood. See :mod:`sciSR.view`."""
        from sciSR.view import from_xarray

        return from_xarray(array, **changes)


def streams_by_slabs(source: BlockSource) -> bool:
    """Whether a source streams slab after slab, all channels at once, and is better streamed than read."""
    return bool(getattr(source, "by_slabs", False))


def windows(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Window]:
    """Windows of at most ``chunks`` that cover ``shape`` exactly once, last axis fastest."""
    parts = [[slice(a, min(a + c, n)) for a in range(0, n, c)] for n, c in zip(shape, chunks, strict=True)]
    return (tuple(window) for window in product(*parts))


def gathered(blocks: Iterable[tuple[Window, Block]], window: Window, dtype: np.dtype[Any] | None = None) -> Block:
    """One block of ``window`` from blocks that cover it and may reach out of it; ``dtype`` or that of the first.

    Example:
        >>> halves = [((slice(0, 2),), Block(np.array([1, 2]))), ((slice(2, 4),), Block(np.array([3, 4])))]
        >>> gathered(halves, (slice(1, 4),)).values
        array([2, 3, 4])
    """
    shape = tuple(part.stop - part.start for part in window)
    values: NDArray[Any] | None = None if dtype is None else np.empty(shape, dtype)
    valid: NDArray[Any] | None = None
    for at, block in blocks:
        common = [(max(a.start, w.start), min(a.stop, w.stop)) for a, w in zip(at, window, strict=True)]
        if any(stop <= start for start, stop in common):
            continue
        into = tuple(slice(start - w.start, stop - w.start) for (start, stop), w in zip(common, window, strict=True))
        part = tuple(slice(start - a.start, stop - a.start) for (start, stop), a in zip(common, at, strict=True))
        values = np.empty(shape, block.values.dtype) if values is None else values
        values[into] = block.values[part]
        if block.valid is not None:
            valid = np.ones(shape, bool) if valid is None else valid
            valid[into] = block.valid[part]
    assert values is not None, "blocks cover the window"
    return Block(values, None if valid is None or valid.all() else valid)


class ArraySource:
    """Blocks of an array in memory, or of anything that is sliced like one (dask arrays are computed per block)."""

    def __init__(self, array: Any, *, nodata: float | None = None, chunks: tuple[int, ...] | None = None) -> None:
        self._array = array
        self._nodata = nodata
        self._chunks = chunks

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        dtype: np.dtype[Any] = np.dtype(self._array.dtype)
        return dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Block shape for streaming: whole rows of at most some 16 million values."""
        return self._chunks or slab_chunks(self.shape)

    def read(self, window: Window) -> Block:
        """The values under ``window``."""
        values = np.asarray(self._array[window])
        return Block(*Encoding(values.dtype.name, nodata=(self._nodata,)).decode(values))

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, in blocks of ``chunks``."""
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)


def slab_chunks(shape: tuple[int, ...], values: int = 2**24) -> tuple[int, ...]:
    """Block shape of about ``values`` values: whole trailing axes, a part of the first axis that does not fit."""
    chunks = [1] * len(shape)
    room = values
    for i in range(len(shape) - 1, -1, -1):
        chunks[i] = max(1, min(shape[i], room))
        room //= max(1, shape[i])
    return tuple(chunks)


class _CroppedSource:
    """A window of another source, as a source."""

    def __init__(self, source: BlockSource, window: Window) -> None:
        self._source = source
        self._window = window

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in self._window)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(min(c, n) for c, n in zip(self._source.chunks, self.shape, strict=True))

    def read(self, window: Window) -> Block:
        moved = tuple(slice(w.start + p.start, w.stop + p.start) for w, p in zip(window, self._window, strict=True))
        return self._source.read(moved)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)

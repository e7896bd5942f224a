"""A raster as a labelled :class:`xarray.DataArray` over dask, and back.

The view is lazy: each dask chunk reads its own window. Coordinates are world coordinates of the pixel centres where the
grid's axes lie along the world's (a scene that is north up, a volume that is not oblique); elsewhere they are distances
along the array's own axes from its first pixel, and the affine beside them says where that lies. Values that are not
valid are NaN in floating arrays and the ``_FillValue`` attribute in whole ones; whole numbers that keep their validity
in a mask become floating, which holds them exactly. rioxarray's accessor understands the view of a scene.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import Encoding, stored_mark, work_dtype
from sciSR.errors import GeometryError, InputError
from sciSR.grid import RAS_MM, Grid
from sciSR.raster import ArraySource, Block, Channel, Raster, TimeAxis, Window, slab_chunks, windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import xarray

__all__ = ["from_xarray", "to_xarray"]

_SYNONYMS = {"band": "c", "channel": "c", "time": "t", "lon": "x", "longitude": "x", "lat": "y", "latitude": "y"}
_DIRECTIONS = {"x": "left to right", "y": "posterior to anterior", "z": "inferior to superior"}
_EPSG = re.compile(r'(?:AUTHORITY|ID)\["EPSG",\s*"?(\d+)"?\]\]\s*$')
_UNIT = re.compile(r'UNIT\["([^"]+)"')


def to_xarray(raster: Raster) -> xarray.DataArray:
    """Lazy view of ``raster``; dimensions are its axes, values are physical.

    Example:
        >>> volume = Raster.from_array(np.zeros((2, 3, 4), np.float32), affine=np.eye(4), axes="zyx", unit="HU")
        >>> view = to_xarray(volume)
        >>> view.dims, view.attrs["units"], view.x.values.tolist()
        (('z', 'y', 'x'), 'HU', [0.0, 1.0, 2.0, 3.0])
    """
    import dask.array
    import xarray

    reader = _Filled(raster)
    data = dask.array.from_array(
        reader,
        chunks=raster.source.chunks,
        name=False,
        asarray=False,
        meta=np.empty((0,) * len(raster.axes), reader.dtype),
    )
    title = re.sub(r"(\.nii)?\.\w+$", "", raster.name)
    attrs: dict[str, Any] = {"long_name": title}
    if raster.unit is not None:
        attrs["units"] = raster.unit
    view = xarray.DataArray(data, dims=raster.axes, coords=_coordinates(raster), name=title, attrs=attrs)
    _state_fill(view, raster, reader)
    return view


def from_xarray(array: xarray.DataArray, **changes: Any) -> Raster:
    """Raster of a DataArray that :func:`to_xarray` or rioxarray made, or of any with evenly spaced coordinates.

    Args:
        array: dimensions ``y, x`` or ``z, y, x`` (``lat, lon`` are understood), with ``t`` or ``c`` (``band``) before
            them or not. NaN and the fill value mean no value. A cut or strided part keeps its place.
        changes: attributes of the raster to set, as for :meth:`Raster.replace`.

    Raises:
        GeometryError: dimensions that are none of these, or coordinates that are not evenly spaced.
    """
    stored, encoding = _encodings(array, str(changes.get("name") or array.name or "array"))
    array = array.rename({d: _SYNONYMS[str(d)] for d in array.dims if str(d) in _SYNONYMS})
    name = str(changes.pop("name", None) or array.name or "array")
    dims = {str(d) for d in array.dims}
    if not {"y", "x"} <= dims <= {"t", "c", "z", "y", "x"}:
        raise GeometryError(f"{name}: dimensions {tuple(array.dims)} came; expected y, x or z, y, x, and t or c before")
    if "z" not in dims and "c" not in dims:
        array = array.expand_dims("c")
    axes = tuple(a for a in "tczyx" if a in array.dims)
    array = array.transpose(*axes)
    grid = _grid(array, name)
    raster = Raster(
        source=_source(array, stored),
        grid=grid,
        axes=axes,
        channels=_channels(array),
        encoding=encoding,
        time=_time(array) if "t" in axes else None,
        name=name,
    )
    return raster.replace(**changes) if changes else raster


class _Filled:
    """What dask slices: a raster's values, with the fill where they are not valid."""

    def __init__(self, raster: Raster) -> None:
        self._source = raster.source
        self.shape = raster.shape
        self.ndim = len(raster.shape)
        self.dtype, self.fill = _view_form(raster)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        parts = index if isinstance(index, tuple) else (index,)
        parts = (*parts, *[slice(None)] * (self.ndim - len(parts)))
        window, inner = zip(*(_covering(p, n) for p, n in zip(parts, self.shape, strict=True)), strict=True)
        values, valid = self._source.read(window)
        values = values.astype(self.dtype, copy=False)
        if valid is not None:
            values = np.where(valid, values, self.fill)
        for axis in range(self.ndim - 1, -1, -1):
            values = values[(slice(None),) * axis + (inner[axis],)]
        return values


def _covering(part: Any, n: int) -> tuple[slice, Any]:
    """The window that holds every index that ``part`` picks of ``n``, and what it picks inside that window."""
    if isinstance(part, slice):
        picked = range(*part.indices(n))
        low, high = (min(picked[0], picked[-1]), max(picked[0], picked[-1]) + 1) if len(picked) else (0, 0)
        if abs(part.step or 1) == 1 and (part.step or 1) > 0:
            return slice(low, high), slice(None)
        return slice(low, high), np.asarray(picked) - low
    if np.ndim(part) == 0:
        at = int(part) % n
        return slice(at, at + 1), 0
    where = np.asarray(part) % n
    low = int(where.min())
    return slice(low, int(where.max()) + 1), where - low


def _view_form(raster: Raster) -> tuple[np.dtype[Any], Any]:
    """Type of the view and its fill value, a scalar of that type."""
    dtype = np.dtype(raster.dtype)
    if dtype.kind == "f":
        return dtype, dtype.type(np.nan)
    marks = {repr(v) for v in raster.encoding.nodata}
    mark = stored_mark(raster.encoding.nodata[0], dtype)
    if mark is not None and len(marks) == 1 and raster.encoding.identity:
        return dtype, mark
    if raster.encoding.mask or len(marks) > 1:
        wide = work_dtype(dtype)
        return wide, wide.type(np.nan)
    return dtype, dtype.type(0)


def _state_fill(view: xarray.DataArray, raster: Raster, reader: _Filled) -> None:
    """Say what means no value, and how the values were stored, where xarray's and rioxarray's writers look."""
    encoding = raster.encoding
    if reader.dtype.kind != "f":
        if reader.fill is not None and encoding.nodata[0] is not None:
            view.attrs["_FillValue"] = reader.fill
        return
    if np.dtype(encoding.dtype).kind != "f" and encoding.mask and encoding.nodata[0] is None and encoding.identity:
        # a file of whole numbers could not say where there is no value: only the type is noted, as rioxarray does
        view.encoding |= {"rasterio_dtype": encoding.dtype, "_FillValue": reader.fill}
        return
    view.encoding["dtype"] = encoding.dtype
    same = {name: len(set(map(repr, getattr(encoding, name)))) == 1 for name in ("scale", "offset")}
    if not encoding.identity and same["scale"] and same["offset"]:
        view.encoding |= {"scale_factor": encoding.scale[0], "add_offset": encoding.offset[0]}
    elif not encoding.identity:
        view.encoding["dtype"] = reader.dtype.name
    stored = np.dtype(view.encoding["dtype"])
    mark = stored_mark(next((v for v in encoding.nodata if v is not None), None), stored)
    if mark is not None:
        view.encoding["_FillValue"] = mark
    elif stored.kind == "f":
        view.encoding["_FillValue"] = stored.type(np.nan)


def _coordinates(raster: Raster) -> dict[str, Any]:
    import xarray

    grid = raster.grid
    coords: dict[str, Any] = {}
    if "c" in raster.axes:
        names = [channel.name for channel in raster.channels]
        labels = [n or "" for n in names] if any(names) else list(range(1, len(names) + 1))
        coords["c"] = ("c", labels, {"long_name": "channel"})
        if raster.unit is None and any(channel.unit for channel in raster.channels):
            coords["channel_unit"] = ("c", [channel.unit or "" for channel in raster.channels])
    if "t" in raster.axes:
        time = raster.time or TimeAxis()
        steps = time.start + time.step * np.arange(raster.shape[raster.axes.index("t")])
        coords["t"] = ("t", steps, {"long_name": "time", **({"units": time.unit} if time.unit else {})})
    for axis, n in zip(grid.axes, grid.shape, strict=True):
        coords[axis] = (axis, *_along(grid, axis, np.arange(n)))
    place = _scene_place(grid) if len(grid.shape) == 2 else _volume_place(grid)
    coords[_place_name(grid)] = xarray.Variable((), 0, attrs=place)
    return coords


def _place_name(grid: Grid) -> str:
    return "spatial_ref" if len(grid.shape) == 2 else "affine"


def _along(grid: Grid, axis: str, index: NDArray[Any]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Coordinates of the pixel centres ``index`` along ``axis``, and what they are."""
    column = grid.axes[::-1].index(axis)
    units = {"units": _spelt(grid, axis)} if grid.unit else {}
    world = _world_row(grid.center_affine, column)
    if world is None:
        return index * grid.spacing[axis], {"long_name": f"distance along axis {axis}", **units}
    values = grid.center_affine[world, column] * index + grid.center_affine[world, -1]
    letter = "xyz"[world]
    attrs: dict[str, Any] = {"axis": letter.upper(), **units}
    if grid.frame == RAS_MM:
        attrs["long_name"] = _DIRECTIONS[letter]
    elif grid.unit == "degree":
        word = ("longitude", "latitude")[world]
        attrs |= {"long_name": word, "standard_name": word}
    else:
        attrs["long_name"] = f"{letter} coordinate of projection" if grid.frame else letter
        if grid.frame:
            attrs["standard_name"] = f"projection_{letter}_coordinate"
    return values, attrs


def _spelt(grid: Grid, axis: str) -> str:
    if grid.unit == "degree":
        return {"x": "degrees_east", "y": "degrees_north"}.get(axis, "degree")
    return str(grid.unit)


def _world_row(affine: NDArray[np.float64], column: int) -> int | None:
    """The world axis that index axis ``column`` runs along, or None if any axis is oblique.

    A scene's x must run along the world's x: a rotated one has no axis that a map reader would know.
    """
    n = affine.shape[0] - 1
    rows = [np.flatnonzero(affine[:n, j]) for j in range(n)]
    if any(len(r) != 1 for r in rows) or (n == 2 and rows[0][0] != 0):
        return None
    return int(rows[column][0])


def _scene_place(grid: Grid) -> dict[str, Any]:
    a, b, c, d, e, f = (float(v) for v in grid.affine[:2].ravel())
    place: dict[str, Any] = {"GeoTransform": " ".join(repr(v) for v in (c, a, b, f, d, e))}
    if grid.frame is not None:
        place["spatial_ref"] = grid.frame
        if not grid.frame.startswith("EPSG:"):
            place["crs_wkt"] = grid.frame
    return place


def _volume_place(grid: Grid) -> dict[str, Any]:
    place: dict[str, Any] = {"center_affine": [float(v) for v in grid.center_affine.ravel()], "columns": "x y z 1"}
    return place | ({"frame": grid.frame} if grid.frame else {}) | ({"units": grid.unit} if grid.unit else {})


def _grid(array: xarray.DataArray, name: str) -> Grid:
    """The grid of an array: from the affine beside it, moved as its coordinates say; or from those alone."""
    axes = tuple(a for a in "zyx" if a in array.dims)
    shape = tuple(int(array.sizes[a]) for a in axes)
    place = _place(array)
    affine = _stated_affine(place, len(axes))
    frame = place.get("frame") or _short(place.get("crs_wkt") or place.get("spatial_ref"))
    unit = _grid_unit(array, place)
    if affine is None:
        return Grid.from_center_affine(shape, _affine_of_coordinates(array, axes, name), frame=frame, unit=unit)
    whole = Grid.from_center_affine(shape, affine, frame=frame, unit=unit)
    moved = np.eye(len(axes) + 1)
    for axis in axes:
        if axis in array.coords:
            column = axes[::-1].index(axis)
            start, step = _cut(array, axis, whole, name)
            moved[column, column], moved[column, -1] = step, start
    return (
        whole
        if np.array_equal(moved, np.eye(len(axes) + 1))
        else Grid.from_center_affine(shape, affine @ moved, frame=frame, unit=unit)
    )


def _place(array: xarray.DataArray) -> Mapping[str, Any]:
    named = array.encoding.get("grid_mapping") or array.attrs.get("grid_mapping")
    for key in (named, "spatial_ref", "crs", "affine"):
        if key is not None and key in array.coords and array.coords[key].attrs:
            place: Mapping[str, Any] = array.coords[key].attrs
            return place
    return {}


def _stated_affine(place: Mapping[str, Any], n: int) -> NDArray[np.float64] | None:
    """The affine of pixel centres that is written beside the array, or None."""
    if n == 3 and "center_affine" in place:
        return np.array(place["center_affine"], dtype=np.float64).reshape(4, 4)
    if n == 2 and "GeoTransform" in place:
        c, a, b, f, d, e = (float(v) for v in str(place["GeoTransform"]).split())
        return Grid((1, 1), np.array([[a, b, c], [d, e, f], [0, 0, 1]])).center_affine
    return None


def _short(frame: Any) -> str | None:
    """``"EPSG:n"`` for a WKT that names its own code, else the text as it is."""
    if not frame:
        return None
    found = _EPSG.search(str(frame))
    return f"EPSG:{found[1]}" if found else str(frame)


def _grid_unit(array: xarray.DataArray, place: Mapping[str, Any]) -> str | None:
    stated = place.get("units") or (array.coords["x"].attrs.get("units") if "x" in array.coords else None)
    if not stated:
        units = _UNIT.findall(str(place.get("crs_wkt") or place.get("spatial_ref") or ""))
        stated = units[-1] if units else None  # the last one named is the one of the outermost system
    known = {"metre": "m", "meter": "m", "metres": "m", "meters": "m", "degrees_east": "degree", "degrees": "degree"}
    return known.get(str(stated), str(stated)) if stated else None


def _cut(array: xarray.DataArray, axis: str, whole: Grid, name: str) -> tuple[float, float]:
    """Index of the first pixel of ``array`` in the array that its affine was written for, and the stride."""
    first, step = _even(array, axis, name)
    origin = _along(whole, axis, np.array([0.0, 1.0]))[0]
    length = float(origin[1] - origin[0])
    start = (first - float(origin[0])) / length
    stride = 1.0 if step is None else step / length
    return float(np.round(start, 6)), float(np.round(stride, 6))


def _even(array: xarray.DataArray, axis: str, name: str) -> tuple[float, float | None]:
    """First value and step of a coordinate; None for the step of a single pixel."""
    values = np.asarray(array.coords[axis].values, dtype=np.float64)
    if len(values) == 1:
        return float(values[0]), None
    step = (values[-1] - values[0]) / (len(values) - 1)
    even = values[0] + step * np.arange(len(values))
    if step == 0 or np.abs(values - even).max() > 1e-3 * abs(step):
        raise GeometryError(f"{name}: coordinates of axis {axis} are not evenly spaced; resample them first")
    return float(values[0]), float(step)


def _affine_of_coordinates(array: xarray.DataArray, axes: tuple[str, ...], name: str) -> NDArray[np.float64]:
    n = len(axes)
    affine = np.eye(n + 1)
    for column, axis in enumerate(axes[::-1]):
        if axis not in array.coords:
            if n == 3 or any(a in array.coords for a in axes):
                raise GeometryError(f"{name}: axis {axis} has no coordinates and no affine says where it lies")
            affine[column, -1] = 0.5
            continue
        first, step = _even(array, axis, name)
        if step is None:
            raise GeometryError(f"{name}: axis {axis} has one pixel and nothing says its size; give an affine")
        affine[column, column], affine[column, -1] = step, first
    return affine


def _encodings(array: xarray.DataArray, name: str) -> tuple[Encoding, Encoding]:
    """How the array's numbers stand for physical values, and how a file is to store those.

    A scale among the attributes has not been applied yet, one in the encoding has (xarray's convention).
    """
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "fiub":
        raise InputError(f"{name}: values of type {dtype} came; expected whole or floating numbers")
    fill = next((array.attrs[k] for k in ("_FillValue", "missing_value", "nodata") if k in array.attrs), None)
    nodata = (None if fill is None else _plain(fill),)
    pending = _scale_of(array.attrs)
    scale, offset = pending or _scale_of(array.encoding) or ((1.0,), (0.0,))
    target = np.dtype(array.encoding.get("dtype") or array.encoding.get("rasterio_dtype") or dtype)
    mark = array.encoding.get("_FillValue")
    marked = mark is not None and not np.isnan(mark)
    masked = dtype.kind == "f" and target.kind != "f" and not marked and "rasterio_dtype" in array.encoding
    encoding = Encoding(target.name, scale, offset, (_plain(mark),) if marked else nodata, mask=masked)
    return Encoding(dtype.name, *(pending or ((1.0,), (0.0,))), nodata), encoding


def _scale_of(words: Mapping[Any, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Scale and offset that attributes or an encoding state: one for all (CF), or one per band (rioxarray)."""
    if "scales" in words or "offsets" in words:
        scales = tuple(float(v) for v in words.get("scales", (1.0,)))
        return scales, tuple(float(v) for v in words.get("offsets", (0.0,)))
    if "scale_factor" in words or "add_offset" in words:
        return (float(words.get("scale_factor", 1.0)),), (float(words.get("add_offset", 0.0)),)
    return None


def _plain(value: Any) -> float:
    number = np.asarray(value).item()
    return number if isinstance(number, int) else float(number)


def _source(array: xarray.DataArray, stored: Encoding) -> Any:
    data = array.data
    chunks = tuple(int(c) for c in data.chunksize) if hasattr(data, "chunksize") else slab_chunks(array.shape)
    if stored.identity:
        return ArraySource(data, nodata=stored.nodata[0], chunks=chunks)
    return _StoredSource(data, stored, chunks, array.dims.index("c") if "c" in array.dims else None)


class _StoredSource:
    """Blocks of an array that holds stored values."""

    def __init__(self, array: Any, encoding: Encoding, chunks: tuple[int, ...], channel_axis: int | None) -> None:
        self._array = array
        self._encoding = encoding
        self._channel_axis = channel_axis
        self.chunks = chunks

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._encoding.value_dtype

    def read(self, window: Window) -> Block:
        axis = self._channel_axis
        encoding = self._encoding if axis is None else self._encoding.select(window[axis])
        return Block(*encoding.decode(np.asarray(self._array[window]), channel_axis=axis))

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)


def _channels(array: xarray.DataArray) -> tuple[Channel, ...]:
    unit = array.attrs.get("units")
    if "c" not in array.dims:
        return (Channel(None, unit),)
    count = int(array.sizes["c"])
    labels = array.coords["c"].values if "c" in array.coords else [None] * count
    long_name = array.attrs.get("long_name")
    if isinstance(long_name, (tuple, list)) and len(long_name) == count:
        labels = list(long_name)  # rioxarray keeps band descriptions here
    units = (
        [str(u) or None for u in array.coords["channel_unit"].values]
        if "channel_unit" in array.coords
        else [unit] * count
    )
    if isinstance(unit, (tuple, list)):
        units = [u or None for u in unit]
    return tuple(
        Channel(str(label) if isinstance(label, str) and label else None, u)
        for label, u in zip(labels, units, strict=True)
    )


def _time(array: xarray.DataArray) -> TimeAxis:
    if "t" not in array.coords:
        return TimeAxis()
    coordinate = array.coords["t"]
    if np.issubdtype(coordinate.dtype, np.datetime64):
        return TimeAxis()
    values = np.asarray(coordinate.values, dtype=np.float64)
    step = float(values[1] - values[0]) if len(values) > 1 else 1.0
    unit = coordinate.attrs.get("units")
    return TimeAxis(float(values[0]), step, unit)

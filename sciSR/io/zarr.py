"""Zarr stores with CF and GeoZarr attributes, for clusters: scenes and volumes, written by chunks in any order.

One array ``data`` of stored values with its axes as dimensions; coordinates and ``spatial_ref`` beside it as xarray,
rioxarray and GDAL read them; ``mask`` and ``alpha`` where there are such; what a GeoTIFF said besides in the attribute
``scisr``, so that it comes back when the store is saved as GeoTIFF again. Zarr format 2, which GDAL 3.10 reads too.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sciSR.derived import DerivedSource
from sciSR.encoding import Encoding, stored_mark
from sciSR.errors import FormatError, InputError, MetadataWarning, RunError
from sciSR.io.assemble import ChunkAssembler
from sciSR.journal import parted_source
from sciSR.raster import Block, BlockSource, Metadata, Raster, Window
from sciSR.view import from_xarray, to_xarray

__all__ = ["ZarrAdapter"]

_SCENE_CHUNK = 512
_VOLUME_CHUNK = 64
_DATA = "data"


class ZarrAdapter:
    """Reads and writes Zarr stores.

    Options of ``open``: ``variable`` (name of the array, where there are several), ``labels`` (as for GeoTIFF).
    Options of ``create``: ``dtype`` (numpy name of the stored type; default the raster's).
    """

    name = "zarr"
    suffixes: tuple[str, ...] = (".zarr",)

    def open(self, path: str, *, variable: str | None = None, labels: bool | None = None) -> Raster:
        """A lazy raster of one array of the store.

        Raises:
            FormatError: no Zarr store, or not one array of an image.
            InputError: zarr is not installed.
        """
        dataset = _opened(path)
        array = _chosen(dataset, variable, path)
        own = json.loads(dataset.attrs.get("scisr", "{}"))
        raster = from_xarray(array, name=Path(path).name)
        if "mask" in dataset and tuple(dataset["mask"].dims) == tuple(array.dims):
            raster = raster.replace(
                source=_Masked(raster.source, dataset["mask"].data), encoding=replace(raster.encoding, mask=True)
            )
        items: dict[str, Any] = {"labels": labels, "opened": (raster.encoding.scale, raster.encoding.offset)}
        if "facts" in own:
            from sciSR.io.geotiff_tags import Facts

            items = {**Facts.from_json(own["facts"]).to_dict(), **items}
        form = "geotiff" if len(raster.grid.shape) == 2 else self.name
        raster = raster.replace(
            metadata=Metadata(form, raster.grid, items, path), provenance=dict(own.get("provenance", {}))
        )
        if "alpha" in dataset:
            alpha = from_xarray(dataset["alpha"], name=f"{raster.name} alpha")
            raster = raster.replace(
                source=_Masked(raster.source, dataset["alpha"].data),
                auxiliary={"alpha": alpha},
                encoding=replace(raster.encoding, mask=True),
            )
        return raster

    def describe(self, path: str) -> dict[str, Any]:
        """Arrays of the store with their dimensions, chunks and attributes."""
        dataset = _opened(path)
        return {
            "arrays": [
                {
                    "name": str(k),
                    "dims": list(map(str, v.dims)),
                    "type": str(v.dtype),
                    "chunks": list(v.encoding["chunks"]),
                }
                for k, v in dataset.data_vars.items()
            ],
            "attributes": {str(k): str(v) for k, v in dataset.attrs.items() if k != "scisr"},
        }

    def files(self, path: Path) -> tuple[Path, ...]:
        """The one folder."""
        return (path,)

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Raise what would make writing fail."""
        unknown = sorted(set(options) - {"dtype"})
        if unknown:
            raise InputError(f"{path}: option {unknown[0]} means nothing for Zarr; it has dtype")
        _require()
        _stored_form(raster, path.name, **options)

    def create(self, raster: Raster, path: Path, **options: Any) -> ZarrWriter:
        """Start writing a store; blocks may come in any order."""
        encoding, notes = _stored_form(raster, path.name, **options)
        for note in notes:
            warnings.warn(note, MetadataWarning, stacklevel=3)
        return ZarrWriter.start(raster, path, encoding)

    def shared_rows(self, raster: Raster, **options: Any) -> int:
        """Rows of one row of chunks."""
        return _chunks(raster)[len(raster.leading)]

    def begin(self, raster: Raster, path: Path, **options: Any) -> None:
        """Start a store for several processes."""
        self.create(raster, path, **options)

    def complete(self, raster: Raster, path: Path, **options: Any) -> None:
        """Nothing is left to do."""

    def join(self, raster: Raster, path: Path, **options: Any) -> ZarrWriter:
        """A writer for some rows of chunks of a store that is begun."""
        import zarr

        encoding, _ = _stored_form(raster, path.name, **options)
        return ZarrWriter(raster, encoding, zarr.open_group(path, mode="r+", zarr_format=2), _chunks(raster))


class ZarrWriter:
    """Gathers blocks into whole chunks and writes each chunk once."""

    order: Literal["any", "slabs"] = "any"

    def __init__(self, raster: Raster, encoding: Encoding, group: Any, chunks: tuple[int, ...]) -> None:
        self.chunks = chunks
        self._raster = raster
        self._encoding = encoding
        self._group = group
        self._parts = ChunkAssembler(raster.shape, chunks, np.dtype(encoding.dtype))

    @classmethod
    def start(cls, raster: Raster, path: Path, encoding: Encoding) -> ZarrWriter:
        """A writer whose store is begun: everything but the values is there."""
        import zarr

        chunks = _chunks(raster)
        template = _template(raster, encoding, path.name)
        compressor = _compressor()
        layout = {
            str(k): {"chunks": _fit(v.dims, raster, chunks), "compressors": compressor} for k, v in template.items()
        }
        template.to_zarr(path, compute=False, zarr_format=2, consolidated=True, encoding=layout)
        return cls(raster, encoding, zarr.open_group(path, mode="r+", zarr_format=2), chunks)

    def write(self, window: Window, block: Block) -> None:
        """Take the values of ``window``."""
        encoding = self._encoding
        channel = self._raster.channel_axis
        if channel is not None:
            encoding = encoding.select(window[channel])
        stored = encoding.encode(block.values, block.valid, channel_axis=channel)
        valid = block.valid
        if block.values.dtype.kind == "f" and stored.dtype.kind != "f":
            known = ~np.isnan(block.values)
            valid = known if valid is None else valid & known
        for whole, chunk in self._parts.add(window, Block(stored, valid)):
            self._put(whole, chunk)

    def finish(self) -> None:
        """Complete the store."""
        self._parts.close()

    def abort(self) -> None:
        """Nothing is held open."""

    def _put(self, window: Window, chunk: Block) -> None:
        self._group[_DATA][window] = chunk.values
        if self._encoding.mask:
            self._group["mask"][window] = 1 if chunk.valid is None else chunk.valid.astype(np.uint8)
        elif not (chunk.valid is None or chunk.valid.all() or _marks(self._encoding) or "alpha" in self._group):
            raise RunError(
                f"{self._raster.name}: a value is missing, and type {self._encoding.dtype} has no nodata value to say "
                "so; pass nodata= when opening it, or save as a floating type (dtype=)"
            )
        if "alpha" in self._group:
            from sciSR.io.geotiff_write import alpha_under

            place = (window[-2], window[-1])
            self._group["alpha"][place] = alpha_under(self._raster.auxiliary["alpha"], self._raster.grid, place)


def _require() -> None:
    if find_spec("zarr") is None:
        raise InputError("writing and reading .zarr needs the package zarr; install it with: pip install 'scisr[zarr]'")


def _opened(path: str) -> Any:
    _require()
    import xarray

    options: dict[str, Any] = (
        {"consolidated": False} if _scattered(Path(path)) else {}
    )  # xarray warns where it has to find that out
    try:
        return xarray.open_zarr(path, chunks={}, mask_and_scale=False, decode_times=False, **options)
    except (OSError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: not a Zarr store that xarray can open: {reason}") from error


def _scattered(store: Path) -> bool:
    """Whether a local store has no file with all of its metadata (formats 2 and 3)."""
    if not store.is_dir() or (store / ".zmetadata").exists():
        return False
    group = store / "zarr.json"
    return not (group.is_file() and b"consolidated_metadata" in group.read_bytes())


def _chosen(dataset: Any, variable: str | None, path: str) -> Any:
    images = [str(k) for k, v in dataset.data_vars.items() if v.ndim >= 2]
    if variable is None:
        variable = _DATA if _DATA in images else images[0] if len(images) == 1 else None
    if variable is None or variable not in images:
        raise FormatError(f"{path}: holds the arrays {', '.join(images) or 'none'}; name one with variable=")
    array = dataset[variable]
    if "spatial_ref" in dataset.data_vars:
        array = array.assign_coords(spatial_ref=dataset["spatial_ref"])
    return array


def _stored_form(raster: Raster, name: str, *, dtype: str | None = None) -> tuple[Encoding, list[str]]:
    """One scale, offset and nodata for all channels, as CF has them, and what is to be said of it.

    Where channels differ in scale or offset, values are stored as they are. Where a value may be missing and no stored
    value says so, there is a mask.
    """
    encoding = replace(raster.encoding, dtype=dtype or raster.encoding.dtype)
    if any(len({repr(v) for v in values}) > 1 for values in (encoding.scale, encoding.offset)):
        note = f"{name}: channels differ in scale or offset, which CF cannot say; physical values are stored instead"
        return Encoding(encoding.value_dtype.name, nodata=(None,)), [note]
    notes = []
    mark = next((v for v in encoding.nodata if v is not None), None)
    if mark is not None and not np.isnan(mark) and stored_mark(mark, np.dtype(encoding.dtype)) is None:
        notes.append(f"{name}: nodata {mark} cannot occur in {encoding.dtype} and is not written")
        mark = None
    mark = None if mark is not None and np.isnan(mark) else mark
    encoding = replace(encoding, scale=encoding.scale[:1], offset=encoding.offset[:1], nodata=(mark,))
    return replace(encoding, mask=not _marks(encoding) and _may_miss(raster)), notes


def _may_miss(raster: Raster) -> bool:
    """Whether a value may be missing for another reason than its alpha: a mask, a nodata value, or NaN as stored."""
    items = {} if raster.metadata is None else raster.metadata.items
    masked = items.get("mask", True) if "alpha" in raster.auxiliary else raster.encoding.mask
    stored = raster.dtype if raster.metadata is None else np.dtype(raster.encoding.dtype)
    return bool(masked) or any(v is not None for v in raster.encoding.nodata) or stored.kind == "f"


def _marks(encoding: Encoding) -> bool:
    """Whether stored values themselves can say that there is none."""
    return encoding.nodata[0] is not None or np.dtype(encoding.dtype).kind == "f"


def _chunks(raster: Raster) -> tuple[int, ...]:
    spatial = len(raster.grid.shape)
    size = _SCENE_CHUNK if spatial == 2 else _VOLUME_CHUNK
    first, *rest = raster.grid.shape
    return (*raster.one_time, min(_rows(raster, size), first), *(min(size, n) for n in rest))


def _rows(raster: Raster, size: int) -> int:
    """About ``size`` rows: whole parts of a result that is computed in parts, so that each process has own chunks."""
    source = parted_source(raster.source)
    if source is None or source.shape != raster.shape:
        return size
    window = source.parts[0][len(raster.leading)]
    part = int(window.stop - window.start)
    if part <= size:
        return size // part * part
    return next(part // n for n in range(-(-part // size), part + 1) if part % n == 0)


def _fit(dims: tuple[Any, ...], raster: Raster, chunks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict(zip(raster.axes, chunks, strict=True))[str(d)] for d in dims)


def _compressor() -> Any:
    from numcodecs import Blosc  # type: ignore[import-untyped]  # it has no types

    return Blosc("zstd", clevel=1, shuffle=Blosc.SHUFFLE)


def _template(raster: Raster, encoding: Encoding, name: str) -> Any:
    """A dataset with everything but the values, which are zeros of one lazy chunk."""
    import dask.array
    import xarray

    view = to_xarray(raster)
    dtype = np.dtype(encoding.dtype)

    def empty(dims: tuple[str, ...], kind: Any, value: Any = 0) -> Any:
        shape = tuple(n for a, n in zip(raster.axes, raster.shape, strict=True) if a in dims)
        return (dims, dask.array.full(shape, value, dtype=kind, chunks=-1))

    attrs = {k: v for k, v in view.attrs.items() if k in ("long_name", "units")}
    if not encoding.identity:
        attrs |= {"scale_factor": encoding.scale[0], "add_offset": encoding.offset[0]}
    mark = stored_mark(encoding.nodata[0], dtype)
    if mark is not None or dtype.kind == "f":
        attrs["_FillValue"] = dtype.type(np.nan) if mark is None else mark
    place = "spatial_ref" if len(raster.grid.shape) == 2 else "affine"
    attrs["grid_mapping"] = place
    arrays = {_DATA: (*empty(raster.axes, dtype), attrs)}
    if encoding.mask:
        arrays["mask"] = (*empty(raster.axes, np.uint8, 1), {"long_name": "1 where there is a value"})
    if "alpha" in raster.auxiliary:
        arrays["alpha"] = (*empty(("y", "x"), raster.auxiliary["alpha"].dtype), {"grid_mapping": place})
    own: dict[str, Any] = {"provenance": dict(raster.provenance)}
    coords = dict(view.coords)
    if len(raster.grid.shape) == 2:
        own["facts"], wkt = _scene_facts(raster, name)
        if wkt is not None:
            arrays[_DATA][2]["_CRS"] = {"wkt": wkt}
            coords[place] = coords[place].assign_attrs(crs_wkt=wkt)
    elif raster.metadata is not None:
        warnings.warn(
            f"{name}: a Zarr store has no place for the header of a {raster.metadata.format} file; dropped",
            MetadataWarning,
            stacklevel=4,
        )
    whole = {"Conventions": "CF-1.10", "scisr": json.dumps(own, sort_keys=True), **raster.provenance}
    return xarray.Dataset(arrays, coords=coords, attrs=whole)


def _scene_facts(raster: Raster, name: str) -> tuple[Any, str | None]:
    from sciSR.io.geotiff_plan import make_plan

    plan = make_plan(raster, name)
    return plan.facts.to_json(), plan.wkt


class _Masked(DerivedSource):
    """A source whose values count only where a mask, of the same shape or of its last axes, is not 0."""

    def __init__(self, source: BlockSource, mask: Any) -> None:
        super().__init__(source)
        self._mask = mask

    def _changed(self, window: Window, block: Block) -> Block:
        mask = np.broadcast_to(np.asarray(self._mask[window[-self._mask.ndim :]]) != 0, block.values.shape)
        return Block(block.values, mask if block.valid is None else block.valid & mask)

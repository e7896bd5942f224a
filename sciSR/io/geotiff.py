"""GeoTIFF, and whatever else GDAL reads, as rasters; GeoTIFF and COG out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, InputError, MetadataWarning
from sciSR.grid import Grid
from sciSR.io.geotiff_source import GdalSource, gdal_environment, open_dataset
from sciSR.io.geotiff_tags import Facts, collect
from sciSR.io.geotiff_write import GeoTiffWriter, make_plan
from sciSR.raster import Channel, Metadata, Raster

__all__ = ["GeoTiffAdapter"]

_WRITABLE = (".tif", ".tiff")


class GeoTiffAdapter:
    """GeoTIFF and COG, read and written; other formats of GDAL (VRT, JPEG 2000) read."""

    name = "GeoTIFF"
    suffixes: tuple[str, ...] = (".tiff", ".tif", ".vrt")

    def open(self, path: str, **options: Any) -> Raster:
        """A lazy raster of the scene; axes ``(c, y, x)``, physical values, alpha in ``auxiliary["alpha"]``.

        Args:
            path: a file or an address.
            options: ``labels=True`` takes class and palette rasters, to be resampled by nearest neighbour only.

        Raises:
            FormatError: GDAL cannot read it, or it holds complex numbers or no band.
            InputError: a palette or class raster, and ``labels`` was not asked for.
        """
        return open_scene(path, **options)

    def describe(self, path: str) -> dict[str, Any]:
        """What the header says."""
        raster = open_scene(path, labels=True)
        return {"format": self.name, "grid": raster.grid.to_dict()}

    def files(self, path: Path) -> tuple[Path, ...]:
        """The one file."""
        return (path,)

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Raise what would make writing fail."""
        if path.suffix.lower() not in _WRITABLE:
            raise InputError(f"{path}: {path.suffix} is read only; write {path.with_suffix('.tif').name} instead")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MetadataWarning)
            make_plan(raster, path.name, **options)

    def create(self, raster: Raster, path: Path, **options: Any) -> GeoTiffWriter:
        """Start writing a GeoTIFF.

        Args:
            raster: the scene.
            path: where.
            options: ``cog=True`` for a cloud-optimized GeoTIFF, ``compress`` (deflate, zstd, lzw, none; default as the
                input, or deflate), ``overviews`` (default as the input).
        """
        return GeoTiffWriter.start(make_plan(raster, path.name, **options), path)


def open_scene(path: str, *, labels: bool = False) -> Raster:
    """A lazy raster of what GDAL opens at ``path``."""
    name = path.rstrip("/").split("/")[-1]
    with gdal_environment(path), open_dataset(path) as dataset:
        alpha = next((b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha), None)
        bands = tuple(b for b in dataset.indexes if b != alpha)
        _refuse(dataset, bands, name, labels)
        masked = any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in dataset.mask_flag_enums)
        facts = collect(dataset, bands, alpha, masked)
        grid = Grid(dataset.shape, np.array(dataset.transform).reshape(3, 3), *_frame(dataset))
        nodata = tuple(dataset.nodatavals[b - 1] for b in bands)
        dtype = np.result_type(*(dataset.dtypes[b - 1] for b in bands)).name
        block = dataset.block_shapes[0]
    encoding = _encoding(facts, dtype, nodata, mask=masked or alpha is not None)
    source = GdalSource(path, name, bands, grid.shape, encoding, block, bands[0] if masked else None, alpha)
    items = {**facts.to_dict(), "opened": (encoding.scale, encoding.offset), "labels": labels}
    return Raster(
        source=source,
        grid=grid,
        axes=("c", "y", "x"),
        channels=tuple(Channel(d, u) for d, u in zip(facts.descriptions, facts.units, strict=True)),
        encoding=encoding,
        metadata=Metadata("GeoTIFF", grid, items, path),
        auxiliary={} if alpha is None else {"alpha": _alpha(source, alpha, grid)},
        name=name,
    )


def _frame(dataset: Any) -> tuple[str | None, str | None]:
    """Frame and length unit: ``"EPSG:n"`` where that is the very same system, else its WKT."""
    crs = dataset.crs
    if not crs:
        return None, None
    code = crs.to_epsg()
    frame = f"EPSG:{code}" if code is not None and CRS.from_epsg(code) == crs else crs.to_wkt()
    unit = "degree" if crs.is_geographic else crs.linear_units
    return frame, {"metre": "m", "meter": "m", "unknown": None}.get(unit, unit)


def _refuse(dataset: Any, bands: tuple[int, ...], name: str, labels: bool) -> None:
    if not bands:
        inside = len(dataset.subdatasets)
        hint = f"; it holds {inside} subdatasets, name one of them" if inside else ""
        raise FormatError(f"{name}: no band with values{hint}")
    for band in bands:
        if np.dtype(dataset.dtypes[band - 1].replace("complex_int16", "complex64")).kind == "c":
            raise FormatError(f"{name}: band {band} holds complex numbers; save its amplitude or its parts first")
    if labels:
        return
    if any(dataset.colorinterp[b - 1] == ColorInterp.palette for b in bands):
        raise InputError(
            f"{name}: a palette image, whose values are classes and no measures; pass --labels to refine it by nearest "
            "neighbour"
        )


def _encoding(facts: Facts, dtype: str, nodata: tuple[float | None, ...], *, mask: bool) -> Encoding:
    def single(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values[:1] if len({repr(v) for v in values}) == 1 else values

    return Encoding(dtype, single(facts.scales), single(facts.offsets), single(nodata), mask)


def _alpha(source: GdalSource, band: int, grid: Grid) -> Raster:
    encoding = Encoding(source.encoding.dtype)
    bands = GdalSource(source.path, source.shown, (band,), source.size, encoding, source.block)
    return Raster(bands, grid, ("c", "y", "x"), (Channel("alpha"),), encoding, name=f"{source.shown} alpha")

"""From what GDAL opens to a lazy raster: bands, grid, encoding, validity; what cannot be measured is refused."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from sciSR.encoding import Encoding, stored_mark
from sciSR.errors import FormatError, GeometryError, InputError, MetadataWarning
from sciSR.grid import Grid
from sciSR.io.geotiff_files import files_behind
from sciSR.io.geotiff_source import GDAL_ERRORS, GdalSource, gdal_path, header, is_remote, reason
from sciSR.io.geotiff_tags import collect
from sciSR.io.radiometry import resolve
from sciSR.raster import Channel, Metadata, Raster

__all__ = ["FORMAT", "open_scene"]

FORMAT = "geotiff"
"""Name of the adapter, and of the metadata that it alone looks into."""

_UNITS = {"metre": "m", "meter": "m", "unknown": None}
_BLOCKS_LOOKED_AT = 50_000
_VIRTUAL_ROWS = 512


def open_scene(
    path: str,
    *,
    shown: str | None = None,
    labels: bool | None = None,
    nodata: float | None = None,
    offset: float | None = None,
) -> Raster:
    """A lazy raster, axes ``(c, y, x)``, of what GDAL opens at ``path``; alpha goes into ``auxiliary["alpha"]``.

    Args:
        path: a file, an address, or the text of a VRT.
        shown: the name for messages; the file's own by default.
        labels: True: classes, to be refined by nearest neighbour. False: measures. None: as the file says.
        nodata: stored value that means no value, though the file does not say so.
        offset: added to the stored values before scaling, where the file does not say so (Sentinel-2: -1000).

    Raises:
        FormatError: GDAL cannot open it, it is truncated, or it holds complex numbers or no band.
        GeometryError: its transform is singular.
        InputError: a palette image, and ``labels`` was not asked for.
    """
    name = shown or path.rstrip("/").split("/")[-1].split("?")[0]
    with header(path, name) as dataset:
        alpha = next((b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha), None)
        bands = tuple(b for b in dataset.indexes if b != alpha)
        _refuse(dataset, bands, name, path)
        masked = any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in dataset.mask_flag_enums)
        facts = collect(dataset, bands, alpha, masked)
        classes = _is_class_image(dataset, bands)
        if classes and labels is not True:
            raise InputError(
                f"{name}: a palette image: its values are classes and no measures; pass --labels (labels=True) to "
                "refine it by nearest neighbour, or expand it to red, green and blue first"
            )
        if dataset.driver == "GTiff" and len(dataset.subdatasets) > 1:
            warnings.warn(
                f"{name}: holds {len(dataset.subdatasets)} images, the first is read; save the others by themselves",
                MetadataWarning,
                stacklevel=3,
            )
        grid = _grid(dataset, name)
        dtype = np.result_type(*(dataset.dtypes[b - 1] for b in bands)).name
        marks = tuple(dataset.nodatavals[b - 1] for b in bands) if nodata is None else (nodata,)
        radiometry = resolve(
            facts.tags,
            facts.band_tags,
            facts.scales,
            facts.offsets,
            given=offset,
            sample=lambda: _sample(dataset, bands, Encoding(dtype, nodata=_single(marks)), masked),
            name=name,
        )
        block = dataset.block_shapes[0]
        driver = dataset.driver
        together = dataset.count if facts.layout["interleave"] == "pixel" else len(bands)
        files = files_behind(dataset) if os.path.exists(path) else ()
    encoding = Encoding(
        dtype, _single(radiometry.scale), _single(radiometry.offset), _single(marks), masked or alpha is not None
    )
    size = (grid.shape[0], grid.shape[1])
    # a virtual raster's own blocks are small, those behind it most often 512 rows
    rows = max(block[0], _VIRTUAL_ROWS) if driver == "VRT" else block[0]
    row_bytes = min(rows, size[0]) * -(-size[1] // block[1]) * block[1] * together * np.dtype(dtype).itemsize
    source = GdalSource(path, name, bands, size, encoding, block, bands[0] if masked else None, alpha, row_bytes)
    items = {
        **facts.to_dict(),
        "opened": (encoding.scale, encoding.offset),
        "radiometry": radiometry.to_dict(),
        "labels": labels,
        "intent": "labels" if classes else None,
        "files": files,
    }
    return Raster(
        source=source,
        grid=grid,
        axes=("c", "y", "x"),
        channels=tuple(Channel(d, u) for d, u in zip(facts.descriptions, facts.units, strict=True)),
        encoding=encoding,
        metadata=Metadata(FORMAT, grid, items, None if path.startswith("<") else path),
        auxiliary={} if alpha is None else {"alpha": _alpha(source, alpha, grid)},
        name=name,
    )


def _single(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """One entry where all are the same."""
    return values[:1] if len({repr(v) for v in values}) == 1 else values


def _grid(dataset: Any, name: str) -> Grid:
    try:
        return Grid(dataset.shape, np.array(dataset.transform).reshape(3, 3), *_frame(dataset))
    except GeometryError as error:
        raise GeometryError(f"{name}: {error}") from error


def _frame(dataset: Any) -> tuple[str | None, str | None]:
    """Frame and length unit: ``"EPSG:n"`` where that is the very same system, else its WKT."""
    crs = dataset.crs
    if not crs:
        return None, None
    code = crs.to_epsg()
    frame = f"EPSG:{code}" if code is not None and CRS.from_epsg(code) == crs else crs.to_wkt()
    unit = "degree" if crs.is_geographic else crs.linear_units
    return frame, _UNITS.get(unit, unit)


def _refuse(dataset: Any, bands: tuple[int, ...], name: str, path: str) -> None:
    """Raise FormatError for what holds nothing to measure."""
    if not bands:
        inside = len(dataset.subdatasets)
        hint = f"; it holds {inside} subdatasets, name one of them" if inside else ""
        raise FormatError(f"{name}: no band with values{hint}")
    for band in bands:
        if dataset.dtypes[band - 1].startswith("complex"):
            raise FormatError(f"{name}: band {band} holds complex numbers; save its amplitude or its parts first")
    if dataset.driver == "GTiff" and not is_remote(path) and os.path.isfile(gdal_path(path)):
        _refuse_truncated(dataset, bands, name, os.path.getsize(gdal_path(path)))


def _refuse_truncated(dataset: Any, bands: tuple[int, ...], name: str, size: int) -> None:
    """Raise FormatError if a block lies beyond the end of the file, as after a broken download."""
    rows, columns = dataset.block_shapes[0]
    down, across = -(-dataset.height // rows), -(-dataset.width // columns)
    planes = bands if dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "BAND" else bands[:1]
    first = max(0, down - max(1, _BLOCKS_LOOKED_AT // (across * len(planes))))
    for band in planes:
        for row in range(first, down):
            for column in range(across):
                at = f"{column}_{row}"
                start = dataset.get_tag_item(f"BLOCK_OFFSET_{at}", "TIFF", bidx=band)
                length = dataset.get_tag_item(f"BLOCK_SIZE_{at}", "TIFF", bidx=band)
                if start is not None and length is not None and int(start) + int(length) > size:
                    raise FormatError(
                        f"{name}: truncated: its {size} bytes end before block row {row}, column {column}; copy or "
                        "download it again"
                    )


def _is_class_image(dataset: Any, bands: tuple[int, ...]) -> bool:
    """Whether the header says that values are classes: a palette, or single bits."""
    palette = any(dataset.colorinterp[b - 1] == ColorInterp.palette for b in bands)
    return palette or dataset.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS") == "1"


def _sample(dataset: Any, bands: tuple[int, ...], encoding: Encoding, masked: bool) -> NDArray[Any]:
    """Some stored values ``(n, c)`` that are valid in every band, from nine small windows spread over the image."""
    found = []
    for row in (0.1, 0.5, 0.9):
        for column in (0.1, 0.5, 0.9):
            height, width = min(64, dataset.height), min(64, dataset.width)
            top, left = int(row * (dataset.height - height)), int(column * (dataset.width - width))
            area = RasterioWindow(left, top, width, height)
            try:
                stored = dataset.read(list(bands), window=area, out_dtype=encoding.dtype)
                inside = dataset.read_masks(bands[0], window=area) > 0 if masked else np.ones((height, width), bool)
            except GDAL_ERRORS as error:
                told = reason(error, dataset.name)
                raise FormatError(f"{os.path.basename(dataset.name)}: values cannot be read: {told}") from error
            marks = encoding.nodata * len(bands) if len(encoding.nodata) == 1 else encoding.nodata
            for plane, nodata in zip(stored, marks, strict=True):
                mark = stored_mark(nodata, plane.dtype)
                inside &= ~np.isnan(plane) if plane.dtype.kind == "f" else True
                inside &= True if mark is None else plane != mark
            found.append(stored[:, inside].T)
    return np.concatenate(found)


def _alpha(source: GdalSource, band: int, grid: Grid) -> Raster:
    encoding = Encoding(source.encoding.dtype)
    bands = GdalSource(source.path, source.shown, (band,), source.size, encoding, source.block)
    return Raster(bands, grid, ("c", "y", "x"), (Channel("alpha"),), encoding, name=f"{source.shown} alpha")

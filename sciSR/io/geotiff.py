"""GeoTIFF and COG, read and written; what else GDAL reads (VRT, JPEG 2000) read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sciSR.errors import InputError
from sciSR.io.geotiff_files import parts_of
from sciSR.io.geotiff_info import describe_scene
from sciSR.io.geotiff_open import FORMAT, open_scene
from sciSR.io.geotiff_plan import Plan, make_plan
from sciSR.io.geotiff_rows import GeoTiffWriter, RowsWriter, begin_rows, complete_rows
from sciSR.io.mosaic import combine
from sciSR.raster import Raster

__all__ = ["GeoTiffAdapter", "open_mosaic"]

_WRITABLE = (".tif", ".tiff")
_OPEN_OPTIONS = ("labels", "nodata", "offset")
_SAVE_OPTIONS = ("cog", "compress", "overviews", "dtype")


class GeoTiffAdapter:
    """Scenes through GDAL.

    Options of ``open``: ``labels`` (True: classes, refined by nearest neighbour; False: measures; None: as the file
    says), ``nodata`` (a stored value that means no value though the file does not say so), ``offset`` (added to stored
    values before scaling; Sentinel-2 since baseline 04.00: -1000).

    Options of ``create``: ``cog`` (a cloud-optimized GeoTIFF), ``compress`` (deflate, zstd, lzw, none; default as the
    input where that is lossless, else deflate), ``overviews`` (True or False; default as the input), ``dtype`` (numpy
    name of the stored type; default the input's).
    """

    name = FORMAT
    suffixes: tuple[str, ...] = (".tiff", ".tif", ".vrt", ".jp2", ".png", ".jpg")

    def open(self, path: str, **options: Any) -> Raster:
        """A lazy scene, axes ``(c, y, x)``, physical values; see :func:`sciSR.io.geotiff_open.open_scene`."""
        _known(options, _OPEN_OPTIONS, path)
        return open_scene(path, **options)

    def describe(self, path: str) -> dict[str, Any]:
        """What the header says: layout, coordinate reference system, bands, tags."""
        return describe_scene(path)

    def files(self, path: Path) -> tuple[Path, ...]:
        """The one file."""
        return (path,)

    def parts(self, path: str) -> tuple[str, ...]:
        """What a virtual raster is made of, through other virtual rasters too."""
        return parts_of(path)

    def leftovers(self, path: Path) -> tuple[Path, ...]:
        """What GDAL would read beside a new file of that name: statistics, overviews and mask of an older one."""
        return tuple(path.with_name(path.name + ending) for ending in (".aux.xml", ".ovr", ".msk"))

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Raise what would make writing fail."""
        _known(options, _SAVE_OPTIONS, str(path))
        if path.suffix.lower() not in _WRITABLE:
            raise InputError(f"{path}: {path.suffix} is read only; write {path.with_suffix('.tif').name} instead")
        _quiet_plan(raster, path, options)

    def create(self, raster: Raster, path: Path, **options: Any) -> GeoTiffWriter:
        """Start writing a GeoTIFF; its blocks may come in any order."""
        return GeoTiffWriter(make_plan(raster, path.name, **options), path)

    def shared_rows(self, raster: Raster, **options: Any) -> int:
        """Rows of one row of blocks."""
        return int(_quiet_plan(raster, Path(raster.name), options).options["blockysize"])

    def begin(self, raster: Raster, path: Path, **options: Any) -> None:
        """Start a file for several processes; warns of what it cannot keep."""
        begin_rows(make_plan(raster, path.name, **options), path)

    def join(self, raster: Raster, path: Path, **options: Any) -> RowsWriter:
        """A writer for some rows of blocks of a file that is begun."""
        return RowsWriter(_quiet_plan(raster, path, options), path)

    def complete(self, raster: Raster, path: Path, **options: Any) -> None:
        """Join the rows, and make overviews or a cloud-optimized file where asked for."""
        complete_rows(_quiet_plan(raster, path, options), path)


def open_mosaic(paths: Sequence[str], **options: Any) -> Raster:
    """One raster of several files: band files of one scene are stacked, neighbouring tiles are joined.

    Files on the same grid are stacked in the order given (a channel without a description is named after its file).
    Files with the same bands on different parts of one pixel lattice are joined; where they overlap the last valid
    value counts. Nothing is resampled and nothing is copied.

    Args:
        paths: files or addresses that GDAL reads.
        options: as for opening one file.

    Raises:
        GeometryError: the files' pixels do not lie on one lattice.
        InputError: no file, or files that are neither bands nor tiles of one scene.

    See :func:`sciSR.io.mosaic.combine` for rasters that are open already.
    """
    _known(options, _OPEN_OPTIONS, "mosaic")
    parts = [open_scene(str(path), **options) for path in paths]
    whole = combine(parts)
    if whole.metadata is None:
        return whole
    files = tuple(file for part in parts if part.metadata is not None for file in part.metadata.items["files"])
    return whole.replace(metadata=replace(whole.metadata, items={**whole.metadata.items, "files": files}))


def _quiet_plan(raster: Raster, path: Path, options: dict[str, Any]) -> Plan:
    """The plan, without warning of what is told when the file is made."""
    return make_plan(raster, path.name, **options, tell=lambda message: None)


def _known(options: dict[str, Any], names: tuple[str, ...], path: str) -> None:
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise InputError(f"{path}: option {unknown[0]} means nothing for a GeoTIFF; it has {', '.join(names)}")

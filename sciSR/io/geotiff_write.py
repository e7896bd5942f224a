"""What GDAL writes: the file with everything but the values, tiles that it compresses in threads, overviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterBlockError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from sciSR.errors import GeometryError, RunError
from sciSR.grid import Grid
from sciSR.io.geotiff_cog import to_cog
from sciSR.io.geotiff_datasets import create_dataset, read_dataset, update_dataset
from sciSR.io.geotiff_layout import check_whole
from sciSR.io.geotiff_plan import Plan
from sciSR.io.geotiff_source import GDAL_ERRORS
from sciSR.io.geotiff_tags import pixel_map
from sciSR.raster import Block, Raster, Window

__all__ = [
    "TileWriter",
    "alpha_under",
    "begin_file",
    "draft_path",
    "finish_file",
    "stored_block",
    "tile_shape",
]


class TileWriter:
    """Whole tiles of stored values put into an open dataset, with the alpha band and the mask that belong to them.

    Args:
        plan: of the whole file.
        dataset: open for writing; all of the file, or some of its rows.
        first_row: of the dataset, in the whole file.
    """

    def __init__(self, plan: Plan, dataset: Any, first_row: int = 0) -> None:
        self._plan = plan
        self._dataset = dataset
        self._first_row = first_row
        self._masked = False
        self._busy: list[tuple[int, RasterioWindow]] = []

    @classmethod
    def start(cls, plan: Plan, dataset: Any, first_row: int = 0) -> TileWriter:
        """A writer with the mask that the plan has; any other begins with the first pixel that nothing else marks."""
        tiles = cls(plan, dataset, first_row)
        if plan.encoding.mask and (plan.alpha is None or plan.facts.mask):
            tiles.begin_mask()
        return tiles

    def put(self, window: Window, chunk: Block) -> None:
        """Write one tile, or the part of it inside the image; ``window`` counts in the whole file."""
        rows = slice(window[1].start - self._first_row, window[1].stop - self._first_row)
        area = RasterioWindow.from_slices((rows.start, rows.stop), (window[2].start, window[2].stop))
        stored, bands = chunk.values, self._plan.bands
        if self._plan.alpha is not None:
            alpha = alpha_under(self._plan.alpha, self._plan.grid, (window[1], window[2]))
            stored = np.concatenate([stored, alpha.astype(stored.dtype)[None]])
            bands = [*bands, self._plan.alpha_band]
        self._dataset.write(stored, bands, window=area)
        # GDAL may leave a block of one value alone until the end
        self._busy.extend((band, area) for band, plane in zip(bands, stored, strict=True) if _varies(plane))
        if chunk.valid is None or chunk.valid.all():
            return
        marked = self._plan.encoding.nodata[0] is not None or stored.dtype.kind == "f"
        if not self._masked and not marked and self._plan.alpha is None:
            self.begin_mask()
        if self._masked:
            # where bands mark their own holes the mask need only say where nothing is valid
            valid = chunk.valid.any(axis=0) if marked else chunk.valid.all(axis=0)
            self._dataset.write_mask(valid, window=area)

    def begin_mask(self) -> None:
        """Give the dataset a mask, valid everywhere."""
        if not self._masked:
            self._dataset.write_mask(True)
            self._masked = True

    def finish(self) -> None:
        """Bring everything to disk.

        Where GDAL cannot, it says nothing and puts empty blocks. So blocks that are not there before it closes the file
        (of one bit: always) are looked at afterwards.

        Raises:
            RunError: the disk did not take all.
        """
        late = [block for block in self._busy if not self._is_there(*block)]
        path = self._dataset.name
        self._dataset.close()
        if late and not _hold_values(path, late):
            raise RunError(
                f"{self._plan.name}: the disk did not take all of the GeoTIFF; free some space or choose another place"
            )

    def _is_there(self, band: int, area: RasterioWindow) -> bool:
        height, width = self._dataset.block_shapes[0]
        try:
            self._dataset.block_size(band, area.row_off // height, area.col_off // width)
        except (RasterBlockError, *GDAL_ERRORS):
            return False
        return True

    def close(self) -> None:
        """End the file."""
        self._dataset.close()


def _hold_values(path: str, blocks: Sequence[tuple[int, RasterioWindow]]) -> bool:
    """Whether there is more than one value in each of these blocks, given by band and place, of a finished file."""
    try:
        with read_dataset(path) as dataset:
            return all(_varies(dataset.read(band, window=area)) for band, area in blocks)
    except GDAL_ERRORS:
        return False


def _varies(plane: NDArray[Any]) -> bool:
    """Whether there is more than one value; NaN, which equals nothing, is one."""
    first, few = plane[:1, :1], plane[::32, ::32]  # which tell of nearly every plane
    return any(((some != first) & ((some == some) | (first == first))).any() for some in (few, plane))


def tile_shape(plan: Plan) -> tuple[int, int, int]:
    """Shape of a tile with all its channels."""
    return (plan.shape[0], int(plan.options["blockysize"]), int(plan.options["blockxsize"]))


def draft_path(plan: Plan, path: Path) -> Path:
    """Where the file is written first: a cloud-optimized one is made from a draft beside it."""
    return path.with_name(f".draft-{path.name}") if plan.cog else path


def begin_file(plan: Plan, draft: Path, **options: Any) -> TileWriter:
    """A file with everything but the values, and the writer of these; call inside :func:`gdal_environment`.

    Args:
        plan: of the file.
        draft: where to.
        options: creation options beside the plan's.
    """
    dataset = create_dataset(str(draft), **_profile(plan), **options)
    _describe(dataset, plan)
    return TileWriter.start(plan, dataset)


def finish_file(plan: Plan, path: Path) -> None:
    """What is made of the finished values: overviews, or the cloud-optimized file at ``path``, which ends the draft.

    Raises:
        RunError: it could not be made, or the file is not whole.
    """
    draft = draft_path(plan, path)
    check_whole(draft, f"{plan.name}: the GeoTIFF")
    if plan.cog:
        to_cog(draft, path, plan)
    elif plan.overviews:
        _build_overviews(path, plan)
        check_whole(path, f"{plan.name}: the GeoTIFF")


def stored_block(plan: Plan, window: Window, block: Block) -> tuple[Window, Block]:
    """Window and stored values with axes ``(c, y, x)``, and where there is a value, of a block of physical values."""
    values, valid = block
    if len(window) == 2:
        window = (slice(0, 1), *window)
        values, valid = values[None], None if valid is None else valid[None]
    encoding = plan.encoding.select(window[0])
    stored = encoding.encode(values, valid, channel_axis=0)
    if values.dtype.kind == "f" and np.dtype(encoding.dtype).kind != "f" and np.isnan(values).any():
        valid = ~np.isnan(values) if valid is None else valid & ~np.isnan(values)
    return window, Block(stored, valid)


def alpha_under(alpha: Raster, grid: Grid, window: tuple[slice, slice]) -> NDArray[Any]:
    """Values of a raster ``alpha`` of any resolution for the pixels of ``grid`` under ``window``, by nearest neighbour.

    Axes ``(y, x)``. A pixel takes the value of the coarse pixel that its centre lies in.
    """
    pixels = pixel_map(grid, alpha.grid)
    if not pixels.aligned:
        raise GeometryError(f"{alpha.name}: the alpha band's pixels do not lie along the raster's")
    rows, columns = (
        np.clip(np.floor((np.arange(part.start, part.stop) + 0.5) * s + t).astype(np.int64), 0, n - 1)
        for part, s, t, n in zip(window, pixels.scale, pixels.shift, alpha.grid.shape, strict=True)
    )
    spatial = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    lead = tuple(slice(0, 1) for _ in alpha.leading)
    values = alpha.read((*lead, *spatial)).values.reshape([s.stop - s.start for s in spatial])
    return values[np.ix_(rows - rows[0], columns - columns[0])]


def _profile(plan: Plan) -> dict[str, Any]:
    profile = dict(plan.options)
    profile |= {"count": plan.count, "height": plan.shape[1], "width": plan.shape[2]}
    profile["nodata"] = plan.encoding.nodata[0]
    if plan.facts.crs_wkt is not None:
        profile["crs"] = CRS.from_user_input(plan.facts.crs_wkt)
    if plan.facts.transform:
        profile["transform"] = rasterio.Affine(*plan.grid.affine[:2].ravel())
    return profile


def _describe(dataset: Any, plan: Plan) -> None:
    """Set everything but the values."""
    facts, bands = plan.facts, plan.bands
    colors = dict(zip(bands, facts.colors, strict=True))
    scales, offsets = dict(zip(bands, facts.scales, strict=True)), dict(zip(bands, facts.offsets, strict=True))
    units = dict(zip(bands, facts.units, strict=True))
    band_tags = dict(zip(bands, facts.band_tags, strict=True))
    names = dict(zip(bands, facts.descriptions, strict=True))
    if plan.alpha is not None:
        stated = facts.alpha or {}
        colors[plan.alpha_band] = int(ColorInterp.alpha)
        units[plan.alpha_band] = stated.get("unit")
        scales[plan.alpha_band], offsets[plan.alpha_band] = stated.get("scale", 1.0), stated.get("offset", 0.0)
        names[plan.alpha_band] = stated.get("description")
        band_tags[plan.alpha_band] = stated.get("tags") or {}
    every = range(1, dataset.count + 1)
    dataset.colorinterp = [ColorInterp(colors[b]) for b in every]
    if any(s != 1 for s in scales.values()) or any(o != 0 for o in offsets.values()):
        dataset.scales = [scales[b] for b in every]
        dataset.offsets = [offsets[b] for b in every]
    if any(units.values()):
        dataset.units = [units[b] or "" for b in every]
    for band in every:
        if names[band]:
            dataset.set_band_description(band, names[band])
        _set_tags(dataset, band_tags[band], band)
    _set_tags(dataset, facts.tags, None)
    if facts.gcps:
        shift = _gcp_shift() if facts.tags.get("", {}).get("AREA_OR_POINT") == "Point" else 0.0
        points = [
            GroundControlPoint(row=r - shift, col=c - shift, x=x, y=y, z=z, id=i, info=t)
            for r, c, x, y, z, i, t in facts.gcps
        ]
        dataset.gcps = (points, CRS.from_wkt(facts.gcps_wkt) if facts.gcps_wkt else CRS())
    if plan.provenance:
        dataset.update_tags(**plan.provenance)
    if plan.options["photometric"] == "palette":
        dataset.write_colormap(1, facts.colormaps[0])


@lru_cache(maxsize=1)
def _gcp_shift() -> float:
    """How far GDAL moves the GCPs of a pixel-is-point file on the way out and in again; 0 where it does that rightly.

    GDAL 3.10 adds half a pixel when writing and again when reading, where one of them should be taken off.
    """
    with MemoryFile() as memory:
        with create_dataset(memory.name, driver="GTiff", width=2, height=2, count=1, dtype="uint8") as dataset:
            dataset.update_tags(AREA_OR_POINT="Point")
            corners = [(r, c) for r in (0, 2) for c in (0, 2)]
            dataset.gcps = ([GroundControlPoint(row=r, col=c, x=c, y=r) for r, c in corners], CRS.from_epsg(4326))
        with read_dataset(memory.name) as dataset:
            return float(dataset.gcps[0][0].row)


def _set_tags(dataset: Any, tags: Mapping[str, Mapping[str, str]], band: int | None) -> None:
    where = {} if band is None else {"bidx": band}
    for domain, entries in tags.items():
        if domain.startswith("xml:"):
            # rasterio writes "key=value": a document is split at its first equals sign, so that it comes out whole
            text = next(iter(entries.values()))
            head, found, tail = text.partition("=")
            entries = {head: tail} if found else {"<?xml version": f'"1.0"?>{text}'}
        dataset.update_tags(**where, **({"ns": domain} if domain else {}), **entries)


def _build_overviews(path: Path, plan: Plan) -> None:
    options = {"GDAL_NUM_THREADS": "ALL_CPUS"}
    if "compress" in plan.options:
        options |= {"COMPRESS_OVERVIEW": plan.options["compress"], "PREDICTOR_OVERVIEW": plan.options["predictor"]}
    with rasterio.Env(**options), update_dataset(str(path)) as dataset:
        dataset.build_overviews(list(plan.overviews), Resampling[plan.resampling])

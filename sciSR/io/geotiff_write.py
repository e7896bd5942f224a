"""Writing GeoTIFF: what is to be written, decided before any work, and the writer that does it block by block."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError
from rasterio.windows import Window as RasterioWindow

from sciSR.encoding import Encoding, stored_mark
from sciSR.errors import GeometryError, InputError, MetadataWarning
from sciSR.grid import Grid
from sciSR.io.assemble import ChunkAssembler
from sciSR.io.geotiff_source import gdal_environment
from sciSR.io.geotiff_tags import Facts, PixelMap, pixel_map, restate
from sciSR.raster import Block, Raster, Window

__all__ = ["DTYPES", "GeoTiffWriter", "Plan", "make_plan"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""Types that a GeoTIFF holds and sciSR writes."""

_FAST = {"deflate": {"zlevel": 1}, "zstd": {"zstd_level": 1}, "lzw": {}, "none": {}}
"""Lossless compressions and their fastest level: level 1 is four to eight times faster than GDAL's default and costs
a few percent of size (measured on Sentinel-2: deflate 1 180 MB/s, deflate 6 40 MB/s, zstd 9 35 to 75 MB/s)."""


@dataclass(frozen=True)
class Plan:
    """Everything that an output will hold beside its values.

    Attributes:
        name: for messages.
        shape: channels, rows, columns.
        grid: of the output.
        encoding: how values are stored; one nodata for all channels.
        facts: tags and the like, restated for the output's pixels.
        options: GDAL creation options.
        overviews: factors, coarsest last.
        resampling: of the overviews.
        alpha: raster of the alpha band, or None.
        provenance: tags on how it was made.
        cog: whether the file is to be a cloud-optimized GeoTIFF.
    """

    name: str
    shape: tuple[int, int, int]
    grid: Grid
    encoding: Encoding
    facts: Facts
    options: Mapping[str, Any]
    overviews: tuple[int, ...]
    resampling: str
    alpha: Raster | None
    provenance: Mapping[str, str]
    cog: bool

    @property
    def bands(self) -> list[int]:
        """Band number of each channel."""
        numbers = list(range(1, self.shape[0] + 1 + (self.alpha is not None)))
        if self.alpha is not None:
            numbers.remove(self.alpha_band)
        return numbers

    @property
    def alpha_band(self) -> int:
        """Band number of the alpha band: where it was, or last."""
        stated = self.facts.alpha
        position = self.shape[0] if stated is None else min(int(stated["position"]), self.shape[0])
        return position + 1


def make_plan(
    raster: Raster, name: str, *, cog: bool = False, compress: str | None = None, overviews: bool | None = None
) -> Plan:
    """What writing ``raster`` as a GeoTIFF means; raises what would make it fail.

    Raises:
        InputError: a volume, a type that no GeoTIFF holds, or an unknown compression.
        GeometryError: a coordinate reference system that GDAL does not know.
    """
    if len(raster.grid.shape) != 2 or "t" in raster.axes:
        raise InputError(f"{name}: a raster with axes {raster.axes} came; a GeoTIFF holds scenes: save it as .nii.gz")
    if raster.encoding.dtype not in DTYPES:
        raise InputError(f"{name}: type {raster.encoding.dtype} cannot be written; expected one of {', '.join(DTYPES)}")
    channels = len(raster.channels)
    facts, pixels = _facts(raster, name)
    alpha = raster.auxiliary.get("alpha")
    encoding = _encoding(raster.encoding, channels, name)
    labels = bool(raster.metadata is not None and raster.metadata.items.get("labels"))
    if labels and encoding != raster.encoding:
        raise InputError(f"{name}: labels cannot be rescaled")
    shape = (channels, *raster.grid.shape)
    return Plan(
        name=name,
        shape=(shape[0], shape[1], shape[2]),
        grid=raster.grid,
        encoding=encoding,
        facts=facts,
        options=_creation_options(facts, encoding, shape, alpha is not None, compress, name),
        overviews=_overviews(facts, pixels, raster.grid.shape, overviews),
        resampling="nearest" if labels else "average",
        alpha=alpha,
        provenance=raster.provenance,
        cog=cog,
    )


def _facts(raster: Raster, name: str) -> tuple[Facts, PixelMap]:
    """The input's facts as they hold for the output; band entries follow the output's channels."""
    metadata = raster.metadata
    if metadata is None or metadata.format != "GeoTIFF":
        facts, pixels = Facts(), PixelMap()
    else:
        facts, pixels = Facts.from_dict(metadata.items), pixel_map(metadata.grid, raster.grid)
        facts = restate(facts, pixels, name)
        opened = metadata.items.get("opened")
        if opened is not None and (raster.encoding.scale, raster.encoding.offset) != opened:
            facts = replace(facts, scales=(), offsets=())
    facts = _for_channels(facts, raster, name)
    same_frame = metadata is not None and metadata.grid.frame == raster.grid.frame
    crs_wkt = facts.crs_wkt if same_frame and facts.crs_wkt else raster.grid.frame
    if crs_wkt is not None:
        try:
            CRS.from_user_input(crs_wkt)
        except CRSError as error:
            raise GeometryError(f"{name}: {crs_wkt!r} is no coordinate reference system that GDAL knows") from error
    return replace(facts, crs_wkt=crs_wkt), pixels


def _for_channels(facts: Facts, raster: Raster, name: str) -> Facts:
    """Band entries for the raster's own channels: found by position, or by name where channels were left out."""
    channels = raster.channels
    if len(facts.descriptions) == len(channels):
        order: list[int] | None = list(range(len(channels)))
    else:
        known = {d: i for i, d in enumerate(facts.descriptions) if d is not None}
        order = [known[c.name] for c in channels] if all(c.name in known for c in channels) else None
        if order is None and facts.descriptions:
            _warn(f"{name}: {len(channels)} channels came of {len(facts.descriptions)} bands; band tags are dropped")
    chosen = {
        key: tuple(getattr(facts, key)[i] for i in order) if order and getattr(facts, key) else ()
        for key in ("band_tags", "scales", "offsets", "colors", "colormaps")
    }
    scale, offset = (_per_channel(v, len(channels)) for v in (raster.encoding.scale, raster.encoding.offset))
    return replace(
        facts,
        band_tags=chosen["band_tags"] or ({},) * len(channels),
        scales=chosen["scales"] or scale,
        offsets=chosen["offsets"] or offset,
        colors=chosen["colors"] or (1, *[0] * (len(channels) - 1)),
        colormaps=chosen["colormaps"] or (None,) * len(channels),
        descriptions=tuple(c.name for c in channels),
        units=tuple(c.unit for c in channels),
        alpha=facts.alpha if order is not None and len(order) == len(facts.descriptions) else None,
    )


def _per_channel(values: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    return values * count if len(values) == 1 else values


def _encoding(encoding: Encoding, channels: int, name: str) -> Encoding:
    """The encoding with one nodata value, as a TIFF can hold only one."""
    wanted = list(dict.fromkeys(_key(v) for v in encoding.nodata))
    dtype = np.dtype(encoding.dtype)
    usable = [v for v in encoding.nodata if v is not None and _fits(v, dtype)]
    lost = [v for v in encoding.nodata if v is not None and not _fits(v, dtype)]
    if lost:
        _warn(f"{name}: nodata {lost[0]} cannot occur in {dtype.name} and is not written")
    chosen = usable[0] if usable else None
    if len(wanted) > 1 and chosen is not None:
        _warn(f"{name}: a GeoTIFF has one nodata value; {chosen} is used for all bands, was {encoding.nodata}")
    scale, offset = _per_channel(encoding.scale, channels), _per_channel(encoding.offset, channels)
    return replace(encoding, scale=scale, offset=offset, nodata=(chosen,))


def _key(nodata: float | None) -> str:
    return repr(nodata)


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    return bool(np.isnan(nodata)) if dtype.kind == "f" and np.isnan(nodata) else stored_mark(nodata, dtype) is not None


def _warn(message: str) -> None:
    warnings.warn(message, MetadataWarning, stacklevel=4)


def _creation_options(
    facts: Facts, encoding: Encoding, shape: tuple[int, ...], alpha: bool, compress: str | None, name: str
) -> dict[str, Any]:
    """Creation options that follow the input's layout where that is sane: tiled always, lossless always, fast."""
    layout = facts.layout
    followed = layout.get("compression")
    chosen = (compress or (followed if followed in _FAST else None) or "deflate").lower()
    if chosen not in _FAST:
        raise InputError(f"{name}: compression {compress!r} came; expected one of {', '.join(_FAST)}")
    options: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": encoding.dtype,
        "interleave": layout.get("interleave", "pixel" if shape[0] <= 4 else "band"),
        "tiled": True,
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
        **dict(zip(("blockysize", "blockxsize"), _block(layout, shape), strict=True)),
        **_FAST[chosen],
        **facts.color_profile,
    }
    if options["interleave"] not in ("pixel", "band"):
        options["interleave"] = "band"
    if chosen != "none":
        options["compress"] = chosen
        options["predictor"] = 3 if encoding.dtype.startswith("float") else 2
    if encoding.dtype in ("uint64", "int64") and chosen != "none":
        options["predictor"] = 2
    if shape[0] == 1 and facts.colormaps and facts.colormaps[0]:
        options["photometric"] = "palette"
    elif tuple(facts.colors[:3]) == (3, 4, 5):
        options["photometric"] = "rgb"
    else:
        options["photometric"] = "minisblack"
    if alpha and facts.alpha and facts.alpha.get("kind") == "PREMULTIPLIED":
        options["alpha"] = "premultiplied"
    return options


def _block(layout: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, int]:
    """The input's own tile shape where it is tiled sanely, else 512; smaller for a smaller image."""
    block = layout.get("block", (512, 512)) if layout.get("tiled") else (512, 512)
    sane = all(128 <= n <= 1024 and n % 16 == 0 for n in block)
    rows, columns = block if sane else (512, 512)
    return min(rows, -(-shape[1] // 16) * 16), min(columns, -(-shape[2] // 16) * 16)


def _overviews(facts: Facts, pixels: PixelMap, shape: tuple[int, ...], wanted: bool | None) -> tuple[int, ...]:
    """Powers of two: as coarse as the input's coarsest overview was, or until the image fits a tile."""
    had = facts.layout.get("overviews") or []
    if wanted is False or (wanted is None and not had):
        return ()
    coarsest = max(had) * max(1.0, *pixels.scale) if had else max(shape) / 512
    factors = [2]
    while factors[-1] < coarsest - 1e-6:
        factors.append(factors[-1] * 2)
    return tuple(f for f in factors if min(shape) // f >= 1)


class GeoTiffWriter:
    """Takes blocks in any order, gathers whole TIFF tiles, and writes each once; GDAL compresses them in threads."""

    order: Literal["any", "slabs"] = "any"

    def __init__(self, plan: Plan, path: Path, dataset: Any, resources: ExitStack) -> None:
        self.chunks = (plan.shape[0], int(plan.options["blockysize"]), int(plan.options["blockxsize"]))
        self._plan = plan
        self._path = path
        self._dataset = dataset
        self._resources = resources
        self._parts = ChunkAssembler(plan.shape, self.chunks, np.dtype(plan.encoding.dtype))
        self._masked = False
        self._axis_missing = False

    @classmethod
    def start(cls, plan: Plan, path: Path) -> GeoTiffWriter:
        """A writer whose file is begun: everything but the values is set."""
        resources = ExitStack()
        resources.enter_context(gdal_environment(str(path)))
        try:
            dataset = rasterio.open(path, "w", **_profile(plan))
            _describe(dataset, plan)
        except BaseException:
            resources.close()
            raise
        writer = cls(plan, path, dataset, resources)
        if plan.encoding.mask and (plan.alpha is None or plan.facts.mask):
            writer._begin_mask()
        return writer

    def write(self, window: Window, block: Block) -> None:
        """Take the values of ``window``."""
        values, valid = block
        if len(window) == 2:
            window = (slice(0, 1), *window)
            values, valid = values[None], None if valid is None else valid[None]
        encoding = self._plan.encoding.select(window[0])
        stored = encoding.encode(values, valid, channel_axis=0)
        if values.dtype.kind == "f" and np.dtype(encoding.dtype).kind != "f" and np.isnan(values).any():
            valid = ~np.isnan(values) if valid is None else valid & ~np.isnan(values)
        for whole, chunk in self._parts.add(window, Block(stored, valid)):
            self._put(whole, chunk)

    def finish(self) -> None:
        """Complete the file, with its overviews."""
        self._parts.close()
        self._dataset.close()
        try:
            if self._plan.overviews:
                _build_overviews(self._path, self._plan)
        finally:
            self._resources.close()

    def abort(self) -> None:
        """Release the file."""
        self._dataset.close()
        self._resources.close()

    def _put(self, window: Window, chunk: Block) -> None:
        area = RasterioWindow.from_slices(*((w.start, w.stop) for w in window[1:]))
        stored, bands = chunk.values, self._plan.bands
        if self._plan.alpha is not None:
            alpha = alpha_under(self._plan.alpha, self._plan.grid, (window[1], window[2]))
            stored = np.concatenate([stored, alpha.astype(stored.dtype)[None]])
            bands = [*bands, self._plan.alpha_band]
        self._dataset.write(stored, bands, window=area)
        if chunk.valid is None or chunk.valid.all():
            return
        marked = self._plan.encoding.nodata[0] is not None or stored.dtype.kind == "f"
        if not self._masked and not marked and self._plan.alpha is None:
            self._begin_mask()
        if self._masked:
            # where bands mark their own holes the mask need only say where nothing is valid
            valid = chunk.valid.any(axis=0) if marked else chunk.valid.all(axis=0)
            self._dataset.write_mask(valid, window=area)

    def _begin_mask(self) -> None:
        self._dataset.write_mask(True)
        self._masked = True


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
    profile |= {"count": plan.shape[0] + (plan.alpha is not None), "height": plan.shape[1], "width": plan.shape[2]}
    profile["nodata"] = plan.encoding.nodata[0]
    if plan.facts.crs_wkt is not None:
        profile["crs"] = CRS.from_user_input(plan.facts.crs_wkt)
    if plan.facts.transform:
        profile["transform"] = rasterio.Affine(*plan.grid.affine[:2].ravel())
    return profile


def _describe(dataset: Any, plan: Plan) -> None:
    """Set everything but the values."""
    facts, bands = plan.facts, plan.bands
    if facts.gcps:
        points = [GroundControlPoint(row=r, col=c, x=x, y=y, z=z, id=i, info=t) for r, c, x, y, z, i, t in facts.gcps]
        dataset.gcps = (points, CRS.from_wkt(facts.gcps_wkt) if facts.gcps_wkt else CRS())
    colors = dict(zip(bands, facts.colors, strict=True))
    scales, offsets = dict(zip(bands, facts.scales, strict=True)), dict(zip(bands, facts.offsets, strict=True))
    units = dict(zip(bands, facts.units, strict=True))
    band_tags = dict(zip(bands, facts.band_tags, strict=True))
    names = dict(zip(bands, facts.descriptions, strict=True))
    if plan.alpha is not None:
        stated = facts.alpha or {}
        colors[plan.alpha_band] = int(ColorInterp.alpha)
        names[plan.alpha_band] = stated.get("description")
        band_tags[plan.alpha_band] = stated.get("tags") or {}
    every = range(1, dataset.count + 1)
    dataset.colorinterp = [ColorInterp(colors[b]) for b in every]
    if any(s != 1 for s in scales.values()) or any(o != 0 for o in offsets.values()):
        dataset.scales = [scales.get(b, 1.0) for b in every]
        dataset.offsets = [offsets.get(b, 0.0) for b in every]
    if any(units.values()):
        dataset.units = [units.get(b) or "" for b in every]
    for band in every:
        if names[band]:
            dataset.set_band_description(band, names[band])
        _set_tags(dataset, band_tags[band], band)
    _set_tags(dataset, facts.tags, None)
    if plan.provenance:
        dataset.update_tags(**plan.provenance)
    if plan.options["photometric"] == "palette":
        dataset.write_colormap(1, facts.colormaps[0])


def _set_tags(dataset: Any, tags: Mapping[str, Mapping[str, str]], band: int | None) -> None:
    where = {} if band is None else {"bidx": band}
    for domain, entries in tags.items():
        if domain.startswith("xml:"):
            # rasterio writes "key=value": a document is split at its first equals sign, so that it comes out whole
            text = next(iter(entries.values())).removeprefix(f"{domain}=")
            head, found, tail = text.partition("=")
            entries = {head: tail} if found else {"<?xml version": f'"1.0"?>{text}'}
        dataset.update_tags(**where, **({"ns": domain} if domain else {}), **entries)


def _build_overviews(path: Path, plan: Plan) -> None:
    options = {"GDAL_NUM_THREADS": "ALL_CPUS"}
    if "compress" in plan.options:
        options |= {"COMPRESS_OVERVIEW": plan.options["compress"], "PREDICTOR_OVERVIEW": plan.options["predictor"]}
    with rasterio.Env(**options), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(list(plan.overviews), Resampling[plan.resampling])

"""What a GeoTIFF will hold beside its values, decided before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from sciSR.encoding import Encoding, stored_mark
from sciSR.errors import GeometryError, InputError
from sciSR.grid import Grid
from sciSR.io.geotiff_open import FORMAT
from sciSR.io.geotiff_tags import Facts, PixelMap, pixel_map, restate, warn_of
from sciSR.raster import Raster

__all__ = ["DTYPES", "Plan", "make_plan"]

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
    def wkt(self) -> str | None:
        """The coordinate reference system as WKT."""
        return None if self.facts.crs_wkt is None else str(CRS.from_user_input(self.facts.crs_wkt).to_wkt())

    @property
    def count(self) -> int:
        """Number of bands."""
        return self.shape[0] + (self.alpha is not None)

    @property
    def bands(self) -> list[int]:
        """Band number of each channel."""
        numbers = list(range(1, self.count + 1))
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
    raster: Raster,
    name: str,
    *,
    cog: bool = False,
    compress: str | None = None,
    overviews: bool | None = None,
    dtype: str | None = None,
    tell: Callable[[str], None] = warn_of,
) -> Plan:
    """What writing ``raster`` as a GeoTIFF means; raises what would make it fail.

    Args:
        raster: the scene.
        name: for messages.
        cog: whether to write a cloud-optimized GeoTIFF.
        compress: deflate, zstd, lzw or none; None: as the input where that is lossless, else deflate.
        overviews: whether to; None: as the input.
        dtype: stored type; None: the raster's own.
        tell: called with each thing that the input says and the file cannot.

    Raises:
        InputError: a volume, a type that no GeoTIFF holds, or an unknown compression.
        GeometryError: a coordinate reference system that GDAL does not know.
    """
    if len(raster.grid.shape) != 2 or "t" in raster.axes:
        raise InputError(f"{name}: a raster with axes {raster.axes} came; a GeoTIFF holds scenes: save it as .nii.gz")
    stored = dtype or raster.encoding.dtype
    if stored not in DTYPES:
        raise InputError(f"{name}: type {stored} cannot be written; expected one of {', '.join(DTYPES)}")
    channels = len(raster.channels)
    facts, pixels = _facts(raster, name, tell)
    alpha = raster.auxiliary.get("alpha")
    encoding = _encoding(replace(raster.encoding, dtype=stored), channels, name, tell)
    labels = bool(raster.metadata is not None and raster.metadata.items.get("labels"))
    shape = (channels, *raster.grid.shape)
    return Plan(
        name=name,
        shape=(shape[0], shape[1], shape[2]),
        grid=raster.grid,
        encoding=encoding,
        facts=facts,
        options=_creation_options(facts, encoding, shape, alpha is not None, labels, compress, name),
        overviews=_overviews(facts, pixels, raster.grid.shape, overviews),
        resampling="nearest" if labels else "average",
        alpha=alpha,
        provenance=raster.provenance,
        cog=cog,
    )


def _facts(raster: Raster, name: str, tell: Callable[[str], None]) -> tuple[Facts, PixelMap]:
    """The input's facts as they hold for the output; band entries follow the output's channels."""
    metadata = raster.metadata
    if metadata is None or metadata.format != FORMAT:
        facts, pixels = Facts(), PixelMap()
    else:
        facts, pixels = Facts.from_dict(metadata.items), pixel_map(metadata.grid, raster.grid)
        facts = restate(facts, pixels, name, tell)
        if not pixels.aligned:  # which grids in different frames never are
            facts = replace(facts, transform=True)  # whatever the file lacked, the raster has been placed since
        opened = metadata.items.get("opened")
        if opened is not None and (raster.encoding.scale, raster.encoding.offset) != opened:
            facts = replace(facts, scales=(), offsets=())
    facts = _for_channels(facts, raster, name, tell)
    same_frame = metadata is not None and metadata.grid.frame == raster.grid.frame
    if facts.gcps and facts.transform:
        tell(f"{name}: a GeoTIFF holds a transform or GCPs, not both; the GCPs are dropped")
        facts = replace(facts, gcps=())
    if metadata is None and raster.grid.frame is None and np.array_equal(raster.grid.affine, np.eye(3)):
        facts = replace(facts, transform=False)
    crs_wkt = facts.crs_wkt if same_frame and facts.crs_wkt else raster.grid.frame
    if crs_wkt is not None:
        try:
            CRS.from_user_input(crs_wkt)
        except CRSError as error:
            raise GeometryError(f"{name}: {crs_wkt!r} is no coordinate reference system that GDAL knows") from error
    return replace(facts, crs_wkt=crs_wkt), pixels


def _for_channels(facts: Facts, raster: Raster, name: str, tell: Callable[[str], None]) -> Facts:
    """Band entries for the raster's own channels: found by position, or by name where channels were left out."""
    channels = raster.channels
    if len(facts.descriptions) == len(channels):
        order: list[int] | None = list(range(len(channels)))
    else:
        known = {d: i for i, d in enumerate(facts.descriptions) if d is not None}
        found = [known.get(c.name) if c.name else None for c in channels]
        order = None if None in found else [i for i in found if i is not None]
        if order is None and facts.descriptions:
            tell(f"{name}: {len(channels)} channels came of {len(facts.descriptions)} bands; band tags are dropped")
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


def _encoding(encoding: Encoding, channels: int, name: str, tell: Callable[[str], None]) -> Encoding:
    """The encoding with one nodata value, as a TIFF can hold only one."""
    wanted = {repr(v) for v in encoding.nodata}
    dtype = np.dtype(encoding.dtype)
    usable = [v for v in encoding.nodata if v is not None and _fits(v, dtype)]
    lost = [v for v in encoding.nodata if v is not None and not _fits(v, dtype)]
    if lost:
        tell(f"{name}: nodata {lost[0]} cannot occur in {dtype.name} and is not written")
    chosen = usable[0] if usable else None
    if len(wanted) > 1 and chosen is not None:
        tell(f"{name}: a GeoTIFF has one nodata value; {chosen} is used for all bands, was {encoding.nodata}")
    scale, offset = _per_channel(encoding.scale, channels), _per_channel(encoding.offset, channels)
    return replace(encoding, scale=scale, offset=offset, nodata=(chosen,))


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    return bool(np.isnan(nodata)) if dtype.kind == "f" and np.isnan(nodata) else stored_mark(nodata, dtype) is not None


def _creation_options(
    facts: Facts, encoding: Encoding, shape: tuple[int, ...], alpha: bool, labels: bool, compress: str | None, name: str
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
    if labels and layout.get("bits") == "1":
        options["nbits"] = 1
        options.pop("predictor", None)
    if shape[0] == 1 and facts.colormaps[0] and encoding.dtype in ("uint8", "uint16"):
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

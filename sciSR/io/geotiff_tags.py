"""What a GDAL dataset says beside its values: collected as it stands, and restated for another pixel grid.

Tags are kept verbatim as strings. What describes the old pixels is restated (GCPs, RPCs, print resolution, geolocation
arrays), and what would no longer be true (statistics, histograms) is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from sciSR.errors import MetadataWarning
from sciSR.grid import Grid
from sciSR.io.geotiff_datasets import has_transform

__all__ = ["Facts", "PixelMap", "Tags", "collect", "is_stale", "pixel_map", "restate", "warn_of"]

Tags = dict[str, dict[str, str]]
"""Domain (``""`` is the default one) -> key -> value."""

DRIVER_DOMAINS = frozenset(
    {"IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "COLOR_PROFILE", "TIFF", "RPC", "xml:VRT", "LocationInfo"}
)
"""Domains that GDAL's drivers make themselves, or that have a way of their own (RPC, COLOR_PROFILE)."""

_STALE_PREFIXES = ("STATISTICS_", "HISTOGRAM")
_STALE = frozenset({"TIFFTAG_MINSAMPLEVALUE", "TIFFTAG_MAXSAMPLEVALUE"})
_PROFILE_KEYS = (
    "SOURCE_ICC_PROFILE",
    "SOURCE_PRIMARIES_RED",
    "SOURCE_PRIMARIES_GREEN",
    "SOURCE_PRIMARIES_BLUE",
    "SOURCE_WHITEPOINT",
    "TIFFTAG_TRANSFERFUNCTION_RED",
    "TIFFTAG_TRANSFERFUNCTION_GREEN",
    "TIFFTAG_TRANSFERFUNCTION_BLUE",
    "TIFFTAG_TRANSFERRANGE_BLACK",
    "TIFFTAG_TRANSFERRANGE_WHITE",
)


@dataclass(frozen=True)
class Facts:
    """What a file says beside values, grid and encoding; band entries follow the raster's channels.

    Attributes:
        tags: dataset tags by domain.
        band_tags: the same per channel.
        descriptions: band descriptions, None where there is none.
        units: band units, None where there is none.
        scales: scale that the file itself states per channel.
        offsets: offset that the file itself states per channel.
        colors: colour interpretation per channel, GDAL's numbers.
        colormaps: colour table per channel, or None.
        crs_wkt: the coordinate reference system as the file has it, or None.
        transform: whether the file has an affine transform at all.
        gcps: ground control points ``(row, col, x, y, z, id, info)``, corner convention.
        gcps_wkt: their coordinate reference system.
        color_profile: creation options that restore the colour profile.
        layout: compression, predictor, interleave, block, overviews of the file.
        mask: whether there is a per-dataset mask.
        alpha: the alpha band: its ``position`` among the bands (from 0), ``description``, ``unit``, ``scale``,
            ``offset``, ``tags``, ``kind``, or None.
    """

    tags: Tags = field(default_factory=dict)
    band_tags: tuple[Tags, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    units: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    colors: tuple[int, ...] = ()
    colormaps: tuple[dict[int, tuple[int, ...]] | None, ...] = ()
    crs_wkt: str | None = None
    transform: bool = True
    gcps: tuple[tuple[Any, ...], ...] = ()
    gcps_wkt: str | None = None
    color_profile: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    mask: bool = False
    alpha: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Attribute -> value."""
        return dict(self.__dict__)

    def to_json(self) -> dict[str, Any]:
        """Values that JSON can hold; :meth:`from_json` is the inverse."""
        return self.to_dict() | {"colormaps": [None if m is None else list(m.items()) for m in self.colormaps]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Facts:
        """The facts of :meth:`to_json`'s values after they went through JSON, which knows no tuples."""
        lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        lists["gcps"] = tuple(tuple(p) for p in values["gcps"])
        tables = ({int(k): tuple(c) for k, c in m} if m is not None else None for m in values["colormaps"])
        layout = {k: tuple(v) if k == "block" else v for k, v in values["layout"].items()}
        return cls.from_dict({**values, **lists, "colormaps": tuple(tables), "layout": layout})

    @classmethod
    def from_dict(cls, items: Mapping[str, Any]) -> Facts:
        """The inverse of :meth:`to_dict`; other keys are passed over."""
        return cls(**{key: items[key] for key in cls.__dataclass_fields__ if key in items})


def collect(dataset: Any, bands: tuple[int, ...], alpha: int | None, mask: bool) -> Facts:
    """The facts of an open rasterio dataset; ``bands`` are those that become channels."""
    index = [band - 1 for band in bands]
    points, points_crs = dataset.gcps
    gcps = tuple((p.row, p.col, p.x, p.y, p.z, p.id, p.info) for p in points)
    return Facts(
        tags=_tags(dataset, None),
        band_tags=tuple(_tags(dataset, band) for band in bands),
        descriptions=tuple(dataset.descriptions[i] or None for i in index),
        units=tuple(dataset.units[i] or None for i in index),
        scales=tuple(float(dataset.scales[i]) for i in index),
        offsets=tuple(float(dataset.offsets[i]) for i in index),
        colors=tuple(int(dataset.colorinterp[i]) for i in index),
        colormaps=tuple(_colormap(dataset, band) for band in bands),
        crs_wkt=dataset.crs.to_wkt() if dataset.crs else None,
        transform=has_transform(dataset),
        gcps=gcps,
        gcps_wkt=points_crs.to_wkt() if points_crs else None,
        color_profile={k: v for k, v in dataset.tags(ns="COLOR_PROFILE").items() if k in _PROFILE_KEYS},
        layout=_layout(dataset),
        mask=mask,
        alpha=None if alpha is None else _alpha(dataset, alpha),
    )


def _tags(dataset: Any, band: int | None) -> Tags:
    domains = ["", *dataset.tag_namespaces(*([] if band is None else [band]))]
    wanted = [d for d in domains if d not in DRIVER_DOMAINS or (d == "RPC" and band is None)]
    found = {}
    for domain in wanted:
        entries = dataset.tags(**({} if band is None else {"bidx": band}), **({"ns": domain} if domain else {}))
        if entries:
            found[domain] = {str(k): str(v) for k, v in entries.items()}
    if band is None and "RPC" not in found and (rpc := dataset.tags(ns="RPC")):
        found["RPC"] = dict(rpc)
    return found


def _colormap(dataset: Any, band: int) -> dict[int, tuple[int, ...]] | None:
    try:
        table: dict[int, tuple[int, ...]] = dataset.colormap(band)
    except ValueError:  # rasterio's way to say that there is none
        return None
    return table


def _alpha(dataset: Any, band: int) -> dict[str, Any]:
    return {
        "position": band - 1,
        "description": dataset.descriptions[band - 1] or None,
        "unit": dataset.units[band - 1] or None,
        "scale": float(dataset.scales[band - 1]),
        "offset": float(dataset.offsets[band - 1]),
        "tags": _tags(dataset, band),
        "kind": dataset.tags(band, ns="IMAGE_STRUCTURE").get("ALPHA"),
    }


def _layout(dataset: Any) -> dict[str, Any]:
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    height, width = dataset.block_shapes[0]
    try:
        overviews = [int(o) for o in dataset.overviews(1)]
    except RasterioError:
        overviews = []
    return {
        "driver": dataset.driver,
        "compression": structure.get("COMPRESSION", "").lower() or None,
        "predictor": int(structure["PREDICTOR"]) if "PREDICTOR" in structure else None,
        "interleave": structure.get("INTERLEAVE", "BAND").lower(),
        "cog": structure.get("LAYOUT") == "COG",
        "block": (int(height), int(width)),
        "tiled": width < dataset.width or (width % 16 == 0 and height % 16 == 0),
        "overviews": overviews,
        "bits": dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"),
    }


def is_stale(key: str) -> bool:
    """Whether a tag describes the old values and would be wrong beside new ones."""
    return key.upper().startswith(_STALE_PREFIXES) or key.upper() in _STALE


@dataclass(frozen=True)
class PixelMap:
    """How index points of a file move to another grid of the same axes: ``new = old * scale + shift``, per axis.

    Corner convention. ``aligned`` is false where the grids are turned against each other, so that no such map exists.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    aligned: bool = True

    @property
    def unchanged(self) -> bool:
        """Whether pixels stay what they are."""
        return self.aligned and self.scale == (1.0, 1.0) and self.shift == (0.0, 0.0)

    def point(self, row: float, col: float) -> tuple[float, float]:
        """Where the index point ``(row, col)`` comes to lie."""
        return row * self.scale[0] + self.shift[0], col * self.scale[1] + self.shift[1]

    def center(self, value: float, axis: int) -> float:
        """Where a position counted from pixel centres comes to lie, axis 0 (rows) or 1 (columns)."""
        return (value + 0.5) * self.scale[axis] + self.shift[axis] - 0.5


def pixel_map(old: Grid, new: Grid) -> PixelMap:
    """The map from index points of ``old`` to those of ``new``, both two-dimensional."""
    if old.frame != new.frame:
        return PixelMap(aligned=False)
    relative: NDArray[Any] = np.linalg.solve(new.affine, old.affine)
    skew = np.abs([relative[0, 1], relative[1, 0]]).max()
    if skew > 1e-9 * max(relative[0, 0], relative[1, 1]) or min(relative[0, 0], relative[1, 1]) <= 0:
        return PixelMap(aligned=False)
    scale = tuple(_tidy(float(relative[i, i]), tuple(new.shape)[1 - i] / old.shape[1 - i]) for i in (1, 0))
    shift = tuple(_tidy(float(relative[i, 2]), round(float(relative[i, 2]))) for i in (1, 0))
    return PixelMap((scale[0], scale[1]), (shift[0], shift[1]))


def _tidy(value: float, exact: float) -> float:
    """``exact`` where ``value`` is that up to rounding."""
    return float(exact) if abs(value - exact) <= 1e-9 * max(1.0, abs(exact)) else value


def warn_of(message: str) -> None:
    """Warn that something is lost."""
    warnings.warn(message, MetadataWarning, stacklevel=4)


def restate(facts: Facts, pixels: PixelMap, name: str, tell: Callable[[str], None] = warn_of) -> Facts:
    """The facts as they hold on another grid; what cannot be restated is dropped.

    Args:
        facts: of the old grid.
        pixels: from the old grid to the new.
        name: for messages.
        tell: called with each thing that is dropped.
    """
    tags = {domain: {k: v for k, v in entries.items() if not is_stale(k)} for domain, entries in facts.tags.items()}
    band_tags = tuple(
        {domain: {k: v for k, v in entries.items() if not is_stale(k)} for domain, entries in band.items()}
        for band in facts.band_tags
    )
    gcps = facts.gcps
    if not pixels.aligned:
        for domain in ("RPC", "GEOLOCATION"):
            if tags.pop(domain, None):
                tell(f"{name}: {domain} dropped: the result's pixels are not an upright refinement of the input's")
        if gcps:
            gcps = ()
            tell(f"{name}: GCPs dropped: the result's pixels are not an upright refinement of the input's")
    elif not pixels.unchanged:
        gcps = tuple((*pixels.point(p[0], p[1]), *p[2:]) for p in gcps)
        if "RPC" in tags:
            tags["RPC"] = _rpc(tags["RPC"], pixels)
        if "GEOLOCATION" in tags:
            tags["GEOLOCATION"] = _geolocation(tags["GEOLOCATION"], pixels)
        tags[""] = _resolution(tags.get("", {}), pixels)
    tags = _locatable(tags, name, tell)
    return replace(facts, tags={d: e for d, e in tags.items() if e}, band_tags=band_tags, gcps=gcps)


def _rpc(rpc: Mapping[str, str], pixels: PixelMap) -> dict[str, str]:
    """RPCs count from pixel centres: ``OFF' = (OFF + 0.5) s - 0.5`` and ``SCALE' = SCALE s``; coefficients stay."""
    out = dict(rpc)
    for axis, word in enumerate(("LINE", "SAMP")):
        out[f"{word}_OFF"] = repr(pixels.center(_number(rpc[f"{word}_OFF"]), axis))
        out[f"{word}_SCALE"] = repr(_number(rpc[f"{word}_SCALE"]) * pixels.scale[axis])
    return out


def _number(text: str) -> float:
    """The number at the start of ``text``, which may carry its unit behind it (``"300 pixels"``)."""
    return float(text.split()[0])


def _geolocation(entries: Mapping[str, str], pixels: PixelMap) -> dict[str, str]:
    """Sample ``i`` of a geolocation array belongs to pixel ``OFFSET + i * STEP`` (GDAL RFC 4)."""
    out = dict(entries)
    centered = entries.get("GEOREFERENCING_CONVENTION", "TOP_LEFT_CORNER").upper() == "PIXEL_CENTER"
    for axis, word in enumerate(("LINE", "PIXEL")):
        offset = float(entries.get(f"{word}_OFFSET", 0))
        moved = pixels.center(offset, axis) if centered else offset * pixels.scale[axis] + pixels.shift[axis]
        out[f"{word}_OFFSET"] = f"{moved:.15g}"
        out[f"{word}_STEP"] = f"{float(entries.get(f'{word}_STEP', 1)) * pixels.scale[axis]:.15g}"
    return out


def _locatable(tags: Tags, name: str, tell: Callable[[str], None]) -> Tags:
    """The tags without geolocation arrays that a file elsewhere could not find."""
    entries = tags.get("GEOLOCATION")
    if not entries:
        return tags
    relative = entries.get("X_DATASET_RELATIVE_TO_SOURCE", "NO").upper() == "YES"
    if relative or not entries.get("X_DATASET", "").startswith(("/", "http")):
        tell(f"{name}: GEOLOCATION dropped: its arrays are named relative to the input; give them an absolute path")
        return {domain: value for domain, value in tags.items() if domain != "GEOLOCATION"}
    return tags


def _resolution(entries: Mapping[str, str], pixels: PixelMap) -> dict[str, str]:
    """Print resolution (pixels per inch or centimetre) grows with the pixel count."""
    out = dict(entries)
    for key, axis in (("TIFFTAG_XRESOLUTION", 1), ("TIFFTAG_YRESOLUTION", 0)):
        if key in out:
            out[key] = f"{_number(out[key]) * pixels.scale[axis]:.15g}"
    return out

"""What ``scisr info`` tells of a scene beyond what every raster has, from its header alone."""

from __future__ import annotations

from typing import Any

from rasterio.enums import ColorInterp, MaskFlags

from sciSR.io.geotiff_source import header
from sciSR.io.geotiff_tags import DRIVER_DOMAINS

__all__ = ["describe_scene"]

_SHOWN_TAGS = 40


def describe_scene(path: str) -> dict[str, Any]:
    """Plain values: driver and layout, georeference, validity, bands, tags.

    Raises:
        FormatError: GDAL cannot open it.
    """
    with header(path) as dataset:
        if not dataset.count:
            return {"driver": dataset.driver, "bands": "none", "subdatasets": list(dataset.subdatasets)}
        facts: dict[str, Any] = {"driver": dataset.driver, **_layout(dataset), **_georeference(dataset)}
        facts["validity"] = _validity(dataset)
        facts["bands"] = [_band(dataset, band) for band in dataset.indexes]
        tags = {"": dataset.tags()} | {
            d: dataset.tags(ns=d) for d in dataset.tag_namespaces() if d not in DRIVER_DOMAINS
        }
        facts["tags"] = {
            (domain if domain.startswith("xml:") else f"{domain}:{key}" if domain else key): value
            for domain, entries in tags.items()
            for key, value in list(entries.items())[:_SHOWN_TAGS]
        }
    return facts


def _layout(dataset: Any) -> dict[str, Any]:
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    rows, columns = dataset.block_shapes[0]
    predictor = f", predictor {structure['PREDICTOR']}" if "PREDICTOR" in structure else ""
    blocks = "tiled" if columns < dataset.width else "strips"
    return {
        "layout": "cloud-optimized" if structure.get("LAYOUT") == "COG" else blocks,
        "block": f"{columns} x {rows} px, {structure.get('INTERLEAVE', 'BAND').lower()} interleaved",
        "compression": structure.get("COMPRESSION", "none").lower() + predictor,
        "overviews": ", ".join(f"1/{factor}" for factor in dataset.overviews(1)) or "none",
    }


def _georeference(dataset: Any) -> dict[str, Any]:
    crs = dataset.crs
    points, points_crs = dataset.gcps
    code = crs.to_epsg() if crs else None
    facts: dict[str, Any] = {"crs": "none" if not crs else f"EPSG:{code}" if code else crs.to_wkt().split('"')[1]}
    if dataset.transform.is_identity:
        facts["transform"] = "none"
    else:
        facts["transform"] = [float(v) for v in list(dataset.transform)[:6]]
    if "AREA_OR_POINT" in dataset.tags():
        facts["pixel_is"] = dataset.tags()["AREA_OR_POINT"].lower()
    if points:
        code = points_crs.to_epsg() if points_crs else None
        facts["gcps"] = f"{len(points)} points" + (f" in EPSG:{code}" if code else "")
    if dataset.tags(ns="RPC"):
        facts["rpcs"] = "rational polynomial coefficients"
    return facts


def _validity(dataset: Any) -> str:
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    found = []
    if any(v is not None for v in dataset.nodatavals):
        values = sorted({f"{v:.10g}" for v in dataset.nodatavals if v is not None})
        found.append(f"nodata {', '.join(values)}")
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        found.append("a mask")
    if ColorInterp.alpha in dataset.colorinterp:
        found.append(f"alpha band {dataset.colorinterp.index(ColorInterp.alpha) + 1}")
    return ", ".join(found) or "every pixel"


def _band(dataset: Any, band: int) -> dict[str, Any]:
    at = band - 1
    facts = {
        "band": band,
        "description": dataset.descriptions[at],
        "type": dataset.dtypes[at],
        "color": dataset.colorinterp[at].name,
        "unit": dataset.units[at],
    }
    if dataset.scales[at] != 1 or dataset.offsets[at] != 0:
        facts |= {"scale": dataset.scales[at], "offset": dataset.offsets[at]}
    if tags := dataset.tags(band):
        facts["tags"] = tags
    return facts

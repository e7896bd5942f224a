"""Cloud-optimized GeoTIFF: a finished GeoTIFF laid out anew by GDAL's COG driver, with nothing of it lost.

The driver copies the tags of the default domain only, or those of the other domains at the price of the bands' own
(GDAL 3.10, COPY_SRC_MDD). So room is reserved in its GDALMetadata tag, and the full text is put there afterwards, which
moves nothing in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree import ElementTree

from rasterio.shutil import copy

from sciSR.errors import RunError
from sciSR.io.geotiff_datasets import update_dataset
from sciSR.io.geotiff_layout import check_whole, read_directories
from sciSR.io.geotiff_source import GDAL_ERRORS

if TYPE_CHECKING:
    from sciSR.io.geotiff_plan import Plan

__all__ = ["to_cog"]

_GDAL_METADATA = 42112
"""TIFF tag of GDAL's XML metadata (https://gdal.org/drivers/raster/gtiff.html)."""
_RESERVED = "SCISR_RESERVED"
_LEVELS = {"deflate": 1, "zstd": 1}


def to_cog(draft: Path, path: Path, plan: Plan) -> None:
    """Write the GeoTIFF ``draft`` to ``path`` as a cloud-optimized one; the draft is used up.

    Raises:
        RunError: GDAL could not do it, or the disk did not take it; the draft is kept.
    """
    full = _read_metadata(draft)
    if full is not None:
        with update_dataset(str(draft)) as dataset:
            dataset.update_tags(**{_RESERVED: "." * len(full)})
    compress = str(plan.options.get("compress", "none"))
    options: dict[str, Any] = {
        "COMPRESS": compress.upper(),
        "BLOCKSIZE": max(128, int(plan.options["blockxsize"]), int(plan.options["blockysize"])),
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "ALL_CPUS",
        "OVERVIEW_RESAMPLING": plan.resampling.upper(),
        "OVERVIEWS": "IGNORE_EXISTING",
    }
    if compress in _LEVELS:
        options["LEVEL"] = _LEVELS[compress]
    if "predictor" in plan.options:
        options["PREDICTOR"] = {2: "STANDARD", 3: "FLOATING_POINT"}[plan.options["predictor"]]
    try:
        copy(str(draft), str(path), driver="COG", **options)
    except GDAL_ERRORS as error:
        raise RunError(
            f"{plan.name}: not written as a cloud-optimized GeoTIFF: {' '.join(str(error).split())}"
        ) from error
    if full is not None:
        _restore_metadata(path, full, plan.name)
    check_whole(path, f"{plan.name}: the cloud-optimized GeoTIFF")
    draft.unlink()


def _read_metadata(path: Path) -> bytes | None:
    """The GDALMetadata text of a TIFF's first image, or None."""
    with path.open("rb") as file:
        place = _find_metadata(file)
        if place is None:
            return None
        file.seek(place[0])
        return file.read(place[1]).rstrip(b"\0")


def _restore_metadata(path: Path, full: bytes, name: str) -> None:
    """Put ``full``, and what the driver added itself, in the place of the metadata with the reserve."""
    with path.open("r+b") as file:
        place = _find_metadata(file)
        if place is None:
            raise RunError(f"{name}: GDAL's COG driver left out the metadata; this GDAL cannot be used for cog=True")
        file.seek(place[0])
        text = _merged(full, file.read(place[1]).rstrip(b"\0"))
        room = place[1] - 1
        if len(text) > room:
            raise RunError(f"{name}: the metadata need {len(text)} bytes, GDAL's COG driver left {room}")
        file.seek(place[0])
        file.write(text + b" " * (room - len(text)) + b"\0")


def _merged(full: bytes, written: bytes) -> bytes:
    """``full`` with the items that only ``written`` has, without the reserve."""
    root = ElementTree.fromstring(full.replace(b"\r", b"&#13;"))  # which XML would read as a line's end otherwise
    known = {_key(item) for item in root}
    for item in ElementTree.fromstring(written):
        if _key(item) not in known and item.get("name") != _RESERVED:
            root.append(item)
    return ElementTree.tostring(root).replace(b"\r", b"&#13;")


def _key(item: ElementTree.Element) -> tuple[str | None, ...]:
    return tuple(item.get(key) for key in ("name", "sample", "role", "domain"))


def _find_metadata(file: BinaryIO) -> tuple[int, int] | None:
    """Offset and length in bytes of the GDALMetadata text of a TIFF's first image, or None."""
    _, directories = read_directories(file)
    found = directories[0].get(_GDAL_METADATA)
    return None if found is None else (found.at, found.count)

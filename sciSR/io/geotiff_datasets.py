"""GDAL datasets opened without rasterio's warning on files that lie nowhere, in any thread.

A scene without a georeference is nothing to warn of: pixels are a place too, and ``scisr info`` says so. rasterio warns
whenever such a file is opened. ``warnings.catch_warnings`` swaps the filters of the whole process, so two threads that
use it at once can lose or keep each other's filters. Here nothing is swapped: datasets are made by calling rasterio's
classes from this module, which the warning is then put down to, and one filter passes over this module's alone. It is
put in once, and again only where somebody's later filter would come before it; users' own calls of rasterio warn as
ever.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, DatasetWriter, MemoryFile
from rasterio.shutil import copy

__all__ = ["create_dataset", "has_transform", "read_dataset", "update_dataset"]


def read_dataset(path: str) -> Any:
    """An open dataset for reading; like the others it wants a ``rasterio.Env`` around it."""
    _pass_over()
    return DatasetReader(path)


def create_dataset(path: str, **profile: Any) -> Any:
    """A new GeoTIFF, open for writing; ``profile`` as for ``rasterio.open``."""
    _pass_over()
    return DatasetWriter(path, "w", **{"crs": None, "transform": None, "nodata": None, **profile})


def update_dataset(path: str) -> Any:
    """A GeoTIFF that is there, open for changing."""
    _pass_over()
    return DatasetWriter(path, "r+")


def has_transform(dataset: Any) -> bool:
    """Whether a dataset states an affine transform; rasterio gives the identity where it does not."""
    if not dataset.transform.is_identity:
        return True
    if dataset.gcps[0] or dataset.tags(ns="RPC"):
        return False
    with MemoryFile(ext=".vrt") as memory:  # GDAL's description of it says whether there is one
        copy(dataset, memory.name, driver="VRT")
        return b"<GeoTransform>" in bytes(memory.read())


def _pass_over() -> None:
    """See to it that the warning is passed over where it is put down to this module."""
    for action, message, category, module, _ in warnings.filters:
        if issubclass(NotGeoreferencedWarning, category) and (module is None or _matches(module)):
            if action == "ignore" and message is None:
                return
            break
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=re.escape(__name__))


def _matches(module: Any) -> bool:
    """Whether a filter's pattern, or plain name, is for this module."""
    return bool(module == __name__ if isinstance(module, str) else module.match(__name__))

"""Every file that a scene is read from: what GDAL lists of it, and of the virtual rasters that it is made of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from sciSR.io.geotiff_datasets import read_dataset
from sciSR.io.geotiff_source import GDAL_ERRORS, gdal_environment, is_remote

__all__ = ["files_behind", "parts_of"]

_VIRTUAL = b"<VRTDataset"
_GLANCE_BYTES = 4096


def files_behind(dataset: Any) -> tuple[str, ...]:
    """The files of an open dataset and of the datasets that it refers to, each once, the named one first.

    An archive stands for the files in it. What is no local file (an address, a missing file) stays in GDAL's words.
    """
    found: dict[str, None] = {}
    todo = list(dataset.files)
    while todo:
        name = _plain(todo.pop(0))
        if name in found:
            continue
        found[name] = None
        if name != dataset.name and _is_virtual(name):
            todo += _listed(name)
    return tuple(found)


def parts_of(path: str) -> tuple[str, ...]:
    """The files behind the virtual raster ``path`` other than itself; none of any other file."""
    if not _is_virtual(path):
        return ()
    own = os.path.realpath(path)
    with gdal_environment(path):
        try:
            with read_dataset(path) as dataset:
                return tuple(name for name in files_behind(dataset) if os.path.realpath(name) != own)
        except GDAL_ERRORS:  # whoever opens it next says so
            return ()


def _listed(path: str) -> list[str]:
    """GDAL's list of a virtual raster's files; empty where it cannot be opened, which reading it will tell."""
    try:
        with read_dataset(path) as dataset:
            return list(dataset.files)
    except GDAL_ERRORS:
        return []


def _is_virtual(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return _VIRTUAL in file.read(_GLANCE_BYTES)


def _plain(name: str) -> str:
    """The local file that a name of GDAL's means: the archive of ``/vsizip/…``, the file of ``NETCDF:"…":variable``."""
    if os.path.exists(name):
        return name
    return next((part for part in _candidates(name) if os.path.isfile(part)), name)


def _candidates(name: str) -> Iterator[str]:
    """Paths that may be the local file behind ``name``: of its parts, each with the folders above it."""
    if is_remote(name):
        return
    for text in (name, *re.split(r'[":]', name)):
        path = re.sub(r"^(/vsi(zip|tar|gzip|7z|rar|subfile)/)+", "", text).strip("{}")
        while path and path != os.path.dirname(path):
            yield path
            path = os.path.dirname(path)

"""Volumes whose values lie after a header of text, or in a ``.raw`` file beside it: what NRRD and MetaImage share."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, InputError, MetadataWarning, MissingFileError
from sciSR.grid import Grid
from sciSR.io.planes import MappedPlanes, StoredPlanes, StoredSource
from sciSR.io.volumes import check_input_safe, check_options, check_volume, unscaled
from sciSR.raster import Channel, Metadata, Raster, TimeAxis

__all__ = ["HeaderedVolumes", "data_beside", "mapped_planes", "stored_volume"]


class HeaderedVolumes:
    """All of an adapter but how its header is read and written.

    Attributes:
        name: of the format.
        detached: ending of a header whose values lie in a ``.raw`` file beside it.
        types: numpy names of the types that it is written with.
    """

    name: ClassVar[str]
    detached: ClassVar[str]
    types: ClassVar[Collection[str]]

    def opened(self, path: str, *, labels: bool | None = None) -> tuple[Any, Raster, list[str]]:
        """The header, the lazy raster, and what is to be said of them."""
        raise NotImplementedError

    def open(self, path: str, **options: Any) -> Raster:
        """A lazy volume ``(z, y, x)`` or series ``(t, z, y, x)``; compressed values may be held whole once read."""
        check_options(options, ("labels",), path, self.name)
        _, raster, notes = self.opened(path, **options)
        for note in notes:
            warnings.warn(f"{raster.name}: {note}", MetadataWarning, stacklevel=3)
        return raster

    def raw(self, path: Path) -> Path | None:
        """Where the values lie, if not after the header."""
        return path.with_suffix(".raw") if path.suffix.lower() == self.detached else None

    def files(self, path: Path) -> tuple[Path, ...]:
        """The file, or that of the values and the header."""
        raw = self.raw(path)
        return (path,) if raw is None else (raw, path)

    def parts(self, path: str) -> tuple[str, ...]:
        """The file with the values, where that is another."""
        if self.raw(Path(path)) is None:
            return ()
        _, raster, _ = self.opened(path)
        assert raster.metadata is not None
        return tuple(file for file in raster.metadata.items["files"] if file != path)

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Raise for what the format cannot hold, and for the input itself."""
        check_options(options, ("dtype", "threads"), str(path), self.name)
        check_volume(raster, self.name)
        self.stored_form(raster, options.get("dtype"))
        if raster.metadata is not None and raster.metadata.path is not None:
            check_input_safe(self.files(path), (raster.metadata.path, *raster.metadata.items.get("files", ())))

    def stored_form(self, raster: Raster, dtype: str | None) -> Encoding:
        """How the values are written, ``dtype`` or the raster's own.

        Raises:
            InputError: the format does not hold that type.
        """
        encoding = unscaled(raster.encoding) if dtype is None else Encoding(dtype)
        name = {"bool": "uint8", "float16": "float32"}.get(encoding.dtype, encoding.dtype)
        if name not in self.types:
            raise InputError(f"{raster.name}: {self.name} is written with {', '.join(self.types)}; {name} came")
        return Encoding(name, nodata=encoding.nodata[:1])


def data_beside(path: str, said: str, name: str) -> str:
    """The file with the values that a header names.

    Raises:
        FormatError: it names several.
        MissingFileError: it is not there.
    """
    if said.upper().startswith("LIST") or "%" in said:
        raise FormatError(f"{name}: its values lie in several files; join them first")
    data = os.path.join(os.path.dirname(path), said)
    if not os.path.isfile(data):
        raise MissingFileError(f"{path}: {said}, the file with its values, is not there")
    return data


def mapped_planes(
    data: str, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, skip: int, name: str
) -> MappedPlanes:
    """Values as they lie in a file, ``skip`` bytes after ``start``, or, where that is -1, at its end.

    Raises:
        FormatError: the file is too short.
    """
    size, have = math.prod(shape) * dtype.itemsize, os.path.getsize(data)
    offset = have - size if skip == -1 else start + skip
    if have < offset + size or offset < 0:
        raise FormatError(
            f"{name}: the header promises {size} bytes of values, the file has {have - start}; it is cut off"
        )
    return MappedPlanes(data, dtype, shape, offset)


def stored_volume(
    path: str,
    form: str,
    stored: StoredPlanes,
    shape: tuple[int, ...],
    grid: Grid,
    dtype: np.dtype[Any],
    *,
    unit: str | None = None,
    time: TimeAxis | None = None,
    header: Any,
    affine: NDArray[np.float64],
    labels: bool | None,
    data: str,
) -> Raster:
    """The raster of stored values.

    Args:
        path: the file.
        form: name of its format.
        stored: its values.
        shape: of a volume ``(z, y, x)``, or a series ``(t, z, y, x)``.
        grid: where they lie.
        dtype: their type.
        unit: of the values.
        time: the first axis of a series.
        header: as it was read.
        affine: of voxel centres as the header has it.
        labels: whether they are labels; None: not said.
        data: the file with the values.
    """
    encoding = Encoding(dtype.newbyteorder("=").name)
    items = {"header": header, "labels": labels, "affine": affine, "files": (data,)}
    return Raster(
        source=StoredSource(stored, shape, encoding),
        grid=grid,
        axes=("t", "z", "y", "x")[-len(shape) :],
        channels=(Channel(None, unit),),
        encoding=encoding,
        time=time,
        metadata=Metadata(form, grid, items, path),
        name=os.path.basename(path),
    )

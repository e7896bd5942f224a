"""NIfTI-1 and NIfTI-2, single file or pair, plain or gzip.

Inside the file x runs fastest; read in C order the same bytes are ``(t, z, y, x)``, so nothing is transposed.
Coordinates are kept in millimetres, whatever unit the file is in, and written back in the file's unit.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, InputError, MetadataWarning
from sciSR.io.adapter import Writer
from sciSR.io.bids import carry_over, made_here, read_sidecar, sidecar_path, stable, to_json
from sciSR.io.gzipped import GzipSlabs, is_gzip
from sciSR.io.nifti_describe import described
from sciSR.io.nifti_geometry import locate, with_spacing
from sciSR.io.nifti_header import Header, decode_encoding, partner, read_header
from sciSR.io.nifti_write import (
    comment,
    header_bytes,
    header_of,
    nifti_writer,
    output_fields,
    slice_axis,
    stored_form,
    time_axis,
    version_for,
    write_header,
)
from sciSR.io.planes import MappedPlanes, StoredSource
from sciSR.io.shared_slabs import SharedSlabWriter, begin_slabs, complete_slabs
from sciSR.io.volumes import check_input_safe, check_options, check_volume
from sciSR.journal import parted_source
from sciSR.raster import Channel, Metadata, Raster

__all__ = ["NiftiAdapter"]

_SHARED_PLANES = 64
_LABEL_INTENTS = (1002, 1003)  # NIFTI_INTENT_LABEL, NIFTI_INTENT_NEURONAME


class NiftiAdapter:
    """Reads and writes NIfTI.

    Options of ``open``: ``labels`` (True: a label map, False: not one, None: found out before work, see
    :mod:`sciSR.labels`), ``spacing`` (millimetres for all axes or ``{"z": 5.0}``, believed instead of the header's),
    ``nodata`` (a value that means no value, such as -2000 around a CT's circle).

    Options of ``create``: ``dtype`` (numpy name; the default is the input's stored form), ``version`` (1 or 2),
    ``threads`` (how many deflate; the bytes do not depend on it).
    """

    name = "NIfTI"
    suffixes = (".nii.gz", ".hdr.gz", ".img.gz", ".nii", ".hdr", ".img")

    def describe(self, path: str) -> dict[str, Any]:
        """Position, scaling, units and texts of the header; plain values."""
        head, raster, used, notes = _opened(path)
        facts = described(head, raster, used)
        return {**facts, "notes": notes} if notes else facts

    def open(self, path: str, **options: Any) -> Raster:
        """A lazy volume ``(z, y, x)`` or series ``(t, z, y, x)``; values scaled by slope and intercept."""
        check_options(options, ("labels", "spacing", "nodata"), path, self.name)
        _, raster, _, notes = _opened(path, **options)
        for note in notes:
            warnings.warn(f"{raster.name}: {note}", MetadataWarning, stacklevel=3)
        return raster

    def files(self, path: Path) -> tuple[Path, ...]:
        """The file, or the pair with the named one last."""
        both = {Path(p) for p in partner(str(path))} - {path}
        return (*both, path)

    def companions(self, raster: Raster, path: Path) -> tuple[Path, ...]:
        """The BIDS sidecar, where the input had one."""
        return () if _sidecar(raster) is None else (sidecar_path(path),)

    def leftovers(self, path: Path) -> tuple[Path, ...]:
        """The sidecar that an earlier output of this name brought; one that nobody here wrote stays."""
        return (sidecar_path(path),) if made_here(path) else ()

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Raise for what NIfTI cannot hold (channels, a scene, a type it does not know), and for the input itself."""
        check_options(options, ("dtype", "version", "threads"), str(path), self.name)
        check_volume(raster, self.name)
        stored_form(raster, options.get("dtype"), version_for(raster, options.get("version")))
        source = None if raster.metadata is None else raster.metadata.path
        if source is not None:
            written = (*self.files(path), *self.companions(raster, path))
            check_input_safe(written, (*partner(source), sidecar_path(source)))

    def create(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """Start the file: its header is written at once."""
        plan = _planned(raster, path, options)
        for note in plan.notes:
            warnings.warn(f"{raster.name}: {note}", MetadataWarning, stacklevel=3)
        return nifti_writer(
            raster,
            path,
            head=plan.head,
            encoding=plan.encoding,
            beside=plan.beside,
            threads=options.get("threads"),
        )

    def shared_rows(self, raster: Raster, **options: Any) -> int:
        """So many planes that a network's lead-in is a small share of them, in whole parts of its computation."""
        source, axis = parted_source(raster.source), len(raster.leading)
        part = 1 if source is None else source.parts[0][axis].stop - source.parts[0][axis].start
        return max(1, _SHARED_PLANES // part) * part

    def begin(self, raster: Raster, path: Path, **options: Any) -> None:
        """Start a file for several processes, with its header and what lies beside it."""
        plan = _planned(raster, path, options)
        for note in plan.notes:
            warnings.warn(f"{raster.name}: {note}", MetadataWarning, stacklevel=3)
        header_path, data_path = (Path(p) for p in partner(str(path)))
        write_header(header_path, data_path, plan.head)
        begin_slabs(data_path, plan.head if header_path == data_path else b"", _value_bytes(raster, plan.encoding))
        for file, text in plan.beside.items():
            file.write_text(text, encoding="utf-8")

    def join(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """A writer for some planes of a file that is begun."""
        plan = _planned(raster, path, options)
        return SharedSlabWriter(raster, plan.encoding, Path(partner(str(path))[1]), plan.start)

    def complete(self, raster: Raster, path: Path, **options: Any) -> None:
        """Put the file together."""
        plan = _planned(raster, path, options)
        size = plan.start + _value_bytes(raster, plan.encoding)
        complete_slabs(Path(partner(str(path))[1]), size, raster.name, plan.encoding)


@dataclass(frozen=True)
class _Plan:
    """What an output will hold beside its values.

    Attributes:
        head: header and extensions.
        start: bytes before the values in their file.
        encoding: how values are stored.
        beside: text files to write with it, such as a sidecar.
        notes: what could not be kept.
    """

    head: bytes
    start: int
    encoding: Encoding
    beside: dict[Path, str]
    notes: list[str]


def _planned(raster: Raster, path: Path, options: dict[str, Any]) -> _Plan:
    version = version_for(raster, options.get("version"))
    encoding = stored_form(raster, options.get("dtype"), version)
    fields, notes = output_fields(raster, encoding, version)
    head, sidecar = header_of(raster), _sidecar(raster)
    extensions = () if head is None else head.extensions
    provenance = stable(raster.provenance)
    beside = {}
    if sidecar is not None:
        beside[sidecar_path(path)] = to_json(_carried(sidecar, raster, provenance))
    elif provenance:
        extensions = (*extensions, comment(json.dumps(provenance, ensure_ascii=False)))
    header_path, data_path = partner(str(path))
    single = header_path == data_path
    content = header_bytes(fields, extensions, single)
    return _Plan(content, len(content) if single else 0, encoding, beside, notes)


def _value_bytes(raster: Raster, encoding: Encoding) -> int:
    return math.prod(raster.shape) * np.dtype(encoding.dtype).itemsize


def _opened(
    path: str, *, labels: bool | None = None, spacing: Any = None, nodata: float | None = None
) -> tuple[Header, Raster, str, list[str]]:
    """The header, the raster, which transform was used, and the notes."""
    head = read_header(path)
    name = os.path.basename(path)
    notes = list(head.notes)
    items: dict[str, Any] = {"header": head, "labels": labels}
    if int(head.fields["intent_code"]) in _LABEL_INTENTS:
        items["intent"] = "labels"
    if spacing is not None:
        with_spacing(head.fields, spacing, head.to_mm, name, notes)
    shape = head.dims[2::-1]
    grid, used = locate(head.fields, shape, head.to_mm, name, notes)
    head.fields.setflags(write=False)
    items["sidecar"] = _read_sidecar(path, notes)
    items["files"] = (head.data_path,)
    encoding = decode_encoding(head.fields, name)
    if nodata is not None:
        encoding = _with_nodata(encoding, nodata, name)
    full = (head.dims[3], *shape) if head.series else shape
    stored = GzipSlabs if is_gzip(head.data_path) else MappedPlanes
    raster = Raster(
        source=StoredSource(stored(head.data_path, head.dtype, full, head.offset), full, encoding),
        grid=grid,
        axes=("t", "z", "y", "x") if head.series else ("z", "y", "x"),
        channels=(Channel(None, _unit(items["sidecar"])),),
        encoding=encoding,
        time=time_axis(head.fields) if head.series else None,
        metadata=Metadata(NiftiAdapter.name, grid, items, path),
        name=name,
    )
    return head, raster, used, notes


def _read_sidecar(path: str, notes: list[str]) -> dict[str, Any] | None:
    try:
        return read_sidecar(path)
    except FormatError as error:
        notes.append(f"{error}; it is not carried over")
        return None


def _unit(sidecar: dict[str, Any] | None) -> str | None:
    """The unit of the values that a sidecar states (BIDS Units)."""
    unit = None if sidecar is None else sidecar.get("Units")
    return unit if isinstance(unit, str) and unit else None


def _sidecar(raster: Raster) -> dict[str, Any] | None:
    """The sidecar of the file that the raster comes from."""
    sidecar = None if raster.metadata is None else raster.metadata.items.get("sidecar")
    return sidecar if isinstance(sidecar, dict) else None


def _carried(sidecar: dict[str, Any], raster: Raster, provenance: dict[str, str]) -> dict[str, Any]:
    assert raster.metadata is not None
    before, after = (
        {axis: (n, grid.spacing[axis]) for axis, n in zip(grid.axes, grid.shape, strict=True)}
        for grid in (raster.metadata.grid, raster.grid)
    )
    head = header_of(raster)
    axis = None if head is None else slice_axis(head.fields)
    return carry_over(sidecar, before=before, after=after, slice_axis=axis, provenance=provenance)


def _with_nodata(encoding: Encoding, nodata: float, name: str) -> Encoding:
    """The encoding with a physical value that means no value."""
    stored = (nodata - encoding.offset[0]) / encoding.scale[0]
    if np.dtype(encoding.dtype).kind in "iu":
        info = np.iinfo(encoding.dtype)
        if abs(stored - round(stored)) > 1e-6 or not info.min <= round(stored) <= info.max:
            raise InputError(f"{name}: nodata {nodata} is no value that {encoding.dtype} stores here")
        stored = round(stored)
    return replace(encoding, nodata=(stored,))

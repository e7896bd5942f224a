"""Opening and saving rasters: a visible table from file name endings to format adapters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sciSR.derived import whole_slabs
from sciSR.errors import FormatError, MissingFileError, RunError
from sciSR.files import check_free, unfinished_folder
from sciSR.io.adapter import FormatAdapter, WithCompanions, WithLeftovers, Writer
from sciSR.journal import Journal, journal_folder, journal_key, journalled
from sciSR.raster import Raster

__all__ = ["ADAPTERS", "adapter_for", "open_raster", "save_raster"]

ADAPTERS: dict[str, str] = {
    ".nii.gz": "sciSR.io.nifti:NiftiAdapter",
    ".nii": "sciSR.io.nifti:NiftiAdapter",
    ".hdr": "sciSR.io.nifti:NiftiAdapter",
    ".hdr.gz": "sciSR.io.nifti:NiftiAdapter",
    ".img": "sciSR.io.nifti:NiftiAdapter",
    ".img.gz": "sciSR.io.nifti:NiftiAdapter",
    ".tif": "sciSR.io.geotiff:GeoTiffAdapter",
    ".tiff": "sciSR.io.geotiff:GeoTiffAdapter",
    ".vrt": "sciSR.io.geotiff:GeoTiffAdapter",
    ".nrrd": "sciSR.io.nrrd:NrrdAdapter",
    ".nhdr": "sciSR.io.nrrd:NrrdAdapter",
    ".mha": "sciSR.io.metaimage:MetaImageAdapter",
    ".mhd": "sciSR.io.metaimage:MetaImageAdapter",
    ".dcm": "sciSR.io.dicom:DicomAdapter",
    ".jp2": "sciSR.io.geotiff:GeoTiffAdapter",
    ".png": "sciSR.io.geotiff:GeoTiffAdapter",
    ".jpg": "sciSR.io.geotiff:GeoTiffAdapter",
    ".zarr": "sciSR.io.zarr:ZarrAdapter",
}
"""Ending of the file name -> ``module:class`` of its adapter, imported when needed."""

FOLDER = "sciSR.io.dicom:DicomAdapter"
"""The adapter of a folder whose name has no format's ending."""

Progress = Callable[[int, int], None]
"""Called with (values done, values in all) after each block."""


def adapter_for(path: str | os.PathLike[str]) -> FormatAdapter:
    """The adapter for a file name, or for a folder.

    Raises:
        FormatError: no format has this ending.
    """
    name = os.fspath(path).split("?")[0].lower()
    found = next((ADAPTERS[s] for s in sorted(ADAPTERS, key=len, reverse=True) if name.endswith(s)), None)
    if found is None and os.path.isdir(path):
        found = FOLDER
    if found is not None:
        module, _, attribute = found.partition(":")
        adapter: FormatAdapter = getattr(import_module(module), attribute)()
        return adapter
    raise FormatError(f"{os.fspath(path)}: no format for this file name; expected one of {', '.join(ADAPTERS)}")


def open_raster(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, unit: str | None = None, **options: Any
) -> Raster:
    """A lazy raster of a file; nothing but its header is read.

    Args:
        path: a file, or an address that GDAL reads (``https://…``, ``/vsicurl/…``, ``s3://…``); or several files of one
            scene: bands on the same grid are stacked, neighbouring tiles joined.
        unit: unit of the values where the file does not state one, or a wrong one (``"HU"`` of a CT in NIfTI).
        options: what the format understands, such as ``labels=True``; see its page.

    Raises:
        MissingFileError: no such file.
        FormatError: the file is not what its name says, or holds what sciSR refuses.
        GeometryError: its geometry is impossible.
    """
    if not isinstance(path, (str, os.PathLike)):
        from sciSR.io.geotiff import open_mosaic

        raster = open_mosaic([_present(part) for part in path], **options)
    else:
        raster = adapter_for(path).open(_present(path), **options)
    if unit is None:
        return raster
    return raster.replace(channels=tuple(channel._replace(unit=unit) for channel in raster.channels))


def _present(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if "://" not in text and not text.startswith("/vsi") and not os.path.exists(text):
        raise MissingFileError(f"{text}: no such file")
    return text


def save_raster(
    raster: Raster,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    made: Callable[[Path], None] | None = None,
    **options: Any,
) -> Path:
    """Write a raster block by block, computing it as it goes; the file appears whole or not at all.

    Args:
        raster: what to write; a lazy one is computed while it is written, never held whole.
        path: the output; its ending names the format.
        overwrite: replace what is there.
        resume: keep finished parts in a folder beside the output, use those that a killed run of the same input,
            network and settings left there, and remove them at the end; needs the disk space of the result in float32.
        progress: called with (values done, values in all).
        made: called with the whole file, or folder, before it moves to its place.
        options: what the format understands; see its page.

    Returns:
        The path written.

    Raises:
        OutputExistsError: there is a file and ``overwrite`` is false.
        RunError: the disk failed; what was written is removed.
    """
    target = Path(path)
    adapter = adapter_for(target)
    check_target(raster, target, overwrite=overwrite, **options)
    target.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(journal_folder(target), journal_key(raster)) if resume else None
    if journal is not None:
        journal.open()
        raster = journalled(raster, journal)
    try:
        with unfinished_folder(target) if journal is None else _kept_folder(journal) as folder:
            writer = adapter.create(raster, folder / target.name, **options)
            _pull(raster, writer, progress)
            if made is not None:
                made(folder / target.name)
            publish_all(adapter, raster, folder, target)
    except OSError as error:
        raise RunError(f"{target}: writing failed: {error}; free some space or choose another place") from error
    except KeyboardInterrupt as stop:
        if journal is not None:
            tell_kept(stop, target)
        raise
    if journal is not None:
        journal.remove()
    return target


def tell_kept(stop: KeyboardInterrupt, target: Path) -> None:
    """Note on an interruption that the journal of an output stays."""
    stop.add_note(f"{target.name}: finished parts are kept; run it again with --resume")


@contextmanager
def _kept_folder(journal: Journal) -> Iterator[Path]:
    """The folder for the output in a journal's, always the same one, so that a kill leaves no stray."""
    folder = journal.folder / "output"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_target(raster: Raster, path: str | os.PathLike[str], *, overwrite: bool = False, **options: Any) -> None:
    """Raise now what would make :func:`save_raster` fail later; writes nothing."""
    target = Path(path)
    adapter = adapter_for(target)
    for file in outputs(adapter, raster, target):
        check_free(file, overwrite)
    adapter.check(raster, target, **options)


def outputs(adapter: FormatAdapter, raster: Raster, path: Path) -> tuple[Path, ...]:
    """Every file that saving ``raster`` at ``path`` makes: what lies beside it first, the file itself last."""
    beside = adapter.companions(raster, path) if isinstance(adapter, WithCompanions) else ()
    return (*beside, *adapter.files(path))


def publish_all(adapter: FormatAdapter, raster: Raster, folder: Path, target: Path) -> None:
    """Move everything that was made in ``folder`` to its place; what an older output left beside it goes."""
    made = outputs(adapter, raster, target)
    for final in made:
        publish(folder / final.name, final)
    for old in adapter.leftovers(target) if isinstance(adapter, WithLeftovers) else ():
        if old not in made:
            old.unlink(missing_ok=True)


def publish(made: Path, final: Path) -> None:
    """Move what was made to its place; a folder of that name makes room first."""
    if final.is_dir():
        os.replace(final, made.with_name(f".old-{final.name}"))
    os.replace(made, final)


def _pull(raster: Raster, writer: Writer, progress: Progress | None) -> None:
    total = int(np.prod(raster.shape))
    done = 0
    blocks = raster.stream() if writer.order == "any" else whole_slabs(raster)
    try:
        for window, block in blocks:
            writer.write(window, block)
            done += block.values.size
            if progress is not None:
                progress(done, total)
        if done != total:
            raise RunError(f"{raster.name}: {done} of {total} values were computed; this is a defect of the source")
        writer.finish()
    except BaseException:
        writer.abort()
        raise

"""Which files a run reads and writes: patterns and folders become pairs of an input and its output."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from sciSR.errors import InputError, MissingFileError
from sciSR.io import ADAPTERS, adapter_for
from sciSR.io.adapter import WithParts
from sciSR.record import is_remote

__all__ = ["Job", "expand_folders", "expand_inputs", "input_files", "pair_outputs", "partners", "split_suffix"]

_STORED_AS = {".vrt": ".tif", ".jp2": ".tif", ".png": ".tif", ".jpg": ".tif", ".dcm": ".nii.gz"}
"""Endings that an output does not take over from its input, as they are read only, and what it takes instead."""
_FOLDERS = (".zarr",)
"""Endings of formats that are folders themselves."""


@dataclass(frozen=True)
class Job:
    """One input and where its result and what goes with it will lie.

    Attributes:
        input: file, folder or address; of several joined ones the first.
        output: the result.
        sources: all files that are joined to one input.
    """

    input: str
    output: Path
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", self.sources or (self.input,))

    @property
    def remote(self) -> bool:
        """Whether any of it is read over the network."""
        return any(is_remote(source) for source in self.sources)

    @property
    def stem(self) -> str:
        """The output's name without its ending."""
        return split_suffix(self.output.name)[0]

    @property
    def record(self) -> Path:
        """Where its run record lies."""
        return self.beside(".run.json")

    def beside(self, ending: str) -> Path:
        """The file beside the output with another ending, such as ``.run.json``."""
        return self.output.with_name(self.stem + ending)


def split_suffix(name: str) -> tuple[str, str]:
    """Name and ending of a raster file's name; the ending is "" where no format has it.

    Example:
        >>> split_suffix("scan.v2.nii.gz")
        ('scan.v2', '.nii.gz')
    """
    lower = name.lower()
    for suffix in sorted(ADAPTERS, key=len, reverse=True):
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def expand_inputs(paths: Sequence[str]) -> list[str]:
    """The inputs that paths and patterns name, in order, each once; patterns give their matches sorted by name.

    Raises:
        MissingFileError: a pattern that matches nothing.
        InputError: no path at all.
    """
    found: list[str] = []
    for path in paths:
        if is_remote(path) or os.path.exists(path) or not glob.has_magic(path):
            found.append(path)
            continue
        matches = sorted(m for m in glob.glob(path, recursive=True) if not Path(m).name.startswith("."))
        if not matches:
            raise MissingFileError(f"{path}: this pattern matches no file")
        found.extend(matches)
    if not found:
        raise InputError("input: no file came; name a file, a pattern or a list")
    return list(dict.fromkeys(found))


def expand_folders(paths: Sequence[str]) -> list[str]:
    """The same, and for a folder without a DICOM series the image files in it, sorted by name.

    Raises:
        InputError: a folder without an image; subfolders are not searched.
    """
    return list(dict.fromkeys(file for path in expand_inputs(paths) for file in _images(path)))


def _images(path: str) -> list[str]:
    """The path itself, or the files that a plain folder stands for."""
    if is_remote(path) or not os.path.isdir(path) or split_suffix(Path(path).name)[1]:
        return [path]
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    known = [name for name in names if split_suffix(name)[1] not in ("", ".dcm") and not _is_part(name, names)]
    others = [os.path.join(path, name) for name in names if split_suffix(name)[1] in ("", ".dcm")]
    from sciSR.io.dicom_head import read_head  # pydicom takes a third of a second to load

    if any(os.path.isfile(other) and read_head(other) is not None for other in others):
        return [path]
    if not known:
        raise InputError(
            f"{path}: no image in this folder, and subfolders are not searched; expected a DICOM series or files that "
            f"end in {', '.join(ADAPTERS)}; name a pattern such as {os.path.join(path, '**', '*.nii.gz')}"
        )
    return [os.path.join(path, name) for name in known]


def _is_part(name: str, names: Sequence[str]) -> bool:
    """Whether a file is the data of a header beside it."""
    stem, ending = split_suffix(name)
    return ending.lower() in (".img", ".img.gz") and any(stem + header in names for header in (".hdr", ".hdr.gz"))


def partners(paths: Sequence[str], others: Sequence[str], what: str) -> list[str]:
    """What belongs to each of the paths: as many files, in the same order.

    Raises:
        InputError: another number of files, or names that are in part the same but not in the same order.
    """
    ours, theirs = ([split_suffix(Path(p).name)[0] for p in part] for part in (paths, others))
    alike = bool(set(ours) & set(theirs))
    if len(ours) == len(theirs) and (ours == theirs or not alike):
        return list(others)
    lone = [(p, q) for p, q in zip_longest(paths, others) if p is None or q is None]
    if alike:
        lone = [(p, None) for p, n in zip(paths, ours, strict=True) if n not in theirs]
        lone += [(None, q) for q, n in zip(others, theirs, strict=True) if n not in ours]
    named = ", ".join(str(p or q) for p, q in lone[:3]) + (", …" if len(lone) > 3 else "")
    raise InputError(
        f"{what}: {len(others)} files came for {len(paths)} of path; expected one for each, in the same order "
        f"({'without a partner: ' + named if lone else 'the names are the same, their order is not'})"
    )


def pair_outputs(inputs: Sequence[str], output: str, *, suffix: str | None = None, join: bool = False) -> list[Job]:
    """Each input with its output: a file of the same name in the folder ``output``, or the one file that it names.

    ``output`` is a file if its ending is a format's and no folder of that name is there; else a folder.

    Args:
        inputs: files, folders, addresses.
        output: file or folder.
        suffix: ending of outputs in a folder; None: the input's.
        join: all inputs are parts of one, which is named after the first.

    Raises:
        InputError: many inputs for one file, two inputs with one output, an output that is an input, an unknown ending.
    """
    if suffix is not None and split_suffix(f"name{suffix}")[1] != suffix:
        raise InputError(f"output.suffix: no format for {suffix!r}; expected one of {', '.join(ADAPTERS)}")
    ending = split_suffix(Path(output).name)[1]
    unknown = Path(output).suffix
    if unknown and not ending and not output.endswith("/") and not os.path.isdir(output):
        raise InputError(
            f"{output}: no format for {unknown!r}; expected one of {', '.join(ADAPTERS)}, or a / at its end (folder)"
        )
    folder = not ending or output.endswith("/") or (os.path.isdir(output) and ending.lower() not in _FOLDERS)
    groups = [tuple(inputs)] if join else [(path,) for path in inputs]
    if not folder and len(groups) > 1:
        raise InputError(f"{output}: is one file, but {len(inputs)} inputs came; name a folder")
    place = Path(output)
    jobs = [Job(g[0], place / _output_name(g[0], suffix) if folder else place, g) for g in groups]
    _check_distinct(jobs)
    return jobs


def _output_name(path: str, suffix: str | None) -> str:
    stem, own = split_suffix(Path(path.split("?")[0].rstrip("/")).name)
    if not own and os.path.isdir(path):
        own = ".dcm"  # a folder of slices
    if not own and suffix is None:
        raise InputError(f"{path}: no format for this file name; expected one of {', '.join(ADAPTERS)}")
    return stem + (suffix or _STORED_AS.get(own.lower(), own))


def _check_distinct(jobs: Sequence[Job]) -> None:
    """No output may be an input, and no two outputs, or the records beside them, may be one file."""
    inputs = {os.path.realpath(source) for job in jobs for source in job.sources if not is_remote(source)}
    seen: dict[str, Job] = {}
    for job in jobs:
        target = os.path.realpath(job.output)
        if target in inputs:
            raise InputError(f"{job.output}: is an input of this run; choose another output")
        record = os.path.realpath(job.beside(".run.json"))
        if record in seen:
            raise InputError(
                f"{job.input} and {seen[record].input} would both be written to {job.beside('')}*; "
                "run them into different folders"
            )
        seen[record] = job


def input_files(sources: Sequence[str]) -> list[str]:
    """The files that an input consists of, of each source the one that names it last (a ``.hdr`` with its ``.img``).

    Raises:
        SciSRError: a header that names other files is damaged.
    """
    found: list[str] = []
    for source in sources:
        if is_remote(source) or os.path.isdir(source):
            found.append(source)
            continue
        adapter = adapter_for(source)
        if isinstance(adapter, WithParts):
            parts = [part for part in adapter.parts(source) if os.path.exists(part) or is_remote(part)]
            found += [*parts, source]
            continue
        files = [str(file) for file in adapter.files(Path(source))]
        found += [file for file in files if file == source or os.path.exists(file)]
    return found

"""Which files a run reads and writes: patterns and folders become pairs of an input and its output."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sciSR.errors import InputError, MissingFileError
from sciSR.io import ADAPTERS, adapter_for
from sciSR.record import is_remote

__all__ = ["Job", "expand_inputs", "input_files", "pair_outputs", "split_suffix"]

_STORED_AS = {".vrt": ".tif", ".hdr": ".img", ".dcm": ".nii.gz"}
"""Endings that an output does not take over from its input, and what it takes instead."""


@dataclass(frozen=True)
class Job:
    """One input and where its result and what goes with it will lie."""

    input: str
    output: Path

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


def pair_outputs(inputs: Sequence[str], output: str, *, suffix: str | None = None) -> list[Job]:
    """Each input with its output: a file of the same name in the folder ``output``, or the one file that it names.

    ``output`` is a file if its ending is a format's and no folder of that name is there; else a folder.

    Raises:
        InputError: many inputs for one file, two inputs with one output, an output that is an input, an unknown ending.
    """
    if suffix is not None and split_suffix(f"name{suffix}")[1] != suffix:
        raise InputError(f"output.suffix: no format for {suffix!r}; expected one of {', '.join(ADAPTERS)}")
    folder = not split_suffix(Path(output).name)[1] or output.endswith("/") or os.path.isdir(output)
    if not folder:
        if len(inputs) > 1:
            raise InputError(f"{output}: is one file, but {len(inputs)} inputs came; name a folder")
        jobs = [Job(inputs[0], Path(output))]
    else:
        jobs = [Job(path, Path(output) / _output_name(path, suffix)) for path in inputs]
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
    inputs = {os.path.realpath(job.input): job.input for job in jobs if not is_remote(job.input)}
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


def input_files(path: str) -> list[str]:
    """The files that an input consists of, the one that names it last (a ``.hdr`` with its ``.img``)."""
    if is_remote(path):
        return [path]
    return [str(file) for file in adapter_for(path).files(Path(path))]

"""How much room on disk a run will need, at its end and while it lasts."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sciSR.batch import Job, input_files, split_suffix
from sciSR.errors import ResourceError, SciSRError
from sciSR.io import adapter_for
from sciSR.io.adapter import WithSharedWriting
from sciSR.journal import journal_folder, parted_source
from sciSR.raster import Raster

__all__ = ["DiskNeed", "crowded", "disk_need", "nearest_folder"]

_PLAIN = (".nii", ".img")
_OVERVIEWS = 4 / 3
"""Size with copies at half the size, a quarter, and so on, against that without."""
_SPARE_BYTES = 64 * 2**20


class DiskNeed(NamedTuple):
    """Expected bytes.

    Attributes:
        output: of the finished output.
        working: of what lies beside it until it is finished.
    """

    output: int
    working: int


def disk_need(
    raster: Raster,
    result: Raster,
    job: Job,
    options: Mapping[str, Any],
    *,
    resume: bool = False,
    distributed: bool = False,
) -> DiskNeed:
    """What an output will need; more rather than less where compression cannot be told.

    Args:
        raster: the input.
        result: the lazy result.
        job: input and output.
        options: how the output is stored.
        resume: finished parts are kept beside it, in the type in which they are computed.
        distributed: workers of a cluster compute it; what their format does not let them write is kept in parts too.
    """
    stored = math.prod(result.shape) * np.dtype(options.get("dtype") or result.encoding.dtype).itemsize
    output = int(stored * _compression(raster, result, job, options) * (_OVERVIEWS if options.get("overviews") else 1))
    working = output if options.get("cog") else 0  # laid out anew from the whole file
    parts = parted_source(result.source)
    shared = distributed and parts is result.source and isinstance(adapter_for(job.output), WithSharedWriting)
    if (resume or distributed) and not shared and parts is not None:
        journal = journal_folder(job.output)
        there = sum(file.stat().st_size for file in journal.glob("part-*")) if journal.is_dir() else 0
        kept = math.prod(parts.shape) * np.dtype(parts.dtype).itemsize
        working += max(0, kept - there)
    return DiskNeed(output, working)


def _compression(raster: Raster, result: Raster, job: Job, options: Mapping[str, Any]) -> float:
    """Stored bytes per byte: as the input's where both are compressed values of the same type, else 1."""
    after, before = (split_suffix(name)[1].lower() for name in (job.output.name, job.input))
    if after in _PLAIN or options.get("compress") == "none":
        return 1.0
    if before in _PLAIN or not before or job.remote or os.path.isdir(job.input):
        return 1.0
    if np.dtype(options.get("dtype") or result.encoding.dtype) != np.dtype(raster.encoding.dtype):
        return 1.0
    there = sum(os.path.getsize(file) for file in input_files(job.sources) if os.path.exists(file))
    return min(1.0, there / max(1, math.prod(raster.shape) * np.dtype(raster.encoding.dtype).itemsize))


def crowded(needs: Iterable[tuple[Path, DiskNeed]]) -> list[SciSRError]:
    """Errors for disks on which outputs at these paths, made one after the other, do not fit."""
    disks: dict[int, tuple[Path, DiskNeed]] = {}
    for path, need in needs:
        parent = nearest_folder(path.parent)
        device = os.stat(parent).st_dev
        place, before = disks.get(device, (parent, DiskNeed(0, 0)))
        disks[device] = place, DiskNeed(before.output + need.output, max(before.working, need.working))
    errors: list[SciSRError] = []
    for place, need in disks.values():
        free = shutil.disk_usage(place).free
        if need.output + need.working + _SPARE_BYTES > free:
            more = f" and {_size(need.working)} until it is finished" if need.working else ""
            errors.append(
                ResourceError(
                    f"{place}: the output needs about {_size(need.output)} of disk{more}, {_size(free)} are free, and "
                    f"{_size(_SPARE_BYTES)} stay so; free some space or choose another place"
                )
            )
    return errors


def nearest_folder(folder: Path) -> Path:
    """The folder, or its nearest parent that is there."""
    folder = Path(os.path.abspath(folder))
    while not folder.exists():
        folder = folder.parent
    return folder


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

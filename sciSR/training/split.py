"""Who is judged on what: no file is both learned from and judged on, and of many references whole ones are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from sciSR.errors import InputError
from sciSR.raster import Raster
from sciSR.sampling import Reference

__all__ = ["check_apart", "checksum", "held_out_alike", "identities", "place_of", "whole_ones"]

_MANY = 8
"""From so many references on whole ones are held out."""
_MOST = 16
"""So many are judged on at most: more only take time."""
_BY_THE_WAY = (".aux.xml", ".ovr")
"""Endings of what programs leave beside an image that they look at: statistics and overviews."""
_SUBJECT = re.compile(r"(?:^|[/\\])sub-[A-Za-z0-9]+")


def checksum(raster: Raster) -> str:
    """sha256 of the raster's file, or of its values where it is not here.

    Of an image of several files (a header and its data, a virtual raster) it is that of their checksums.
    """
    file = place_of(raster)
    others = [] if raster.metadata is None else [Path(f).resolve() for f in raster.metadata.items.get("files", ())]
    wanted = sorted({other for other in others if other != file and not other.name.endswith(_BY_THE_WAY)})
    if file is None or not all(other.is_file() for other in wanted):
        return _of_values(raster)
    sums = [_of_present(part) for part in (file, *wanted)]
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


def identities(rasters: Sequence[Raster], sums: Sequence[str]) -> list[str]:
    """What tells the images apart: the checksum of the first file; headers alike of other data by their values.

    Args:
        rasters: images, some of which may be the same.
        sums: their checksums, which tell those that have no file.
    """
    files: dict[str, set[str]] = {}
    places = [place_of(raster) for raster in rasters]
    keys = [found if place is None else _of_present(place) for place, found in zip(places, sums, strict=True)]
    for place, key in zip(places, keys, strict=True):
        files.setdefault(key, set()).add(str(place))
    return [key if len(files[key]) == 1 else _of_values(raster) for raster, key in zip(rasters, keys, strict=True)]


def check_apart(references: Sequence[Reference], validation: Sequence[Reference], keys: Sequence[str]) -> None:
    """Raise InputError where an image is in both lists; ``keys`` are the identities of both, one after the other."""
    learned = dict(zip(keys, [r.raster.name for r in references], strict=False))
    for reference, key in zip(validation, keys[len(references) :], strict=True):
        if key in learned:
            other = "" if learned[key] == reference.raster.name else f" (as {learned[key]})"
            raise InputError(
                f"{reference.raster.name}: is both learned from{other} and validated on; use held_out to keep a part "
                "of it"
            )


def held_out_alike(references: Sequence[Reference], keys: Sequence[str]) -> list[Reference]:
    """The references, where what one entry of an image holds out no other entry of it learns from.

    Raises:
        InputError: two entries of an image hold out different parts.
    """
    boxes: dict[object, Reference] = {}
    for reference, key in zip(references, keys, strict=True):
        if not reference.held_out:
            continue
        first = boxes.setdefault((key, reference.raster.grid), reference)
        if _spans(first) != _spans(reference):
            raise InputError(
                f"{reference.raster.name}: came more than once, and holds out {dict(first.held_out or {})} and "
                f"{dict(reference.held_out)}: each would learn what the other is judged on; give both the same held_out"
            )
    return [
        replace(r, held_out=boxes[key, r.raster.grid].held_out) if (key, r.raster.grid) in boxes else r
        for r, key in zip(references, keys, strict=True)
    ]


def whole_ones(references: Sequence[Reference], keys: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Numbers of the references to hold out whole: none of few, a fraction of many, by a hash of name and seed.

    Entries of one image stay on one side, and so do the images of one subject (``sub-01`` in the path, as BIDS has it).
    """
    groups: dict[str, list[int]] = {}
    for number, (reference, key) in enumerate(zip(references, keys, strict=True)):
        groups.setdefault(_subject(reference.raster) or key, []).append(number)
    if fraction <= 0 or len(references) < _MANY or len(groups) < 2:
        return []
    wanted = max(1, min(_MOST, round(fraction * len(references))))

    def draw(group: list[int]) -> str:
        first = references[group[0]].raster
        return hashlib.sha256(f"{seed} {_subject(first) or first.name}".encode()).hexdigest()

    taken: list[int] = []
    for group in sorted(groups.values(), key=draw):
        if len(taken) + len(group) <= wanted:
            taken += group
    smallest = min(groups.values(), key=len)
    return sorted(taken or smallest)


def _subject(raster: Raster) -> str | None:
    path = None if raster.metadata is None else raster.metadata.path
    found = None if path is None else _SUBJECT.search(path)
    return None if found is None else found.group().lstrip("/\\")


def _spans(reference: Reference) -> tuple[tuple[int, int], ...]:
    """What is held out along every axis."""
    grid, box = reference.raster.grid, reference.held_out or {}
    return tuple(tuple(box.get(axis, (0, n))) for axis, n in zip(grid.axes, grid.shape, strict=True))  # type: ignore[misc]  # two of them


def place_of(raster: Raster) -> Path | None:
    """The raster's file, the first of several; None where it has none here."""
    path = None if raster.metadata is None else raster.metadata.path
    return Path(path).resolve() if path is not None and Path(path).is_file() else None


def _of_present(file: Path) -> str:
    """Of a file as it is now."""
    facts = file.stat()
    return _of_file(str(file), facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=4096)
def _of_file(path: str, mtime_ns: int, size: int) -> str:
    """Of a file as it was at that time, read once."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_values(raster: Raster) -> str:
    digest = hashlib.sha256()
    for _, block in raster.stream():
        digest.update(np.ascontiguousarray(block.values).tobytes())
    return digest.hexdigest()

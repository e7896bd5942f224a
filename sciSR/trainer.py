"""The train step: opens the rasters that its section names and calls :func:`sciSR.train`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sciSR.batch import expand_inputs
from sciSR.config import ReferenceSection, TrainSection
from sciSR.console import Watcher
from sciSR.io import open_raster
from sciSR.raster import Raster
from sciSR.sampling import Reference
from sciSR.training import TrainingResult, train

__all__ = ["references", "train_network"]


def train_network(
    section: TrainSection, scans: Sequence[Raster] = (), *, overwrite: bool, resume: bool, watcher: Watcher
) -> TrainingResult:
    """Train as the section says.

    Args:
        section: the settings.
        scans: what is learned from where the section names no references.
        overwrite: replace the checkpoint.
        resume: go on where an interrupted run stopped.
        watcher: is told of the progress.

    Raises:
        MissingFileError: a reference is not there.
        InputError: settings or references that do not fit.
        OutputExistsError: the checkpoint is there.
    """
    arguments: dict[str, Any] = section.model_dump(exclude={"references", "validation", "output"})
    return train(
        references(section.references) or [Reference(scan) for scan in scans],
        section.output,
        validation=references(section.validation),
        overwrite=overwrite,
        resume=resume,
        progress=watcher.step("training", "step"),
        **arguments,
    )


def references(sections: tuple[ReferenceSection, ...]) -> list[Reference]:
    """The references that the sections name, patterns expanded."""
    return [reference for section in sections for reference in _of(section)]


def _of(section: ReferenceSection) -> Iterator[Reference]:
    for path in expand_inputs(section.path):
        yield Reference(
            open_raster(path, **section.options),
            low=None if section.low is None else open_raster(section.low, **section.options),
            align=section.align,
            coarsen=dict(section.coarsen),
            bands=section.bands,
            weight=section.weight,
            held_out=None if section.held_out is None else dict(section.held_out),
        )

"""The train step: opens the rasters that its section names and calls :func:`sciSR.train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sciSR.batch import expand_folders, partners
from sciSR.config import ReferenceSection, TrainSection
from sciSR.console import Watcher
from sciSR.io import open_raster
from sciSR.raster import Raster
from sciSR.sampling import Reference
from sciSR.training import TrainingResult, train
from sciSR.training.outlook import training_checks

__all__ = ["references", "section_checks", "train_network"]


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
    arguments = _arguments(section)
    return train(
        references(section.references) or [Reference(scan) for scan in scans],
        section.output,
        validation=references(section.validation),
        overwrite=overwrite,
        resume=resume,
        progress=watcher.step("training", "step"),
        **arguments,
    )


def section_checks(section: TrainSection, scans: Sequence[Raster] = ()) -> Iterator[Callable[[], object]]:
    """Checks of a section whose files are there; each raises one of our errors for what would stop the training."""
    learned = references(section.references) or [Reference(scan) for scan in scans]
    return training_checks(learned, references(section.validation), _arguments(section))


def _arguments(section: TrainSection) -> dict[str, Any]:
    return section.model_dump(exclude={"references", "validation", "output"})


def references(sections: tuple[ReferenceSection, ...]) -> list[Reference]:
    """The references that the sections name, patterns expanded."""
    return [reference for section in sections for reference in _of(section)]


def _of(section: ReferenceSection) -> Iterator[Reference]:
    paths = expand_folders(section.path)

    def beside(others: Sequence[str] | None, what: str) -> Sequence[str | None]:
        return [None] * len(paths) if others is None else partners(paths, expand_folders(others), what)

    lows, masks = beside(section.low, "low"), beside(section.mask, "mask")
    for path, low, mask in zip(paths, lows, masks, strict=True):
        yield Reference(
            open_raster(path, **section.options),
            low=None if low is None else open_raster(low, **section.options),
            align=section.align,
            coarsen=dict(section.coarsen),
            bands=section.bands,
            weight=section.weight,
            held_out=None if section.held_out is None else dict(section.held_out),
            mask=None if mask is None else open_raster(mask),
        )

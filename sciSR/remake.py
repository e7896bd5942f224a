"""Doing a run again from its record: the same bytes in, the same choices, the same bytes out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sciSR.batch import input_files, split_suffix
from sciSR.config import Workflow, make_workflow
from sciSR.console import Watcher
from sciSR.errors import InputError, MissingFileError, RunError
from sciSR.networks import weights_path
from sciSR.record import FileFact, RunRecord

__all__ = ["check_same", "only_moves", "recorded_workflow"]


def recorded_workflow(record: RunRecord, overrides: Sequence[str], name: str, watcher: Watcher) -> Workflow:
    """The workflow of a record, after its input and weights were found to hold the recorded bytes.

    Args:
        record: what was done.
        overrides: changed settings; ``input=…`` says where the input lies now.
        name: of the record, for messages.
        watcher: told where versions differ.

    Raises:
        MissingFileError: the input or the weights are not there.
        InputError: they hold other bytes.
        ConfigError: an override that does not fit.
    """
    workflow = make_workflow(record.workflow, overrides, name=name)
    if workflow.input is None or not record.inputs:
        raise InputError(f"{name}: the record names no input, so nothing can be made again")
    places = workflow.input.path
    if not any(_key(text) in ("input", "input.path") for text in overrides):
        facts = {fact.path: fact for fact in record.inputs}
        places = tuple(facts[path].locate() if path in facts else path for path in places)
    files = input_files(places)
    if len(files) != len(record.inputs):
        raise InputError(f"{name}: the record was made from {len(record.inputs)} files, {len(files)} came")
    for fact, file in zip(record.inputs, files, strict=True):
        fact.verify(file)
    changes: dict[str, object] = {"input": workflow.input.model_copy(update={"path": places})}
    section, weights = workflow.upscale, record.weights
    if section is not None and weights is not None and section.network == weights.path:
        changes["upscale"] = section.model_copy(update={"network": _recorded_weights(weights)})
    changed = record.changed_versions()
    if changed:
        watcher.warn(f"{name}: was made with other versions ({', '.join(changed)}); the bytes may differ")
    return workflow.model_copy(update=changes)


def only_moves(overrides: Sequence[str]) -> bool:
    """Whether overrides only say where files lie, and change nothing about what is done."""
    return all(_key(text) in ("input", "input.path", "output", "output.path") for text in overrides)


def check_same(record: RunRecord, output: FileFact) -> None:
    """Raise RunError if a remade output is not the recorded one, byte for byte; another format is not compared."""
    formats = {split_suffix(Path(fact.path).name)[1].lower() for fact in (record.output, output)}
    if len(formats) > 1 or record.output.sha256 == output.sha256:
        return
    changed = record.changed_versions()
    reason = f"versions differ: {', '.join(changed)}" if changed else "the machine or its settings differ"
    raise RunError(f"{output.path}: was made, but is not the recorded output byte for byte; {reason}")


def _recorded_weights(fact: FileFact) -> str:
    """Name or path of the recorded weights as they are found now, with the recorded bytes."""
    try:
        found = weights_path(fact.path)
        named = fact.path
    except MissingFileError:
        if fact.absolute is None or not os.path.exists(fact.absolute):
            raise
        found, named = Path(fact.absolute), fact.absolute
    fact.verify(str(found))
    return named


def _key(text: str) -> str:
    return text.partition("=")[0].strip()

"""What a run learns from and what it is judged on: references decoded, split, named and checksummed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sciSR.errors import InputError
from sciSR.labels import refuse_labels
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Crop, Reference, decode, hold_out, validation_crops
from sciSR.training.split import check_apart, checksum, held_out_alike, identities, whole_ones

__all__ = ["Data", "as_references", "check_axes", "check_patience", "gather", "record_of", "wide_enough"]

log = logging.getLogger(__name__)

_NOTABLE = 0.25
"""Fine pixels."""
_NOTABLE_GAIN = 1.25
"""Spread of the coarse values over the fine ones'; sensors of one scale differ by less."""


class Data(NamedTuple):
    """Crops to learn from, crops to be judged on, and the record of where both came from.

    ``references`` is what is learned from, without the ones that are held out whole.
    """

    training: list[Crop]
    validation: list[Crop]
    record: list[dict[str, Any]]
    references: Sequence[Reference] = ()


def as_references(values: Sequence[Raster | Reference] | Raster | Reference) -> list[Reference]:
    """A list of references of whatever stands for one.

    Raises:
        InputError: a label map.
    """
    many = [values] if isinstance(values, (Raster, Reference)) else list(values)
    found = [Reference(v) if isinstance(v, Raster) else v for v in many]
    for reference in found:
        refuse_labels(reference.raster)
        if reference.low is not None:
            refuse_labels(reference.low)
    return found


def gather(
    references: Sequence[Reference],
    validation: Sequence[Reference],
    *,
    normalization: Normalization,
    channels: int,
    scale: Sequence[int],
    fraction: float,
    seed: int = 0,
    held_only: bool = False,
) -> Data:
    """Decode all references and split them.

    What a reference holds out is validated on, beside the validation references. Where neither names anything, whole
    references are held out of 8 or more, at most 16; of fewer the far end of each one's longest axis.

    Args:
        references: to learn from.
        validation: other rasters, to be judged on.
        normalization: fitted on each raster.
        channels: what the network takes.
        scale: the network's factor per axis.
        fraction: part of each reference, or of the references, to hold out where nothing is named; 0: nothing.
        seed: of the choice of whole references.
        held_only: decode what is judged on only; what is learned from is read later, part by part.

    Raises:
        InputError: no reference, one of another number of axes, one that is in both lists, or one that is there twice
            and holds out different parts.
    """
    if not references:
        raise InputError("training: no reference came; name at least one fine raster")
    named = (*references, *validation)
    check_axes(named, len(scale))
    sums = {id(raster): checksum(raster) for raster in {id(r.raster): r.raster for r in named}.values()}
    keys = identities([r.raster for r in named], [sums[id(r.raster)] for r in named])
    check_apart(references, validation, keys)
    references = held_out_alike(references, keys[: len(references)])
    if not validation and not any(r.held_out for r in references):
        whole = whole_ones(references, keys, fraction, seed)
        validation = [references[n] for n in whole]
        references = [r for n, r in enumerate(references) if n not in whole]
    record = [record_of(r, "training", sums[id(r.raster)]) for r in references]
    record += [record_of(r, "validation", sums[id(r.raster)]) for r in validation]
    options: dict[str, Any] = {"normalization": normalization, "channels": channels, "scale": scale}
    if held_only:
        judged = [crop for reference in references for crop in _held(reference, normalization, options)]
        judged += [crop for reference in validation for crop in decode(reference, **options)]
        return Data([], _distinct(judged), record, references)
    learned = [decode(reference, **options) for reference in references]
    others = [decode(reference, **options) for reference in validation]
    for entry, crops in zip(record, [*learned, *others], strict=True):
        _tell_pair(entry, crops[0])
    training = [crop for crops in learned for crop in crops]
    if not validation and not any(crop.held_out for crop in training) and fraction > 0:
        training = [hold_out(crop, fraction) for crop in training]
    judged = [part for crop in training for part in validation_crops(crop, scale)]
    judged += [crop for crops in others for crop in crops]
    return Data(training, _distinct(judged), record, references)


def _tell_pair(entry: dict[str, Any], crop: Crop) -> None:
    """Put into the record how far a real pair is displaced and of other gain; say so where it is much and was left."""
    if crop.shift is None or crop.gain is None:
        return
    gain, above = crop.gain
    entry["low"]["gain"], entry["low"]["above"] = round(gain, 3), round(above, 3)
    if not 1 / _NOTABLE_GAIN <= gain <= _NOTABLE_GAIN or abs(above) > _NOTABLE_GAIN - 1:
        log.warning(
            "%s: its values spread %.3g times as wide as those of %s and lie %+.3g spreads above them, under one "
            "normalization for both; bring them to one unit, or take normalization: {kind: percentile}",
            entry["low"]["name"], gain, crop.name, above,
        )  # fmt: skip
    entry["low"]["shift"] = [round(d, 3) for d in crop.shift]
    told = ", ".join(f"{axis} {d:+.2f}" for axis, d in zip("zyx"[-len(crop.shift) :], crop.shift, strict=True))
    if entry["low"]["aligned"] or max(abs(d) for d in crop.shift) < _NOTABLE:
        log.info("%s: displaced by %s fine pixels against %s", entry["low"]["name"], told, crop.name)
    else:
        log.warning(
            "%s: displaced by %s fine pixels against %s, and the network will learn that too; align: true moves it",
            entry["low"]["name"], told, crop.name,
        )  # fmt: skip


def _held(reference: Reference, normalization: Normalization, options: dict[str, Any]) -> list[Crop]:
    """What a reference holds out, and nothing else of it."""
    if not reference.held_out:
        return []
    part = reference.part(**{axis: slice(*span) for axis, span in reference.held_out.items()})
    return decode(part, **options, intensity=normalization.fit(reference.raster))


def _distinct(crops: Sequence[Crop]) -> list[Crop]:
    """The crops with names that tell them apart."""
    names = [crop.name for crop in crops]
    return [
        crop if names.count(crop.name) == 1 else replace(crop, name=f"{crop.name}#{names[:i].count(crop.name) + 1}")
        for i, crop in enumerate(crops)
    ]


def check_axes(references: Sequence[Reference], ndim: int) -> None:
    """Raise InputError for a reference of another number of spatial axes than the network's."""
    for reference in references:
        have = len(reference.raster.grid.shape)
        if have != ndim:
            raise InputError(f"{reference.raster.name}: {have} spatial axes came, the network has {ndim}")


def check_patience(patience: int | None, judged: bool) -> None:
    """Raise InputError where to stop by validations is asked for and nothing is ``judged`` on."""
    if patience is not None and not judged:
        raise InputError(
            f"patience: {patience} came and nothing is held out to judge by; name validation or held_out, "
            "give validation_fraction, or leave patience away"
        )


def wide_enough(patch: Sequence[int], minimum: Sequence[int]) -> None:
    """Raise InputError for a patch that the network does not take."""
    if any(n < m for n, m in zip(patch, minimum, strict=True)):
        raise InputError(f"patch: {tuple(patch)} coarse pixels; this network needs at least {tuple(minimum)}")


def record_of(reference: Reference, role: str, sha256: str | None = None) -> dict[str, Any]:
    """What the record says of a reference: name, checksum (made if it does not come), size, and how it was used."""
    record: dict[str, Any] = {
        "role": role,
        "name": reference.raster.name,
        "sha256": sha256 or checksum(reference.raster),
        "shape": list(reference.raster.shape),
        "spacing": [reference.raster.grid.spacing[a] for a in reference.raster.grid.axes],
        "weight": reference.weight,
    }
    if reference.coarsen:
        record["coarsen"] = dict(reference.coarsen)
    if reference.bands is not None:
        record["bands"] = list(reference.bands)
    if reference.held_out:
        record["held_out"] = {axis: list(span) for axis, span in reference.held_out.items()}
    if reference.low is not None:
        record["low"] = {
            "name": reference.low.name, "sha256": checksum(reference.low), "aligned": reference.align
        }  # fmt: skip
    if reference.mask is not None:
        record["mask"] = {"name": reference.mask.name, "sha256": checksum(reference.mask)}
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain

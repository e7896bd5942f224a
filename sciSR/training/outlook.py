"""What can be known of a training before it begins: its network, loss, teacher and references, looked at briefly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch

from sciSR.errors import InputError
from sciSR.losses import build_loss
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster
from sciSR.sampling import Augmentation, Reference
from sciSR.sampling.pairs import check_pair
from sciSR.training.adversarial import Game
from sciSR.training.compression import check_prune
from sciSR.training.data import as_references, check_axes, check_patience, wide_enough
from sciSR.training.schedules import check_schedule
from sciSR.training.search import Search, check_search
from sciSR.training.selfsupervised import only_one, own_settings
from sciSR.training.setup import (
    band_names,
    check_batch,
    check_device,
    network_of,
    normalization_of,
    per_axis,
    plain_network,
    processes,
    sensor_of,
    settings_of,
    stated_sensor,
)
from sciSR.training.split import check_apart, place_of
from sciSR.training.supervised import teacher_of, train

__all__ = ["training_checks"]

_GLANCE_PX = 32


def training_checks(
    references: Sequence[Reference], validation: Sequence[Reference], settings: Mapping[str, Any]
) -> Iterator[Callable[[], object]]:
    """Checks of a training, each of which raises InputError (or another error of ours) for what will stop it.

    Args:
        references: to learn from.
        validation: to be judged on.
        settings: those of :func:`~sciSR.training.train` by name; those left away are as they are by default.
    """
    given = {key: p.default for key, p in signature(train).parameters.items()} | dict(settings)
    if given["mode"] == "self":
        yield partial(own_settings, settings, signature(train))
        yield partial(only_one, references)
    else:
        yield from _judging_checks(references, validation, given)
    yield partial(check_device, given["device"], given["precision"])
    yield partial(check_schedule, given["schedule"])
    yield partial(settings_of, Augmentation, given["augment"], "augment")
    for reference in (*references, *validation):
        yield partial(as_references, reference)
        yield partial(_check_values, reference)
    try:
        network = _planned(given, references)
    except InputError as error:
        yield partial(_fail, error)
        return
    yield from _network_checks(network, references, validation, given)


def _judging_checks(
    references: Sequence[Reference], validation: Sequence[Reference], given: Mapping[str, Any]
) -> Iterator[Callable[[], object]]:
    """What the lists of references and the plain numbers of mode supervised decide."""
    yield partial(_check_places, references, validation)
    judged = bool(validation) or any(r.held_out for r in references) or given["validation_fraction"] > 0
    yield partial(check_patience, given["patience"], judged)
    if given["prune"] is not None:
        yield partial(check_prune, given["prune"], given["steps"])
    devices, nodes = processes(1 if ":" in given["device"] else given["devices"], given["nodes"])
    yield partial(check_batch, given["batch"], devices * nodes)


def _check_places(references: Sequence[Reference], validation: Sequence[Reference]) -> None:
    """Raise InputError for a file in both lists; copies of other names are found when the training reads them."""
    rasters = [r.raster for r in (*references, *validation)]
    check_apart(references, validation, [str(place_of(raster) or id(raster)) for raster in rasters])


def _network_checks(
    network: SRNetwork, references: Sequence[Reference], validation: Sequence[Reference], given: Mapping[str, Any]
) -> Iterator[Callable[[], object]]:
    """What the network decides."""
    spec = network.spec
    yield partial(check_axes, [*references, *validation], spec.ndim)
    patch = partial(per_axis, given["patch"], spec.axes, "patch")
    yield patch
    if given["mode"] == "self":
        return
    yield lambda: wide_enough(patch(), spec.minimum)
    yield lambda: _check_room(references, patch(), spec.scale)
    for reference in references:
        if reference.low is not None:
            yield partial(check_pair, reference.raster, reference.low, spec.scale)
    if references:
        yield partial(_check_loss, network, references, given)
        yield partial(band_names, given["bands"], references, spec.in_channels)
    guide = partial(teacher_of, given["teacher"], network, given["adversarial"])
    yield lambda: normalization_of(given["normalization"], network, guide())
    if given["adversarial"] is not None:
        yield lambda: _check_game(network, settings_of(Game, given["adversarial"], "adversarial"), patch())


def _planned(given: Mapping[str, Any], references: Sequence[Reference]) -> SRNetwork:
    """The network, or one as large as the smallest that a search tries; a new one without memory for its weights."""
    network = given["network"]
    if isinstance(network, (str, SRNetwork)):
        if given["search"] is not None:
            raise InputError("search: network must name a family and its arguments; weights have their size already")
        return network_of(network, references)
    plain = plain_network(network, references)
    if given["search"] is not None:
        search = settings_of(Search, given["search"], "search")
        check_search(plain, search)
        plain |= {"features": search.features[0], "blocks": search.blocks[0]}
    with torch.device("meta"):
        return network_of(plain, references)


def _check_loss(network: SRNetwork, references: Sequence[Reference], given: Mapping[str, Any]) -> None:
    """The sensor, and the loss that may ask for it; mode self finds a sensor of its own."""
    physics = sensor_of(given["sensor"], network, references, given["bands"])
    sensor = physics or stated_sensor(given["sensor"], network, references, given["bands"])
    spec = network.spec
    build_loss(given["loss"], ndim=spec.ndim, data_range=given["data_range"], sensor=sensor, scale=spec.scale)


def _check_game(network: SRNetwork, game: Game, patch: Sequence[int]) -> None:
    """Raise InputError for an untrained network, or patches that the discriminator does not take."""
    game.check(network.card is not None)
    with torch.device("meta"):
        referee = game.referee(network.spec.ndim, network.spec.out_channels)
    fine = tuple(n * s for n, s in zip(patch, network.spec.scale, strict=True))
    if min(fine) < referee.minimum:
        raise InputError(
            f"patch: {tuple(patch)} coarse pixels are {fine} fine ones; the discriminator needs {referee.minimum} per "
            "axis: take a larger patch or fewer adversarial.layers"
        )


def _check_room(references: Sequence[Reference], patch: Sequence[int], scale: Sequence[int]) -> None:
    """Raise InputError where no reference is as large as a fine patch."""
    fine = tuple(n * s for n, s in zip(patch, scale, strict=True))
    shapes = []
    for reference in references:
        grid = reference.raster.grid
        factors = [float(reference.coarsen.get(axis, 1)) for axis in grid.axes]
        shapes.append(tuple(round(n / f) for n, f in zip(grid.shape, factors, strict=True)))
    if shapes and all(any(n < m for n, m in zip(shape, fine, strict=False)) for shape in shapes):
        raise InputError(
            f"patch: {tuple(patch)} coarse pixels are {fine} fine ones; no reference is as large (the largest has "
            f"{max(shapes, key=np.prod)}); take a smaller patch"
        )


def _check_values(reference: Reference) -> None:
    """Raise InputError for a reference without one valid value; reads a little where there are some."""
    for raster in (reference.raster, *([] if reference.low is None else [reference.low])):
        if not _has_values(raster.crop(**_middle(raster))) and not any(
            bool(_valid(block.values, block.valid).any()) for _, block in raster.stream()
        ):
            raise InputError(f"{raster.name}: no pixel has a value; there is nothing to learn from, leave it out")


def _middle(raster: Raster) -> dict[str, slice]:
    """A small window in the middle."""
    sizes = zip(raster.grid.axes, raster.grid.shape, strict=True)
    return {axis: slice(max(0, n // 2 - _GLANCE_PX), n // 2 + _GLANCE_PX) for axis, n in sizes}


def _has_values(raster: Raster) -> bool:
    block = raster.read()
    return bool(_valid(block.values, block.valid).any())


def _valid(values: Any, valid: Any) -> Any:
    return np.isfinite(values) if valid is None else valid & np.isfinite(values)


def _fail(error: InputError) -> None:
    raise error

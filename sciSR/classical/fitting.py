"""Dictionaries from examples: principal axes, shapes, and what each shape says of the fine pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sciSR.classical.dictionary import APlus, Dictionary, Sparse, matching_pursuit
from sciSR.classical.examples import inside, pairs, phases, surroundings
from sciSR.classical.method import AnySensor
from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.networks.spec import NetworkCard, WholeScale
from sciSR.raster import Raster

__all__ = ["fit_dictionary"]

_D = TypeVar("_D", bound=Dictionary)

_TURNS = 8
"""Rounds of coding and updating the shapes; later ones change little."""
_CODED = 20_000
"""Examples that the shapes are learned from."""
_NEIGHBOURS = 8192
"""Examples around an anchor, and no more than a sixteenth of all (2048 in Timofte et al. 2014, who had fewer)."""
_RIDGE = 1e-3
"""Of the anchored regressions, as a part of the examples' mean square."""


def fit_dictionary(
    family: type[_D],
    rasters: Sequence[Raster],
    *,
    ndim: int,
    scale: WholeScale,
    sensor: AnySensor = None,
    examples: int = 300_000,
    seed: int = 0,
    **arguments: Any,
) -> _D:
    """A dictionary that turns what ``sensor`` sees of ``rasters`` back, as far as it can.

    Args:
        family: :class:`~sciSR.classical.dictionary.Sparse` or :class:`~sciSR.classical.dictionary.APlus`.
        rasters: fine images, read in blocks.
        ndim: spatial axes; 2 on volumes takes their slices.
        scale: whole factor per axis.
        sensor: what makes them coarse, noise included.
        examples: patches to learn from, at most.
        seed: of the choice of examples, the first shapes and the noise.
        arguments: the family's own.

    Raises:
        InputError: no raster, or too few examples without holes.
    """
    network = family(ndim=ndim, scale=scale, sensor=sensor, **arguments)
    generator = torch.Generator().manual_seed(seed)
    low, wanted = _examples(network, rasters, sensor, examples, generator, seed)
    if len(low) < 4 * network.shapes.shape[1]:
        raise InputError(
            f"fit: {len(low)} examples with contrast came for {network.shapes.shape[1]} atoms; give more or larger "
            "rasters, or fewer atoms"
        )
    network.axes.copy_(_principal_axes(low, network.axes.shape[1]))
    patches = low @ network.axes
    length = patches.norm(dim=1, keepdim=True).clamp_min(1e-12)
    shapes = _shapes((patches / length)[:_CODED], network.shapes.shape[1], generator)
    network.shapes.copy_(shapes)
    if isinstance(network, Sparse):
        network.fine.copy_(_fine_shapes(patches, wanted, shapes, network.sparsity))
    if isinstance(network, APlus):
        network.maps.copy_(_anchored_maps(patches, patches / length, wanted, shapes))
    network.card = NetworkCard(
        name=network.family,
        sensor=load_sensor("generic-gaussian" if sensor is None else sensor),
        provenance={"examples": len(patches), "seed": seed},
    )
    return network


def _examples(
    network: Dictionary, rasters: Sequence[Raster], sensor: AnySensor, count: int, generator: torch.Generator, seed: int
) -> tuple[Tensor, Tensor]:
    """Patches (differences to the middle) and what the base misses, chosen at random among those with contrast."""
    size = network.axes.shape[0]
    share = max(1, count // max(1, len(rasters)))
    low_parts, fine_parts = [], []
    for raster in rasters:
        found, fine_found = [], []
        for low, fine, valid in pairs([raster], network.scale, sensor, seed=seed):
            base = network.base.interpolate(low)
            assert base is not None
            around = surroundings(low, network.radius)
            middle = size // 2
            around = (around - around[..., middle : middle + 1])[ok := inside(valid, network.radius)]
            missed = surroundings_of_phases(phases(fine - base, network.scale), network.span)[ok]
            some = torch.randperm(len(around), generator=generator)[:share]
            found.append(around[some])
            fine_found.append(missed[some])
        if found:
            each, fine_each = torch.cat(found), torch.cat(fine_found)
            contrast = each.norm(dim=1)
            rich = (contrast > 0.1 * contrast.median()).nonzero().flatten()
            rich = rich[torch.randperm(len(rich), generator=generator)[:share]]
            low_parts.append(each[rich])
            fine_parts.append(fine_each[rich])
    if not low_parts:
        raise InputError("fit: no example without holes; give rasters that are larger than a patch")
    order = torch.randperm(sum(len(p) for p in low_parts), generator=generator)
    return torch.cat(low_parts)[order], torch.cat(fine_parts)[order]


def surroundings_of_phases(fine: Tensor, span: tuple[int, ...]) -> Tensor:
    """The phases of the pixels around each pixel: ``(b, [z,] y, x, phases)`` to ``(b, [z,] y, x, places * phases)``."""
    count = fine.shape[-1]
    flat = fine.movedim(-1, 1).flatten(0, 1)[:, None]
    around = surroundings(flat, span)
    told: Tensor = around.reshape(-1, count, *around.shape[1:]).movedim(1, -1).flatten(-2)
    return told


def _principal_axes(patches: Tensor, count: int) -> Tensor:
    """The ``count`` directions in which patches of one length differ most, ``(size, count)``."""
    unit = patches / patches.norm(dim=1, keepdim=True).clamp_min(1e-12)
    gram = (unit.T @ unit).double()
    vectors: Tensor = torch.linalg.eigh(gram)[1]
    return vectors[:, -count:].flip(1).to(patches)


def _shapes(patches: Tensor, atoms: int, generator: torch.Generator) -> Tensor:
    """Shapes of length 1, ``(components, atoms)``, by the method of optimal directions."""
    start = torch.randperm(len(patches), generator=generator)[:atoms]
    shapes = patches[start].T.clone()
    for _ in range(_TURNS):
        index, weight = matching_pursuit(patches, shapes, 3)
        codes = torch.zeros(len(patches), atoms, dtype=patches.dtype).scatter_(1, index, weight)
        used = codes.abs().sum(0) > 1e-9
        gram = codes.T @ codes + 1e-6 * torch.eye(atoms, dtype=patches.dtype)
        shapes = torch.linalg.solve(gram, codes.T @ patches).T
        fresh = torch.randperm(len(patches), generator=generator)[: int((~used).sum())]
        shapes[:, ~used] = patches[fresh].T
        shapes = shapes / shapes.norm(dim=0, keepdim=True).clamp_min(1e-12)
    return shapes


def _fine_shapes(patches: Tensor, wanted: Tensor, shapes: Tensor, sparsity: int) -> Tensor:
    """The fine shapes that fit the examples best, given their mixtures: ``(atoms, places * phases)``."""
    atoms = shapes.shape[1]
    gram = torch.zeros(atoms, atoms, dtype=torch.float64)
    right = torch.zeros(atoms, wanted.shape[1], dtype=torch.float64)
    for start in range(0, len(patches), 2**15):
        part = patches[start : start + 2**15]
        index, weight = matching_pursuit(part, shapes, sparsity)
        codes = torch.zeros(len(part), atoms, dtype=part.dtype).scatter_(1, index, weight)
        gram += (codes.T @ codes).double()
        right += (codes.T @ wanted[start : start + 2**15]).double()
    fine: Tensor = torch.linalg.solve(gram + _RIDGE * gram.trace() / atoms * torch.eye(atoms, dtype=gram.dtype), right)
    return fine


def _anchored_maps(patches: Tensor, unit: Tensor, wanted: Tensor, shapes: Tensor) -> Tensor:
    """Ridge regression among the examples likest each shape: ``(atoms, components, places * phases)``.

    The examples are chosen by shape and weighed with their contrast, so that the mean square error is what falls.
    """
    count = min(_NEIGHBOURS, max(len(patches) // 16, min(8 * shapes.shape[0], len(patches))))
    eye = torch.eye(shapes.shape[0], dtype=torch.float64)
    maps = []
    for shape in shapes.T:
        near = (unit @ shape).abs().topk(count).indices
        seen, fine = patches[near], wanted[near]
        gram, right = (seen.T @ seen).double(), (seen.T @ fine).double()
        maps.append(torch.linalg.solve(gram + _RIDGE * gram.trace() / len(eye) * eye, right))
    return torch.stack(maps)

"""Learned dictionaries of patches: sparse coding (Zeyde) and anchored neighbourhood regression (A+).

Both add to a classical base what the pixels around an input pixel tell of the fine pixels near it. Patches are compared
by their shape: differences to the middle pixel, on a few principal axes, whatever their contrast. What they tell
overlaps, and is averaged: that is where most of the gain comes from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from sciSR.classical import CLASSICAL, build_classical
from sciSR.classical.examples import surroundings
from sciSR.classical.method import AnySensor, Classical, sensor_of
from sciSR.classical.phase_filter import shuffle_phases
from sciSR.errors import InputError
from sciSR.networks.spec import SRNetwork, WholeScale

__all__ = ["APlus", "Dictionary", "Sparse", "matching_pursuit"]

_CHUNK = 2**16
"""Patches worked on at once."""

_TINY = 1e-12


class Dictionary(Classical):
    """A base method, and what a dictionary of patch shapes adds to it.

    Unfitted it adds nothing; :func:`sciSR.classical.fitting.fit_dictionary` fits one.

    Args:
        ndim: spatial axes, 2 or 3.
        scale: whole factor per axis.
        in_channels: channels it takes; all share the dictionary.
        sensor: what made the input coarse, for the base.
        base: the classical method that is added to.
        atoms: patch shapes in the dictionary.
        radius: input pixels on each side that make a patch, per axis; None: 2, and 1 along axes that stay.
        components: principal axes on which patches are compared.
    """

    uses_sensor = True
    own: ClassVar[tuple[str, ...]] = ("base", "atoms", "radius", "components")
    axes: Tensor
    shapes: Tensor

    def __init__(
        self,
        *,
        ndim: int,
        scale: WholeScale,
        in_channels: int = 1,
        sensor: AnySensor = None,
        base: str = "wiener",
        atoms: int = 512,
        radius: Sequence[int] | None = None,
        components: int = 24,
    ) -> None:
        chosen = sensor_of(sensor)
        super().__init__(
            ndim=ndim,
            scale=scale,
            in_channels=in_channels,
            sensor=chosen,
            base=base,
            atoms=atoms,
            radius=None if radius is None else list(radius),
            components=components,
        )
        if base not in CLASSICAL:
            raise InputError(f"{self.family}: base {base!r} is not one of {', '.join(CLASSICAL)}")
        self.radius = tuple(2 if s > 1 else 1 for s in self.scale) if radius is None else tuple(radius)
        size = math.prod(2 * r + 1 for r in self.radius)
        if not 1 <= components <= size - 1 or atoms < 1:
            raise InputError(f"{self.family}: {components} components and {atoms} atoms; a patch has {size - 1} values")
        self.base: SRNetwork = build_classical(
            base, ndim=ndim, scale=self.scale, in_channels=in_channels, sensor=chosen
        )
        self.span = tuple(1 if s > 1 else 0 for s in self.scale)
        self.told = math.prod(self.scale) * math.prod(2 * r + 1 for r in self.span)
        self.register_buffer("axes", torch.zeros(size, components))
        self.register_buffer("shapes", torch.zeros(components, atoms))
        self.allocate()

    def allocate(self) -> None:
        """Register what the family keeps for each shape."""
        raise NotImplementedError

    def reach(self) -> tuple[int, ...]:
        """The patches that tell of a pixel, or the base where it looks farther."""
        radius = self.base.spec.receptive_radius
        assert radius is not None
        return tuple(max(a + o, b) for a, o, b in zip(self.radius, self.span, radius, strict=True))

    def halo(self) -> tuple[int, ...]:
        """The patches that tell of a pixel, or the base's halo."""
        return tuple(max(a + o, b) for a, o, b in zip(self.radius, self.span, self.base.spec.halo, strict=True))

    def interpolate(self, x: Tensor) -> Tensor:
        """The refined grid ``(b, c, [z,] y, x)``."""
        base = self.base.interpolate(x)
        assert base is not None
        batch, channels, size = x.shape[0], x.shape[1], x.shape[2:]
        # in float64, so that which shape a patch is most like does not hang on the rounding of a tile
        patches = self.features(x.reshape(batch * channels, 1, *size)).reshape(-1, self.axes.shape[1])
        starts = range(0, len(patches), _CHUNK)
        told = torch.cat([self.detail(patches[i : i + _CHUNK]).to(x) for i in starts])
        detail = _averaged(told.reshape(batch * channels, *size, self.told), self.span)
        return base + shuffle_phases(detail.reshape(batch, channels, -1, *size), self.scale)

    def features(self, low: Tensor) -> Tensor:
        """Patches of ``(b, 1, [z,] y, x)`` on the principal axes: ``(b, [z,] y, x, components)``, float64."""
        around = surroundings(low.double(), self.radius)
        middle = around.shape[-1] // 2
        return (around - around[..., middle : middle + 1]) @ self.axes.double()

    def detail(self, patches: Tensor) -> Tensor:
        """What patches ``(n, components)`` tell of the pixels around them: ``(n, places * phases)``."""
        raise NotImplementedError


class Sparse(Dictionary):
    """Sparse coding: a patch is a few shapes, and the same mixture of fine shapes is its detail.

    Zeyde, Elad and Protter 2012, doi:10.1007/978-3-642-27413-8_47; the dictionary by the method of optimal directions
    (Engan et al. 1999, doi:10.1109/ICASSP.1999.760624).

    Attributes:
        fine: what each shape tells, ``(atoms, places * phases)``.
        sparsity: shapes in a mixture.
    """

    family = "sparse"
    fine: Tensor
    sparsity = 3

    def allocate(self) -> None:
        """A fine shape for each shape."""
        self.register_buffer("fine", torch.zeros(self.shapes.shape[1], self.told))

    def detail(self, patches: Tensor) -> Tensor:
        """The mixture of fine shapes, ``(n, places * phases)``."""
        index, weight = matching_pursuit(patches, self.shapes.to(patches), self.sparsity)
        return (weight[..., None] * self.fine.to(patches)[index]).sum(1)


class APlus(Dictionary):
    """Adjusted anchored neighbourhood regression: each shape has its own linear map from patch to detail.

    Timofte, De Smet and Van Gool 2014 (A+), doi:10.1007/978-3-319-16817-3_8.

    Attributes:
        maps: for each shape, ``(atoms, components, places * phases)``.
    """

    family = "a-plus"
    maps: Tensor

    def allocate(self) -> None:
        """A linear map for each shape."""
        self.register_buffer("maps", torch.zeros(self.shapes.shape[1], self.axes.shape[1], self.told))

    def detail(self, patches: Tensor) -> Tensor:
        """The map of the likest shape, ``(n, places * phases)``."""
        nearest = (patches @ self.shapes.to(patches)).abs().argmax(1)
        order = nearest.argsort(stable=True)
        out = patches.new_zeros(len(patches), self.told)
        start = 0
        for atom, count in enumerate(nearest.bincount(minlength=self.maps.shape[0]).tolist()):
            if count:
                rows = order[start : start + count]
                out[rows] = patches[rows] @ self.maps[atom].to(patches)
                start += count
        return out


def _averaged(told: Tensor, span: tuple[int, ...]) -> Tensor:
    """Means of what all patches around tell of a pixel: ``(b, [z,] y, x, places * phases)`` to ``(b, phases, …)``."""
    size = told.shape[1:-1]
    places = list(product(*[range(-r, r + 1) for r in span]))
    told = told.reshape(*told.shape[:-1], len(places), -1).movedim(-1, 1)
    total = torch.zeros_like(told[..., 0])
    count = torch.zeros(size, dtype=told.dtype, device=told.device)
    for number, place in enumerate(places):
        # the patch at i tells of the pixel at i + place
        to = tuple(slice(max(0, p), n + min(0, p)) for p, n in zip(place, size, strict=True))
        at = tuple(slice(max(0, -p), n + min(0, -p)) for p, n in zip(place, size, strict=True))
        total[(slice(None), slice(None), *to)] += told[..., number][(slice(None), slice(None), *at)]
        count[to] += 1
    return total / count


def matching_pursuit(patches: Tensor, shapes: Tensor, sparsity: int) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit: which shapes, and how much of each, ``(n, sparsity)`` both.

    Pati, Rezaiifar and Krishnaprasad 1993, doi:10.1109/ACSSC.1993.342465.

    Args:
        patches: ``(n, components)``.
        shapes: ``(components, atoms)`` of length 1.
        sparsity: shapes a patch.
    """
    rest, chosen = patches, torch.zeros(len(patches), 0, dtype=torch.int64, device=patches.device)
    weight = patches.new_zeros(len(patches), 0)
    for _ in range(sparsity):
        likeness = (rest @ shapes).abs()
        if chosen.shape[1]:
            likeness.scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, likeness.argmax(1, keepdim=True)], 1)
        basis = shapes.T[chosen]  # (n, k, components)
        gram = basis @ basis.mT + _TINY * torch.eye(chosen.shape[1], dtype=basis.dtype, device=basis.device)
        weight = torch.linalg.solve(gram, (basis @ patches[..., None]))[..., 0]
        rest = patches - (weight[:, None] @ basis)[:, 0]
    return chosen, weight

"""Training from more data than memory holds: parts of the references, exchanged while the training goes on.

References are cut into blocks. A round holds as many of them as the budget allows, chosen by (seed, round); the next
round's are read in the background. What a step sees depends on (seed, step) alone, so that a run can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

from sciSR.errors import InputError
from sciSR.normalization import IntensityMap, Normalization
from sciSR.sampling.augmentation import Pair, PairMaker
from sciSR.sampling.crops import Crop, Reference, decode
from sciSR.sampling.draws import uniforms
from sciSR.sampling.patches import PatchSampler

__all__ = ["Library", "RotatingMaker", "decoded_bytes"]

_SHARES = 8
"""Blocks that a round holds at least, so that patches come from many places."""
_COPIES = 3
"""What a round may take of the budget: beside it lie the next one and, while a block is read, some copies of it."""


def decoded_bytes(references: Sequence[Reference]) -> int:
    """Memory that all references would take, decoded."""
    return sum(4 * math.prod(r.raster.shape) for r in references)


@dataclass(frozen=True)
class _Block:
    reference: int
    window: tuple[slice, ...]

    @property
    def pixels(self) -> int:
        return math.prod(w.stop - w.start for w in self.window)


class Library:
    """Blocks of references, read when their round comes.

    Args:
        references: fine rasters without measured partners.
        normalization: fitted once on each whole raster.
        channels: what the network takes.
        scale: the network's factor per axis.
        budget_gb: memory for all that lives at a time, this round and the next, in units of 10^9 bytes.
        least: pixels per axis that a block must have to hold a patch.
        seed: of the choice.

    Raises:
        InputError: real pairs, or a budget too small for a block.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        *,
        normalization: Normalization,
        channels: int,
        scale: Sequence[int],
        budget_gb: float,
        least: Sequence[int],
        seed: int,
    ) -> None:
        if any(r.low is not None for r in references):
            raise InputError("cache_gb: real pairs are held in memory whole; leave cache_gb away")
        self.references = tuple(references)
        self.normalization, self.channels, self.scale = normalization, channels, tuple(scale)
        self.seed = seed
        self._budget = budget_gb * 1e9 / 4 / _COPIES
        self._intensities: list[IntensityMap] = [normalization.fit(r.raster) for r in references]
        blocks = [block for number in range(len(references)) for block in self._cut(number, least)]
        self.blocks = [block for block in blocks if self._has_mask(block)] or blocks

    def round(self, number: int) -> list[Crop]:
        """The crops of a round."""
        keys = uniforms(self.seed, number, range(len(self.blocks)), 1)[:, 0]
        weight = np.array([self.references[b.reference].weight for b in self.blocks])
        order = np.argsort(-(keys ** (1 / weight)))
        crops: list[Crop] = []
        held = 0
        for position in order:
            block = self.blocks[position]
            values = block.pixels * self._bands(block.reference)
            if crops and held + values > self._budget:
                continue
            held += values
            crops += self._read(block)
        return crops

    def _bands(self, number: int) -> int:
        reference = self.references[number]
        return len(reference.bands or reference.raster.channels)

    def _cut(self, number: int, least: Sequence[int]) -> list[_Block]:
        """Blocks of about an eighth of the budget that cover a reference."""
        raster = self.references[number].raster
        factors = [float(self.references[number].coarsen.get(a, 1)) for a in raster.grid.axes]
        room = self._budget / _SHARES / self._bands(number)
        side = room ** (1 / len(factors))
        sizes = []
        for n, need, factor in zip(raster.grid.shape, least, factors, strict=True):
            if side < need * factor:
                given = 4 * _COPIES * self._budget / 1e9
                raise InputError(
                    f"cache_gb: {given:g} holds blocks of {int(side)} pixels a side of {raster.name}, a patch "
                    f"needs {math.ceil(need * factor)}; allow more memory or take a smaller patch"
                )
            parts = max(1, math.ceil(n / side))
            sizes.append([round(n * k / parts) for k in range(parts + 1)])
        spans = [[slice(a, b) for a, b in pairwise(s)] for s in sizes]
        return [_Block(number, window) for window in product(*spans)]

    def _part(self, block: _Block) -> Reference:
        reference = self.references[block.reference]
        return reference.part(**dict(zip(reference.raster.grid.axes, block.window, strict=True)))

    def _has_mask(self, block: _Block) -> bool:
        """Whether a patch of the block can lie in the mask of its reference, if it has one."""
        if self.references[block.reference].mask is None:
            return True
        mask = self._part(block).mask
        return mask is not None and bool((mask.read().values > 0).any())

    def _read(self, block: _Block) -> list[Crop]:
        reference = self.references[block.reference]
        crops = decode(
            replace(self._part(block), weight=reference.weight * block.pixels),
            normalization=self.normalization,
            channels=self.channels,
            scale=self.scale,
            intensity=self._intensities[block.reference],
        )
        origin = tuple(w.start for w in block.window)
        held = self._held(reference, block.window)
        return [replace(crop, origin=origin, held_out=held) for crop in crops]

    @staticmethod
    def _held(reference: Reference, window: tuple[slice, ...]) -> tuple[tuple[slice, ...], ...]:
        """What the reference holds out, in pixels of the block; where it lies beside the block it guards its rim."""
        if not reference.held_out:
            return ()
        spans = []
        for axis, w, n in zip(reference.raster.grid.axes, window, reference.raster.grid.shape, strict=True):
            factor = float(reference.coarsen.get(axis, 1))
            start, stop = reference.held_out.get(axis, (0, n))
            spans.append(slice(math.floor((start - w.start) / factor), math.ceil((stop - w.start) / factor)))
        return (tuple(spans),)


class RotatingMaker:
    """Makes batches as a :class:`PairMaker` does, from the round that a step belongs to.

    Args:
        library: where the crops come from.
        build: makes a PairMaker of crops.
        steps: per round.
    """

    def __init__(self, library: Library, build: Callable[[Sequence[Crop]], PairMaker], steps: int = 200) -> None:
        self._library, self._build, self._steps = library, build, steps
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scisr-library")
        self._ahead: tuple[int, Future[list[Crop]]] | None = None
        self._number = -1
        self._maker: PairMaker | None = None

    @property
    def sampler(self) -> PatchSampler:
        """Of the present round."""
        return self._at(max(0, self._number)).sampler

    def make(self, seed: int, step: int, samples: Sequence[int]) -> Pair:
        """The pairs of these sample numbers of a step."""
        return self._at(step // self._steps).make(seed, step, samples)

    def _at(self, number: int) -> PairMaker:
        if self._maker is None or number != self._number:
            self._maker = None  # its memory goes before the next one's comes
            self._maker, self._number = self._build(self._crops(number)), number
            self._ahead = (number + 1, self._pool.submit(self._library.round, number + 1))
        return self._maker

    def _crops(self, number: int) -> list[Crop]:
        """Of a round, read ahead or now."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self._library.round(number)
        crops = ahead[1].result()
        return crops if ahead[0] == number else self._library.round(number)

"""Tile plans in whole numbers only: what to read, what to keep, where to write.

A tile reads its core and a halo around it, clipped at the image's edge, and keeps the core; the cores cover the output
exactly once and nothing is blended. Windows are tuples of slices over the spatial axes in array order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from sciSR.errors import InputError

__all__ = ["Tile", "TilePlan", "central"]

_Window = tuple[slice, ...]


def central(n: int, kept: int) -> slice:
    """The middle ``kept`` of ``n`` pixels.

    Example:
        >>> central(7, 4)
        slice(1, 5, None)
    """
    start = (n - kept) // 2
    return slice(start, start + kept)


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        read: window of the input to read, core and halo.
        core: window of the input that this tile is responsible for.
        keep: window inside the tile's own output that belongs to the core.
        write: window of the whole output that the kept part fills.
    """

    read: _Window
    core: _Window
    keep: _Window
    write: _Window


@dataclass(frozen=True)
class TilePlan:
    """How an image is cut: cores of ``tile`` pixels, a halo, and a whole factor per axis.

    Attributes:
        shape: pixels of the input per spatial axis.
        tile: pixels of a core per axis; the last one along an axis may be smaller.
        halo: pixels read around a core per axis, where the image has them.
        scale: whole output pixels per input pixel, per axis.
        alignment: read windows start at multiples of this (networks with strides or fixed windows).

    Example:
        >>> plan = TilePlan((10,), (4,), (2,), (3,))
        >>> [(t.read[0].start, t.read[0].stop, t.write[0].start, t.write[0].stop) for t in plan]
        [(0, 6, 0, 12), (2, 10, 12, 24), (6, 10, 24, 30)]
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    halo: tuple[int, ...]
    scale: tuple[int, ...]
    alignment: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        align = self.alignment or (1,) * len(self.shape)
        object.__setattr__(self, "alignment", align)
        if not len(self.shape) == len(self.tile) == len(self.halo) == len(self.scale) == len(align):
            raise InputError(f"tile plan: axes differ: {self}")
        if min(self.tile) < 1 or min(self.halo) < 0 or min(self.scale) < 1 or min(align) < 1:
            raise InputError(f"tile plan: tile, scale and alignment must be at least 1 and the halo at least 0: {self}")
        if any(t % a for t, a in zip(self.tile, align, strict=True)):
            raise InputError(f"tile plan: tile {self.tile} is no multiple of the network's alignment {align}")

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles per axis."""
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Pixels of the output per axis."""
        return tuple(n * s for n, s in zip(self.shape, self.scale, strict=True))

    def __len__(self) -> int:
        total = 1
        for count in self.counts:
            total *= count
        return total

    def __getitem__(self, number: int) -> Tile:
        """Tile by its number; the last axis counts fastest."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        at = []
        for count in self.counts[::-1]:
            number, k = divmod(number, count)
            at.append(k)
        return self.at(tuple(at[::-1]))

    def __iter__(self) -> Iterator[Tile]:
        return (self[i] for i in range(len(self)))

    def at(self, position: tuple[int, ...]) -> Tile:
        """Tile by its position along each axis."""
        cores = zip(position, self.tile, self.shape, strict=True)
        return self.around(tuple(slice(k * tile, min((k + 1) * tile, n)) for k, tile, n in cores))

    def around(self, core: _Window) -> Tile:
        """The tile with this core, whether or not it is one of the plan's own."""
        parts = [self._axis(axis, part.start, part.stop) for axis, part in enumerate(core)]
        read, core, keep, write = zip(*parts, strict=True)
        return Tile(read, core, keep, write)

    def _axis(self, axis: int, start: int, stop: int) -> tuple[slice, slice, slice, slice]:
        n, halo, s = self.shape[axis], self.halo[axis], self.scale[axis]
        align = self.alignment[axis]
        first = max(0, start - halo) // align * align
        last = min(n, -(-(stop + halo) // align) * align)
        return (
            slice(first, last),
            slice(start, stop),
            slice((start - first) * s, (stop - first) * s),
            slice(start * s, stop * s),
        )

    def covering(self, window: _Window) -> Iterator[Tile]:
        """The tiles whose output meets ``window`` of the output, last axis fastest."""
        ranges = []
        for part, tile, s in zip(window, self.tile, self.scale, strict=True):
            ranges.append(range(part.start // (tile * s), -(-part.stop // (tile * s))))
        return (self.at(position) for position in product(*ranges))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        names = ("shape", "tile", "halo", "scale", "alignment")
        return {name: list(getattr(self, name)) for name in names}

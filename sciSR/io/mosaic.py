"""Several files as one raster: bands of one scene stacked, neighbouring tiles joined; nothing is resampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sciSR.encoding import Encoding
from sciSR.errors import GeometryError, InputError
from sciSR.grid import Grid
from sciSR.io.block_cache import BLOCK_CACHE
from sciSR.io.geotiff_tags import Facts, PixelMap, Tags, pixel_map
from sciSR.raster import Block, BlockSource, Channel, Metadata, Raster, Window, windows

__all__ = ["combine"]

_TOLERANCE_PX = 1e-3
_LATTICE = "resample them to one pixel lattice first"


def combine(rasters: Sequence[Raster]) -> Raster:
    """One raster of several scenes with axes ``(c, y, x)``.

    Scenes on the same grid are stacked, channel after channel; a channel without a name is called after its file.
    Scenes with the same channels elsewhere on the same pixel lattice are joined; where they overlap, the last valid
    value counts.

    Raises:
        GeometryError: another frame or pixel size, or pixels that do not lie on one lattice.
        InputError: no scene, or different channels or encodings in scenes that are to be joined.
    """
    if not rasters:
        raise InputError("mosaic: no file came; give at least one")
    if len(rasters) == 1:
        return rasters[0]
    first = rasters[0]
    maps = [_placed(raster, first) for raster in rasters]
    if all(m.unchanged and r.grid.shape == first.grid.shape for m, r in zip(maps, rasters, strict=True)):
        return _stack(rasters)
    return _join(rasters, [(round(m.shift[0]), round(m.shift[1])) for m in maps])


def _placed(raster: Raster, first: Raster) -> PixelMap:
    """Where the raster's pixels lie in the first one's lattice."""
    if raster.grid.frame != first.grid.frame:
        raise GeometryError(f"{raster.name}: frame {raster.grid.frame} differs from {first.grid.frame} of {first.name}")
    pixels = pixel_map(raster.grid, first.grid)
    near = [abs(s - 1) * n for s, n in zip(pixels.scale, raster.grid.shape, strict=True)]
    if not pixels.aligned or max(near) > _TOLERANCE_PX:
        raise GeometryError(
            f"{raster.name}: pixel size {_sizes(raster.grid)} differs from {_sizes(first.grid)} of {first.name}; "
            f"{_LATTICE}"
        )
    if max(abs(t - round(t)) for t in pixels.shift) > _TOLERANCE_PX:
        raise GeometryError(f"{raster.name}: its pixels lie between those of {first.name}; {_LATTICE}")
    return PixelMap((1.0, 1.0), (float(round(pixels.shift[0])), float(round(pixels.shift[1]))))


def _sizes(grid: Grid) -> str:
    return " x ".join(f"{grid.spacing[a]:.10g}" for a in ("x", "y"))


def _stack(rasters: Sequence[Raster]) -> Raster:
    first = rasters[0]
    channels: list[Channel] = []
    for raster in rasters:
        stem = PurePosixPath(raster.name).stem
        several = len(raster.channels) > 1
        channels += [
            channel if channel.name else channel._replace(name=f"{stem} {i + 1}" if several else stem)
            for i, channel in enumerate(raster.channels)
        ]
    scale, offset, nodata = (tuple(v for r in rasters for v in _each(r, k)) for k in ("scale", "offset", "nodata"))
    dtype = np.result_type(*(r.encoding.dtype for r in rasters)).name
    encoding = Encoding(dtype, scale, offset, nodata, mask=any(r.encoding.mask for r in rasters))
    facts = _merged([_facts(r) for r in rasters], tuple(c.name for c in channels))
    auxiliary = {key: aux for raster in reversed(rasters) for key, aux in raster.auxiliary.items()}
    return first.replace(
        source=_Stack(tuple(r.source for r in rasters), encoding.value_dtype),
        channels=tuple(channels),
        encoding=encoding,
        metadata=_metadata(first, facts, encoding, first.grid),
        auxiliary=auxiliary,
        name=f"{first.name} and {len(rasters) - 1} more",
    )


def _each(raster: Raster, key: str) -> tuple[Any, ...]:
    values: tuple[Any, ...] = getattr(raster.encoding, key)
    return values * len(raster.channels) if len(values) == 1 else values


def _join(rasters: Sequence[Raster], starts: list[tuple[int, int]]) -> Raster:
    first = rasters[0]
    for raster in rasters[1:]:
        if [c.name for c in raster.channels] != [c.name for c in first.channels]:
            raise InputError(f"{raster.name}: its bands are not those of {first.name}; join only tiles of one scene")
        if replace(raster.encoding, nodata=(None,), mask=False) != replace(first.encoding, nodata=(None,), mask=False):
            raise InputError(f"{raster.name}: type, scale or offset differ from those of {first.name}")
    low = [min(start[i] for start in starts) for i in (0, 1)]
    high = [max(s[i] + r.grid.shape[i] for s, r in zip(starts, rasters, strict=True)) for i in (0, 1)]
    after = tuple(h - n for h, n in zip(high, first.grid.shape, strict=True))
    grid = first.grid.pad((-low[0], -low[1]), after)
    places = tuple((s[0] - low[0], s[1] - low[1]) for s in starts)
    marks = [r.encoding.nodata for r in rasters if any(v is not None for v in r.encoding.nodata)]
    holes = marks or np.dtype(first.encoding.dtype).kind == "f"
    masked = any(r.encoding.mask for r in rasters) or not holes
    encoding = replace(first.encoding, nodata=marks[0] if marks else (None,), mask=masked)
    facts = _merged([_facts(r) for r in rasters], tuple(c.name for c in first.channels), joined=True)
    auxiliary = {}
    if all("alpha" in r.auxiliary for r in rasters):
        alphas = [r.auxiliary["alpha"] for r in rasters]
        source = _Mosaic(tuple(a.source for a in alphas), places, grid.shape)
        auxiliary["alpha"] = alphas[0].replace(source=source, grid=grid)
    return first.replace(
        source=_Mosaic(tuple(r.source for r in rasters), places, grid.shape),
        grid=grid,
        encoding=encoding,
        metadata=_metadata(first, facts, encoding, grid),
        auxiliary=auxiliary,
        name=f"{first.name} and {len(rasters) - 1} more",
    )


def _facts(raster: Raster) -> Facts:
    return Facts() if raster.metadata is None else Facts.from_dict(raster.metadata.items)


def _metadata(first: Raster, facts: Facts, encoding: Encoding, grid: Grid) -> Metadata | None:
    if first.metadata is None:
        return None
    kept = {k: v for k, v in first.metadata.items.items() if k not in Facts.__dataclass_fields__}
    items = {**kept, **facts.to_dict(), "opened": (encoding.scale, encoding.offset)}
    return replace(first.metadata, items=items, grid=grid)


def _merged(facts: list[Facts], names: tuple[str | None, ...], *, joined: bool = False) -> Facts:
    """Facts of the whole: tags that all files share; band entries one after the other, or the first's if joined."""
    first = facts[0]
    bands = [first] if joined else facts
    entries: dict[str, Any] = {
        key: tuple(v for f in bands for v in getattr(f, key))
        for key in ("band_tags", "units", "scales", "offsets", "colors", "colormaps")
    }
    if not joined and len(facts) > 1:
        entries["colors"] = tuple(0 if c == 1 else c for c in entries["colors"])  # one gray band in each file
        entries["colors"] = (entries["colors"][0] or 1, *entries["colors"][1:])
    tags = _shared([f.tags for f in facts])
    if joined:
        tags.pop("RPC", None)
        tags.pop("GEOLOCATION", None)
    alpha = next((f.alpha for f in facts if f.alpha is not None), None)
    return replace(
        first,
        tags=tags,
        descriptions=names,
        mask=any(f.mask for f in facts),
        alpha=None if alpha is None else {**alpha, "position": len(names)},
        gcps=() if joined else first.gcps,
        **entries,
    )


def _shared(tags: list[Tags]) -> Tags:
    first, rest = tags[0], tags[1:]
    shared = {
        domain: {k: v for k, v in entries.items() if all(t.get(domain, {}).get(k) == v for t in rest)}
        for domain, entries in first.items()
    }
    return {domain: entries for domain, entries in shared.items() if entries}


def _row_bytes(source: BlockSource) -> int:
    """Of a row of blocks, where the source is a file of GDAL's or made of some."""
    return int(getattr(source, "row_bytes", 0))


class _SeveralFiles:
    """Sources that are read side by side, so that GDAL keeps a row of blocks of each."""

    def __post_init__(self) -> None:
        BLOCK_CACHE.hold(self.row_bytes)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def row_bytes(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True)
class _Stack(_SeveralFiles):
    """Channels of several sources of one shape, one after the other."""

    sources: tuple[BlockSource, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return sum(map(_row_bytes, self.sources))

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(s.shape[0] for s in self.sources), *self.sources[0].shape[1:])

    @property
    def chunks(self) -> tuple[int, ...]:
        return (self.shape[0], *self.sources[0].chunks[1:])

    def read(self, window: Window) -> Block:
        values = np.empty(tuple(w.stop - w.start for w in window), self.dtype)
        valid = np.ones(values.shape, bool)
        at = 0
        for source in self.sources:
            count = source.shape[0]
            low, high = max(window[0].start, at), min(window[0].stop, at + count)
            if low < high:
                block = source.read((slice(low - at, high - at), *window[1:]))
                into = slice(low - window[0].start, high - window[0].start)
                values[into] = block.values
                if block.valid is not None:
                    valid[into] = block.valid
            at += count
        return Block(values, None if valid.all() else valid)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)


@dataclass(frozen=True)
class _Mosaic(_SeveralFiles):
    """Sources of the same channels at whole-pixel places ``(row, column)`` of a greater image."""

    sources: tuple[BlockSource, ...]
    places: tuple[tuple[int, int], ...]
    size: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        rows = [(place[0], place[0] + s.shape[1]) for s, place in zip(self.sources, self.places, strict=True)]
        parts = list(zip(rows, map(_row_bytes, self.sources), strict=True))
        return max(sum(size for (a, b), size in parts if a <= top < b) for top, _ in rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.sources[0].shape[0], *self.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.sources[0].dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return (self.shape[0], *(min(c, n) for c, n in zip(self.sources[0].chunks[1:], self.size, strict=True)))

    def read(self, window: Window) -> Block:
        values = np.zeros(tuple(w.stop - w.start for w in window), self.dtype)
        valid = np.zeros(values.shape, bool)
        for source, place in zip(self.sources, self.places, strict=True):
            inner, into = [], []
            for part, start, n in zip(window[1:], place, source.shape[1:], strict=True):
                low, high = max(part.start, start), min(part.stop, start + n)
                inner.append(slice(low - start, high - start))
                into.append(slice(low - part.start, high - part.start))
            if any(s.stop <= s.start for s in inner):
                continue
            block = source.read((window[0], *inner))
            here = (slice(None), *into)
            ok = np.ones(block.values.shape, bool) if block.valid is None else block.valid
            values[here] = np.where(ok, block.values, values[here])
            valid[here] |= ok
        return Block(values, None if valid.all() else valid)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)

"""The tiles executor: a raster seen through a network, tile by tile, as a lazy source of blocks.

Each tile reads its core with a halo, is filled, normalised, run, and cut back to its core. Workers take tiles in order
and results leave in order, with a bounded number under way, so memory does not grow with the scene and the values
depend on the plan alone.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciSR.backends import Runner, RunnerPool, give_back_device_memory
from sciSR.encoding import work_dtype
from sciSR.errors import ResourceError
from sciSR.filling import fill_invalid
from sciSR.journal import part_windows
from sciSR.normalization import IntensityMap
from sciSR.openvino_backend import OpenVinoRunner
from sciSR.pipeline import core_count, read_ahead
from sciSR.raster import Block, Raster, Window, gathered
from sciSR.tiling import Tile, TilePlan

__all__ = ["TileJob", "UpscaledSource", "fitting_plan", "worker_count"]

_SMALLEST_TILE = 16
_MOST_FOR_A_DEVICE = 12
_RESULTS_BYTES = 2**31
_KEPT = 4
"""Tiles that stay in memory for the next window."""
_COUNTING = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileJob:
    """Everything that turns one tile of a raster into refined values.

    Attributes:
        raster: the input.
        runner: the network on its device.
        plan: the tiles over the raster's spatial axes.
        intensity: physical values to the network's and back.
        order: for each of the network's spatial axes, which spatial axis of the raster it runs along.
        fill_reach: pixels that holes are closed, 0 where the raster cannot have any.
        shortages: how often a device without room led to ``batches_halved`` and ``tiles_cut`` in the middle of a run.
    """

    raster: Raster
    runner: Runner | RunnerPool | OpenVinoRunner
    plan: TilePlan
    intensity: IntensityMap
    order: tuple[int, ...]
    fill_reach: int
    shortages: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def out_channels(self) -> int:
        """Channels of the result."""
        spec = self.runner.network.spec
        return spec.out_channels if spec.in_channels > 1 else len(self.raster.channels)

    def run(self, tile: Tile, time: int | None) -> Block:
        """Refined physical values of the tile's core, one time step, all channels.

        Where the device runs out of memory, which another program may have taken since the plan was made, the batch is
        run in halves, and what does not fit even so in smaller tiles with the same halo.

        Raises:
            ResourceError: not even a small tile fits.
        """
        values, valid, holes = self.load(tile, time)
        refined = self._refined(self.to_network_axes(values))
        if refined is not None:
            return self.finish(self.to_raster_axes(refined, tile.read), valid, holes, tile, time)
        self._count("tiles_cut")
        lead = self.lead(time, self.out_channels)
        parts = [(lead + part.write, self.run(part, time)) for part in self._parts(tile)]
        return gathered(parts, lead + tile.write)

    def _refined(self, batch: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The network's output, or None where the device has no room for a single image."""
        try:
            return self.runner(batch)
        except ResourceError as error:
            _log.warning("%s: %s; it is computed in parts", self.raster.name, error)
        give_back_device_memory(self.runner.device)  # here, where the failed call's tensors are gone
        if len(batch) == 1:
            return None
        self._count("batches_halved")
        done = []
        for half in np.array_split(batch, 2):
            refined = self._refined(half)
            if refined is None:
                return None
            done.append(refined)
        return np.concatenate(done)

    def _count(self, what: str) -> None:
        with _COUNTING:
            self.shortages[what] += 1

    def _parts(self, tile: Tile) -> list[Tile]:
        """The tile in smaller ones."""
        sizes = tuple(core.stop - core.start for core in tile.core)
        smaller = _halved(sizes, self.plan.alignment)
        if smaller == sizes or not self.runner.network.spec.exact_tiling:
            why = "which is the smallest" if smaller == sizes else "and the network's windows cannot be cut"
            raise ResourceError(
                f"{self.raster.name}: the {self.runner.device.type} device ran out of memory on a tile of "
                f"{' x '.join(map(str, sizes))} pixels, {why}; end other programs there, or take device cpu"
            )
        cuts = [
            [slice(at, min(at + n, core.stop)) for at in range(core.start, core.stop, n)]
            for core, n in zip(tile.core, smaller, strict=True)
        ]
        return [self.plan.around(core) for core in product(*cuts)]

    def load(self, tile: Tile, time: int | None) -> tuple[NDArray[np.float32], NDArray[Any] | None, bool]:
        """Filled, normalised values ``(c, spatial…)`` of the tile's read window, and validity of its core."""
        spatial = self.raster.grid.shape
        margin = self.fill_reach
        wide = tuple(
            slice(max(0, p.start - margin), min(n, p.stop + margin)) for p, n in zip(tile.read, spatial, strict=True)
        )
        block = self.raster.read(self.lead(time) + wide)
        values = block.values.reshape(len(self.raster.channels), *[w.stop - w.start for w in wide])
        valid = None if block.valid is None else np.broadcast_to(block.valid, block.values.shape).reshape(values.shape)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            finite = np.isfinite(values)
            valid = finite if valid is None else valid & finite
        inner = (
            slice(None),
            *(slice(p.start - w.start, p.stop - w.start) for p, w in zip(tile.read, wide, strict=True)),
        )
        normal = self.intensity.apply(values, 0)
        if valid is None:
            return np.ascontiguousarray(normal[inner]), None, False
        parts = [fill_invalid(v, ok, self.fill_reach) for v, ok in zip(normal, valid, strict=True)]
        core = (
            slice(None),
            *(slice(p.start - w.start, p.stop - w.start) for p, w in zip(tile.core, wide, strict=True)),
        )
        return np.ascontiguousarray(np.stack(parts)[inner]), valid[core], True

    def finish(
        self, refined: NDArray[np.float32], valid: NDArray[Any] | None, holes: bool, tile: Tile, time: int | None
    ) -> Block:
        """Physical values of the core from normalised values ``(c, spatial…)`` of the read window."""
        core = refined[(slice(None), *tile.keep)]
        values = self.intensity.invert(core, 0, work_dtype(self.raster.dtype))
        shape = tuple(w.stop - w.start for w in self.lead(time, self.out_channels)) + values.shape[1:]
        if not holes or valid is None or valid.all():
            return Block(values.reshape(shape), None)
        if len(valid) != len(values):
            valid = np.broadcast_to(valid.all(axis=0, keepdims=True), (len(values), *valid.shape[1:]))
        for axis, s in enumerate(self.plan.scale):
            valid = valid.repeat(s, axis=axis + 1)
        return Block(values.reshape(shape), valid.reshape(shape))

    def to_network_axes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(c, spatial…)`` as ``(b, c, [z,] y, x)``: axes the network lacks, or lone bands, become the batch."""
        spec = self.runner.network.spec
        spatial = values.ndim - 1
        rest = [a for a in range(spatial) if a not in self.order]
        moved = values.transpose([*(a + 1 for a in rest), 0, *(a + 1 for a in self.order)])
        size = moved.shape[-len(self.order) :]
        channels = spec.in_channels if spec.in_channels > 1 else 1
        return np.ascontiguousarray(moved.reshape(-1, channels, *size))

    def to_raster_axes(self, refined: NDArray[np.float32], read: Window) -> NDArray[np.float32]:
        """``(b, c, [z,] y, x)`` back as ``(c, spatial…)``; ``read`` is the spatial window that was run."""
        spatial = len(self.plan.shape)
        rest = [a for a in range(spatial) if a not in self.order]
        outer = [read[a].stop - read[a].start for a in rest]
        full = refined.reshape(*outer, self.out_channels, *refined.shape[2:])
        back = np.argsort([*(a + 1 for a in rest), 0, *(a + 1 for a in self.order)])
        return full.transpose(back)

    def lead(self, time: int | None, channels: int | None = None) -> Window:
        """The window over the axes before the spatial ones: one time step, all channels."""
        whole = dict(zip(self.raster.axes, self.raster.shape, strict=True))
        at = {"t": slice(time, None if time is None else time + 1), "c": slice(0, channels or whole.get("c", 1))}
        return tuple(at[a] for a in self.raster.axes if a in at)


class UpscaledSource:
    """The refined raster as a lazy source of blocks.

    Attributes:
        by_slabs: :meth:`stream` gives slab after slab along the first spatial axis, all channels at once.
        threads: of PyTorch when it was made.
        share: of them for each tile; the same for any number of workers, and on whatever machine it is computed: the
            last bits of a convolution may depend on it.
    """

    by_slabs = True

    def __init__(self, job: TileJob, *, workers: int, facts: dict[str, Any]) -> None:
        self.job = job
        self.workers = workers
        self.facts = facts
        self.threads = torch.get_num_threads()
        self.share = max(1, self.threads // worker_count(job.runner.device, job.plan))
        self._cache: OrderedDict[tuple[int | None, tuple[int, ...]], Block] = OrderedDict()
        self._lock = threading.Lock()
        raster = job.raster
        sizes = dict(zip(raster.axes, raster.shape, strict=True)) | {"c": job.out_channels}
        lead = tuple(sizes[a] for a in raster.axes if a in ("t", "c"))
        self._shape = lead + job.plan.output_shape
        self.times: list[int | None] = list(range(sizes["t"])) if "t" in raster.axes else [None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or float64 where the input's type is wider."""
        return work_dtype(self.job.raster.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """One tile's output: one time step, all channels."""
        lead = tuple(1 if a == "t" else n for a, n in zip(self.job.raster.axes, self._shape, strict=False))
        lead = lead[: len(self._shape) - len(self.job.plan.shape)]
        plan = self.job.plan
        return lead + tuple(min(t * s, n) for t, s, n in zip(plan.tile, plan.scale, plan.output_shape, strict=True))

    def record(self) -> dict[str, Any]:
        """Plan, network, precision and intensity map as plain values: what decides the bytes of the result.

        ``out_of_memory`` goes on counting while the source is read: what was run in parts because a device had no room
        differs from the plan's own values by rounding.
        """
        job = self.job
        return {
            **self.facts,
            "executor": "tiles",
            "plan": job.plan.to_dict(),
            "axis_order": list(job.order),
            "fill_reach": job.fill_reach,
            "intensity": {"center": job.intensity.center, "scale": job.intensity.scale, "floor": job.intensity.floor},
            **job.runner.record(),
            **({"threads_each": self.share} if job.runner.device.type == "cpu" else {}),
            "out_of_memory": job.shortages,
        }

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets: all but the tiles kept from before."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with no tiles kept."""
        self.__dict__.update(state)
        self._cache = OrderedDict()
        self._lock = threading.Lock()

    def read(self, window: Window) -> Block:
        """The values under ``window``: all of them as :meth:`stream` gives them, each computed once.

        For less, the tiles it meets are run, the last few kept for the next call.
        """
        if window == tuple(slice(0, n) for n in self._shape) and len(self.times) * len(self.job.plan) > 1:
            return gathered(self.stream(), window, self.dtype)
        spatial = window[len(self._shape) - len(self.job.plan.shape) :]
        times = self.times if self.times == [None] else self.times[window[0]]
        return gathered(self._tiles(list(product(times, self.job.plan.covering(spatial)))), window, self.dtype)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, tile by tile in order, several tiles under way."""
        return self._run(product(self.times, self.job.plan))

    @property
    def parts(self) -> list[Window]:
        """One row of tiles each: a slab along the first spatial axis, one time step."""
        plan = self.job.plan
        lead = len(self._shape) - len(plan.shape)
        return part_windows(self._shape, lead, "t" in self.job.raster.axes, plan.tile[0] * plan.scale[0])

    @property
    def before_a_part(self) -> int:
        """Parts that are computed before one which does not follow another: none."""
        return 0

    def stream_parts(self, numbers: Sequence[int]) -> Iterator[tuple[int, Block]]:
        """The rows of tiles with these numbers, each whole."""
        rows, across = self.job.plan.counts[0], self.job.plan.counts[1:]
        parts = self.parts

        def work() -> Iterator[tuple[int | None, Tile]]:
            for number in numbers:
                step, row = divmod(number, rows)
                for position in np.ndindex(across):
                    yield self.times[step], self.job.plan.at((row, *position))

        blocks = self._run(work())
        for number in numbers:
            yield number, gathered([next(blocks) for _ in range(int(np.prod(across)))], parts[number])

    def _run(self, work: Iterable[tuple[int | None, Tile]]) -> Iterator[tuple[Window, Block]]:
        """The blocks of these tiles, in order."""
        before = torch.get_num_threads()
        blocks = read_ahead(
            work,
            lambda key: self.job.run(key[1], key[0]),
            self.workers + 1,
            workers=self.workers,
            begin=partial(torch.set_num_threads, self.share),
        )
        try:
            for (time, tile), block in blocks:
                yield self._window(tile, time), block
        finally:
            blocks.close()
            torch.set_num_threads(before)

    def _tiles(self, wanted: Sequence[tuple[int | None, Tile]]) -> Iterator[tuple[Window, Block]]:
        """The blocks of these tiles, those first that are kept from before; keeps the last few."""
        with self._lock:
            kept = {n: self._cache[key] for n, key in enumerate(map(_name, wanted)) if key in self._cache}
            for n in kept:
                self._cache.move_to_end(_name(wanted[n]))
        for n, block in kept.items():
            yield self._window(wanted[n][1], wanted[n][0]), block
        missing = [one for n, one in enumerate(wanted) if n not in kept]
        for (time, tile), (at, block) in zip(missing, self._run(missing), strict=True):
            with self._lock:
                self._cache[_name((time, tile))] = block
                while len(self._cache) > _KEPT:
                    self._cache.popitem(last=False)
            yield at, block

    def _window(self, tile: Tile, time: int | None) -> Window:
        return self.job.lead(time, self.job.out_channels) + tile.write


def _name(wanted: tuple[int | None, Tile]) -> tuple[int | None, tuple[int, ...]]:
    time, tile = wanted
    return time, tuple(part.start for part in tile.core)


def fitting_plan(job: TileJob) -> TilePlan:
    """The job's plan, its tiles halved until one fits into the memory of every device; tried before the run.

    Raises:
        ResourceError: not even a small tile fits.
    """
    plan = job.plan
    runners = job.runner.runners if isinstance(job.runner, RunnerPool) else (job.runner,)
    for runner in runners:
        while not _fits(replace(job, runner=runner, plan=plan)):
            smaller = _halved(plan.tile, plan.alignment)
            if smaller == plan.tile:
                raise ResourceError(
                    f"{job.raster.name}: the device {runner.device} has no room for a tile of "
                    f"{' x '.join(map(str, plan.tile))} pixels; end other programs there, or take device cpu"
                )
            plan = replace(plan, tile=smaller)
    return plan


def _fits(job: TileJob) -> bool:
    """Whether the plan's largest tile fits into the device's memory."""
    plan = job.plan
    sizes = [min(n, t + 2 * h) for n, t, h in zip(plan.shape, plan.tile, plan.halo, strict=True)]
    try:
        job.runner(job.to_network_axes(np.zeros((len(job.raster.channels), *sizes), np.float32)))
    except ResourceError:
        pass
    else:
        return True
    give_back_device_memory(job.runner.device)
    return False


def _halved(sizes: tuple[int, ...], alignment: tuple[int, ...]) -> tuple[int, ...]:
    """Half of each size in whole strides, but not below the smallest tile; what is no larger than that stays."""
    least = [-(-_SMALLEST_TILE // a) * a for a in alignment]
    return tuple(
        n if n <= low else max(low, -(-n // 2 // a) * a) for n, low, a in zip(sizes, least, alignment, strict=True)
    )


def worker_count(device: torch.device, plan: TilePlan, *, devices: int = 1, channels: int = 1) -> int:
    """Tiles worked on at once: one per core as far as there are tiles; for each device at least two, at most twelve.

    A device takes two of them at a time. The others are read and made ready, or become physical values again, which
    for a small network takes a core many times as long as the device needs. Their results, of so many ``channels``,
    take no more than some two GiB.
    """
    if device.type != "cpu":
        result = channels * math.prod(t * s for t, s in zip(plan.tile, plan.scale, strict=True)) * 4
        most = min(_MOST_FOR_A_DEVICE * devices, core_count(), len(plan), _RESULTS_BYTES // result)
        return max(2 * devices, most)
    return max(1, min(core_count(), len(plan)))

"""The depth-first executor: a raster run strip by strip through the whole network, nothing computed twice.

Strips run along the network's first axis. One thread reads ahead and the caller writes. Where convolutions run in
machine code of our own, two strips are under way, the second close behind the first: what a single thread has to do for
the one then fills the time of the other. A single block that is asked for out of order is computed as a tile, see
:mod:`sciSR.tiles`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.backends import Runner, give_back_large_blocks, give_back_memory
from sciSR.depth_first import derive
from sciSR.errors import RunError
from sciSR.filters import filtered_weights, is_available
from sciSR.journal import part_windows
from sciSR.networks.spec import SRNetwork
from sciSR.pipeline import Turns, read_ahead
from sciSR.raster import Block, Window, gathered
from sciSR.row_program import RowProgram, RowStream
from sciSR.tiles import TileJob, UpscaledSource
from sciSR.tiling import Tile

__all__ = ["StripSource", "row_program", "streamed_seconds", "strip_rows"]

_STRIP_BYTES = 16 * 2**20
_WIDE_BYTES = 32 * 2**20
_FLUSH_BYTES = 64 * 2**20
"""What a layer's rows may take at the end of a pass, when what all layers before it still keep comes at once."""
_AT_ONCE = 2
"""Strips under way."""
_WIDE_ROWS = 16
"""Where strips hold fewer rows, because rows are long, large blocks go back to the system as soon as they are freed."""
_LOOSE = 8
"""Slices that a 2D network takes at once as a batch, where the raster has an axis more than it."""
_WORTH_COMPILING = 1e10
"""Multiplications and additions of an image from which on machine code is made for them: a tenth of a second on a core.

Making it takes some seven, once a process, and halves the time of each image; most small ones come in thousands."""
_Loaded = tuple[NDArray[np.float32], NDArray[Any] | None]


def row_program(job: TileJob, *, own_code: bool = True) -> RowProgram:
    """The network by rows.

    Args:
        job: what to run.
        own_code: compute convolutions in machine code of our own where that can be made and the image is large.

    Raises:
        NotStreamableError: as :func:`derive`.
    """
    assert isinstance(job.runner, Runner), "rows run on one torch device"
    network = job.runner.residual_network
    pixels = math.prod(job.plan.shape) * (len(job.raster.channels) if network.spec.in_channels == 1 else 1)
    large = 2 * pixels * filtered_weights(network) >= _WORTH_COMPILING
    return derive(network, fast=own_code and large and is_available())


def streamed_seconds(network: SRNetwork, side: int, *, own_code: bool) -> float:
    """Time per input value, of the network alone on an image of ``side`` pixels along each axis.

    Raises:
        NotStreamableError: as :func:`derive`.
    """
    program = derive(network, fast=own_code)
    x = torch.zeros(1, network.spec.in_channels, *(side,) * network.spec.ndim)
    spent = math.inf
    with torch.inference_mode():
        for _ in range(2):  # the first run also sets things up
            start = time.perf_counter()
            for _ in program.start().feed(x, last=True):
                pass
            spent = min(spent, time.perf_counter() - start)
    return spent / x.numel()


def strip_rows(job: TileJob, program: RowProgram) -> tuple[int, int]:
    """Rows per strip, and of these how many at once in the widest layers; by shapes and precision alone.

    Layers of common width stay within some 16 MB a strip, the widest within 32. Whole periods of the network's
    strides, so that a run can begin at any strip, and of its filters' tiles.
    """
    shape = [job.plan.shape[a] for a in job.order]
    period = job.plan.alignment[job.order[0]] * program.unit
    most = min(64, -(-shape[0] // period) * period)
    sizes = ((_STRIP_BYTES, program.narrow), (_WIDE_BYTES, program.widest))
    rows = [max(1, min(most, size // _row_bytes(job, width)) // period) * period for size, width in sizes]
    return rows[0], min(rows)


def _row_bytes(job: TileJob, width: int) -> int:
    """Of a row, or plane, with so many values for each pixel."""
    return _row_values(job, width) * (4 if job.runner.precision == "float32" else 2)


def _row_values(job: TileJob, width: int) -> int:
    return math.prod(job.plan.shape[a] for a in job.order[1:]) * _batch(job) * width


def _batch(job: TileJob) -> int:
    """Images that run side by side: loose slices, and lone bands."""
    loose = [min(_LOOSE, n) for a, n in enumerate(job.plan.shape) if a not in job.order]
    bands = len(job.raster.channels) if job.runner.network.spec.in_channels == 1 else 1
    return int(np.prod(loose)) * bands if loose else bands


class StripSource(UpscaledSource):
    """The refined raster as a lazy source that streams depth-first."""

    def __init__(self, job: TileJob, program: RowProgram, *, workers: int, facts: dict[str, Any]) -> None:
        super().__init__(job, workers=workers, facts=facts)
        self._program = program
        self._own_code = program.fast > 0
        self._rows, self._wide_rows = strip_rows(job, program)
        most = min(_AT_ONCE, self.threads) if self._own_code else 1
        self._strip_share = self.threads // most
        self._at_once = min(most, workers)

    def record(self) -> dict[str, Any]:
        """As for tiles, with the strips, and how many convolutions run in machine code of our own."""
        rows = {"strip_rows": self._rows, "wide_rows": self._wide_rows, "filters": self._program.fast}
        threads = {"threads_each": self._strip_share} if self.job.runner.device.type == "cpu" else {}
        return {**super().record(), "executor": "depth-first", **threads, **rows}

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets: it derives the program again."""
        return {k: v for k, v in super().__getstate__().items() if k != "_program"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Derive the program from the network that came along.

        Raises:
            RunError: the sender computes convolutions in machine code, which cannot be made here.
        """
        super().__setstate__(state)
        if self._own_code and not is_available():
            raise RunError(
                f"{self.job.raster.name}: begun with machine code by llvmlite, which this worker lacks; "
                "install llvmlite there, or use backend torch"
            )
        self._program = row_program(self.job, own_code=self._own_code)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, strip by strip."""
        try:
            yield from self._strips([(step, 0) for step in range(len(self._passes))])
        finally:
            give_back_memory()

    @property
    def parts(self) -> list[Window]:
        """One strip each."""
        lead = len(self.shape) - len(self.job.plan.shape)
        if self.job.order[0] > 0:
            return part_windows(self.shape, lead, "t" in self.job.raster.axes, _LOOSE * self.job.plan.scale[0])
        return part_windows(self.shape, lead, "t" in self.job.raster.axes, self._rows * self.job.plan.scale[0])

    def stream_parts(self, numbers: Sequence[int]) -> Iterator[tuple[int, Block]]:
        """The parts with these numbers; where one is skipped, the next is begun some strips before it.

        They have the same cuts as in a whole run, and are as many as a row's rounding depends on: its bytes are equal.
        """
        parts = self.parts
        todo = deque(numbers)
        per_pass = len(parts) // len(self._passes)
        for first, last in _runs(numbers):
            starts = [(n // per_pass, n % per_pass) for n in range(first, last + 1) if n == first or n % per_pass == 0]
            waiting: list[tuple[Window, Block]] = []
            with closing(self._strips(starts, parts[last])) as stream:
                while todo and todo[0] <= last:
                    window = parts[todo[0]]
                    while not (waiting and _reaches(waiting[-1][0], window)):
                        waiting.append(next(stream))
                    yield todo.popleft(), gathered(waiting, window)
                    waiting = [entry for entry in waiting if not _before(entry[0], window)]
            give_back_memory()

    @property
    def before_a_part(self) -> int:
        """Strips that are computed before a part which does not follow another.

        A row of a tile rounds with all the rows that its tile takes: its margin and up to ``unit - 1`` more.
        """
        radius = self.job.runner.network.spec.receptive_radius
        assert radius is not None, "a network that runs by rows has a finite receptive radius"
        return -(-radius[0] * self._program.unit // self._rows) + 1 if self.job.order[0] == 0 else 0

    @property
    def _passes(self) -> list[tuple[int | None, Window]]:
        shape = self.job.plan.shape
        loose = [
            [slice(a, min(a + _LOOSE, n)) for a in range(0, n, _LOOSE)]
            for axis, n in enumerate(shape)
            if axis not in self.job.order
        ]
        return [(time, outer) for time, outer in product(self.times, product(*loose))]

    def _strips(
        self, starts: Sequence[tuple[int, int]], until: Window | None = None
    ) -> Generator[tuple[Window, Block]]:
        """Passes by number, each from a strip on; ends after the block that completes ``until``."""
        if self._rows < min(_WIDE_ROWS, self.job.plan.shape[self.job.order[0]]):
            give_back_large_blocks()
        turns = Turns()
        begun = self._begun(starts, lambda: max(1, self.threads // max(1, turns.busy)))

        def run(job: tuple[int, tuple[_Pass, _Strip]]) -> list[tuple[Window, Block]]:
            number, (one, strip) = job
            with torch.inference_mode(), turns.job(number):
                return list(one.feed(strip, partial(turns.step, number)))

        before = torch.get_num_threads()
        share = partial(torch.set_num_threads, self._strip_share)
        done = read_ahead(enumerate(begun), run, self._at_once, workers=self._at_once, begin=share, end=turns.stop)
        try:
            with closing(begun), closing(done):
                for _, blocks in done:
                    for at, block in blocks:
                        yield at, block
                        if until is not None and _reaches(at, until):
                            return
        finally:
            torch.set_num_threads(before)

    def _begun(self, starts: Sequence[tuple[int, int]], threads: Callable[[], int]) -> Generator[tuple[_Pass, _Strip]]:
        """The strips in their order, and what each belongs to."""
        shape, axis = self.job.plan.shape, self.job.order[0]
        across = tuple(slice(0, n) for n in shape[axis + 1 :])
        passes = self._passes
        cuts = [slice(a, min(a + self._rows, shape[axis])) for a in range(0, shape[axis], self._rows)]
        radius = self.job.runner.network.spec.receptive_radius
        assert radius is not None, "a network that runs by rows has a finite receptive radius"
        back = self.before_a_part
        gently = (self._rows + radius[0]) * _row_values(self.job, self._program.narrow) * 4 > _FLUSH_BYTES
        plan = [(*passes[step], strip, max(0, strip - back) if axis == 0 else 0) for step, strip in starts]
        keys = ((moment, (*outer, cut, *across)) for moment, outer, _, begin in plan for cut in cuts[begin:])
        with closing(read_ahead(keys, self._load)) as strips:
            for moment, outer, wanted, begin in plan:
                flow = self._program.start(gently=gently, wide_rows=self._wide_rows, threads=threads)
                one = _Pass(self.job, flow, moment, outer, across, cuts[begin].start)
                skip = cuts[wanted].start if axis == 0 else 0
                for (_, window), (values, valid) in islice(strips, len(cuts) - begin):
                    yield one, _Strip(window[axis], values, valid, skip)

    def _load(self, key: tuple[int | None, Window]) -> _Loaded:
        time, window = key
        values, valid, _ = self.job.load(Tile(window, window, window, window), time)
        return values, valid


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each stretch of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], n)
        else:
            runs.append((n, n))
    return runs


def _reaches(at: Window, window: Window) -> bool:
    """Whether a block ends, on every axis, no earlier than ``window``."""
    return all(a.stop >= w.stop for a, w in zip(at, window, strict=True))


def _before(at: Window, window: Window) -> bool:
    """Whether a block ends, in streaming order, no later than ``window``."""
    return tuple(p.stop for p in at) <= tuple(p.stop for p in window)


@dataclass(frozen=True)
class _Strip:
    """Rows of one image.

    Attributes:
        rows: which.
        values: normalised, filled, on the raster's axes.
        valid: where they are known; None: everywhere.
        skip: rows before this one are computed for what follows them, and not given.
    """

    rows: slice
    values: NDArray[np.float32]
    valid: NDArray[Any] | None
    skip: int


class _Pass:
    """One image or stack of loose slices on its way through the network."""

    def __init__(
        self,
        job: TileJob,
        flow: RowStream,
        time: int | None,
        outer: Window,
        across: Window,
        begin: int,
    ) -> None:
        self._job = job
        self._time = time
        self._outer = outer
        self._across = across
        self._flow = flow
        self._axis = job.order[0]
        self._total = job.plan.shape[self._axis]
        self._scale = job.plan.scale[self._axis]
        self._reach = job.runner.network.interpolation_radius[0]
        self._fine: Tensor | None = None
        self._kept: Tensor | None = None
        self._kept_from = begin
        self._valid: list[tuple[int, int, NDArray[Any] | None]] = []
        self._fed = begin
        self._given = begin

    def feed(
        self, strip: _Strip, turn: Callable[[int], AbstractContextManager[None]]
    ) -> Iterator[tuple[Window, Block]]:
        """Take the next strip, each step in its turn; give the refined rows that are ready."""
        runner = self._job.runner
        assert isinstance(runner, Runner), "rows run on one torch device"
        x = torch.from_numpy(self._job.to_network_axes(strip.values)).to(runner.device)
        last = strip.rows.stop == self._total
        rows = self._flow.begin(runner.lowered(x), last=last, at=turn)
        with turn(self._flow.steps):
            self._kept = x if self._kept is None else torch.cat([self._kept, x], dim=2)
            self._valid.append((strip.rows.start, strip.rows.stop, strip.valid))
            self._fed = strip.rows.stop
            for fine in self._flow.end(rows, last=last):
                self._fine = fine if self._fine is None else torch.cat([self._fine, fine], dim=2)
                yield from self._ready(last, strip.skip)
            yield from self._ready(last, strip.skip)

    def _ready(self, last: bool, skip: int) -> Iterator[tuple[Window, Block]]:
        """What can be given now: refined, and with all the rows around that its interpolation takes."""
        ready = self._given + (0 if self._fine is None else self._fine.shape[2] // self._scale)
        if not last:
            ready = min(ready, self._fed - self._reach)
        if self._given < skip < ready:
            self._give(skip)
        if ready > self._given:
            done = self._give(ready)
            if ready > skip:
                yield done

    def _give(self, stop: int) -> tuple[Window, Block]:
        start, s = self._given, self._scale
        assert self._fine is not None
        count = (stop - start) * s
        detail = self._fine.narrow(2, 0, count).to(torch.float32)
        self._fine = self._fine.narrow(2, count, self._fine.shape[2] - count).clone()
        base = self._base(start, stop)
        refined = (detail if base is None else base + detail).to("cpu").numpy()
        self._given = stop
        return self._finished(refined, start, stop)

    def _base(self, start: int, stop: int) -> Tensor | None:
        """The interpolation of rows ``start`` to ``stop``, from kept rows with their neighbours."""
        assert self._kept is not None
        low = max(self._kept_from, start - self._reach)
        high = min(self._total, stop + self._reach)
        rows = self._kept.narrow(2, low - self._kept_from, high - low)
        base = self._job.runner.network.interpolate(rows)
        keep = max(self._kept_from, stop - self._reach)
        self._kept = self._kept.narrow(2, keep - self._kept_from, self._fed - keep).clone()
        self._kept_from = keep
        return None if base is None else base.narrow(2, (start - low) * self._scale, (stop - start) * self._scale)

    def _finished(self, refined: NDArray[np.float32], start: int, stop: int) -> tuple[Window, Block]:
        job, plan = self._job, self._job.plan
        read = (*self._outer, slice(start, stop), *self._across)
        write = tuple(slice(p.start * s, p.stop * s) for p, s in zip(read, plan.scale, strict=True))
        keep = tuple(slice(0, p.stop - p.start) for p in write)
        valid = self._taken(start, stop)
        block = job.finish(
            job.to_raster_axes(refined, read), valid, valid is not None, Tile(read, read, keep, write), self._time
        )
        return job.lead(self._time, job.out_channels) + write, block

    def _taken(self, start: int, stop: int) -> NDArray[Any] | None:
        """Validity ``(c, spatial…)`` of rows ``start`` to ``stop``; forgets the rows before ``stop``."""
        axis = self._axis + 1
        parts = []
        for a, b, valid in self._valid:
            low, high = max(a, start), min(b, stop)
            if low < high:
                parts.append((high - low, None if valid is None else valid.take(range(low - a, high - a), axis=axis)))
        self._valid = [entry for entry in self._valid if entry[1] > stop]
        known = [valid for _, valid in parts if valid is not None]
        if not known:
            return None
        like = list(known[0].shape)
        full = []
        for rows, valid in parts:
            like[axis] = rows
            full.append(np.ones(like, bool) if valid is None else valid)
        return np.concatenate(full, axis=axis)

"""A network as operations on rows, and passes of an image through it; :mod:`sciSR.depth_first` derives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciSR.filter_rows import FilterRows, Frames
from sciSR.row_ops import ROWS, RowOp

__all__ = ["RowProgram", "RowStream"]


def _at_once(number: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class _Rows:
    """Some rows on their way.

    Attributes:
        values: that the input and the operations so far have given, by number; None: none, or not needed any more.
        kept: what operations have kept after them, for others to share.
    """

    values: list[Tensor | None]
    kept: dict[int, Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RowProgram:
    """A network's residual as operations on rows; :meth:`start` begins a pass.

    Attributes:
        nodes: per operation, the numbers of the values it takes and how to make it; value 0 is the input.
        widest: the largest number of values that one input pixel becomes in any layer, for choosing strips.
        narrow: the same before the network widens at its end; its strips may be so much taller.
        widens: number of the operation that widens it, or None: then ``narrow`` is ``widest``.
        unit: rows that are computed together; strips of whole units waste none.
        fast: how many of its convolutions go through :mod:`sciSR.filters`.
    """

    nodes: tuple[tuple[tuple[int, ...], Callable[[], RowOp]], ...]
    widest: int
    narrow: int
    widens: int | None
    unit: int
    fast: int

    def start(
        self,
        *,
        gently: bool = False,
        wide_rows: int | None = None,
        threads: Callable[[], int] = torch.get_num_threads,
    ) -> RowStream:
        """A fresh pass over one image or batch of images.

        Args:
            gently: let the last rows out layer by layer, so that no layer gets more rows at once than in a strip
                before; slower where strips are small.
            wide_rows: most rows to take at once where the network widens; None: as they come.
            threads: says how many may compute now.
        """
        return RowStream(self, gently, wide_rows, threads)


class RowStream:
    """One pass: feed rows from the first to the last, take refined rows as they get ready.

    :meth:`feed` does so at once; :meth:`begin` and :meth:`end` let the next rows begin while these are under way.

    Attributes:
        steps: how many operations :meth:`begin` runs through.
    """

    def __init__(self, program: RowProgram, gently: bool, wide_rows: int | None, threads: Callable[[], int]) -> None:
        self._gently = gently
        self._widens, self._wide_rows = program.widens, wide_rows
        self._ops = [make() for _, make in program.nodes]
        self._inputs = [inputs for inputs, _ in program.nodes]
        self.steps = len(self._ops) if self._widens is None else self._widens
        filtering = {number: op for number, op in enumerate(self._ops) if isinstance(op, FilterRows)}
        frames = Frames(max((m for op in filtering.values() for m in op.margins), default=0))
        self._keeper: dict[int, int] = {}
        for number, op in filtering.items():
            op.frames, op.threads = frames, threads
            # only an operation that gets the rows in the same portions keeps the same ones
            alike = [n for n in filtering if n < number and (n < self.steps) == (number < self.steps)]
            added = self._inputs[number][1:]
            if keepers := [n for n in alike if self._inputs[n][:1] == added]:
                self._keeper[number] = keepers[0]
        uses = [i for inputs in self._inputs for i in inputs]
        self._last_use = {value: max(n for n, inputs in enumerate(self._inputs) if value in inputs) for value in uses}

    def feed(self, x: Tensor, *, last: bool) -> Iterator[Tensor]:
        """Refined rows as they get ready after the rows ``x`` ``(b, c, rows, …)``, in some portions or none.

        ``last`` says that nothing follows; then all remaining rows come.
        """
        return self.end(self.begin(x, last=last), last=last)

    def begin(self, x: Tensor, *, last: bool, at: Callable[[int], AbstractContextManager[None]] = _at_once) -> _Rows:
        """The operations up to where the network widens, each within ``at`` its number.

        Each must have done with the rows before when it is given new ones; the rows may be in different operations.
        """
        rows = _Rows([x])
        for number in range(self.steps):
            with at(number):
                self._step(number, rows, last and not self._gently)
        rows.kept.clear()  # operations share with those on their own side of the widening
        return rows

    def end(self, rows: _Rows, *, last: bool) -> Iterator[Tensor]:
        """Refined rows, as :meth:`feed`; after all of the rows before."""
        yield from self._run(self.steps, rows, last and not self._gently)
        rows.values.clear()
        if last and self._gently:
            for number in range(len(self._ops)):
                yield from self._run(number, _Rows([None] * (number + 1)), True)

    def _run(self, first: int, rows: _Rows, ending: bool, *, whole: bool = False) -> Iterator[Tensor]:
        """The operations from ``first`` on, given the values before it; ``ending``: nothing follows.

        Where the network widens, the rows go on in portions, unless ``whole`` says that this is one.
        """
        for number in range(first, len(self._ops)):
            if number == self._widens and not whole:
                portions = self._portions(rows.values[self._inputs[number][0]])
                if len(portions) > 1:
                    yield from self._by_portions(number, rows, portions, ending)
                    return
            self._step(number, rows, ending and (number == first or not self._gently))
        if (done := rows.values[-1]) is not None:
            yield done

    def _step(self, number: int, rows: _Rows, last: bool) -> None:
        """One operation."""
        op, values, inputs = self._ops[number], rows.values, self._inputs[number]
        taken = [values[i] for i in inputs]
        for i in inputs:
            if self._last_use[i] == number:
                values[i] = None
        if isinstance(op, FilterRows) and number in self._keeper:
            op.also_kept = rows.kept.get(self._keeper[number])
        values.append(op.step(taken, last))
        if isinstance(op, FilterRows) and number in self._keeper.values():
            rows.kept[number] = op.kept

    def _portions(self, x: Tensor | None) -> list[Tensor]:
        return [] if x is None or self._wide_rows is None else list(torch.split(x, self._wide_rows, ROWS))

    def _by_portions(self, number: int, rows: _Rows, portions: list[Tensor], ending: bool) -> Iterator[Tensor]:
        """The operations from ``number`` on, once a portion; what else they take comes with the first."""
        (wide,) = self._inputs[number]
        for n, portion in enumerate(portions):
            given = _Rows([None if n else value for value in rows.values])
            given.values[wide] = portion
            last = n == len(portions) - 1
            yield from self._run(number, given, ending and last and not self._gently, whole=True)

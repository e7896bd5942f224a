"""The loops of :mod:`sciSR.filters` as machine code for this processor.

A tile of 6 x 6 values gives 4 x 4 results. The transforms interpolate at 0, +-sqrt(1/2), +-sqrt(2) and infinity: there
float32 loses a third of what it loses at the usual 0, +-1, +-2. The matrices are Toom's and Cook's (Barabasz et al.
2020, doi:10.1145/3412380); rows of one sign pair share their even and odd parts. Channels are innermost and go through
the vector registers side by side; a compiler that is given plain loops over them spends more time on finding out that
the 36 rows do not overlap than on the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir

from sciSR.machine_code import FLOAT, FUSED, INDEX, Code, as_function, machine_code, registers

__all__ = ["WEIGHT", "Shape", "by_tiles", "to_few"]

WEIGHT = np.array(
    [
        [1, 0, 0],
        [-2 / 3, -math.sqrt(2) / 3, -1 / 3],
        [-2 / 3, math.sqrt(2) / 3, -1 / 3],
        [1 / 6, math.sqrt(2) / 6, 1 / 3],
        [1 / 6, -math.sqrt(2) / 6, 1 / 3],
        [0, 0, 1],
    ]
)
"""``(6, 3)``: three weights along an axis as the six that multiply a transformed tile."""

_A, _B = math.sqrt(0.5), math.sqrt(2)


@dataclass(frozen=True)
class Shape:
    """How the products of a convolution's results are laid out.

    Attributes:
        slices: the results are computed in so many turns, each of whole vectors where there are several.
        parts: of the pixel shuffle, in a slice.
        channels: of each part, in a slice.
        padded: results in a slice, filled up to whole vectors.
        panel: of these, how many are summed up together.
        rows: tiles that are summed up together.
    """

    slices: int
    parts: int
    channels: int
    padded: int
    panel: int
    rows: int

    @staticmethod
    def of(results: int, parts: int) -> Shape:
        """The shape for so many results on this processor, ``parts`` of which become one pixel's."""
        r = registers()
        vectors = -(-results // r.width)
        together = max(v for v in range(1, r.most + 1) if vectors % v == 0)
        panel, rows, channels = together * r.width, r.sums // together, results // parts
        if channels % panel == 0:
            return Shape(results // panel, 1, panel, panel, panel, rows)
        size = math.lcm(channels, panel)
        if results % size == 0:
            return Shape(results // size, size // channels, channels, size, panel, rows)
        return Shape(1, parts, channels, vectors * r.width, panel, rows)


def by_tiles(channels: int, results: int, depth: int, fine: tuple[int, int, int]) -> Callable[..., None]:
    """The machine code of a convolution by tiles: for so many channels, planes of weights, and finer pixels.

    It takes whole numbers:

    - x: address of the addresses ``(planes, height)`` of rows ``(x, c)`` float32, with a margin of one and whole tiles;
    - planes: of x; across: tiles along x; first, last: tiles to compute, numbered along x, then y; block: how many at
      a time;
    - weights: address of ``(slices, 36, panels, depth * c, panel)``; bias, slope: of one value per result; negative
      results are multiplied by the slope (1: no activation);
    - y, y_row, y_plane: address of ``(depth * fz, rows * fy, columns * fx, c)``, floats per row and per plane; depth,
      rows, columns: its size in coarse pixels; tiles may exceed it. Results lie ordered as ``(fz, fy, fx, c)``;
    - other: address of the addresses ``(depth, rows)`` of rows ``(x, c)`` that are added, 0: nothing is;
    - tiles, product, lines: addresses of ``(planes, groups, 36, rows, c)`` and ``(planes, groups, 36, rows, padded)``
      for use in between, and how many tiles they have room for: groups of as many as ``rows`` of :class:`Shape`. So a
      tile's 36 places lie on few pages of memory.
    """
    parts = math.prod(fine)
    shape, whole = Shape.of(results, parts), results // parts
    steps = (
        machine_code(_to_tiles, channels, shape.rows),
        machine_code(_products, depth, channels, shape),
        machine_code(_from_tiles, whole, shape),
    )
    turns = (shape.slices, whole // shape.channels, 36 * depth * channels * shape.padded * 4)
    return partial(as_function(machine_code(_all, shape), len(_ALL)), *(step.address for step in steps), *turns, *fine)


def to_few(channels: int, results: int, kernel: tuple[int, int, int]) -> Callable[..., None]:
    """The machine code of a convolution that gives a few channels: each a sum over all others, pixel by pixel.

    It takes whole numbers:

    - x: address of the addresses ``(planes, height)`` of rows ``(x, c)`` float32, with margins of half a kernel;
    - weights: address of ``(z, y, x, results, c)``; bias: of one value per result;
    - y, y_row, y_plane: address of ``(planes, rows, columns, results)``, floats per row and per plane; rows, columns:
      its size;
    - first, last: rows to compute, numbered along y, then z.
    """
    return as_function(machine_code(_to_few, channels, results, kernel), len(_FEW))


def _line(code: Code, plane: Any, tile: Any, rows: int) -> Any:
    """The first of a tile's lines in ``(planes, groups, 36, rows)``; the others are ``rows`` apart."""
    group, row = code.divided(tile, code.number(rows))
    return code.sum((plane, code["lines"], 36), (group, 36 * rows), row)


def _six(code: Code, v: Sequence[Any]) -> list[Any]:
    """Six values along an axis to the six of the transformed tile."""
    first = code.add(code.less(v[0], 2.5, v[2]), v[4])
    last = code.add(code.less(v[1], 2.5, v[3]), v[5])
    even, odd = code.less(v[4], 2, v[2]), code.times(_A, code.less(v[3], 2, v[1]))
    wide, far = code.less(v[4], 0.5, v[2]), code.times(_B, code.less(v[3], 0.5, v[1]))
    inner = [code.add(even, odd), code.less(even, 1, odd), code.add(wide, far), code.less(wide, 1, far)]
    return [first, *inner, last]


def _four(code: Code, v: Sequence[Any]) -> list[Any]:
    """Six values of a product along an axis to four results."""
    s, t = code.add(v[1], v[2]), code.add(v[3], v[4])
    u, w = code.times(_A, code.less(v[1], 1, v[2])), code.times(_B, code.less(v[3], 1, v[4]))
    return [
        code.add(v[0], code.add(s, t)),
        code.add(u, w),
        code.add(code.times(0.5, s), code.times(2, t)),
        code.add(code.add(code.times(0.5, u), code.times(2, w)), v[5]),
    ]


def _to_tiles(module: ir.Module, channels: int, rows_at_once: int) -> ir.Function:
    """Tiles of x, transformed."""
    names = ("x", "height", "planes", "across", "first", "count", "tiles", "lines")
    code = Code(module, "to_tiles", names, channels)
    b = code.build
    with code.loop(code["count"]) as n:
        y, x = code.divided(b.add(code["first"], n), code["across"])
        with code.loop(code["planes"]) as z:
            line = _line(code, z, n, rows_at_once)
            sources = [code.address(code["x"], code.sum((z, code["height"]), (y, 4), r)) for r in range(6)]
            with code.loop(code.number(channels), code.width) as c:
                places = [code.sum((x, 4 * channels), i * channels, c) for i in range(6)]
                rows = [_six(code, [code.load(source, place) for place in places]) for source in sources]
                for source in sources:  # what the tile after the next one adds
                    for i in range(10, 14):
                        code.prefetch(source, code.sum((x, 4 * channels), i * channels, c))
                for i in range(6):
                    for r, value in enumerate(_six(code, [row[i] for row in rows])):
                        place = code.sum((line, channels), (6 * r + i) * rows_at_once * channels, c)
                        code.store(value, code["tiles"], place)
    b.ret_void()
    return code.function


def _products(module: ir.Module, depth: int, channels: int, shape: Shape) -> ir.Function:
    """Each of the 36 lots of lines times its weights, summed up over as many planes as these have."""
    code = Code(module, "products", ("tiles", "weights", "product", "count", "depth", "lines"), shape.panel)
    b = code.build
    vectors = shape.panel // code.width
    groups = b.sdiv(b.add(code["count"], code.number(shape.rows - 1)), code.number(shape.rows))
    with code.loop(code.number(36)) as lot, code.loop(code.number(shape.padded // shape.panel)) as panel:
        weights = code.sum((lot, shape.padded * depth * channels), (panel, shape.panel * depth * channels))
        with code.loop(code["depth"]) as z, code.loop(groups) as group:
            line = code.sum((z, code["lines"], 36), (group, 36 * shape.rows), (lot, shape.rows))
            zeros = [code.constant(0)] * (shape.rows * vectors)
            with code.loop(code.number(depth), sums=zeros) as plane:
                start = code.sum((line, channels), (plane, code["lines"], 36 * channels))
                first = code.sum(weights, (plane, channels * shape.panel))
                with code.loop(code.number(channels), sums=code.sums) as k:
                    row = code.sum(first, (k, shape.panel))
                    factors = [code.load(code["weights"], code.sum(row, v * code.width)) for v in range(vectors)]
                    place = code.sum(start, k)
                    for r in range(shape.rows):
                        value = code.spread(code["tiles"], code.sum(place, r * channels))
                        for v, factor in enumerate(factors):
                            product = b.fmul(value, factor, flags=FUSED)
                            at = r * vectors + v
                            code.sums[at] = code.add(code.sums[at], product)
            target = code.sum((line, shape.padded), (panel, shape.panel))
            for at, total in enumerate(code.sums):
                offset = at // vectors * shape.padded + at % vectors * code.width
                code.store(total, code["product"], code.sum(target, offset))
    b.ret_void()
    return code.function


_FINE = ("fine_z", "fine_y", "fine_x")
_OUT = (*_FINE, "y", "y_row", "y_plane", "depth", "rows", "columns", "bias", "slope", "other")


def _from_tiles(module: ir.Module, channels: int, shape: Shape) -> ir.Function:
    """A slice of the results from its products, where they lie inside of y: ``channels`` of each part in all."""
    names = ("product", "lines", "across", "first", "count", "part", "channel", *_OUT)
    code = Code(module, "from_tiles", names, shape.channels)
    b = code.build
    zero = code.constant(0)
    adds = b.icmp_signed("!=", code["other"], code.number(0))
    with code.loop(code["count"]) as n, code.loop(code["depth"]) as z, code.loop(code.number(shape.parts)) as turn:
        top, left = (b.mul(v, code.number(4)) for v in code.divided(b.add(code["first"], n), code["across"]))
        part = b.add(code["part"], turn)
        coarse, into_x = code.divided(part, code["fine_x"])
        into_z, into_y = code.divided(coarse, code["fine_y"])
        plane = code.sum((code.sum((z, code["fine_z"]), into_z), code["y_plane"]))
        line = _line(code, z, n, shape.rows)
        with code.loop(code.number(shape.channels), code.width) as step:
            c = b.add(code["channel"], step)
            result = code.sum((part, channels), c)
            start = code.sum((line, shape.padded), (turn, shape.channels), step)
            across = []
            for r in range(6):
                places = [code.sum(start, (6 * r + i) * shape.rows * shape.padded) for i in range(6)]
                across.append(_four(code, [code.load(code["product"], place) for place in places]))
            bias, slope = code.load(code["bias"], result), code.load(code["slope"], result)
            for j in range(4):
                for i, value in enumerate(_four(code, [row[j] for row in across])):
                    y, x = b.add(top, code.number(i)), b.add(left, code.number(j))
                    inside = b.and_(b.icmp_signed("<", y, code["rows"]), b.icmp_signed("<", x, code["columns"]))
                    with b.if_then(inside):
                        raised = code.add(value, bias)
                        falling = b.fmul(raised, slope, flags=FUSED)
                        active = b.select(b.fcmp_ordered(">", raised, zero), raised, falling)
                        before = b.block
                        with b.if_then(adds):
                            other = code.address(code["other"], code.sum((z, code["rows"]), y))
                            total = code.add(active, code.load(other, code.sum((x, channels), c)))
                            adding = b.block
                        final = b.phi(code.vector)
                        final.add_incoming(active, before)
                        final.add_incoming(total, adding)
                        row = code.sum(plane, (code.sum((y, code["fine_y"]), into_y), code["y_row"]))
                        pixel = code.sum((x, code["fine_x"]), into_x)
                        code.store(final, code["y"], code.sum(row, (pixel, channels), c))
    b.ret_void()
    return code.function


_STEPS = ("to_tiles", "products", "from_tiles", "slices", "per_part", "slice_bytes")
_TILES = ("x", "height", "planes", "across", "first", "last", "block", "weights")
_ALL = (*_STEPS, *_FINE, *_TILES, *_OUT[len(_FINE) :], "tiles", "product", "lines")


def _all(module: ir.Module, shape: Shape) -> ir.Function:
    """Block after block of tiles: into the other space, times the weights, and back, slice after slice."""
    code = Code(module, "convolve", _ALL, 1)
    b = code.build

    def call(step: str, *given: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [INDEX] * len(given))
        b.call(b.inttoptr(code[step], kind.as_pointer()), given)

    total = b.sub(code["last"], code["first"])
    steps = b.sdiv(b.add(total, b.sub(code["block"], code.number(1))), code["block"])
    with code.loop(steps) as step:
        done = b.mul(step, code["block"])
        first, left = b.add(code["first"], done), b.sub(total, done)
        count = b.select(b.icmp_signed("<", left, code["block"]), left, code["block"])
        into = [code[name] for name in ("x", "height", "planes", "across")]
        call("to_tiles", *into, first, count, code["tiles"], code["lines"])
        with code.loop(code["slices"]) as turn:
            weights = code.sum(code["weights"], (turn, code["slice_bytes"]))
            call("products", code["tiles"], weights, code["product"], count, code["depth"], code["lines"])
            group, rest = code.divided(turn, code["per_part"])
            place = (code.sum((group, shape.parts)), code.sum((rest, shape.channels)))
            out = [code[name] for name in ("product", "lines", "across")]
            call("from_tiles", *out, first, count, *place, *(code[name] for name in _OUT))
    b.ret_void()
    return code.function


_FEW = ("x", "height", "weights", "bias", "y", "y_row", "y_plane", "rows", "columns", "first", "last")


def _to_few(module: ir.Module, channels: int, results: int, kernel: tuple[int, int, int]) -> ir.Function:
    """Row by row, some pixels at a time, so that each weight is loaded once for all of them."""
    code = Code(module, "to_few", _FEW, channels)
    b = code.build
    together = max(1, min(4, registers().sums // results))
    with code.loop(b.sub(code["last"], code["first"])) as n:
        z, y = code.divided(b.add(code["first"], n), code["rows"])
        corner = code.sum((z, code["height"]), y)
        row = code.sum((z, code["y_plane"]), (y, code["y_row"]))
        groups, left = code.divided(code["columns"], code.number(together))
        with code.loop(groups) as group:
            x = b.mul(group, code.number(together))
            _few_pixels(code, channels, results, kernel, together, corner, row, x)
        with code.loop(left) as rest:
            x = code.sum((groups, together), rest)
            _few_pixels(code, channels, results, kernel, 1, corner, row, x)
    b.ret_void()
    return code.function


def _few_pixels(
    code: Code, channels: int, results: int, kernel: tuple[int, int, int], count: int, corner: Any, row: Any, x: Any
) -> None:
    """The results of ``count`` pixels: from column ``x`` of a row of y on, from row number ``corner`` of x on."""
    b = code.build
    depth, height, width = (code.number(n) for n in kernel)
    zeros = [code.constant(0)] * (count * results)
    with code.loop(depth, sums=zeros) as z, code.loop(height, sums=code.sums) as y:
        source = code.address(code["x"], code.sum(corner, (z, code["height"]), y))
        with code.loop(code.number(channels), code.width, sums=code.sums) as c:
            start = code.sum((x, channels), c)
            values = [code.load(source, code.sum(start, i * channels)) for i in range(count + kernel[2] - 1)]
            taps = code.sum((z, height, width), (y, width))
            for i in range(kernel[2]):
                for r in range(results):
                    place = code.sum((b.add(taps, code.number(i)), results * channels), r * channels, c)
                    weight = code.load(code["weights"], place)
                    for p in range(count):
                        at = p * results + r
                        product = b.fmul(values[p + i], weight, flags=FUSED)
                        code.sums[at] = code.add(code.sums[at], product)
    for at, total in enumerate(code.sums):
        place = code.sum(row, (x, results), at)
        bias = code.load_one(code["bias"], code.number(at % results))
        code.store(b.fadd(code.total(total), bias), code["y"], place, FLOAT)

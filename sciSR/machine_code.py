"""Functions written for this processor at run time, built by llvmlite, run without Python's lock."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

__all__ = ["FLOAT", "FUSED", "INDEX", "Code", "MachineCode", "Registers", "as_function", "machine_code", "registers"]

INDEX = ir.IntType(64)
FLOAT = ir.FloatType()
FUSED = ("contract",)
"""A product and a sum may be one instruction; all else is computed as it is written, NaN and infinity too."""
_MAKING = threading.Lock()


@dataclass(frozen=True)
class Registers:
    """Vector registers of a processor.

    Attributes:
        width: floats in one.
        sums: how many may hold sums of a matrix product; the rest hold what is multiplied.
        most: vectors of one row's sums that are worked on together.
    """

    width: int
    sums: int
    most: int


@cache
def registers() -> Registers:
    """Those of this processor: AVX-512, AVX, or 32 of four floats as on ARM."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Registers(16, 24, 4)
    return Registers(8, 12, 3) if features.get("avx") else Registers(4, 24, 4)


class Code:
    """A function under construction: whole numbers, vectors of channels, loops.

    Attributes:
        arguments: by name, whole numbers all of them; ``code[name]`` too.
        function: what is written.
        build: writes the next instruction.
        width: floats in a vector: as many as the registers hold, or fewer, so that ``channels`` are whole vectors.
        vector: its type.
        sums: that the innermost loop carries from round to round.
    """

    def __init__(self, module: ir.Module, name: str, arguments: Sequence[str], channels: int) -> None:
        kind = ir.FunctionType(ir.VoidType(), [INDEX] * len(arguments))
        function = ir.Function(module, kind, name)
        self.sums: list[Any] = []
        self.arguments = dict(zip(arguments, function.args, strict=True))
        self.function = function
        self.build = ir.IRBuilder(function.append_basic_block())
        self.width = math.gcd(channels, registers().width)
        self.vector = ir.VectorType(FLOAT, self.width)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def number(self, value: int) -> Any:
        """A whole number that is known now."""
        return ir.Constant(INDEX, value)

    def sum(self, *terms: Any) -> Any:
        """The sum of products ``(a, b, …)`` and lone numbers."""
        total = self.number(0)
        for term in terms:
            factors = term if isinstance(term, tuple) else (term,)
            product = self.number(1)
            for factor in factors:
                product = self.build.mul(product, self.number(factor) if isinstance(factor, int) else factor)
            total = self.build.add(total, product)
        return total

    def divided(self, number: Any, by: Any) -> tuple[Any, Any]:
        """Quotient and remainder."""
        return self.build.sdiv(number, by), self.build.srem(number, by)

    @contextmanager
    def loop(self, stop: Any, step: int = 1, sums: Sequence[Any] = ()) -> Iterator[Any]:
        """The code inside, for a number from 0 to ``stop``; ``self.sums`` go from round to round in registers."""
        b = self.build
        before, head = b.block, b.append_basic_block()
        body, after = b.append_basic_block(), b.append_basic_block()
        b.branch(head)
        b.position_at_end(head)
        number = b.phi(INDEX)
        number.add_incoming(self.number(0), before)
        carried = [b.phi(self.vector) for _ in sums]
        for phi, value in zip(carried, sums, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", number, stop), body, after)
        b.position_at_end(body)
        if carried:
            self.sums = list(carried)
        yield number
        number.add_incoming(b.add(number, self.number(step)), b.block)
        for phi, value in zip(carried, self.sums if carried else [], strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        if carried:
            self.sums = list(carried)

    def load(self, base: Any, offset: Any) -> Any:
        """A vector from the address ``base``, ``offset`` floats on."""
        return self.build.load(self._at(base, offset), align=4)

    def prefetch(self, base: Any, offset: Any) -> None:
        """Fetch what will be loaded soon; beyond the end of memory it does nothing."""
        byte, how = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, how, how, how])
        fetch = self.function.module.globals.get("llvm.prefetch") or ir.Function(
            self.function.module, kind, "llvm.prefetch"
        )
        self.build.call(fetch, [self._at(base, offset, ir.IntType(8)), how(0), how(3), how(1)])

    def store(self, value: Any, base: Any, offset: Any, kind: ir.Type | None = None) -> None:
        """A vector, or a value of another kind, to the address ``base``, ``offset`` floats on."""
        self.build.store(value, self._at(base, offset, kind), align=4)

    def load_one(self, base: Any, offset: Any) -> Any:
        """One float."""
        return self.build.load(self._at(base, offset, FLOAT), align=4)

    def spread(self, base: Any, offset: Any) -> Any:
        """One float, in every place of a vector."""
        one = self.load_one(base, offset)
        vector = self.build.insert_element(ir.Constant(self.vector, ir.Undefined), one, ir.Constant(ir.IntType(32), 0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.build.shuffle_vector(vector, ir.Constant(self.vector, ir.Undefined), places)

    def total(self, vector: Any) -> Any:
        """The sum of a vector's floats."""
        count = self.width
        while count > 1:
            count //= 2
            kind = ir.VectorType(ir.IntType(32), count)
            halves = [
                self.build.shuffle_vector(vector, vector, ir.Constant(kind, [start + i for i in range(count)]))
                for start in (0, count)
            ]
            vector = self.add(*halves)
        return self.build.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    def address(self, table: Any, number: Any) -> Any:
        """The address that stands at this place of a table."""
        place = self.build.add(table, self.build.mul(number, self.number(8)))
        return self.build.load(self.build.inttoptr(place, INDEX.as_pointer()), align=8)

    def _at(self, base: Any, offset: Any, kind: ir.Type | None = None) -> Any:
        address = self.build.add(base, self.build.mul(offset, self.number(4)))
        return self.build.inttoptr(address, (kind or self.vector).as_pointer())

    def constant(self, value: float) -> Any:
        """A vector of one value that is known now."""
        return ir.Constant(self.vector, [value] * self.width)

    def add(self, a: Any, b: Any) -> Any:
        """The sum of two vectors."""
        return self.build.fadd(a, b, flags=FUSED)

    def less(self, a: Any, factor: float, b: Any) -> Any:
        """``a - factor * b``."""
        return self.build.fsub(a, self.times(factor, b), flags=FUSED)

    def times(self, factor: float, a: Any) -> Any:
        """``factor * a``."""
        return a if factor == 1 else self.build.fmul(self.constant(factor), a, flags=FUSED)


@dataclass(frozen=True)
class MachineCode:
    """A function in memory.

    Attributes:
        address: where it begins.
        engine: it is there as long as its engine.
    """

    address: int
    engine: Any


def machine_code(write: Callable[..., ir.Function], *arguments: Any) -> MachineCode:
    """What ``write`` writes into a module; made once a process, and kept."""
    with _MAKING:
        return _made(write, *arguments)


@cache
def _made(write: Callable[..., ir.Function], *arguments: Any) -> MachineCode:
    module = ir.Module()
    function = write(module, *arguments)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    return MachineCode(engine.get_function_address(function.name), engine)


def as_function(code: MachineCode, arguments: int) -> Callable[..., None]:
    """Runs without Python's lock."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(code.address)

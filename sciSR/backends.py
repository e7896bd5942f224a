"""A network made ready for one device and precision: a callable from float32 arrays to float32 arrays.

Only the network's residual runs in low precision; the interpolation that it is added to stays in float32, so that
rounding scales with the detail and not with the image.
"""

from __future__ import annotations

import copy
import ctypes
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError, ResourceError
from sciSR.low_precision import lowered
from sciSR.networks.spec import SRNetwork

__all__ = [
    "Precision",
    "Runner",
    "RunnerPool",
    "frozen",
    "give_back_device_memory",
    "give_back_large_blocks",
    "give_back_memory",
    "has_fast_bfloat16",
    "pick_device",
    "pick_devices",
    "prepare",
]

Precision = Literal["float32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_M_MMAP_THRESHOLD = -3  # glibc's malloc.h
_LARGE_BLOCK_BYTES = 8 * 2**20
_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Memory layout in which convolutions are fastest, by spatial axes: in 3D float32 up to 1.9 times."""


def pick_device(device: str) -> torch.device:
    """The device for a name: ``"auto"`` is the first CUDA device, else Apple's, else the CPU.

    Raises:
        InputError: a device that this machine does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: {device!r} is no device name; expected auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device: {device!r} is of a kind that sciSR does not run on; expected auto, cpu, cuda or mps")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device: {device!r} was asked for, but torch sees no Apple GPU here; use cpu or auto")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {device!r} was asked for, but torch sees no CUDA device here; use cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: {device!r} is not here; torch sees {torch.cuda.device_count()} CUDA device(s)")
    return chosen


def give_back_memory() -> None:
    """Hand freed memory back to the system, which glibc keeps for later otherwise; elsewhere nothing happens."""
    _call_glibc("malloc_trim", 0)


def give_back_large_blocks() -> None:
    """From now on hand each freed block of 8 MiB and more back at once; with another C library nothing happens.

    glibc's own limit rises to up to 32 MiB with what is freed, and what is smaller each thread keeps for itself.
    """
    _call_glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def _call_glibc(name: str, *numbers: int) -> None:
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library
        return
    function(*numbers)


def give_back_device_memory(device: torch.device) -> None:
    """Hand what PyTorch keeps for later back to the devices of this kind, for other programs and for larger pieces."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def pick_devices(device: str) -> list[torch.device]:
    """The devices for one name or several with commas between (``"cuda:0,cuda:1"``)."""
    return [pick_device(name.strip()) for name in device.split(",")]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are clearly faster than float32 ones on ``device``, by what it is.

    On CUDA from Ampere on, on a CPU with AMX. AVX512-BF16 alone at most doubles the rate, on some processors halves it,
    and float32 in machine code of our own gains more. Nothing is timed: the same work must give the same bytes.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and {"amx_tile", "amx_bf16"} <= _processor_flags()


@cache
def _processor_flags() -> frozenset[str]:
    """What the processor can do, in Linux's names; nothing where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(flags.split())


@dataclass(frozen=True)
class Runner:
    """A network on a device; call it with normalised values.

    Attributes:
        network: the network in float32, on the device.
        low: a copy for the residual in low precision, or None at float32.
        device: where it runs.
        precision: of the residual.
        backend: what executes it.
        compiled: the residual through torch.compile, or None.
        takes: the type of the residual's input.
    """

    network: SRNetwork
    low: SRNetwork | None
    device: torch.device
    precision: Precision
    backend: str = "torch"
    compiled: Callable[[Tensor], Tensor | None] | None = None
    takes: torch.dtype = torch.float32

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refined values ``(b, c, [z,] y, x)`` float32 of values ``(b, c, [z,] y, x)`` float32."""
        x = torch.from_numpy(values)
        try:
            with torch.inference_mode():
                if self.device.type == "cpu":
                    return self.forward(x).to(torch.float32).numpy()
                return self._on_device(x)
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"the device {self.device} ran out of memory on a tile of {values.shape}") from error

    def _on_device(self, x: Tensor) -> NDArray[np.float32]:
        """Through page-locked memory where the device has it, two calls at a time, so that transfers cost no time."""
        if self.device.type != "cuda":
            with _turn(self.device):
                return self.forward(x.to(self.device)).to("cpu", torch.float32).numpy()
        x = _page_locked(x.shape).copy_(x)
        with _turn(self.device) as stream, torch.cuda.stream(stream), _WITHOUT_TF32:
            fine = self.forward(x.to(self.device, non_blocking=True))
            there = _page_locked(fine.shape).copy_(fine, non_blocking=True)
            torch.cuda.current_stream(self.device).synchronize()
        return there.numpy()

    def forward(self, x: Tensor) -> Tensor:
        """The same on a tensor that lies on the device already."""
        base = self.network.interpolate(x)
        detail = (self.compiled or self.residual_network.residual)(self.lowered(x))
        if detail is None:
            assert base is not None
            return base
        if not isinstance(detail, Tensor):
            raise InputError(
                f"network: the residual of {type(self.network).__name__} is a {type(detail).__name__}; expected one "
                "tensor (b, c, [z,] y, x); give the wanted part of it"
            )
        detail = detail.to(torch.float32)
        return detail if base is None else base + detail

    def lowered(self, x: Tensor) -> Tensor:
        """``x`` in the type that the residual takes and the memory layout that is fastest for it."""
        return x.to(self.takes).contiguous(memory_format=_LAYOUTS[x.dim() - 2])

    @property
    def residual_network(self) -> SRNetwork:
        """The network whose residual runs: the low-precision copy, or the network itself."""
        return self.network if self.low is None else self.low

    def record(self) -> dict[str, Any]:
        """Plain values for the run record."""
        told = {"backend": self.backend, "device": self.device.type, "precision": self.precision}
        return told if self.low is None else {**told, "input": str(self.takes).removeprefix("torch.")}

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets; it compiles for itself."""
        return {**self.__dict__, "compiled": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile again where the sender had."""
        self.__dict__.update(state)
        if self.backend == "compile":
            self.__dict__["compiled"] = torch.compile(self.residual_network.residual, dynamic=False)


class RunnerPool:
    """The same network on several devices; each call takes the device that is free the longest."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self.runners = tuple(runners)
        self._free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in self.runners * _AT_A_TIME:
            self._free.put(runner)

    @property
    def network(self) -> SRNetwork:
        """The network on the first device."""
        return self.runners[0].network

    @property
    def device(self) -> torch.device:
        """The first device."""
        return self.runners[0].device

    @property
    def precision(self) -> Precision:
        """Of the residual, on all devices."""
        return self.runners[0].precision

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """As :meth:`Runner.__call__`, on a free device."""
        runner = self._free.get()
        try:
            return runner(values)
        finally:
            self._free.put(runner)

    def record(self) -> dict[str, Any]:
        """Plain values for the run record."""
        return {**self.runners[0].record(), "devices": len(self.runners)}

    def __getstate__(self) -> dict[str, Any]:
        """The runners alone travel."""
        return {"runners": self.runners}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """All devices free."""
        self.__init__(state["runners"])  # type: ignore[misc]


class _WithoutTF32:
    """Convolutions in true float32 while any thread is inside; counted, since cuDNN's switch is the process's own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cudnn.allow_tf32 = self._before


_WITHOUT_TF32 = _WithoutTF32()
_AT_A_TIME = 2
_MAKING = threading.Lock()


def _page_locked(shape: torch.Size) -> Tensor:
    """Memory that a device reads and writes while the processor goes on; any other where there is no more of it."""
    try:
        return torch.empty(shape, dtype=torch.float32, pin_memory=True)
    except RuntimeError:
        return torch.empty(shape, dtype=torch.float32)


@contextmanager
def _turn(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """One of the two places of a device, with its CUDA stream; None elsewhere. Waits until one is free.

    Memory on a device is kept by stream, so there are no more streams than calls at a time.
    """
    with _MAKING:
        places = _places(os.getpid(), device)
    stream = places.get()
    try:
        yield stream
    finally:
        places.put(stream)


@cache
def _places(process: int, device: torch.device) -> queue.SimpleQueue[torch.cuda.Stream | None]:
    """The places of a device in this process."""
    places: queue.SimpleQueue[torch.cuda.Stream | None] = queue.SimpleQueue()
    for _ in range(_AT_A_TIME):
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch leaves it untyped
        places.put(stream)
    return places


def prepare(network: SRNetwork, device: torch.device, precision: Precision, *, compiled: bool = False) -> Runner:
    """The network ready to run; the one given is not changed. One that is :func:`frozen` already is not copied.

    Args:
        network: what to run.
        device: where.
        precision: of the residual.
        compiled: through torch.compile, which takes a minute per tile shape and needs a C++ compiler on CPUs.

    Raises:
        InputError: a precision that is none.
    """
    if precision not in _DTYPES:
        raise InputError(f"precision: {precision!r} came, expected auto, {', '.join(_DTYPES)}")
    full = network if _is_frozen(network, device) else frozen(copy.deepcopy(network).to(device))
    runner = Runner(full, None, device, precision)
    if precision != "float32":
        low, rounds = lowered(full, _DTYPES[precision])
        takes = torch.float32 if rounds else _DTYPES[precision]
        runner = replace(runner, low=_laid_out(low), takes=takes)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the streams that calls run on do not wait for this one
    if not compiled:
        return runner
    return replace(runner, backend="compile", compiled=torch.compile(runner.residual_network.residual, dynamic=False))


def frozen(network: SRNetwork) -> SRNetwork:
    """The same network, from now on for inference only: no gradients, weights laid out as they run fastest."""
    return _laid_out(network.eval().requires_grad_(False))


def _is_frozen(network: SRNetwork, device: torch.device) -> bool:
    ndim = network.spec.ndim
    layout = _LAYOUTS[ndim]
    weights = [*network.parameters(), *network.buffers()]
    return not network.training and all(
        not w.requires_grad and w.device == device and (w.dim() != ndim + 2 or w.is_contiguous(memory_format=layout))
        for w in weights
    )


def _laid_out(network: SRNetwork) -> SRNetwork:
    layout = _LAYOUTS[network.spec.ndim]
    return network.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]  # torch's stubs lack it

"""A network made ready for one device and precision: a callable from float32 arrays to float32 arrays.

Only the network's residual runs in low precision; the interpolation that it is added to stays in float32, so that
rounding scales with the detail and not with the image.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError, ResourceError
from sciSR.networks.spec import SRNetwork

__all__ = ["Precision", "Runner", "has_fast_bfloat16", "pick_device", "prepare"]

Precision = Literal["float32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {device!r} was asked for, but torch sees no CUDA device here; use cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: {device!r} is not here; torch sees {torch.cuda.device_count()} CUDA device(s)")
    return chosen


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions run in hardware on ``device`` (AVX512-BF16 or AMX; Ampere and later)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        query = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.11 and later; before, take float32
        capability = query()
        return any(capability.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


@dataclass(frozen=True)
class Runner:
    """A network on a device; call it with normalised values.

    Attributes:
        network: the network in float32, on the device.
        low: a copy for the residual in low precision, or None at float32.
        device: where it runs.
        precision: of the residual.
        backend: what executes it.
    """

    network: SRNetwork
    low: SRNetwork | None
    device: torch.device
    precision: Precision
    backend: str = "torch"

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refined values ``(b, c, [z,] y, x)`` float32 of values ``(b, c, [z,] y, x)`` float32."""
        with torch.inference_mode():
            x = torch.from_numpy(values)
            if self.device.type == "cuda":
                x = x.pin_memory().to(self.device, non_blocking=True)
            y = self.forward(x.to(self.device))
            return y.to("cpu", torch.float32).numpy()

    def forward(self, x: Tensor) -> Tensor:
        """The same on a tensor that lies on the device already."""
        try:
            if self.low is None:
                return self.network(x)
            base = self.network.interpolate(x)
            detail = self.low.residual(self.lowered(x)).to(torch.float32)
            return detail if base is None else base.add_(detail)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"the {self.device.type} device ran out of memory on a tile of {tuple(x.shape)}"
            ) from error

    def lowered(self, x: Tensor) -> Tensor:
        """``x`` in the residual's type and the memory layout that is fastest for it."""
        if self.low is None:
            return x
        layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        return x.to(_DTYPES[self.precision]).contiguous(memory_format=layout)

    @property
    def residual_network(self) -> SRNetwork:
        """The network whose residual runs: the low-precision copy, or the network itself."""
        return self.network if self.low is None else self.low

    def record(self) -> dict[str, Any]:
        """Plain values for the run record."""
        return {"backend": self.backend, "device": self.device.type, "precision": self.precision}


def prepare(network: SRNetwork, device: torch.device, precision: Precision) -> Runner:
    """The network ready to run; the one given is not changed.

    Raises:
        InputError: a precision that is none.
    """
    if precision not in _DTYPES:
        raise InputError(f"precision: {precision!r} came, expected auto, {', '.join(_DTYPES)}")
    full = copy.deepcopy(network).eval().requires_grad_(False).to(device)
    low = None
    if precision != "float32":
        low = copy.deepcopy(full).to(_DTYPES[precision])
        layout = torch.channels_last if network.spec.ndim == 2 else torch.channels_last_3d
        low = low.to(memory_format=layout)
    return Runner(full, low, device, precision)

"""How much memory a run will need, and how much there is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sciSR.config import EvaluateSection
from sciSR.io.block_cache import BLOCK_CACHE
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster

__all__ = ["activation_load", "available_memory", "needed_memory"]

_FLOAT = 4
_BASE_BYTES = 200 * 2**20
"""Buffers of readers and writers."""
_COPIES = 2
"""Activations alive at once beside the widest layer's own input and output: a skip, a workspace."""
_ROWS_KEPT = 3
"""Rows that a 3-wide convolution keeps when a network runs strip by strip."""
_STRIP_BYTES = 32 * 2**20
"""The strips of rows under way, in one layer before the network widens."""
_WALD_VALUES = 2**25
"""Wald's protocol takes the centre of larger rasters."""

_LOADS: WeakKeyDictionary[SRNetwork, tuple[float, float]] = WeakKeyDictionary()
"""Of networks seen before: a batch asks for each file."""


def needed_memory(
    raster: Raster, result: Raster, model: SRNetwork | str | None, engine: Mapping[str, Any], section: Any = None
) -> int:
    """About how many bytes upscaling will need at its peak, beside what is loaded already.

    Args:
        raster: the input.
        result: the lazy result.
        model: network or method.
        engine: what the result's source tells: executor, plan.
        section: the evaluate section, or None.
    """
    chunk = math.prod(result.source.chunks)
    need = _BASE_BYTES + BLOCK_CACHE.more + 6 * chunk * _FLOAT
    if isinstance(model, SRNetwork) and "plan" in engine:
        need += _network_bytes(raster, model, engine)
    if isinstance(section, EvaluateSection) and section.protocol == "wald":
        judged = min(math.prod(raster.shape), _WALD_VALUES if section.crop == "auto" else math.prod(raster.shape))
        need = max(need, _BASE_BYTES + (len(section.baselines) + 3) * judged * _FLOAT)
    return need


def _network_bytes(raster: Raster, network: SRNetwork, engine: Mapping[str, Any]) -> int:
    """Bytes of a network's activations over the tiles or strips that are under way."""
    widest, total = activation_load(network)
    plan = engine["plan"]
    bands = len(raster.channels) if network.spec.in_channels == 1 else 1
    if "strip_rows" in engine:
        row = math.prod(plan["shape"][-network.spec.ndim :][1:])
        kept = _COPIES * widest * engine["wide_rows"] + _ROWS_KEPT * total
        return int(bands * row * kept * _FLOAT) + _COPIES * _STRIP_BYTES
    sizes = zip(plan["tile"], plan["halo"], plan["shape"], strict=True)
    tile = math.prod(min(t + 2 * h, n) for t, h, n in sizes)
    count = math.prod(-(-n // t) for n, t in zip(plan["shape"], plan["tile"], strict=True))
    under_way = min(count, torch.get_num_threads())
    return int(bands * under_way * tile * _COPIES * widest * _FLOAT)


def activation_load(network: SRNetwork) -> tuple[float, float]:
    """Values per input pixel, measured on a small patch: of the widest layer with its input, and of all layers."""
    if network not in _LOADS:
        _LOADS[network] = _measured_load(network)
    return _LOADS[network]


def _measured_load(network: SRNetwork) -> tuple[float, float]:
    patch = torch.zeros(network.spec.small_shape)
    widest, total = 0, 0

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal widest, total
        own = output.numel() if isinstance(output, Tensor) else 0
        given = sum(x.numel() for x in inputs if isinstance(x, Tensor))
        widest, total = max(widest, own + given), total + own

    leaves = [m for m in network.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(note) for m in leaves]
    try:
        with torch.inference_mode():
            patch = patch.to(next((p.device for p in network.parameters()), torch.device("cpu")))
            out = network(patch)
    finally:
        for hook in hooks:
            hook.remove()
    pixels = math.prod(patch.shape[2:])
    return max(widest, 2 * out.numel()) / pixels, max(total, out.numel()) / pixels


def available_memory() -> int | None:
    """Bytes that this process may still take: of the machine, or of its control group; None where neither tells."""
    found = [_machine_memory(), _group_memory()]
    known = [n for n in found if n is not None]
    return min(known) if known else None


def _machine_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    text = fields.get("MemAvailable")
    return None if text is None else int(text.split()[0]) * 1024


def _group_memory() -> int | None:
    """What is left of a container's limit (Linux control groups, version 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        cache = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(cache.get("inactive_file", 0))

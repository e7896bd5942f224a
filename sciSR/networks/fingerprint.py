"""A checksum of everything that decides what a network computes, for one that is from no checkpoint."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import torch
from torch import nn

from sciSR.networks.spec import SRNetwork

__all__ = ["fingerprint"]

_PLAIN = (str, int, float, bool, type(None), tuple, list)


def fingerprint(network: SRNetwork) -> str:
    """sha256 of the family, the arguments, and of every layer: its code, its plain attributes, weights and buffers.

    Example:
        >>> from sciSR.networks import build_network
        >>> network = build_network("srcnn", ndim=2, in_channels=1, scale=2)
        >>> before = fingerprint(network)
        >>> _ = network.register_buffer("gain", torch.ones(()), persistent=False)
        >>> fingerprint(network) == before
        False
    """
    digest = hashlib.sha256(f"{network.family} {sorted(getattr(network, 'arguments', {}).items())}".encode())
    for kind in {type(module): None for module in network.modules()}:
        digest.update(_code(kind).encode())
    for name, module in network.named_modules():
        digest.update(f"{name} {type(module).__qualname__} {sorted(_attributes(module).items())}".encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Plain attributes that may decide the result; whether it trains does not, as networks are frozen to run."""
    return {k: v for k, v in vars(module).items() if isinstance(v, _PLAIN) and k != "training" and k[:1] != "_"}


def _code(kind: type) -> str:
    """Of a class of a user's own; that of installed packages goes by their versions."""
    if kind.__module__.split(".")[0] in ("torch", "monai", "sciSR"):
        return f"{kind.__module__}.{kind.__qualname__}"
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"

"""A network's residual at bfloat16 or float16, without what it would lose first.

A residual sharpens, and so it sharpens the error of its rounded input too: nearly all of the error at bfloat16 comes
from there. With the shipped weights ``mri-x2`` on a T1 head it is 58.5 dB, and 58.8 dB where nothing but the input is
rounded; with :class:`Halves` it is 71 dB.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from sciSR.networks.spec import SRNetwork

__all__ = ["Halves", "lowered"]

_CLEARLY = 1.5
_SMALL = 1024
"""Values of a layer that may stay at float32: a mean of each channel, the kernel of an interpolation."""
_REFUSALS = (RuntimeError, AttributeError, TypeError, ValueError)
"""What a network raises that cannot do with another first layer, or with float32 before it."""


class Halves(nn.Module):
    """Values rounded to a lower type, then, in as many channels more, what the rounding took from them."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """``(b, 2 c, [z,] y, x)`` of ``(b, c, [z,] y, x)`` float32."""
        rounded = x.to(self.dtype)
        return torch.cat([rounded, (x - rounded.to(x.dtype)).to(self.dtype)], dim=1)


def lowered(network: SRNetwork, dtype: torch.dtype) -> tuple[SRNetwork, bool]:
    """A copy in ``dtype``, and whether its residual takes float32 and rounds by itself.

    It does where its first convolution is a plain one that is met by the input alone: that one gets :class:`Halves` and
    each weight twice, and what comes before stays at float32. A random patch must come out no worse than without.
    """
    plain = copy.deepcopy(network).to(dtype)
    try:
        careful = _careful(network, plain, dtype)
        if careful is not None and _is_as_good(network, careful, plain, dtype):
            return careful, True
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS:
        pass
    return plain, False


def _careful(network: SRNetwork, plain: SRNetwork, dtype: torch.dtype) -> SRNetwork | None:
    """``plain`` with a first convolution that takes both halves; None where there is no such place."""
    calls, layer = _calls(network), network.get_submodule
    first = next((i for i, name in enumerate(calls) if isinstance(layer(name), nn.Conv2d | nn.Conv3d)), None)
    if first is None:
        return None
    entrance = calls[first]
    before = [name for name in calls[:first] if _tensors(layer(name))]
    small = all(t.numel() <= _SMALL for name in before for t in _tensors(layer(name)))
    if not small or {entrance, *before} & {*calls[first + 1 :]} or not _is_plain(layer(entrance)):
        return None
    careful = copy.deepcopy(plain)
    for name in before:
        _put(careful, name, copy.deepcopy(layer(name)))
    _put(careful, entrance, nn.Sequential(Halves(dtype), _doubled(careful.get_submodule(entrance))))
    return careful


def _is_as_good(network: SRNetwork, careful: SRNetwork, plain: SRNetwork, dtype: torch.dtype) -> bool:
    """Whether the careful copy differs from the network no more than the plain one does."""
    patch = _patch(network)
    with torch.inference_mode():
        full, one, other = network.residual(patch), careful.residual(patch), plain.residual(patch.to(dtype))
    if full is None or one is None or other is None:
        return False
    errors = [float((result.float() - full).square().mean()) for result in (one, other)]
    return math.isfinite(errors[0]) and not errors[0] > _CLEARLY**2 * errors[1]


def _calls(network: SRNetwork) -> list[str]:
    """Names of the layers in the order in which a residual calls them."""
    probe = copy.deepcopy(network)  # another thread may run the network itself
    calls: list[str] = []

    def note(name: str) -> Any:
        return lambda module, inputs: calls.append(name)

    for name, module in probe.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(note(name))
    with torch.inference_mode():
        probe.residual(_patch(network))
    return calls


def _patch(network: SRNetwork) -> Tensor:
    """Random values of the network's own range."""
    patch = torch.rand(network.spec.small_shape, generator=torch.Generator().manual_seed(0))
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    return (patch * (network.spec.value_range or 1)).to(device)


def _is_plain(layer: nn.Module) -> bool:
    """A convolution that does what its weights say and nothing else."""
    hooked = bool(layer._forward_pre_hooks or layer._forward_hooks)
    if hooked or not isinstance(layer, nn.Conv2d | nn.Conv3d):
        return False
    return type(layer) in (nn.Conv2d, nn.Conv3d) and layer.groups == 1


def _tensors(layer: nn.Module) -> list[Tensor]:
    return [*layer.parameters(), *layer.buffers()]


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


def _doubled(convolution: nn.Module) -> nn.Module:
    """The same on twice the channels, with the same weights for both halves."""
    twice = copy.deepcopy(convolution)
    assert isinstance(twice, nn.Conv2d | nn.Conv3d)
    twice.in_channels *= 2
    twice.weight = nn.Parameter(torch.cat([twice.weight, twice.weight], dim=1), requires_grad=False)
    return twice

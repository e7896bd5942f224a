"""How far a network looks: the receptive radius from its layers, the same measured, and the halo that real data need.

A layer's *reach* maps the interval of output pixels that is wanted to the interval of its input pixels that is needed,
along one axis. Walking a network's reaches from its end to its start bounds what a tile must read.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sciSR.errors import InputError
from sciSR.networks.spec import NetworkSpec, SRNetwork
from sciSR.tiling import TilePlan

__all__ = ["Reach", "conv", "measure_halo", "measure_receptive_radius", "radius", "taps", "transposed", "up"]

_MARGIN = 8
"""Pixels beyond twice the radius in which a seam's effect is looked for."""

Reach = Callable[[int, int], tuple[int, int]]
"""First and last output pixel of a layer -> first and last input pixel that it needs, along one axis."""


def conv(kernel: int, *, stride: int = 1, dilation: int = 1) -> Reach:
    """Reach of a convolution padded by ``dilation * (kernel - 1) // 2``."""
    pad, span = dilation * (kernel - 1) // 2, dilation * (kernel - 1)
    return lambda low, high: (low * stride - pad, high * stride - pad + span)


def up(factor: int) -> Reach:
    """Reach of a pixel shuffle, or of repeating each pixel."""
    return lambda low, high: (low // factor, high // factor)


def transposed(kernel: int, stride: int, padding: int) -> Reach:
    """Reach of a transposed convolution: output o meets input i where ``0 <= o + padding - i * stride < kernel``."""
    return lambda low, high: (-(-(low + padding - kernel + 1) // stride), (high + padding) // stride)


def taps(support: int, factor: int) -> Reach:
    """Reach of a centred interpolation that refines by ``factor``; its kernel is zero ``support`` input pixels away."""
    if support == 0 or factor == 1:
        return up(factor)

    def reach(low: int, high: int) -> tuple[int, int]:
        # output pixel k lies at (2 k + 1 - factor) / (2 factor) in input pixels
        span = 2 * factor * support
        first = (2 * low + 1 - factor - span) // (2 * factor) + 1
        last = -((factor - 2 * high - 1 - span) // (2 * factor)) - 1
        return first, last

    return reach


def radius(path: Sequence[Reach], scale: int, *, alignment: int = 1) -> int:
    """Input pixels on each side of an input pixel that can change the output pixels lying in it.

    Args:
        path: reaches along one axis, in the order in which the layers run; of several branches the widest.
        scale: output pixels per input pixel.
        alignment: period of the network in input pixels (strides); the widest of its phases counts.

    Example:
        >>> radius([conv(3), up(2), conv(3)], 2)
        2
    """
    widest = 0
    for start in range(alignment):
        low, high = start * scale, start * scale + scale - 1
        for reach in reversed(path):
            low, high = reach(low, high)
        widest = max(widest, start - low, high - start)
    return widest


def measure_receptive_radius(network: SRNetwork) -> tuple[int, ...]:
    """The radius per axis that an impulse really reaches; for comparison with the network's spec.

    The network runs in float64 with positive weights, zero biases and an impulse on a zero background, so that nothing
    cancels and every path shows; once upwards and once downwards, for what a rectifier would hide behind the lobes of a
    cubic kernel. On zeros a gate opens nothing, so that the window of a local pooling does not show.
    """
    probe = _positive(copy.deepcopy(network).double().eval())
    spec = network.spec
    bound = spec.receptive_radius or spec.halo
    found = [0] * spec.ndim
    with torch.inference_mode():
        for axis, step in enumerate(spec.alignment):
            # more room than the spec claims, or a spec that claims too little would look right; little across
            room = _aligned(bound[axis] + 3, step)
            size = [2 * room + step if i == axis else 2 * a for i, a in enumerate(spec.alignment)]
            for phase in range(step):
                center = [room + phase if i == axis else a for i, a in enumerate(spec.alignment)]
                low, high = _extent(probe, size, center, axis)
                s = spec.scale[axis]
                found[axis] = max(found[axis], center[axis] - low // s, high // s - center[axis])
    return tuple(found)


def _positive(network: SRNetwork) -> SRNetwork:
    """The same network with weights that are positive and sum to about one per output, and no biases."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(("bias", "bias_table")):
                value.zero_()
            elif value.dim() < 2:
                value.abs_().clamp_(min=0.1)
            else:
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
                value.div_(value[0].numel())
        for name, buffer in network.named_buffers():
            if name.endswith("mean"):
                buffer.zero_()
    return network


def _extent(network: SRNetwork, size: list[int], center: list[int], axis: int) -> tuple[int, int]:
    """First and last output index along ``axis`` that an impulse at ``center`` changes."""
    x = torch.zeros(1, network.spec.in_channels, *size, dtype=torch.float64)
    at: tuple[Any, ...] = (0, slice(None), *center)
    x[at] = 1.0
    parts = [part for sign in (1, -1) for part in (network.interpolate(sign * x), network.residual(sign * x))]
    changed = torch.stack([part != 0 for part in parts if part is not None]).any(0)
    rows = changed.movedim(axis + 2, 0).flatten(1).any(dim=1).nonzero().flatten()
    return int(rows[0]), int(rows[-1])


def measure_halo(
    network: SRNetwork,
    samples: Iterable[Tensor],
    *,
    tolerance: float = 1e-6,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, ...]:
    """The smallest halo at which tiles give the whole image's values to ``tolerance`` of its range.

    Of each sample the middle is taken, and white noise of the same mean and spread beside it. Both are computed whole
    and cut, in float64, where rounding hides nothing, and one cut tells how far its effect reaches. A network that does
    not tile exactly keeps its spec's halo.

    Args:
        network: any network; it is left as it is.
        samples: real data as the network takes it, ``(b, c, [z,] y, x)``. Along an axis a sample should have more than
            twice the receptive radius; of a smaller one no larger halo than half of it can be tried.
        tolerance: greatest difference allowed, as a part of the range of the whole image's output.
        progress: called with (samples done, samples in all), noise counted.

    Raises:
        InputError: no sample came.
    """
    spec = network.spec
    given = list(samples)
    if not given:
        raise InputError("measure_halo: no sample came; pass at least one tensor (b, c, [z,] y, x) of real data")
    if not spec.exact_tiling or spec.receptive_radius is None:
        return spec.halo
    real = [_middle(sample.detach(), spec).double() for sample in given]
    probe = copy.deepcopy(network).double().eval()
    generator = torch.Generator().manual_seed(0)
    halo = 0
    for number, sample in enumerate(real):
        noise = torch.randn(sample.shape, generator=generator, dtype=sample.dtype) * sample.std() + sample.mean()
        for part, image in enumerate((sample, noise)):
            halo = max(halo, _enough(probe, image, tolerance))
            if progress is not None:
                progress(2 * number + part + 1, 2 * len(real))
    return tuple(
        min(_aligned(halo, a), _aligned(r, a)) for r, a in zip(spec.receptive_radius, spec.alignment, strict=True)
    )


def _aligned(value: int, step: int) -> int:
    return -(-value // step) * step


def _middle(sample: Tensor, spec: NetworkSpec) -> Tensor:
    """As many pixels around the middle as show the effect of a seam there."""
    assert spec.receptive_radius is not None
    for axis, (reach, step) in enumerate(zip(spec.receptive_radius, spec.alignment, strict=True)):
        n = sample.shape[axis + 2]
        size = min(n, _aligned(2 * reach + _MARGIN, 2 * step))
        sample = sample.narrow(axis + 2, (n - size) // 2, size)
    return sample


def _enough(network: SRNetwork, image: Tensor, tolerance: float) -> int:
    """The smallest halo from which on a tile of ``image`` has the whole's values to ``tolerance`` of its range.

    Two tiles without a halo, in opposite corners, end at the middle. A pixel of theirs that is wrong ``d`` pixels from
    the cut would be right only if the tile had read more than ``d`` pixels beyond it.
    """
    spec = network.spec
    assert spec.receptive_radius is not None
    shape = tuple(image.shape[2:])
    tile = tuple(_aligned(-(-n // 2), a) for n, a in zip(shape, spec.alignment, strict=True))
    plan = TilePlan(shape, tile, (0,) * spec.ndim, spec.scale, spec.alignment)
    halo, farthest = 0, max(spec.receptive_radius)
    with torch.inference_mode():
        whole = network(image)
        allowed = tolerance * float(whole.max() - whole.min())
        for number, last in ((0, False), (len(plan) - 1, True)):
            part = plan[number]
            result = network(image[(slice(None), slice(None), *part.read)])
            error = (result - whole[(slice(None), slice(None), *part.write)]).abs().amax(dim=(0, 1))
            depth = torch.full_like(error, farthest, dtype=torch.int64)
            for axis, (cuts, radius) in enumerate(zip(plan.counts, spec.receptive_radius, strict=True)):
                if cuts > 1:
                    at = torch.arange(error.shape[axis]) // spec.scale[axis]
                    away = at if last else at.flip(0)
                    away = torch.where(away < radius, away, farthest)
                    depth = torch.minimum(depth, away.reshape([-1 if a == axis else 1 for a in range(spec.ndim)]))
            wrong = depth[(error > allowed) & (depth < farthest)]
            halo = max(halo, int(wrong.max()) + 1 if wrong.numel() else 0)
    return halo

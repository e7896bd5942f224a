"""Interpolation and sampling on tensors, shared by networks, classical methods, degradation and metrics.

Everything is separable and centre-aligned: output pixel ``i`` of ``n_out`` lies at input position
``(i + 0.5) * n_in / n_out - 0.5``, so the field of view stays. Borders are symmetric (mirrored with the edge pixel
repeated). Weights are computed in float64, normalised to sum 1, and applied in the tensor's own floating type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.kernels import KERNELS, Kernel, centres, gaussian_kernel, kernel_named, mirrored, taps

__all__ = [
    "KERNELS",
    "Kernel",
    "apply_taps",
    "gaussian_kernel",
    "mirror_pad",
    "resample",
    "resample_axis",
    "sample_axis",
    "sample_axis_adjoint",
    "sampling_taps",
    "stencil",
    "taps",
    "upsample",
]


_WORTH_SLICING = 16
"""Rows in a regular pattern from which on views are taken instead of gathered rows."""
_LONGEST_PERIOD = 8


def apply_taps(x: Tensor, dim: int, index: NDArray[np.int64], weight: NDArray[np.floating[Any]]) -> Tensor:
    """Weighted sums of ``x`` along ``dim``: output pixel j is ``sum_k weight[j, k] * x[index[j, k]]``.

    ``weight`` may have a leading axis for the channels of ``x`` (its second axis): ``(c, m, k)``.
    """
    regular = _regular(index)
    if regular is None:
        return _gathered(x, dim, index, weight)
    first, last = regular.first, regular.last
    parts = [
        _gathered(x, dim, index[:first], weight[..., :first, :]),
        _sliced(x, dim, index[first:last], weight[..., first:last, :], regular),
        _gathered(x, dim, index[last:], weight[..., last:, :]),
    ]
    parts = [part for part in parts if part.shape[dim]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


class _Regular(NamedTuple):
    """Rows ``first`` to ``last`` of an index, each of which is the row ``period`` before it and ``step`` more."""

    first: int
    last: int
    period: int
    step: int


def _regular(index: NDArray[np.int64]) -> _Regular | None:
    """The regular stretch around the middle, of the shortest period that has one; None where there is none to speak of.

    A whole factor of refinement repeats after as many pixels, 3/2 after three.
    """
    for period in range(1, min(_LONGEST_PERIOD, len(index) - 1) + 1):
        rises = index[period:] - index[:-period]
        middle = len(rises) // 2
        step = int(rises[middle, 0])
        broken = np.flatnonzero((rises != step).any(axis=1))
        before, after = broken[broken < middle], broken[broken >= middle]
        first = int(before[-1]) + 1 if len(before) else 0
        last = (int(after[0]) if len(after) else len(rises)) + period
        if step > 0 and last - first >= max(_WORTH_SLICING, 2 * period):
            return _Regular(first, last, period, step)
    return None


def _sliced(
    x: Tensor, dim: int, index: NDArray[np.int64], weight: NDArray[np.floating[Any]], regular: _Regular
) -> Tensor:
    """:func:`apply_taps` for regular rows: views instead of gathering, phase by phase."""
    period, step = regular.period, regular.step
    every = (slice(None),) * dim
    phases = []
    for phase in range(period):
        rows = index[phase::period]
        reach = (len(rows) - 1) * step + 1
        columns = (
            (x.narrow(dim, int(start), reach)[(*every, slice(None, None, step))], k) for k, start in enumerate(rows[0])
        )
        phases.append(_summed(columns, dim, weight[..., phase::period, :]))
    if period == 1:
        return phases[0]
    shape = list(x.shape)
    shape[dim] = len(index)
    out = x.new_empty(shape)
    for phase, part in enumerate(phases):
        out[(*every, slice(phase, None, period))] = part
    return out


def _gathered(x: Tensor, dim: int, index: NDArray[np.int64], weight: NDArray[np.floating[Any]]) -> Tensor:
    """:func:`apply_taps` for any ``index``."""
    rows = (torch.from_numpy(np.ascontiguousarray(column)).to(x.device) for column in index.T)
    return _summed(((x.index_select(dim, row), k) for k, row in enumerate(rows)), dim, weight)


def _summed(columns: Iterable[tuple[Tensor, int]], dim: int, weight: NDArray[np.floating[Any]]) -> Tensor:
    """The columns times their weights; the same sums in the same order, however the columns came."""
    total, spare = None, None
    for part, k in columns:
        shape = [1] * part.dim()
        shape[dim] = weight.shape[-2]
        if weight.ndim == 3:
            shape[1] = len(weight)
        factor = torch.from_numpy(np.ascontiguousarray(weight[..., k])).to(part).reshape(shape)
        if total is None:
            total = part * factor
        elif part.requires_grad:
            total.add_(part * factor)
        else:
            spare = torch.mul(part, factor, out=spare)  # fresh pages take longer than the product
            total.add_(spare)
    assert total is not None
    return total


def mirror_pad(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """``x`` with pixels added along ``dim``, mirrored with the edge pixel repeated; any width."""
    n = x.shape[dim]
    if before == 0 and after == 0:
        return x
    if max(before, after) > n:
        rows = mirrored(np.arange(-before, n + after), n)
        return x.index_select(dim, torch.from_numpy(rows).to(x.device))
    parts = [x.narrow(dim, 0, before).flip(dim), x, x.narrow(dim, n - after, after).flip(dim)]
    return torch.cat([part for part in parts if part.shape[dim]], dim)


def sample_axis(x: Tensor, dim: int, size: int, kernels: Sequence[Kernel]) -> Tensor:
    """``size`` samples of ``x`` along ``dim`` over the same field of view, each through a kernel; differentiable.

    Args:
        x: floating tensor ``(b, c, [z,] y, x)``.
        dim: the axis.
        size: samples afterwards.
        kernels: one kernel for all channels, or one per channel; distances are in pixels of ``x``.
    """
    n = x.shape[dim]
    if n % size:
        index, weight = _sampling(n, size, tuple(kernels))
        return apply_taps(x, dim, index, weight)
    return _sample_strided(x, dim, size, tuple(kernels))


def _sample_strided(x: Tensor, dim: int, size: int, kernels: tuple[Kernel, ...]) -> Tensor:
    """:func:`sample_axis` for a whole step: every output pixel has the same weights."""
    n = x.shape[dim]
    step = n // size
    first, weight = stencil(step, kernels)
    count = weight.shape[1]
    padded = mirror_pad(x, dim, max(0, -first), max(0, first + count - step))
    start = max(0, first)
    shape = [1, len(kernels)] + [1] * (x.dim() - 2)
    each = torch.from_numpy(weight).to(x).reshape(*shape, count) if len(kernels) > 1 else None
    total: Tensor | None = None
    for k in range(count):
        part = padded.narrow(dim, start + k, (size - 1) * step + 1)
        part = part[(slice(None),) * dim + (slice(None, None, step),)]
        if each is None:
            total = part * float(weight[0, k]) if total is None else total.add_(part, alpha=float(weight[0, k]))
        else:
            total = part * each[..., k] if total is None else torch.addcmul(total, part, each[..., k])
    assert total is not None
    return total


def sample_axis_adjoint(y: Tensor, dim: int, size: int, kernels: Sequence[Kernel]) -> Tensor:
    """The transpose of :func:`sample_axis` for a whole step: from samples back to ``size`` pixels along ``dim``.

    For all ``x``: the inner product of ``sample_axis(x)`` and ``y`` is that of ``x`` and this.
    """
    step = size // y.shape[dim]
    first, weight = stencil(step, tuple(kernels))
    count = weight.shape[1]
    before, after = max(0, -first), max(0, first + count - step)
    shape = list(y.shape)
    shape[dim] = before + size + after
    padded = y.new_zeros(shape)
    each = torch.from_numpy(weight).to(y).reshape(1, -1, *([1] * (y.dim() - 2)), count)
    for k in range(count):
        part = padded.narrow(dim, max(0, first) + k, size - step + 1)
        part[(slice(None),) * dim + (slice(None, None, step),)] += y * each[..., k]
    return _folded(padded, dim, before, after)


def _folded(padded: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The transpose of :func:`mirror_pad`."""
    size = padded.shape[dim] - before - after
    rows = torch.from_numpy(mirrored(np.arange(-before, size + after), size)).to(padded.device)
    if max(before, after) > size:
        shape = list(padded.shape)
        shape[dim] = size
        return padded.new_zeros(shape).index_add_(dim, rows, padded)
    inner = padded.narrow(dim, before, size).clone()
    if before:
        inner.narrow(dim, 0, before).add_(padded.narrow(dim, 0, before).flip(dim))
    if after:
        inner.narrow(dim, size - after, after).add_(padded.narrow(dim, before + size, after).flip(dim))
    return inner


@lru_cache(maxsize=256)
def stencil(step: int, kernels: tuple[Kernel, ...]) -> tuple[int, NDArray[np.floating[Any]]]:
    """First offset from the block's first pixel, and weights ``(c, k)``, of the mean over a block of ``step``."""
    centre = (step - 1) / 2
    radius = max(kernel.radius for kernel in kernels)
    index = np.arange(int(np.ceil(centre - radius - 1e-9)), int(np.floor(centre + radius + 1e-9)) + 1)
    weight = np.stack([kernel(index - centre) for kernel in kernels])
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.flatnonzero(np.abs(weight).max(axis=0) > 0)
    return int(index[used[0]]), weight[:, used[0] : used[-1] + 1]


@lru_cache(maxsize=256)
def _sampling(n: int, size: int, kernels: tuple[Kernel, ...]) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    return sampling_taps(n, size, kernels)


def sampling_taps(n: int, size: int, kernels: Sequence[Kernel]) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """Indices ``(size, k)`` and weights ``(size, k)``, or ``(c, size, k)`` for many kernels, of :func:`sample_axis`.

    Where a kernel falls between pixels, its weights are balanced so that their centre of mass is the sample's position:
    a ramp stays a ramp.
    """
    widest = max(kernels, key=lambda kernel: kernel.radius)
    positions = centres(n, size)
    first = np.ceil(positions - widest.radius - 1e-9).astype(np.int64)
    index = first[:, None] + np.arange(int(np.floor(2 * widest.radius + 1e-9)) + 1)
    away = index - positions[:, None]
    weight = np.stack([kernel(away) for kernel in kernels])
    weight /= weight.sum(axis=2, keepdims=True)
    spread = np.abs(weight) * away
    moment = (weight * away).sum(axis=2, keepdims=True)
    weight -= spread * moment / np.maximum((spread * away).sum(axis=2, keepdims=True), 1e-12)
    weight /= weight.sum(axis=2, keepdims=True)
    keep = np.flatnonzero(np.abs(weight).max(axis=(0, 1)) > 0)
    weight = weight[..., keep]
    return mirrored(index[:, keep], n), weight[0] if len(kernels) == 1 else weight


def resample_axis(x: Tensor, dim: int, size: int, *, kernel: Kernel | str = "cubic", antialias: bool = True) -> Tensor:
    """``x`` with ``size`` pixels along ``dim`` over the same field of view.

    Args:
        x: floating tensor.
        dim: the axis.
        size: pixels afterwards.
        kernel: a :class:`Kernel` or a name of :data:`KERNELS`, or ``"nearest"``.
        antialias: widen the kernel by the step when the result is coarser (as MATLAB's imresize does).
    """
    n = x.shape[dim]
    positions = centres(n, size)
    if kernel == "nearest":
        rows = np.clip(np.floor(positions + 0.5), 0, n - 1).astype(np.int64)
        return x.index_select(dim, torch.from_numpy(rows).to(x.device))
    chosen = kernel_named(kernel)
    index, weight = taps(positions, n, chosen, stretch=max(1.0, n / size) if antialias else 1.0)
    return apply_taps(x, dim, index, weight)


def resample(x: Tensor, shape: Sequence[int], *, kernel: Kernel | str = "cubic", antialias: bool = True) -> Tensor:
    """``x`` of axes ``(b, c, [z,] y, x)`` with spatial ``shape`` over the same field of view."""
    for axis, size in enumerate(shape):
        if x.shape[axis + 2] != size:
            x = resample_axis(x, axis + 2, size, kernel=kernel, antialias=antialias)
    return x


def upsample(x: Tensor, scale: Sequence[int], *, kernel: Kernel | str = "cubic") -> Tensor:
    """``x`` of axes ``(b, c, [z,] y, x)`` refined by a whole factor per spatial axis.

    The same values as :func:`resample`, faster: each of the ``s`` phases of an axis has fixed weights.
    """
    for axis, s in enumerate(scale):
        if s == 1:
            continue
        if kernel == "nearest":
            x = x.repeat_interleave(s, dim=axis + 2)
        else:
            x = _upsample_axis(x, axis + 2, s, kernel_named(kernel))
    return x


def _upsample_axis(x: Tensor, dim: int, s: int, kernel: Kernel) -> Tensor:
    n = x.shape[dim]
    first, weights = _phases(s, kernel)
    reach = max(-first, first + weights.shape[1] - 1, 0)
    padded = mirror_pad(x, dim, reach, reach)
    phases = []
    for phase in range(s):
        total = None
        for k in range(weights.shape[1]):
            if weights[phase, k] == 0:
                continue
            part = padded.narrow(dim, reach + first + k, n)
            total = part * weights[phase, k] if total is None else total.add_(part, alpha=float(weights[phase, k]))
        assert total is not None
        phases.append(total)
    return torch.stack(phases, dim=dim + 1).flatten(dim, dim + 1)


@lru_cache(maxsize=64)
def _phases(s: int, kernel: Kernel) -> tuple[int, NDArray[np.floating[Any]]]:
    """First offset and weights ``(s, k)`` of the taps of each phase of an ``s``-fold refinement."""
    positions = (np.arange(s) + 0.5) / s - 0.5
    low = int(np.ceil(positions.min() - kernel.radius - 1e-9))
    high = int(np.floor(positions.max() + kernel.radius + 1e-9))
    weight = kernel(positions[:, None] - np.arange(low, high + 1))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.flatnonzero(np.abs(weight).max(axis=0) > 0)
    return low + int(used[0]), weight[:, used[0] : used[-1] + 1]

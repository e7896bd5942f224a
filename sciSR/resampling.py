"""Interpolation kernels on tensors, shared by networks, classical methods, degradation and metrics.

Everything is separable and centre-aligned: output pixel ``i`` of ``n_out`` lies at input position
``(i + 0.5) * n_in / n_out - 0.5``, so the field of view stays. Borders are symmetric (mirrored with the edge pixel
repeated). Weights are computed in float64, normalised to sum 1, and applied in the tensor's own floating type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError

__all__ = ["KERNELS", "Kernel", "apply_taps", "gaussian_kernel", "resample", "resample_axis", "taps", "upsample"]


class Kernel:
    """A symmetric interpolation kernel: its function of distance (in input pixels) and its radius."""

    def __init__(
        self, name: str, radius: float, function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> None:
        self.name = name
        self.radius = radius
        self._function = function

    def __call__(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight at each distance."""
        return self._function(np.abs(distance))

    def __repr__(self) -> str:
        return f"Kernel({self.name!r}, radius={self.radius})"


def _linear(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(1 - d, 0, None)


def _keys(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys 1981, doi:10.1109/TASSP.1981.1163711, equation 15: the cubic with a = -0.5, third-order accurate."""
    a = -0.5
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _lanczos3(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lanczos window of three lobes: sinc(d) sinc(d / 3) (Duchon 1979, doi:10.1175/1520-0450(1979)018)."""
    return np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0.0)


def _box(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(d < 0.5, 1.0, np.where(d == 0.5, 0.5, 0.0))


KERNELS: dict[str, Kernel] = {
    "linear": Kernel("linear", 1, _linear),
    "cubic": Kernel("cubic", 2, _keys),
    "lanczos": Kernel("lanczos", 3, _lanczos3),
    "box": Kernel("box", 0.5, _box),
}


def gaussian_kernel(fwhm_px: float) -> Kernel:
    """Gaussian of ``fwhm_px`` pixels full width at half maximum, cut at four standard deviations."""
    sigma = fwhm_px / (2 * math.sqrt(2 * math.log(2)))
    return Kernel(f"gaussian({fwhm_px:g})", 4 * sigma, lambda d: np.exp(-0.5 * (d / sigma) ** 2))


def taps(
    positions: NDArray[np.float64], n_in: int, kernel: Kernel, stretch: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Input indices and weights ``(m, k)`` for each of ``m`` positions (0 is the centre of the first input pixel).

    Args:
        positions: where to interpolate, in input pixels.
        n_in: input pixels along the axis; indices outside are mirrored with the edge repeated.
        kernel: the kernel.
        stretch: factor by which the kernel is widened (antialiasing when sampling coarser).
    """
    radius = kernel.radius * stretch
    first = np.ceil(positions - radius - 1e-9).astype(np.int64)
    count = int(np.floor(2 * radius + 1e-9)) + 1
    index = first[:, None] + np.arange(count)
    weight = kernel((positions[:, None] - index) / stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    keep = np.flatnonzero(np.abs(weight).max(axis=0) > 0)
    return _mirror(index[:, keep], n_in), weight[:, keep]


def _mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices reflected into ``[0, n)`` with the edge pixel repeated: -1 -> 0, n -> n - 1."""
    folded = np.mod(index, 2 * n)
    return np.where(folded < n, folded, 2 * n - 1 - folded)


def apply_taps(x: Tensor, dim: int, index: NDArray[np.int64], weight: NDArray[np.float64]) -> Tensor:
    """Weighted sums of ``x`` along ``dim``: output pixel j is ``sum_k weight[j, k] * x[index[j, k]]``."""
    shape = [1] * x.dim()
    shape[dim] = len(index)
    total = None
    for k in range(index.shape[1]):
        rows = torch.from_numpy(np.ascontiguousarray(index[:, k])).to(x.device)
        factor = torch.from_numpy(np.ascontiguousarray(weight[:, k])).to(x).reshape(shape)
        part = x.index_select(dim, rows) * factor
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


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
    step = n / size
    positions = (np.arange(size) + 0.5) * step - 0.5
    if kernel == "nearest":
        rows = np.clip(np.floor(positions + 0.5), 0, n - 1).astype(np.int64)
        return x.index_select(dim, torch.from_numpy(rows).to(x.device))
    chosen = _kernel(kernel)
    index, weight = taps(positions, n, chosen, stretch=max(1.0, step) if antialias else 1.0)
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
            x = _upsample_axis(x, axis + 2, s, _kernel(kernel))
    return x


def _upsample_axis(x: Tensor, dim: int, s: int, kernel: Kernel) -> Tensor:
    n = x.shape[dim]
    first, weights = _phases(s, kernel)
    reach = max(-first, first + weights.shape[1] - 1, 0)
    rows = _mirror(np.arange(-reach, n + reach), n)
    padded = x.index_select(dim, torch.from_numpy(rows).to(x.device))
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
def _phases(s: int, kernel: Kernel) -> tuple[int, NDArray[np.float64]]:
    """First offset and weights ``(s, k)`` of the taps of each phase of an ``s``-fold refinement."""
    positions = (np.arange(s) + 0.5) / s - 0.5
    low = int(np.ceil(positions.min() - kernel.radius - 1e-9))
    high = int(np.floor(positions.max() + kernel.radius + 1e-9))
    weight = kernel(positions[:, None] - np.arange(low, high + 1))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.flatnonzero(np.abs(weight).max(axis=0) > 0)
    return low + int(used[0]), weight[:, used[0] : used[-1] + 1]


def _kernel(kernel: Kernel | str) -> Kernel:
    if isinstance(kernel, Kernel):
        return kernel
    if kernel not in KERNELS:
        raise InputError(f"kernel: {kernel!r} is not one of nearest, {', '.join(KERNELS)}")
    return KERNELS[kernel]

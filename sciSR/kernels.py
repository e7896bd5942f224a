"""Kernels as functions of distance, and the weights they give: numbers only, no tensors.

A kernel is symmetric about its centre. Positions count from the centre of the first pixel; borders are symmetric
(mirrored with the edge pixel repeated). Weights are float64 and sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import InputError

__all__ = [
    "KERNELS",
    "Kernel",
    "box_kernel",
    "centres",
    "gaussian_kernel",
    "kernel_named",
    "mirrored",
    "ramped_kernel",
    "sinc_kernel",
    "taps",
]

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""

NARROWEST_FWHM_PX = 0.6
"""A Gaussian narrower than this would miss every pixel centre; it is taken this wide."""

_SPLINE_RADIUS = 12

_INSIDE = 1e-6
"""A kernel that is 0 at its end need not read the pixel that lies just there."""

_Array = NDArray[np.floating[Any]]


class Kernel:
    """A symmetric kernel: its function of distance (in pixels) and its radius, beyond which it is 0."""

    def __init__(self, name: str, radius: float, function: Callable[[_Array], _Array]) -> None:
        self.name = name
        self.radius = radius
        self._function = function

    def __call__(self, distance: _Array) -> _Array:
        """Weight at each distance, not normalised; 0 beyond the radius."""
        d = np.abs(distance)
        return np.where(d <= self.radius + 1e-9, self._function(d), 0.0)

    def __repr__(self) -> str:
        return f"Kernel({self.name!r}, radius={self.radius})"


def _linear(d: _Array) -> _Array:
    return np.clip(1 - d, 0, None)


def _keys(d: _Array) -> _Array:
    """Keys 1981, doi:10.1109/TASSP.1981.1163711, equation 15: the cubic with a = -0.5, third-order accurate."""
    a = -0.5
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _lanczos3(d: _Array) -> _Array:
    """Lanczos window of three lobes: sinc(d) sinc(d / 3) (Duchon 1979, doi:10.1175/1520-0450(1979)018)."""
    return np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0.0)


def _cardinal_spline(d: _Array) -> _Array:
    """The cubic spline that is 1 at 0 and 0 at all other whole numbers: B-spline interpolation with its prefilter.

    Unser et al. 1993, doi:10.1109/78.193220: the inverse of (1, 4, 1) / 6 is sqrt(3) z^|k| with z = sqrt(3) - 2. It
    falls by 0.27 a pixel; what is cut at the radius is below 1e-7.
    """
    total = np.zeros_like(d)
    for k in range(-_SPLINE_RADIUS - 2, _SPLINE_RADIUS + 3):
        u = np.abs(d - k)
        near = 2 / 3 - u**2 + u**3 / 2
        far = np.clip(2 - u, 0, None) ** 3 / 6
        total += math.sqrt(3) * (math.sqrt(3) - 2) ** abs(k) * np.where(u < 1, near, far)
    return total


def _box(d: _Array) -> _Array:
    return np.where(d < 0.5, 1.0, np.where(d == 0.5, 0.5, 0.0))


KERNELS: dict[str, Kernel] = {
    "linear": Kernel("linear", 1, _linear),
    "cubic": Kernel("cubic", 2, _keys),
    "lanczos": Kernel("lanczos", 3, _lanczos3),
    "bspline": Kernel("bspline", _SPLINE_RADIUS, _cardinal_spline),
    "box": Kernel("box", 0.5, _box),
}
"""Interpolation kernels by name; distances are in input pixels."""


def kernel_named(kernel: Kernel | str) -> Kernel:
    """The kernel itself, or the one of :data:`KERNELS` with this name.

    Raises:
        InputError: no kernel has this name.
    """
    if isinstance(kernel, Kernel):
        return kernel
    if kernel not in KERNELS:
        raise InputError(f"kernel: {kernel!r} is not one of nearest, {', '.join(KERNELS)}")
    return KERNELS[kernel]


def gaussian_kernel(fwhm_px: float) -> Kernel:
    """Gaussian of ``fwhm_px`` pixels full width at half maximum, sampled, cut at four standard deviations."""
    sigma = max(fwhm_px, NARROWEST_FWHM_PX) / FWHM_PER_SIGMA
    return Kernel(f"gaussian({fwhm_px:g})", 4 * sigma, lambda d: np.exp(-0.5 * (d / sigma) ** 2))


def box_kernel(width_px: float) -> Kernel:
    """Mean over an interval of ``width_px`` pixels, each pixel weighted with the part of it that lies inside."""
    radius = (width_px + 1) / 2
    return Kernel(f"box({width_px:g})", radius - _INSIDE, lambda d: np.clip(radius - d, 0, min(width_px, 1.0)))


def ramped_kernel(fwhm_px: float, edge: float) -> Kernel:
    """Flat profile of ``fwhm_px`` pixels at half height with cosine flanks, integrated over each pixel.

    Args:
        fwhm_px: full width at half maximum.
        edge: width of one flank as a part of ``fwhm_px``, from 0 (a box) to 1 (a raised cosine).
    """
    flank = max(edge * fwhm_px, 1e-6)
    start = (fwhm_px - flank) / 2

    def integral(d: _Array) -> _Array:
        """Of the profile from 0 to ``d`` (odd in d)."""
        size = np.abs(d)
        u = np.clip((size - start) / flank, 0, 1)
        return np.sign(d) * (np.minimum(size, start) + flank * (u / 2 + np.sin(np.pi * u) / (2 * np.pi)))

    return Kernel(
        f"ramped({fwhm_px:g}, {edge:g})", start + flank + 0.5 - _INSIDE, lambda d: integral(d + 0.5) - integral(d - 0.5)
    )


def sinc_kernel(period_px: float, lobes: int) -> Kernel:
    """Ideal low-pass up to ``1 / (2 period_px)`` cycles a pixel; a Lanczos window of ``lobes`` ends its sinc."""

    def function(d: _Array) -> _Array:
        u = d / period_px
        return np.where(u < lobes, np.sinc(u) * np.sinc(u / lobes), 0.0)

    return Kernel(f"sinc({period_px:g}, {lobes})", lobes * period_px, function)


def centres(n_in: int, n_out: int) -> _Array:
    """Input positions of the centres of ``n_out`` pixels over the field of view of ``n_in``."""
    return (np.arange(n_out, dtype=np.float64) + 0.5) * (n_in / n_out) - 0.5


def taps(
    positions: _Array, n_in: int, kernel: Kernel, stretch: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
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
    return mirrored(index[:, keep], n_in), weight[:, keep]


def mirrored(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices reflected into ``[0, n)`` with the edge pixel repeated: -1 -> 0, n -> n - 1."""
    folded = np.mod(index, 2 * n)
    return np.where(folded < n, folded, 2 * n - 1 - folded)

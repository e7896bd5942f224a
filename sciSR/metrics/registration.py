"""How far an image is displaced."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import InputError
from sciSR.metrics.arrays import Image, as_pair

__all__ = ["displacement", "spatial_shift"]

_Array = NDArray[np.float64]
_Spectrum = NDArray[np.complex128]


def spatial_shift(prediction: Image, target: Image, *, upsampling: int = 100) -> tuple[float, ...]:
    """Displacement of ``prediction`` against ``target`` in pixels per spatial axis, in array order.

    Phase correlation of the channel mean, refined to ``1 / upsampling`` of a pixel by a matrix Fourier transform
    (Guizar-Sicairos et al. 2008, doi:10.1364/OL.33.000156); positive: what is at pixel k of the target is at k + shift.
    It sees a common translation, modulo the size of the image.

    Args:
        prediction: one image or volume, or a batch: then the mean over the items.
        target: the same shape.
        upsampling: steps per pixel.

    Raises:
        InputError: shapes that differ.

    Example:
        >>> image = np.random.default_rng(0).random((32, 32))
        >>> spatial_shift(np.roll(image, (3, -2), axis=(0, 1)), image)
        (3.0, -2.0)
    """
    first, second = as_pair(prediction, target)
    pairs = zip(first.mean(dim=1).cpu().numpy(), second.mean(dim=1).cpu().numpy(), strict=True)
    shifts = [displacement(moved, fixed, upsampling=upsampling) for moved, fixed in pairs]
    return tuple(float(v) for v in np.mean(shifts, axis=0))


def displacement(moved: _Array, fixed: _Array, *, upsampling: int) -> _Array:
    """Displacement of one array against another per axis; see :func:`spatial_shift`."""
    if upsampling < 1:
        raise InputError(f"spatial shift: upsampling {upsampling} is not at least 1")
    product = np.fft.fftn(moved) * np.fft.fftn(fixed).conj()
    product /= np.maximum(np.abs(product), 100 * np.finfo(np.float64).eps)
    peak = np.unravel_index(int(np.abs(np.fft.ifftn(product)).argmax()), product.shape)
    shift = np.array([p - n if p > n // 2 else p for p, n in zip(peak, product.shape, strict=True)], dtype=np.float64)
    if upsampling > 1:
        size = math.ceil(1.5 * upsampling)
        start = np.round(shift * upsampling) - size // 2
        fine = np.abs(_upsampled(product, size, upsampling, start))
        best = np.array(np.unravel_index(int(fine.argmax()), fine.shape))
        shift = (start + best) / upsampling
    return np.where(np.array(product.shape) == 1, 0.0, shift)


def _upsampled(product: _Spectrum, size: int, upsampling: int, start: _Array) -> _Spectrum:
    """Correlation on a fine grid of ``size`` points per axis from ``start``, in steps of ``1 / upsampling`` pixels."""
    for n, first in zip(product.shape, start, strict=True):
        places = (np.arange(size) + first) / upsampling
        kernel = np.exp(2j * np.pi * places[:, None] * np.fft.fftfreq(n)[None])
        product = np.tensordot(product, kernel, axes=(0, 1))
    return product

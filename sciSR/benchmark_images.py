"""Benchmark photographs as the papers judge them: MATLAB's imresize, its YCbCr, and three protocols, to the last digit.

==== =============================== ============================================== ==================================
id   used by                         low-resolution input                           before PSNR and SSIM
==== =============================== ============================================== ==================================
P1   SRCNN, VDSR, FSRCNN             rounded Y / 255, made small in floating point  Y of both rounded to whole numbers
P2   EDSR, RDN, RCAN, CARN, SwinIR   RGB made small as uint8, rounded twice         RGB rounded, its Y not
P3   LapSRN                          RGB made small in floating point, its Y        Y with bicubic CbCr to RGB, rounded;
                                                                                    its Y not
==== =============================== ============================================== ==================================

All: the image is cropped to a multiple of the factor, ``scale`` pixels are left out on each side, PSNR and SSIM (of
Wang, Gaussian of 11 taps, valid windows) are of Y on the scale 0 to 255, and tables give the mean over images. Images
are arrays ``(y, x, 3)`` or ``(y, x)`` of uint8, as image files hold them; a grey one counts as red = green = blue.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import InputError
from sciSR.kernels import KERNELS, taps
from sciSR.metrics import psnr, ssim

__all__ = [
    "BenchmarkScore",
    "Protocol",
    "benchmark_low",
    "benchmark_score",
    "imresize",
    "modcrop",
    "rgb_to_ycbcr",
    "ycbcr_to_rgb",
]

Protocol = Literal["P1", "P2", "P3"]
_Array = NDArray[np.float64]

# ITU-R BT.601 in the numbers of MATLAB's rgb2ycbcr: from RGB in 0 to 1 to Y, Cb, Cr on the scale 0 to 255.
_TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_OFFSET = np.array([16.0, 128.0, 128.0])


class BenchmarkScore(NamedTuple):
    """PSNR in dB and SSIM of one image."""

    psnr: float
    ssim: float


def benchmark_low(image: NDArray[np.uint8], scale: int, protocol: Protocol) -> NDArray[Any]:
    """What a network is given of an image.

    Args:
        image: uint8 ``(y, x, 3)`` or ``(y, x)``.
        scale: the factor.
        protocol: ``"P1"``, ``"P2"`` or ``"P3"``.

    Returns:
        P1 and P3: Y, float64 ``(y, x)``, 0 to 1. P2: RGB, uint8 ``(y, x, 3)``.

    Raises:
        InputError: another protocol, type or shape, or an image smaller than the factor.

    Example:
        >>> benchmark_low(np.full((9, 8, 3), 255, np.uint8), 2, "P1").shape
        (4, 4)
    """
    rgb = _colour(modcrop(image, scale))
    if _known(protocol) == "P1":
        return imresize(_rounded(rgb_to_ycbcr(rgb / 255)[..., 0]) / 255, 1 / scale)
    if protocol == "P2":
        return imresize(rgb, 1 / scale)
    return rgb_to_ycbcr(imresize(rgb / 255, 1 / scale))[..., 0] / 255


def benchmark_score(result: NDArray[Any], image: NDArray[np.uint8], scale: int, protocol: Protocol) -> BenchmarkScore:
    """How good a network's result is by a protocol.

    Args:
        result: P1 and P3: Y, floating ``(y, x)``, 0 to 1. P2: RGB ``(y, x, 3)``, floating 0 to 1 or uint8.
        image: the original, uint8, before any cropping.
        scale: the factor.
        protocol: ``"P1"``, ``"P2"`` or ``"P3"``.

    Raises:
        InputError: the result has not the shape of the cropped original.
    """
    rgb = _colour(modcrop(image, scale))
    expected = rgb.shape if _known(protocol) == "P2" else rgb.shape[:2]
    if result.shape != expected:
        raise InputError(f"benchmark {protocol}: a result of shape {result.shape} came, expected {expected}")
    truth = rgb_to_ycbcr(rgb / 255)[..., 0]
    if protocol == "P1":
        made, truth = _rounded(result * 255.0), _rounded(truth)
    elif protocol == "P2":
        whole = result if result.dtype == np.uint8 else _rounded(result * 255.0)
        made = rgb_to_ycbcr(whole / 255)[..., 0]
    else:
        colour = imresize(rgb_to_ycbcr(imresize(rgb / 255, 1 / scale)), float(scale))
        colour[..., 0] = result * 255.0
        made = rgb_to_ycbcr(_rounded(ycbcr_to_rgb(colour) * 255) / 255)[..., 0]
    inner = tuple(slice(scale, n - scale) for n in truth.shape)
    made, truth = made[inner], truth[inner]
    return BenchmarkScore(psnr(made, truth, data_range=255), ssim(made, truth, data_range=255))


def imresize(image: NDArray[Any], scale: float) -> NDArray[Any]:
    """MATLAB's ``imresize(image, scale, 'bicubic')``.

    Keys' cubic with a = -0.5, widened when the image gets smaller, mirrored borders, height first, ``ceil(scale * n)``
    pixels. uint8 images are rounded to uint8 after each of the two passes, all others stay float64.

    Args:
        image: ``(y, x)`` or ``(y, x, c)``.
        scale: factor, below 1 to make it smaller.

    Example:
        >>> imresize(np.array([[0, 100], [0, 100]], np.uint8), 2)[0].tolist()
        [0, 20, 80, 109]
    """
    whole = image.dtype == np.uint8
    result = image.astype(np.float64)
    for axis in (0, 1):
        n = result.shape[axis]
        positions = (np.arange(math.ceil(scale * n - 1e-9)) + 0.5) / scale - 0.5
        index, weight = taps(positions, n, KERNELS["cubic"], stretch=max(1.0, 1 / scale))
        moved = np.moveaxis(result, axis, 0)
        result = np.moveaxis(np.einsum("jk,jk...->j...", weight, moved[index]), 0, axis)
        if whole:
            result = _rounded(result)
    return result.astype(np.uint8) if whole else result


def modcrop(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The upper left part whose height and width are multiples of ``scale``.

    Raises:
        InputError: not a uint8 image, or smaller than the factor.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"benchmark: {image.dtype} of shape {image.shape} came, expected uint8 (y, x, 3) or (y, x)")
    if scale < 1 or min(image.shape[:2]) < scale:
        raise InputError(f"benchmark: an image of {image.shape[:2]} pixels has no multiple of {scale}")
    height, width = (n // scale * scale for n in image.shape[:2])
    return image[:height, :width]


def rgb_to_ycbcr(rgb: NDArray[Any]) -> _Array:
    """Y, Cb, Cr on the scale 0 to 255 (Y from 16 to 235), not rounded, of RGB ``(…, 3)`` in 0 to 1."""
    result: _Array = np.asarray(rgb, dtype=np.float64) @ _TO_YCBCR.T + _OFFSET
    return result


def ycbcr_to_rgb(ycbcr: NDArray[Any]) -> _Array:
    """RGB in 0 to 1 of Y, Cb, Cr ``(…, 3)`` on the scale 0 to 255."""
    result: _Array = (np.asarray(ycbcr, dtype=np.float64) - _OFFSET) @ np.linalg.inv(_TO_YCBCR).T
    return result


def _colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _rounded(values: NDArray[Any]) -> _Array:
    """Whole numbers from 0 to 255, halves up, as MATLAB's uint8 does."""
    return np.clip(np.floor(values + 0.5), 0, 255)


def _known(protocol: str) -> str:
    if protocol not in ("P1", "P2", "P3"):
        raise InputError(f"benchmark: protocol {protocol!r} is not P1, P2 or P3")
    return protocol

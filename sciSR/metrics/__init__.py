"""How close an image is to its reference: numbers on tensors, with data range and mask stated and never guessed.

Every function takes tensors or arrays: ``(y, x)`` and ``(z, y, x)`` are one image and one volume, ``(b, c, y, x)`` and
``(b, c, z, y, x)`` batches of them. It computes in float64, gives a plain ``float``, and for a batch the mean of the
values of its items, as the field's tables do. The families of opensr-test are in :mod:`sciSR.metrics.opensr`.
"""

from __future__ import annotations

from sciSR.metrics.multiscale import ms_ssim
from sciSR.metrics.perceptual import LPIPS
from sciSR.metrics.pixel import mae, nrmse, psnr, rmse
from sciSR.metrics.registration import spatial_shift
from sciSR.metrics.sharpness import hfen
from sciSR.metrics.spectral import ergas, sam, uiqi
from sciSR.metrics.structural import SSIMStream, ssim, ssim_map

__all__ = [
    "LPIPS",
    "SSIMStream",
    "ergas",
    "hfen",
    "mae",
    "ms_ssim",
    "nrmse",
    "psnr",
    "rmse",
    "sam",
    "spatial_shift",
    "ssim",
    "ssim_map",
    "uiqi",
]

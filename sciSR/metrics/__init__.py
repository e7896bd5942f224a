"""How close an image is to its reference: numbers on tensors, with data range and mask stated and never guessed.

Every function takes tensors or arrays: ``(y, x)`` and ``(z, y, x)`` are one image and one volume, ``(b, c, y, x)`` and
``(b, c, z, y, x)`` batches of them. It computes in float64, gives a plain ``float``, and for a batch the mean of the
values of its items, as the field's tables do.
"""

from __future__ import annotations

from sciSR.metrics.pixel import mae, nrmse, psnr, rmse
from sciSR.metrics.structural import SSIMStream, ssim, ssim_map

__all__ = ["SSIMStream", "mae", "nrmse", "psnr", "rmse", "ssim", "ssim_map"]

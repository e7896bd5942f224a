"""Losses on local structure."""

from __future__ import annotations

from torch import Tensor

from sciSR.losses.contract import Loss
from sciSR.metrics.arrays import check_range
from sciSR.metrics.multiscale import ms_ssim_values
from sciSR.metrics.structural import ssim_map

__all__ = ["MSSSIM", "SSIM"]


class SSIM(Loss):
    """1 - SSIM, with the window and constants of :func:`sciSR.metrics.ssim` (Wang 2004, doi:10.1109/TIP.2003.819861).

    Args:
        data_range: length of the value range of the tensors.
    """

    needs = ("data_range",)

    def __init__(self, *, data_range: float) -> None:
        super().__init__()
        self.data_range = check_range(data_range)

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        full, _ = ssim_map(prediction.float(), target.float(), data_range=self.data_range, ndim=target.dim() - 2)
        return 1 - full.mean()


class MSSSIM(Loss):
    """1 - MS-SSIM, as :func:`sciSR.metrics.ms_ssim` (Wang 2003, doi:10.1109/ACSSC.2003.1292216).

    Negative contrast terms, which have no root, count as a small positive number, so that a bad start has a gradient.

    Args:
        data_range: length of the value range of the tensors.
    """

    needs = ("data_range",)

    def __init__(self, *, data_range: float) -> None:
        super().__init__()
        self.data_range = check_range(data_range)

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        values = ms_ssim_values(prediction.float(), target.float(), data_range=self.data_range, least=1e-4)
        return 1 - values.mean()

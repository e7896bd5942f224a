"""Losses on pixels, their differences and their spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from sciSR.losses.contract import Loss

__all__ = ["L1", "L2", "Charbonnier", "Edge", "Fourier", "Gradient", "TotalVariation"]


class L1(Loss):
    """Mean absolute error, mean |e| (for restoration: Zhao et al. 2017, doi:10.1109/TCI.2016.2644865)."""

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        return (prediction - target).abs().mean()


class L2(Loss):
    """Mean squared error, mean e²; its least value is the conditional mean, so PSNR is highest and images soft."""

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        return (prediction - target).square().mean()


class Charbonnier(Loss):
    """Smooth L1, mean sqrt(e² + eps²) - eps (Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553).

    As in LapSRN (doi:10.1109/CVPR.2017.618), less the constant eps, so that 0 means perfect; the gradient is the same.

    Args:
        eps: error below which it is quadratic.
    """

    def __init__(self, *, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        return _smooth_abs(prediction - target, self.eps).mean()


class Gradient(Loss):
    """Mean absolute error of the forward differences along each spatial axis, averaged over the axes.

    It is the anisotropic total variation of the error image, so edges count in place, size and sign; the related
    gradient difference loss of Mathieu et al. 2016 (arXiv:1511.05440) ignores the sign. Axes of one pixel drop out.
    """

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        return _variation(prediction - target)


class Edge(Loss):
    """Charbonnier loss of the Laplacians of both images (Zamir et al. 2021, doi:10.1109/CVPR46437.2021.01458, eq. 4).

    The Laplacian is the sum of second differences over the spatial axes of three or more pixels.

    Args:
        eps: error below which it is quadratic.
    """

    def __init__(self, *, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        error = prediction - target
        axes = [dim for dim in range(2, error.dim()) if error.shape[dim] >= 3]
        inner = error
        for dim in axes:
            inner = inner.narrow(dim, 1, inner.shape[dim] - 2)
        total = torch.zeros_like(inner)
        for dim in axes:
            part = error
            for other in axes:
                if other != dim:
                    part = part.narrow(other, 1, part.shape[other] - 2)
            total = total + part.diff(n=2, dim=dim)
        return _smooth_abs(total, self.eps).mean()


class Fourier(Loss):
    """Mean absolute error of the real and imaginary parts of the spectra (Cho et al. 2021, arXiv:2108.05054, eq. 4).

    The transform over the spatial axes is orthonormal, so that the loss does not grow with the patch.
    """

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        error = (prediction - target).float()
        spectrum = torch.fft.fftn(error, dim=tuple(range(2, error.dim())), norm="ortho")
        return torch.view_as_real(spectrum).abs().mean()


class TotalVariation(Loss):
    """Mean absolute forward difference of the prediction alone, averaged over the axes: punishes noise and ringing.

    The anisotropic form of Rudin, Osher and Fatemi 1992 (doi:10.1016/0167-2789(92)90242-F). Not 0 for a perfect
    prediction: a small weight beside another loss.
    """

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        return _variation(prediction)


def _smooth_abs(error: Tensor, eps: float) -> Tensor:
    return torch.sqrt(error.square() + eps**2) - eps


def _variation(image: Tensor) -> Tensor:
    """Mean over the spatial axes of the mean absolute forward difference."""
    parts = [image.diff(dim=dim).abs().mean() for dim in range(2, image.dim()) if image.shape[dim] > 1]
    return torch.stack(parts).mean() if parts else (image * 0).sum()

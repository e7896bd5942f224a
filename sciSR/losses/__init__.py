"""What training makes small: from a prediction and its target to one number.

Each loss is a module whose ``forward(prediction, target, low=None)`` takes tensors ``(b, c, [z,] y, x)``, 2D or 3D, any
number of channels, and gives a scalar with a gradient; ``low`` is the network's input, for the losses that look at it.
:data:`LOSSES` names them, and :func:`build_loss` makes one or a weighted sum: ``build_loss({"l1": 1.0, "ssim": 0.1})``.
"""

from __future__ import annotations

from sciSR.losses.adversarial import ADVERSARIAL, AdversarialLoss, gradient_penalty
from sciSR.losses.combined import LOSSES, WeightedSum, build_loss
from sciSR.losses.consistency import DataConsistency
from sciSR.losses.contract import Loss
from sciSR.losses.perceptual import Content, Perceptual
from sciSR.losses.pixel import L1, L2, Charbonnier, Edge, Fourier, Gradient, TotalVariation
from sciSR.losses.structural import MSSSIM, SSIM

__all__ = [
    "ADVERSARIAL",
    "L1",
    "L2",
    "LOSSES",
    "MSSSIM",
    "SSIM",
    "AdversarialLoss",
    "Charbonnier",
    "Content",
    "DataConsistency",
    "Edge",
    "Fourier",
    "Gradient",
    "Loss",
    "Perceptual",
    "TotalVariation",
    "WeightedSum",
    "build_loss",
    "gradient_penalty",
]

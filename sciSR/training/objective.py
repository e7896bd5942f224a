"""What a training step makes small: one loss by name, or a weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["Objective", "build_objective"]

Objective = Callable[[Tensor, Tensor], Tensor]


def build_objective(loss: str | Mapping[str, float], *, ndim: int, data_range: float) -> Objective:
    """A function of (prediction, target) in float32.

    Args:
        loss: name of one of :mod:`sciSR.losses`, or ``{name: weight}``.
        ndim: spatial axes.
        data_range: length of the value range in normalised units, for losses that need one.

    Raises:
        InputError: a loss of this name does not exist.
    """
    if loss == "l1":
        return torch.nn.functional.l1_loss
    from sciSR.losses import build_loss

    weights = {loss: 1.0} if isinstance(loss, str) else dict(loss)
    terms = [(weight, build_loss(name, ndim=ndim, data_range=data_range)) for name, weight in weights.items()]

    def objective(prediction: Tensor, target: Tensor) -> Tensor:
        total = torch.zeros((), device=target.device)
        for weight, term in terms:
            total = total + weight * term(prediction.float(), target)
        return total

    return objective

"""Losses by name, and weighted sums of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.losses.consistency import DataConsistency
from sciSR.losses.contract import Loss
from sciSR.losses.perceptual import Content, Perceptual
from sciSR.losses.pixel import L1, L2, Charbonnier, Edge, Fourier, Gradient, TotalVariation
from sciSR.losses.structural import MSSSIM, SSIM

__all__ = ["LOSSES", "WeightedSum", "build_loss"]

LOSSES: dict[str, type[Loss]] = {
    "l1": L1,
    "l2": L2,
    "charbonnier": Charbonnier,
    "ssim": SSIM,
    "ms_ssim": MSSSIM,
    "gradient": Gradient,
    "edge": Edge,
    "fourier": Fourier,
    "perceptual": Perceptual,
    "content": Content,
    "total_variation": TotalVariation,
    "data_consistency": DataConsistency,
}
"""Name in a workflow -> loss."""


class WeightedSum(Loss):
    """A sum of losses, each times its weight.

    Args:
        terms: loss by name.
        weights: weight by the same names.
    """

    def __init__(self, terms: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`."""
        return self.total(self.values(prediction, target, low))

    def values(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> dict[str, Tensor]:
        """Each loss by itself, without its weight, for a log."""
        return {name: term(prediction, target, low) for name, term in self.terms.items()}

    def total(self, values: Mapping[str, Tensor]) -> Tensor:
        """The sum of these values, each times its weight."""
        return torch.stack([self.weights[name] * value for name, value in values.items()]).sum()


def build_loss(
    loss: str | Mapping[str, float | Mapping[str, Any]],
    *,
    ndim: int | None = None,
    **facts: Any,
) -> Loss:
    """A loss, or a weighted sum of losses.

    Args:
        loss: a name of :data:`LOSSES`; or name -> weight; or name -> mapping with ``weight`` and the loss's own options
            (``{"l1": 1, "perceptual": {"weight": 0.05, "backbone": "vgg19", "weights": "vgg19.pth"}}``).
        ndim: spatial axes of the images, to refuse early what does not fit; None: any.
        facts: of the training, for the losses that need them: ``data_range`` (1 if not given), ``sensor``, ``scale``.

    Raises:
        InputError: no such loss or option, no term, a weight that is not a number, or a fact that is missing.

    Example:
        >>> loss = build_loss({"l1": 1.0, "gradient": 0.1})
        >>> float(loss(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)))
        1.0
    """
    known = {"data_range": 1.0} | {key: value for key, value in facts.items() if value is not None}
    if isinstance(loss, str):
        return _one(loss, {}, known, ndim)
    if not loss:
        raise InputError("loss: no term came; name at least one, such as l1: 1.0")
    terms, weights = {}, {}
    for name, setting in loss.items():
        options = dict(setting) if isinstance(setting, Mapping) else {"weight": setting}
        weights[name] = _weight(name, options.pop("weight", 1.0))
        terms[name] = _one(name, options, known, ndim)
    return WeightedSum(terms, weights)


def _one(name: str, options: Mapping[str, Any], facts: Mapping[str, Any], ndim: int | None) -> Loss:
    if name not in LOSSES:
        raise InputError(f"loss: {name!r} is not one of {', '.join(LOSSES)}")
    cls = LOSSES[name]
    missing = [fact for fact in cls.needs if fact not in facts and fact not in options]
    if missing:
        raise InputError(f"loss {name}: it needs {' and '.join(missing)}, which this training does not state")
    allowed = _options(cls)
    unknown = sorted(set(options) - allowed)
    if unknown:
        known = f"it has {', '.join(sorted(allowed))}" if allowed else "it has none"
        raise InputError(f"loss {name}: no option {', '.join(unknown)}; {known}")
    built = cls(**{fact: facts[fact] for fact in cls.needs if fact in facts}, **options)
    if ndim == 2 and isinstance(built, Perceptual) and built.features.ndim == 3:
        raise InputError(f"loss {name}: a 3D backbone came for 2D images; choose vgg16, vgg19 or alexnet")
    return built


def _options(cls: type[Loss]) -> set[str]:
    """Keyword arguments of a loss and of the losses that it passes options on to."""
    found: set[str] = set()
    for base in cls.__mro__:
        if not issubclass(base, Loss) or "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base).parameters.values()
        found |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _weight(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InputError(f"loss {name}: weight {value!r} is not a number of at least 0")
    return float(value)

"""Dialects: how published PyTorch codes name their weights."""

from __future__ import annotations

from sciSR.networks.dialects import residual, small, transformer
from sciSR.networks.dialects.dialect import Dialect, Options, Reading, Weights, own_key

__all__ = ["DIALECTS", "Dialect", "Options", "Reading", "Weights", "own_key", "recognise"]

DIALECTS: tuple[Dialect, ...] = (*residual.DIALECTS, *small.DIALECTS, *transformer.DIALECTS)
"""Every dialect that is understood, in the order in which they are tried."""


def recognise(weights: Weights) -> Dialect | None:
    """The first dialect that fits the keys, or None."""
    return next((dialect for dialect in DIALECTS if dialect.matches(weights)), None)

"""What a dialect is: how one published code names the weights of a network that sciSR has too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sciSR.errors import CheckpointError, InputError

__all__ = [
    "DIV2K_MEAN",
    "Dialect",
    "Options",
    "Reading",
    "Weights",
    "count",
    "factor_of",
    "own_key",
    "scale_of_stages",
]

Weights = Mapping[str, Tensor]
"""A state dict as it came: their names, their tensors."""

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of DIV2K's training images, red, green, blue (sanghyun-son/EDSR-PyTorch, src/model/common.py)."""


@dataclass(frozen=True)
class Options:
    """What the user said because keys cannot tell; None: not said.

    Attributes:
        scale: whole factor for all axes.
        residual_scale: factor on each block's residual.
        value_range: length of the number range of the network's input and output, 1 or 255.
        padding: ``"zeros"`` or ``"replicate"``.
    """

    scale: int | None = None
    residual_scale: float | None = None
    value_range: float | None = None
    padding: str | None = None

    def scale_or(self, found: int) -> int:
        """``found`` in the keys, unless the user said otherwise.

        Raises:
            InputError: the user named another scale than the weights have.
        """
        if self.scale is not None and self.scale != found:
            raise InputError(f"scale: {self.scale} was asked for, but these weights refine by {found}")
        return found


@dataclass(frozen=True)
class Reading:
    """How to build the network and which of their keys fills which of ours.

    Attributes:
        family: the name in :data:`sciSR.networks.NETWORKS`.
        arguments: the constructor's keyword arguments.
        rules: patterns of our keys (see :func:`own_key`) and what they are called there, the first that fits counts.
        ignored: patterns of their keys that hold nothing to learn (mean shifts, masks).
    """

    family: str
    arguments: Mapping[str, Any]
    rules: Sequence[tuple[str, str]]
    ignored: Sequence[str] = ()

    def theirs(self, ours: str) -> str | None:
        """Their name of one of our keys, or None where no rule fits."""
        short = own_key(ours)
        for pattern, replacement in self.rules:
            match = re.fullmatch(pattern + r"\.(weight|bias|relative_position_bias_table)", short)
            if match:
                return match.expand(replacement) + "." + match.group(match.re.groups)
        return None

    def is_ignored(self, theirs: str) -> bool:
        """Whether one of their keys holds nothing to learn."""
        return any(re.fullmatch(pattern, theirs) for pattern in self.ignored)


@dataclass(frozen=True)
class Dialect:
    """One published code's way to name weights.

    Attributes:
        name: network and author.
        source: where the code is.
        needs: keys by which it is recognised; all must be there.
        without: keys that must not be there.
        read: makes a :class:`Reading` of the weights.
        options: of :class:`Options`, besides ``scale`` and ``value_range``, those that mean something here.
    """

    name: str
    source: str
    needs: tuple[str, ...]
    read: Callable[[Weights, Options], Reading]
    without: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default=())

    def matches(self, weights: Weights) -> bool:
        """Whether the weights are in this dialect."""
        return all(key in weights for key in self.needs) and not any(key in weights for key in self.without)


def own_key(key: str) -> str:
    """One of our keys without the ``conv`` that MONAI's convolution adds: ``body.0.first.conv.weight`` loses it."""
    return key.replace(".conv.", ".")


def count(weights: Weights, pattern: str) -> int:
    """One more than the largest number that stands for ``{}`` in a key that begins with ``pattern``."""
    expression = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    numbers = [int(match.group(1)) for key in weights if (match := expression.match(key))]
    return max(numbers, default=-1) + 1


def factor_of(wide: int, narrow: int, ndim: int, key: str) -> int:
    """The factor whose pixel shuffle turns ``wide`` channels into ``narrow``.

    Raises:
        CheckpointError: there is no whole one.
    """
    factor: int = round((wide / narrow) ** (1 / ndim))
    if factor < 1 or narrow * factor**ndim != wide:
        raise CheckpointError(f"{key}: {wide} channels do not shuffle into {narrow} in {ndim} dimensions")
    return factor


def scale_of_stages(weights: Weights, pattern: str, features: int | None = None) -> int:
    """The product of the factors of sub-pixel convolutions named ``pattern`` with a number for ``{}``.

    ``features`` is what they take, where groups hide it.
    """
    expression = re.compile(re.escape(pattern).replace(r"\{\}", r"\d+"))
    shapes = [(key, weights[key].shape) for key in weights if expression.fullmatch(key)]
    scale = 1
    for key, shape in shapes:
        scale *= factor_of(shape[0], features or shape[1], len(shape) - 2, key)
    return scale

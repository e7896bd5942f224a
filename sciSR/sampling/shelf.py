"""All crops in one flat tensor on the device, from which a batch of turned patches is gathered in one operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Shelf", "Turned"]


class Turned(NamedTuple):
    """One patch to gather: number of its crop, first pixel per source axis, and how it is turned.

    ``order[i]`` is the source axis that becomes axis ``i`` of the patch; ``flips`` are by axis of the patch.
    """

    crop: int
    start: tuple[int, ...]
    order: tuple[int, ...]
    flips: tuple[bool, ...]


class Shelf:
    """Values of many crops ``(c, [z,] y, x)``, all with the same number of channels."""

    def __init__(self, values: Sequence[Tensor], device: torch.device) -> None:
        self.channels = values[0].shape[0]
        sizes = [v.numel() for v in values]
        self._flat = torch.empty(sum(sizes), dtype=torch.float32, device=device)
        self._offsets = np.cumsum([0, *sizes[:-1]])
        for value, offset in zip(values, self._offsets, strict=True):
            self._flat[int(offset) : int(offset) + value.numel()] = value.reshape(-1)
        self._strides = [[math.prod(value.shape[axis + 1 :]) for axis in range(value.dim())] for value in values]

    def gather(self, patches: Sequence[Turned], size: Sequence[int]) -> Tensor:
        """A batch ``(b, c, [z,] y, x)`` of ``size`` pixels."""
        first = np.empty(len(patches), np.int64)
        steps = np.empty((len(patches), len(size) + 1), np.int64)
        for i, patch in enumerate(patches):
            channel, *strides = self._strides[patch.crop]
            first[i] = self._offsets[patch.crop] + sum(a * s for a, s in zip(patch.start, strides, strict=True))
            steps[i, 0] = channel
            for axis, (source, flip, n) in enumerate(zip(patch.order, patch.flips, size, strict=True), 1):
                steps[i, axis] = -strides[source] if flip else strides[source]
                first[i] += (n - 1) * strides[source] if flip else 0
        device = self._flat.device
        index = torch.from_numpy(first).to(device).reshape(-1, *(1,) * steps.shape[1])
        step = torch.from_numpy(steps).to(device)
        for axis, n in enumerate((self.channels, *size)):
            along = step[:, axis, None] * torch.arange(n, device=device)
            index = index + along.reshape(len(patches), *(n if a == axis else 1 for a in range(steps.shape[1])))
        return self._flat[index]

"""Tensors, arrays and masks as the metrics want them: ``(b, c, [z,] y, x)`` in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError

__all__ = ["Image", "as_mask", "as_pair", "batched", "check_range"]

Image = Tensor | NDArray[Any]
"""An image, a volume or a batch: see :mod:`sciSR.metrics`."""


def batched(image: Image, name: str) -> Tensor:
    """``image`` as a float64 tensor ``(b, c, [z,] y, x)``.

    Raises:
        InputError: not 2 to 5 axes, or an empty one.
    """
    if isinstance(image, Tensor):
        tensor = image.detach()
        tensor = (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
    else:
        tensor = torch.from_numpy(np.array(image, dtype=np.float64))
    if not 2 <= tensor.dim() <= 5 or 0 in tensor.shape:
        raise InputError(
            f"{name}: shape {tuple(tensor.shape)} came, expected (y, x), (z, y, x), (b, c, y, x) or (b, c, z, y, x)"
        )
    return tensor[None, None] if tensor.dim() < 4 else tensor


def as_pair(prediction: Image, target: Image) -> tuple[Tensor, Tensor]:
    """Both as float64 tensors ``(b, c, [z,] y, x)`` on the prediction's device.

    Raises:
        InputError: their shapes differ.
    """
    if tuple(prediction.shape) != tuple(target.shape):
        raise InputError(
            f"prediction and target: shapes {tuple(prediction.shape)} and {tuple(target.shape)} differ; "
            "bring both to one grid first"
        )
    first, second = batched(prediction, "prediction"), batched(target, "target")
    return first, second.to(first.device)


def as_mask(mask: Image | None, like: Tensor, name: str = "mask") -> Tensor | None:
    """``mask`` as a bool tensor of the shape of ``like``; its leading axes may be missing or 1.

    Raises:
        InputError: it does not broadcast, or an item has no pixel in it.
    """
    if mask is None:
        return None
    tensor = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask, dtype=bool))
    tensor = tensor.to(device=like.device, dtype=torch.bool)
    try:
        full = torch.broadcast_to(tensor, like.shape)
    except RuntimeError as error:
        raise InputError(f"{name}: shape {tuple(tensor.shape)} does not fit images {tuple(like.shape)}") from error
    if not full.flatten(1).any(dim=1).all():
        raise InputError(f"{name}: no pixel is inside; nothing to measure")
    return full


def check_range(data_range: float) -> float:
    """``data_range`` as a float.

    Raises:
        InputError: it is not a finite positive number.
    """
    value = float(data_range)
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"data_range: {data_range} is not a finite positive number; give the length of the value range"
        )
    return value

"""What a run needs to go on: the moving average of the weights, and the state file of an interrupted run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciSR.errors import CheckpointError
from sciSR.files import whole_file

__all__ = ["MovingAverage", "load_state", "save_state"]


class MovingAverage:
    """Exponential moving average of a network's weights.

    The decay rises with the steps as ``min(decay, (1 + n) / (10 + n))``, so that the first steps do not weigh for long.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.values = {key: value.detach().clone() for key, value in network.state_dict().items()}

    def copy(self) -> dict[str, Tensor]:
        """The averaged weights as they are now."""
        return {key: value.clone() for key, value in self.values.items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the network's weights."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        for key, value in network.state_dict().items():
            mine = self.values[key]
            if mine.is_floating_point():
                mine.lerp_(value, weight)
            else:
                mine.copy_(value)


def save_state(path: Path, values: Mapping[str, Any]) -> None:
    """Write the state of a run; the file appears whole or not at all."""
    with whole_file(path) as temporary:
        torch.save(dict(values), temporary)


def load_state(path: Path) -> dict[str, Any]:
    """The state of a run; runs no code from the file.

    Raises:
        CheckpointError: not a state file, or damaged.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not the state of a training run, or damaged; train without resume") from error
    if not isinstance(values, dict) or "step" not in values:
        raise CheckpointError(f"{path}: not the state of a training run; train without resume")
    return values

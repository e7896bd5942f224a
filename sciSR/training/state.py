"""What a run needs to go on: the moving average of the weights, and the state file of an interrupted run."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciSR.errors import CheckpointError, SciSRWarning
from sciSR.files import whole_file

__all__ = ["MovingAverage", "StateFile", "load_state", "save_state"]


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
    """Write the state of a run; the file appears whole or not at all.

    Raises:
        OSError: it could not be written, for lack of space for example; an earlier state is still there.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(dict(values), file)
        except RuntimeError as error:  # torch hides why a file could not be written
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


class StateFile:
    """The file in which a run is kept as it goes on; what hinders that is told once, and does not stop the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told = False

    def keep(self, values: Mapping[str, Any]) -> None:
        """Write the state, or warn that it could not be written."""
        try:
            save_state(self.path, values)
        except OSError as error:
            if not self._told:
                left = "; an earlier state is still there" if self.path.exists() else ""
                warnings.warn(
                    f"{self.path}: the state of the run could not be written ({error.strerror or error}){left}; the "
                    "training goes on, but could not be resumed from here: free some space",
                    SciSRWarning,
                    stacklevel=2,
                )
            self._told = True


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

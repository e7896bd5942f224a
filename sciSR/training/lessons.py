"""What one step asks of the network: a lesson gives the loss of a batch, and may do something after the step."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from sciSR.losses import Loss
from sciSR.sampling import Pair

__all__ = ["Lesson", "Supervised"]


class Lesson(Protocol):
    """What the loop needs to know about an objective; as it stands here, nothing but its value matters."""

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """The loss of one batch, with its gradient; ``model`` takes ``pair.low``."""
        ...

    def after(self, step: int) -> dict[str, float]:
        """Whatever follows the network's own step; numbers for the history."""
        return {}

    def trim(self, weights: dict[str, Tensor]) -> None:
        """Make weights, in place, what the lesson promises, before they are judged and kept."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take that back."""
        return


class Supervised(Lesson):
    """A loss between what the network makes of the coarse batch and the fine one."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """See :class:`Lesson`."""
        prediction = model(pair.low)
        value: Tensor = self.loss(prediction.float(), pair.high, pair.low)
        return value

"""What one step asks of the network: a lesson gives the loss of a batch, and may do something after the step."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from sciSR.losses import Loss, WeightedSum
from sciSR.sampling import Pair

__all__ = ["Lesson", "Supervised", "Tally"]


class Tally:
    """A loss that remembers what each term of a weighted sum was; one alone has no terms."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def __call__(self, prediction: Tensor, target: Tensor, low: Tensor) -> Tensor:
        """The loss; its terms are kept without waiting for the device."""
        if not isinstance(self.loss, WeightedSum):
            value: Tensor = self.loss(prediction, target, low)
            return value
        values = self.loss.values(prediction, target, low)
        for name, term in values.items():
            self._sums[name] = self._sums.get(name, 0) + term.detach()
        self._count += 1
        return self.loss.total(values)

    def means(self) -> dict[str, Tensor]:
        """Mean of each term, without its weight, since this was last asked."""
        found = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return found


class Lesson(Protocol):
    """What the loop needs to know about an objective; as it stands here, nothing but its value matters."""

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """The loss of one batch, with its gradient; ``model`` takes ``pair.low``."""
        ...

    def after(self, step: int) -> dict[str, float]:
        """Whatever follows the network's own step; numbers for the history."""
        return {}

    def terms(self) -> dict[str, Tensor]:
        """Mean of each term of the loss since this was last asked, in this process, for the history."""
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
        self.loss = Tally(loss)

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """See :class:`Lesson`."""
        prediction = model(pair.low)
        return self.loss(prediction.float(), pair.high, pair.low)

    def terms(self) -> dict[str, Tensor]:
        """See :class:`Lesson`."""
        return self.loss.means()

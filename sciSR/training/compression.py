"""Making networks smaller: magnitude pruning with fine-tuning, and learning from a larger network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.losses import Loss
from sciSR.networks.spec import SRNetwork
from sciSR.sampling import Pair
from sciSR.training.lessons import Lesson, Tally

__all__ = ["DistilledLesson", "PrunedLesson", "sparsity"]


class DistilledLesson(Lesson):
    """A loss against the target, and against what a larger network makes of the same batch.

    Hinton et al. 2015 (arXiv:1503.02531) for regression, as in Gao et al. 2018 for super-resolution
    (doi:10.1007/978-3-030-20890-5_34): the teacher's output is a second target.

    Args:
        loss: between prediction and either target.
        teacher: a trained network of the same scale and channels, on the device.
        weight: of the teacher's target, between 0 and 1.
    """

    def __init__(self, loss: Loss, teacher: SRNetwork, weight: float) -> None:
        if not 0 < weight <= 1:
            raise InputError(f"teacher_weight: {weight} is not a share above 0 and up to 1")
        self.loss = loss
        self.truth = Tally(loss)
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight = weight

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """See :class:`~sciSR.training.lessons.Lesson`."""
        prediction = model(pair.low).float()
        with torch.no_grad():
            taught = self.teacher(pair.low).float()
        value: Tensor = self.weight * self.loss(prediction, taught, pair.low)
        if self.weight < 1:
            value = value + (1 - self.weight) * self.truth(prediction, pair.high, pair.low)
        return value

    def terms(self) -> dict[str, Tensor]:
        """Those of the loss against the target."""
        return self.truth.means()


class PrunedLesson(Lesson):
    """Another lesson, while the smallest weights are set to zero, more and more of them.

    The share of zeros rises as ``1 - (1 - t)^3`` over the first half of the run (Zhu and Gupta 2017, arXiv:1710.01878),
    by magnitude within each convolution (a last layer that began at zero has small weights that matter). In the second
    half the others adapt.

    Args:
        inner: the lesson.
        network: whose weights.
        share: of the weights that end up zero.
        steps: of the run; see :func:`check_prune`.
    """

    def __init__(self, inner: Lesson, network: SRNetwork, share: float, steps: int | None) -> None:
        self.inner = inner
        self.share = share
        self.steps = check_prune(share, steps)
        self._weights = {
            f"{name}.weight": module.weight
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Conv3d)
        }
        self._masks: dict[str, Tensor] = {}

    def value(self, model: nn.Module, pair: Pair) -> Tensor:
        """See :class:`~sciSR.training.lessons.Lesson`."""
        return self.inner.value(model, pair)

    def terms(self) -> dict[str, Tensor]:
        """The other lesson's."""
        return self.inner.terms()

    def after(self, step: int) -> dict[str, float]:
        """Set the smallest weights to zero; what was zero stays so."""
        done = min(1.0, 2 * (step + 1) / self.steps)
        wanted = self.share * (1 - (1 - done) ** 3)
        with torch.no_grad():
            if not self._masks or done < 1 or step + 1 == (self.steps + 1) // 2:
                self._choose(wanted)
            for name, weight in self._weights.items():
                weight.mul_(self._masks[name])
        return self.inner.after(step) | {"zeros": wanted}

    def trim(self, weights: dict[str, Tensor]) -> None:
        """Averaged weights get the zeros of the present ones."""
        for name, mask in self._masks.items():
            weights[name].mul_(mask)

    def _choose(self, share: float) -> None:
        for name, weight in self._weights.items():
            size = weight.detach().abs()
            limit = size.flatten().kthvalue(max(1, round(share * size.numel()))).values
            self._masks[name] = (size > limit).to(weight)

    def state_dict(self) -> dict[str, Any]:
        """The masks."""
        return {"masks": self._masks, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._masks = {name: mask.to(self._weights[name]) for name, mask in state["masks"].items()}
        self.inner.load_state_dict(state["inner"])


def check_prune(share: float, steps: int | None) -> int:
    """The steps over which the zeros come; raises InputError where they are not known, or for no share."""
    if not 0 < share < 1:
        raise InputError(f"prune: {share} is not a share between 0 and 1")
    if steps is None:
        raise InputError("prune: the zeros come over a known number of steps; give steps, not minutes")
    return steps


def sparsity(network: SRNetwork) -> float:
    """Share of the convolutions' weights that are zero."""
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    return sum(int((w == 0).sum()) for w in weights) / max(1, sum(w.numel() for w in weights))

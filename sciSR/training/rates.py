"""Which learning rate to take: try rising ones for some steps each, and see where the loss falls fastest."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciSR.networks.spec import SRNetwork
from sciSR.sampling import Pair, PairMaker, RotatingMaker
from sciSR.training.lessons import Lesson
from sciSR.training.loop import Settings

__all__ = ["RateTest", "try_rates"]

_SMOOTH = 0.7
_DIVERGED = 4.0


@dataclass(frozen=True)
class RateTest:
    """What a learning-rate test found.

    Attributes:
        rates: that were tried, rising.
        losses: the smoothed loss after a step with each.
        suggestion: the rate to train with: a third of the one at which the smoothed loss was least.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def draw(self, path: Path) -> Path:
        """A PNG of loss over rate."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.4), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="#30638e")
        axes.axvline(self.suggestion, color="#d1495b", linestyle="--", label=f"suggested: {self.suggestion:.1e}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Software": None})
        return path


def try_rates(
    network: SRNetwork,
    maker: PairMaker | RotatingMaker,
    lesson: Lesson,
    settings: Settings,
    *,
    device: torch.device,
    least: float = 1e-5,
    most: float = 0.1,
    steps: int = 60,
) -> RateTest:
    """The range test of Smith 2017 (arXiv:1506.01186, section 3.3), on a copy of the network.

    The rate rises evenly in its logarithm, on one and the same batch, so that patches which are harder than others do
    not hide the rate's doing. The test ends where the loss is four times the least or is not finite.

    Args:
        network: stays as it is.
        maker: of the batches.
        lesson: what a step asks.
        settings: of the run to come.
        device: where.
        least: first rate.
        most: last rate.
        steps: how many are tried.
    """
    trial = copy.deepcopy(network).to(device).train()
    optimizer = torch.optim.AdamW(trial.parameters(), least, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
    layout = torch.channels_last if network.spec.ndim == 2 else torch.channels_last_3d
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    low, high, patches = maker.make(settings.seed, 0, range(settings.batch))
    pair = Pair(low.contiguous(memory_format=layout), high, patches)
    for step in range(steps):
        rate = least * (most / least) ** (step / max(1, steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = lesson.value(trial, pair)
        _step(optimizer, value, list(trial.parameters()), settings.clip)
        mean = _SMOOTH * mean + (1 - _SMOOTH) * float(value.detach())
        smooth = mean / (1 - _SMOOTH ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > _DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    best = rates[min(range(len(losses)), key=losses.__getitem__)]
    return RateTest(tuple(rates), tuple(losses), best / 3)


def _step(optimizer: Any, value: Tensor, parameters: Sequence[Tensor], clip: float | None) -> None:
    value.backward()  # type: ignore[no-untyped-call]  # torch's own
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

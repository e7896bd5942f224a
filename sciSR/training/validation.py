"""How good a network is on crops it was not trained on, beside cubic interpolation and back-projection.

The crops are fixed: drawn once, degraded once under each :class:`Condition`. Every method gets the same coarse crops,
and a rim that a larger image would not have is left out for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciSR.classical import build_classical
from sciSR.degradation import Sensor
from sciSR.metrics import psnr, ssim
from sciSR.sampling import Augmentation, Crop, PairMaker, margin_of, widened

__all__ = ["CONDITIONS", "Condition", "Score", "Validator", "mean_scores"]

_SEED = 20_000_001


class Condition(NamedTuple):
    """How the coarse crops are made: factor on the sensor's widths, and noise as a part of the validator's."""

    width: float = 1.0
    noise: float = 0.0


CONDITIONS: Mapping[str, Condition] = {
    "matched": Condition(),
    "narrower": Condition(width=0.8),
    "wider": Condition(width=1.2),
    "noisy": Condition(noise=1.0),
}
"""What the final table holds: the stated sensor, sensors that are not quite it, and noise."""


class Score(NamedTuple):
    """PSNR in dB and SSIM of one method on one crop."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class _Sample:
    """A coarse crop, its reference, and which raster it is from."""

    name: str
    low: Tensor
    high: Tensor


class Validator:
    """Scores methods on fixed held-out crops.

    Args:
        crops: what is held out.
        patch: coarse pixels per axis of each crop, its rim included.
        scale: factor per spatial axis.
        sensor: the stated degradation; None for real pairs.
        count: crops per raster.
        noise: standard deviation of the noise of the noisy condition, in normalised units.
        data_range: of PSNR and SSIM, in normalised units.
        rim: coarse pixels at the edge of a crop that do not count.
        device: where networks run.
    """

    def __init__(
        self,
        crops: Sequence[Crop],
        *,
        patch: Sequence[int],
        scale: Sequence[int],
        sensor: Sensor | None,
        count: int = 4,
        noise: float = 0.01,
        data_range: float = 1.0,
        rim: int = 4,
        device: torch.device | str = "cpu",
    ) -> None:
        self.crops = tuple(crops)
        self.scale = tuple(scale)
        self.sensor = sensor
        self.count = count
        self.noise = noise
        self.data_range = data_range
        self.rim = rim
        self.device = torch.device(device)
        self.patch = tuple(patch)
        self._samples: dict[Condition, list[_Sample]] = {}

    def samples(self, condition: Condition = CONDITIONS["matched"]) -> list[_Sample]:
        """The fixed crops under a condition; made when first asked for."""
        if condition not in self._samples:
            std = condition.noise * self.noise
            vary = Augmentation(flip=False, swap=False, width=(condition.width,) * 2, noise=(std, std))
            made = []
            for crop in self.crops:
                maker = PairMaker(
                    [crop],
                    patch=self.room(crop),
                    scale=self.scale,
                    sensor=self.sensor,
                    augmentation=vary,
                    guard=0,
                    margin=self.margin(crop),
                )
                for number in range(self.count):
                    low, high, _ = maker.make(_SEED, number, [0])
                    made.append(_Sample(crop.name, low, high))
            self._samples[condition] = made
        return self._samples[condition]

    def margin(self, crop: Crop) -> tuple[int, ...]:
        """Coarse pixels cut off around each sample; the same under every condition, so that places stay."""
        if self.sensor is None or crop.low is not None:
            return (0,) * len(self.scale)
        return margin_of(widened(self.sensor, max(c.width for c in CONDITIONS.values())), self.scale)

    def room(self, crop: Crop) -> tuple[int, ...]:
        """The coarse patch that fits a crop: what was asked for, or less along a short axis."""
        sizes = zip(self.patch, crop.shape, self.scale, self.margin(crop), strict=True)
        return tuple(max(1, min(n, size // s - 2 * m)) for n, size, s, m in sizes)

    def score(self, method: nn.Module, condition: Condition = CONDITIONS["matched"]) -> dict[str, Score]:
        """PSNR and SSIM of a network or classical method, mean per raster."""
        found: dict[str, list[Score]] = {}
        training = method.training
        method.eval()
        with torch.inference_mode():
            for sample in self.samples(condition):
                made = method(sample.low.to(self.device)).float().cpu()
                found.setdefault(sample.name, []).append(self._compare(made, sample.high))
        method.train(training)
        return {name: mean_scores(scores) for name, scores in found.items()}

    def baseline(self, name: str, condition: Condition = CONDITIONS["matched"]) -> dict[str, Score]:
        """The same of a classical method by name; it is told the stated sensor, not the condition's."""
        channels = self.samples(condition)[0].low.shape[1]
        method = build_classical(name, ndim=len(self.scale), scale=self.scale, in_channels=channels, sensor=self.sensor)
        return self.score(method.to(self.device), condition)

    def _compare(self, made: Tensor, high: Tensor) -> Score:
        for dim, (n, s) in enumerate(zip(high.shape[2:], self.scale, strict=True), 2):
            rim = self.rim * s if n > 4 * self.rim * s else 0
            made, high = made.narrow(dim, rim, n - 2 * rim), high.narrow(dim, rim, n - 2 * rim)
        return Score(psnr(made, high, data_range=self.data_range), ssim(made, high, data_range=self.data_range))


def mean_scores(scores: Sequence[Score]) -> Score:
    """Mean of both numbers."""
    return Score(sum(s.psnr for s in scores) / len(scores), sum(s.ssim for s in scores) / len(scores))

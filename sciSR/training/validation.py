"""How good a network is on crops it was not trained on, beside cubic interpolation and back-projection.

The crops are fixed: drawn once, degraded once under each :class:`Condition`. Every method gets the same coarse crops,
and a rim that a larger image would not have is left out for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciSR.classical import build_classical
from sciSR.degradation import Sensor
from sciSR.errors import InputError
from sciSR.metrics import psnr, ssim
from sciSR.sampling import Augmentation, Crop, NoRoomError, PairMaker, margin_of, widened

__all__ = ["CONDITIONS", "Condition", "Score", "Validator", "mean_scores"]

log = logging.getLogger(__name__)

_SEED = 20_000_001
_MOST_DB = 200.0
"""What is exact counts as this: a mean with infinity in it says nothing, and JSON has none."""


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
        """The fixed crops under a condition; made when first asked for.

        A constant crop tells nothing, as any method gets it right: it is left out.

        Raises:
            InputError: nothing is left of what is held out.
        """
        if condition not in self._samples:
            made: list[_Sample] = []
            missing: dict[str, str] = {}
            for crop in self.crops:
                try:
                    found = self._drawn(crop, condition)
                    why = "is constant where crops were drawn"
                except NoRoomError:
                    found, why = [], f"has {crop.shape} pixels, too few with a value for a crop"
                made += found
                if not found:
                    missing[crop.name] = why
            told = "; ".join(f"{name}: what is held out {why}" for name, why in missing.items())
            if not made:
                raise InputError(
                    f"validation: nothing is left to judge by ({told}); hold out more or another part: name held_out "
                    "or validation"
                )
            if missing and not self._samples:
                log.warning("validation: left out: %s", told)
            self._samples[condition] = made
        return self._samples[condition]

    def _drawn(self, crop: Crop, condition: Condition) -> list[_Sample]:
        """What one held-out raster gives, without what is constant."""
        std = condition.noise * self.noise
        maker = PairMaker(
            [crop],
            patch=self.room(crop),
            scale=self.scale,
            sensor=self.sensor,
            augmentation=Augmentation(flip=False, swap=False, width=(condition.width,) * 2, noise=(std, std)),
            guard=0,
            margin=self.margin(crop),
        )
        pairs = [maker.make(_SEED, number, [0]) for number in range(self.count)]
        return [_Sample(crop.name, low, high) for low, high, _ in pairs if self._varied(high)]

    def _varied(self, high: Tensor) -> bool:
        """Whether what counts of a crop is not constant."""
        flat = self._inner(high).flatten(2)
        return bool((flat.amax(dim=2) > flat.amin(dim=2)).any())

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

    def _inner(self, fine: Tensor) -> Tensor:
        """A fine crop without the rim that does not count."""
        for dim, (n, s) in enumerate(zip(fine.shape[2:], self.scale, strict=True), 2):
            rim = self.rim * s if n > 4 * self.rim * s else 0
            fine = fine.narrow(dim, rim, n - 2 * rim)
        return fine

    def _compare(self, made: Tensor, high: Tensor) -> Score:
        made, high = self._inner(made), self._inner(high)
        found = max(-_MOST_DB, min(psnr(made, high, data_range=self.data_range), _MOST_DB))
        return Score(found, ssim(made, high, data_range=self.data_range))


def mean_scores(scores: Sequence[Score]) -> Score:
    """Mean of both numbers."""
    return Score(sum(s.psnr for s in scores) / len(scores), sum(s.ssim for s in scores) / len(scores))

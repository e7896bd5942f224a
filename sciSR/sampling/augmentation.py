"""From drawn patches to pairs of a coarse and a fine batch, on the device.

The fine patch is augmented first (flips, axis swaps, intensity) and degraded afterwards, as a scan of the augmented
object would be. Each patch may get a sensor of its own (width, noise), so that a network survives scans that were not
simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.degradation import Sensor
from sciSR.errors import InputError
from sciSR.resampling import sampling_taps
from sciSR.sampling.crops import Crop
from sciSR.sampling.draws import generators, uniforms
from sciSR.sampling.patches import Patch, PatchSampler
from sciSR.sampling.shelf import Shelf, Turned
from sciSR.sensors import Band, Profile

__all__ = ["Augmentation", "Pair", "PairMaker", "margin_of", "widened"]

_LEVELS = 16
_SAME_SPACING = 1.25


@dataclass(frozen=True)
class Augmentation:
    """What is varied at random from patch to patch; the defaults vary geometry only.

    Attributes:
        flip: mirror each axis or not.
        swap: exchange axes whose pixels are of about the same size (within a quarter).
        gain: least and greatest factor on all values, drawn evenly in its logarithm.
        gamma: least and greatest exponent on the size of each value, likewise.
        invert: share of the patches in which dark and bright are exchanged.
        width: least and greatest factor on the sensor's widths, drawn per axis z and per plane y, x.
        noise: least and greatest standard deviation of the noise of the coarse patch, in normalised units, small ones
            more often; added to the sensor's own.
    """

    flip: bool = True
    swap: bool = True
    gain: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    invert: float = 0.0
    width: tuple[float, float] = (1.0, 1.0)
    noise: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("gain", "gamma", "width"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"augment.{name}: {low} to {high} must be positive and rise")
        if not 0 <= self.noise[0] <= self.noise[1]:
            raise InputError(f"augment.noise: {self.noise[0]} to {self.noise[1]} must be 0 or more and rise")
        if not 0 <= self.invert <= 1:
            raise InputError(f"augment.invert: {self.invert} is not a share between 0 and 1")


class Pair(NamedTuple):
    """One batch: coarse ``(b, c, [z,] y, x)`` float32, fine likewise, and where each patch came from."""

    low: Tensor
    high: Tensor
    patches: list[Patch]


class PairMaker:
    """Makes training batches, each a function of (seed, step, sample).

    Args:
        crops: where to draw from; all with a measured coarse partner, or none.
        patch: coarse pixels of a patch per spatial axis.
        scale: factor per spatial axis.
        sensor: the degradation, without widths in millimetres; None for real pairs.
        augmentation: what is varied.
        guard: fine pixels kept between patches and what is held out.
        uniform: draw every place equally often.
        margin: coarse pixels around a patch that are degraded with it and then cut off; None: as many as the sensor at
            its widest reaches.
        orders: which turns of the axes to draw from, whatever the pixel sizes; ``(1, 0, 2)`` makes the second axis the
            first. None: as the augmentation says.
        device: where the batches are made.
    """

    DRAWS = 16

    def __init__(
        self,
        crops: Sequence[Crop],
        *,
        patch: Sequence[int],
        scale: Sequence[int],
        sensor: Sensor | None,
        augmentation: Augmentation | None = None,
        guard: int = 16,
        uniform: bool = False,
        margin: Sequence[int] | None = None,
        orders: Sequence[tuple[int, ...]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scale = tuple(scale)
        self.patch = tuple(patch)
        self.sensor = sensor
        self.augmentation = augmentation or Augmentation()
        self.device = torch.device(device)
        self._measured = _all_measured(crops, sensor)
        self.margin = (0,) * len(self.scale)
        if sensor is not None and not self._measured:
            self.margin = tuple(margin or margin_of(widened(sensor, self.augmentation.width[1]), self.scale))
        self.size = tuple((n + 2 * m) * s for n, m, s in zip(self.patch, self.margin, self.scale, strict=True))
        self._orders = [list(orders) if orders else self._allowed(crop) for crop in crops]
        self.sampler = PatchSampler(
            crops,
            [self._room(orders) for orders in self._orders],
            align=self.scale if self._measured else None,
            guard=guard,
            uniform=uniform,
        )
        self._high = Shelf([crop.high for crop in crops], self.device)
        lows = [crop.low for crop in crops if crop.low is not None]
        self._low = Shelf(lows, self.device) if self._measured else None
        self.sampler.release()

    def make(self, seed: int, step: int, samples: Sequence[int]) -> Pair:
        """The pairs of these sample numbers of a step."""
        patches = self.sampler.draw(seed, step, samples)
        numbers = uniforms(seed + 1, step, samples, self.DRAWS)
        turned = [self._turned(patch, row) for patch, row in zip(patches, numbers, strict=True)]
        high = self._varied(self._high.gather(turned, self.size), numbers)
        if self._low is not None:
            coarse = [self._coarse(t) for t in turned]
            return Pair(self._varied(self._low.gather(coarse, self.patch), numbers), high, patches)
        low = self._noisy(self._degraded(high, numbers), numbers, seed, step, samples)
        for dim, (m, n, s) in enumerate(zip(self.margin, self.patch, self.scale, strict=True), 2):
            low, high = low.narrow(dim, m, n), high.narrow(dim, m * s, n * s)
        return Pair(low.contiguous(), high.contiguous(), patches)

    def _allowed(self, crop: Crop) -> list[tuple[int, ...]]:
        """Orders of the axes that a patch of this crop may be turned into."""
        axes = range(len(self.scale))
        if not self.augmentation.swap:
            return [tuple(axes)]

        def fits(order: tuple[int, ...]) -> bool:
            ratio = [crop.spacing[a] / crop.spacing[b] for a, b in zip(axes, order, strict=True)]
            near = all(1 / _SAME_SPACING <= r <= _SAME_SPACING for r in ratio)
            room = all(crop.shape[b] >= n for b, n in zip(order, self.size, strict=True))
            return (
                near and room and (crop.low is None or all(self.scale[a] == self.scale[b] for a, b in enumerate(order)))
            )

        return [order for order in permutations(axes) if fits(order)] or [tuple(axes)]

    def _room(self, orders: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Pixels to draw per axis, so that any of the orders can be cut from them."""
        return tuple(max(self.size[order.index(a)] for order in orders) for a in range(len(self.size)))

    def _turned(self, patch: Patch, u: NDArray[np.float64]) -> Turned:
        """The patch with its axes exchanged and flipped."""
        orders = self._orders[patch.crop]
        order = orders[min(int(u[0] * len(orders)), len(orders) - 1)]
        flips = tuple(bool(self.augmentation.flip and u[1 + a] < 0.5) for a in range(len(order)))
        return Turned(patch.crop, patch.start, order, flips)

    def _coarse(self, patch: Turned) -> Turned:
        """The same place of the measured coarse partner."""
        return patch._replace(start=tuple(a // s for a, s in zip(patch.start, self.scale, strict=True)))

    def _varied(self, x: Tensor, numbers: NDArray[np.float64]) -> Tensor:
        """Values with gain, gamma and inversion drawn per patch."""
        vary = self.augmentation
        if vary.gamma != (1.0, 1.0):
            power = self._each(_between(vary.gamma, numbers[:, 5]), x)
            x = x.sign() * x.abs() ** power
        if vary.invert > 0:
            dark = self._each((numbers[:, 6] < vary.invert).astype(np.float64), x)
            x = dark + (1 - 2 * dark) * x
        if vary.gain != (1.0, 1.0):
            x = x * self._each(_between(vary.gain, numbers[:, 4]), x)
        return x

    def _degraded(self, high: Tensor, numbers: NDArray[np.float64]) -> Tensor:
        """Each patch through its own sensor: along each axis one product with a matrix per patch."""
        assert self.sensor is not None
        levels = np.round(numbers[:, 7:9] * _LEVELS).astype(int)
        axes = "zyx"[-len(self.scale) :]
        x = high
        for dim in sorted(range(len(axes)), key=lambda d: -self.scale[d]):
            if self.scale[dim] == 1:
                continue
            pick = levels[:, 0] if axes[dim] == "z" else levels[:, 1]
            n, size = x.shape[dim + 2], x.shape[dim + 2] // self.scale[dim]
            stack = [self._matrix(axes[dim], int(level), n, size, x.shape[1]) for level in pick]
            matrix = torch.stack(stack).to(x.device)
            shape = (*matrix.shape[:2], *(1,) * (len(axes) - 2), n, size)
            x = (x.movedim(dim + 2, -1) @ matrix.reshape(shape)).movedim(-1, dim + 2)
        return x

    def _matrix(self, axis: str, level: int, n: int, size: int, channels: int) -> Tensor:
        assert self.sensor is not None
        low, high = self.augmentation.width
        factor = low * (high / low) ** (level / _LEVELS)
        return _sampling_matrix(self.sensor, factor, axis, n, size, channels)

    def _noisy(self, low: Tensor, numbers: NDArray[np.float64], seed: int, step: int, samples: Sequence[int]) -> Tensor:
        least, most = self.augmentation.noise
        own = self.sensor.noise if self.sensor is not None else None
        fixed = own.std if own is not None and own.active else 0.0
        if most == 0 and fixed == 0:
            return low
        std = np.hypot(least + (most - least) * numbers[:, 9] ** 2, fixed)
        draws = generators(seed + 2, step, samples, self.device)

        def white() -> Tensor:
            noise = [torch.randn(low.shape[1:], generator=g, device=low.device) for g in draws]
            return torch.stack(noise) * self._each(std, low)

        if own is not None and own.active and own.kind == "rician":
            return torch.hypot(low + white(), white())
        return low + white()

    @staticmethod
    def _each(values: NDArray[np.float64], x: Tensor) -> Tensor:
        """One number per patch, shaped to act on ``x``."""
        return torch.from_numpy(values).to(x).reshape(-1, *(1,) * (x.dim() - 1))


def _between(span: tuple[float, float], u: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = math.log(span[0]), math.log(span[1])
    spread: NDArray[np.float64] = np.exp(low + (high - low) * u)
    return spread


def _all_measured(crops: Sequence[Crop], sensor: Sensor | None) -> bool:
    measured = [crop.low is not None for crop in crops]
    if any(measured) and not all(measured):
        raise InputError(
            "patches: some references have a measured coarse partner and some have none; train on one kind"
        )
    if not any(measured) and sensor is None:
        raise InputError("patches: references without a coarse partner need a sensor that degrades them")
    return bool(measured) and all(measured)


def margin_of(sensor: Sensor, scale: Sequence[int]) -> tuple[int, ...]:
    """Coarse pixels at a patch's rim that the sensor would make from mirrored values."""
    wide = sensor.radius([float(s) for s in scale], len(scale))
    return tuple(-(-r // s) for r, s in zip(wide, scale, strict=True))


def widened(sensor: Sensor, factor: float) -> Sensor:
    """The sensor with all its widths times ``factor``; a Gaussian of MTF m gets m to the power of its square."""

    def wide(profile: Profile) -> Profile:
        return replace(profile, fwhm=profile.fwhm * factor)

    bands = tuple(Band(b.name, b.mtf ** (factor**2), b.also) for b in sensor.bands)
    other = None if sensor.other_mtf is None else sensor.other_mtf ** (factor**2)
    return replace(sensor, z=wide(sensor.z), y=wide(sensor.y), x=wide(sensor.x), bands=bands, other_mtf=other)


@lru_cache(maxsize=512)
def _sampling_matrix(sensor: Sensor, factor: float, axis: str, n: int, size: int, channels: int) -> Tensor:
    """Matrix ``(c or 1, n, size)`` that a row of fine pixels is multiplied with."""
    index, weight = sampling_taps(n, size, widened(sensor, factor).kernels(axis, n / size, channels))
    weight = weight if weight.ndim == 3 else weight[None]
    dense = np.zeros((len(weight), n, size))
    for k in range(index.shape[1]):
        for c in range(len(weight)):
            np.add.at(dense[c], (index[:, k], np.arange(size)), weight[c, :, k])
    return torch.from_numpy(dense.astype(np.float32))

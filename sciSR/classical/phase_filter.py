"""Linear filters: each of the fine pixels in a coarse one is a weighted sum of the coarse pixels around.

Two ways to the weights: :class:`Wiener` computes them from the sensor and a model of scenes, :class:`LeastSquares`
learns them from examples. Both reproduce constants and ramps exactly.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sciSR.classical.method import AnySensor, Classical, sensor_of
from sciSR.errors import InputError
from sciSR.grid import SPATIAL_AXES
from sciSR.networks.spec import WholeScale, whole_scale
from sciSR.resampling import mirror_pad, stencil
from sciSR.sensors import Sensor

__all__ = ["PhaseFilter", "Wiener", "constrained_weights", "default_radius", "phase_offsets", "shuffle_phases"]

_Array = NDArray[np.float64]


class PhaseFilter(Classical):
    """A filter with its own weights for each phase.

    Attributes:
        radius: coarse pixels on each side that count, per axis.
        weight: ``(1 or c, phases, *window)``, phases in array order with x fastest.
    """

    weight: Tensor

    def __init__(self, *, ndim: int, scale: WholeScale, in_channels: int, radius: tuple[int, ...], **own: Any) -> None:
        super().__init__(ndim=ndim, scale=scale, in_channels=in_channels, radius=list(radius), **own)
        if len(radius) != ndim or min(radius) < 1:
            raise InputError(f"{self.family}: radius {list(radius)} is not at least 1 for each of {ndim} axes")
        self.radius = radius

    def reach(self) -> tuple[int, ...]:
        """The window's radius."""
        return self.radius

    def interpolate(self, x: Tensor) -> Tensor:
        """The refined grid ``(b, c, [z,] y, x)``."""
        weight = self.weight.to(x)
        banks, phases = weight.shape[:2]
        for axis, r in enumerate(self.radius):
            x = mirror_pad(x, axis + 2, r, r)
        batch, channels = x.shape[:2]
        if banks == 1:
            x = x.reshape(batch * channels, 1, *x.shape[2:])
        conv = functional.conv2d if self.ndim == 2 else functional.conv3d
        out = conv(x, weight.reshape(banks * phases, 1, *weight.shape[2:]), groups=banks)
        return shuffle_phases(out.reshape(batch, channels, phases, *out.shape[2:]), self.scale)


def shuffle_phases(x: Tensor, scale: tuple[int, ...]) -> Tensor:
    """``(b, c, phases, [z,] y, x)`` to the refined grid ``(b, c, [z,] y, x)``."""
    n = len(scale)
    batch, channels, size = x.shape[0], x.shape[1], x.shape[3:]
    x = x.reshape(batch, channels, *scale, *size)
    order = [0, 1, *(i for axis in range(n) for i in (2 + n + axis, 2 + axis))]
    return x.permute(order).reshape(batch, channels, *(m * s for m, s in zip(size, scale, strict=True)))


def phase_offsets(scale: tuple[int, ...]) -> _Array:
    """Positions ``(phases, n)`` of the fine pixels relative to the centre of their coarse one, in coarse pixels."""
    along = [(np.arange(s) + 0.5) / s - 0.5 for s in scale]
    return np.array(list(product(*along)))


def window_offsets(radius: tuple[int, ...]) -> _Array:
    """Positions ``(k, n)`` of the window's coarse pixels relative to its centre."""
    return np.array(list(product(*[np.arange(-r, r + 1) for r in radius])), dtype=np.float64)


def default_radius(scale: tuple[int, ...]) -> tuple[int, ...]:
    """A window that holds nearly all there is to gain: wide along refined axes, narrow along others."""
    refined = sum(s > 1 for s in scale)
    wide = {1: 6, 2: 5, 3: 3}[max(1, refined)]
    return tuple(wide if s > 1 else 1 for s in scale)


def constrained_weights(
    covariance: _Array, cross: _Array, radius: tuple[int, ...], scale: tuple[int, ...], ridge: float = 0.0
) -> _Array:
    """Weights ``(phases, k)`` that minimise the mean square error among those that keep constants and ramps.

    Minimises ``w A w - 2 w b`` subject to ``sum(w) = 1`` and ``sum(w * offset) = phase offset``, with Lagrange
    multipliers (universal kriging: Matheron 1969; Cressie 1993, doi:10.1002/9781119115151, chapter 3.4).

    Args:
        covariance: A ``(k, k)``, of the window's pixels with each other.
        cross: b ``(k, phases)``, of the window's pixels with the fine ones.
        radius: of the window.
        scale: whole factor per axis.
        ridge: added to A's diagonal as a part of its mean.
    """
    window, phases = window_offsets(radius), phase_offsets(scale)
    rules = np.concatenate([np.ones((len(window), 1)), window], axis=1)
    wanted = np.concatenate([np.ones((len(phases), 1)), phases], axis=1)
    k, m = rules.shape
    size = float(np.abs(np.diag(covariance)).mean()) or float(np.abs(covariance).mean()) or 1.0
    system = np.zeros((k + m, k + m))
    system[:k, :k] = covariance / size + ridge * np.eye(k)
    system[:k, k:], system[k:, :k] = rules, rules.T
    right = np.concatenate([cross / size, wanted.T])
    return np.ascontiguousarray(np.linalg.solve(system, right)[:k].T)


class Wiener(PhaseFilter):
    """The linear filter with the least mean square error for the sensor and scenes with a power-law spectrum.

    Wiener's filter in the space domain, cut to a window: scenes differ by ``|distance|^(2 smoothness)`` in the mean
    square (intrinsic random fields, Matheron 1973, doi:10.2307/1425829), the sensor blurs and samples them, noise is
    white. Undoes the blur and weighs down aliasing and noise.

    Args:
        ndim: spatial axes, 2 or 3.
        scale: whole factor per axis.
        in_channels: channels it takes.
        sensor: what made the input coarse.
        noise: standard deviation of the input's noise, relative to the rms difference of neighbouring input pixels.
        smoothness: 0.5 gives the spectrum of edges, smaller is rougher, below 1.
        radius: coarse pixels on each side, per axis; None: wide enough.
    """

    family = "wiener"
    uses_sensor = True
    own = ("noise", "smoothness", "radius")

    def __init__(
        self,
        *,
        ndim: int,
        scale: WholeScale,
        in_channels: int = 1,
        sensor: AnySensor = None,
        noise: float = 0.05,
        smoothness: float = 0.5,
        radius: list[int] | tuple[int, ...] | None = None,
    ) -> None:
        chosen = sensor_of(sensor)
        window = default_radius(whole_scale(scale, ndim)) if radius is None else tuple(radius)
        super().__init__(
            ndim=ndim,
            scale=scale,
            in_channels=in_channels,
            radius=window,
            sensor=chosen,
            noise=noise,
            smoothness=smoothness,
        )
        if not noise >= 0:
            raise InputError(f"wiener: noise {noise} is not 0 or more")
        if not 0 < smoothness < 1:
            raise InputError(f"wiener: smoothness {smoothness} is not between 0 and 1")
        banks = [_wiener_weights(b, self.scale, window, noise, smoothness) for b in chosen.split(in_channels)]
        shape = (len(banks), math.prod(self.scale), *(2 * r + 1 for r in window))
        weight = torch.from_numpy(np.stack(banks)).reshape(shape)
        self.register_buffer("weight", weight, persistent=False)


@lru_cache(maxsize=32)
def _wiener_weights(
    sensor: Sensor, scale: tuple[int, ...], radius: tuple[int, ...], noise: float, smoothness: float
) -> _Array:
    taps = [_fine_taps(sensor, axis, s) for axis, s in zip(SPATIAL_AXES[-len(scale) :], scale, strict=True)]
    spread = [2 * r * s + s + 2 * len(k) for r, s, (_, k) in zip(radius, scale, taps, strict=True)]
    lags = np.meshgrid(*[np.arange(-n, n + 1, dtype=np.float64) for n in spread], indexing="ij")
    scene: _Array = -(np.sqrt(sum(lag**2 for lag in lags)) ** (2 * smoothness))
    cross_at, own_at = scene, scene
    for axis, (first, kernel) in enumerate(taps):
        cross_at = _correlated(cross_at, kernel, first, axis)
        own_at = _correlated(own_at, np.convolve(kernel, kernel[::-1]), 1 - len(kernel), axis)
    window, steps, zero = window_offsets(radius).astype(np.int64), np.array(scale), np.array(spread)
    fine = np.array(list(product(*[range(s) for s in scale])))
    covariance = _picked(own_at, (window[:, None] - window[None]) * steps + zero)
    cross = _picked(cross_at, window[:, None] * steps - fine[None] + zero)
    neighbours = _picked(own_at, np.diag(steps) + zero)
    difference = 2 * float(np.mean(covariance[0, 0] - neighbours))
    return constrained_weights(
        covariance + noise**2 * difference * np.eye(len(window)), cross, radius, scale, ridge=1e-9
    )


def _fine_taps(sensor: Sensor, axis: str, step: int) -> tuple[int, _Array]:
    """First fine pixel, from the coarse pixel's first one, and weights of what a coarse pixel sees along an axis."""
    if step == 1:
        return 0, np.ones(1)
    first, weight = stencil(step, sensor.kernels(axis, step))
    return first, np.asarray(weight[0], np.float64)


def _correlated(values: _Array, kernel: _Array, first: int, axis: int) -> _Array:
    """``sum_a kernel[a] * values[i + first + a]`` along an axis; wrong only near its ends, which nobody asks for."""
    total = np.zeros_like(values)
    for a, factor in enumerate(kernel):
        total += factor * np.roll(values, -(first + a), axis)
    return total


def _picked(values: _Array, index: NDArray[np.int64]) -> _Array:
    """``values`` at index points ``(…, n)``."""
    picked: _Array = values[tuple(np.moveaxis(index, -1, 0))]
    return picked

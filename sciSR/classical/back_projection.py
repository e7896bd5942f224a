"""Iterative back-projection: make the result explain the input under a stated sensor."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from sciSR.classical.method import AnySensor, Classical, sensor_of
from sciSR.errors import InputError
from sciSR.networks.spec import WholeScale
from sciSR.resampling import mirror_pad, upsample
from sciSR.sensors import Sensor

__all__ = ["BackProjection", "back_project", "effective_radius"]

_U_RADIUS = 2
_TAIL = 1e-5
"""What the neglected part of the response may add up to; on noise of two values the error is then below 1e-6."""


def back_project(x: Tensor, low: Tensor, scale: tuple[int, ...], sensor: Sensor, iterations: int) -> Tensor:
    """``x`` after ``iterations`` of ``x + U(low - D(x))``: U is cubic interpolation, D the sensor without noise.

    Irani and Peleg 1991, doi:10.1016/1049-9652(91)90045-L.

    Args:
        x: refined grid ``(b, c, [z,] y, x)``.
        low: what the sensor saw of it, ``(b, c, [z,] y, x)``.
        scale: whole factor per spatial axis.
        sensor: D.
        iterations: how often.
    """
    for _ in range(iterations):
        x = x + upsample(low - sensor.apply(x, scale, noise=False), scale, kernel="cubic")
    return x


class BackProjection(Classical):
    """Cubic interpolation, then back-projections of what the sensor would have seen otherwise.

    Args:
        ndim: spatial axes, 2 or 3.
        scale: whole factor per axis.
        in_channels: channels it takes.
        sensor: what made the input coarse; its noise is left out.
        iterations: back-projections. Few are robust to noise, many converge (and amplify it).
        clamp: None, or how far a value may leave the range of the input pixels around it, as a part of that range:
            0 forbids all overshoot, 0.5 tames ringing at bone and skin.
    """

    family = "ibp"
    uses_sensor = True
    own = ("iterations", "clamp")

    def __init__(
        self,
        *,
        ndim: int,
        scale: WholeScale,
        in_channels: int = 1,
        sensor: AnySensor = None,
        iterations: int = 10,
        clamp: float | None = None,
    ) -> None:
        chosen = sensor_of(sensor)
        super().__init__(
            ndim=ndim, scale=scale, in_channels=in_channels, sensor=chosen, iterations=iterations, clamp=clamp
        )
        if iterations < 0:
            raise InputError(f"ibp: iterations {iterations} is not 0 or more")
        if clamp is not None and not clamp >= 0:
            raise InputError(f"ibp: clamp {clamp} is not 0 or more")
        self.sensor = chosen
        self.iterations = iterations
        self.clamp = clamp
        self.sensor.radius(self.scale)

    def reach(self) -> tuple[int, ...]:
        """U, then as often as there are iterations D and U again."""
        return tuple(
            _U_RADIUS + self.iterations * (_U_RADIUS + math.ceil(r / s)) if s > 1 else 0
            for s, r in zip(self.scale, self.sensor.radius(self.scale), strict=True)
        )

    def halo(self) -> tuple[int, ...]:
        """Where the response to one input pixel has died away."""
        axes = "zyx"[-self.ndim :]
        found = [
            effective_radius(self.sensor, axis, s, self.iterations) for axis, s in zip(axes, self.scale, strict=True)
        ]
        return tuple(min(h, r) for h, r in zip(found, self.reach(), strict=True))

    def interpolate(self, x: Tensor) -> Tensor:
        """The refined grid ``(b, c, [z,] y, x)``."""
        fine = back_project(upsample(x, self.scale), x, self.scale, self.sensor, self.iterations)
        return fine if self.clamp is None else _clamped(fine, x, self.scale, self.clamp)


def _clamped(fine: Tensor, low: Tensor, scale: tuple[int, ...], clamp: float) -> Tensor:
    """``fine`` kept within the range of the 3^n input pixels around, widened by ``clamp`` of that range."""
    greatest, least = low, low
    for axis in range(len(scale)):
        greatest = _greatest_of_three(greatest, axis + 2)
        least = -_greatest_of_three(-least, axis + 2)
    margin = clamp * (greatest - least)
    above, below = greatest + margin, least - margin
    return torch.minimum(
        torch.maximum(fine, upsample(below, scale, kernel="nearest")), upsample(above, scale, kernel="nearest")
    )


def _greatest_of_three(x: Tensor, dim: int) -> Tensor:
    padded = mirror_pad(x, dim, 1, 1)
    n = x.shape[dim]
    return torch.maximum(torch.maximum(padded.narrow(dim, 0, n), x), padded.narrow(dim, 2, n))


@lru_cache(maxsize=64)
def effective_radius(sensor: Sensor, axis: str, scale: int, iterations: int) -> int:
    """Input pixels along ``axis`` after which the response to a pixel has died away.

    Measured on the response of the iteration along two axes at once, the other one standing for all others: what two
    axes do together dies away like what three do.
    """
    if scale == 1:
        return 0
    room = _U_RADIUS + iterations * (_U_RADIUS + math.ceil(max(sensor.along(axis).radius((scale, scale))) / scale))
    size = 2 * min(room, 40) + 1
    x = torch.zeros(1, 1, size, size, dtype=torch.float64)
    x[0, 0, size // 2, size // 2] = 1.0
    with torch.inference_mode():
        fine = back_project(upsample(x, (scale, scale)), x, (scale, scale), sensor.along(axis), iterations)
        weight = fine.abs().reshape(size, scale, size * scale).sum(2).amax(1)
        tail = [float(weight[: size // 2 - h].sum() + weight[size // 2 + h + 1 :].sum()) for h in range(size // 2)]
    return next((h for h, rest in enumerate(tail) if rest < _TAIL), room)

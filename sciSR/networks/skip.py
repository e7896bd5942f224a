"""The classical upsampling that a network's residual is added to: an interpolation, or a few back-projections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.grid import SPATIAL_AXES
from sciSR.networks.receptive import Reach, radius, taps
from sciSR.resampling import KERNELS, upsample
from sciSR.sensors import Sensor

__all__ = ["KERNEL_NAMES", "Skip"]

KERNEL_NAMES = ("nearest", *(name for name in KERNELS if name != "box"))
"""Interpolations that a skip may be."""


@dataclass(frozen=True)
class Skip:
    """An interpolation, then ``iterations`` of ``x + U(low - D(x))`` under a stated sensor.

    Attributes:
        kernel: the interpolation.
        iterations: back-projections (Irani and Peleg 1991, doi:10.1016/1049-9652(91)90045-L); 0: interpolation alone.
        sensor: D, or None without back-projections.

    Example:
        >>> Skip.of({"kernel": "cubic", "iterations": 3, "sensor": "box"}).iterations
        3
    """

    kernel: str = "cubic"
    iterations: int = 0
    sensor: Sensor | None = None

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | Skip) -> Skip:
        """A skip from the name of a kernel, or from ``{"kernel", "iterations", "sensor"}``.

        Raises:
            InputError: an unknown kernel or key, or iterations without a sensor.
        """
        if isinstance(value, Skip):
            return value
        fields = {"kernel": value} if isinstance(value, str) else dict(value)
        unknown = sorted(set(fields) - {"kernel", "iterations", "sensor"})
        if unknown:
            raise InputError(f"skip: no entry {', '.join(unknown)}; it has kernel, iterations, sensor")
        kernel, iterations, sensor = (fields.get("kernel", "cubic"), fields.get("iterations", 0), fields.get("sensor"))
        if kernel not in KERNEL_NAMES:
            raise InputError(f"skip {kernel!r} is not one of {', '.join(KERNEL_NAMES)} or None")
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
            raise InputError(f"skip: iterations {iterations!r} is not a whole number of 0 or more")
        if (iterations > 0) != (sensor is not None):
            raise InputError(
                "skip: back-projections need both iterations (1 or more) and a sensor; an interpolation none"
            )
        return cls(kernel, iterations, None if sensor is None else load_sensor(sensor).noiseless())

    def to_plain(self) -> str | dict[str, Any]:
        """What :meth:`of` reads again: a kernel's name, or plain values."""
        if self.sensor is None:
            return self.kernel
        return {"kernel": self.kernel, "iterations": self.iterations, "sensor": self.sensor.to_dict()}

    def __call__(self, x: Tensor, scale: tuple[int, ...]) -> Tensor:
        """``x`` of axes ``(b, c, [z,] y, x)`` refined by whole factors."""
        fine = upsample(x, scale, kernel=self.kernel)
        if self.sensor is not None and max(scale) > 1:
            for _ in range(self.iterations):
                fine = fine + upsample(x - self.sensor.apply(fine, scale, noise=False), scale, kernel="cubic")
        return fine

    def radius(self, scale: tuple[int, ...]) -> tuple[int, ...]:
        """Input pixels on each side, per axis, that can change a pixel's refined ones."""
        return tuple(radius(self._path(scale, axis), s) for axis, s in enumerate(scale))

    def _path(self, scale: tuple[int, ...], axis: int) -> list[Reach]:
        s = scale[axis]
        own = 0 if self.kernel == "nearest" else math.ceil(KERNELS[self.kernel].radius)
        path: list[Reach] = [taps(own, s)]
        if self.sensor is None or s == 1:
            return path
        blur = self.sensor.radius(scale)[axis]

        def seen(low: int, high: int) -> tuple[int, int]:
            """Coarse pixels -> the fine pixels that the sensor looks at."""
            return low * s - blur, high * s + s - 1 + blur

        return [*path, *[seen, taps(2, s)] * self.iterations]

    def check(self, ndim: int, scale: tuple[int, ...]) -> None:
        """Raise now what would fail in the middle of the work: a sensor without a profile for a refined axis.

        Raises:
            InputError: the sensor does not fit the axes or the scale.
        """
        if self.sensor is not None:
            for axis, s in zip(SPATIAL_AXES[-ndim:], scale, strict=True):
                if s > 1:
                    self.sensor.kernels(axis, s, max(1, len(self.sensor.bands)))

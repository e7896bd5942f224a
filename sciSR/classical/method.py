"""What every classical method shares: its arguments, its spec, and the halo of a linear one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from sciSR.degradation import Sensor, load_sensor
from sciSR.errors import InputError
from sciSR.grid import SPATIAL_AXES, scale_per_axis
from sciSR.networks.spec import NetworkSpec, SRNetwork

__all__ = ["AnySensor", "Classical", "WholeScale", "sensor_of", "whole_scale"]

WholeScale = float | Sequence[float] | Mapping[str, float]
"""One whole factor for all axes, one per axis in array order, or by axis name."""

AnySensor = str | os.PathLike[str] | Mapping[str, Any] | Sensor | None
"""A sensor, its name, file or values; None: a Gaussian of one coarse pixel."""


class Classical(SRNetwork):
    """A method without trained weights, or with weights found by regression; the whole result is ``interpolate(x)``.

    Attributes:
        ndim: spatial axes, 2 or 3.
        scale: whole factor per spatial axis.
        in_channels: channels it takes and gives.
        uses_sensor: whether it needs to know what made the input coarse.
        own: names of its own keyword arguments.
    """

    uses_sensor: ClassVar[bool] = False
    own: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, ndim: int, scale: WholeScale, in_channels: int = 1, **own: Any) -> None:
        super().__init__()
        if in_channels < 1:
            raise InputError(f"{self.family}: in_channels {in_channels} is not at least 1")
        self.ndim = ndim
        self.scale = whole_scale(scale, ndim)
        self.in_channels = in_channels
        plain = {k: v.to_dict() if isinstance(v, Sensor) else v for k, v in own.items()}
        self.arguments = {"ndim": ndim, "scale": list(self.scale), "in_channels": in_channels, **plain}

    def reach(self) -> tuple[int, ...]:
        """The receptive radius in input pixels per axis: a bound that nothing passes."""
        raise NotImplementedError

    def halo(self) -> tuple[int, ...]:
        """Input pixels per axis after which the error is below 1e-6 of the range; the reach unless it is less."""
        return self.reach()

    @property
    def interpolation_radius(self) -> tuple[int, ...]:
        """Input pixels per axis that :meth:`interpolate` uses: the halo, as it does all of the work."""
        return self.measured_halo or self.halo()

    @property
    def spec(self) -> NetworkSpec:
        """What it can do."""
        return NetworkSpec(
            axes=SPATIAL_AXES[-self.ndim :],
            scale=self.scale,
            in_channels=self.in_channels,
            out_channels=self.in_channels,
            receptive_radius=self.reach(),
            halo=self.measured_halo or self.halo(),
        )

    def interpolate(self, x: Tensor) -> Tensor:
        """The refined grid ``(b, c, [z,] y, x)``, all of it."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> None:
        """Nothing: there is no part that may run in low precision."""
        return


def sensor_of(sensor: AnySensor) -> Sensor:
    """The sensor without its noise, which is nothing that a method could undo."""
    return load_sensor("generic-gaussian" if sensor is None else sensor).noiseless()


def whole_scale(scale: WholeScale, ndim: int) -> tuple[int, ...]:
    """Whole factor per spatial axis in array order.

    Raises:
        InputError: a factor that is not whole, an axis that is not there, or neither 2 nor 3 axes.
    """
    if ndim not in (2, 3):
        raise InputError(f"network: ndim {ndim!r} came; expected 2 (y, x) or 3 (z, y, x)")
    axes = SPATIAL_AXES[-ndim:]
    if isinstance(scale, Sequence):
        if len(scale) != ndim:
            raise InputError(
                f"scale: {len(scale)} factors came for {ndim} axes; give one for each of {', '.join(axes)}"
            )
        scale = dict(zip(axes, scale, strict=True))
    factors = scale_per_axis(scale, axes)
    for axis, factor in factors.items():
        if factor != int(factor):
            raise InputError(f"scale: {factor:g} on axis {axis} is not whole; a network refines by whole factors")
    return tuple(int(factors[axis]) for axis in axes)

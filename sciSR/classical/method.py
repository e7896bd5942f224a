"""What every classical method shares: its arguments, its spec, and the halo of a linear one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from sciSR.degradation import Sensor, load_sensor
from sciSR.errors import InputError
from sciSR.networks.spec import NetworkSpec, SRNetwork, WholeScale, axes_of, whole_scale

__all__ = ["AnySensor", "Classical", "sensor_of"]

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
            axes=axes_of(self.ndim),
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

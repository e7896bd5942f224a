"""The loss that asks a prediction to explain its input."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sciSR.errors import InputError
from sciSR.losses.contract import Loss
from sciSR.sensors import Sensor

__all__ = ["DataConsistency"]


class DataConsistency(Loss):
    """Mean squared difference between the prediction, seen by the sensor without its noise, and the network's input.

    The data term of back-projection (Irani and Peleg 1991, doi:10.1016/1049-9652(91)90045-L). Where no input is given,
    the target seen by the sensor stands in for it.

    Args:
        sensor: the degradation D.
        scale: factor per spatial axis, in array order or by name, or one for all.
    """

    needs = ("sensor", "scale")

    def __init__(self, *, sensor: Sensor, scale: float | tuple[float, ...] | Mapping[str, float]) -> None:
        super().__init__()
        self.sensor = sensor
        self.scale = scale

    def forward(self, prediction: Tensor, target: Tensor, low: Tensor | None = None) -> Tensor:
        """See :class:`~sciSR.losses.contract.Loss`.

        Raises:
            InputError: ``low`` has not the shape that the sensor gives.
        """
        seen = self.sensor.apply(prediction, self.scale, noise=False)
        if low is None:
            low = self.sensor.apply(target, self.scale, noise=False)
        elif low.shape != seen.shape:
            raise InputError(
                f"data consistency: the input has shape {tuple(low.shape)}, the prediction seen by sensor "
                f"{self.sensor.name} has {tuple(seen.shape)}; give the scale of the network"
            )
        return (seen - low).square().mean()

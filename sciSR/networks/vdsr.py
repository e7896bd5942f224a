"""VDSR: twenty small convolutions and one long skip on a cubic upsampling (Kim 2016, arXiv:1511.04587)."""

from __future__ import annotations

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Scale
from sciSR.networks.preupsampled import PreUpsampled
from sciSR.networks.receptive import Reach

__all__ = ["VDSR"]


class VDSR(PreUpsampled):
    """A deep stack of 3-wide convolutions that learns what cubic upsampling lacks.

    The paper's network is the default; only its last layer starts at zero here, so that untrained it is cubic.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis; 1: the input lies on the fine grid.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        layers: convolutions, at least 2.
        bias: whether they have biases.
        skip: classical upsampling that the result is added to.
        value_range: length of the number range it works in.
    """

    family = "vdsr"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        layers: int = 20,
        bias: bool = True,
        skip: AnySkip = "cubic",
        value_range: float | None = None,
    ) -> None:
        super().__init__(
            ndim=ndim,
            in_channels=in_channels,
            scale=scale,
            out_channels=out_channels,
            skip=skip,
            value_range=value_range,
            features=features,
            layers=layers,
            bias=bias,
        )
        self.prepare()
        self.count = max(2, layers)
        self.head = convolution(ndim, self.in_channels, features, bias=bias)
        self.act = nn.ReLU()
        self.body = nn.Sequential(
            *(
                layer
                for _ in range(self.count - 2)
                for layer in (convolution(ndim, features, features, bias=bias), nn.ReLU())
            )
        )
        self.tail = convolution(ndim, features, self.out_channels, bias=bias)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
        if skip is not None:
            zero_(self.tail)

    def refine(self, fine: Tensor) -> Tensor:
        """The stack on the fine grid."""
        result: Tensor = self.tail(self.body(self.act(self.head(fine))))
        return result

    def fine_path(self, axis: int) -> list[Reach]:
        """One pixel a layer."""
        return [receptive.conv(3)] * self.count

"""DRRN: one residual unit's weights used over and over on a cubic upsampling (Tai 2017, doi:10.1109/CVPR.2017.298)."""

from __future__ import annotations

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Scale
from sciSR.networks.preupsampled import PreUpsampled
from sciSR.networks.receptive import Reach

__all__ = ["DRRN"]


class DRRN(PreUpsampled):
    """Recursive blocks; all residual units of a block share their two convolutions and start from the same features.

    The paper's best network is ``blocks=1, units=25, features=128, batch_norm=True`` (B1U25), where each convolution
    follows a normalisation and a rectifier.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis; 1: the input lies on the fine grid.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        blocks: recursive blocks, each with its own weights.
        units: residual units of a block.
        bias: whether the convolutions have biases.
        batch_norm: normalise before each rectifier, as in the paper.
        skip: classical upsampling that the result is added to.
        value_range: length of the number range it works in.
    """

    family = "drrn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 128,
        blocks: int = 1,
        units: int = 25,
        bias: bool = False,
        batch_norm: bool = False,
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
            blocks=blocks,
            units=units,
            bias=bias,
            batch_norm=batch_norm,
        )
        self.prepare()
        self.steps = blocks * (1 + 2 * units) + 1
        self.act = nn.ReLU()
        self.body = nn.Sequential(
            *(
                RecursiveBlock(
                    ndim,
                    self.in_channels if b == 0 else features,
                    features,
                    units=units,
                    bias=bias,
                    batch_norm=batch_norm,
                )
                for b in range(blocks)
            )
        )
        self.norm = _norm(ndim, features, batch_norm)
        self.tail = convolution(ndim, features, self.out_channels, bias=bias)
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        if skip is not None:
            zero_(self.tail)

    def refine(self, fine: Tensor) -> Tensor:
        """The recursion on the fine grid."""
        result: Tensor = self.tail(self.act(self.norm(self.body(fine))))
        return result

    def fine_path(self, axis: int) -> list[Reach]:
        """One pixel a convolution, as often as it is used."""
        return [receptive.conv(3)] * self.steps


class RecursiveBlock(nn.Module):
    """``h = g + conv(relu(conv(relu(h))))``, ``units`` times from ``h = g = conv(x)``, always the same convolutions.

    With ``batch_norm`` a normalisation of its own stands before each rectifier, for each use of the convolutions.
    """

    def __init__(self, ndim: int, in_channels: int, features: int, *, units: int, bias: bool, batch_norm: bool) -> None:
        super().__init__()
        self.units = units
        self.norms = nn.ModuleList(_norm(ndim, features, batch_norm) for _ in range(2 * units))
        self.entry = convolution(ndim, in_channels, features, bias=bias)
        self.first = convolution(ndim, features, features, bias=bias)
        self.second = convolution(ndim, features, features, bias=bias)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        start: Tensor = self.entry(x)
        h = start
        for unit in range(self.units):
            y = self.first(self.act(self.norms[2 * unit](h)))
            h = start + self.second(self.act(self.norms[2 * unit + 1](y)))
        return h


def _norm(ndim: int, features: int, batch_norm: bool) -> nn.Module:
    if not batch_norm:
        return nn.Identity()
    return nn.BatchNorm2d(features) if ndim == 2 else nn.BatchNorm3d(features)

"""RDN: residual dense network (Zhang 2018, arXiv:1802.08797)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.upsamplers import SubpixelUpsampler, upsampler_path

__all__ = ["RDN"]


class RDN(Family):
    """Residual dense blocks whose outputs are all fused.

    The paper's network is ``features=64, growth=64, blocks=16, layers=8, skip=None``.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels of shallow features and after fusion (G0).
        growth: channels that each layer of a block adds (G).
        blocks: residual dense blocks (D).
        layers: layers of a block (C).
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "rdn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
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
            growth=growth,
            blocks=blocks,
            layers=layers,
        )
        self.count, self.layers = blocks, layers
        self.head = convolution(ndim, self.in_channels, features)
        self.second = convolution(ndim, features, features)
        self.blocks = nn.ModuleList(ResidualDense(ndim, features, growth, layers) for _ in range(blocks))
        self.fuse = nn.Sequential(
            convolution(ndim, features * blocks, features, 1), convolution(ndim, features, features)
        )
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale)
        self.tail = convolution(ndim, features, self.out_channels)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(x)
        y, levels = self.second(shallow), []
        for block in self.blocks:
            y = block(y)
            levels.append(y)
        deep = self.fuse(torch.cat(levels, 1)) + shallow
        result: Tensor = self.tail(self.upsampler(deep))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Two convolutions, every layer of every block, the fusion's, the upsampler's and the tail."""
        three = receptive.conv(3)
        return [*[three] * (3 + self.count * self.layers), *upsampler_path(self.scale, axis), three]


class ResidualDense(nn.Module):
    """Densely connected layers, fused by a 1-wide convolution, added to the input."""

    def __init__(self, ndim: int, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(convolution(ndim, features + k * growth, growth) for k in range(layers))
        self.act = nn.ReLU()
        self.fuse = convolution(ndim, features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        known = x
        for layer in self.layers:
            known = torch.cat([known, self.act(layer(known))], 1)
        y: Tensor = self.fuse(known)
        return x + y

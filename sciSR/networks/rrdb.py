"""RRDBNet, the generator of ESRGAN: residual-in-residual dense blocks (Wang 2018, arXiv:1809.00219)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.borders import pad_to_multiple
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelUnshuffle
from sciSR.networks.spec import NetworkSpec
from sciSR.networks.upsamplers import NearestUpsampler, upsampler_path

__all__ = ["RRDBNet"]


class RRDBNet(Family):
    """Dense residual network with nearest-neighbour upsampling.

    The paper's network is the default with ``skip=None``; Real-ESRGAN's for factor 2 and 1 have ``unshuffle`` 2 and 4.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        blocks: residual-in-residual dense blocks.
        growth: channels that each convolution of a dense block adds.
        residual_scale: factor on the residuals of dense blocks and of their triples.
        unshuffle: factor by which the input is first folded into channels.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "rrdbnet"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        blocks: int = 23,
        growth: int = 32,
        residual_scale: float = 0.2,
        unshuffle: int = 1,
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
            growth=growth,
            residual_scale=residual_scale,
            unshuffle=unshuffle,
        )
        if unshuffle < 1:
            raise InputError(f"rrdbnet: unshuffle {unshuffle} is not a whole factor of at least 1")
        self.blocks, self.unshuffle = blocks, unshuffle
        self.steps = tuple(s * unshuffle for s in self.scale)
        self.act = nn.LeakyReLU(0.2)
        self.fold = PixelUnshuffle((unshuffle,) * ndim)
        self.head = convolution(ndim, self.in_channels * unshuffle**ndim, features)
        self.body = nn.Sequential(*(DenseTriple(ndim, features, growth, residual_scale) for _ in range(blocks)))
        self.after_body = convolution(ndim, features, features)
        self.upsampler = NearestUpsampler(ndim, features, self.steps, act=lambda: nn.LeakyReLU(0.2))
        self.fine = convolution(ndim, features, features)
        self.tail = convolution(ndim, features, self.out_channels)
        for name, parameter in self.named_parameters():
            if name.startswith("body.") and name.endswith("weight"):
                nn.init.kaiming_normal_(parameter)
                with torch.no_grad():
                    parameter.mul_(0.1)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        folded = x if self.unshuffle == 1 else self.fold(pad_to_multiple(x, self.unshuffle))
        shallow = self.head(folded)
        deep = shallow + self.after_body(self.body(shallow))
        result: Tensor = self.tail(self.act(self.fine(self.upsampler(deep))))
        if self.unshuffle == 1:
            return result
        for dim, s in enumerate(self.scale):
            result = result.narrow(dim + 2, 0, x.shape[dim + 2] * s)
        return result

    def path(self, axis: int) -> list[Reach]:
        """Folding, head, fifteen convolutions a block, one after, the upsampler's, two on the fine grid."""
        u = self.unshuffle

        def folded(low: int, high: int) -> tuple[int, int]:
            return low * u, high * u + u - 1

        three = receptive.conv(3)
        inside = [folded, three, *[three] * (15 * self.blocks), three]
        return [*inside, *upsampler_path(self.steps, axis, late=True), three, three]

    def period(self, axis: int) -> int:
        """The folding's."""
        return self.unshuffle

    def describe(self, reach: tuple[int, ...]) -> NetworkSpec:
        """Tiles start where the folding does."""
        return replace(super().describe(reach), alignment=(self.unshuffle,) * self.ndim)


class DenseBlock(nn.Module):
    """Five convolutions, each on the input and all earlier outputs; the last one's output is a scaled residual."""

    def __init__(self, ndim: int, features: int, growth: int, residual_scale: float) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.layers = nn.ModuleList(
            convolution(ndim, features + k * growth, growth if k < 4 else features) for k in range(5)
        )
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        known = [x]
        for layer in list(self.layers)[:4]:
            known.append(self.act(layer(torch.cat(known, 1))))
        y: Tensor = self.layers[4](torch.cat(known, 1))
        return x + y * self.residual_scale


class DenseTriple(nn.Module):
    """Three dense blocks inside one more scaled residual."""

    def __init__(self, ndim: int, features: int, growth: int, residual_scale: float) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.blocks = nn.Sequential(*(DenseBlock(ndim, features, growth, residual_scale) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.blocks(x)
        return x + y * self.residual_scale

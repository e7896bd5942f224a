"""SRResNet, the generator of SRGAN (Ledig 2017, arXiv:1609.04802), and the leaner MSRResNet of BasicSR and KAIR."""

from __future__ import annotations

from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import ResidualBlock, convolution, zero_
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.upsamplers import SubpixelUpsampler, upsampler_path

__all__ = ["MSRResNet", "SRResNet"]


class SRResNet(Family):
    """Residual network with 9-wide ends and parametric rectifiers.

    The paper's network is the default with ``batch_norm=True, skip=None``.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        blocks: residual blocks.
        batch_norm: normalise after each convolution of the body, as in the paper.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "srresnet"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        blocks: int = 16,
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
            batch_norm=batch_norm,
        )
        self.blocks = blocks
        self.head = nn.Sequential(convolution(ndim, self.in_channels, features, 9), nn.PReLU())
        self.body = nn.Sequential(*(NormedBlock(ndim, features, batch_norm) for _ in range(blocks)))
        self.after_body = nn.Sequential(convolution(ndim, features, features), _norm(ndim, features, batch_norm))
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale, act=nn.PReLU)
        self.tail = convolution(ndim, features, self.out_channels, 9)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(x)
        deep = shallow + self.after_body(self.body(shallow))
        result: Tensor = self.tail(self.upsampler(deep))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Wide ends, two convolutions a block, one after the body, the upsampler's."""
        inside = [receptive.conv(9), *[receptive.conv(3)] * (2 * self.blocks + 1)]
        return [*inside, *upsampler_path(self.scale, axis), receptive.conv(9)]


class NormedBlock(nn.Module):
    """``x + norm(conv(prelu(norm(conv(x)))))``."""

    def __init__(self, ndim: int, features: int, batch_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(ndim, features, features),
            _norm(ndim, features, batch_norm),
            nn.PReLU(),
            convolution(ndim, features, features),
            _norm(ndim, features, batch_norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        y: Tensor = self.layers(x)
        return x + y


def _norm(ndim: int, features: int, batch_norm: bool) -> nn.Module:
    if not batch_norm:
        return nn.Identity()
    return nn.BatchNorm2d(features) if ndim == 2 else nn.BatchNorm3d(features)


class MSRResNet(Family):
    """SRResNet without normalisation, on a linear upsampling (BasicSR and KAIR).

    Their network is the default with ``skip="linear"``.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside.
        blocks: residual blocks.
        skip: classical upsampling that a zero-initialised last layer is added to.
        value_range: length of the number range it works in.
    """

    family = "msrresnet"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 64,
        blocks: int = 16,
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
        )
        self.blocks = blocks
        self.act = nn.LeakyReLU(0.1)
        self.head = convolution(ndim, self.in_channels, features)
        self.body = nn.Sequential(*(ResidualBlock(ndim, features) for _ in range(blocks)))
        self.upsampler = SubpixelUpsampler(ndim, features, self.scale, act=lambda: nn.LeakyReLU(0.1))
        self.fine = convolution(ndim, features, features)
        self.tail = convolution(ndim, features, self.out_channels)
        if skip is not None:
            zero_(self.tail)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        deep = self.body(self.act(self.head(x)))
        result: Tensor = self.tail(self.act(self.fine(self.upsampler(deep))))
        return result

    def path(self, axis: int) -> list[Reach]:
        """Head, two convolutions a block, the upsampler's, two on the fine grid."""
        inside = [receptive.conv(3)] * (1 + 2 * self.blocks)
        return [*inside, *upsampler_path(self.scale, axis), receptive.conv(3), receptive.conv(3)]

"""SwinIR: residual groups of shifted-window attention (Liang 2021, arXiv:2108.10257), on MONAI's window attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from monai.networks.blocks.mlp import MLPBlock
from monai.networks.nets import swin_unetr
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.networks import receptive
from sciSR.networks.blocks import MeanShift, convolution, zero_
from sciSR.networks.borders import pad_to_multiple
from sciSR.networks.family import AnySkip, Family, Scale
from sciSR.networks.receptive import Reach
from sciSR.networks.shuffle import PixelShuffle, icnr_
from sciSR.networks.spec import NetworkSpec
from sciSR.networks.upsamplers import NearestUpsampler, SubpixelUpsampler, upsampler_path

__all__ = ["SwinIR"]

_UPSAMPLERS = ("pixelshuffle", "direct", "nearest", None)
_WINDOW = {2: 8, 3: 4}
_TABLE_STD = 0.02

_mask: Callable[..., Tensor] = swin_unetr.compute_mask
_partition: Callable[..., Tensor] = swin_unetr.window_partition
_reverse: Callable[..., Tensor] = swin_unetr.window_reverse


class SwinIR(Family):
    """Attention inside windows that are shifted by half their size in every other block.

    Images are mirrored at their far edges to whole windows, as in the official code. The window grid is fixed to the
    image's first pixel, so that tiles that start on it are exact.

    The paper's networks, with ``skip=None``, ``mean`` of DIV2K and ``value_range=1``: light is the default, classical
    is ``features=180, depths=(6,) * 6, upsampler="pixelshuffle"``, real-world ``upsampler="nearest"`` beside (large:
    ``features=240, depths=(6,) * 9, heads=8, three_convolutions=True``); denoising has ``scale=1, upsampler=None`` and
    a skip, which at scale 1 is the image itself.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis.
        out_channels: channels it gives; as many as it takes by default.
        features: channels inside; a multiple of ``heads``.
        depths: attention blocks of each residual group.
        heads: attention heads.
        window: pixels of a window per axis; None: 8 in two dimensions, 4 in three.
        mlp_ratio: width of the perceptron after each attention.
        upsampler: ``"pixelshuffle"``, ``"direct"`` (one shuffle), ``"nearest"``, or None at scale 1.
        fine_features: channels of the upsampler.
        three_convolutions: three convolutions in place of one after each group.
        shift: shift the windows of every other block.
        qkv_bias: biases of queries, keys and values.
        patch_norm: normalise the tokens at the start.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        mean: values subtracted per channel before and added after, as parts of ``value_range``.
        value_range: length of the number range it works in.
    """

    family = "swinir"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        features: int = 60,
        depths: Sequence[int] = (6, 6, 6, 6),
        heads: int = 6,
        window: int | None = None,
        mlp_ratio: float = 2.0,
        upsampler: Literal["pixelshuffle", "direct", "nearest"] | None = "direct",
        fine_features: int = 64,
        three_convolutions: bool = False,
        shift: bool = True,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        skip: AnySkip = "cubic",
        mean: Sequence[float] | None = None,
        value_range: float | None = None,
    ) -> None:
        size = _WINDOW.get(ndim, 0) if window is None else window
        super().__init__(
            ndim=ndim,
            in_channels=in_channels,
            scale=scale,
            out_channels=out_channels,
            skip=skip,
            value_range=value_range,
            features=features,
            depths=tuple(depths),
            heads=heads,
            window=size,
            mlp_ratio=mlp_ratio,
            upsampler=upsampler,
            fine_features=fine_features,
            three_convolutions=three_convolutions,
            shift=shift,
            qkv_bias=qkv_bias,
            patch_norm=patch_norm,
            mean=None if mean is None else [float(m) for m in mean],
        )
        _check(features, heads, size, upsampler, self.scale)
        self.window, self.shift, self.depths, self.kind = size, size // 2 if shift else 0, tuple(depths), upsampler
        self.three = three_convolutions
        change = None if mean is None else [m * (value_range or 1.0) for m in mean]
        self.before = MeanShift(ndim, change, -1.0)
        self.head = convolution(ndim, self.in_channels, features)
        self.entry_norm = nn.LayerNorm(features) if patch_norm else nn.Identity()
        self.groups = nn.ModuleList(
            WindowGroup(ndim, features, d, heads, size, self.shift, mlp_ratio, qkv_bias, three_convolutions)
            for d in depths
        )
        self.exit_norm = nn.LayerNorm(features)
        self.after_body = _group_end(ndim, features, three_convolutions)
        self.upsampler, self.tail = self._ends(features, fine_features)
        self.after = MeanShift(ndim, change if skip is None else None, 1.0)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_TABLE_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if skip is not None:
            zero_(self.tail[0] if isinstance(self.tail, nn.Sequential) else self.tail)

    def _ends(self, features: int, fine: int) -> tuple[nn.Module, nn.Module]:
        """The upsampler and the last layer."""
        n, out = self.ndim, self.out_channels
        if self.kind is None:
            return nn.Identity(), convolution(n, features, out)
        if self.kind == "direct":
            last = icnr_(convolution(n, features, out * math.prod(self.scale)), self.scale)
            return nn.Identity(), nn.Sequential(last, PixelShuffle(self.scale))
        entry = [convolution(n, features, fine), nn.LeakyReLU(0.01)]
        if self.kind == "pixelshuffle":
            return nn.Sequential(*entry, SubpixelUpsampler(n, fine, self.scale)), convolution(n, fine, out)
        stages = NearestUpsampler(n, fine, self.scale, act=lambda: nn.LeakyReLU(0.2))
        refine = [convolution(n, fine, fine), nn.LeakyReLU(0.2)]
        return nn.Sequential(*entry, stages, *refine), convolution(n, fine, out)

    def residual(self, x: Tensor) -> Tensor:
        """The learned part on the refined grid."""
        shallow = self.head(self.before(pad_to_multiple(x, self.window)))
        size = tuple(shallow.shape[2:])
        sizes = (self.window,) * self.ndim
        mask = _mask(size, sizes, (self.shift,) * self.ndim, x.device).to(shallow.dtype) if self.shift else None
        tokens = self.entry_norm(shallow.movedim(1, -1))
        for group in self.groups:
            tokens = group(tokens, mask)
        deep = self.after_body(self.exit_norm(tokens).movedim(-1, 1)) + shallow
        fine: Tensor = self.after(self.tail(self.upsampler(deep)))
        for dim, s in enumerate(self.scale):
            fine = fine.narrow(dim + 2, 0, x.shape[dim + 2] * s)
        return fine

    def path(self, axis: int) -> list[Reach]:
        """Head, each block's window and each group's end, one more end, then the upsampler."""
        three, s = receptive.conv(3), self.scale[axis]
        end = [three, three] if self.three else [three]
        path = [three]
        for depth in self.depths:
            path += [_windowed(self.window, self.shift * (k % 2)) for k in range(depth)] + end
        path += end
        if self.kind in (None, "direct"):
            return [*path, three, receptive.up(s)]
        late = self.kind == "nearest"
        return [*path, three, *upsampler_path(self.scale, axis, late=late), *([three] if late else []), three]

    def period(self, axis: int) -> int:
        """The window's."""
        return self.window

    def describe(self, reach: tuple[int, ...]) -> NetworkSpec:
        """Tiles start on the window grid."""
        return replace(super().describe(reach), alignment=(self.window,) * self.ndim)


def _check(features: int, heads: int, window: int, upsampler: str | None, scale: tuple[int, ...]) -> None:
    if features % heads:
        raise InputError(f"swinir: features {features} is no multiple of heads {heads}")
    if window < 2:
        raise InputError(f"swinir: window {window} is not at least 2 pixels")
    if upsampler not in _UPSAMPLERS:
        raise InputError(f"swinir: upsampler {upsampler!r} is not one of pixelshuffle, direct, nearest or None")
    if upsampler is None and max(scale) > 1:
        raise InputError(f"swinir: without an upsampler the scale must be 1, it is {scale}")


def _windowed(window: int, shift: int) -> Reach:
    """Reach of attention inside windows whose grid is shifted by ``shift`` pixels."""

    def reach(low: int, high: int) -> tuple[int, int]:
        first = (low - shift) // window * window + shift
        last = (high - shift) // window * window + window - 1 + shift
        return first, last

    return reach


def _group_end(ndim: int, features: int, three: bool) -> nn.Module:
    """One convolution, or three with a narrow middle."""
    if not three:
        return convolution(ndim, features, features)
    narrow = features // 4
    return nn.Sequential(
        convolution(ndim, features, narrow),
        nn.LeakyReLU(0.2),
        convolution(ndim, narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        convolution(ndim, narrow, features),
    )


class WindowGroup(nn.Module):
    """Attention blocks, every other one shifted, and a convolution, added to the input (RSTB)."""

    def __init__(
        self,
        ndim: int,
        features: int,
        depth: int,
        heads: int,
        window: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        three: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            WindowBlock(ndim, features, heads, window, shift * (k % 2), mlp_ratio, qkv_bias) for k in range(depth)
        )
        self.last = _group_end(ndim, features, three)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` of axes ``(b, [z,] y, x, c)``, same shape."""
        y = x
        for block in self.blocks:
            y = block(y, mask)
        result: Tensor = self.last(y.movedim(-1, 1)).movedim(1, -1)
        return result + x


class WindowBlock(nn.Module):
    """Attention inside windows, then a perceptron, each on normalised tokens and added to its input (STL)."""

    def __init__(
        self, ndim: int, features: int, heads: int, window: int, shift: int, mlp_ratio: float, qkv_bias: bool
    ) -> None:
        super().__init__()
        self.window = (window,) * ndim
        self.shift = shift
        self.norm1 = nn.LayerNorm(features)
        self.attention = swin_unetr.WindowAttention(features, heads, self.window, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(features)
        self.mlp = MLPBlock(features, round(features * mlp_ratio), act="GELU", dropout_mode="swin")

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` of axes ``(b, [z,] y, x, c)``, same shape."""
        dims = tuple(range(1, x.dim() - 1))
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift,) * len(dims), dims)
        windows = self.attention(_partition(y, self.window), mask if self.shift else None)
        y = _reverse(windows, self.window, x.shape[:-1])
        if self.shift:
            y = torch.roll(y, (self.shift,) * len(dims), dims)
        x = x + y
        result: Tensor = self.mlp(self.norm2(x))
        return x + result

"""Dialects: seeded weights under the published names give what the published code computes.

Each published forward pass is stated again here on the bare state dict, in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from sciSR.networks import load_network
from sciSR.resampling import upsample

W = dict[str, Tensor]
MEAN = (0.4488, 0.4371, 0.4040)


class Maker:
    """State dicts with seeded values of a sensible size."""

    def __init__(self, ndim: int = 2) -> None:
        self.ndim = ndim
        self.weights: W = {}
        self._random = torch.Generator().manual_seed(7)

    def conv(self, key: str, out: int, into: int, kernel: int = 3, bias: bool = True) -> None:
        spread = (into * kernel**self.ndim) ** -0.5
        self.weights[f"{key}.weight"] = self.normal(out, into, *(kernel,) * self.ndim) * spread
        if bias:
            self.weights[f"{key}.bias"] = self.normal(out) * 0.1

    def vector(self, key: str, size: int, center: float = 0.0) -> None:
        self.weights[key] = center + 0.1 * self.normal(size)

    def shift(self, key: str, span: float, sign: int) -> None:
        self.weights[f"{key}.weight"] = torch.eye(3).reshape(3, 3, 1, 1)
        self.weights[f"{key}.bias"] = sign * span * torch.tensor(MEAN)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._random)


def c(w: W, key: str, x: Tensor, groups: int = 1) -> Tensor:
    weight = w[f"{key}.weight"]
    function: Any = F.conv2d if weight.dim() == 4 else F.conv3d
    result: Tensor = function(x, weight, w.get(f"{key}.bias"), padding=weight.shape[-1] // 2, groups=groups)
    return result


def mean_of(span: float) -> Tensor:
    return torch.tensor(MEAN).reshape(1, 3, 1, 1) * span


def lrelu(x: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x, slope)


def shuffled(w: W, keys: list[str], x: Tensor) -> Tensor:
    for key in keys:
        y = c(w, key, x)
        x = F.pixel_shuffle(y, round((y.shape[1] / x.shape[1]) ** 0.5))
    return x


# --- EDSR ---------------------------------------------------------------------------------------------------------


def edsr_son(scale: int, features: int = 6) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.shift("sub_mean", 255, -1)
    m.shift("add_mean", 255, 1)
    m.conv("head.0", features, 3)
    for block in range(2):
        m.conv(f"body.{block}.body.0", features, features)
        m.conv(f"body.{block}.body.2", features, features)
    m.conv("body.2", features, features)
    ups = ["tail.0.0", "tail.0.2"] if scale == 4 else ["tail.0.0"]
    for key in ups:
        m.conv(key, features * (4 if scale != 3 else 9), features)
    m.conv("tail.1", 3, features)
    w = m.weights
    factor = 0.1 if features >= 256 else 1.0

    def forward(x: Tensor) -> Tensor:
        x = c(w, "sub_mean", x)
        h = y = c(w, "head.0", x)
        for block in range(2):
            y = y + factor * c(w, f"body.{block}.body.2", F.relu(c(w, f"body.{block}.body.0", y)))
        y = c(w, "body.2", y) + h
        return c(w, "add_mean", c(w, "tail.1", shuffled(w, ups, y)))

    return w, forward


def edsr_basicsr(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv("conv_first", 6, 3)
    for block in range(2):
        m.conv(f"body.{block}.conv1", 6, 6)
        m.conv(f"body.{block}.conv2", 6, 6)
    m.conv("conv_after_body", 6, 6)
    ups = ["upsample.0", "upsample.2"] if scale == 4 else ["upsample.0"]
    for key in ups:
        m.conv(key, 6 * (4 if scale != 3 else 9), 6)
    m.conv("conv_last", 3, 6)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        # the published module takes 0 to 1 and multiplies by 255 itself
        x = (x / 255 - mean_of(1)) * 255
        h = y = c(w, "conv_first", x)
        for block in range(2):
            y = y + c(w, f"body.{block}.conv2", F.relu(c(w, f"body.{block}.conv1", y)))
        y = c(w, "conv_after_body", y) + h
        return (c(w, "conv_last", shuffled(w, ups, y)) / 255 + mean_of(1)) * 255

    return w, forward


# --- RCAN ---------------------------------------------------------------------------------------------------------


def gated(w: W, first: str, second: str, x: Tensor) -> Tensor:
    gate = F.adaptive_avg_pool2d(x, 1)
    return x * torch.sigmoid(c(w, second, F.relu(c(w, first, gate))))


def rcan_zhang(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.shift("sub_mean", 255, -1)
    m.shift("add_mean", 255, 1)
    m.conv("head.0", 8, 3)
    for group in range(2):
        for block in range(3):
            key = f"body.{group}.body.{block}.body"
            m.conv(f"{key}.0", 8, 8)
            m.conv(f"{key}.2", 8, 8)
            m.conv(f"{key}.3.conv_du.0", 2, 8, 1)
            m.conv(f"{key}.3.conv_du.2", 8, 2, 1)
        m.conv(f"body.{group}.body.3", 8, 8)
    m.conv("body.2", 8, 8)
    ups = ["tail.0.0", "tail.0.2"] if scale == 4 else ["tail.0.0"]
    for key in ups:
        m.conv(key, 8 * (4 if scale != 3 else 9), 8)
    m.conv("tail.1", 3, 8)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        h = y = c(w, "head.0", c(w, "sub_mean", x))
        for group in range(2):
            start = y
            for block in range(3):
                key = f"body.{group}.body.{block}.body"
                z = c(w, f"{key}.2", F.relu(c(w, f"{key}.0", y)))
                y = y + gated(w, f"{key}.3.conv_du.0", f"{key}.3.conv_du.2", z)
            y = start + c(w, f"body.{group}.body.3", y)
        y = h + c(w, "body.2", y)
        return c(w, "add_mean", c(w, "tail.1", shuffled(w, ups, y)))

    return w, forward


def rcan_basicsr(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv("conv_first", 8, 3)
    for group in range(2):
        for block in range(2):
            key = f"body.{group}.residual_group.{block}.rcab"
            m.conv(f"{key}.0", 8, 8)
            m.conv(f"{key}.2", 8, 8)
            m.conv(f"{key}.3.attention.1", 4, 8, 1)
            m.conv(f"{key}.3.attention.3", 8, 4, 1)
        m.conv(f"body.{group}.conv", 8, 8)
    m.conv("conv_after_body", 8, 8)
    m.conv("upsample.0", 8 * scale**2, 8)
    m.conv("conv_last", 3, 8)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        h = y = c(w, "conv_first", (x / 255 - mean_of(1)) * 255)
        for group in range(2):
            start = y
            for block in range(2):
                key = f"body.{group}.residual_group.{block}.rcab"
                z = c(w, f"{key}.2", F.relu(c(w, f"{key}.0", y)))
                y = y + gated(w, f"{key}.3.attention.1", f"{key}.3.attention.3", z)
            y = start + c(w, f"body.{group}.conv", y)
        y = h + c(w, "conv_after_body", y)
        return (c(w, "conv_last", shuffled(w, ["upsample.0"], y)) / 255 + mean_of(1)) * 255

    return w, forward


# --- MSRResNet, RRDBNet, SRVGG ------------------------------------------------------------------------------------


def msrresnet(scale: int, old: bool = False) -> tuple[W, Callable[[Tensor], Tensor]]:
    body, fine = ("recon_trunk", "HRconv") if old else ("body", "conv_hr")
    m = Maker()
    m.conv("conv_first", 6, 3)
    for block in range(2):
        m.conv(f"{body}.{block}.conv1", 6, 6)
        m.conv(f"{body}.{block}.conv2", 6, 6)
    ups = ["upconv1", "upconv2"] if scale == 4 else ["upconv1"]
    for key in ups:
        m.conv(key, 6 * (4 if scale != 3 else 9), 6)
    m.conv(fine, 6, 6)
    m.conv("conv_last", 3, 6)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        y = lrelu(c(w, "conv_first", x), 0.1)
        for block in range(2):
            y = y + c(w, f"{body}.{block}.conv2", F.relu(c(w, f"{body}.{block}.conv1", y)))
        for key in ups:
            y = lrelu(shuffled(w, [key], y), 0.1)
        y = c(w, "conv_last", lrelu(c(w, fine, y), 0.1))
        return y + F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)

    return w, forward


def rrdb(names: dict[str, str], ups: list[str], fold: int = 1, factor: int = 2) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv(names["first"], 6, 3 * fold**2)
    for b in range(2):
        for d in (1, 2, 3):
            for k in range(1, 6):
                m.conv(names["dense"].format(b=b, d=d, c=k), 4 if k < 5 else 6, 6 + 4 * (k - 1))
    m.conv(names["after"], 6, 6)
    for key in [*ups, names["fine"]]:
        m.conv(key, 6, 6)
    m.conv(names["last"], 3, 6)
    w = m.weights

    def dense(x: Tensor, b: int, d: int) -> Tensor:
        known = [x]
        for k in range(1, 6):
            y = c(w, names["dense"].format(b=b, d=d, c=k), torch.cat(known, 1))
            known.append(lrelu(y, 0.2) if k < 5 else y)
        return known[-1] * 0.2 + x

    def forward(x: Tensor) -> Tensor:
        h = y = c(w, names["first"], F.pixel_unshuffle(x, fold) if fold > 1 else x)
        for b in range(2):
            start = y
            for d in (1, 2, 3):
                y = dense(y, b, d)
            y = y * 0.2 + start
        y = h + c(w, names["after"], y)
        for key in ups:
            y = lrelu(c(w, key, F.interpolate(y, scale_factor=factor, mode="nearest")), 0.2)
        return c(w, names["last"], lrelu(c(w, names["fine"], y), 0.2))

    return w, forward


RRDB_NEW = {
    "first": "conv_first", "dense": "body.{b}.rdb{d}.conv{c}", "after": "conv_body", "fine": "conv_hr",
    "last": "conv_last",
}  # fmt: skip
RRDB_TRUNK = {
    "first": "conv_first", "dense": "RRDB_trunk.{b}.RDB{d}.conv{c}", "after": "trunk_conv", "fine": "HRconv",
    "last": "conv_last",
}  # fmt: skip


def rrdb_first_release(ups: list[int], fine: int, last: int, factor: int = 2) -> tuple[W, Callable[[Tensor], Tensor]]:
    names = {
        "first": "model.0", "dense": "model.1.sub.{b}.RDB{d}.conv{c}.0", "after": "model.1.sub.2",
        "fine": f"model.{fine}", "last": f"model.{last}",
    }  # fmt: skip
    return rrdb(names, [f"model.{k}" for k in ups], factor=factor)


def srvgg(scale: int, act: str = "prelu") -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    for k in range(4):
        m.conv(f"body.{2 * k}", 6, 6 if k else 3)
        if act == "prelu":
            m.vector(f"body.{2 * k + 1}.weight", 6, 0.25)
    m.conv("body.8", 3 * scale**2, 6)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        y = x
        for k in range(4):
            y = c(w, f"body.{2 * k}", y)
            y = F.prelu(y, w[f"body.{2 * k + 1}.weight"]) if act == "prelu" else F.relu(y)
        y = F.pixel_shuffle(c(w, "body.8", y), scale)
        return y + F.interpolate(x, scale_factor=float(scale), mode="nearest")

    return w, forward


# --- the small ones -----------------------------------------------------------------------------------------------


def srcnn(kernels: tuple[int, int, int], padding: str = "zeros", ndim: int = 2) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker(ndim)
    m.conv("conv1", 8, 1, kernels[0])
    m.conv("conv2", 4, 8, kernels[1])
    m.conv("conv3", 1, 4, kernels[2])
    w = m.weights

    def padded(key: str, x: Tensor) -> Tensor:
        if padding == "zeros":
            return c(w, key, x)
        half = w[f"{key}.weight"].shape[-1] // 2
        return F.conv2d(F.pad(x, (half,) * 4, "replicate"), w[f"{key}.weight"], w[f"{key}.bias"])

    def forward(x: Tensor) -> Tensor:
        return padded("conv3", F.relu(padded("conv2", F.relu(padded("conv1", x)))))

    return w, forward


def fsrcnn(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv("first_part.0", 8, 1, 5)
    m.vector("first_part.1.weight", 8, 0.25)
    widths = [(4, 8, 1), (4, 4, 3), (4, 4, 3), (8, 4, 1)]
    for k, (out, into, kernel) in enumerate(widths):
        m.conv(f"mid_part.{2 * k}", out, into, kernel)
        m.vector(f"mid_part.{2 * k + 1}.weight", out, 0.25)
    m.weights["last_part.weight"] = m.normal(8, 1, 9, 9) * 0.05
    m.weights["last_part.bias"] = m.normal(1)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        y = F.prelu(c(w, "first_part.0", x), w["first_part.1.weight"])
        for k in range(4):
            y = F.prelu(c(w, f"mid_part.{2 * k}", y), w[f"mid_part.{2 * k + 1}.weight"])
        last, bias = w["last_part.weight"], w["last_part.bias"]
        return F.conv_transpose2d(y, last, bias, stride=scale, padding=4, output_padding=scale - 1)

    return w, forward


def espcn(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv("first_part.0", 8, 1, 5)
    m.conv("first_part.2", 4, 8)
    m.conv("last_part.0", scale**2, 4)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        y = torch.tanh(c(w, "first_part.2", torch.tanh(c(w, "first_part.0", x))))
        return F.pixel_shuffle(c(w, "last_part.0", y), scale)

    return w, forward


def rdn(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv("sfe1", 6, 3)
    m.conv("sfe2", 6, 6)
    for b in range(2):
        for k in range(3):
            m.conv(f"rdbs.{b}.layers.{k}.conv", 6, 6 + 6 * k)
        m.conv(f"rdbs.{b}.lff", 6, 24, 1)
    m.conv("gff.0", 6, 12, 1)
    m.conv("gff.1", 6, 6)
    ups = ["upscale.0", "upscale.2"] if scale == 4 else ["upscale.0"]
    for key in ups:
        m.conv(key, 6 * (4 if scale != 3 else 9), 6)
    m.conv("output", 3, 6)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        first = c(w, "sfe1", x)
        y, levels = c(w, "sfe2", first), []
        for b in range(2):
            z = y
            for k in range(3):
                z = torch.cat([z, F.relu(c(w, f"rdbs.{b}.layers.{k}.conv", z))], 1)
            y = y + c(w, f"rdbs.{b}.lff", z)
            levels.append(y)
        y = c(w, "gff.1", c(w, "gff.0", torch.cat(levels, 1))) + first
        return c(w, "output", shuffled(w, ups, y))

    return w, forward


def vdsr(keys: list[str], bias: bool) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    for number, key in enumerate(keys):
        m.conv(key, 1 if number == len(keys) - 1 else 6, 6 if number else 1, bias=bias)
    w = m.weights

    def forward(x: Tensor) -> Tensor:
        y = x
        for key in keys[:-1]:
            y = F.relu(c(w, key, y))
        return x + c(w, keys[-1], y)

    return w, forward


def carn(scale: int, mobile: bool, many: bool) -> tuple[W, Callable[[Tensor], Tensor]]:
    groups, n = (4 if mobile else 1), 8
    m = Maker()
    for key, sign in (("sub_mean.shifter", -1), ("add_mean.shifter", 1)):
        m.shift(key, 1, sign)
    m.conv("entry", n, 3)
    for b in (1, 2, 3):
        for unit in (1,) if mobile else (1, 2, 3):
            m.conv(f"b{b}.b{unit}.body.0", n, n // groups)
            m.conv(f"b{b}.b{unit}.body.2", n, n // groups)
            if mobile:
                m.conv(f"b{b}.b{unit}.body.4", n, n, 1)
        for k in (1, 2, 3):
            m.conv(f"b{b}.c{k}.body.0", n, n * (k + 1), 1)
    for k in (1, 2, 3):
        m.conv(f"c{k}.body.0", n, n * (k + 1), 1)
    for s in (2, 3, 4) if many else (scale,):
        up = f"upsample.up{s}" if many else "upsample.up"
        for stage in (0, 3) if s == 4 else (0,):
            m.conv(f"{up}.body.{stage}", n * (4 if s != 3 else 9), n // groups)
    m.conv("exit", 3, n)
    w = m.weights

    def residual(x: Tensor, key: str) -> Tensor:
        y = c(w, f"{key}.body.2", F.relu(c(w, f"{key}.body.0", x, groups)), groups)
        if mobile:
            y = c(w, f"{key}.body.4", F.relu(y))
        return F.relu(y + x)

    def cascade(x: Tensor, prefix: str, steps: list[Callable[[Tensor], Tensor]]) -> Tensor:
        known = y = x
        for k, step in enumerate(steps, 1):
            known = torch.cat([known, step(y)], 1)
            y = F.relu(c(w, f"{prefix}c{k}.body.0", known))
        return y

    def block(b: int) -> Callable[[Tensor], Tensor]:
        units = [f"b{b}.b{1 if mobile else k}" for k in (1, 2, 3)]
        return lambda x: cascade(x, f"b{b}.", [partial(residual, key=key) for key in units])

    def forward(x: Tensor) -> Tensor:
        y = c(w, "entry", c(w, "sub_mean.shifter", x))
        y = cascade(y, "", [block(1), block(2), block(3)])
        up = f"upsample.up{scale}" if many else "upsample.up"
        for stage in (0, 3) if scale == 4 else (0,):
            y = F.pixel_shuffle(F.relu(c(w, f"{up}.body.{stage}", y, groups)), 3 if scale == 3 else 2)
        return c(w, "add_mean.shifter", c(w, "exit", y))

    return w, forward


def imdn(scale: int) -> tuple[W, Callable[[Tensor], Tensor]]:
    m = Maker()
    m.conv("fea_conv", 16, 3)
    for b in range(1, 4):
        m.conv(f"IMDB{b}.c1", 16, 16)
        m.conv(f"IMDB{b}.c2", 16, 12)
        m.conv(f"IMDB{b}.c3", 16, 12)
        m.conv(f"IMDB{b}.c4", 4, 12)
        m.conv(f"IMDB{b}.c5", 16, 16, 1)
        m.conv(f"IMDB{b}.cca.conv_du.0", 4, 16, 1)
        m.conv(f"IMDB{b}.cca.conv_du.2", 16, 4, 1)
    m.conv("c.0", 16, 48, 1)
    m.conv("LR_conv", 16, 16)
    m.conv("upsampler.0", 3 * scale**2, 16)
    w = m.weights

    def block(x: Tensor, key: str) -> Tensor:
        kept, y = [], x
        for k in (1, 2, 3):
            out = lrelu(c(w, f"{key}.c{k}", y), 0.05)
            kept.append(out[:, :4])
            y = out[:, 4:]
        kept.append(c(w, f"{key}.c4", y))
        z = torch.cat(kept, 1)
        statistic = z.std(dim=(2, 3), unbiased=False, keepdim=True) + z.mean(dim=(2, 3), keepdim=True)
        gate = torch.sigmoid(c(w, f"{key}.cca.conv_du.2", F.relu(c(w, f"{key}.cca.conv_du.0", statistic))))
        return c(w, f"{key}.c5", z * gate) + x

    def forward(x: Tensor) -> Tensor:
        first = c(w, "fea_conv", x)
        y, levels = first, []
        for b in range(1, 4):
            y = block(y, f"IMDB{b}")
            levels.append(y)
        y = c(w, "LR_conv", lrelu(c(w, "c.0", torch.cat(levels, 1)), 0.05)) + first
        return F.pixel_shuffle(c(w, "upsampler.0", y), scale)

    return w, forward


CASES: dict[str, tuple[tuple[W, Callable[[Tensor], Tensor]], int, float, dict[str, Any]]] = {
    # name: weights and forward, scale, number range, options
    "EDSR sanghyun-son x2": (edsr_son(2), 2, 255, {}),
    "EDSR sanghyun-son x3": (edsr_son(3), 3, 255, {}),
    "EDSR sanghyun-son x4 large": (edsr_son(4, features=256), 4, 255, {}),
    "EDSR BasicSR x3": (edsr_basicsr(3), 3, 255, {}),
    "EDSR BasicSR x4": (edsr_basicsr(4), 4, 255, {}),
    "RCAN yulunzhang x2": (rcan_zhang(2), 2, 255, {}),
    "RCAN yulunzhang x4": (rcan_zhang(4), 4, 255, {}),
    "RCAN BasicSR x3": (rcan_basicsr(3), 3, 255, {}),
    "MSRResNet x2": (msrresnet(2), 2, 1, {}),
    "MSRResNet x3": (msrresnet(3), 3, 1, {}),
    "MSRResNet x4": (msrresnet(4), 4, 1, {}),
    "MSRResNet KAIR x4": (msrresnet(4, old=True), 4, 1, {}),
    "RRDBNet BasicSR x4": (rrdb(RRDB_NEW, ["conv_up1", "conv_up2"]), 4, 1, {}),
    "RRDBNet BasicSR x2": (rrdb(RRDB_NEW, ["conv_up1", "conv_up2"], fold=2), 2, 1, {}),
    "RRDBNet BasicSR x1": (rrdb(RRDB_NEW, ["conv_up1", "conv_up2"], fold=4), 1, 1, {}),
    "RRDBNet ESRGAN x4": (rrdb(RRDB_TRUNK, ["upconv1", "upconv2"]), 4, 1, {}),
    "RRDBNet first release x4": (rrdb_first_release([3, 6], 8, 10), 4, 1, {}),
    "RRDBNet first release x2": (rrdb_first_release([3], 5, 7), 2, 1, {}),
    "RRDBNet first release x3": (rrdb_first_release([3], 5, 7, factor=3), 3, 1, {"scale": 3}),
    "RRDBNet first release x1": (rrdb_first_release([], 2, 4), 1, 1, {}),
    "SRVGG x4": (srvgg(4), 4, 1, {}),
    "SRVGG x2 relu": (srvgg(2, act="relu"), 2, 1, {}),
    "SRCNN 9-1-5": (srcnn((9, 1, 5)), 1, 1, {"scale": 1}),
    "SRCNN 9-5-5": (srcnn((9, 5, 5)), 1, 1, {"scale": 1}),
    "SRCNN 9-5-5 MATLAB": (srcnn((9, 5, 5), "replicate"), 1, 1, {"scale": 1, "padding": "replicate"}),
    "SRCNN in 3D": (srcnn((9, 1, 5), ndim=3), 1, 1, {"scale": 1}),
    "FSRCNN x2": (fsrcnn(2), 2, 1, {"scale": 2}),
    "FSRCNN x3": (fsrcnn(3), 3, 1, {}),
    "FSRCNN x4": (fsrcnn(4), 4, 1, {"scale": 4}),
    "ESPCN x3": (espcn(3), 3, 1, {}),
    "RDN x2": (rdn(2), 2, 1, {}),
    "RDN x3": (rdn(3), 3, 1, {}),
    "RDN x4": (rdn(4), 4, 1, {}),
    "VDSR without biases": (
        vdsr(["input", *(f"residual_layer.{k}.conv" for k in range(3)), "output"], False), 1, 1, {"scale": 1}
    ),
    "VDSR with biases": (
        vdsr(["input", *(f"residual_layer.{k}.conv" for k in range(3)), "output"], True), 1, 1, {"scale": 1}
    ),
    "VDSR first release": (vdsr([f"features.{2 * k}" for k in range(5)], False), 1, 1, {"scale": 1}),
    "CARN-M x4 of three": (carn(4, mobile=True, many=True), 4, 1, {}),
    "CARN-M x3 of three": (carn(3, mobile=True, many=True), 3, 1, {"scale": 3}),
    "CARN-M x2 alone": (carn(2, mobile=True, many=False), 2, 1, {}),
    "CARN x2 of three": (carn(2, mobile=False, many=True), 2, 1, {"scale": 2}),
    "IMDN x2": (imdn(2), 2, 1, {}),
    "IMDN x3": (imdn(3), 3, 1, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gives_the_published_output(name: str, tmp_path: Path) -> None:
    (weights, forward), scale, span, options = CASES[name]
    torch.save(weights, tmp_path / "weights.pth")
    network = load_network(tmp_path / "weights.pth", **options)
    first = next(iter(weights.values()))
    ndim = max(value.dim() for value in weights.values()) - 2
    channels = network.spec.in_channels
    x = torch.rand(1, channels, *(12, 16, 10)[:ndim], generator=torch.Generator().manual_seed(1)) * span
    with torch.inference_mode():
        expected = forward(x)
        found = network(x)
    assert first.dtype == torch.float32
    assert network.spec.scale == (scale,) * ndim
    assert network.spec.value_range == span
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 2e-5 * span
    assert not network.training


@pytest.mark.parametrize("name", ["SRCNN 9-5-5", "VDSR with biases"])
def test_on_the_coarse_grid_the_cubic_upsampling_is_done_inside(name: str, tmp_path: Path) -> None:
    (weights, forward), _, _, _ = CASES[name]
    torch.save(weights, tmp_path / "weights.pth")
    x = torch.rand(1, 1, 9, 11)
    for scale in (2, 3, 4):
        network = load_network(tmp_path / "weights.pth", scale=scale)
        with torch.inference_mode():
            torch.testing.assert_close(network(x), forward(upsample(x, (scale, scale))), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_survives_its_conversion(name: str, tmp_path: Path) -> None:
    from sciSR.networks.foreign import import_checkpoint

    (weights, _), _, span, options = CASES[name]
    torch.save({"params": weights}, tmp_path / "weights.pth")
    path = import_checkpoint(tmp_path / "weights.pth", tmp_path / "converted.safetensors", **options)
    direct, converted = load_network(tmp_path / "weights.pth", **options), load_network(path)
    x = torch.rand(1, direct.spec.in_channels, *(7, 6, 5)[: direct.spec.ndim]) * span
    with torch.inference_mode():
        assert torch.equal(direct(x), converted(x))
    assert converted.spec == direct.spec
    assert converted.card is not None
    assert converted.card.name == "converted"
    assert converted.card.provenance["imported from"] == "weights.pth"

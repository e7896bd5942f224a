"""Dialects of EDSR, RCAN, MSRResNet, RRDBNet and SRVGG."""

from __future__ import annotations

import re

from sciSR.errors import CheckpointError
from sciSR.networks.dialects.dialect import (
    DIV2K_MEAN,
    Dialect,
    Options,
    Reading,
    Weights,
    count,
    factor_of,
    scale_of_stages,
)

__all__ = ["DIALECTS"]

_SHIFTS = (r"(sub|add)_mean\.(weight|bias)",)
_LARGE_EDSR = 256


def _edsr_son(weights: Weights, options: Options) -> Reading:
    first = weights["head.0.weight"]
    blocks = count(weights, "body.{}.body.0.weight")
    value_range, mean = _shift(weights, options, first.shape[1])
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": first.shape[1],
        "out_channels": weights["tail.1.weight"].shape[0],
        "scale": options.scale_or(scale_of_stages(weights, "tail.0.{}.weight")),
        "features": first.shape[0],
        "blocks": blocks,
        "residual_scale": _residual_scale(options, first.shape[0]),
        "skip": None,
        "mean": mean,
        "value_range": value_range,
    }
    rules = [
        (r"head", r"head.0"),
        (r"body\.(\d+)\.first", r"body.\1.body.0"),
        (r"body\.(\d+)\.second", r"body.\1.body.2"),
        (r"body\.(\d+)", r"body.\1"),
        (r"upsampler\.(\d+)", r"tail.0.\1"),
        (r"tail", r"tail.1"),
    ]
    return Reading("edsr", arguments, rules, _SHIFTS)


def _edsr_basicsr(weights: Weights, options: Options) -> Reading:
    first = weights["conv_first.weight"]
    channels = first.shape[1]
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": channels,
        "out_channels": weights["conv_last.weight"].shape[0],
        "scale": options.scale_or(scale_of_stages(weights, "upsample.{}.weight")),
        "features": first.shape[0],
        "blocks": count(weights, "body.{}.conv1.weight"),
        "residual_scale": _residual_scale(options, first.shape[0]),
        "skip": None,
        "mean": DIV2K_MEAN if channels == len(DIV2K_MEAN) else None,
        "value_range": 255.0 if options.value_range is None else options.value_range,
    }
    rules = [
        (r"head", r"conv_first"),
        (r"body\.(\d+)\.first", r"body.\1.conv1"),
        (r"body\.(\d+)\.second", r"body.\1.conv2"),
        (r"body\.\d+", r"conv_after_body"),
        (r"upsampler\.(\d+)", r"upsample.\1"),
        (r"tail", r"conv_last"),
    ]
    return Reading("edsr", arguments, rules)


def _residual_scale(options: Options, features: int) -> float:
    """The paper's: 0.1 for the large network, 1 for the baseline."""
    if options.residual_scale is not None:
        return options.residual_scale
    return 0.1 if features >= _LARGE_EDSR else 1.0


def _shift(weights: Weights, options: Options, channels: int) -> tuple[float, tuple[float, ...] | None]:
    """The number range and the mean as a part of it, from the mean shift's own bias where the file has it."""
    bias, weight = weights.get("sub_mean.bias"), weights.get("sub_mean.weight")
    if bias is None or weight is None:
        mean = DIV2K_MEAN if channels == len(DIV2K_MEAN) else None
        return (255.0 if options.value_range is None else options.value_range), mean
    square = weight.flatten(1)
    if square.shape[0] != square.shape[1] or not square.eq(square.new_ones(len(square)).diag()).all():
        raise CheckpointError("sub_mean.weight: not the identity; a mean shift that scales channels is not supported")
    values = [-float(b) for b in bias]
    # 255 for images of 0 to 255, 1 for images of 0 to 1: no mean of natural images lies above 1 otherwise
    found = 255.0 if max(abs(v) for v in values) > 1 else 1.0
    value_range = found if options.value_range is None else options.value_range
    return value_range, tuple(v / value_range for v in values)


def _rcan_zhang(weights: Weights, options: Options) -> Reading:
    first = weights["head.0.weight"]
    groups = count(weights, "body.{}.body.0.body.0.weight")
    blocks = count(weights, "body.0.body.{}.body.0.weight")
    narrow = weights["body.0.body.0.body.3.conv_du.0.weight"]
    value_range, mean = _shift(weights, options, first.shape[1])
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": first.shape[1],
        "out_channels": weights["tail.1.weight"].shape[0],
        "scale": options.scale_or(scale_of_stages(weights, "tail.0.{}.weight")),
        "features": first.shape[0],
        "groups": groups,
        "blocks": blocks,
        "reduction": narrow.shape[1] // narrow.shape[0],
        "residual_scale": 1.0 if options.residual_scale is None else options.residual_scale,
        "skip": None,
        "mean": mean,
        "value_range": value_range,
    }
    rules = [
        (r"head", r"head.0"),
        (r"body\.(\d+)\.blocks\.(\d+)\.first", r"body.\1.body.\2.body.0"),
        (r"body\.(\d+)\.blocks\.(\d+)\.second", r"body.\1.body.\2.body.2"),
        (r"body\.(\d+)\.blocks\.(\d+)\.attention\.gate\.(\d)", r"body.\1.body.\2.body.3.conv_du.\3"),
        (r"body\.(\d+)\.last", rf"body.\1.body.{blocks}"),
        (r"after_body", rf"body.{groups}"),
        (r"upsampler\.(\d+)", r"tail.0.\1"),
        (r"tail", r"tail.1"),
    ]
    return Reading("rcan", arguments, rules, _SHIFTS)


def _rcan_basicsr(weights: Weights, options: Options) -> Reading:
    first = weights["conv_first.weight"]
    channels = first.shape[1]
    narrow = weights["body.0.residual_group.0.rcab.3.attention.1.weight"]
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": channels,
        "out_channels": weights["conv_last.weight"].shape[0],
        "scale": options.scale_or(scale_of_stages(weights, "upsample.{}.weight")),
        "features": first.shape[0],
        "groups": count(weights, "body.{}.conv.weight"),
        "blocks": count(weights, "body.0.residual_group.{}.rcab.0.weight"),
        "reduction": narrow.shape[1] // narrow.shape[0],
        "residual_scale": 1.0 if options.residual_scale is None else options.residual_scale,
        "skip": None,
        "mean": DIV2K_MEAN if channels == len(DIV2K_MEAN) else None,
        "value_range": 255.0 if options.value_range is None else options.value_range,
    }
    block = r"body\.(\d+)\.blocks\.(\d+)"
    rules = [
        (r"head", r"conv_first"),
        (block + r"\.first", r"body.\1.residual_group.\2.rcab.0"),
        (block + r"\.second", r"body.\1.residual_group.\2.rcab.2"),
        (block + r"\.attention\.gate\.0", r"body.\1.residual_group.\2.rcab.3.attention.1"),
        (block + r"\.attention\.gate\.2", r"body.\1.residual_group.\2.rcab.3.attention.3"),
        (r"body\.(\d+)\.last", r"body.\1.conv"),
        (r"after_body", r"conv_after_body"),
        (r"upsampler\.(\d+)", r"upsample.\1"),
        (r"tail", r"conv_last"),
    ]
    return Reading("rcan", arguments, rules)


def _msrresnet(weights: Weights, options: Options) -> Reading:
    old = "HRconv.weight" in weights
    body, fine = ("recon_trunk", "HRconv") if old else ("body", "conv_hr")
    first = weights["conv_first.weight"]
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": first.shape[1],
        "out_channels": weights["conv_last.weight"].shape[0],
        "scale": options.scale_or(scale_of_stages(weights, "upconv{}.weight")),
        "features": first.shape[0],
        "blocks": count(weights, body + ".{}.conv1.weight"),
        "skip": "linear",
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    rules = [
        (r"head", r"conv_first"),
        (r"body\.(\d+)\.first", body + r".\1.conv1"),
        (r"body\.(\d+)\.second", body + r".\1.conv2"),
        # convolution, shuffle, activation: every third layer
        (r"upsampler\.0", r"upconv1"),
        (r"upsampler\.3", r"upconv2"),
        (r"fine", fine),
        (r"tail", r"conv_last"),
    ]
    return Reading("msrresnet", arguments, rules)


def _rrdb(weights: Weights, options: Options, names: dict[str, str], stages: int) -> Reading:
    """RRDBNet by its author's three sets of names.

    Args:
        weights: the state dict.
        options: what the user said.
        names: first, dense (with ``{b}``, ``{d}``, ``{c}`` for block, dense block and convolution), after, fine, last.
        stages: upsampling convolutions, factor 2 each unless the user says otherwise.
    """
    first, last = weights[names["first"] + ".weight"], weights[names["last"] + ".weight"]
    ndim = first.dim() - 2
    channels = last.shape[0]
    fold = factor_of(first.shape[1], channels, ndim, names["first"])
    grown = names["dense"].format(b=0, d=1, c=1) + ".weight"
    found = 2**stages // fold
    # one stage of an old file may be a factor of 2 or of 3: nearest neighbour leaves no trace in the weights
    scale = options.scale if stages == 1 and options.scale in (2, 3) else options.scale_or(found)
    arguments = {
        "ndim": ndim,
        "in_channels": channels,
        "out_channels": channels,
        "scale": scale,
        "features": first.shape[0],
        "blocks": count(weights, names["dense"].format(b="{}", d=1, c=1)),
        "growth": weights[grown].shape[0],
        "residual_scale": 0.2 if options.residual_scale is None else options.residual_scale,
        "unshuffle": fold,
        "skip": None,
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    dense = [
        (rf"body\.(\d+)\.blocks\.{d}\.layers\.{c}", names["dense"].format(b=r"\1", d=d + 1, c=c + 1))
        for d in range(3)
        for c in range(5)
    ]
    ups = [(rf"upsampler\.{3 * k + 1}", names[f"up{k + 1}"]) for k in range(stages)]
    rules = [
        (r"head", names["first"]),
        *dense,
        (r"after_body", names["after"]),
        *ups,
        (r"fine", names["fine"]),
        (r"tail", names["last"]),
    ]
    return Reading("rrdbnet", arguments, rules)


def _rrdb_basicsr(weights: Weights, options: Options) -> Reading:
    names = {
        "first": "conv_first",
        "dense": "body.{b}.rdb{d}.conv{c}",
        "after": "conv_body",
        "up1": "conv_up1",
        "up2": "conv_up2",
        "fine": "conv_hr",
        "last": "conv_last",
    }
    return _rrdb(weights, options, names, count(weights, "conv_up{}.weight") - 1)


def _rrdb_trunk(weights: Weights, options: Options) -> Reading:
    names = {
        "first": "conv_first",
        "dense": "RRDB_trunk.{b}.RDB{d}.conv{c}",
        "after": "trunk_conv",
        "up1": "upconv1",
        "up2": "upconv2",
        "fine": "HRconv",
        "last": "conv_last",
    }
    return _rrdb(weights, options, names, count(weights, "upconv{}.weight") - 1)


def _rrdb_old(weights: Weights, options: Options) -> Reading:
    """The first release: numbered layers; ``model.1.sub`` is the trunk, its last entry the convolution after it."""
    numbers = sorted({int(m.group(1)) for k in weights if (m := re.fullmatch(r"model\.(\d+)\.weight", k))})
    ups, (fine, last) = numbers[1:-2], numbers[-2:]
    names = {
        "first": "model.0",
        "dense": "model.1.sub.{b}.RDB{d}.conv{c}.0",
        "after": f"model.1.sub.{count(weights, 'model.1.sub.{}.') - 1}",
        "fine": f"model.{fine}",
        "last": f"model.{last}",
    } | {f"up{k + 1}": f"model.{number}" for k, number in enumerate(ups)}
    return _rrdb(weights, options, names, len(ups))


def _srvgg(weights: Weights, options: Options) -> Reading:
    first = weights["body.0.weight"]
    last = count(weights, "body.{}.weight") - 1
    final = weights[f"body.{last}.weight"]
    ndim = first.dim() - 2
    arguments = {
        "ndim": ndim,
        "in_channels": first.shape[1],
        "out_channels": first.shape[1],
        "scale": options.scale_or(factor_of(final.shape[0], first.shape[1], ndim, f"body.{last}.weight")),
        "features": first.shape[0],
        "layers": last // 2 - 1,
        "act": "prelu" if "body.1.weight" in weights else "relu",
        "skip": "nearest",
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    return Reading("srvgg", arguments, [(r"body\.(\d+)", r"body.\1"), (r"tail", rf"body.{last}")])


DIALECTS = (
    Dialect(
        "EDSR, sanghyun-son",
        "https://github.com/sanghyun-son/EDSR-PyTorch",
        ("head.0.weight", "body.0.body.0.weight", "tail.0.0.weight", "tail.1.weight"),
        _edsr_son,
        options=("residual_scale",),
    ),
    Dialect(
        "EDSR, BasicSR",
        "https://github.com/XPixelGroup/BasicSR",
        ("conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight", "conv_last.weight"),
        _edsr_basicsr,
        options=("residual_scale",),
    ),
    Dialect(
        "RCAN, yulunzhang",
        "https://github.com/yulunzhang/RCAN",
        ("head.0.weight", "body.0.body.0.body.3.conv_du.0.weight", "tail.0.0.weight", "tail.1.weight"),
        _rcan_zhang,
        options=("residual_scale",),
    ),
    Dialect(
        "RCAN, BasicSR",
        "https://github.com/XPixelGroup/BasicSR",
        ("conv_first.weight", "body.0.residual_group.0.rcab.3.attention.1.weight", "upsample.0.weight"),
        _rcan_basicsr,
        options=("residual_scale",),
    ),
    Dialect(
        "MSRResNet, BasicSR",
        "https://github.com/XPixelGroup/BasicSR",
        ("conv_first.weight", "body.0.conv1.weight", "upconv1.weight", "conv_hr.weight", "conv_last.weight"),
        _msrresnet,
    ),
    Dialect(
        "MSRResNet, KAIR",
        "https://github.com/cszn/KAIR",
        ("conv_first.weight", "recon_trunk.0.conv1.weight", "upconv1.weight", "HRconv.weight", "conv_last.weight"),
        _msrresnet,
    ),
    Dialect(
        "RRDBNet, BasicSR",
        "https://github.com/XPixelGroup/BasicSR",
        ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_up1.weight", "conv_hr.weight", "conv_last.weight"),
        _rrdb_basicsr,
        options=("residual_scale",),
    ),
    Dialect(
        "RRDBNet, ESRGAN",
        "https://github.com/xinntao/ESRGAN",
        ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight", "HRconv.weight", "conv_last.weight"),
        _rrdb_trunk,
        options=("residual_scale",),
    ),
    Dialect(
        "RRDBNet, ESRGAN's first release",
        "https://github.com/xinntao/ESRGAN",
        ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        _rrdb_old,
        options=("residual_scale",),
    ),
    Dialect(
        "SRVGG, BasicSR",
        "https://github.com/XPixelGroup/BasicSR",
        ("body.0.weight", "body.2.weight"),
        _srvgg,
        without=("conv_first.weight", "head.0.weight", "tail.0.weight"),
    ),
)
"""In the order in which they are tried."""

"""Dialects of SRCNN, FSRCNN, ESPCN, RDN, VDSR, CARN, CARN-M and IMDN."""

from __future__ import annotations

from sciSR.errors import InputError
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


def _srcnn(weights: Weights, options: Options) -> Reading:
    layers = [weights[f"conv{k}.weight"] for k in (1, 2, 3)]
    arguments = {
        "ndim": layers[0].dim() - 2,
        "in_channels": layers[0].shape[1],
        "out_channels": layers[2].shape[0],
        # factor 3 is the paper's main one
        "scale": 3 if options.scale is None else options.scale,
        "features": tuple(w.shape[0] for w in layers[:2]),
        "kernels": tuple(w.shape[2] for w in layers),
        "padding": options.padding or "zeros",
        "skip": None,
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    return Reading("srcnn", arguments, [(rf"layers\.{k}", rf"conv{k + 1}") for k in range(3)])


def _fsrcnn(weights: Weights, options: Options) -> Reading:
    first, last = weights["first_part.0.weight"], weights["last_part.weight"]
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": first.shape[1],
        "out_channels": last.shape[1],
        # factor 3 is the paper's main one
        "scale": 3 if options.scale is None else options.scale,
        "features": first.shape[0],
        "shrink": weights["mid_part.0.weight"].shape[0],
        # shrinking and expanding stand around the mapping; each layer has an activation
        "layers": count(weights, "mid_part.{}.weight") // 2 - 2,
        "skip": None,
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    rules = [(r"first\.(\d)", r"first_part.\1"), (r"middle\.(\d+)", r"mid_part.\1"), (r"tail", r"last_part")]
    return Reading("fsrcnn", arguments, rules)


def _espcn(weights: Weights, options: Options) -> Reading:
    first, second, last = (weights[f"{k}.weight"] for k in ("first_part.0", "first_part.2", "last_part.0"))
    ndim, channels = first.dim() - 2, first.shape[1]
    arguments = {
        "ndim": ndim,
        "in_channels": channels,
        "out_channels": channels,
        "scale": options.scale_or(factor_of(last.shape[0], channels, ndim, "last_part.0.weight")),
        "features": (first.shape[0], second.shape[0]),
        "skip": None,
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    return Reading("espcn", arguments, [(r"body\.(\d)", r"first_part.\1"), (r"tail", r"last_part.0")])


def _rdn(weights: Weights, options: Options) -> Reading:
    first = weights["sfe1.weight"]
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": first.shape[1],
        "out_channels": weights["output.weight"].shape[0],
        "scale": options.scale_or(scale_of_stages(weights, "upscale.{}.weight")),
        "features": first.shape[0],
        "growth": weights["rdbs.0.layers.0.conv.weight"].shape[0],
        "blocks": count(weights, "rdbs.{}.lff.weight"),
        "layers": count(weights, "rdbs.0.layers.{}.conv.weight"),
        "skip": None,
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    rules = [
        (r"head", r"sfe1"),
        (r"second", r"sfe2"),
        (r"blocks\.(\d+)\.layers\.(\d+)", r"rdbs.\1.layers.\2.conv"),
        (r"blocks\.(\d+)\.fuse", r"rdbs.\1.lff"),
        (r"fuse\.(\d)", r"gff.\1"),
        (r"upsampler\.(\d+)", r"upscale.\1"),
        (r"tail", r"output"),
    ]
    return Reading("rdn", arguments, rules)


def _vdsr(weights: Weights, options: Options) -> Reading:
    layers = 2 + count(weights, "residual_layer.{}.conv.weight")
    rules = [(r"head", r"input"), (r"tail", r"output")]
    # our body alternates convolutions and activations
    rules += [(rf"body\.{2 * k}", rf"residual_layer.{k}.conv") for k in range(layers - 2)]
    return _vdsr_of(weights, options, "input", "output", layers, rules)


def _vdsr_features(weights: Weights, options: Options) -> Reading:
    last = count(weights, "features.{}.weight") - 1
    rules = [(r"head", r"features.0"), (r"tail", rf"features.{last}")]
    rules += [(rf"body\.{2 * k}", rf"features.{2 * k + 2}") for k in range(last // 2 - 1)]
    return _vdsr_of(weights, options, "features.0", f"features.{last}", last // 2 + 1, rules)


def _vdsr_of(
    weights: Weights, options: Options, first: str, last: str, layers: int, rules: list[tuple[str, str]]
) -> Reading:
    head = weights[f"{first}.weight"]
    arguments = {
        "ndim": head.dim() - 2,
        "in_channels": head.shape[1],
        "out_channels": weights[f"{last}.weight"].shape[0],
        # one network serves 2, 3 and 4 in the paper; 2 is the first
        "scale": 2 if options.scale is None else options.scale,
        "features": head.shape[0],
        "layers": layers,
        "bias": f"{first}.bias" in weights,
        "skip": "cubic",
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    return Reading("vdsr", arguments, rules)


def _carn(weights: Weights, options: Options) -> Reading:
    first = weights["entry.weight"]
    mobile = "b1.b1.body.4.weight" in weights
    features = first.shape[0]
    prefix, scale = _carn_upsampler(weights, options)
    grouped = weights[f"{prefix}.body.0.weight"]
    bias = weights.get("sub_mean.shifter.bias")
    value_range = 1.0 if options.value_range is None else options.value_range
    arguments = {
        "ndim": first.dim() - 2,
        "in_channels": first.shape[1],
        "out_channels": weights["exit.weight"].shape[0],
        "scale": scale,
        "features": features,
        "mobile": mobile,
        "groups": features // grouped.shape[1],
        "skip": None,
        "mean": DIV2K_MEAN if bias is None else tuple(-float(b) / value_range for b in bias),
        "value_range": value_range,
    }
    rules = [
        (r"head", r"entry"),
        (r"cascade\.fuse\.0", r"c1.body.0"),
        (r"cascade\.fuse\.1", r"c2.body.0"),
        (r"cascade\.fuse\.2", r"c3.body.0"),
        (r"upsampler\.(\d+)", prefix + r".body.\1"),
        (r"tail", r"exit"),
    ]
    for block in range(3):
        rules += [(rf"cascade\.steps\.{block}\.fuse\.{k}", rf"b{block + 1}.c{k + 1}.body.0") for k in range(3)] + [
            (rf"cascade\.steps\.{block}\.steps\.{k}\.layers\.(\d)", rf"b{block + 1}.b{k + 1}.body.\1") for k in range(3)
        ]
    others = r"upsample\.up\d?\..*"
    return Reading("carn", arguments, rules, (r"(sub|add)_mean\.shifter\.(weight|bias)", others))


def _carn_upsampler(weights: Weights, options: Options) -> tuple[str, int]:
    """The upsampler to use: the only one, or the one of the three for the scale asked for (4 unless said otherwise)."""
    if "upsample.up.body.0.weight" in weights:
        features = weights["entry.weight"].shape[0]
        return "upsample.up", options.scale_or(scale_of_stages(weights, "upsample.up.body.{}.weight", features))
    scale = 4 if options.scale is None else options.scale
    if f"upsample.up{scale}.body.0.weight" not in weights:
        raise InputError(f"scale: {scale} was asked for, but this CARN has upsamplers for 2, 3 and 4")
    return f"upsample.up{scale}", scale


def _imdn(weights: Weights, options: Options) -> Reading:
    first, last = weights["fea_conv.weight"], weights["upsampler.0.weight"]
    ndim, channels = first.dim() - 2, first.shape[1]
    narrow = weights["IMDB1.cca.conv_du.0.weight"]
    arguments = {
        "ndim": ndim,
        "in_channels": channels,
        "out_channels": channels,
        "scale": options.scale_or(factor_of(last.shape[0], channels, ndim, "upsampler.0.weight")),
        "features": first.shape[0],
        "blocks": count(weights, "IMDB{}.c1.weight") - 1,
        "reduction": narrow.shape[1] // narrow.shape[0],
        "skip": None,
        "value_range": 1.0 if options.value_range is None else options.value_range,
    }
    rules = [
        (r"head", r"fea_conv"),
        (r"fuse\.0", r"c.0"),
        (r"after_body", r"LR_conv"),
        (r"tail", r"upsampler.0"),
    ]
    for block in range(count(weights, "IMDB{}.c1.weight") - 1):
        ours, theirs = rf"blocks\.{block}\.", f"IMDB{block + 1}."
        names = {"first": "c1", "second": "c2", "third": "c3", "fourth": "c4", "fuse": "c5"}
        rules += [(ours + name, theirs + short) for name, short in names.items()]
        rules.append((ours + r"attention\.gate\.(\d)", theirs + r"cca.conv_du.\1"))
    return Reading("imdn", arguments, rules)


DIALECTS = (
    Dialect(
        "SRCNN, yjn870",
        "https://github.com/yjn870/SRCNN-pytorch",
        ("conv1.weight", "conv2.weight", "conv3.weight"),
        _srcnn,
        without=("conv4.weight", "conv_first.weight"),
        options=("padding",),
    ),
    Dialect(
        "FSRCNN, yjn870",
        "https://github.com/yjn870/FSRCNN-pytorch",
        ("first_part.0.weight", "mid_part.0.weight", "last_part.weight"),
        _fsrcnn,
    ),
    Dialect(
        "ESPCN, yjn870",
        "https://github.com/yjn870/ESPCN-pytorch",
        ("first_part.0.weight", "first_part.2.weight", "last_part.0.weight"),
        _espcn,
    ),
    Dialect(
        "RDN, yjn870",
        "https://github.com/yjn870/RDN-pytorch",
        ("sfe1.weight", "rdbs.0.layers.0.conv.weight", "gff.0.weight", "output.weight"),
        _rdn,
    ),
    Dialect(
        "VDSR, twtygqyy",
        "https://github.com/twtygqyy/pytorch-vdsr",
        ("input.weight", "residual_layer.0.conv.weight", "output.weight"),
        _vdsr,
    ),
    Dialect(
        "VDSR, twtygqyy's first release",
        "https://github.com/twtygqyy/pytorch-vdsr",
        ("features.0.weight", "features.2.weight"),
        _vdsr_features,
        without=("features.1.weight", "classifier.0.weight"),
    ),
    Dialect(
        "CARN, nmhkahn",
        "https://github.com/nmhkahn/CARN-pytorch",
        ("entry.weight", "b1.b1.body.0.weight", "b1.c1.body.0.weight", "exit.weight"),
        _carn,
    ),
    Dialect(
        "IMDN, Zheng222",
        "https://github.com/Zheng222/IMDN",
        ("fea_conv.weight", "IMDB1.c1.weight", "IMDB1.cca.conv_du.0.weight", "upsampler.0.weight"),
        _imdn,
    ),
)
"""In the order in which they are tried."""

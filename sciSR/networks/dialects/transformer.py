"""The dialect of SwinIR's authors."""

from __future__ import annotations

from typing import Any

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

_BLOCK = "layers.{}.residual_group.blocks.{}."
_JPEG_WINDOW = 7


def _swinir(weights: Weights, options: Options) -> Reading:
    if "absolute_pos_embed" in weights:
        raise CheckpointError(
            "absolute_pos_embed: SwinIR with absolute positions serves one image size and is not read"
        )
    first = weights["conv_first.weight"]
    ndim, channels, features = first.dim() - 2, first.shape[1], first.shape[0]
    groups = count(weights, "layers.{}.")
    depths = tuple(count(weights, f"layers.{g}.residual_group.blocks.{{}}.norm1.weight") for g in range(groups))
    window, heads = _attention(weights, ndim, depths)
    ends = _ends(weights, ndim, channels)
    # JPEG artefacts are the one task with windows of 7, and the one with images of 0 to 255
    restores = ends["upsampler"] is None
    usual = 255.0 if restores and window == _JPEG_WINDOW else 1.0
    attention = _BLOCK.format(0, 0)
    arguments = {
        "ndim": ndim,
        "in_channels": channels,
        "out_channels": channels,
        **ends,
        "scale": options.scale_or(ends["scale"]),
        "features": features,
        "depths": depths,
        "heads": heads,
        "window": window,
        "mlp_ratio": weights[attention + "mlp.fc1.weight"].shape[0] / features,
        "three_convolutions": "layers.0.conv.2.weight" in weights,
        "shift": _is_shifted(weights),
        "qkv_bias": attention + "attn.qkv.bias" in weights,
        "patch_norm": "patch_embed.norm.weight" in weights,
        "skip": "cubic" if restores else None,
        "mean": DIV2K_MEAN if channels == len(DIV2K_MEAN) else None,
        "value_range": usual if options.value_range is None else options.value_range,
    }
    ignored = (r".*attn_mask", r".*relative_position_index", r"mean")
    return Reading("swinir", arguments, _rules(ends["upsampler"]), ignored)


def _attention(weights: Weights, ndim: int, depths: tuple[int, ...]) -> tuple[int, int]:
    """Window and heads, which must be the same in all groups."""
    tables = {
        tuple(weights[_BLOCK.format(g, b) + "attn.relative_position_bias_table"].shape)
        for g, depth in enumerate(depths)
        for b in range(depth)
    }
    if len(tables) != 1:
        raise CheckpointError(f"attn.relative_position_bias_table: shapes {sorted(tables)} differ between layers")
    rows, heads = tables.pop()
    side = round(rows ** (1 / ndim))
    if side**ndim != rows or side % 2 == 0:
        raise CheckpointError(f"attn.relative_position_bias_table: {rows} rows fit no square window")
    return (side + 1) // 2, heads


def _is_shifted(weights: Weights) -> bool:
    """Masks of shifted windows are in the file unless it was made for images of one window."""
    has_index = any(key.endswith("relative_position_index") for key in weights)
    return not has_index or any(key.endswith("attn_mask") for key in weights)


def _ends(weights: Weights, ndim: int, channels: int) -> dict[str, Any]:
    """Upsampler, its channels, scale."""
    if "conv_before_upsample.0.weight" in weights:
        fine = weights["conv_before_upsample.0.weight"].shape[0]
        if "conv_up1.weight" in weights:
            return {"upsampler": "nearest", "fine_features": fine, "scale": 2 ** (count(weights, "conv_up{}.") - 1)}
        scale = scale_of_stages(weights, "upsample.{}.weight")
        return {"upsampler": "pixelshuffle", "fine_features": fine, "scale": scale}
    if "upsample.0.weight" in weights:
        wide = weights["upsample.0.weight"].shape[0]
        return {"upsampler": "direct", "scale": factor_of(wide, channels, ndim, "upsample.0.weight")}
    return {"upsampler": None, "scale": 1}


def _rules(upsampler: str | None) -> list[tuple[str, str]]:
    block = r"groups\.(\d+)\.blocks\.(\d+)\."
    there = r"layers.\1.residual_group.blocks.\2."
    rules = [
        (r"head", r"conv_first"),
        (r"entry_norm", r"patch_embed.norm"),
        (block + r"(norm[12])", there + r"\3"),
        (block + r"attention\.(qkv|proj)", there + r"attn.\3"),
        (block + r"attention", there + r"attn"),
        (block + r"mlp\.linear([12])", there + r"mlp.fc\3"),
        (r"groups\.(\d+)\.last\.(\d)", r"layers.\1.conv.\2"),
        (r"groups\.(\d+)\.last", r"layers.\1.conv"),
        (r"exit_norm", r"norm"),
        (r"after_body\.(\d)", r"conv_after_body.\1"),
        (r"after_body", r"conv_after_body"),
        (r"upsampler\.0", r"conv_before_upsample.0"),
    ]
    if upsampler == "direct":
        return [*rules, (r"tail\.0", r"upsample.0")]
    if upsampler == "pixelshuffle":
        rules.append((r"upsampler\.2\.(\d+)", r"upsample.\1"))
    if upsampler == "nearest":
        rules += [
            (r"upsampler\.2\.1", r"conv_up1"),
            (r"upsampler\.2\.4", r"conv_up2"),
            (r"upsampler\.3", r"conv_hr"),
        ]
    return [*rules, (r"tail", r"conv_last")]


DIALECTS = (
    Dialect(
        "SwinIR, JingyunLiang",
        "https://github.com/JingyunLiang/SwinIR",
        (
            "conv_first.weight",
            "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
            "conv_after_body.weight",
        ),
        _swinir,
    ),
    Dialect(
        "SwinIR with three convolutions, JingyunLiang",
        "https://github.com/JingyunLiang/SwinIR",
        (
            "conv_first.weight",
            "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
            "conv_after_body.0.weight",
        ),
        _swinir,
    ),
)
"""In the order in which they are tried."""

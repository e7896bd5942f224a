"""SwinIR: the published code's output from the published names, windows, options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from sciSR.errors import CheckpointError, InputError
from sciSR.networks import build_network, load_network

W = dict[str, Tensor]
MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).reshape(1, 3, 1, 1)


def made(kind: str, scale: int, *, window: int = 4, channels: int = 3, three: bool = False, shifted: bool = True) -> W:
    """Seeded weights under the published names: two groups of two blocks, 8 features, 2 heads."""
    random = torch.Generator().manual_seed(3)
    w: W = {}

    def conv(key: str, out: int, into: int, kernel: int = 3) -> None:
        w[f"{key}.weight"] = torch.randn(out, into, kernel, kernel, generator=random) / (into * kernel**2) ** 0.5
        w[f"{key}.bias"] = 0.1 * torch.randn(out, generator=random)

    def linear(key: str, out: int, into: int) -> None:
        w[f"{key}.weight"] = torch.randn(out, into, generator=random) / into**0.5
        w[f"{key}.bias"] = 0.1 * torch.randn(out, generator=random)

    def norm(key: str) -> None:
        w[f"{key}.weight"] = 1 + 0.1 * torch.randn(8, generator=random)
        w[f"{key}.bias"] = 0.1 * torch.randn(8, generator=random)

    def end(key: str) -> None:
        if three:
            conv(f"{key}.0", 2, 8)
            conv(f"{key}.2", 2, 2, 1)
            conv(f"{key}.4", 8, 2)
        else:
            conv(key, 8, 8)

    conv("conv_first", 8, channels)
    norm("patch_embed.norm")
    for g in range(2):
        for b in range(2):
            key = f"layers.{g}.residual_group.blocks.{b}"
            norm(f"{key}.norm1")
            w[f"{key}.attn.relative_position_bias_table"] = torch.randn((2 * window - 1) ** 2, 2, generator=random)
            w[f"{key}.attn.relative_position_index"] = torch.zeros(window**2, window**2, dtype=torch.long)
            if b and shifted:
                w[f"{key}.attn_mask"] = torch.zeros(1, window**2, window**2)
            linear(f"{key}.attn.qkv", 24, 8)
            linear(f"{key}.attn.proj", 8, 8)
            norm(f"{key}.norm2")
            linear(f"{key}.mlp.fc1", 16, 8)
            linear(f"{key}.mlp.fc2", 8, 16)
        end(f"layers.{g}.conv")
    norm("norm")
    end("conv_after_body")
    if kind == "direct":
        conv("upsample.0", channels * scale**2, 8)
    elif kind == "pixelshuffle":
        conv("conv_before_upsample.0", 6, 8)
        for stage in (0, 2) if scale == 4 else (0,):
            conv(f"upsample.{stage}", 6 * (9 if scale == 3 else 4), 6)
        conv("conv_last", channels, 6)
    elif kind == "nearest":
        conv("conv_before_upsample.0", 6, 8)
        for key in ("conv_up1", "conv_up2", "conv_hr"):
            conv(key, 6, 6)
        conv("conv_last", channels, 6)
    else:
        conv("conv_last", channels, 8)
    return w


def restated(
    w: W, kind: str, scale: int, *, window: int = 4, span: float = 1.0, shifted: bool = True
) -> Callable[[Tensor], Tensor]:
    """The published forward pass, with windows as sets of tokens: no roll and no mask."""

    def c(key: str, x: Tensor) -> Tensor:
        weight = w[f"{key}.weight"]
        return F.conv2d(x, weight, w[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def norm(key: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (8,), w[f"{key}.weight"], w[f"{key}.bias"])

    def lin(key: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{key}.weight"], w[f"{key}.bias"])

    def end(key: str, x: Tensor) -> Tensor:
        if f"{key}.weight" in w:
            return c(key, x)
        return c(f"{key}.4", F.leaky_relu(c(f"{key}.2", F.leaky_relu(c(f"{key}.0", x), 0.2)), 0.2))

    def attend(key: str, x: Tensor, shift: int) -> Tensor:
        out = torch.empty_like(x)
        rows = torch.arange(x.shape[1])
        columns = torch.arange(x.shape[2])
        for i in range(-1, x.shape[1] // window + 1):
            for j in range(-1, x.shape[2] // window + 1):
                at = torch.cartesian_prod(
                    rows[(rows - shift) // window == i], columns[(columns - shift) // window == j]
                )
                if not len(at):
                    continue
                tokens = x[0, at[:, 0], at[:, 1]]
                q, k, v = lin(f"{key}.qkv", tokens).reshape(-1, 3, 2, 4).permute(1, 2, 0, 3)
                apart = at[:, None] - at[None] + window - 1
                row = apart[..., 0] * (2 * window - 1) + apart[..., 1]
                bias = w[f"{key}.relative_position_bias_table"][row].permute(2, 0, 1)
                score = (q @ k.transpose(1, 2)) / 4**0.5 + bias
                y = (score.softmax(-1) @ v).transpose(0, 1).reshape(len(at), 8)
                out[0, at[:, 0], at[:, 1]] = lin(f"{key}.proj", y)
        return out

    def forward(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        mean = MEAN if x.shape[1] == 3 else torch.zeros(1)
        x = F.pad(x / span, (0, -width % window, 0, -height % window), "reflect")
        x = (x - mean) * span
        first = c("conv_first", x)
        t = norm("patch_embed.norm", first.permute(0, 2, 3, 1))
        for g in range(2):
            start = t
            for b in range(2):
                key = f"layers.{g}.residual_group.blocks.{b}"
                t = t + attend(f"{key}.attn", norm(f"{key}.norm1", t), window // 2 * b if shifted else 0)
                t = t + lin(f"{key}.mlp.fc2", F.gelu(lin(f"{key}.mlp.fc1", norm(f"{key}.norm2", t))))
            t = start + end(f"layers.{g}.conv", t.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = end("conv_after_body", norm("norm", t).permute(0, 3, 1, 2)) + first
        if kind == "direct":
            y = F.pixel_shuffle(c("upsample.0", y), scale)
        elif kind == "none":
            y = x + c("conv_last", y)
        else:
            y = F.leaky_relu(c("conv_before_upsample.0", y), 0.01)
            if kind == "pixelshuffle":
                for stage in (0, 2) if scale == 4 else (0,):
                    y = F.pixel_shuffle(c(f"upsample.{stage}", y), 3 if scale == 3 else 2)
            else:
                for key in ("conv_up1", "conv_up2"):
                    y = F.leaky_relu(c(key, F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
                y = F.leaky_relu(c("conv_hr", y), 0.2)
            y = c("conv_last", y)
        return ((y / span + mean) * span)[..., : height * scale, : width * scale]

    return forward


@pytest.mark.parametrize(
    ("kind", "scale", "changes"),
    [
        ("direct", 2, {}),
        ("direct", 3, {"channels": 1}),
        ("pixelshuffle", 2, {}),
        ("pixelshuffle", 3, {}),
        ("pixelshuffle", 4, {"window": 5}),
        ("nearest", 4, {}),
        ("nearest", 4, {"three": True}),
        ("none", 1, {}),
        ("none", 1, {"channels": 1, "window": 7}),
        ("direct", 2, {"shifted": False}),
    ],
)
@pytest.mark.parametrize("shape", [(8, 12), (13, 10)])
def test_gives_the_published_output(
    kind: str, scale: int, changes: dict[str, Any], shape: tuple[int, int], tmp_path: Path
) -> None:
    w = made(kind, scale, **changes)
    torch.save({"params": w}, tmp_path / "weights.pth")
    network = load_network(tmp_path / "weights.pth")
    # windows of 7 are for JPEG artefacts, trained on 0 to 255
    span = 255.0 if changes.get("window") == 7 else 1.0
    x = torch.rand(1, changes.get("channels", 3), *shape, generator=torch.Generator().manual_seed(1)) * span
    options = {k: v for k, v in changes.items() if k in ("window", "shifted")}
    with torch.inference_mode():
        expected, found = restated(w, kind, scale, span=span, **options)(x), network(x)
    assert network.spec.value_range == span
    assert network.spec.scale == (scale, scale)
    assert network.spec.alignment == (changes.get("window", 4),) * 2
    assert float((found - expected).abs().max()) <= 2e-5 * span


def test_absolute_positions_are_refused(tmp_path: Path) -> None:
    w = made("direct", 2) | {"absolute_pos_embed": torch.zeros(1, 4, 8)}
    torch.save(w, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="absolute_pos_embed"):
        load_network(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": 7}, "no multiple of heads"),
        ({"window": 1}, "window 1"),
        ({"upsampler": "bilinear"}, "upsampler 'bilinear'"),
        ({"upsampler": None}, "the scale must be 1"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], words: str) -> None:
    arguments = {"features": 8, "heads": 2, "depths": (1,)} | changes
    with pytest.raises(InputError, match=words):
        build_network("swinir", ndim=2, in_channels=1, scale=2, **arguments)

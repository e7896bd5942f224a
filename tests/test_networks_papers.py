"""With the papers' settings the networks have the papers' sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciSR.networks import build_network

# family, arguments, weights of kernels only or everything, published number, where
PUBLISHED: list[tuple[str, dict[str, Any], bool, int]] = [
    # Dong 2016, arXiv:1501.00092, table 1 and section 4.3.1: 8,032 for 9-1-5 and 57,184 for 9-5-5
    ("srcnn", {"scale": 3, "in_channels": 1}, True, 8_032),
    ("srcnn", {"scale": 3, "in_channels": 1, "kernels": (9, 5, 5)}, True, 57_184),
    # Dong 2016, arXiv:1608.00367, table 1: 12,464 for FSRCNN(56, 12, 4), rectifier slopes not counted
    ("fsrcnn", {"scale": 3, "in_channels": 1}, True, 12_464),
    # Kim 2016, arXiv:1511.04587: 20 layers of 64 filters of 3x3
    ("vdsr", {"scale": 2, "in_channels": 1}, True, 576 + 18 * 36_864 + 576),
    # Tai 2017, doi:10.1109/CVPR.2017.298: 297 thousand for B1U25
    ("drrn", {"scale": 2, "in_channels": 1}, True, 297_216),
    # Zhang 2018, arXiv:1807.02758: 15.59 million at x4; the official module's 15,592,379 count 24 of the mean shifts
    ("rcan", {"scale": 4, "in_channels": 3, "groups": 10, "blocks": 20}, False, 15_592_379 - 24),
    # BasicSR and ESRGAN: 16.70 million
    ("rrdbnet", {"scale": 4, "in_channels": 3}, False, 16_697_987),
    # BasicSR's MSRResNet x4: 1.52 million
    ("msrresnet", {"scale": 4, "in_channels": 3}, False, 1_517_571),
    # yjn870/RDN-pytorch and Zhang 2018: 22.12 million at x2
    ("rdn", {"scale": 2, "in_channels": 3}, False, 22_123_395),
    # Hui 2019, arXiv:1909.11856, table 5: 694 K at x2, 703 K at x3, 715 K at x4
    ("imdn", {"scale": 2, "in_channels": 3}, False, 694_000),
    ("imdn", {"scale": 3, "in_channels": 3}, False, 703_000),
    ("imdn", {"scale": 4, "in_channels": 3}, False, 715_000),
    # light: 910 K at x2 and 930 K at x4 in Zhang 2022, arXiv:2203.06697, table 1 (the SwinIR paper says 878 K and
    # 897 K, which its published code does not have); classical: 11.8 million in Liang 2021, arXiv:2108.10257
    ("swinir", {"scale": 2, "in_channels": 3}, False, 910_000),
    ("swinir", {"scale": 4, "in_channels": 3}, False, 930_000),
    (
        "swinir",
        {"scale": 2, "in_channels": 3, "features": 180, "depths": (6,) * 6, "upsampler": "pixelshuffle"},
        False,
        11_752_487,
    ),
    # the same with 11.9 million at x4; real-world large, 28.0 million with its published keys
    (
        "swinir",
        {"scale": 4, "in_channels": 3, "features": 180, "depths": (6,) * 6, "upsampler": "pixelshuffle"},
        False,
        11_900_199,
    ),
    (
        "swinir",
        {
            "scale": 4,
            "in_channels": 3,
            "features": 240,
            "depths": (6,) * 9,
            "heads": 8,
            "upsampler": "nearest",
            "three_convolutions": True,
        },
        False,
        28_013_059,
    ),
    # Lim 2017, arXiv:1707.02921: baseline x2, x3, x4 of the published code, and the large network's 40.7 million at x2
    ("edsr", {"scale": 2, "in_channels": 3}, False, 1_369_859),
    ("edsr", {"scale": 3, "in_channels": 3}, False, 1_554_499),
    ("edsr", {"scale": 4, "in_channels": 3}, False, 1_517_571),
    ("edsr", {"scale": 2, "in_channels": 3, "features": 256, "blocks": 32}, False, 40_729_603),
    # Real-ESRGAN: realesr-animevideov3 has 16 layers of 64 features: 621 thousand
    ("srvgg", {"scale": 4, "in_channels": 3}, False, 621_424),
]


@pytest.mark.parametrize(("family", "arguments", "kernels_only", "published"), PUBLISHED)
def test_size(family: str, arguments: dict[str, Any], kernels_only: bool, published: int) -> None:
    with torch.device("meta"):
        network = build_network(family, ndim=2, skip=None, **arguments)
    count = sum(p.numel() for p in network.parameters() if p.dim() > 1 or not kernels_only)
    assert count == pytest.approx(published, rel=0 if published % 1000 else 2e-3)


@pytest.mark.parametrize(
    ("arguments", "kernels_only", "published"),
    # Ahn 2018, arXiv:1803.08664, table 1: 412 thousand for CARN-M (without biases) and 1,592 thousand for CARN, each
    # with its upsamplers for 2, 3 and 4
    [({"mobile": True, "groups": 4}, True, 412_000), ({"mobile": False, "groups": 1}, False, 1_592_000)],
)
def test_carn_has_three_upsamplers(arguments: dict[str, Any], kernels_only: bool, published: int) -> None:
    def size(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.dim() > 1 or not kernels_only)

    with torch.device("meta"):
        networks = [build_network("carn", ndim=2, in_channels=3, scale=s, skip=None, **arguments) for s in (2, 3, 4)]
    upsamplers = sum(size(n.get_submodule("upsampler")) for n in networks)
    common = size(networks[0]) - size(networks[0].get_submodule("upsampler"))
    assert common + upsamplers == pytest.approx(published, rel=1e-3)

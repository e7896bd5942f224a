"""What each network is and costs: the table of ``scisr models``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sciSR.networks import NETWORKS, build_network, list_weights, weights_path
from sciSR.networks.checkpoint import read_header
from sciSR.networks.spec import SRNetwork

__all__ = ["PAPERS", "NetworkSummary", "summarise", "summarise_families", "summarise_weights"]

PAPERS: Mapping[str, str] = {
    "carn": "Ahn 2018, arXiv:1803.08664",
    "drrn": "Tai 2017, doi:10.1109/CVPR.2017.298",
    "edsr": "Lim 2017, arXiv:1707.02921",
    "encoder_decoder": "after Mao 2016, arXiv:1603.09056",
    "espcn": "Shi 2016, arXiv:1609.05158",
    "fsrcnn": "Dong 2016, arXiv:1608.00367",
    "imdn": "Hui 2019, arXiv:1909.11856",
    "mdcsrn": "Chen 2018, arXiv:1803.01417",
    "mobile": "after Sandler 2018, arXiv:1801.04381",
    "msrresnet": "after Ledig 2017, arXiv:1609.04802 (BasicSR)",
    "rcan": "Zhang 2018, arXiv:1807.02758",
    "rdn": "Zhang 2018, arXiv:1802.08797",
    "rrdbnet": "Wang 2018, arXiv:1809.00219 (ESRGAN)",
    "srcnn": "Dong 2014, arXiv:1501.00092",
    "srresnet": "Ledig 2017, arXiv:1609.04802 (SRGAN)",
    "srvgg": "Wang 2021, arXiv:2107.10833 (Real-ESRGAN)",
    "swinir": "Liang 2021, arXiv:2108.10257",
    "unet": "Ronneberger 2015, arXiv:1505.04597",
    "vdsr": "Kim 2016, arXiv:1511.04587",
}
"""Where each family comes from."""

_PROBE = {2: 96, 3: 48}
"""Pixels per axis of the image that operations are counted on; a multiple of all alignments."""


@dataclass(frozen=True)
class NetworkSummary:
    """One row of the table.

    Attributes:
        name: of the family or the weights.
        family: of the network.
        paper: where it comes from.
        ndim: spatial axes.
        scale: whole factor per axis.
        in_channels: channels it takes.
        parameters: numbers that are learned.
        receptive_radius: input pixels on each side per axis, or None where nothing bounds them.
        exact_tiling: whether tiles give the whole image's values.
        gflop: 10^9 multiplications and additions per million output pixels.
    """

    name: str
    family: str
    paper: str
    ndim: int
    scale: tuple[int, ...]
    in_channels: int
    parameters: int
    receptive_radius: tuple[int, ...] | None
    exact_tiling: bool
    gflop: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def summarise(network: SRNetwork, name: str | None = None) -> NetworkSummary:
    """The row of a network; runs it once on the meta device, which costs nothing.

    Example:
        >>> network = build_network("srcnn", ndim=2, in_channels=1, scale=2)
        >>> summarise(network).parameters
        8129
    """
    spec = network.spec
    return NetworkSummary(
        name=name or network.family,
        family=network.family,
        paper=PAPERS.get(network.family, ""),
        ndim=spec.ndim,
        scale=spec.scale,
        in_channels=spec.in_channels,
        parameters=sum(p.numel() for p in network.parameters()),
        receptive_radius=spec.receptive_radius,
        exact_tiling=spec.exact_tiling,
        gflop=_gflop(network),
    )


def summarise_families(*, ndim: int = 2, scale: int = 2, in_channels: int = 1) -> list[NetworkSummary]:
    """Every family with its default arguments."""
    with torch.device("meta"):
        networks = [build_network(f, ndim=ndim, in_channels=in_channels, scale=scale) for f in sorted(NETWORKS)]
    return [summarise(network) for network in networks]


def summarise_weights(names: list[str | os.PathLike[str]] | None = None) -> list[NetworkSummary]:
    """The weights that ship, or checkpoints by path; their headers are read, not their tensors."""
    rows = []
    for name in list_weights() if names is None else names:
        header = read_header(weights_path(name))
        with torch.device("meta"):
            network = build_network(header.family, **header.arguments)
        rows.append(summarise(network, header.card.name))
    return rows


def _gflop(network: SRNetwork) -> float:
    """Counted on an image of the meta device, of convolutions and matrix products."""
    spec = network.spec
    sides = [-(-_PROBE[spec.ndim] // a) * a for a in spec.alignment]
    arguments = network.arguments
    with torch.device("meta"):
        probe = build_network(network.family, **arguments).eval() if network.family in NETWORKS else network
        x = torch.empty(1, spec.in_channels, *sides)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            pixels: int = prod(probe(x).shape[2:])
    operations = float(counter.get_total_flops())
    return operations / pixels / 1e3

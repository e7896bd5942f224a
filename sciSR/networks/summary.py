"""What a network is and costs, by building it and counting."""

from __future__ import annotations

import os
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode

from sciSR.networks import NETWORKS, build_network, list_weights, weights_path
from sciSR.networks.checkpoint import read_header
from sciSR.networks.figures import PAPERS, NetworkSummary
from sciSR.networks.spec import SRNetwork

__all__ = ["summarise", "summarise_families", "summarise_weights"]

_PROBE = {2: 96, 3: 48}
"""Pixels per axis of the image that operations are counted on; a multiple of all alignments."""


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

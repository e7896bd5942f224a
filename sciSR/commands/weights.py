"""``scisr import``: published weights become a checkpoint that says everything about itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from sciSR.commands.upscale import given
from sciSR.console import Console
from sciSR.errors import InputError, OutputExistsError
from sciSR.networks import load_network
from sciSR.networks.checkpoint import save_checkpoint
from sciSR.record import sha256_of

__all__ = ["run"]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Convert the weights; gives the exit code."""
    source, target = Path(arguments.weights), Path(arguments.output)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: a checkpoint is written as .safetensors; choose this ending")
    if target.exists() and not arguments.overwrite:
        raise OutputExistsError(f"{target}: exists already; choose another name or allow overwriting (--overwrite)")
    options = given(arguments, ("scale", "residual_scale", "value_range", "padding"))
    network = load_network(source, **options)
    card = network.card
    provenance = {**(dict(card.provenance) if card else {}), "imported": source.name, "sha256": sha256_of(source)}
    save_checkpoint(
        network,
        target,
        normalization=card.normalization if card else None,
        sensor=card.sensor if card else None,
        bands=card.bands if card else None,
        provenance=provenance,
        halo=network.spec.halo,
        name=arguments.name or target.stem,
    )
    scale = ", ".join(f"{axis}={s}" for axis, s in network.spec.scale_by_axis.items())
    count = sum(p.numel() for p in network.parameters())
    console.say(f"weights  {target}  ({network.family}, {count:,} parameters, scale {scale})")
    return 0

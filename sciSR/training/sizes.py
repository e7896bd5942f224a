"""What making a network smaller changed: size, speed and held-out PSNR, before and after."""

from __future__ import annotations

import gzip
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch

from sciSR.networks.spec import SRNetwork
from sciSR.training.validation import Validator, mean_scores

__all__ = ["Measured", "measure", "size_table", "trial_table"]

_PROBE = {2: 96, 3: 32}
"""Coarse pixels per axis of the input that is timed."""
_TURNS = 5


@dataclass(frozen=True)
class Measured:
    """One network in the table.

    Attributes:
        network: what it is.
        parameters: all of them.
        nonzero: those that are not zero.
        megabytes: of the weights' file, in 10^6 bytes.
        packed: of that file compressed by gzip, which is where zeros pay.
        speed: coarse pixels per second on the device that trained, median of five turns.
        psnr: in dB, mean over the held-out rasters; None where nothing is held out.
    """

    network: str
    parameters: int
    nonzero: int
    megabytes: float
    packed: float
    speed: float
    psnr: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        return asdict(self)


def measure(name: str, network: SRNetwork, validator: Validator) -> Measured:
    """The row of a network, which lies on the validator's device."""
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    raw = safetensors.torch.save(weights)
    parameters = list(network.parameters())
    return Measured(
        name,
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(torch.count_nonzero(p)) for p in parameters),
        megabytes=round(len(raw) / 1e6, 4),
        packed=round(len(gzip.compress(raw)) / 1e6, 4),
        speed=_speed(network, validator.device),
        psnr=mean_scores(list(validator.score(network).values())).psnr if validator.crops else None,
    )


def _speed(network: SRNetwork, device: torch.device) -> float:
    """Coarse pixels per second on a fixed small input."""
    spec = network.spec
    sides = [-(-max(_PROBE[spec.ndim], m) // a) * a for m, a in zip(spec.minimum, spec.alignment, strict=True)]
    sample = torch.rand(1, spec.in_channels, *sides, generator=torch.Generator().manual_seed(0)).to(device)
    training = network.training
    network.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(_TURNS + 1):  # the first also sets things up
            begun = time.perf_counter()
            float(network(sample).sum())  # waits for the device
            seconds.append(time.perf_counter() - begun)
    network.train(training)
    return round(sample[0, 0].numel() / statistics.median(seconds[1:]), 1)


def size_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Networks before and after, as Markdown."""
    lines = [
        "| network | parameters | not zero | MB | MB, gzip | coarse pixels/s | held-out PSNR, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        score = "-" if row["psnr"] is None else f"{row['psnr']:.2f}"
        lines.append(
            f"| {row['network']} | {row['parameters']} | {row['nonzero']} | {row['megabytes']:.3f} | "
            f"{row['packed']:.3f} | {row['speed']:.3g} | {score} |"
        )
    return "\n".join(lines)


def trial_table(trials: Sequence[Mapping[str, Any]]) -> str:
    """What a search tried, best first, as Markdown; the first was taken."""
    lines = [
        "| searched | features | blocks | parameters | GFLOP per 10^6 pixels | PSNR after the trial, dB |",
        "|---|---|---|---|---|---|",
    ]
    for number, trial in enumerate(trials):
        lines.append(
            f"| {'chosen' if number == 0 else ''} | {trial['features']} | {trial['blocks']} | {trial['parameters']} | "
            f"{trial['gflop']:.1f} | {trial['psnr']:.2f} |"
        )
    return "\n".join(lines)

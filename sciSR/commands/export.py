"""``scisr export``: a network as ONNX, for other programs."""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from sciSR.console import Console
from sciSR.errors import InputError, RunError
from sciSR.files import check_free
from sciSR.networks import load_network
from sciSR.networks.export import export_onnx
from sciSR.networks.spec import SRNetwork

__all__ = ["run"]

_TOLERANCE = 1e-4
_MARGIN = {2: 8, 3: 4}
"""Pixels by which the checked patch is larger than the one that the graph was traced with, before alignment."""


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Export the network and compare it with torch; gives the exit code."""
    target = Path(arguments.output)
    if target.suffix != ".onnx":
        raise InputError(f"{target}: ONNX is written as .onnx; choose this ending")
    check_free(target, arguments.overwrite)
    network = load_network(arguments.model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as folder:
        written = export_onnx(network, Path(folder) / target.name)
        difference = _difference(network, written)
        if difference is not None and difference > _TOLERANCE:
            raise RunError(f"{target}: the exported network differs from torch by {difference:.1e} of the range")
        os.replace(written, target)
    checked = "not compared, onnxruntime is not installed" if difference is None else f"differs by {difference:.0e}"
    console.say(f"network  {target}  (output against torch: {checked})")
    return 0


def _difference(network: SRNetwork, path: Path) -> float | None:
    """Greatest difference between the file and torch on a random patch, as part of its range; None without runtime."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # type: ignore[import-untyped]  # ships no types

    spec = network.spec
    size = [
        -(-(max(24, least) + _MARGIN[spec.ndim]) // a) * a
        for least, a in zip(spec.minimum, spec.alignment, strict=True)
    ]
    x = torch.rand(1, spec.in_channels, *size, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network.eval()(x)
    got = torch.from_numpy(session.run(["high"], {"low": x.numpy()})[0])
    return float((got - expected).abs().max() / (expected.max() - expected.min()).clamp_min(1e-12))

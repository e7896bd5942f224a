"""``scisr export``: a network as ONNX, for other programs."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sciSR import __version__
from sciSR.console import Console
from sciSR.errors import InputError, OutputExistsError, RunError
from sciSR.networks import load_network
from sciSR.networks.spec import SRNetwork
from sciSR.record import plain

__all__ = ["export_onnx", "run"]

_OPSET = 18
_TOLERANCE = 1e-4


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Export the network; gives the exit code."""
    target = Path(arguments.output)
    if target.suffix != ".onnx":
        raise InputError(f"{target}: ONNX is written as .onnx; choose this ending")
    if target.exists() and not arguments.overwrite:
        raise OutputExistsError(f"{target}: exists already; choose another name or allow overwriting (--overwrite)")
    network = load_network(arguments.model)
    difference = export_onnx(network, target)
    checked = "not checked: onnxruntime is not installed" if difference is None else f"differs by {difference:.1e}"
    console.say(f"network  {target}  (opset {_OPSET}; output against torch: {checked})")
    return 0


def export_onnx(network: SRNetwork, path: Path) -> float | None:
    """Write a network as ONNX with free batch and spatial axes; the file appears whole or not at all.

    Input ``low`` and output ``high`` are in the network's own range; the intensity map lies in the file's metadata.

    Returns:
        The greatest difference to torch on a random patch, relative to its range; None without onnxruntime.

    Raises:
        InputError: the packages that write ONNX are not installed.
        RunError: the written network gives other values.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"export: {', '.join(missing)} not installed; pip install onnx onnxscript")
    spec = network.spec
    size = max(12, *(m + 4 for m in spec.minimum))
    example = torch.randn(2, spec.in_channels, *[size + i for i in range(spec.ndim)], generator=_generator())
    free = {0: torch.export.Dim("batch", min=1)}
    for i, axis in enumerate(spec.axes):
        free[2 + i] = torch.export.Dim(axis, min=max(2, spec.minimum[i]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
        written = Path(folder) / path.name
        program = torch.onnx.export(
            network.eval(), (example,), dynamo=True, dynamic_shapes=(free,), input_names=["low"],
            output_names=["high"], opset_version=_OPSET, verbose=False,
        )  # fmt: skip
        if program is None:
            raise RunError(f"{path}: torch exported nothing")
        program.model.metadata_props.update(_metadata(network))
        program.save(str(written), external_data=False)
        difference = _difference(network, written, size)
        if difference is not None and difference > _TOLERANCE:
            raise RunError(f"{path}: the exported network differs from torch by {difference:.1e} of the range")
        os.replace(written, path)
    return difference


def _metadata(network: SRNetwork) -> dict[str, str]:
    card = network.card
    facts: dict[str, Any] = {
        "scisr_version": __version__,
        "family": network.family,
        "spec": network.spec.to_dict(),
        "name": card.name if card else network.family,
        "normalization": card.normalization.to_dict() if card and card.normalization else None,
        "bands": card.bands if card else None,
    }
    return {k: v if isinstance(v, str) else json.dumps(plain(v), sort_keys=True) for k, v in facts.items()}


def _difference(network: SRNetwork, path: Path, size: int) -> float | None:
    """On a patch of another size than the one exported with."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # type: ignore[import-untyped]  # ships no types

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(1, network.spec.in_channels, *[size + 3] * network.spec.ndim, generator=_generator())
    with torch.inference_mode():
        expected = network.eval()(x)
    got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    return float((got - expected).abs().max() / (expected.max() - expected.min()).clamp_min(1e-12))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)

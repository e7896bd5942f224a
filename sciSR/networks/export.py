"""Networks as ONNX files, for programs that have no PyTorch; needs the extra ``scisr[onnx]``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sciSR.errors import InputError, RunError
from sciSR.files import whole_file
from sciSR.networks.spec import SRNetwork

__all__ = ["export_onnx"]

_LEAST = {2: 32, 3: 16}


def export_onnx(
    network: SRNetwork, path: str | os.PathLike[str], *, size: Sequence[int] | None = None, dynamic: bool = True
) -> Path:
    """Write a network as ONNX: input ``low`` ``(b, c, [z,] y, x)`` float32, output ``high``.

    The file's metadata entry ``scisr`` holds, as JSON, the spec, the card's name, normalization and bands. Sizes must
    be multiples of the spec's alignment: what the network does at odd edges is not part of the graph.

    Args:
        network: the network, whole: interpolation and residual.
        path: the file, usually ``.onnx``.
        size: pixels per spatial axis that the graph is traced with, and that it is fixed to unless ``dynamic``.
        dynamic: let batch and spatial sizes vary.

    Returns:
        The path written.

    Raises:
        InputError: onnx or onnxscript is not installed, or a size that does not fit.
        RunError: PyTorch could not translate the network.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise InputError(f"export: {package} is not installed; pip install 'scisr[onnx]'")
    spec = network.spec
    shape = _shape(network, size)
    low = torch.rand(2 if dynamic else 1, spec.in_channels, *shape)
    varying = {0: torch.export.Dim.DYNAMIC} | {axis + 2: torch.export.Dim.DYNAMIC for axis in range(spec.ndim)}
    training = network.training
    try:
        with torch.no_grad(), _quiet():
            program: Any = torch.onnx.export(
                network.eval(),
                (low,),
                input_names=["low"],
                output_names=["high"],
                dynamo=True,
                verbose=False,
                dynamic_shapes=(varying,) if dynamic else None,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"export: {network.family or 'this network'} cannot be written as ONNX: {reason}") from error
    finally:
        network.train(training)
    program.model.metadata_props["scisr"] = json.dumps(_card(network), sort_keys=True, ensure_ascii=False)
    target = Path(path)
    with whole_file(target) as temporary:
        program.save(temporary)
    return target


def _shape(network: SRNetwork, size: Sequence[int] | None) -> tuple[int, ...]:
    spec = network.spec
    if size is None:
        return tuple(-(-_LEAST[spec.ndim] // a) * a for a in spec.alignment)
    if len(size) != spec.ndim or any(n < 1 or n % a for n, a in zip(size, spec.alignment, strict=False)):
        axes = ", ".join(spec.axes)
        raise InputError(
            f"export: size {tuple(size)} came; expected one multiple of {spec.alignment} for each of {axes}"
        )
    return tuple(size)


def _card(network: SRNetwork) -> dict[str, Any]:
    card = network.card
    normalization = card.normalization.to_dict() if card is not None and card.normalization is not None else None
    return {
        "family": network.family,
        "name": None if card is None else card.name,
        "spec": network.spec.to_dict(),
        "normalization": normalization,
        "bands": None if card is None or card.bands is None else list(card.bands),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about a torchvision that nothing here uses."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)

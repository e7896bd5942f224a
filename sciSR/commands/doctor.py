"""``scisr doctor``: what this installation has, for a report of a problem or to see why it is slow."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sciSR.console import Console
from sciSR.record import machine_facts, plain, version_facts

__all__ = ["findings", "run"]

_EXTRAS = {
    "openvino": "faster networks on Intel CPUs",
    "onnx": "scisr export",
    "onnxscript": "scisr export",
    "onnxruntime": "checks of exported networks",
    "spandrel": "more published weights",
    "rioxarray": "scenes through xarray",
    "distributed": "clusters",
    "SimpleITK": "NRRD and MetaImage",
    "pydicom": "DICOM series",
    "tensorboard": "training curves in a browser",
}


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the findings; gives the exit code."""
    facts = findings()
    if arguments.json:
        console.answer(json.dumps(facts, indent=1, ensure_ascii=False))
        return 0
    for title, values in facts.items():
        console.answer(title)
        for key, value in values.items():
            shown = ", ".join(str(v) for v in value) if isinstance(value, list) else value
            console.answer(f"  {key:<20} {'none' if shown in ('', None) else shown}")
    return 0


def findings() -> dict[str, Any]:
    """Versions, processor and devices, memory, optional packages, shipped weights; plain values."""
    import torch

    from sciSR.backends import has_fast_bfloat16, pick_device
    from sciSR.memory import available_memory
    from sciSR.networks import list_weights

    memory = available_memory()
    machine = {
        **machine_facts(),
        "fast_bfloat16": has_fast_bfloat16(pick_device("auto")),
        "device": str(pick_device("auto")),
        "memory_free_gb": None if memory is None else round(memory / 1e9, 1),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]  # torch leaves it untyped
    }
    import_module("sciSR.io.geotiff")  # so that GDAL tells its version
    place = {
        "package": str(Path(__file__).resolve().parents[1]),
        "python": sys.executable,
        "current_folder": os.getcwd(),
        "weights": list_weights(),
    }
    extras = {name: _installed(name) or f"not installed ({use})" for name, use in _EXTRAS.items()}
    found: dict[str, Any] = plain(
        {"versions": version_facts(), "machine": machine, "installation": place, "optional": extras}
    )
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

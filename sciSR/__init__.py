"""sciSR: super-resolution for scientific rasters. The public API, by name; heavy parts load when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Grid": "sciSR.grid",
    "Raster": "sciSR.raster",
    "open_raster": "sciSR.io",
    "save_raster": "sciSR.io",
    "load_network": "sciSR.networks",
    "degrade": "sciSR.degradation",
    "upscale": "sciSR.inference",
    "train": "sciSR.training",
    "evaluate": "sciSR.evaluation",
    "run_workflow": "sciSR.workflow",
}
"""Public name -> the module it lives in."""

__all__ = [
    "Grid",
    "Raster",
    "__version__",
    "degrade",
    "evaluate",
    "load_network",
    "open_raster",
    "run_workflow",
    "save_raster",
    "train",
    "upscale",
]

if TYPE_CHECKING:
    from sciSR.degradation import degrade
    from sciSR.evaluation import evaluate
    from sciSR.grid import Grid
    from sciSR.inference import upscale
    from sciSR.io import open_raster, save_raster
    from sciSR.networks import load_network
    from sciSR.raster import Raster
    from sciSR.training import train
    from sciSR.workflow import run_workflow


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sciSR' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

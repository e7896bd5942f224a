"""Whole scenes from file to file on a GPU, beside MONAI's: ``python -m benchmarks.gpu.scene``.

The network is the EDSR 16 x 64 of ``benchmarks/engine.py``, x2, and then the shipped s2-x2; every run is warm. MONAI's
inferer and the write after it are what a user of both would do; it gets a part of the scene, as it takes long.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import engine
from benchmarks.gpu import pack
from benchmarks.gpu.report import add_to_report, arguments
from benchmarks.gpu.throughput import bare_rate, median_seconds
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization

SCALE = 10_000.0


@dataclass(frozen=True)
class Scene:
    """A file with a square scene of so many pixels."""

    path: Path
    side: int


def main() -> None:
    """Print the table and add it to the report."""
    parser = arguments(__doc__)
    parser.add_argument("--side", type=int, default=10_980, help="pixels of the square scene, 4 bands")
    parser.add_argument("--part", type=int, default=5_490, help="pixels of the scene that MONAI gets too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        add_to_report(options.output, _table(options, Path(folder)))


def _table(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    yield "## Scenes from file to file, 4 bands uint16, GeoTIFF with deflate, x2"
    yield ""
    if find_spec("rasterio") is None:
        yield "not run: rasterio is not here (carry .rio)"
        return
    gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if gpu else "CPU"
    yield f"{name}, {engine._machine()} Medians of {options.runs} runs after one warm-up."
    yield "MONAI's runs are single, at PyTorch's own float32 (TF32 on a GPU) and at bfloat16."
    yield ""
    yield "| network | scene | arm | seconds | times sciSR's | share of the bare forward's rate |"
    yield "|---|---|---|---|---|---|"
    part, whole = (_scene(folder, side) for side in (options.part, options.side))
    for title, weights in (("EDSR 16 x 64", ""), ("s2-x2", "s2-x2")):
        network = engine._network(False, weights)
        rate = bare_rate(network, options.device, "bf16" if gpu else "float32")
        _ours(network, part, options.device)
        took: dict[int, float] = {}
        for scene in (part, whole):
            took[scene.side] = median_seconds(
                partial(_ours, network, scene, options.device), options.runs, options.device
            )
            share = scene.side**2 / rate / took[scene.side]
            yield f"| {title} | {scene.side}^2 | sciSR | {took[scene.side]:.2f} | 1 | {share:.2f} |"
        for low in (False, True) if not weights else ():
            arm = "MONAI, overlap 0.25, then rasterio" + (", bfloat16" if low else "")
            _monai(network, _scene(folder, 512), options.device, low)
            seconds = median_seconds(partial(_monai, network, part, options.device, low), 1, options.device)
            yield f"| {title} | {part.side}^2 | {arm} | {seconds:.1f} | {seconds / took[part.side]:.1f} | – |"
    yield ""


def _scene(folder: Path, side: int) -> Scene:
    """A file of the packed scene, mirrored as often as needed."""
    import rasterio

    path = folder / f"{side}.tif"
    if not path.exists():
        values = pack.load("sentinel2_10m_b02b03b04b08")
        rows, columns = (engine._mirror(n, side) for n in values.shape[1:])
        profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint16", "count": 4, "width": side, "height": side}
        profile |= {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 435730, 0, -10, 4179460)}
        profile |= {"tiled": True, "compress": "deflate", "predictor": 2, "zlevel": 1, "num_threads": "ALL_CPUS"}
        with rasterio.open(path, "w", **profile) as file:
            for start in range(0, side, 512):
                window = rasterio.windows.Window(0, start, side, min(512, side - start))
                file.write(values[:, rows[start : start + 512]][:, :, columns], window=window)
    return Scene(path, side)


def _ours(network: SRNetwork, scene: Scene, device: str) -> None:
    raster = open_raster(scene.path)
    fine = upscale(raster, network, normalization=Normalization("fixed", scale=(SCALE,)), device=device)
    save_raster(fine, scene.path.with_name("ours.tif"), overwrite=True)


def _monai(network: SRNetwork, scene: Scene, device: str, low: bool) -> None:
    from monai.inferers import SlidingWindowInferer

    torch.backends.cudnn.allow_tf32 = True  # as PyTorch has it
    x, like = engine._read(scene.path, volume=False)
    there = network.to(device)
    inferer = SlidingWindowInferer((128, 128), sw_batch_size=16, overlap=0.25, mode="gaussian")
    with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=low):
        fine = inferer(x.to(device), there)
    engine._write(fine.float().cpu(), like, scene.path.with_name("monai.tif"), volume=False)


if __name__ == "__main__":
    main()

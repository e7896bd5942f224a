"""How fast the shipped networks run: ``python -m benchmarks.gpu.throughput``. One row per network and precision."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu import pack
from sciSR.inference import upscale
from sciSR.networks import list_weights, load_network
from sciSR.raster import Raster


def main() -> None:
    """Print the table and add it to the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scene", type=int, default=4096, help="pixels of the square scene")
    parser.add_argument("--volume", type=int, default=256, help="voxels of the cubic volume")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=pack.ROOT / "out/gpu")
    options = parser.parse_args()
    gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if gpu else "CPU"
    lines = [
        "## Throughput of upscale(), reading to the last value in memory",
        "",
        f"{name}, torch {torch.__version__}; median of {options.runs} after one warm-up",
        "",
        "| weights | input | precision | seconds | million output values/s | GPU memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for weights in list_weights():
        network = load_network(weights)
        raster = _input(network.spec.ndim, network.spec.in_channels, options)
        for precision in ("float32", "bf16"):
            result = upscale(raster, network, device=options.device, precision=precision)
            times = []
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            for _ in range(options.runs + 1):
                start = time.perf_counter()
                total = sum(block.values.size for _, block in result.stream())
                times.append(time.perf_counter() - start)
            seconds = statistics.median(times[1:])
            memory = torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0
            shape = "x".join(map(str, raster.shape))
            lines.append(
                f"| {weights} | {shape} | {precision} | {seconds:.2f} | {total / seconds / 1e6:.1f} | {memory:.1f} |"
            )
            print(lines[-1], flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "REPORT.md").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n\n")


def _input(ndim: int, channels: int, options: argparse.Namespace) -> Raster:
    """Real values, repeated to the size that was asked for."""
    if ndim == 3:
        values = pack.load("t1_head_0")
        n = options.volume
        return Raster.from_array(_repeated(values, (n, n, n)), affine=np.eye(4), axes="zyx", name="volume")
    values = pack.load("sentinel2_10m_b02b03b04b08")[:channels]
    n = options.scene
    names = ("B02", "B03", "B04", "B08")[:channels]
    scene = _repeated(values, (channels, n, n))
    return Raster.from_array(scene, affine=np.diag([10.0, -10.0, 1.0]), axes="cyx", channels=names, name="scene")


def _repeated(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    times = [-(-n // m) for n, m in zip(shape, values.shape, strict=True)]
    return np.ascontiguousarray(np.tile(values, times)[tuple(slice(0, n) for n in shape)])


if __name__ == "__main__":
    main()

"""How fast the shipped networks run: ``python -m benchmarks.gpu.throughput``. One row per network and precision."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu import pack
from benchmarks.gpu.report import add_to_report, arguments
from sciSR.backends import Precision, prepare
from sciSR.inference import upscale
from sciSR.networks import list_weights, load_network
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster


def main() -> None:
    """Print the table and add it to the report."""
    parser = arguments(__doc__)
    parser.add_argument("--scene", type=int, default=4096, help="pixels of the square scene")
    parser.add_argument("--volume", type=int, default=256, help="voxels of the cubic volume")
    options = parser.parse_args()
    add_to_report(options.output, _table(options))


def _table(options: argparse.Namespace) -> Iterator[str]:
    gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if gpu else "CPU"
    yield "## Throughput of upscale(), reading to the last value in memory"
    yield ""
    yield f"{name}, torch {torch.__version__}; median of {options.runs} after one warm-up"
    yield ""
    yield (
        "| weights | input | precision | seconds | million output values/s | share of the bare forward's rate "
        "| GPU memory, GB |"
    )
    yield "|---|---|---|---|---|---|---|"
    for weights in list_weights():
        network = load_network(weights)
        raster = _input(network.spec.ndim, network.spec.in_channels, options)
        for precision in ("float32", "bf16"):
            result = upscale(raster, network, device=options.device, precision=precision)
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            _drain(result)
            memory = torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0
            seconds = median_seconds(partial(_drain, result), options.runs, options.device)
            total, pixels = math.prod(result.shape), math.prod(raster.grid.shape)
            share = pixels / bare_rate(network, options.device, precision) / seconds
            shape = "x".join(map(str, raster.shape))
            yield (
                f"| {weights} | {shape} | {precision} | {seconds:.2f} | {total / seconds / 1e6:.1f} | {share:.2f} "
                f"| {memory:.1f} |"
            )
    yield ""


def _drain(result: Raster) -> None:
    for _ in result.stream():
        pass


def bare_rate(network: SRNetwork, device: str, precision: Precision) -> float:
    """Input pixels a second of the network alone, on a tile that lies on the device; float32 without TF32, as ours."""
    torch.backends.cudnn.allow_tf32 = False
    sides = {2: 1024, 3: 128} if device.startswith("cuda") else {2: 128, 3: 32}
    size = [sides[network.spec.ndim]] * network.spec.ndim
    runner = prepare(network, torch.device(device), precision)
    x = torch.rand(1, network.spec.in_channels, *size, device=device)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(5):
                runner.forward(x)

    forward()
    return 5 * math.prod(size) / median_seconds(forward, 3, device)


def median_seconds(work: Callable[[], None], runs: int, device: str) -> float:
    """Median of the seconds that it takes, all work on the device included."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _input(ndim: int, channels: int, options: argparse.Namespace) -> Raster:
    """Real values, repeated to the size that was asked for."""
    if ndim == 3:
        values = pack.load("t1_colin27_1mm")
        n = options.volume
        return Raster.from_array(_repeated(values, (n, n, n)), affine=np.eye(4), axes="zyx", name="volume")
    values = pack.load("sentinel2_10m_b02b03b04b08")[:channels]
    n = options.scene
    names = ("B02", "B03", "B04", "B08")[:channels]
    scene = _repeated(values, (channels, n, n))
    return Raster.from_array(scene, affine=np.diag([10.0, -10.0, 1.0]), axes="cyx", channels=names, name="scene")


def _repeated(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of ``values``, repeated where it is not enough."""
    start = [max(0, (m - n) // 2) for n, m in zip(shape, values.shape, strict=True)]
    part = values[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
    times = [-(-n // m) for n, m in zip(shape, part.shape, strict=True)]
    return np.ascontiguousarray(np.tile(part, times)[tuple(slice(0, n) for n in shape)])


if __name__ == "__main__":
    main()

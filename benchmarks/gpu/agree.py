"""Whether the GPU computes what the CPU does: ``python -m benchmarks.gpu.agree``. Ends with an error if it does not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.gpu import pack
from sciSR.degradation import load_sensor
from sciSR.inference import upscale
from sciSR.metrics import psnr
from sciSR.networks import list_weights, load_network
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Augmentation, PairMaker, Reference, decode


def main() -> None:
    """Print one line per check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    bad = 0
    for what, value, limit, fine in (*_upscaling(options.device), *_batches(options.device), *_step(options.device)):
        print(f"{'ok ' if fine else 'BAD'} {what}: {value:.3g} (limit {limit:g})", flush=True)
        bad += not fine
    sys.exit(1 if bad else 0)


def _upscaling(device: str) -> Iterator[tuple[str, float, float, bool]]:
    """Every shipped network: float32 against the CPU, bfloat16 against float32, tiles against the whole."""
    for name in list_weights():
        network = load_network(name)
        scan = _sample(network.spec.ndim, network.spec.in_channels)
        truth = upscale(scan, network, device="cpu", precision="float32", tile=None).read().values
        span = float(truth.max() - truth.min())
        full = upscale(scan, network, device=device, precision="float32", tile=None).read().values
        tiled = upscale(scan, network, device=device, precision="float32", tile=32).read().values
        low = upscale(scan, network, device=device, precision="bf16", tile=None).read().values
        error = float(np.abs(full - truth).max()) / span
        yield f"{name} float32, {device} against cpu, of the range", error, 2e-5, error <= 2e-5
        error = float(np.abs(tiled - full).max()) / span
        yield f"{name} tiles of 32 against whole, of the range", error, 2e-5, error <= 2e-5
        decibel = psnr(low, full, data_range=span)
        yield f"{name} bf16 against float32, dB", decibel, 60.0, decibel >= 60


def _sample(ndim: int, channels: int) -> Raster:
    if ndim == 3:
        values = pack.load("t1_colin27_1mm")[60:110, 80:136, 60:120]
        return Raster.from_array(values, affine=np.eye(4), axes="zyx", name="head")
    values = pack.load("sentinel2_10m_b02b03b04b08")[:channels, 300:396, 300:420]
    names = ("B02", "B03", "B04", "B08")[:channels]
    return Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="cyx", channels=names, name="scene")


def _maker(device: str) -> PairMaker:
    scan = _sample(3, 1)
    crops = decode(Reference(scan), normalization=Normalization("percentile"), channels=1, scale=(2, 2, 2))
    vary = Augmentation(gain=(0.7, 1.4), gamma=(0.7, 1.4), invert=0.3, width=(0.8, 1.2))
    return PairMaker(
        crops, patch=(8, 8, 8), scale=(2, 2, 2), sensor=load_sensor("mri"), augmentation=vary, device=device
    )


def _batches(device: str) -> Iterator[tuple[str, float, float, bool]]:
    """Training pairs made on the device."""
    there, here = _maker(device).make(0, 3, range(8)), _maker("cpu").make(0, 3, range(8))
    for what, a, b in (("coarse", there.low, here.low), ("fine", there.high, here.high)):
        error = float((a.cpu() - b).abs().max())
        yield f"{what} batch made on {device} against cpu", error, 1e-4, error <= 1e-4


def _step(device: str) -> Iterator[tuple[str, float, float, bool]]:
    """Loss and gradient of one training step."""
    low, high, _ = _maker("cpu").make(0, 0, range(4))
    found = {}
    for where in ("cpu", device):
        network = load_network("mri-x2").to(where).train()
        loss = torch.nn.functional.l1_loss(network(low.to(where)), high.to(where))
        loss.backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None])
        found[where] = (float(loss.detach()), gradient)
    error = abs(found["cpu"][0] - found[device][0])
    yield "loss of a step", error, 1e-5, error <= 1e-5
    difference = float((found["cpu"][1] - found[device][1]).norm() / found["cpu"][1].norm())
    yield "gradient of a step, relative", difference, 1e-2, difference <= 1e-2


if __name__ == "__main__":
    main()

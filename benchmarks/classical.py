"""What the classical methods reach on the project's data: PSNR, SSIM and consistency, with and without noise.

    python benchmarks/classical.py [--only Sentinel] [--fitted] [-o benchmarks/results/classical.md]

``--fitted`` also learns the least-squares filter, a sparse dictionary and A+ on another scan or another part of the
scene, which takes minutes. The reference is a part of each scan; what the sensor sees of it is refined and compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sciSR import open_raster
from sciSR.classical import build_classical
from sciSR.classical.dictionary import APlus, Sparse
from sciSR.classical.fitting import fit_dictionary
from sciSR.classical.least_squares import fit_least_squares
from sciSR.degradation import load_sensor
from sciSR.metrics import psnr, ssim
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster

METHODS = ("nearest", "linear", "cubic", "bspline", "lanczos", "ibp", "wiener", "tv")


class Case(NamedTuple):
    """One row of the table."""

    name: str
    reference: Raster
    examples: Raster
    scale: Any
    sensor: str
    noise: float


def cases(data: Path) -> Iterator[Case]:
    """The references: a head, another head, a CT, a scene; the examples are of the other head or elsewhere."""
    head = open_raster(data / "mri/t1_head_0.7mm_pddl.nii.gz").crop(
        z=slice(60, 172), y=slice(140, 252), x=slice(100, 212)
    )
    other = open_raster(data / "mri/t1_head_1mm_pycortex.nii.gz").crop(
        z=slice(80, 192), y=slice(80, 192), x=slice(80, 192)
    )
    skull = open_raster(data / "ct/ct_head_0.96x0.96x1.5mm.nii.gz")
    bone = skull.crop(z=slice(20, 100), y=slice(120, 232), x=slice(120, 232))
    rest = skull.crop(z=slice(100, 180), y=slice(120, 232), x=slice(120, 232))
    scene = open_raster(data / "sat/sentinel2_10m_b02b03b04b08.tif")
    town, land = scene.crop(y=slice(600, 1112), x=slice(400, 912)), scene.crop(y=slice(1200, 1900))
    for name, reference, examples in (("T1 head 0.7 mm", head, other), ("T1 head 1 mm", other, head)):
        yield Case(name, reference, examples, 2, "mri", 0.0)
        yield Case(name, reference, examples, 2, "box", 0.0)
        yield Case(name, reference, examples, {"z": 4}, "mri-thick", 0.0)
        yield Case(name, reference, examples, 2, "mri", 0.02)
    yield Case("CT head", bone, rest, 2, "ct", 0.0)
    yield Case("CT head", bone, rest, {"z": 4}, "ct-thick", 0.0)
    yield Case("CT head", bone, rest, 2, "ct", 0.02)
    yield Case("Sentinel-2", town, land, 2, "s2", 0.0)
    yield Case("Sentinel-2", town, land, 4, "s2", 0.0)
    yield Case("Sentinel-2", town, land, 2, "s2", 0.01)


def methods(case: Case, fitted: bool) -> Iterator[tuple[str, SRNetwork]]:
    """The methods by name, ready to run."""
    ndim = len(case.reference.grid.shape)
    sensor = load_sensor(case.sensor)
    noisy = {**sensor.to_dict(), "noise": {"kind": "gaussian", "std": case.noise}}
    for name in METHODS:
        yield name, build_classical(name, ndim=ndim, scale=case.scale, sensor=noisy)
    yield "wiener, noise 0.3", build_classical("wiener", ndim=ndim, scale=case.scale, sensor=sensor, noise=0.3)
    if fitted:
        yield "least squares", fit_least_squares([case.examples], ndim=ndim, scale=case.scale, sensor=noisy)
        yield "sparse", fit_dictionary(Sparse, [case.examples], ndim=ndim, scale=case.scale, sensor=noisy, atoms=256)
        yield "A+", fit_dictionary(APlus, [case.examples], ndim=ndim, scale=case.scale, sensor=noisy, atoms=256)


def rows(case: Case, fitted: bool) -> Iterator[str]:
    """Lines of a Markdown table for one case."""
    values = case.reference.read().values.astype(np.float32)
    low_end, high_end = np.percentile(values, [0.5, 99.5])
    fine = torch.from_numpy((values - low_end) / (high_end - low_end))
    fine = fine[None, None] if fine.dim() == 3 and case.reference.channel_axis is None else fine[:, None]
    sensor = load_sensor(case.sensor)
    low = sensor.apply(fine, case.scale, noise=False)
    generator = torch.Generator().manual_seed(0)
    seen = low + case.noise * torch.randn(low.shape, generator=generator)
    for name, network in methods(case, fitted):
        start = time.perf_counter()
        with torch.inference_mode():
            result = network(seen)
        seconds = time.perf_counter() - start
        off = float((sensor.apply(result, case.scale, noise=False) - seen).square().mean().sqrt())
        fidelity = float(psnr(result, fine, data_range=1.0))
        likeness = float(ssim(result, fine, data_range=1.0))
        scale = case.scale if isinstance(case.scale, int) else ", ".join(f"{a}={f}" for a, f in case.scale.items())
        case_cells = f"| {case.name} | {scale} | {case.sensor} | {case.noise:g} | {name} "
        yield f"{case_cells}| {fidelity:.2f} | {likeness:.4f} | {100 * off:.3f} | {seconds:.1f} |"


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--fitted", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| reference | scale | sensor | noise | method | PSNR dB | SSIM | D(SR)-LR, % of range | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for case in (case for case in cases(arguments.data) if arguments.only in case.name):
        for line in rows(case, arguments.fitted):
            print(line, flush=True)
            lines.append(line)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text("# Classical methods\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

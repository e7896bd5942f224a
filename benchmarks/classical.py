"""What the classical methods reach on the project's data, beside the networks that ship: PSNR, SSIM and consistency.

    python benchmarks/classical.py [--only Sentinel] [-o benchmarks/results/classical.md]

The reference is a part of a scan or scene on which no shipped network was trained (for the 0.7 mm head, the CT and
Sentinel-2: a part held out of the file that it was trained on). What the sensor sees of it is refined and compared.
The least-squares filter, the sparse dictionary and A+ are fitted to another scan, or to another part of the scene;
``--quick`` leaves them out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciSR import load_network, open_raster
from sciSR.classical import build_classical
from sciSR.classical.dictionary import APlus, Sparse
from sciSR.classical.fitting import fit_dictionary
from sciSR.classical.least_squares import fit_least_squares
from sciSR.degradation import load_sensor
from sciSR.metrics import psnr, ssim
from sciSR.raster import Raster

METHODS = ("nearest", "linear", "cubic", "bspline", "lanczos", "ibp", "wiener", "tv")
SHIPPED = {("mri", 2): "mri-x2", ("mri-thick", 4): "mri-z4", ("ct", 2): "ct-x2", ("sentinel-2", 2): "s2-x2"}
"""Networks by the sensor that they were trained for and their factor."""

Method = Callable[[Tensor], Tensor]
"""Coarse values ``(b, c, [z,] y, x)``, 0 to 1 over the reference's robust range, refined."""


class Case(NamedTuple):
    """One reference and how it is made coarse; ``noise`` is its standard deviation as a part of the range."""

    name: str
    reference: Raster
    examples: Raster
    scale: Any
    sensor: str
    noise: float


def cases(data: Path) -> Iterator[Case]:
    """The references, and what is fitted to: the other head, another part of the CT or of the scene."""
    whole = open_raster(data / "mri/t1_head_0.7mm_pddl.nii.gz")
    head = whole.crop(z=slice(200, 264), y=slice(200, 272), x=slice(100, 172))
    other = open_raster(data / "mri/t1_head_1mm_pycortex.nii.gz")
    other = other.crop(z=slice(90, 154), y=slice(90, 162), x=slice(90, 162))
    skull = open_raster(data / "ct/ct_head_0.96x0.96x1.5mm.nii.gz")
    bone = skull.crop(z=slice(0, 40), y=slice(80, 176), x=slice(80, 176))
    rest = skull.crop(z=slice(44, 84), y=slice(80, 176), x=slice(80, 176))
    scene = open_raster(data / "sat/sentinel2_10m_b02b03b04b08.tif")
    town = scene.crop(y=slice(640, 960), x=slice(640, 960))
    land = scene.crop(y=slice(1200, 1520), x=slice(400, 720))
    yield Case("T1 head 0.7 mm", head, other, 2, "mri", 0.0)
    yield Case("T1 head 0.7 mm", head, other, 2, "mri", 0.02)
    yield Case("T1 head 0.7 mm", head, other, {"z": 4}, "mri-thick", 0.0)
    yield Case("T1 head 1 mm", other, head, 2, "mri", 0.0)
    yield Case("T1 head 1 mm", other, head, {"z": 4}, "mri-thick", 0.0)
    yield Case("CT head", bone, rest, 2, "ct", 0.0)
    yield Case("Sentinel-2", town, land, 2, "sentinel-2", 0.0)
    yield Case("Sentinel-2", town, land, 2, "sentinel-2", 0.01)
    yield Case("Sentinel-2", town, land, 4, "sentinel-2", 0.0)


def methods(case: Case, span: tuple[float, float], quick: bool) -> Iterator[tuple[str, Method]]:
    """The methods by name, ready to run."""
    ndim = len(case.reference.grid.shape)
    sensor = load_sensor(case.sensor)
    noisy = {**sensor.to_dict(), "noise": {"kind": "gaussian", "std": case.noise}}
    for name in METHODS:
        yield name, build_classical(name, ndim=ndim, scale=case.scale, sensor=noisy)
    if case.noise:
        # it wants the noise in parts of the difference of neighbours, which differs from scan to scan
        yield "wiener, noise 0.3", build_classical("wiener", ndim=ndim, scale=case.scale, sensor=sensor, noise=0.3)
    if not quick:
        known = {"ndim": ndim, "scale": case.scale, "sensor": noisy}
        yield "**least squares**", fit_least_squares([case.examples], **known)
        yield "sparse", fit_dictionary(Sparse, [case.examples], atoms=128, examples=40_000, **known)
        yield "A+", fit_dictionary(APlus, [case.examples], atoms=128, examples=40_000, **known)
    factor = case.scale if isinstance(case.scale, int) else case.scale["z"]
    shipped = SHIPPED.get((case.sensor, factor))
    if shipped is not None:
        yield f"network {shipped}", _network(shipped, case.reference, span)


def _network(name: str, reference: Raster, span: tuple[float, float]) -> Method:
    """A shipped network on values of 0 to 1: through physical ones to its own range and back."""
    network = load_network(name)
    assert network.card is not None
    assert network.card.normalization is not None
    mapped = network.card.normalization.fit(reference)
    low, width = span[0], span[1] - span[0]

    def run(x: Tensor) -> Tensor:
        # bands lie along the batch for all others
        bands = network.spec.in_channels > 1
        physical = (x.movedim(0, 1) if bands else x).numpy() * width + low
        fine = network(torch.from_numpy(mapped.apply(physical)))
        result = torch.from_numpy((mapped.invert(fine.numpy()) - low) / width)
        return result.movedim(0, 1) if bands else result

    return run


def rows(case: Case, quick: bool) -> Iterator[str]:
    """Lines of a Markdown table for one case."""
    values = case.reference.read().values.astype(np.float32)
    low_end, high_end = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    fine = torch.from_numpy((values - low_end) / (high_end - low_end))
    fine = fine[None, None] if case.reference.channel_axis is None else fine[:, None]
    sensor = load_sensor(case.sensor)
    low = sensor.apply(fine, case.scale, noise=False)
    seen = low + case.noise * torch.randn(low.shape, generator=torch.Generator().manual_seed(0))
    scale = case.scale if isinstance(case.scale, int) else ", ".join(f"{a}={f}" for a, f in case.scale.items())
    for name, method in methods(case, (low_end, high_end), quick):
        with torch.inference_mode():
            result = method(seen)
        off = float((sensor.apply(result, case.scale, noise=False) - seen).square().mean().sqrt())
        fidelity = float(psnr(result, fine, data_range=1.0))
        likeness = float(ssim(result, fine, data_range=1.0))
        cells = (case.name, scale, case.sensor, f"{case.noise:g}", name, f"{fidelity:.2f}", f"{likeness:.4f}")
        yield f"| {' | '.join(map(str, cells))} | {100 * off:.3f} |"


_HEADING = """# Classical methods, and the networks that ship

Made by `python benchmarks/classical.py -o benchmarks/results/classical.md` on the project's data. Each reference is a
part of a scan or scene on which no shipped network was trained (the 1 mm head served to choose among training steps).
The fitted methods (least squares, sparse, A+) learned from another scan, or from another part of the scene, of about
the reference's size. PSNR and SSIM are of values between the reference's percentiles 0.5 and 99.5, of a scene
the means of its bands' own; the last column is
how far the result is from the input once the sensor sees it again, as a part of that range; noise is the standard
deviation of what was added to the input, likewise. **Least squares** is the best filter that is linear, on the examples
that it had: a network must beat it, and Wiener's filter, which needs none, to be worth its time.

"""


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--quick", action="store_true", help="without the methods that must be fitted")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| reference | scale | sensor | noise | method | PSNR dB | SSIM | D(SR)-LR, % of range |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for case in (case for case in cases(arguments.data) if arguments.only in case.name):
        for line in rows(case, arguments.quick):
            print(line, flush=True)
            lines.append(line)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(_HEADING + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

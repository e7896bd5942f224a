"""Learning from one scan with thick slices, beside ECLARE 1.0.1 and the classical methods: time, PSNR, SSIM.

    python benchmarks/selfsupervised.py                                # all rows, and the table of benchmarks/results
    python benchmarks/selfsupervised.py --arms shipped noise           # some of them; the others' rows are kept
    python -m venv .venv-eclare && .venv-eclare/bin/pip install ECLARE==1.0.1    # what the arm eclare needs

Two scans. "head": 96 x 96 x 24 voxels of 1 x 1 x 4 mm, made from a 1 mm head that no shipped weights were trained on,
with the slice profile of mri-thick; the 1 mm head is the truth, its range the data range. "clinical": a real scan of
0.78 x 0.78 x 6.5 mm, for which there is no truth: how well the result explains the scan, and how much detail it has
across the slices beside what it has in plane in the same band of frequencies (1: as much).

ECLARE runs as a program in an environment of its own, because of its licence and its pinned packages. It is told the
slice thickness, so that it need not estimate it, and as many patches as bring it to about the time of the others; its
default of a million patches would take days on these cores. Seconds are of the wall and of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciSR.consistency import residual
from sciSR.degradation import degrade, load_sensor
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.metrics import psnr, ssim
from sciSR.raster import Raster
from sciSR.training import train_self

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "../shared/data/mri"
CROP = {"z": slice(60, 156), "y": slice(62, 158), "x": slice(80, 176)}
NOISE: dict[str, Any] = {
    "network": {"family": "edsr", "scale": {"z": 4}, "features": 16, "blocks": 6},
    "sensor": "mri-thick",
    "learning_rate": 2e-3,
}
"""What replaces the shipped network where nothing is known beforehand."""
ARMS = ("cubic", "ibp", "as shipped", "shipped", "noise", "eclare")
TITLES = {
    "cubic": "cubic",
    "ibp": "cubic + back-projection",
    "as shipped": "mri-z4 as it ships",
    "shipped": "sciSR, mode self, from mri-z4 (the default)",
    "noise": "sciSR, mode self, from noise",
    "eclare": "ECLARE 1.0.1",
}


def main() -> None:
    """Run the arms and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--scans", nargs="*", default=["head", "clinical"], choices=["head", "clinical"])
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each of sciSR's own rows")
    parser.add_argument("--eclare", type=Path, default=ROOT / ".venv-eclare/bin/run-eclare")
    parser.add_argument("--patches", type=int, default=192, help="for ECLARE")
    parser.add_argument("--rows", type=Path, default=ROOT / "out/benchmarks/selfsupervised.json")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/selfsupervised.md")
    options = parser.parse_args()
    rows: dict[str, Any] = json.loads(options.rows.read_text()) if options.rows.exists() else {}
    for scan_name in options.scans:
        scan, truth = head() if scan_name == "head" else clinical()
        for arm in options.arms:
            if scan_name == "clinical" and arm == "eclare":
                continue  # 512 slices of 256 pixels
            row = measure(arm, scan, truth, options)
            print(scan_name, arm, row, flush=True)
            rows[f"{scan_name}/{arm}"] = row
            options.rows.parent.mkdir(parents=True, exist_ok=True)
            options.rows.write_text(json.dumps(rows, indent=1))
    text = table(rows, options)
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")


def head() -> tuple[Raster, np.ndarray[Any, Any]]:
    """The simulated scan, and the truth."""
    fine = open_raster(DATA / "t1_head_1mm_pycortex.nii.gz").crop(**CROP)
    low = degrade(fine, {"z": 4}, sensor="mri-thick")
    scan = Raster.from_array(low.read().values, affine=low.grid.center_affine, axes="zyx", name="head")
    return scan, fine.read().values.astype(np.float32)


def clinical() -> tuple[Raster, None]:
    """The real scan."""
    return open_raster(DATA / "t1gd_brain_0.78x0.78x6.5mm.nii.gz"), None


def measure(arm: str, scan: Raster, truth: np.ndarray[Any, Any] | None, options: argparse.Namespace) -> dict[str, Any]:
    """One row: seconds to train and to apply, and the scores."""
    start, cpu = time.perf_counter(), _processor()
    note = ""
    with tempfile.TemporaryDirectory() as folder:
        if arm in ("shipped", "noise"):
            made = train_self(
                scan,
                Path(folder) / "own.safetensors",
                minutes=options.minutes,
                device="cpu",
                trackers=(),
                **(NOISE if arm == "noise" else {}),
            )
            note = f"{made.values['steps']} steps"
            fine = upscale(scan, str(made.path))
        elif arm == "eclare":
            fine = eclare(scan, Path(folder), options)
            note = f"{options.patches} patches"
        else:
            fine = (
                upscale(scan, "mri-z4")
                if arm == "as shipped"
                else upscale(scan, arm, scale={"z": 4}, sensor="mri-thick")
            )
        values = fine.read().values.astype(np.float32)
    row: dict[str, Any] = {
        "wall": time.perf_counter() - start,
        "processor": _processor() - cpu,
        "load": os.getloadavg()[0],
        "note": note,
    }
    if truth is not None:
        span = float(truth.max() - truth.min())
        row |= {"psnr": psnr(values, truth, data_range=span), "ssim": ssim(values, truth, data_range=span)}
    else:
        whole = Raster.from_array(values, affine=fine.grid.center_affine, axes="zyx", name="result")
        row |= {
            "residual": residual(whole, scan, load_sensor("mri-thick")).relative,
            "detail": detail(values, [fine.grid.spacing[a] for a in "zyx"], scan.grid.spacing["z"]),
        }
    return row


def eclare(scan: Raster, folder: Path, options: argparse.Namespace) -> Raster:
    """What ECLARE makes of the scan."""
    source = save_raster(scan, folder / "scan.nii.gz")
    command = [
        str(options.eclare), "--in-fpath", str(source), "--out-dir", str(folder), "--relative-slice-thickness", "4",
        "--n-patches", str(options.patches), "--batch-size", "16",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return open_raster(folder / "scan_eclare.nii.gz")


def detail(values: np.ndarray[Any, Any], spacing: list[float], slices: float) -> float:
    """Amplitude across the slices beside that in plane, between the slices' Nyquist frequency and the result's own."""
    low, high = 1 / (2 * slices), 1 / (2 * spacing[0])
    power = []
    for axis, size in enumerate(spacing):
        n = values.shape[axis]
        window = np.hanning(n).reshape([-1 if a == axis else 1 for a in range(3)])
        spectrum = np.abs(np.fft.rfft(values * window, axis=axis)) ** 2
        frequency = np.fft.rfftfreq(n, size)
        band = (frequency > low) & (frequency <= high)
        mean = spectrum.mean(axis=tuple(a for a in range(3) if a != axis))
        # per mm and per cycle, so that axes of other lengths compare
        power.append(mean[band].mean() * size / n)
    return float(np.sqrt(power[0] / np.mean(power[1:])))


def _processor() -> float:
    """Seconds of the processor that this process and its children took."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in both)


def table(rows: dict[str, Any], options: argparse.Namespace) -> str:
    """The page."""
    lines = [
        "# Self-supervised training, measured by benchmarks/selfsupervised.py",
        "",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores shared with other work, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads. Seconds hold training and applying; load is the "
        "machine's, 2 is full; far above it the processor's seconds are what compares.",
        "",
        "## 96 x 96 x 24 voxels of 1 x 1 x 4 mm, simulated from a 1 mm head, to 1 mm",
        "",
        "ECLARE's seconds go mostly into applying what it learned. Its own default is a million patches, days on these "
        "cores: its row says what it is worth within minutes, not what it can become.",
        "",
        "| method | PSNR, dB | SSIM | wall, s | processor, s | load | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _lines(rows, "head", lambda row: f"{row['psnr']:.2f} | {row['ssim']:.4f}")
    lines += [
        "",
        "## Clinical T1 with contrast agent, 256 x 256 x 25 voxels of 0.78 x 0.78 x 6.5 mm, slices four for one",
        "",
        "There is no truth. Residual: what is left when the result is made coarse again, of the scan's range. Detail: "
        "amplitude across the slices beside that in plane, in the frequencies that the slices could not show; 1 is as "
        "much. ECLARE was not run on it: it would have to be applied to seven times the pixels.",
        "",
        "| method | residual | detail | wall, s | processor, s | load | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _lines(rows, "clinical", lambda row: f"{row['residual']:.2%} | {row['detail']:.2f}")
    return "\n".join(lines) + "\n"


def _lines(rows: dict[str, Any], scan: str, scores: Callable[[dict[str, Any]], str]) -> list[str]:
    """A line for each method that was run on a scan."""
    done = [(TITLES[arm], rows[f"{scan}/{arm}"]) for arm in ARMS if f"{scan}/{arm}" in rows]
    return [
        f"| {title} | {scores(row)} | {row['wall']:.0f} | {row['processor']:.0f} | {row['load']:.1f} | {row['note']} |"
        for title, row in done
    ]


if __name__ == "__main__":
    main()

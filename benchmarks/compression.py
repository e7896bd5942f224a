"""What compression costs and gains: pruning, distillation, int8 and architecture search around the weights mri-x2.

    python benchmarks/compression.py            # 15 minutes of one core; writes benchmarks/results/compression.md
    python benchmarks/compression.py --steps 800 --trials 8    # as long as the workflows train
    python benchmarks/compression.py --fresh    # train again what lies in out/benchmarks/compression

Every variant learns from the head crop that ships and is judged on another head, which nothing was learned from: made
coarser by two with the sensor mri, with and without noise, refined, compared. Settings are those of the workflows
``train_prune``, ``train_distill`` and ``train_search_mri_x2.yaml``, with the steps given here: the tables tell what a
technique does to a network, not how good it could become, and what starts from noise has learned little by then.

Speed is of ``upscale()`` on the judge, variants alternating, by the processor's seconds of this process, which other
work on the machine disturbs least. "gzip" is the file compressed, which is where zeros pay.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sciSR.config import load_workflow
from sciSR.degradation import degrade
from sciSR.inference import upscale
from sciSR.io import open_raster
from sciSR.metrics import psnr, ssim
from sciSR.networks import load_network, weights_path
from sciSR.networks.checkpoint import save_checkpoint
from sciSR.networks.spec import SRNetwork
from sciSR.networks.summary import summarise
from sciSR.raster import Raster
from sciSR.sampling import Reference
from sciSR.training import train
from sciSR.training.compression import PrunedLesson, sparsity
from sciSR.training.lessons import Supervised

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "../shared/data/mri"
JUDGE = {"z": slice(60, 156), "y": slice(62, 158), "x": slice(80, 176)}
NOISE = 0.01
"""Standard deviation in the noisy input, of the range."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Variant:
    """One network in the tables, and how it is run."""

    title: str
    path: Path
    precision: str = "float32"
    backend: str = "torch"


class Row(NamedTuple):
    """What was measured of a variant; sizes in kB, speed in million voxels per second of the processor."""

    parameters: int
    gflop: float
    zeros: float
    size: float
    packed: float
    speed: float
    psnr: float
    ssim: float
    noisy: float


def main() -> None:
    """Make the variants, measure them, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--trials", type=int, default=6, help="of the search, a quarter of the steps each")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="train again what an earlier call trained")
    parser.add_argument("--folder", type=Path, default=ROOT / "out/benchmarks/compression")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/compression.md")
    options = parser.parse_args()
    groups, tried = make(options)
    variants = list(dict.fromkeys(variant for group in groups.values() for variant in group))
    rows = dict(zip(variants, measure(variants, options.turns), strict=True))
    text = "\n".join(page(groups, rows, tried, options)) + "\n"
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")


def make(options: argparse.Namespace) -> tuple[dict[str, list[Variant]], list[dict[str, Any]]]:
    """The variants of each table, the one before first; and what the search tried."""
    shipped = weights_path("mri-x2")
    spent: list[float] = []

    def learned(title: str, name: str, key: str, **changes: Any) -> tuple[Variant, dict[str, Any]]:
        target = options.folder / f"{key}-{options.steps}.safetensors"
        if options.fresh or not target.exists():
            start = time.process_time()
            settings = plain_settings(name, options.steps) | changes
            train(references(), target, overwrite=True, **settings)
            spent.append(time.process_time() - start)
            print(f"{title}: {spent[-1]:.0f} s of the processor", flush=True)
        return Variant(title, target), json.loads(target.with_name(f"{target.stem}.train.json").read_text())

    options.folder.mkdir(parents=True, exist_ok=True)
    before = Variant("mri-x2 as it ships", shipped)
    pruning = [before, learned("nothing pruned, trained as long", "prune", "tuned", prune=None)[0]]
    for share in (0.5, 0.8):
        cut = options.folder / f"cut{share}.safetensors"
        save_pruned(load_network(shipped), share, cut)
        pruning.append(Variant(f"{share:.0%} pruned at once", cut))
        pruning.append(learned(f"{share:.0%} pruned, fine-tuned", "prune", f"pruned{share}", prune=share)[0])
    alone, _ = learned("the small one, taught by the scan alone", "distill", "small", teacher=None)
    taught, _ = learned("the small one, taught by mri-x2 too", "distill", "distilled")
    search = plain_settings("search", options.steps)["search"]
    search |= {"trials": options.trials, "steps": options.steps // 4}
    found, record = learned("found by the search", "search", "searched", search=search)
    size = {"family": "edsr", "scale": 2, "features": 16, "blocks": 8}
    default, _ = learned("the size of mri-x2", "search", "default", search=None, network=size)
    groups = {
        "Magnitude pruning": pruning,
        "Distillation": [before, alone, taught],
        "int8 after training": [
            before,
            Variant("the same by OpenVINO", shipped, backend="openvino"),
            Variant("int8 by OpenVINO", shipped, "int8", "openvino"),
        ],
        "Architecture search": [default, found],
    }
    return groups, list(record["search"])


def references() -> list[Reference]:
    """The head to learn from, as the workflows take it."""
    return [Reference(open_raster(ROOT / "examples/data/mri_t1_head_crop.nii.gz"), held_out={"z": (80, 112)})]


def plain_settings(name: str, steps: int) -> dict[str, Any]:
    """The settings of a workflow, for so many steps."""
    section = load_workflow(ROOT / "workflows" / f"train_{name}_mri_x2.yaml").train
    assert section is not None
    plain = section.model_dump(exclude={"references", "validation", "output"})
    return plain | {"steps": steps, "validate_every": steps, "trackers": (), "device": "cpu"}


def save_pruned(network: SRNetwork, share: float, path: Path) -> None:
    """Write the network with its smallest weights zero, and nothing learned since."""
    PrunedLesson(Supervised(torch.nn.L1Loss()), network, share, steps=1).after(0)  # type: ignore[arg-type]  # not asked
    card = network.card
    assert card is not None
    assert card.normalization is not None
    save_checkpoint(
        network, path, normalization=card.normalization, sensor=card.sensor, bands=None, provenance={}, name=path.stem
    )


def measure(variants: Sequence[Variant], turns: int) -> list[Row]:
    """One row for each."""
    scan, noisy, truth = judge()
    span = float(truth.max() - truth.min())
    made = [refined(scan, v) for v in variants]
    seconds: list[list[float]] = [[] for _ in variants]
    for turn in range(turns + 1):
        for result, each in zip(made, seconds, strict=True):
            start = time.process_time()
            for _ in result.stream():
                pass
            if turn:
                each.append(time.process_time() - start)
    rows = []
    for variant, result, each in zip(variants, made, seconds, strict=True):
        network = load_network(variant.path)
        facts = summarise(network)
        values = result.read().values
        rows.append(
            Row(
                facts.parameters,
                facts.gflop,
                sparsity(network),
                *sizes(variant, result),
                truth.size / statistics.median(each) / 1e6,
                psnr(values, truth, data_range=span),
                ssim(values, truth, data_range=span),
                psnr(refined(noisy, variant).read().values, truth, data_range=span),
            )
        )
    return rows


def refined(scan: Raster, variant: Variant) -> Raster:
    """What the variant makes of a scan; lazy."""
    name = str(variant.path)
    return upscale(scan, name, precision=variant.precision, backend=variant.backend, device="cpu")  # type: ignore[arg-type]


def judge() -> tuple[Raster, Raster, Array]:
    """The coarse scan, the same with noise, and the truth."""
    fine = open_raster(DATA / "t1_head_1mm_pycortex.nii.gz").crop(**JUDGE)
    truth = fine.read().values.astype(np.float32)
    low = degrade(fine, 2, sensor="mri")
    clean = low.read().values
    noise = NOISE * float(truth.max() - truth.min()) * np.random.default_rng(0).standard_normal(clean.shape)
    plain, rough = (
        Raster.from_array(values.astype(np.float32), affine=low.grid.center_affine, axes="zyx", name="judge")
        for values in (clean, clean + noise)
    )
    return plain, rough, truth


def sizes(variant: Variant, result: Raster) -> tuple[float, float]:
    """Kilobytes of the weights' file, and of that file compressed; OpenVINO's own files where that runs them."""
    if variant.backend == "torch":
        raw = variant.path.read_bytes()
        return len(raw) / 1e3, len(gzip.compress(raw)) / 1e3
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        model = result.source.job.runner.model  # type: ignore[attr-defined]  # the tiles' source, which OpenVINO takes
        openvino.save_model(model, f"{folder}/model.xml", compress_to_fp16=False)
        parts = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    return sum(map(len, parts)) / 1e3, sum(len(gzip.compress(part)) for part in parts) / 1e3


def page(
    groups: dict[str, list[Variant]], rows: dict[Variant, Row], tried: list[dict[str, Any]], options: argparse.Namespace
) -> list[str]:
    """The page."""
    lines = [
        "# Compression, measured by benchmarks/compression.py",
        "",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads. "
        f"Budget: {options.steps} steps of each training, {options.trials} trials of {options.steps // 4} steps in the "
        f"search; speed is the median of {options.turns} alternating turns, in million output voxels per second of the "
        "processor, ratio that of the table's first row. Judge: a 1 mm head of another scanner, 48³ to 96³ voxels; "
        f"noisy: with {NOISE:.0%} of its range in the input. GFLOP are for a million output voxels.",
    ]
    for title, variants in groups.items():
        lines += ["", f"## {title}", "", *table(variants, rows)]
    lines += [
        "",
        f"What the search tried, best first; PSNR is on held-out parts of the head learned from, after "
        f"{options.steps // 4} steps:",
        "",
        "| features | blocks | GFLOP | parameters | PSNR, dB |",
        "|---|---|---|---|---|",
    ]
    for trial in tried:
        cells = (trial["features"], trial["blocks"], f"{trial['gflop']:.1f}", trial["parameters"])
        lines.append(f"| {' | '.join(map(str, cells))} | {trial['psnr']:.2f} |")
    scan, _, truth = judge()
    span = float(truth.max() - truth.min())
    levels = (
        (name, psnr(upscale(scan, name, scale=2, sensor="mri").read().values, truth, data_range=span))
        for name in ("cubic", "ibp")
    )
    return [*lines, "", "For comparison: " + ", ".join(f"{name} {level:.2f} dB" for name, level in levels) + "."]


def table(variants: Sequence[Variant], rows: dict[Variant, Row]) -> list[str]:
    """One table; ratio is the speed beside that of its first row."""
    lines = [
        "| network | parameters | zeros | GFLOP | file, kB | gzip, kB | speed | ratio | PSNR, dB | SSIM | noisy, dB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    first = rows[variants[0]]
    for variant in variants:
        row = rows[variant]
        lines.append(
            f"| {variant.title} | {row.parameters} | {row.zeros:.0%} | {row.gflop:.1f} | {row.size:.0f} | "
            f"{row.packed:.0f} | {row.speed:.2f} | {row.speed / first.speed:.2f} | {row.psnr:.2f} | {row.ssim:.4f} | "
            f"{row.noisy:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()

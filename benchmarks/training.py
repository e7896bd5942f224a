"""The training loop beside its peers: the same network, the same batch, the same device, alternating in one process.

    python benchmarks/training.py                       # the table of docs: a scene and a volume
    python benchmarks/training.py --device cuda --batch 64 --turns 5

Arms: sciSR's own loop (:func:`sciSR.training.loop.run`, with moving average, clipping and the state that is kept), the
loop that a MONAI user writes (CacheDataset, random crops and flips, blur and zoom, DataLoader), and BasicSR's loop.
BasicSR 1.4.2 cannot be installed (its setup fails to build, and it imports a module that torchvision no longer has), so
what its ``PairedImageDataset`` and ``SRModel.optimize_parameters`` do is stated again here: pairs of PNG tiles read
from disk, cropped, mirrored and turned, a step of Adam, and a moving average parameter by parameter. It has no 3D.
"bare" is the network's step alone on one fixed batch: what no data loading can beat, but for memory layouts that suit
the network better, which sciSR's loop chooses. Beside other work the processor's seconds are what compares.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sciSR.degradation import load_sensor
from sciSR.io import open_raster
from sciSR.losses import build_loss
from sciSR.networks import build_network
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Augmentation, PairMaker, Reference, decode
from sciSR.training.lessons import Supervised
from sciSR.training.loop import Settings, run
from sciSR.training.setup import launch

ROOT = Path(__file__).resolve().parents[1]
SCENES = (ROOT / "../shared/data/sat/sentinel2_10m_b02b03b04b08.tif", ROOT / "examples/data/sentinel2_crop.tif")
VOLUMES = (ROOT / "../shared/data/mri/t1_head_0.7mm_pddl.nii.gz", ROOT / "examples/data/mri_t1_head_crop.nii.gz")

Arm = Callable[[int], None]
"""Does so many steps."""


@dataclass(frozen=True)
class Case:
    """One network on one kind of data."""

    name: str
    ndim: int
    channels: int
    features: int
    blocks: int
    patch: int
    sensor: str

    def network(self) -> SRNetwork:
        """The network, always the same."""
        torch.manual_seed(0)
        return build_network(
            "edsr", ndim=self.ndim, in_channels=self.channels, scale=2, features=self.features, blocks=self.blocks
        )


CASES = {
    "scene": Case("scene", 2, 3, 64, 8, 48, "sentinel-2"),
    "volume": Case("volume", 3, 1, 16, 8, 16, "mri"),
}


def main() -> None:
    """Run the arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="steps of an arm in one turn")
    parser.add_argument("--workers", type=int, default=2, help="processes of the peers' DataLoaders")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/training.md")
    options = parser.parse_args()
    rows = [row for name in options.cases for row in measure(CASES[name], options)]
    lines = [
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, device {options.device}; median of {options.turns} turns of "
        f"{options.steps} steps, load {os.getloadavg()[0]:.1f}",
        "",
        "| case | arm | steps/s | patches/s | of bare | processor s a step | of bare |",
        "|---|---|---|---|---|---|---|",
        *rows,
        *_about_bf16(),
    ]
    text = "\n".join(lines)
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(f"# Training, measured by benchmarks/training.py\n\n{text}\n", encoding="utf-8")


def _about_bf16() -> list[str]:
    """Why bfloat16 is or is not fast here."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.exists() else []
    found = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    if not flags or "amx_bf16" in found:
        return []
    return [
        "",
        f"This processor has {' and '.join(found) or 'no instructions'} for bfloat16 and no AMX tiles: its products go "
        "no faster than float32's here, and conversions are added. Twice float32 needs AMX, or a GPU.",
    ]


def measure(case: Case, options: argparse.Namespace) -> list[str]:
    """The rows of a case: every arm takes its turn, then all again."""
    with tempfile.TemporaryDirectory() as folder:
        arms = build_arms(case, options, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in arms}
        busy: dict[str, list[float]] = {name: [] for name in arms}
        for arm in arms.values():
            arm(2)
        for _ in range(options.turns):
            for name, arm in arms.items():
                _wait(options.device)
                start, cpu = time.perf_counter(), _processor()
                arm(options.steps)
                _wait(options.device)
                times[name].append((time.perf_counter() - start) / options.steps)
                busy[name].append((_processor() - cpu) / options.steps)
    bare, work = (statistics.median(each["bare float32"]) for each in (times, busy))
    rows = []
    for name, each in times.items():
        step, took = statistics.median(each), statistics.median(busy[name])
        rows.append(
            f"| {case.name} | {name} | {1 / step:.2f} | {options.batch / step:.1f} | {100 * bare / step:.0f} % | "
            f"{took:.2f} | {100 * work / max(took, 1e-9):.0f} % |"
        )
    return rows


def _processor() -> float:
    """Seconds of the processor that this process and the DataLoaders' took, where /proc tells; else its own."""
    total = time.process_time()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def build_arms(case: Case, options: argparse.Namespace, folder: Path) -> dict[str, Arm]:
    """The arms of a case, data read and networks built."""
    crop = _values(case)
    arms = {
        "bare float32": bare(case, crop, options),
        "sciSR float32": own(case, crop, options, folder, "float32"),
        "sciSR bf16": own(case, crop, options, folder, "bf16"),
        "MONAI CacheDataset": monai_loop(case, crop, options),
    }
    if case.ndim == 2:
        arms["BasicSR, stated again"] = basicsr_loop(case, crop, options, folder)
    return arms


def _values(case: Case) -> Tensor:
    """Normalised values ``(c, [z,] y, x)`` that all arms learn from."""
    bands = (0, 1, 2) if case.ndim == 2 else None
    (crop,) = decode(
        Reference(_raster(case), bands=bands),
        normalization=Normalization("percentile"),
        channels=case.channels,
        scale=(2,) * case.ndim,
    )
    return crop.high


def _raster(case: Case) -> Raster:
    """The largest there is; on a machine without GDAL, the scene that was packed for it."""
    if case.ndim == 3 or importlib.util.find_spec("rasterio") is not None:
        return open_raster(next(p for p in (SCENES if case.ndim == 2 else VOLUMES) if p.exists()))
    from benchmarks.gpu import pack

    values = pack.load("sentinel2_10m_b02b03b04b08")
    return Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="cyx", name="scene")


def _maker(case: Case, high: Tensor, device: str) -> PairMaker:
    from sciSR.normalization import IntensityMap
    from sciSR.sampling import Crop

    crop = Crop("data", high, (1.0,) * case.ndim, IntensityMap())
    sensor = load_sensor(case.sensor).for_channels([f"B0{k}" for k in (2, 3, 4)][: case.channels])
    return PairMaker([crop], patch=(case.patch,) * case.ndim, scale=(2,) * case.ndim, sensor=sensor, device=device)


def bare(case: Case, high: Tensor, options: argparse.Namespace) -> Arm:
    """Forward, backward and step on one fixed batch."""
    network = case.network().to(options.device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    low, target, _ = _maker(case, high, options.device).make(0, 0, range(options.batch))

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            nn.functional.l1_loss(network(low), target).backward()
            optimizer.step()

    return steps


def own(case: Case, high: Tensor, options: argparse.Namespace, folder: Path, precision: str) -> Arm:
    """Steps of sciSR's loop."""
    network = case.network()
    maker = _maker(case, high, options.device)
    fabric = launch(options.device, 1, 1, precision)
    network.to(fabric.device)

    def steps(count: int) -> None:
        settings = Settings(
            patch=(case.patch,) * case.ndim, batch=options.batch, steps=count, minutes=None, learning_rate=1e-4,
            warmup=0, schedule="constant", final_learning_rate=1.0, weight_decay=0.0, loss="l1", ema=0.999, clip=1.0,
            accumulate=1, precision=precision, seed=0, validate_every=count, patience=None, dry_run=False,
            augment=Augmentation(),
        )  # fmt: skip
        run(fabric, network, maker, Supervised(build_loss("l1")), settings, validator=None,
            state=folder / f"{precision}.pt", identity={}, found={}, resume=False, compiled=False,
            observe=lambda record: None, progress=None)  # fmt: skip

    return steps


def monai_loop(case: Case, high: Tensor, options: argparse.Namespace) -> Arm:
    """What a MONAI user writes: cached volume, random crops, DataLoader; the patch is blurred and zoomed on the CPU."""
    from monai.data import CacheDataset
    from monai.transforms import (
        Compose,
        CopyItemsd,
        EnsureTyped,
        GaussianSmoothd,
        RandFlipd,
        RandSpatialCropd,
        Zoomd,
    )

    size = (2 * case.patch,) * case.ndim
    flips = [RandFlipd(keys="high", prob=0.5, spatial_axis=axis) for axis in range(case.ndim)]
    transform = Compose(
        [
            EnsureTyped(keys="high"),
            RandSpatialCropd(keys="high", roi_size=size, random_size=False),
            *flips,
            CopyItemsd(keys="high", names="low"),
            GaussianSmoothd(keys="low", sigma=0.85),
            Zoomd(keys="low", zoom=0.5, keep_size=False, mode="area"),
        ]
    )
    # one item is one patch, so the item is repeated as often as an epoch has patches
    data = CacheDataset([{"high": high}] * (options.batch * 1000), transform, cache_num=1, progress=False)
    loader = DataLoader(
        data, batch_size=options.batch, num_workers=options.workers, persistent_workers=options.workers > 0
    )
    network = case.network().to(options.device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    feed = iter(loader)

    def steps(count: int) -> None:
        for _ in range(count):
            batch = next(feed)
            low = batch["low"].as_tensor().to(options.device)
            target = batch["high"].as_tensor().to(options.device)
            optimizer.zero_grad()
            nn.functional.l1_loss(network(low), target).backward()
            optimizer.step()

    return steps


class _PairedTiles(Dataset[dict[str, Tensor]]):
    """Pairs of PNG tiles: 480 fine pixels, cropped, mirrored and turned, as BasicSR's PairedImageDataset does."""

    def __init__(self, folder: Path, patch: int, length: int) -> None:
        self.high = sorted((folder / "high").glob("*.png"))
        self.low = sorted((folder / "low").glob("*.png"))
        self.patch, self.length = patch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        from PIL import Image

        number = index % len(self.high)
        high = np.asarray(Image.open(self.high[number]), dtype=np.float32) / 255
        low = np.asarray(Image.open(self.low[number]), dtype=np.float32) / 255
        top = random.randint(0, low.shape[0] - self.patch)
        left = random.randint(0, low.shape[1] - self.patch)
        low = low[top : top + self.patch, left : left + self.patch]
        high = high[2 * top : 2 * (top + self.patch), 2 * left : 2 * (left + self.patch)]
        for turn, chosen in ((lambda a: a[:, ::-1], random.random() < 0.5), (lambda a: a[::-1], random.random() < 0.5),
                             (lambda a: a.transpose(1, 0, 2), random.random() < 0.5)):  # fmt: skip
            if chosen:
                low, high = turn(low), turn(high)
        return {"lq": _to_tensor(low), "gt": _to_tensor(high)}


def _to_tensor(image: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def basicsr_loop(case: Case, high: Tensor, options: argparse.Namespace, folder: Path) -> Arm:
    """BasicSR's dataset and optimize_parameters."""
    _write_tiles(high, folder)
    data = _PairedTiles(folder, case.patch, options.batch * 1000)
    loader = DataLoader(
        data, batch_size=options.batch, num_workers=options.workers, persistent_workers=options.workers > 0
    )
    network = case.network().to(options.device)
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, betas=(0.9, 0.99))
    feed = iter(loader)

    def steps(count: int) -> None:
        for _ in range(count):
            batch = next(feed)
            low, target = batch["lq"].to(options.device), batch["gt"].to(options.device)
            optimizer.zero_grad()
            loss = nn.functional.l1_loss(network(low), target)
            loss.backward()
            optimizer.step()
            mine, theirs = dict(average.named_parameters()), dict(network.named_parameters())
            for key in mine:
                mine[key].data.mul_(0.999).add_(theirs[key].data, alpha=0.001)
            loss.mean().item()

    return steps


def _write_tiles(high: Tensor, folder: Path) -> None:
    """The scene as pairs of PNG tiles, 480 and 240 pixels."""
    from PIL import Image

    for name in ("high", "low"):
        (folder / name).mkdir(exist_ok=True)
    size = min(480, *high.shape[1:]) // 2 * 2
    fine = (high.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    for number, (y, x) in enumerate(
        (y, x) for y in range(0, fine.shape[0] - size + 1, size) for x in range(0, fine.shape[1] - size + 1, size)
    ):
        tile = Image.fromarray(fine[y : y + size, x : x + size])
        tile.save(folder / "high" / f"{number:04d}.png")
        tile.resize((size // 2, size // 2), Image.Resampling.BICUBIC).save(folder / "low" / f"{number:04d}.png")


if __name__ == "__main__":
    main()

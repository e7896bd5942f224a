"""The engine beside its peers: the same network, the same input file to the same kind of output file.

    python benchmarks/engine.py                    # the table of docs: two dimensions and three
    python benchmarks/engine.py --scene 1024 --volume 96 --runs 1
    python benchmarks/engine.py --grow             # time and memory against the size of the scene
    python benchmarks/engine.py --tile             # a whole 10980 x 10980 x 4 Sentinel-2 tile, once: hours on two cores

Every run is a process of its own, the arms alternate, and ratios are medians over pairs of neighbouring runs. "work" is
the time from the open file to the finished file, without imports and without building the network. Memory is the peak
of the process. Peers that are not here are installed into ``.venv-peers`` (``--peers``), which borrows torch from this
environment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SCENE_DATA = (ROOT / "../shared/data/sat/sentinel2_10m_b02b03b04b08.tif", ROOT / "examples/data/sentinel2_crop.tif")
VOLUME_DATA = (ROOT / "../shared/data/mri/t1_head_0.7mm_pddl.nii.gz", ROOT / "examples/data/mri_t1_head_crop.nii.gz")
PEERS = ROOT / ".venv-peers"
PEER_PACKAGES = ("opensr-utils==2.1.0", "torchio==1.2.1")
PEER_NEEDS = ("pytorch-lightning", "omegaconf", "einops", "deprecated", "humanize", "jaxtyping", "requests", "typer")


def main() -> None:
    """Run the arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=int, default=2048, help="pixels of the square scene, 4 bands; 0: none")
    parser.add_argument("--volume", type=int, default=128, help="voxels of the cubic volume; 0: none")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--peers", action="store_true", help="install the peers first")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--tile", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/engine.md")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        _one(options.arm, *map(Path, options.files))
        return
    if options.peers:
        _install_peers()
    with tempfile.TemporaryDirectory() as folder:
        sections = list(_sections(options, Path(folder)))
    text = "\n\n".join([_machine(), *sections]) + "\n"
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)


def _sections(options: argparse.Namespace, folder: Path) -> Any:
    if options.grow or options.tile:
        for side in [10980] if options.tile else [1024, 2048, 4096]:
            arms = ["ours"] if options.tile else ["ours", "near"]
            yield _table(f"scene {side} x {side} x 4", _scene(folder, side), arms, folder, 1, ".tif")
        return
    if options.scene:
        arms = options.arms or ["ours", "float32", "bf16", "int8", "whole", "monai25", "monai50", "opensr"]
        title = f"scene {options.scene} x {options.scene} x 4 uint16, EDSR 16 x 64, x2"
        yield _table(title, _scene(folder, options.scene), arms, folder, options.runs, ".tif")
    if options.volume:
        arms = options.arms or ["ours", "float32", "bf16", "int8", "whole", "monai25", "monai50", "torchio"]
        title = f"volume {options.volume}^3 int16, EDSR 8 x 16 in 3D, x2"
        yield _table(title, _volume(folder, options.volume), arms, folder, options.runs, ".nii.gz")


# ---- one run, in its own process ----------------------------------------------------------------------------------


def _one(arm: str, source: Path, target: Path) -> None:
    """Run one arm and print its figures as JSON."""
    import torch

    torch.manual_seed(0)
    volume = source.name.endswith(".nii.gz")
    network = _network(volume)
    start, used = time.perf_counter(), time.process_time()
    ARMS[arm](network, source, target, volume)
    figures = {
        "work_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - used,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def _network(volume: bool) -> Any:
    """The network of the comparison, with a residual as strong as a trained one's; the same in every process."""
    import torch

    from sciSR.networks import build_network

    size = {"features": 16, "blocks": 8} if volume else {"features": 64, "blocks": 16}
    network = build_network("edsr", ndim=3 if volume else 2, in_channels=1 if volume else 4, scale=2, **size).eval()
    for parameter in network.tail.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return network


def _ours(**settings: Any) -> Callable[..., None]:
    def run(network: Any, source: Path, target: Path, volume: bool) -> None:
        import sciSR
        from sciSR.normalization import Normalization

        raster = sciSR.open_raster(source)
        norm = Normalization("fixed", scale=(1000.0 if volume else 10000.0,))
        model = "nearest" if settings.get("near") else network
        kept = {k: v for k, v in settings.items() if k != "near"}
        sciSR.save_raster(sciSR.upscale(raster, model, scale=2, normalization=norm, **kept), target)

    return run


def _read(source: Path, volume: bool) -> tuple[Any, Any]:
    import torch

    if volume:
        import nibabel

        image = nibabel.load(source)
        return torch.from_numpy(np.asarray(image.dataobj, np.float32).T.copy()[None, None] / 1000), image
    import rasterio

    with rasterio.open(source) as file:
        return torch.from_numpy(file.read().astype(np.float32)[None] / 10000), file.profile


def _write(values: Any, like: Any, target: Path, volume: bool) -> None:
    if volume:
        import nibabel

        data = np.rint(values[0, 0].numpy() * 1000).clip(-32768, 32767).astype(np.int16).T
        affine = like.affine @ np.diag([0.5, 0.5, 0.5, 1])
        nibabel.save(nibabel.Nifti1Image(data, affine), target)
        return
    import rasterio

    data = np.rint(values[0].numpy() * 10000).clip(0, 65535).astype(np.uint16)
    profile = {**like, "height": data.shape[1], "width": data.shape[2], "compress": "deflate", "predictor": 2}
    profile.update(
        transform=like["transform"] * like["transform"].scale(0.5), tiled=True, blockxsize=512, blockysize=512
    )
    with rasterio.open(target, "w", **profile) as file:
        file.write(data)


def _whole(network: Any, source: Path, target: Path, volume: bool) -> None:
    import torch

    x, like = _read(source, volume)
    with torch.inference_mode():
        y = network(x)
    _write(y, like, target, volume)


def _monai(overlap: float) -> Callable[..., None]:
    def run(network: Any, source: Path, target: Path, volume: bool) -> None:
        import torch
        from monai.inferers import SlidingWindowInferer

        x, like = _read(source, volume)
        roi = (64,) * 3 if volume else (128,) * 2
        with torch.inference_mode():
            y = SlidingWindowInferer(roi, overlap=overlap, mode="gaussian")(x, network)
        _write(y, like, target, volume)

    return run


def _opensr(network: Any, source: Path, target: Path, volume: bool) -> None:
    from opensr_utils.pipeline import large_file_processing

    large_file_processing(
        root=str(source),
        model=network,
        window_size=(128, 128),
        factor=2,
        overlap=8,
        device="cpu",
        output_path=str(target),
    ).run()


def _torchio(network: Any, source: Path, target: Path, volume: bool) -> None:
    """TorchIO cannot place refined patches, so they are averaged back to the input's grid: its cost, not its result."""
    import torch
    import torchio as tio

    x, like = _read(source, volume)
    subject = tio.Subject(image=tio.ScalarImage(tensor=x[0]))
    sampler = tio.inference.GridSampler(subject, 64, 16)
    aggregator = tio.inference.GridAggregator(sampler, overlap_mode="hann")
    with torch.inference_mode():
        for patch in torch.utils.data.DataLoader(sampler, batch_size=1):
            fine = network(patch["image"][tio.DATA])
            aggregator.add_batch(torch.nn.functional.avg_pool3d(fine, 2), patch[tio.LOCATION])
    values = (
        aggregator.get_output_tensor()[None].repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    )
    _write(values, like, target, volume)


ARMS: dict[str, Callable[..., None]] = {
    "ours": _ours(),
    "near": _ours(near=True),
    "float32": _ours(precision="float32"),
    "bf16": _ours(precision="bf16"),
    "int8": _ours(precision="int8"),
    "whole": _whole,
    "monai25": _monai(0.25),
    "monai50": _monai(0.5),
    "opensr": _opensr,
    "torchio": _torchio,
}
NAMES = {
    "ours": "sciSR, as it comes",
    "near": "sciSR, nearest neighbour (all but the network)",
    "float32": "sciSR, float32",
    "bf16": "sciSR, bf16",
    "int8": "sciSR, int8 (OpenVINO)",
    "whole": "the network's own whole-image forward",
    "monai25": "MONAI SlidingWindowInferer, overlap 0.25, gaussian",
    "monai50": "MONAI SlidingWindowInferer, overlap 0.5, gaussian",
    "opensr": "opensr-utils 2.1.0",
    "torchio": "TorchIO 1.2.1, patch 64, overlap 16, hann",
}


# ---- all runs of a table -------------------------------------------------------------------------------------------


def _table(title: str, source: Path, arms: list[str], folder: Path, runs: int, suffix: str) -> str:
    figures: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    failed: dict[str, str] = {}
    for number in range(runs):
        for arm in arms:
            if arm in failed:
                continue
            target = folder / f"{arm}{suffix}"
            for stale in folder.glob(f"{arm}*"):
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            done = subprocess.run(
                [_python(arm), __file__, "--arm", arm, "--files", str(source), str(target)],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
            if done.returncode:
                failed[arm] = done.stderr.strip().splitlines()[-1][:160]
                continue
            figures[arm].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(f"{title} run {number + 1} {arm}: {figures[arm][-1]}", file=sys.stderr, flush=True)
    return "\n".join([f"## {title}, {runs} run(s) each", "", *_rows(arms, figures, failed, folder, suffix)])


def _rows(arms: list[str], figures: Any, failed: dict[str, str], folder: Path, suffix: str) -> list[str]:
    rows = [
        "| | work, median s | CPU s | slower than sciSR as it comes | peak memory, MB | PSNR to whole image, dB "
        "| max error / range |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = folder / f"whole{suffix}"
    for arm in arms:
        if arm in failed or not figures[arm]:
            rows.append(f"| {NAMES[arm]} | failed: {failed.get(arm)} | | | | | |")
            continue
        work = statistics.median(f["work_s"] for f in figures[arm])
        cpu = statistics.median(f["cpu_s"] for f in figures[arm])
        peak = max(f["peak_mb"] for f in figures[arm])
        ratio = "–"
        if figures.get("ours"):
            pairs = zip(figures[arm], figures["ours"], strict=False)
            ratio = f"{statistics.median(a['work_s'] / b['work_s'] for a, b in pairs):.2f}"
        error = ("–", "–")
        if reference.exists() and arm not in ("whole", "torchio"):
            error = _errors(folder / f"{arm}{suffix}", reference)
        rows.append(f"| {NAMES[arm]} | {work:.1f} | {cpu:.1f} | {ratio} | {peak:.0f} | {error[0]} | {error[1]} |")
    return rows


def _errors(path: Path, reference: Path) -> tuple[str, str]:
    a, b = _values(path), _values(reference)
    span = float(np.subtract(*np.percentile(b, [99.9, 0.1])))
    mse = float(np.mean((a - b) ** 2))
    psnr = "inf" if mse == 0 else f"{10 * np.log10(span**2 / mse):.1f}"
    return psnr, f"{np.abs(a - b).max() / span:.1e}"


def _values(path: Path) -> Any:
    if path.name.endswith(".nii.gz"):
        import nibabel

        return np.asarray(nibabel.load(path).dataobj, np.float32)
    import rasterio

    with rasterio.open(path) as file:
        return file.read().astype(np.float32)


def _scene(folder: Path, side: int) -> Path:
    """A square scene of a real one, mirrored as often as needed."""
    import rasterio

    source = next(p for p in SCENE_DATA if p.exists())
    with rasterio.open(source) as file:
        part, profile = file.read(), file.profile
    path = folder / f"scene{side}.tif"
    rows, columns = (_mirror(n, side) for n in part.shape[1:])
    profile = {k: profile[k] for k in ("dtype", "count", "crs", "transform")} | {"driver": "GTiff", "tiled": True}
    with rasterio.open(path, "w", height=side, width=side, compress="deflate", predictor=2, **profile) as file:
        for start in range(0, side, 512):
            window = rasterio.windows.Window(0, start, side, min(512, side - start))
            file.write(part[:, rows[start : start + 512]][:, :, columns], window=window)
    return path


def _volume(folder: Path, side: int) -> Path:
    """A cubic volume of a real one, mirrored as often as needed."""
    import nibabel

    image = nibabel.load(next(p for p in VOLUME_DATA if p.exists()))
    data = np.asarray(image.dataobj).astype(np.int16)
    start = [max(0, (n - side) // 2) for n in data.shape]
    part = data[tuple(slice(s, s + side) for s in start)]
    full = part[np.ix_(*(_mirror(n, side) for n in part.shape))]
    path = folder / f"volume{side}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(full, image.affine), path)
    return path


def _mirror(n: int, side: int) -> Any:
    index = np.arange(side) % (2 * n)
    return np.where(index < n, index, 2 * n - 1 - index)


def _python(arm: str) -> str:
    return str(PEERS / "bin/python") if arm in ("opensr", "torchio") and PEERS.exists() else sys.executable


def _install_peers() -> None:
    """An environment for the peers that sees this one's packages behind its own."""
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    site = next(p for p in sys.path if p.endswith("site-packages"))
    own = next((PEERS / "lib").glob("python*/site-packages"))
    (own / "borrowed.pth").write_text(site + "\n")
    pip = [str(PEERS / "bin/python"), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--no-deps", *PEER_PACKAGES], check=True)
    subprocess.run([*pip, *PEER_NEEDS], check=True)


def _machine() -> str:
    import torch

    name = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    cores = len(os.sched_getaffinity(0))
    return f"# Engine\n\n{name}, {cores} cores, torch {torch.__version__}, Python {platform.python_version()}."


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()

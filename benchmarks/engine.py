"""The engine beside its peers: the same network, the same input file to the same kind of output file.

    python benchmarks/engine.py                    # time: a scene and a volume, beside the peers
    python benchmarks/engine.py --scene 1024 --volume 96 --runs 1
    python benchmarks/engine.py --errors           # trained weights: how far each arm is from the whole image
    python benchmarks/engine.py --shares           # what is not the network; gzip; the kernels beside matmul
    python benchmarks/engine.py --grow             # time and memory against the size of the scene, and its height alone
    python benchmarks/engine.py --threads          # workers and threads, depth-first and tiles
    python benchmarks/engine.py --tile             # a whole 10980 x 10980 x 4 Sentinel-2 tile, once

Each writes its own part of ``benchmarks/results/engine.md``. ``taskset -c 0`` in front measures a single core. Every
run is a process of its own, the arms alternate, and ratios are medians over pairs of neighbouring runs. "work" is the
time from the open file to the finished file, without imports and without building the network. Memory is the peak of
the process. Peers that are not here are installed into ``.venv-peers`` (``--peers``), which borrows torch from this
environment. Errors are measured on float32 outputs.
"""

from __future__ import annotations

import argparse
import importlib
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SCENE_DATA = (ROOT / "../shared/data/sat/sentinel2_10m_b02b03b04b08.tif", ROOT / "examples/data/sentinel2_crop.tif")
VOLUME_DATA = (ROOT / "../shared/data/mri/t1_head_0.7mm_pddl.nii.gz", ROOT / "examples/data/mri_t1_head_crop.nii.gz")
CT_DATA = (ROOT / "../shared/data/ct/ct_head_0.96x0.96x1.5mm.nii.gz", ROOT / "examples/data/ct_chest_crop.nii.gz")
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
    parser.add_argument("--sides", type=int, nargs="*", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--heights", type=int, nargs="*", default=[8192, 32768], help="of scenes 2048 pixels wide")
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--tile", action="store_true")
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--shares", action="store_true")
    parser.add_argument("--weights", default="", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/engine.md")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        _one(options.arm, *map(Path, options.files), options.weights)
        return
    if options.peers:
        _install_peers()
    part = next((name for name in ("grow", "threads", "tile", "errors", "shares") if getattr(options, name)), "peers")
    with tempfile.TemporaryDirectory() as folder:
        sections = list(PARTS[part](options, Path(folder)))
    text = "\n\n".join([f"{_machine()}", *sections])
    print(text)
    _store(options.output, part, text)


def _store(path: Path, part: str, text: str) -> None:
    """Replace one part of the committed page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else "# Engine\n"
    start, end = f"<!-- {part} -->\n", f"<!-- /{part} -->\n"
    if start in before:
        head, rest = before.split(start, 1)
        before = head + rest.split(end, 1)[1].lstrip("\n")
    path.write_text(f"{before.rstrip()}\n\n{start}{text}\n{end}", encoding="utf-8")


def _peers(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    if options.scene:
        arms = options.arms or ["ours", "bf16", "int8", "whole", "monai25", "monai50", "opensr", "near"]
        title = f"scene {options.scene} x {options.scene} x 4 uint16, EDSR 16 x 64, x2"
        yield _table(title, _scene(folder, options.scene), arms, folder, options.runs, ".tif")
    if options.volume:
        arms = options.arms or ["ours", "bf16", "int8", "whole", "monai25", "monai50", "torchio", "near"]
        title = f"volume {options.volume}^3 int16, EDSR 8 x 16 in 3D, x2"
        yield _table(title, _volume(folder, options.volume), arms, folder, options.runs, ".nii.gz")


def _grow(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    for side in options.sides:
        title = f"scene {side} x {side} x 4, the weights s2-x2"
        yield _table(title, _scene(folder, side), ["ours", "near"], folder, 1, ".tif", "s2-x2")
    for height in options.heights:
        title = f"scene {height} rows x 2048 x 4, the weights s2-x2"
        yield _table(title, _scene(folder, 2048, height), ["ours"], folder, 1, ".tif", "s2-x2")


def _threads(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    arms = ["strips", "strips1", "tiles11", "tiles21"]
    yield _table("scene 1024 x 1024 x 4, s2-x2, executors", _scene(folder, 1024), arms, folder, 3, ".tif", "s2-x2")


def _tile(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    title = "a whole Sentinel-2 tile, 10980 x 10980 x 4 uint16 to 21960 x 21960 x 4, the weights s2-x2"
    yield _table(title, _scene(folder, 10980), ["ours"], folder, 1, ".tif", "s2-x2")


def _trained(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    arms = ["whole", "ours", "tiles11", "bf16", "int8", "monai25", "monai50"]
    yield _table("errors, scene 512 x 512 x 4, s2-x2", _scene(folder, 512), arms, folder, 1, ".f32.tif", "s2-x2")
    for name in ("mri-x2", "ct-x2"):
        source = _volume(folder, 96, CT_DATA if name == "ct-x2" else VOLUME_DATA)
        yield _table(f"errors, volume 96^3, {name}", source, arms, folder, 1, ".f32.nii", name)


def _shares(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    volume = _volume(folder, 160, CT_DATA)
    title = "gzip: CT 160^3, ct-x2, to .nii.gz and to .nii"
    yield _table(title, volume, ["ours", "plain", "near"], folder, 5, ".nii.gz", "ct-x2")
    yield _deflation(folder / "plain.nii")
    yield _kernels()


def _deflation(path: Path) -> str:
    """What compressing the file takes by itself, with the engine's own routine."""
    from sciSR.io.gzipped import PIECE, deflated

    data = path.read_bytes()
    times, sizes = [], []
    for start in range(0, len(data), PIECE):
        begun = time.process_time()
        sizes.append(len(deflated(data[start : start + PIECE])))
        times.append(time.process_time() - begun)
    rate = len(data) / sum(times) / 1e6
    return (
        f"Deflating these {len(data) / 1e6:.0f} MB by themselves, to {sum(sizes) / 1e6:.0f} MB, takes {sum(times):.2f} "
        f"processor seconds ({rate:.0f} MB/s)."
    )


PARTS: dict[str, Callable[[argparse.Namespace, Path], Iterator[str]]] = {
    "peers": _peers,
    "grow": _grow,
    "threads": _threads,
    "tile": _tile,
    "errors": _trained,
    "shares": _shares,
}


def _kernels() -> str:
    """The convolution that networks are made of beside this machine's matrix product, in GFLOP/s."""
    import torch

    rows = ["## kernels: 64 to 64 channels, 3 x 3, on strips of 32 x 1024 pixels", "", "| | GFLOP/s |", "|---|---|"]
    with torch.inference_mode():
        for kind in (torch.float32, torch.bfloat16):
            a, b = torch.randn(2048, 2048).to(kind), torch.randn(2048, 2048).to(kind)
            x = torch.randn(1, 64, 34, 1024).to(kind).contiguous(memory_format=torch.channels_last)
            w = torch.randn(64, 64, 3, 3).to(kind).contiguous(memory_format=torch.channels_last)
            name = str(kind).removeprefix("torch.")
            product = _rate(lambda a=a, b=b: a @ b, 2 * 2048**3)
            layer = _rate(
                lambda x=x, w=w: torch.nn.functional.conv2d(x, w, padding=(0, 1)), 2 * 64 * 64 * 9 * 32 * 1024
            )
            rows.append(f"| {name} matrix product, 2048^3 | {product:.0f} |")
            rows.append(f"| {name} convolution, PyTorch | {layer:.0f} ({layer / product:.2f} of the product) |")
            if kind == torch.float32:
                own = _filter_rate()
                rows.append(f"| {name} convolution by tiles, as if multiplied out | {own:.0f} ({own / product:.2f}) |")
    return "\n".join(rows)


def _filter_rate() -> float:
    """Of the engine's own convolution: the multiplications and additions that it stands for, in GFLOP/s."""
    import torch

    from sciSR.filters import TileFilter, addresses

    filters = TileFilter(torch.nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False), slope=0.0)
    x, y = torch.randn(34, 1026, 64), torch.empty(32, 1024, 64)
    threads = torch.get_num_threads()
    return _rate(lambda: filters(addresses(x), y, threads=threads), 2 * 64 * 64 * 9 * 32 * 1024)


def _rate(work: Callable[[], Any], flop: float) -> float:
    work()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return flop / statistics.median(times) / 1e9


# ---- one run, in its own process ----------------------------------------------------------------------------------


def _one(arm: str, source: Path, target: Path, weights: str) -> None:
    """Run one arm and print its figures as JSON."""
    import torch

    torch.manual_seed(0)
    volume = source.name.endswith(".nii.gz")
    network = _network(volume, weights)
    for module in ("nibabel" if volume else "rasterio", *IMPORTS.get(arm, OURS)):
        importlib.import_module(module)
    start, used = time.perf_counter(), time.process_time()
    ARMS[arm](network, source, target, volume)
    figures = {
        "work_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - used,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def _network(volume: bool, weights: str) -> Any:
    """The network of the comparison, with a residual as strong as a trained one's; the same in every process."""
    import torch

    from sciSR.networks import build_network, load_network

    if weights:
        return load_network(weights).eval()
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
        if settings.get("threads"):
            import torch

            torch.set_num_threads(settings["threads"])
        norm = Normalization("fixed", scale=(1000.0 if volume else 10000.0,))
        model = "nearest" if settings.get("near") else network
        kept = {k: v for k, v in settings.items() if k not in ("near", "threads", "plain")}
        if settings.get("plain"):
            target = target.with_suffix("")  # .nii.gz without .gz
        sciSR.save_raster(sciSR.upscale(raster, model, scale=2, normalization=norm, **kept), target, **_stored(target))

    return run


def _stored(target: Path) -> dict[str, str]:
    return {"dtype": "float32"} if ".f32." in target.name else {}


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

        data = values[0, 0].numpy() * np.float32(1000)
        data = (data if _stored(target) else np.rint(data).clip(-32768, 32767).astype(np.int16)).T
        affine = like.affine @ np.diag([0.5, 0.5, 0.5, 1])
        nibabel.save(nibabel.Nifti1Image(data, affine), target)
        return
    import rasterio

    data = values[0].numpy() * np.float32(10000)
    data = data if _stored(target) else np.rint(data).clip(0, 65535).astype(np.uint16)
    profile = {
        **like,
        "dtype": data.dtype.name,
        "height": data.shape[1],
        "width": data.shape[2],
        "compress": "deflate",
        "predictor": 2,
    }
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


OURS = ("sciSR.inference", "sciSR.io.nifti", "sciSR.io.geotiff", "sciSR.io.geotiff_write", "sciSR.regrid")
IMPORTS = {
    "whole": (),
    "monai25": ("monai.inferers",),
    "monai50": ("monai.inferers",),
    "opensr": ("opensr_utils.pipeline",),
    "torchio": ("torchio",),
}
"""What an arm needs, imported before its clock starts."""
ARMS: dict[str, Callable[..., None]] = {
    "ours": _ours(),
    "plain": _ours(plain=True),
    "near": _ours(near=True),
    "float32": _ours(precision="float32"),
    "bf16": _ours(precision="bf16"),
    "int8": _ours(precision="int8"),
    "strips": _ours(precision="float32", threads=2),
    "strips1": _ours(precision="float32", threads=1),
    "tiles11": _ours(precision="float32", tile=256, workers=1, threads=1),
    "tiles21": _ours(precision="float32", tile=256, workers=2, threads=2),
    "whole": _whole,
    "monai25": _monai(0.25),
    "monai50": _monai(0.5),
    "opensr": _opensr,
    "torchio": _torchio,
}
NAMES = {
    "ours": "sciSR, as it comes",
    "plain": "sciSR, not compressed",
    "near": "sciSR, nearest neighbour (all but the network)",
    "float32": "sciSR, float32",
    "bf16": "sciSR, bf16",
    "int8": "sciSR, int8 (OpenVINO)",
    "strips": "depth-first, two threads",
    "strips1": "depth-first, one thread",
    "tiles11": "tiles of 256, one worker, one thread",
    "tiles21": "tiles of 256, two workers of one thread",
    "whole": "the network's own whole-image forward",
    "monai25": "MONAI SlidingWindowInferer, overlap 0.25, gaussian",
    "monai50": "MONAI SlidingWindowInferer, overlap 0.5, gaussian",
    "opensr": "opensr-utils 2.1.0",
    "torchio": "TorchIO 1.2.1, patch 64, overlap 16, hann",
}


# ---- all runs of a table -------------------------------------------------------------------------------------------


def _table(title: str, source: Path, arms: list[str], folder: Path, runs: int, suffix: str, weights: str = "") -> str:
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
                [_python(arm), __file__, "--arm", arm, "--files", str(source), str(target), "--weights", weights],
                capture_output=True,
                text=True,
                # modules are compiled once, as an installed package's are
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""},
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
        "| | work, median s | CPU s | times sciSR's work | peak memory, MB | PSNR to whole image, dB "
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
        first = "ours" if figures.get("ours") else arms[0]
        if figures[first]:
            pairs = zip(figures[arm], figures[first], strict=False)
            ratio = f"{statistics.median(a['work_s'] / b['work_s'] for a, b in pairs):.2f}"
        error = ("–", "–")
        if reference.exists() and arm not in ("whole", "torchio", "near"):
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
    if path.name.endswith((".nii", ".nii.gz")):
        import nibabel

        return np.asarray(nibabel.load(path).dataobj, np.float32)
    import rasterio

    with rasterio.open(path) as file:
        return file.read().astype(np.float32)


def _scene(folder: Path, side: int, height: int | None = None) -> Path:
    """A scene of a real one, mirrored as often as needed, so many pixels wide and as high unless told."""
    import rasterio

    source = next(p for p in SCENE_DATA if p.exists())
    with rasterio.open(source) as file:
        part, profile = file.read(), file.profile
    height = height or side
    path = folder / f"scene{height}x{side}.tif"
    rows, columns = (_mirror(n, size) for n, size in zip(part.shape[1:], (height, side), strict=True))
    profile = {k: profile[k] for k in ("dtype", "count", "crs", "transform")} | {"driver": "GTiff", "tiled": True}
    with rasterio.open(path, "w", height=height, width=side, compress="deflate", predictor=2, **profile) as file:
        for start in range(0, height, 512):
            window = rasterio.windows.Window(0, start, side, min(512, height - start))
            file.write(part[:, rows[start : start + 512]][:, :, columns], window=window)
    return path


def _volume(folder: Path, side: int, choices: tuple[Path, ...] = VOLUME_DATA) -> Path:
    """A cubic volume of a real one, mirrored as often as needed."""
    import nibabel

    image = nibabel.load(next(p for p in choices if p.exists()))
    data = np.asarray(image.dataobj).astype(np.int16)
    start = [max(0, (n - side) // 2) for n in data.shape]
    part = data[tuple(slice(s, s + side) for s in start)]
    full = part[np.ix_(*(_mirror(n, side) for n in part.shape))]
    path = folder / f"{choices[0].name[:2]}{side}.nii.gz"
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

    from sciSR.pipeline import core_count

    name = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return f"{name}, {core_count()} cores, torch {torch.__version__}, Python {platform.python_version()}."


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()

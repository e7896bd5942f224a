"""Published weights on published test images, beside the published figures.

    python benchmarks/parity.py --images Set5 EDSR_x2.pt rcan_x4.pt
    python benchmarks/parity.py --images Set14 --set Set14 --protocol P1 --option scale=3 srcnn.pth

Each checkpoint is read as ``sciSR.load_network`` reads it, given the low-resolution images that its paper's protocol
makes (``sciSR.benchmark_images``), and judged by that protocol. Images are the high-resolution ones, as PNG, BMP or
TIFF. Nothing is downloaded: weights and images are the user's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sciSR.benchmark_images import Protocol, benchmark_low, benchmark_score, imresize  # noqa: E402
from sciSR.errors import InputError, SciSRError  # noqa: E402
from sciSR.networks import load_network  # noqa: E402
from sciSR.networks.spec import SRNetwork  # noqa: E402

SETS = ("Set5", "Set14", "B100", "Urban100")

# PSNR in dB on Set5, Set14, B100, Urban100, as the papers' tables give them (Y, border of ``scale`` pixels, MATLAB's
# bicubic). Rows are (family, features, scale); features tell EDSR from its baseline and SwinIR's two; None: not given.
PUBLISHED: dict[tuple[str, int, int], tuple[float | None, ...]] = {
    # Dong 2016, arXiv:1501.00092 (9-5-5)
    ("srcnn", 64, 2): (36.66, 32.45, 31.36, 29.50),
    ("srcnn", 64, 3): (32.75, 29.30, 28.41, 26.24),
    ("srcnn", 64, 4): (30.49, 27.50, 26.90, 24.52),
    # Dong 2016, arXiv:1608.00367
    ("fsrcnn", 56, 2): (37.00, 32.63, 31.53, 29.88),
    ("fsrcnn", 56, 3): (33.16, 29.43, 28.53, 26.43),
    ("fsrcnn", 56, 4): (30.71, 27.59, 26.98, 24.62),
    # Shi 2016, arXiv:1609.05158 (trained on ImageNet)
    ("espcn", 64, 3): (33.13, 29.49, None, None),
    ("espcn", 64, 4): (30.90, 27.73, None, None),
    # Kim 2016, arXiv:1511.04587
    ("vdsr", 64, 2): (37.53, 33.03, 31.90, 30.76),
    ("vdsr", 64, 3): (33.66, 29.77, 28.82, 27.14),
    ("vdsr", 64, 4): (31.35, 28.01, 27.29, 25.18),
    # Ahn 2018, arXiv:1803.08664: CARN-M, then CARN
    ("carn-m", 64, 2): (37.53, 33.26, 31.92, 31.23),
    ("carn-m", 64, 3): (33.99, 30.08, 28.91, 27.55),
    ("carn-m", 64, 4): (31.92, 28.42, 27.44, 25.62),
    ("carn", 64, 2): (37.76, 33.52, 32.09, 31.92),
    ("carn", 64, 3): (34.29, 30.29, 29.06, 28.06),
    ("carn", 64, 4): (32.13, 28.60, 27.58, 26.07),
    # Lim 2017, arXiv:1707.02921: baseline, then the large network
    ("edsr", 64, 2): (37.99, 33.57, 32.16, 31.98),
    ("edsr", 64, 3): (34.37, 30.28, 29.09, 28.15),
    ("edsr", 64, 4): (32.09, 28.58, 27.57, 26.04),
    ("edsr", 256, 2): (38.11, 33.92, 32.32, 32.93),
    ("edsr", 256, 3): (34.65, 30.52, 29.25, 28.80),
    ("edsr", 256, 4): (32.46, 28.80, 27.71, 26.64),
    # Hui 2019, arXiv:1909.11856
    ("imdn", 64, 2): (38.00, 33.63, 32.19, 32.17),
    ("imdn", 64, 3): (34.36, 30.32, 29.09, 28.17),
    ("imdn", 64, 4): (32.21, 28.58, 27.56, 26.04),
    # Zhang 2018, arXiv:1802.08797
    ("rdn", 64, 2): (38.24, 34.01, 32.34, 32.89),
    ("rdn", 64, 3): (34.71, 30.57, 29.26, 28.80),
    ("rdn", 64, 4): (32.47, 28.81, 27.72, 26.61),
    # Zhang 2018, arXiv:1807.02758
    ("rcan", 64, 2): (38.27, 34.12, 32.41, 33.34),
    ("rcan", 64, 3): (34.74, 30.65, 29.32, 29.09),
    ("rcan", 64, 4): (32.63, 28.87, 27.77, 26.82),
    # Wang 2018, arXiv:1809.00219: RRDB trained for PSNR, not the adversarial ESRGAN
    ("rrdbnet", 64, 4): (32.73, 28.99, 27.85, 27.03),
    # Liang 2021, arXiv:2108.10257: light, then classical trained on DF2K
    ("swinir", 60, 2): (38.14, 33.86, 32.31, 32.76),
    ("swinir", 60, 3): (34.62, 30.54, 29.20, 28.66),
    ("swinir", 60, 4): (32.44, 28.77, 27.69, 26.47),
    ("swinir", 180, 2): (38.42, 34.46, 32.53, 33.81),
    ("swinir", 180, 3): (34.97, 30.93, 29.46, 29.75),
    ("swinir", 180, 4): (32.92, 29.09, 27.92, 27.45),
}


class Row(NamedTuple):
    """One line of the table."""

    name: str
    scale: int
    protocol: str
    psnr: float
    ssim: float
    published: float | None
    cubic: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--images", required=True, type=Path, help="folder of high-resolution images")
    parser.add_argument(
        "--set", choices=SETS, help="which published figures to compare with; by default the folder's name"
    )
    parser.add_argument("--protocol", choices=("P1", "P2", "P3"), help="by default the paper's")
    parser.add_argument(
        "--option", action="append", default=[], help="of load_network, such as scale=3 or padding=replicate"
    )
    options = parser.parse_args(argv)
    try:
        images = read_images(options.images)
        given = dict(_option(text) for text in options.option)
        which = options.set or next((name for name in SETS if name == options.images.resolve().name), None)
        rows = [measure(path, images, which, options.protocol, given) for path in options.checkpoints]
    except SciSRError as error:
        print(error, file=sys.stderr)
        return 2
    print(as_markdown(rows, which, len(images)))
    return 0


def read_images(folder: Path) -> list[NDArray[np.uint8]]:
    """The images of a folder, grey or RGB, by name.

    Raises:
        InputError: there is none.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".png", ".bmp", ".tif", ".tiff"))
    if not found:
        raise InputError(f"{folder}: no PNG, BMP or TIFF image in it")
    return [np.asarray(image if image.mode == "L" else image.convert("RGB")) for image in map(Image.open, found)]


def measure(
    path: Path, images: Sequence[NDArray[np.uint8]], which: str | None, protocol: str | None, options: dict[str, Any]
) -> Row:
    """The means over the images of one checkpoint's PSNR and SSIM, and of bicubic interpolation's PSNR."""
    network = load_network(path, **options)
    scale = network.spec.scale[0]
    if scale == 1:
        raise InputError(
            f"{path.name}: factor 1 came, expected more; say the factor of the images with --option scale="
        )
    # networks of one channel see the luminance
    kind = cast(Protocol, protocol or ("P1" if network.spec.in_channels == 1 else "P2"))
    scores = [benchmark_score(run(network, benchmark_low(image, scale, kind)), image, scale, kind) for image in images]
    cubic = [benchmark_score(_cubic(image, scale, kind), image, scale, kind) for image in images]
    published = PUBLISHED.get(_kind(network))
    return Row(
        name=path.stem,
        scale=scale,
        protocol=kind,
        psnr=mean(s.psnr for s in scores),
        ssim=mean(s.ssim for s in scores),
        published=None if published is None or which is None else published[SETS.index(which)],
        cubic=mean(s.psnr for s in cubic),
    )


def run(network: SRNetwork, low: NDArray[Any]) -> NDArray[np.float32]:
    """The network's result in 0 to 1 of a low-resolution image, ``(y, x)`` in 0 to 1 or uint8 ``(y, x, 3)``."""
    span = network.spec.value_range or 1.0
    values = low / 255 if low.dtype == np.uint8 else low
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    if planes.shape[0] != network.spec.in_channels:
        raise InputError(
            f"{network.family}: takes {network.spec.in_channels} channels, the protocol gives {planes.shape[0]}"
        )
    x = torch.from_numpy(np.ascontiguousarray(planes, np.float32))[None] * span
    with torch.inference_mode():
        result = network(mirrored(x, network.spec.alignment) if network.family == "swinir" else x)[0] / span
    array: NDArray[np.float32] = result.numpy()
    fine = array[:, : low.shape[0] * network.spec.scale[0], : low.shape[1] * network.spec.scale[1]]
    return fine[0] if len(fine) == 1 else fine.transpose(1, 2, 0)


def mirrored(x: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """``x`` with its far edges mirrored, edge pixel repeated, to the next multiple of the window that is larger.

    That is how the script that made SwinIR's published figures pads (JingyunLiang/SwinIR, main_test_swinir.py); the
    network itself does not repeat the edge pixel and adds nothing to images that are whole windows.
    """
    for dim, w in zip((2, 3), window, strict=True):
        n = x.shape[dim]
        x = torch.cat([x, x.flip(dim)], dim).narrow(dim, 0, min(2 * n, (n // w + 1) * w))
    return x


def _cubic(image: NDArray[np.uint8], scale: int, protocol: Protocol) -> NDArray[Any]:
    return imresize(benchmark_low(image, scale, protocol), float(scale))


def _kind(network: SRNetwork) -> tuple[str, int, int]:
    """Family, features and factor, as the published figures are listed."""
    width = network.arguments.get("features", 0)
    family = "carn-m" if network.arguments.get("mobile") else network.family
    if network.arguments.get("kernels", [9, 5, 5]) != [9, 5, 5]:
        # the table has the larger of the two SRCNNs
        family = "srcnn 9-1-5"
    return family, int(width if isinstance(width, int) else width[0]), network.spec.scale[0]


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def as_markdown(rows: Sequence[Row], which: str | None, images: int) -> str:
    """The table."""
    title = f"PSNR and SSIM of Y, mean over {images} images{'' if which is None else f' of {which}'}"
    lines = [title, "", "| weights | factor | protocol | bicubic dB | PSNR dB | SSIM | published dB | difference |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        known = ("–", "–") if row.published is None else (f"{row.published:.2f}", f"{row.psnr - row.published:+.3f}")
        cells = (
            row.name,
            f"x{row.scale}",
            row.protocol,
            f"{row.cubic:.2f}",
            f"{row.psnr:.3f}",
            f"{row.ssim:.4f}",
            *known,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

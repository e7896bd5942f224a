"""benchmarks/parity.py: reads weights and images, follows the protocol, prints the table."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from sciSR.benchmark_images import benchmark_low, benchmark_score, imresize
from sciSR.networks import build_network
from sciSR.networks.checkpoint import save_checkpoint


def parity() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "parity.py"
    spec = importlib.util.spec_from_file_location("parity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "Set5"
    folder.mkdir()
    y, x = np.mgrid[:49, :61]
    base = 128 + 60 * np.sin(x / 5) + 60 * np.cos(y / 7)
    colour = np.stack([base, base[::-1], 255 - base], 2).astype(np.uint8)
    Image.fromarray(colour).save(folder / "a.png")
    Image.fromarray(colour[..., 0]).save(folder / "b.bmp")
    return folder


def save_srcnn(path: Path) -> Path:
    """SRCNN that hands its input on: what it scores is what bicubic interpolation scores."""
    weights: dict[str, torch.Tensor] = {}
    for key, out, into, kernel in (("conv1", 64, 1, 9), ("conv2", 32, 64, 5), ("conv3", 1, 32, 5)):
        weight = torch.zeros(out, into, kernel, kernel)
        weight[0, 0, kernel // 2, kernel // 2] = 1
        weights |= {f"{key}.weight": weight, f"{key}.bias": torch.zeros(out)}
    torch.save(weights, path)
    return path


def save_edsr(path: Path) -> Path:
    shapes = {"head.0": (64, 3), "body.0.body.0": (64, 64), "body.0.body.2": (64, 64), "body.1": (64, 64)}
    shapes |= {"tail.0.0": (256, 64), "tail.1": (3, 64)}
    torch.save({f"{k}.weight": torch.zeros(*s, 3, 3) for k, s in shapes.items()}
               | {f"{k}.bias": torch.zeros(s[0]) for k, s in shapes.items()}, path)  # fmt: skip
    return path


def test_a_network_that_hands_on_scores_as_bicubic(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = parity()
    path = save_srcnn(tmp_path / "srcnn.pth")
    assert module.main([str(path), "--images", str(images)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["srcnn", "x3", "P1"]
    found = module.read_images(images)
    scores = [benchmark_score(imresize(benchmark_low(i, 3, "P1"), 3.0), i, 3, "P1").psnr for i in found]
    assert float(cells[4]) == pytest.approx(np.mean(scores), abs=2e-3)
    assert cells[3] == f"{np.mean(scores):.2f}"
    assert cells[6] == "32.75"


def test_colour_networks_are_judged_by_the_second_protocol(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = parity()
    path = save_edsr(tmp_path / "edsr_x2.pt")
    assert module.main([str(path), "--images", str(images)]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert cells[:3] == ["edsr_x2", "x2", "P2"]
    assert cells[6] == "37.99"
    grey = np.full((48, 60, 3), np.round(255 * np.array([0.4488, 0.4371, 0.4040])), np.float64) / 255
    expected = benchmark_score(grey, module.read_images(images)[0], 2, "P2").psnr
    alone = tmp_path / "one"
    alone.mkdir()
    (images / "a.png").rename(alone / "a.png")
    assert module.main([str(path), "--images", str(alone)]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert float(cells[4]) == pytest.approx(expected, abs=1e-2)
    assert cells[6] == "–"


def test_windows_are_filled_as_the_published_script_fills_them() -> None:
    module = parity()
    rows = torch.arange(6.0).reshape(1, 1, 6, 1).expand(1, 1, 6, 8)
    filled = module.mirrored(rows, (4, 4))
    # the edge pixel repeated, and one window more where the image has whole windows
    assert filled.shape == (1, 1, 8, 12)
    assert filled[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 4]
    columns = rows.transpose(2, 3)
    assert module.mirrored(columns, (4, 4))[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 4]
    assert module.mirrored(torch.zeros(1, 1, 2, 5), (8, 8)).shape == (1, 1, 4, 8)


def test_swinir_is_judged_as_its_script_does(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = parity()
    torch.manual_seed(0)
    network = build_network(
        "swinir", ndim=2, in_channels=3, scale=2, features=8, depths=(2,), heads=2, window=8, skip=None, value_range=1.0
    ).eval()
    path = tmp_path / "light.safetensors"
    save_checkpoint(network, path, normalization=None, sensor=None, bands=None, provenance={}, name="light")
    assert module.main([str(path), "--images", str(images)]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    scores = []
    for image in module.read_images(images):
        low = benchmark_low(image, 2, "P2")
        # 24 by 30 pixels: one window more below, two columns mirrored to the right
        padded = np.pad(low, ((0, 8), (0, 2), (0, 0)), mode="symmetric")
        with torch.inference_mode():
            y = network(torch.from_numpy(padded.transpose(2, 0, 1) / np.float32(255))[None])[0].numpy()
        scores.append(benchmark_score(y.transpose(1, 2, 0)[:48, :60], image, 2, "P2").psnr)
    assert float(cells[4]) == pytest.approx(np.mean(scores), abs=1e-3)


def test_published_figures_are_those_of_the_network(tmp_path: Path) -> None:
    module = parity()
    weights = torch.load(save_srcnn(tmp_path / "955.pth"))
    weights["conv2.weight"] = weights["conv2.weight"][..., 2:3, 2:3].clone()
    torch.save(weights, tmp_path / "915.pth")
    image = [np.full((40, 40), 9, np.uint8)]
    by_kernel = [module.measure(tmp_path / f"{name}.pth", image, "Set5", None, {}) for name in ("955", "915")]
    assert [row.published for row in by_kernel] == [32.75, None]
    assert all(len(figures) == len(module.SETS) for figures in module.PUBLISHED.values())


def test_wrong_use_is_answered_in_one_line(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = parity()
    path = save_srcnn(tmp_path / "srcnn.pth")
    assert module.main([str(path), "--images", str(tmp_path / "none")]) == 2
    assert module.main([str(path), "--images", str(images), "--option", "scale=1"]) == 2
    assert module.main([str(path), "--images", str(images), "--protocol", "P2"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert "no PNG, BMP or TIFF" in lines[0]
    assert "--option scale=" in lines[1]
    assert "takes 1 channels, the protocol gives 3" in lines[2]

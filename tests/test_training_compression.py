from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sciSR.errors import InputError
from sciSR.networks import build_network, load_network
from sciSR.normalization import Normalization
from sciSR.training import train
from sciSR.training.compression import sparsity
from tests.training_cases import QUICK, same_when_resumed, scene

LONGER = QUICK | {"validate_every": 20, "learning_rate": 3e-3, "validation_fraction": 0.4, "steps": 60}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("large") / "net.safetensors"
    network = {"family": "edsr", "scale": 2, "features": 8, "blocks": 2}
    return str(train(scene(size=120), target, **(LONGER | {"network": network})).path)


def test_pruning_leaves_the_zeros_that_were_asked_for_and_the_quality(tmp_path: Path, large: str) -> None:
    result = train(scene(size=120), tmp_path / "net.safetensors", **(LONGER | {"network": large}), prune=0.5)
    network = load_network(result.path)
    assert sparsity(load_network(large)) < 0.01
    assert sparsity(network) == pytest.approx(0.5, abs=0.01)
    zeros = [h["zeros"] for h in result.values["history"]]
    assert zeros == sorted(zeros)
    assert zeros[-1] == 0.5
    scores = result.values["scores"]["matched"]["scene"]
    assert scores["network"]["psnr"] > scores["cubic"]["psnr"]
    before, after = result.values["sizes"]
    assert before["parameters"] == after["parameters"] == before["nonzero"]
    assert after["nonzero"] < 0.6 * after["parameters"]
    assert after["packed"] < before["packed"]
    assert after["megabytes"] == pytest.approx(result.path.stat().st_size / 1e6, abs=0.01)
    assert after["psnr"] == pytest.approx(scores["network"]["psnr"], abs=1e-3)
    assert before["psnr"] != after["psnr"]
    assert min(before["speed"], after["speed"]) > 0
    _, _, first, second = result.sizes().splitlines()
    assert first.startswith(f"| before: net | {before['parameters']} |")
    assert second.startswith(f"| net | {after['parameters']} | {after['nonzero']} |")


def test_a_pruned_run_goes_on_where_it_stopped(tmp_path: Path, large: str) -> None:
    options = LONGER | {"network": large, "steps": 8, "validate_every": 2, "prune": 0.3}
    assert same_when_resumed(tmp_path, 7, **options)


def test_a_small_network_learns_from_a_large_one(tmp_path: Path, large: str) -> None:
    small = {"family": "edsr", "scale": 2, "features": 4, "blocks": 1}
    result = train(
        scene(size=120),
        tmp_path / "net.safetensors",
        **(LONGER | {"network": small}),
        teacher=large,
        teacher_weight=1.0,
    )
    student, teacher, fresh = load_network(result.path), load_network(large), build_network(
        "edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1
    )  # fmt: skip
    guide, own = result.values["sizes"]
    assert (guide["network"], own["network"]) == ("teacher net", "net")
    assert own["parameters"] < guide["parameters"]
    assert own["speed"] > 0
    assert guide["psnr"] is not None
    x = torch.rand(1, 1, 24, 24)
    with torch.no_grad():
        taught = teacher(x)
        assert float((student(x) - taught).abs().mean()) < float((fresh(x) - taught).abs().mean())


def test_what_does_not_fit_is_refused(tmp_path: Path, large: str) -> None:
    other = {"family": "edsr", "scale": 3, "features": 4, "blocks": 1}
    with pytest.raises(InputError, match=r"teacher: scale \(2, 2\), channels 1 to 1; the network has scale \(3, 3\)"):
        train(scene(), tmp_path / "net.safetensors", **(QUICK | {"network": other}), steps=1, teacher=large)
    with pytest.raises(InputError, match="teacher: adversarial does not take one"):
        train(
            scene(),
            tmp_path / "net.safetensors",
            **(QUICK | {"network": large}),
            steps=1,
            teacher=large,
            adversarial={},
        )
    with pytest.raises(InputError, match=r"prune: 1\.5 is not a share"):
        train(scene(), tmp_path / "net.safetensors", **QUICK, steps=1, prune=1.5)
    with pytest.raises(InputError, match="give steps, not minutes"):
        train(scene(), tmp_path / "net.safetensors", **QUICK, minutes=1, prune=0.5)
    with pytest.raises(InputError, match="teacher_weight: 0 is not a share"):
        train(scene(), tmp_path / "net.safetensors", **QUICK, steps=1, teacher=large, teacher_weight=0)


def test_teacher_and_student_see_the_same_numbers(tmp_path: Path) -> None:
    small = {"family": "edsr", "scale": 2, "features": 4, "blocks": 1}
    plain: dict[str, Any] = QUICK | {"network": small, "steps": 1, "validation_fraction": 0.4}
    recipe = {"kind": "percentile", "low": 0.1, "high": 99.9}
    teacher = str(train(scene(size=120), tmp_path / "teacher.safetensors", **plain, normalization=recipe).path)
    student = train(scene(size=120), tmp_path / "student.safetensors", **plain, teacher=teacher).path
    card = load_network(student).card
    assert card is not None
    assert card.normalization == Normalization(**recipe)  # type: ignore[arg-type]  # a mapping of several types
    other = {"kind": "percentile", "low": 2.0, "high": 98.0}
    with pytest.raises(InputError, match=r"teacher: .*'low': 0\.1.*the network is given .*'low': 2\.0"):
        train(scene(size=120), tmp_path / "a.safetensors", **plain, teacher=teacher, normalization=other)
    own = str(train(scene(size=120), tmp_path / "own.safetensors", **plain, normalization=other).path)
    with pytest.raises(InputError, match=r"the network comes with .*'low': 2\.0"):
        train(scene(size=120), tmp_path / "b.safetensors", **(plain | {"network": own}), teacher=teacher)
    train(
        scene(size=120),
        tmp_path / "c.safetensors",
        **plain,
        teacher=teacher,
        normalization={**recipe, "nonnegative": True},
    )

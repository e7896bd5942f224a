from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sciSR.errors import InputError
from sciSR.losses import build_loss
from sciSR.networks import build_network
from sciSR.normalization import Normalization
from sciSR.sampling import Augmentation, PairMaker, Reference, decode
from sciSR.sensors import Sensor
from sciSR.training import supervised, train
from sciSR.training.lessons import Supervised
from sciSR.training.loop import Settings
from sciSR.training.rates import RateTest, try_rates
from tests.training_cases import QUICK, scene


def settings() -> Settings:
    return Settings(
        patch=(8, 8), batch=4, steps=10, minutes=None, learning_rate=1e-3, warmup=0, schedule="cosine",
        final_learning_rate=0.0, weight_decay=0.0, loss="l1", ema=0.9, clip=1.0, accumulate=1, precision="float32",
        seed=0, validate_every=5, patience=None, dry_run=False, augment=Augmentation(),
    )  # fmt: skip


def test_the_suggestion_lies_where_the_loss_falls_and_the_network_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    crops = decode(Reference(scene(size=120)), normalization=Normalization("percentile"), channels=1, scale=(2, 2))
    maker = PairMaker(crops, patch=(8, 8), scale=(2, 2), sensor=Sensor())
    found = try_rates(
        network, maker, Supervised(build_loss("l1")), settings(), device=torch.device("cpu"), most=10.0, steps=80
    )
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert list(found.rates) == sorted(found.rates)
    assert 1e-5 < found.suggestion < 1.0
    at = min(range(len(found.rates)), key=lambda i: abs(found.rates[i] - found.suggestion))
    assert found.losses[at] < found.losses[0]
    assert found.losses[-1] > min(found.losses)  # it went on until too high a rate hurt
    assert found.draw(tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def tests(monkeypatch: pytest.MonkeyPatch) -> list[RateTest]:
    """Tests of rates that were made, no two of which suggest the same."""
    made: list[RateTest] = []

    def other(*_: Any, **__: Any) -> RateTest:
        made.append(RateTest((1e-3,), (1.0,), 1e-3 * (1 + len(made))))
        return made[-1]

    monkeypatch.setattr(supervised, "try_rates", other)
    return made


def stop(done: int, total: int) -> None:
    if done == 4:
        raise KeyboardInterrupt


def test_a_run_taken_up_again_keeps_the_rate_that_it_found(tmp_path: Path, tests: list[RateTest]) -> None:
    options: dict[str, Any] = QUICK | {"output": tmp_path / "net.safetensors", "steps": 6, "learning_rate": "auto"}
    with pytest.raises(KeyboardInterrupt):
        train(scene(), **options, progress=stop)
    for part in ("resumed", "finished"):
        result = train(scene(), **options, resume=True)
        assert result.values["settings"]["learning_rate"] == 1e-3, part
    assert len(tests) == 1


def test_another_run_finds_its_own_rate(tmp_path: Path, tests: list[RateTest]) -> None:
    options: dict[str, Any] = QUICK | {"output": tmp_path / "net.safetensors", "steps": 3, "learning_rate": "auto"}
    train(scene(), **options)
    with pytest.raises(InputError, match="reference 1 was training scene"):
        train(scene(1), **options, resume=True)
    assert len(tests) == 1
    result = train(scene(1), **options, resume=True, overwrite=True)
    assert result.values["settings"]["learning_rate"] == 2e-3

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sciSR.errors import InputError
from sciSR.networks import load_network
from sciSR.training import train
from sciSR.training.adversarial import Game
from sciSR.training.setup import settings_of
from tests.training_cases import QUICK, same_when_resumed, scene

GAME: dict[str, Any] = {"discriminator": "patch", "features": 4, "layers": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("trained") / "net.safetensors"
    options = QUICK | {"steps": 60, "validate_every": 20, "learning_rate": 3e-3, "validation_fraction": 0.4}
    return str(train(scene(size=120), target, **options).path)


def test_an_untrained_network_is_refused_unless_forced(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="adversarial: the network is untrained"):
        train(scene(), tmp_path / "net.safetensors", **QUICK, steps=1, adversarial=GAME)
    train(scene(), tmp_path / "net.safetensors", **QUICK, steps=1, adversarial=GAME | {"force": True})


@pytest.mark.parametrize("kind", ["vanilla", "least_squares", "wgan_gp", "relativistic"])
def test_every_game_is_played_and_logged(tmp_path: Path, trained: str, kind: str) -> None:
    options = QUICK | {"network": trained, "steps": 6, "patch": 12, "validation_fraction": 0.4}
    result = train(scene(size=120), tmp_path / "net.safetensors", **options, adversarial=GAME | {"kind": kind})
    for record in result.values["history"]:
        assert 0 <= record["discriminator_accuracy"] <= 1
        assert "discriminator_loss" in record
    before, after = load_network(trained).state_dict(), load_network(result.path).state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_a_game_goes_on_where_it_stopped(tmp_path: Path, trained: str) -> None:
    options = QUICK | {"network": trained, "patch": 12, "validation_fraction": 0.4, "adversarial": GAME, "steps": 6}
    assert same_when_resumed(tmp_path, 5, **options)


@pytest.mark.parametrize(
    ("name", "value"), [("weight", 0.0), ("features", 0), ("layers", -1), ("learning_rate", float("nan"))]
)
def test_settings_below_their_least_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"adversarial\.{name}: .* expected more than 0"):
        settings_of(Game, {name: value}, "adversarial")


def test_unknown_settings_are_named(tmp_path: Path, trained: str) -> None:
    with pytest.raises(InputError, match="adversarial: no setting lambda; there are kind, weight"):
        train(
            scene(), tmp_path / "net.safetensors", **(QUICK | {"network": trained}), steps=1, adversarial={"lambda": 1}
        )

"""fp16 with its gradient scaler, which Lightning Fabric uses on GPUs only; here it is made to work on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from sciSR.errors import RunError
from sciSR.networks import load_network
from sciSR.sampling import Pair
from sciSR.training import supervised, train
from sciSR.training.lessons import Supervised
from tests.training_cases import QUICK, same_when_resumed, scene


@pytest.fixture
def scalers(monkeypatch: pytest.MonkeyPatch) -> list[torch.amp.GradScaler]:
    """The scalers of the runs of a test."""
    made: list[torch.amp.GradScaler] = []

    def launch(*_: Any) -> Fabric:
        made.append(torch.amp.GradScaler("cpu", growth_interval=3))
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler=made[-1])])
        fabric.launch()
        return fabric

    monkeypatch.setattr(supervised, "launch", launch)
    return made


class _Overflow(torch.autograd.Function):
    """Passes values on; its gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * float("inf")


def overflow_at(monkeypatch: pytest.MonkeyPatch, wanted: Any) -> None:
    """Let the gradient overflow at each step for which ``wanted(step)`` holds."""
    plain, steps = Supervised.value, iter(range(10**6))

    def value(self: Supervised, model: nn.Module, pair: Pair) -> Tensor:
        made = plain(self, model, pair)
        return _Overflow.apply(made) if wanted(next(steps)) else made  # type: ignore[no-untyped-call]  # torch has no types here

    monkeypatch.setattr(Supervised, "value", value)


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_step_whose_gradient_overflows_is_left_out_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scalers: list[torch.amp.GradScaler], clip: float | None
) -> None:
    overflow_at(monkeypatch, lambda step: step < 2)
    result = train(scene(), tmp_path / "net.safetensors", **QUICK, steps=4, clip=clip, warmup=0)
    assert result.values["steps"] == 4
    assert scalers[0].get_scale() == 2.0**14


def test_gradients_that_overflow_at_every_scale_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scalers: list[torch.amp.GradScaler]
) -> None:
    overflow_at(monkeypatch, lambda step: step >= 3)
    with pytest.raises(RunError, match=r"not finite at step \d\d, on the patches scene"):
        train(scene(), tmp_path / "net.safetensors", **QUICK, steps=100)
    kept = load_network(tmp_path / "net.last_good.safetensors").state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scalers: list[torch.amp.GradScaler]
) -> None:
    plain = Supervised.value
    monkeypatch.setattr(Supervised, "value", lambda *given: plain(*given) * float("nan"))
    with pytest.raises(RunError, match="not finite at step 0"):
        train(scene(), tmp_path / "net.safetensors", **QUICK, steps=3)


def test_a_resumed_run_goes_on_with_its_scale(tmp_path: Path, scalers: list[torch.amp.GradScaler]) -> None:
    assert same_when_resumed(tmp_path, after=5, **QUICK, steps=8)
    whole, _, resumed = (scaler.state_dict() for scaler in scalers)
    assert whole == resumed
    assert whole["scale"] > 2.0**16

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciSR.errors import InputError
from sciSR.training import train
from sciSR.training.trackers import open_trackers, triptych
from tests.training_cases import QUICK, scene


def test_tensorboard_gets_losses_scores_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(scene(size=120), tmp_path / "net.safetensors",
          **(QUICK | {"steps": 6, "trackers": None, "validation_fraction": 0.4}))  # fmt: skip
    events = accumulator.EventAccumulator(str(tmp_path / "net.events"))
    events.Reload()
    assert {"loss", "psnr", "ssim", "learning_rate"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("psnr")] == [3, 6]
    assert events.Tags()["images"] == ["input, network, truth"]


def test_each_term_of_a_loss_is_told(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told: dict[str, Any] = WATCHED | {"trackers": None, "loss": {"l1": 1.0, "gradient": 0.5}}
    history = train(scene(size=120), tmp_path / "net.safetensors", **told).values["history"]
    events = accumulator.EventAccumulator(str(tmp_path / "net.events"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss/gradient")] == [3, 6]
    for record in history:
        assert record["loss/l1"] + 0.5 * record["loss/gradient"] == pytest.approx(record["loss"], rel=1e-5)


def test_a_triptych_shows_three_images_on_one_scale() -> None:
    high = torch.zeros(1, 1, 6, 8)
    high[..., 4:] = 1
    shown = triptych(torch.zeros(1, 1, 3, 4), torch.full((1, 1, 6, 8), 0.5), high)
    assert shown.shape == (6, 24)
    assert (shown[:, :8] == 0).all()
    assert (shown[:, 8:16] == 127).all()
    assert (shown[:, 20:] == 255).all()
    deep = triptych(torch.zeros(1, 2, 2, 3, 4), torch.zeros(1, 2, 4, 6, 8), torch.zeros(1, 2, 4, 6, 8))
    assert deep.shape == (6, 24)
    assert deep.dtype == np.uint8


def test_unknown_and_missing_trackers_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'comet' is not one of tensorboard, wandb, mlflow"):
        open_trackers(["comet"], name="run", folder=tmp_path, settings={})
    for package in ("wandb", "mlflow"):
        if importlib.util.find_spec(package) is None:
            with pytest.raises(InputError, match=f"pip install {package}"):
                open_trackers([package], name="run", folder=tmp_path, settings={})


WATCHED: dict[str, Any] = QUICK | {"steps": 6, "validation_fraction": 0.4}


def test_trackers_are_imported_only_when_they_are_asked_for() -> None:
    asked = "import sys, sciSR.training; print(sorted({'wandb', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weights_and_biases_gets_losses_scores_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(scene(size=120), tmp_path / "net.safetensors", **(WATCHED | {"trackers": ["wandb"]}))
    (run,) = (tmp_path / "net.events" / "wandb").glob("offline-run-*")
    (log,) = run.glob("*.wandb")
    assert all(name in log.read_bytes() for name in (b"loss", b"psnr", b"ssim", b"learning_rate"))
    assert len(list(run.rglob("*.png"))) == 2


def test_mlflow_gets_losses_scores_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    train(scene(size=120), tmp_path / "net.safetensors", **(WATCHED | {"trackers": ["mlflow"]}))
    (run,) = mlflow.search_runs(output_format="list")
    assert run.info.run_name == "net"
    assert run.data.params["batch"] == "4"
    client = mlflow.MlflowClient()
    assert [m.step for m in client.get_metric_history(run.info.run_id, "psnr")] == [3, 6]
    assert len(client.list_artifacts(run.info.run_id)) == 2

from __future__ import annotations

import importlib.util
from pathlib import Path

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

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sciSR.errors import InputError
from sciSR.io import save_raster
from sciSR.networks import load_network
from sciSR.training.setup import launch
from tests.training_cases import scene

SCRIPT = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
from sciSR.raster import Raster
from sciSR.training import train
y, x = np.mgrid[0:96, 0:96] / 6.0
values = np.sign(np.sin(x) * np.cos(y * 1.3)) + 0.3 * np.sin(3 * x * y / 20)
raster = Raster.from_array(values.astype(np.float32), affine=np.diag([10.0, -10.0, 1.0]), axes="yx", name="blobs")
network = {"family": "edsr", "scale": 2, "features": 4, "blocks": 1}
train(raster, sys.argv[1], sensor="generic-gaussian", network=network,
      patch=8, batch=8, steps=12, validate_every=4, learning_rate=5e-3, validation_fraction=0.4, device="cpu",
      augment={"noise": [0.0, 0.02], "width": [0.9, 1.1]})
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _call(target: Path, processes: int, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script in so many processes."""
    script = target.parent / "script.py"
    script.write_text(text)
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={_free_port()}"]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(script), str(target)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def _train(target: Path, processes: int, text: str = SCRIPT) -> dict[str, Any]:
    done = _call(target, processes, text)
    assert done.returncode == 0, done.stderr[-3000:]
    values: dict[str, Any] = json.loads(
        target.with_name(target.name.replace(".safetensors", ".train.json")).read_text()
    )
    return values


def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = _train(tmp_path / "one" / "net.safetensors", 1)
    two = _train(tmp_path / "two" / "net.safetensors", 2)
    for a, b in zip(one["history"], two["history"], strict=True):
        assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-5)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    first = load_network(tmp_path / "one" / "net.safetensors").state_dict()
    second = load_network(tmp_path / "two" / "net.safetensors").state_dict()
    assert max(float((first[k] - second[k]).abs().max()) for k in first) < 1e-5
    assert one["history"][-1]["psnr"] > one["history"][0]["psnr"]


SPOILED = """
import os, sys
from sciSR.errors import RunError
from sciSR.training.lessons import Supervised
plain, steps = Supervised.value, iter(range(100))
def value(*given):
    spoiled = next(steps) == 3 and os.environ["RANK"] == "0"
    return plain(*given) * (float("nan") if spoiled else 1.0)
Supervised.value = value
"""


def test_a_loss_that_one_process_alone_finds_bad_stops_all_at_the_same_step(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    stopped = f"{SCRIPT.replace('steps=12', 'steps=12, clip=None')}".replace("\n", "\n    ")
    text = f"{SPOILED}\ntry:{stopped}\nexcept RunError as error:\n    sys.stdout.write(f'{{error}}\\n')\n"
    done = _call(target, 2, text)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the loss or its gradient is not finite at step 3, on the patches") == 2
    kept = load_network(tmp_path / "net.last_good.safetensors").state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())


def test_two_processes_search_a_network_together(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = "search={'features': [4, 8], 'blocks': [1, 2], 'trials': 2, 'steps': 1}"
    values = _train(tmp_path / "net.safetensors", 2, SCRIPT.replace("steps=12", f"steps=1, {search}"))
    assert len(values["search"]) == 2
    assert values["network"]["arguments"]["features"] == values["search"][0]["features"]


@pytest.mark.parametrize("device", ["tpu", "cpux"])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="expected auto, cpu, cuda"):
        launch(device, 1, 1, "float32")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_fp16_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"precision: fp16 needs a CUDA device, device '{device}' has none; use bf16"):
        launch(device, 1, 1, "fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused() -> None:
    with pytest.raises(InputError, match="torch sees no CUDA device here"):
        launch("cuda", 1, 1, "float32")


@pytest.mark.parametrize("launcher", ["torchrun", "fabric"])
def test_after_training_together_one_process_does_the_rest(tmp_path: Path, launcher: str) -> None:
    source = save_raster(scene(size=96), tmp_path / "scene.tif")
    workflow = {
        "input": str(source),
        "output": str(tmp_path / "out"),
        "train": {
            "references": [{"path": str(source)}],
            "output": str(tmp_path / "net.safetensors"),
            "sensor": "generic-gaussian",
            "network": {"family": "edsr", "scale": 2, "features": 4, "blocks": 1},
            "patch": 8,
            "batch": 2,
            "steps": 2,
            "validate_every": 2,
            "device": "cpu",
            "devices": 2,
            "trackers": [],
        },
        "upscale": {"device": "cpu"},
        "evaluate": {},
    }
    file = tmp_path / "workflow.yaml"
    file.write_text(yaml.safe_dump(workflow), encoding="utf-8")
    together = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_free_port()}"]
    command = [sys.executable, *(together if launcher == "torchrun" else []), "-m", "sciSR", "run", str(file)]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert said.count("\noutput  ") == said.count("\nrecord  ") == 1
    assert said.count("weights  ") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene.run.json", "scene.tif"]

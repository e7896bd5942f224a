"""Every file of ``workflows/`` runs, on small parts of the real crops and with the weights that ship."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sciSR.config import load_workflow
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.record import read_record
from sciSR.workflow import run_workflow

ROOT = Path(__file__).resolve().parent.parent
TRAINING = sorted(path.name for path in (ROOT / "workflows").glob("train_*.yaml"))
APPLYING = sorted(path.name for path in (ROOT / "workflows").glob("*.yaml") if path.name not in TRAINING)
SELF = "train_self_mri.yaml"
PARTS = {
    "ct_chest_crop.nii.gz": {"z": slice(10, 42), "y": slice(40, 88), "x": slice(40, 88)},
    "mri_t1_head_crop.nii.gz": {"z": slice(40, 80), "y": slice(40, 80), "x": slice(40, 80)},
    "mri_thick_crop.nii.gz": {"y": slice(90, 140), "x": slice(80, 130)},
    "sentinel2_crop.tif": {"y": slice(60, 156), "x": slice(60, 156)},
}
"""Where something is to be seen: lung and wall, ventricles, a coast."""


def part_of(name: str, folder: Path) -> Path:
    return save_raster(open_raster(ROOT / "examples" / "data" / name).crop(**PARTS[name]), folder / name)


@pytest.mark.parametrize("name", APPLYING)
def test_a_workflow_beats_cubic_and_places_its_result(tmp_path: Path, name: str) -> None:
    workflow = load_workflow(ROOT / "workflows" / name)
    assert workflow.input is not None
    assert workflow.upscale is not None
    if workflow.upscale.precision == "int8":
        pytest.importorskip("openvino")
    network = workflow.upscale.network
    source = part_of(Path(workflow.input.path[0]).name, tmp_path)

    outcome = run_workflow(ROOT / "workflows" / name, overrides=[f"input={source}"], output=tmp_path / "out")

    (done,) = outcome.done
    assert [path.suffix for path in done.files][1:] == [".json", ".png", ".html"]
    result, raster = open_raster(done.job.output), open_raster(source)
    assert result.grid.same_space(raster.grid, tolerance_px=1e-3)
    assert outcome.table is not None
    assert network is not None
    assert outcome.table.value(network, "psnr") > outcome.table.value("cubic", "psnr")
    record = read_record(done.job.record)
    assert record.consistency is not None
    assert record.consistency["relative"] < 0.02
    if workflow.upscale.target_spacing == "isotropic":
        finest = min(raster.grid.spacing.values())
        assert all(abs(size / finest - 1) < 0.02 for size in result.grid.spacing.values())


# the halo of a 3D network of full size takes half a minute to measure
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if "prune" in n else []) for n in TRAINING if n != SELF]
)
def test_a_training_workflow_trains(tmp_path: Path, name: str) -> None:
    section = load_workflow(ROOT / "workflows" / name).train
    assert section is not None
    if section.search is not None:
        pytest.importorskip("optuna")
    crops = {"ct": "ct_chest", "mri": "mri_t1_head", "s2": "sentinel2"}
    crop = next(crops[part] for part in name.split("_") if part in crops)
    (source,) = (ROOT / "examples" / "data").glob(f"{crop}_crop.*")
    changes = [
        f"train.references=[{{path: {source}}}]", "train.validation=[]", "train.steps=2", "train.minutes=null",
        "train.batch=1", "train.validate_every=2", "train.validation_count=1", "train.device=cpu",
        f"train.output={tmp_path / 'w.safetensors'}",
    ]  # fmt: skip
    if isinstance(section.network, dict):
        changes += ["train.network.features=4", "train.network.blocks=1"]
    if section.search is not None:
        changes.append("train.search={features: [4, 4], blocks: [1, 1], trials: 1, steps: 1}")

    outcome = run_workflow(ROOT / "workflows" / name, overrides=changes)

    assert outcome.trained == tmp_path / "w.safetensors"
    assert outcome.done == ()
    assert outcome.training is not None
    assert outcome.training["settings"]["steps"] == 2


@pytest.mark.slow
def test_one_scan_teaches_and_is_refined(tmp_path: Path) -> None:
    source = part_of("mri_thick_crop.nii.gz", tmp_path)
    changes = [
        f"input={source}", "train.steps=2", "train.minutes=null", "train.rounds=1", "train.patch=8", "train.batch=1",
        "train.learning_rate=1e-5", "train.device=cpu", f"train.output={tmp_path / 'own.safetensors'}",
    ]  # fmt: skip

    outcome = run_workflow(ROOT / "workflows" / SELF, overrides=changes, output=tmp_path / "out")

    assert outcome.trained == tmp_path / "own.safetensors"
    (done,) = outcome.done
    assert open_raster(done.job.output).grid.shape[0] == 4 * open_raster(source).grid.shape[0]
    assert outcome.table is not None
    assert outcome.table.value("own", "psnr") > outcome.table.value("cubic", "psnr")


@pytest.mark.slow
def test_two_minutes_of_a_game_do_not_collapse(tmp_path: Path) -> None:
    target = tmp_path / "gan.safetensors"
    changes = [f"train.output={target}", "train.device=cpu"]

    outcome = run_workflow(ROOT / "workflows" / "train_gan_s2_x2.yaml", overrides=changes)

    values = json.loads((tmp_path / "gan.train.json").read_text(encoding="utf-8"))
    history = values["history"]
    assert outcome.trained == target
    assert values["seconds"] > 60
    assert all(math.isfinite(record["loss"]) for record in history)
    # neither side has won: a discriminator that is always right teaches nothing
    last = [record["discriminator_accuracy"] for record in history[len(history) // 2 :]]
    assert 0.4 < sum(last) / len(last) < 0.98
    # crisper may cost some PSNR, a collapsed generator is worse than interpolation by far
    (scores,) = values["scores"]["matched"].values()
    assert scores["network"]["psnr"] > scores["cubic"]["psnr"] - 0.5
    shown = open_raster(ROOT / "examples" / "data" / "sentinel2_crop.tif").crop(y=slice(60, 156), x=slice(60, 156))
    made, before = (upscale(shown, str(weights)).read().values for weights in (target, "s2-x2"))
    assert np.std(made) == pytest.approx(np.std(before), rel=0.05)
    assert len(np.unique(made.round())) > 500

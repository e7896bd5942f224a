"""Every file of ``workflows/`` runs, on small parts of the real crops and with the weights that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciSR.config import load_workflow
from sciSR.io import open_raster, save_raster
from sciSR.record import read_record
from sciSR.workflow import run_workflow

ROOT = Path(__file__).resolve().parent.parent
TRAINING = sorted(path.name for path in (ROOT / "workflows").glob("train_*.yaml"))
APPLYING = sorted(path.name for path in (ROOT / "workflows").glob("*.yaml") if path.name not in TRAINING)
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


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_workflow_trains(tmp_path: Path, name: str) -> None:
    section = load_workflow(ROOT / "workflows" / name).train
    assert section is not None
    crop = {"ct": "ct_chest", "mri": "mri_t1_head", "s2": "sentinel2"}[name.split("_")[1]]
    (source,) = (ROOT / "examples" / "data").glob(f"{crop}_crop.*")
    changes = [
        f"train.references=[{{path: {source}}}]", "train.validation=[]", "train.steps=2", "train.minutes=null",
        "train.batch=1", "train.validate_every=2", "train.validation_count=1", "train.device=cpu",
        "train.network.features=4", "train.network.blocks=1",
        f"train.output={tmp_path / 'w.safetensors'}",
    ]  # fmt: skip

    outcome = run_workflow(ROOT / "workflows" / name, overrides=changes)

    assert outcome.trained == tmp_path / "w.safetensors"
    assert outcome.done == ()
    assert outcome.training is not None
    assert outcome.training["settings"]["steps"] == 2

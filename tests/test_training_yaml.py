"""What a workflow file asks of training: sums of losses, measured pairs, folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sciSR.batch import expand_folders, partners
from sciSR.degradation import degrade
from sciSR.errors import GeometryError, InputError
from sciSR.io import open_raster, save_raster
from sciSR.networks import load_network
from sciSR.raster import Raster
from sciSR.resampling import resample
from sciSR.workflow import run_workflow
from tests.training_cases import scene, volume

ROOT = Path(__file__).resolve().parent.parent
NETWORK = {"family": "edsr", "scale": 2, "features": 4, "blocks": 1}


def run(folder: Path, **train: Any) -> dict[str, Any]:
    """The record of a short training that a file asks for."""
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "output": str(folder / "net.safetensors"),
        "network": NETWORK,
        "patch": 8,
        "batch": 2,
        "steps": 1,
        "validate_every": 1,
        "validation_count": 1,
        "device": "cpu",
        "trackers": [],
    }
    file = folder / "workflow.yaml"
    file.write_text(yaml.safe_dump({"train": settings | train}), encoding="utf-8")
    run_workflow(file)
    record: dict[str, Any] = json.loads((folder / "net.train.json").read_text(encoding="utf-8"))
    return record


def test_a_loss_is_the_sum_that_the_file_states(tmp_path: Path) -> None:
    image = save_raster(scene(size=96), tmp_path / "scene.tif")

    def first(name: str, loss: Any) -> float:
        record = run(tmp_path / name, references=[{"path": str(image)}], sensor="generic-gaussian", loss=loss)
        return float(record["history"][0]["loss"])

    plain = first("plain", "l1")
    consistent = first("consistent", {"data_consistency": 1.0})
    assert consistent > 0
    together = first("together", {"l1": 2.0, "data_consistency": {"weight": 0.5}})
    assert together == pytest.approx(2 * plain + 0.5 * consistent, rel=1e-5)


def test_a_measured_pair_may_be_held_to_a_stated_sensor(tmp_path: Path) -> None:
    fine = save_raster(scene(size=96), tmp_path / "fine.tif")
    low = save_raster(degrade(scene(size=96), 2, sensor="box"), tmp_path / "low.tif")
    pair: dict[str, Any] = {"references": [{"path": str(fine), "low": str(low)}], "loss": {"data_consistency": 1.0}}
    box = run(tmp_path / "box", **pair, sensor="box")["history"][0]["loss"]
    wide = run(tmp_path / "wide", **pair, sensor="generic-gaussian")["history"][0]["loss"]
    assert box > 0
    assert wide != pytest.approx(box, rel=1e-3)
    with pytest.raises(InputError, match="needs sensor, which this training does not state"):
        run(tmp_path / "none", **pair)


@pytest.mark.parametrize("align", [False, True])
def test_a_measured_pair_reports_how_far_it_is_displaced(tmp_path: Path, align: bool) -> None:
    """The coarse scene was seen from one fine pixel farther on along y, two along x: all lies nearer to the edge."""
    wide = scene(size=136)
    fine = save_raster(
        Raster.from_array(wide.read().values[4:-4, 4:-4], affine=np.diag([10.0, -10.0, 1.0]), axes="yx"),
        tmp_path / "fine.tif",
    )
    moved = Raster.from_array(wide.read().values[5:-3, 6:-2], affine=np.diag([10.0, -10.0, 1.0]), axes="yx")
    low = save_raster(degrade(moved, 2, sensor="box"), tmp_path / "low.tif")

    record = run(tmp_path / "out", references=[{"path": str(fine), "low": str(low), "align": align}])

    told = record["data"][0]["low"]
    assert told["aligned"] is align
    assert told["shift"] == pytest.approx([-1.0, -2.0], abs=0.1)
    assert "measured" in record["scores"]


def test_a_folder_of_pictures_trains_a_network_for_photographs(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    torch = pytest.importorskip("torch")
    crop = open_raster(ROOT / "examples/data/sentinel2_crop.tif")
    values = torch.from_numpy(crop.read().values[:3].astype(np.float32))[None]
    shown = (resample(values, (120, 160))[0] / 3000).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
    for number, part in enumerate(np.split(shown, 2, axis=1)):
        image.fromarray(np.ascontiguousarray(part)).save(tmp_path / f"{number:04d}.png")

    record = run(
        tmp_path / "out",
        references=[{"path": str(tmp_path / "*.png")}],
        sensor="generic-gaussian",
        normalization={"kind": "fixed", "scale": [255.0]},
        validation_fraction=0.4,
    )

    assert [entry["name"] for entry in record["data"]] == ["0000.png", "0001.png"]
    network = load_network(tmp_path / "out" / "net.safetensors")
    assert (network.spec.ndim, network.spec.in_channels) == (2, 3)


def test_a_dry_run_says_its_verdict_and_ends_before_the_steps_that_need_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = save_raster(scene(), tmp_path / "scene.tif")
    train = {
        "output": str(tmp_path / "net.safetensors"), "network": NETWORK, "references": [{"path": str(image)}],
        "sensor": "generic-gaussian", "patch": 8, "batch": 2, "steps": 4, "device": "cpu", "dry_run": True,
    }  # fmt: skip
    steps = {"input": str(image), "output": str(tmp_path / "out"), "upscale": {}}
    (tmp_path / "net.safetensors").write_bytes(b"mine")
    with caplog.at_level("INFO"):
        outcome = run_workflow({"train": train, **steps})
    assert (outcome.trained, outcome.done) == (None, ())
    assert outcome.training is not None
    assert outcome.training["steps"] == 4
    assert "dry run: 4 steps on the first batch took its loss from" in caplog.text
    assert "the steps after the training were left out: a dry run makes no weights" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "net.safetensors"}
    assert (tmp_path / "net.safetensors").read_bytes() == b"mine"


def pictures(folder: Path, names: list[str], size: int) -> None:
    image = pytest.importorskip("PIL.Image")
    folder.mkdir()
    for number, name in enumerate(names):
        values = scene(number, size=144).read().values[:: 144 // size, :: 144 // size]
        image.fromarray(((values - values.min()) / np.ptp(values) * 255).astype(np.uint8)).save(folder / name)


def test_folders_of_pictures_are_pairs_in_their_order(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(3)]
    pictures(tmp_path / "hr", names, 144)
    pictures(tmp_path / "lr", names, 72)
    (tmp_path / "hr" / "notes.txt").write_text("not an image")
    pair = {"path": str(tmp_path / "hr"), "low": str(tmp_path / "lr" / "*.png")}
    record = run(tmp_path / "out", references=[pair], validation_fraction=0.4)
    assert [(entry["name"], entry["low"]["name"]) for entry in record["data"]] == [(n, n) for n in names]

    (tmp_path / "lr" / "1.png").unlink()
    with pytest.raises(InputError, match=r"low: 2 files came for 3 of path; .*without a partner: .*hr.1\.png\)"):
        run(tmp_path / "out", references=[pair])


def test_partners_are_not_taken_in_another_order() -> None:
    assert partners(["a/1.png", "a/2.png"], ["b/1x2.png", "b/2x2.png"], "low") == ["b/1x2.png", "b/2x2.png"]
    with pytest.raises(InputError, match="the names are the same, their order is not"):
        partners(["a/1.png", "a/2.png"], ["b/2.png", "b/1.png"], "low")
    with pytest.raises(InputError, match=r"low: 1 files came for 2 of path; .*without a partner: a/2\.png"):
        partners(["a/1.png", "a/2.png"], ["b/x.png"], "low")


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    for n in range(2):
        save_raster(volume((8, 8, 8)), tmp_path / f"{n}.nii.gz")
    (tmp_path / "pair.hdr").touch()
    (tmp_path / "pair.img").touch()
    assert [Path(p).name for p in expand_folders([str(tmp_path)])] == ["0.nii.gz", "1.nii.gz", "pair.hdr"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image in this folder, and subfolders are not searched; expected"):
        expand_folders([str(tmp_path / "empty")])


def test_labels_are_no_images_to_learn_from(tmp_path: Path) -> None:
    values = (scene(size=96).read().values > 500).astype(np.uint8) * 3
    path = save_raster(Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="yx"), tmp_path / "map.tif")
    entry = {"path": str(path)}
    with pytest.raises(InputError, match=r"map\.tif: looks like a label map .*; leave it away, or say labels: false"):
        run(tmp_path / "out", references=[entry], sensor="generic-gaussian")
    record = run(tmp_path / "out", references=[entry | {"labels": False}], sensor="generic-gaussian")
    assert record["steps"] == 1


def test_a_mask_says_where_patches_lie(tmp_path: Path) -> None:
    image = scene(size=96)
    values = np.zeros((96, 96), np.uint8)
    values[40:] = 1
    path = save_raster(image, tmp_path / "scene.tif")
    mask = save_raster(Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="yx"), tmp_path / "mask.tif")
    entry = {"path": str(path), "mask": str(mask)}
    record = run(tmp_path / "out", references=[entry], sensor="generic-gaussian")
    assert record["data"][0]["mask"]["name"] == "mask.tif"
    small = save_raster(scene(size=48), tmp_path / "small.tif")
    with pytest.raises(GeometryError, match=r"small\.tif: a mask of axes c, y, x"):
        run(tmp_path / "other", references=[entry | {"mask": str(small)}], sensor="generic-gaussian")

"""Everything that can be known before the work is said before the work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR import preflight
from sciSR.config import make_workflow
from sciSR.errors import (
    CheckpointError,
    FormatError,
    GeometryError,
    InputError,
    MissingFileError,
    OutputExistsError,
    ResourceError,
    SciSRError,
)
from sciSR.preflight import Preflight, check_workflow
from tests.made_files import smooth, write_scene, write_volume, write_weights


def checked(folder: Path, **sections: Any) -> Preflight:
    values = {"upscale": {"network": "cubic", "scale": 2}, "output": str(folder / "out"), **sections}
    return check_workflow(make_workflow(values))


def only(errors: list[SciSRError]) -> SciSRError:
    assert len(errors) == 1, errors
    assert "\n" not in str(errors[0])
    return errors[0]


def refusal(found: Preflight) -> SciSRError:
    assert not found.errors
    return only([error for _, error in found.refused])


def test_a_workflow_without_errors_tells_what_it_will_make(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    found = checked(tmp_path, input=str(source))
    assert (found.errors, found.refused) == ([], [])
    (outlook,) = found.outlooks
    assert outlook.result_shape == (32, 36, 40)
    assert outlook.job.output == tmp_path / "out" / "a.nii.gz"
    assert 0 < outlook.disk.output <= 32 * 36 * 40 * 2
    assert outlook.memory_bytes > 0
    assert not (tmp_path / "out").exists()


def test_every_error_is_found_at_once(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        input=str(tmp_path / "none.nii.gz"),
        upscale={"network": "cubic", "device": "cuda:99", "sensor": "nosuch"},
        evaluate={"baselines": ["cubi"], "sensor": "alsonot", "mask": str(tmp_path / "mask.nii")},
    )
    told = [str(error) for error in found.errors] + [str(error) for _, error in found.refused]
    for part in ("cuda:99", "nosuch", "alsonot", "did you mean 'cubic'", "mask.nii", "none.nii.gz"):
        assert sum(part in text for text in told) == 1, (part, told)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.tif"])
def test_a_truncated_input_is_refused(tmp_path: Path, name: str) -> None:
    whole = write_scene(tmp_path / name) if name.endswith("tif") else write_volume(tmp_path / name)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    error = refusal(checked(tmp_path, input=str(whole)))
    assert isinstance(error, FormatError)
    assert name in str(error)


def test_an_input_that_is_something_else_is_refused(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.nii", "a.tif"):
        (tmp_path / name).write_bytes(b"this is no image, whatever its name says" * 20)
        error = refusal(checked(tmp_path, input=str(tmp_path / name)))
        assert isinstance(error, FormatError)
        assert name in str(error)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    volume, scene = write_volume(tmp_path / "a.nii.gz"), write_scene(tmp_path / "a.tif", np.ones((3, 20, 20)))
    deep = write_weights(tmp_path / "deep.safetensors", ndim=3)
    bands = write_weights(tmp_path / "bands.safetensors", ndim=2, in_channels=4)
    error = refusal(checked(tmp_path, input=str(scene), upscale={"network": str(deep)}))
    assert isinstance(error, InputError)
    assert "2D network" in str(error)
    error = refusal(checked(tmp_path, input=str(scene), upscale={"network": str(bands)}))
    assert "3 channel" in str(error)
    assert "takes 4" in str(error)
    error = refusal(checked(tmp_path, input=str(volume), upscale={"network": str(bands)}))
    assert isinstance(error, InputError)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    for name, content in (("w.safetensors", b"nothing"), ("w.pth", b"\x80\x04nothing"), ("w.bin", b"")):
        (tmp_path / name).write_bytes(content)
        error = only(checked(tmp_path, input=str(source), upscale={"network": str(tmp_path / name)}).errors)
        assert isinstance(error, CheckpointError)
        assert name in str(error)
    error = only(checked(tmp_path, input=str(source), upscale={"network": "mri-x22"}).errors)
    assert isinstance(error, MissingFileError)
    assert "mri-x22" in str(error)


def test_outputs_that_are_there_are_refused_unless_allowed(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    (tmp_path / "out").mkdir()
    for name in ("a.nii.gz", "a.run.json", "a.png"):
        (tmp_path / "out" / name).touch()
        error = refusal(checked(tmp_path, input=str(source), report={}))
        assert isinstance(error, OutputExistsError)
        assert name in str(error)
        workflow = make_workflow(
            {"input": str(source), "upscale": {"network": "cubic"}, "report": {}, "output": str(tmp_path / "out")}
        )
        assert check_workflow(workflow, overwrite=True).refused == []
        (tmp_path / "out" / name).unlink()


def test_an_output_that_its_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    volume, scene = write_volume(tmp_path / "a.nii.gz"), write_scene(tmp_path / "a.tif")
    for source, suffix in ((volume, ".tif"), (scene, ".nii.gz")):
        found = checked(tmp_path, input=str(source), output={"path": str(tmp_path / "out"), "suffix": suffix})
        assert isinstance(refusal(found), InputError)
    found = checked(tmp_path, input=str(volume), output={"path": str(tmp_path / "out"), "cog": True})
    assert "cog" in str(refusal(found))


@pytest.mark.parametrize(("factor", "told"), [(1e-4, "--normalization fraction"), (1e5, "pass one of your own")])
def test_a_scene_in_a_unit_that_the_network_does_not_know_is_refused(tmp_path: Path, factor: float, told: str) -> None:
    values = smooth((4, 80, 70)) * factor
    source = write_scene(tmp_path / "a.tif", values, dtype="float32")
    error = refusal(checked(tmp_path, input=str(source), upscale={"network": "s2-x2"}))
    assert isinstance(error, InputError)
    assert told in str(error)
    assert "a.tif" in str(error)
    digital = write_scene(tmp_path / "b.tif", smooth((4, 80, 70)))
    found = checked(tmp_path, input=str(digital), upscale={"network": "s2-x2"})
    assert (found.errors, found.refused, found.notes) == ([], [], [])
    own = {"kind": "fixed", "scale": [1000 * factor]}
    found = checked(tmp_path, input=str(source), upscale={"network": "s2-x2", "normalization": own})
    assert (found.errors, found.refused) == ([], [])


def test_classes_have_no_unit_that_a_network_could_miss(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).integers(0, 3, (4, 40, 40))
    source = write_scene(tmp_path / "a.tif", classes / 100, dtype="float32")
    found = checked(tmp_path, input={"path": str(source), "labels": True}, upscale={"network": "s2-x2"})
    assert (found.errors, found.refused) == ([], [])


def test_a_reference_that_the_result_cannot_be_compared_with_is_refused(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    fine = np.diag([0.4, 0.45, 0.55, 1.0])
    fine[:3, 3] = [-0.2, -0.225, -0.275]
    good = write_volume(tmp_path / "fine.nii.gz", smooth((40, 36, 32)), fine)
    moved = fine.copy()
    moved[0, 3] += 9
    elsewhere = write_volume(tmp_path / "far.nii.gz", smooth((40, 36, 32)), moved)
    settings = {"protocol": "reference", "sensor": "mri"}
    found = checked(tmp_path, input=str(source), evaluate={**settings, "reference": str(good)})
    assert (found.errors, found.refused) == ([], [])
    error = refusal(checked(tmp_path, input=str(source), evaluate={**settings, "reference": str(elsewhere)}))
    assert isinstance(error, GeometryError)
    error = refusal(checked(tmp_path, input=str(source), evaluate={**settings, "reference": str(source)}))
    assert "resample one to the other" in str(error)
    (tmp_path / "a.json").write_text('{"Units": "HU"}')
    (tmp_path / "fine.json").write_text('{"Units": "mm"}')
    error = refusal(checked(tmp_path, input=str(source), evaluate={**settings, "reference": str(good)}))
    assert "values in HU" in str(error)
    assert "in mm" in str(error)
    error = refusal(checked(tmp_path, input=str(source), evaluate={"sensor": "mri", "mask": str(good)}))
    assert "the mask" in str(error)


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    (tmp_path / "file").touch()
    error = refusal(checked(tmp_path, input=str(source), output=str(tmp_path / "file" / "x.nii")))
    assert "cannot write into" in str(error)


def test_a_factor_for_an_axis_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "a.tif")
    error = refusal(checked(tmp_path, input=str(source), upscale={"network": "cubic", "scale": "z=4"}))
    assert "no spatial axis z" in str(error)


def test_a_label_map_is_refused_naming_the_ways_out(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (12, 12, 12))
    source = write_volume(tmp_path / "labels.nii.gz", labels, dtype="uint8")
    error = refusal(checked(tmp_path, input=str(source)))
    assert "--labels" in str(error)
    assert "--not-labels" in str(error)
    for said in (True, False):
        assert checked(tmp_path, input={"path": str(source), "labels": said}).refused == []


def test_every_error_of_a_train_step_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").touch()
    train = {
        "references": [{"path": str(tmp_path / "none.nii.gz")}, {"path": str(tmp_path / "*.tif")}],
        "validation": [{"path": str(tmp_path / "judge.nii")}],
        "output": str(tmp_path / "old.safetensors"),
        "network": {"family": "edsrr", "scale": 2},
        "sensor": "nosuch",
        "device": "cuda:99",
        "steps": 1,
    }
    found = check_workflow(make_workflow({"train": train}))
    told = [str(error) for error in found.errors]
    for part in ("none.nii.gz", "*.tif", "judge.nii", "old.safetensors: exists", "edsrr", "nosuch", "cuda:99"):
        assert sum(part in text for text in told) == 1, (part, told)
    assert len(told) == 7


def test_wald_needs_a_sensor(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    error = only(checked(tmp_path, input=str(source), evaluate={}).errors)
    assert "evaluate.sensor is missing" in str(error)
    assert checked(tmp_path, input=str(source), evaluate={"sensor": "mri"}).errors == []
    own = write_weights(tmp_path / "w.safetensors", ndim=3)
    assert checked(tmp_path, input=str(source), upscale={"network": str(own)}, evaluate={}).errors == []


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: _Usage(100, 99, 1))
    error = only(checked(tmp_path, input=str(source)).errors)
    assert isinstance(error, ResourceError)
    assert "MB of disk, 0.0 MB are free" in str(error)


def test_too_little_memory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_volume(tmp_path / "a.nii.gz")
    monkeypatch.setattr(preflight, "available_memory", lambda: 1000)
    error = refusal(checked(tmp_path, input=str(source)))
    assert isinstance(error, ResourceError)
    assert "smaller tile" in str(error)


def training(folder: Path, values: NDArray[Any], **train: Any) -> list[str]:
    """The errors of a small train step on one volume."""
    fine = write_volume(folder / "fine.nii.gz", values, dtype="float32")
    plain = {
        "references": [{"path": str(fine)}],
        "output": str(folder / "net.safetensors"),
        "network": {"family": "edsr", "scale": 2, "features": 4, "blocks": 1},
        "sensor": "mri",
        "patch": 4,
        "steps": 1,
    }
    return [str(error) for error in check_workflow(make_workflow({"train": plain | train})).errors]


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"schedule": "linear"}, ["schedule: 'linear' is not one of cosine"]),
        ({"loss": "foo"}, ["loss: 'foo' is not one of l1"]),
        ({"schedule": "linear", "loss": "foo"}, ["schedule: 'linear'", "loss: 'foo'"]),
        ({"teacher": "nosuch"}, ["nosuch"]),
        ({"teacher": "mri-z4"}, [r"teacher: scale (4, 1, 1)"]),
        (
            {"teacher": "mri-x2", "normalization": {"kind": "percentile"}},
            ["teacher: it was trained with the normalization"],
        ),
        (
            {"teacher": "mri-x2", "adversarial": {"force": True}, "patch": 12},
            ["teacher: adversarial does not take one"],
        ),
        ({"adversarial": {}}, ["adversarial: the network is untrained"]),
        ({"adversarial": {"force": True}}, ["(8, 8, 8) fine ones; the discriminator needs 24 per axis"]),
        ({"patch": 40}, ["patch: (40, 40, 40) coarse pixels are (80, 80, 80) fine ones"]),
        ({"patch": {"y": 4}}, ["patch: {'y': 4} came"]),
        ({"network": {"family": "edsr", "scale": 2, "width": 3}}, ["edsr: no argument 'width'"]),
        ({"network": {"family": "srcnn", "scale": 2}, "search": {}}, ["srcnn: no argument 'blocks'"]),
        (
            {"network": {"family": "edsr", "ndim": 2, "scale": 2}},
            ["fine.nii.gz: 3 spatial axes came, the network has 2"],
        ),
        ({"mode": "self", "prune": 0.5}, ["prune: mode self does not take it"]),
        ({"patience": 2, "validation_fraction": 0.0}, ["patience: 2 came and nothing is held out to judge by"]),
        ({"prune": 0.5, "steps": None, "minutes": 1}, ["prune: the zeros come over a known number of steps"]),
        ({"precision": "fp16", "device": "cpu"}, ["precision: fp16 needs a CUDA device"]),
        ({"batch": 8, "devices": 3}, ["batch: 8 patches cannot be shared by 3 processes"]),
    ],
)
def test_what_would_stop_a_training_is_found(tmp_path: Path, train: dict[str, Any], told: list[str]) -> None:
    if "search" in train:
        pytest.importorskip("optuna")
    errors = training(tmp_path, smooth((24, 24, 24)), **train)
    assert len(errors) == len(told), errors
    for error, part in zip(errors, told, strict=True):
        assert part in error


def test_a_file_to_learn_from_and_to_be_judged_on_is_found(tmp_path: Path) -> None:
    (error,) = training(tmp_path, smooth((24, 24, 24)), validation=[{"path": str(tmp_path / "fine.nii.gz")}])
    assert error.startswith("fine.nii.gz: is both learned from and validated on")


def test_a_label_map_to_learn_from_is_found(tmp_path: Path) -> None:
    (error,) = training(tmp_path, np.indices((24, 24, 24)).sum(0) // 12)
    assert error.startswith("fine.nii.gz: looks like a label map")


def test_a_reference_without_values_is_found(tmp_path: Path) -> None:
    values = np.full((24, 24, 24), np.nan, np.float32)
    (error,) = training(tmp_path, values)
    assert error.startswith("fine.nii.gz: no pixel has a value")
    values[0, 0, :3] = 1
    assert training(tmp_path, values) == []


def test_a_training_without_errors_has_none(tmp_path: Path) -> None:
    assert training(tmp_path, smooth((24, 24, 24)), teacher="mri-x2") == []

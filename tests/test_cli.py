"""The command: exit codes, one line per error, what it prints, what it loads."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import rasterio

from sciSR import __version__
from sciSR.cli import command, exit_code, main
from sciSR.errors import CheckpointError, MissingFileError, OutputExistsError, ResourceError, RunError
from sciSR.io import open_raster
from tests.made_files import smooth, write_scene, write_volume, write_weights

COMMANDS = ("run", "upscale", "degrade", "evaluate", "info", "models", "check", "import", "export", "doctor")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return write_volume(tmp_path / "in" / "scan.nii.gz")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "in" / "scene.tif")


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any, code: int = 2) -> str:
    """The one line on stderr of a command that must fail with ``code``."""
    assert main([str(a) for a in arguments]) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("scisr: error: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return lines[0]


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


# ---- what every command shares


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: scisr {command}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scisr {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["upscale"],
        ["upscale", "a.tif", "-o", "b.tif"],
        ["upscale", "a.tif", "-o", "b.tif", "--model", "cubic", "--tile", "many"],
        ["upscale", "a.tif", "-o", "b.tif", "--model", "cubic", "--scale", "2", "--target-spacing", "1"],
        ["upscale", "a.tif", "-o", "b.tif", "--model", "cubic", "--labels", "--not-labels"],
        ["run", "w.yaml", "--nonsense"],
    ],
)
def test_wrong_usage_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert "--help" in refused(capsys, *arguments)


def test_codes_follow_the_kind_of_error() -> None:
    assert exit_code(CheckpointError("x")) == exit_code(MissingFileError("x")) == exit_code(OutputExistsError("x")) == 2
    assert exit_code(RunError("x")) == exit_code(ResourceError("x")) == exit_code(KeyError("x")) == 1
    assert exit_code(KeyboardInterrupt()) == 130
    assert exit_code(KeyboardInterrupt(signal.SIGTERM)) == 143


def test_an_unexpected_error_is_one_line_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, volume: Path
) -> None:
    from sciSR.commands import info

    def broken(arguments: Any, console: Any) -> int:
        raise KeyError("a\nb")

    monkeypatch.setattr(info, "run", broken)
    line = refused(capsys, "info", volume, code=1)
    assert "unexpected KeyError" in line
    assert "--debug" in line
    with pytest.raises(KeyError):
        main(["info", str(volume), "--debug"])
    with pytest.raises(KeyError):
        main(["--debug", "info", str(volume)])


def test_the_help_comes_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time(); from sciSR.cli import main; main(['--help']);"
        "spent = time.process_time() - start;"
        "heavy = [m for m in ('torch', 'monai', 'nibabel', 'rasterio', 'pydantic', 'numpy', 'dask', 'xarray', 'tqdm')"
        " if m in sys.modules]; print('HEAVY', heavy, 'SPENT', spent)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-1]
    assert "HEAVY []" in told
    assert float(told.split("SPENT ")[1]) < 0.5


def test_info_and_the_check_of_a_file_load_no_torch(volume: Path, scene: Path) -> None:
    code = (
        "import sys; from sciSR.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'monai'} & set(sys.modules); sys.exit(code)"
    )
    done = python("-c", code, "info", str(volume), str(scene))
    assert done.returncode == 0, done.stderr


def test_the_command_leaves_the_end_of_the_process_no_garbage_to_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before, kept = gc.get_threshold(), gc.get_freeze_count()
    monkeypatch.setattr("sys.argv", ["scisr", "--version"])
    try:
        assert command() == 0
        assert gc.get_freeze_count() > kept
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_classical_methods_load_no_monai(scene: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from sciSR.cli import main; code = main(sys.argv[1:]);"
        "assert 'monai' not in sys.modules; sys.exit(code)"
    )
    done = python("-c", code, "upscale", str(scene), "-o", str(tmp_path / "x.tif"), "--model", "ibp")
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command() -> None:
    done = python("-m", "sciSR", "--version")
    assert (done.returncode, done.stdout) == (0, f"scisr {__version__}\n")
    assert python("-m", "sciSR", "frob").returncode == 2


def test_a_reader_that_has_enough_is_no_error(volume: Path) -> None:
    command = f"{sys.executable} -m sciSR info {' '.join([str(volume)] * 40)} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_terminal_without_our_letters_is_no_error(tmp_path: Path) -> None:
    affine = np.array([[0.8, -0.3, 0, 0], [0.3, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    source = write_volume(tmp_path / "a.nii", affine=affine)
    done = python("-m", "sciSR", "info", str(source), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "? oblique" in done.stdout
    assert done.stderr == ""


# ---- upscale


def test_upscale_prints_the_spacing_that_was_reached(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["upscale", str(volume), "-o", str(tmp_path / "a.nii.gz"), "--model", "cubic"]
    assert main([*arguments, "--target-spacing", "0.5"]) == 0
    captured = capsys.readouterr()
    assert "20x18x16 -> 32x32x35" in captured.out
    assert "0.5x0.5062x0.5029 mm" in captured.out
    assert "100%" in captured.err


def test_quiet_says_nothing(tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", str(volume), "-o", str(tmp_path / "a.nii"), "--model", "linear", "-q"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("model", ["nearest", "linear", "cubic", "lanczos", "ibp"])
def test_classical_models_go_by_their_names(tmp_path: Path, scene: Path, model: str) -> None:
    target = tmp_path / "a.tif"
    assert main(["upscale", str(scene), "-o", str(target), "--model", model, "--scale", "2", "-q"]) == 0
    with rasterio.open(target) as dataset:
        assert (dataset.count, dataset.height, dataset.width, dataset.dtypes[0]) == (4, 80, 72, "uint16")


def test_scale_2_means_every_spatial_axis_and_a_name_only_that(tmp_path: Path) -> None:
    series = np.stack([smooth((8, 7, 6), seed=s) for s in range(2)], axis=-1)
    source = write_volume(tmp_path / "series.nii.gz", series)
    for scale, shape in (("2", (16, 14, 12, 2)), ("z=4", (8, 7, 24, 2)), ("x=2,y=3", (16, 21, 6, 2))):
        target = tmp_path / f"{len(scale)}.nii.gz"
        arguments = ["upscale", str(source), "-o", str(target), "--model", "cubic", "--scale", scale, "-q"]
        assert main([*arguments, "--overwrite"]) == 0
        assert nib.load(target).shape == shape


def test_scales_by_position_or_over_time_are_refused(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("upscale", volume, "-o", tmp_path / "a.nii", "--model", "cubic", "--scale")
    assert "by position" in refused(capsys, *common, "1,1,4")
    assert "time" in refused(capsys, *common, "t=2")
    assert "not a positive number" in refused(capsys, *common, "two")


def test_many_inputs_go_into_a_folder_and_a_bad_one_is_reported(
    tmp_path: Path, volume: Path, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "in" / "bad.tif"
    bad.write_bytes(b"no tiff")
    out = tmp_path / "out"
    assert main(["upscale", str(volume), str(bad), str(scene), "-o", str(out), "--model", "nearest", "-q"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "bad.tif" in lines[0]
    assert lines[1] == "scisr: error: 1 of 3 inputs failed"
    assert sorted(p.name for p in out.iterdir()) == ["scan.nii.gz", "scan.run.json", "scene.run.json", "scene.tif"]
    line = refused(capsys, "upscale", volume, scene, "-o", tmp_path / "one.tif", "--model", "nearest")
    assert "name a folder" in line


def test_wrong_input_is_answered_in_one_line(
    tmp_path: Path, volume: Path, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    deep = write_weights(tmp_path / "deep.safetensors", ndim=3)
    bands = write_weights(tmp_path / "bands.safetensors", ndim=2, in_channels=4)
    three = write_scene(tmp_path / "in" / "rgb.tif", np.ones((3, 20, 20)))
    (tmp_path / "fake.safetensors").write_bytes(b"not a checkpoint")
    (tmp_path / "there.nii.gz").write_bytes(b"")
    half = tmp_path / "in" / "half.nii.gz"
    half.write_bytes(volume.read_bytes()[:500])
    cases = [
        (("none.nii.gz", "-o", out, "--model", "cubic"), "none.nii.gz: no such file"),
        ((three, "-o", out, "--model", bands), "3 channel(s), the network takes 4"),
        ((scene, "-o", out, "--model", deep), "choose a 2D network"),
        ((volume, "-o", tmp_path / "there.nii.gz", "--model", "cubic"), "there.nii.gz: exists already"),
        ((volume, "-o", out, "--model", tmp_path / "fake.safetensors"), "fake.safetensors"),
        ((volume, "-o", out, "--model", "nonsuch"), "nonsuch"),
        ((half, "-o", out, "--model", "cubic"), "half.nii.gz"),
        ((volume, "-o", volume, "--model", "cubic", "--overwrite"), "is an input of this run"),
        ((volume, "-o", tmp_path / "a.txt", "--model", "cubic", "--suffix", ".txt"), "no format for '.txt'"),
        ((volume, "-o", tmp_path / "a.tif", "--model", "cubic"), "scenes"),
        ((volume, "-o", out, "--model", "cubic", "--device", "cuda:7"), "cuda:7"),
        ((volume, "-o", out, "--model", "cubic", "--precision", "half"), "expected 'auto'"),
    ]
    for arguments, expected in cases:
        assert expected in refused(capsys, "upscale", *arguments)
    assert not out.exists()


def test_labels_are_refused_until_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = np.kron(np.array([[[0, 3], [7, 0]], [[12, 3], [0, 7]]]), np.ones((5, 5, 5), int))
    source = write_volume(tmp_path / "in" / "labels.nii.gz", blocks, dtype="uint8")
    target = tmp_path / "fine.nii.gz"
    common = ["upscale", str(source), "-o", str(target), "--model", "cubic", "--scale", "2"]
    line = refused(capsys, *common)
    assert "--labels" in line
    assert "--not-labels" in line
    assert main([*common, "--labels", "-q"]) == 0
    assert set(np.unique(np.asarray(nib.load(target).dataobj))) == {0, 3, 7, 12}
    assert main([*common, "--not-labels", "--overwrite", "-q"]) == 0
    assert len(np.unique(np.asarray(nib.load(target).dataobj))) > 4


def test_engine_options_reach_the_record(tmp_path: Path, scene: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors", ndim=2, in_channels=4)
    target = tmp_path / "a.tif"
    arguments = ["upscale", str(scene), "-o", str(target), "--model", str(weights), "--tile", "16", "--exact"]
    assert main([*arguments, "--precision", "float32", "--device", "cpu", "--workers", "1", "--cog", "-q"]) == 0
    record = json.loads((tmp_path / "a.run.json").read_text(encoding="utf-8"))
    section = record["workflow"]["upscale"]
    assert (section["tile"], section["exact"], section["precision"], section["workers"]) == (16, True, "float32", 1)
    assert record["engine"]["plan"]["tile"] == [16, 16]
    assert record["workflow"]["output"]["cog"] is True
    with rasterio.open(target) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"


def test_a_report_comes_on_request(tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "w.safetensors", ndim=3)
    arguments = ["upscale", str(volume), "-o", str(tmp_path / "a.nii.gz"), "--model", str(weights), "--report"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "PSNR" in out
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "a.html").exists()
    record = json.loads((tmp_path / "a.run.json").read_text(encoding="utf-8"))
    assert record["evaluation"] is not None


# ---- run, check


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_run_does_a_workflow_and_its_record(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "input: nothing.nii\nupscale: {network: cubic}\nevaluate: {sensor: mri, baselines: [ibp]}\n"
    workflow = written(tmp_path / "w.yaml", text)
    assert main(["run", str(workflow), "--set", "input=in/scan.nii.gz", "--set", "upscale.scale=z=2", "-o", "o"]) == 0
    out = capsys.readouterr().out
    assert "PSNR" in out
    assert "ibp" in out
    assert "o/scan.run.json" in out
    assert main(["run", "o/scan.run.json", "-o", "again", "-q"]) == 0
    assert (tmp_path / "o/scan.nii.gz").read_bytes() == (tmp_path / "again/scan.nii.gz").read_bytes()
    assert "exists already" in refused(capsys, "run", "o/scan.run.json")
    assert main(["run", "o/scan.run.json", "--overwrite", "-q"]) == 0


def test_wrong_workflows_are_answered_in_one_line(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = f"input: {volume}\nupscale: {{network: cubic}}\n"
    near = written(tmp_path / "near.yaml", good.replace("network", "netwrok"))
    assert "near.yaml: upscale.netwrok: unknown key; did you mean upscale.network?" in refused(capsys, "run", near)
    assert "no such file" in refused(capsys, "run", tmp_path / "none.yaml")
    broken = written(tmp_path / "broken.yaml", "input: [1\n")
    assert "broken.yaml:" in refused(capsys, "run", broken)
    fine = written(tmp_path / "fine.yaml", good)
    line = refused(capsys, "run", fine, "--set", "upscale.scal=2")
    assert "--set upscale.scal: unknown key; did you mean upscale.scale?" in line
    assert "not a run record" in refused(capsys, "run", written(tmp_path / "x.run.json", "{}"))


def test_check_tells_every_error_and_does_nothing(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"input: [{volume}, none.nii]\noutput: {tmp_path / 'out'}\nupscale: {{network: cubic, device: 'cuda:9'}}\n"
    workflow = written(tmp_path / "w.yaml", text)
    assert main(["check", str(workflow)]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 2
    assert "cuda:9" in captured.err
    assert "none.nii: no such file" in captured.err
    assert main(["check", str(workflow), "--set", f"input={volume}", "--set", "upscale.device=cpu"]) == 0
    captured = capsys.readouterr()
    assert "20x18x16 -> 40x36x32" in captured.out
    assert "MB on disk" in captured.out
    assert "no error found; steps: upscale" in captured.out
    assert captured.err == ""
    assert not (tmp_path / "out").exists()
    assert "no workflow came" in refused(capsys, "check")


def test_check_warns_of_what_the_run_will_warn_of(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", ndim=3)
    workflow = written(tmp_path / "w.yaml", f"input: {volume}\nupscale: {{network: {weights}, scale: 3}}\n")
    assert main(["check", str(workflow), "-o", str(tmp_path / "o")]) == 0
    captured = capsys.readouterr()
    assert "GB of memory, 0" in captured.out, "a time of less than a second"
    lines = captured.err.splitlines()
    assert lines
    assert all(line.startswith("scisr: warning: ") for line in lines)
    assert main(["run", str(workflow), "-o", str(tmp_path / "o"), "-q"]) == 0
    assert capsys.readouterr().err.splitlines() == lines


def test_check_reads_a_record_and_prints_the_schema(
    tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upscale", str(volume), "-o", str(tmp_path / "a.nii"), "--model", "cubic", "-q"]) == 0
    assert main(["check", str(tmp_path / "a.run.json"), "-o", str(tmp_path / "b.nii")]) == 0
    assert "no error found" in capsys.readouterr().out
    volume.write_bytes(volume.read_bytes() + b"more")
    assert "the file has changed" in refused(capsys, "check", tmp_path / "a.run.json", "-o", tmp_path / "b.nii")
    assert main(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["additionalProperties"] is False


# ---- degrade, evaluate


def test_degrade_then_upscale_then_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_volume(tmp_path / "truth.nii.gz", smooth((24, 22, 20)))
    low, fine = tmp_path / "low.nii.gz", tmp_path / "fine.nii.gz"
    assert main(["degrade", str(truth), "-o", str(low), "--scale", "2", "--sensor", "mri", "-q"]) == 0
    assert nib.load(low).shape == (12, 11, 10)
    assert main(["upscale", str(low), "-o", str(fine), "--model", "cubic", "-q"]) == 0
    table = tmp_path / "table.json"
    arguments = ["evaluate", str(fine), "--reference", str(truth), "--low", str(low), "--sensor", "mri"]
    assert main([*arguments, "--baseline", "nearest", "ibp", "-o", str(table), "-q"]) == 0
    out = capsys.readouterr().out
    for word in ("PSNR", "SSIM", "result", "nearest", "ibp", "consistency"):
        assert word in out
    assert json.loads(table.read_text(encoding="utf-8"))
    assert main([*arguments, "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main([*arguments, "-o", str(tmp_path / "t.md"), "-q"]) == 0
    assert (tmp_path / "t.md").read_text(encoding="utf-8").startswith("|")
    capsys.readouterr()
    assert "exists already" in refused(capsys, *arguments, "-o", table, "-q")
    assert ".json or .md" in refused(capsys, *arguments, "-o", "t.txt", "-q")
    line = refused(capsys, "evaluate", low, "--reference", truth, "-q")
    assert "pixels" in line


def test_degrade_says_which_sensors_there_are(tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "degrade", volume, "-o", tmp_path / "a.nii", "--scale", "2", "--sensor", "nosuch")
    assert "sentinel-2" in line


# ---- info, models, doctor, import, export


def test_info_is_a_readable_table(volume: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(volume)]) == 0
    out = capsys.readouterr().out
    for text in ("left to right", "posterior to anterior", "inferior to superior", "0.8 mm", "RAS+ mm", "int16"):
        assert text in out
    assert out.index("\n  x ") < out.index("\n  y ") < out.index("\n  z ")
    assert main(["info", str(scene)]) == 0
    out = capsys.readouterr().out
    for text in ("west to east", "north to south", "10 m", "EPSG:32618", "uint16", "nodata", "channels"):
        assert text in out


def test_info_tells_flips_angles_time_and_scaling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    angle = np.radians(30)
    affine = np.array(
        [[-np.cos(angle), -np.sin(angle), 0, 0], [-np.sin(angle), np.cos(angle), 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]
    )
    source = write_volume(tmp_path / "s.nii.gz", np.stack([smooth((6, 5, 4))] * 3, axis=-1), affine)
    assert main(["info", str(source)]) == 0
    out = capsys.readouterr().out
    assert "right to left, 30.0° oblique" in out
    assert "\n  t " in out


def test_info_in_json_reads_back(volume: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(volume), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [axis["axis"] for axis in facts["axes"]] == ["x", "y", "z"]
    assert [axis["size"] for axis in facts["axes"]] == [20, 18, 16]
    assert facts["frame"] == "RAS+ mm"
    assert np.allclose(facts["bounds"], open_raster(volume).grid.bounds)
    assert main(["info", str(volume), str(scene), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_info_of_what_is_no_image(tmp_path: Path, volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in refused(capsys, "info", tmp_path / "none.tif")
    assert "no format for this file name" in refused(capsys, "info", written(tmp_path / "a.txt", "x"))
    assert "a.nii" in refused(capsys, "info", written(tmp_path / "a.nii", "x"))
    assert main(["info", str(volume), str(tmp_path / "none.tif")]) == 2
    captured = capsys.readouterr()
    assert "scan.nii.gz" in captured.out
    assert "none.tif" in captured.err


def test_models_lists_weights_families_and_methods(capsys: pytest.CaptureFixture[str]) -> None:
    from sciSR.networks import list_networks, list_weights

    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in (*list_weights(), *list_networks(), "nearest", "linear", "cubic", "lanczos", "ibp"):
        assert name in out
    assert "GFLOP" in out


def test_models_tells_all_about_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "mine.safetensors", ndim=3, scale=(4, 1, 1))
    assert main(["models", str(weights), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["scale"]) == ("edsr", {"z": 4, "y": 1, "x": 1})
    assert facts["normalization"]["kind"] == "percentile"
    assert main(["models", str(weights)]) == 0
    assert "receptive_radius" in capsys.readouterr().out
    assert "nonsuch" in refused(capsys, "models", "nonsuch")


def test_models_tells_of_published_weights_what_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    shapes = {"conv1": (64, 1, 9, 9), "conv2": (32, 64, 5, 5), "conv3": (1, 32, 5, 5)}
    state = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "srcnn_x3.pth")
    assert main(["models", str(tmp_path / "srcnn_x3.pth")]) == 0
    out = capsys.readouterr().out
    assert "srcnn" in out
    assert "57281" in out  # 64 * 81 + 32 * 64 * 25 + 32 * 25 weights and 64 + 32 + 1 biases


def test_doctor_tells_versions_threads_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("torch", "gdal", "threads", "fast_bfloat16", "openvino", "weights"):
        assert word in out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["scisr"] == __version__


def test_import_makes_a_checkpoint(tmp_path: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    shapes = {"conv1": (64, 1, 9, 9), "conv2": (32, 64, 5, 5), "conv3": (1, 32, 5, 5)}
    state = {f"{name}.weight": torch.randn(shape) * 0.01 for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    source, target = tmp_path / "srcnn_x2.pth", tmp_path / "srcnn.safetensors"
    torch.save(state, source)
    assert main(["import", str(source), "-o", str(target), "--scale", "2"]) == 0
    assert "srcnn" in capsys.readouterr().out
    fine = tmp_path / "a.tif"
    assert main(["upscale", str(scene), "-o", str(fine), "--model", str(target), "-q"]) == 0
    with rasterio.open(fine) as dataset:
        assert (dataset.count, dataset.height) == (4, 80)
    assert "exists already" in refused(capsys, "import", source, "-o", target)
    assert ".safetensors" in refused(capsys, "import", source, "-o", tmp_path / "x.pth")
    assert "no such file" in refused(capsys, "import", tmp_path / "none.pth", "-o", tmp_path / "x.safetensors")
    assert "checkpoint already" in refused(capsys, "import", target, "-o", tmp_path / "x.safetensors")
    (tmp_path / "odd.pth").write_bytes(b"nothing")
    assert "odd.pth" in refused(capsys, "import", tmp_path / "odd.pth", "-o", tmp_path / "x.safetensors")


@pytest.mark.parametrize(("ndim", "channels", "scale"), [(2, 4, 2), (3, 1, (4, 1, 1))])
def test_export_gives_the_same_values_at_any_size(tmp_path: Path, ndim: int, channels: int, scale: Any) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from sciSR.networks import load_network

    weights = write_weights(tmp_path / "w.safetensors", ndim=ndim, in_channels=channels, scale=scale)
    target = tmp_path / "w.onnx"
    assert main(["export", str(weights), "-o", str(target)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.onnx", "w.safetensors"]
    session = runtime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    x = torch.rand(3, channels, *(21, 9, 17)[:ndim])
    with torch.inference_mode():
        expected = load_network(weights).eval()(x).numpy()
    (got,) = session.run(["high"], {"low": x.numpy()})
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_export_refuses_what_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "w.safetensors", ndim=2)
    assert ".onnx" in refused(capsys, "export", weights, "-o", tmp_path / "w.pb")
    (tmp_path / "w.onnx").touch()
    assert "exists already" in refused(capsys, "export", weights, "-o", tmp_path / "w.onnx")


# ---- interruption


def _heed(number: signal.Signals) -> None:
    """A shell's background job ignores SIGINT, and would hand that on."""
    signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source = write_scene(tmp_path / "in.tif", smooth((4, 1400, 1400)))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sciSR", "upscale", str(source), "-o", str(out), "--model", "ibp", "--scale", "2"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=partial(_heed, number), **pipes) as process:
        deadline = time.monotonic() + 300  # loading torch takes long on a busy machine
        while not (out.exists() and any(out.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert err.splitlines()[-1] == "scisr: error: interrupted; unfinished outputs were removed"
    assert "Traceback" not in err
    assert list(out.iterdir()) == []


_STUCK = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import sciSR.commands.doctor as doctor
from sciSR.cli import command
from sciSR.files import unfinished_folder, whole_file

place = Path(sys.argv.pop())

def run(arguments, console):
    with unfinished_folder(place), whole_file(place), ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 300)
        print("begun", flush=True)
        time.sleep(300)

doctor.run = run
sys.exit(command())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_waits_for_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", _STUCK, "doctor", str(tmp_path / "out" / "o.tif")]
    (tmp_path / "out").mkdir()
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=partial(_heed, number), **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert len(list((tmp_path / "out").iterdir())) == 2
        process.send_signal(number)
        assert process.stderr is not None
        assert "once more: at once" in process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == "scisr: error: interrupted at once\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_run_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "in.tif", smooth((4, 400, 400)))
    whole = tmp_path / "whole.tif"
    ask = [sys.executable, "-m", "sciSR", "upscale", str(source), "--model", "s2-x2", "--tile", "32", "--quiet"]
    subprocess.run([*ask, "-o", str(whole)], check=True)
    target = tmp_path / "again.tif"
    journal = tmp_path / ".again.tif.resume"
    with subprocess.Popen([*ask, "-o", str(target), "--resume"]) as process:
        deadline = time.monotonic() + 300
        while len(list(journal.glob("part-*.npz"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    kept = {part.name: part.stat().st_mtime_ns for part in journal.glob("part-*.npz")}
    assert 3 <= len(kept) < 13
    with subprocess.Popen([*ask, "-o", str(target), "--resume"]) as process:
        seen: dict[str, int] = {}
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                seen |= {part.name: part.stat().st_mtime_ns for part in journal.glob("part-*.npz")}
            time.sleep(0.002)
    assert process.returncode == 0
    assert {name: seen[name] for name in kept} == kept, "a finished part was computed again"
    assert target.read_bytes() == whole.read_bytes()
    assert not journal.exists()


def test_the_help_tells_how_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["run", "--help"]):
        assert main(words) == 0
        assert "train" in capsys.readouterr().out

"""run_workflow(): outputs with their records, made again byte for byte; batches; steps after the output."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

import sciSR.io as io_module
import sciSR.workflow as module
from sciSR.config import make_workflow
from sciSR.errors import InputError, MissingFileError, OutputExistsError, RunError
from sciSR.io import open_raster, save_raster
from sciSR.record import RunRecord, read_record, sha256_of
from sciSR.workflow import Outcome, run_workflow
from tests.made_files import smooth, write_scene, write_volume, write_weights


class Listener:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.problems: list[str] = []
        self.steps: dict[str, list[tuple[int, int]]] = {}

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def step(self, name: str, unit: str = "px") -> Any:
        calls = self.steps.setdefault(name, [])
        return lambda done, total: calls.append((done, total))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return write_volume(tmp_path / "in" / "scan.nii.gz")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "in" / "scene.tif", nodata=0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "w" / "small.safetensors", ndim=3)


def settings(source: Path, output: Path, network: str | Path = "cubic", **sections: Any) -> dict[str, Any]:
    return {"input": str(source), "output": str(output), "upscale": {"network": str(network)}, **sections}


def run(values: Mapping[str, Any], **options: Any) -> Outcome:
    return run_workflow(values, watcher=options.pop("watcher", Listener()), **options)


def record_of(outcome: Outcome) -> RunRecord:
    (done,) = outcome.done
    return read_record(done.job.record)


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]


def test_an_output_lies_where_it_was_asked_for_with_its_record(tmp_path: Path, volume: Path, weights: Path) -> None:
    listener = Listener()
    outcome = run(settings(volume, tmp_path / "out", weights), watcher=listener)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["scan.nii.gz", "scan.run.json"]
    assert open_raster(tmp_path / "out" / "scan.nii.gz").shape == (32, 36, 40)
    assert not outcome.failed
    assert not outcome.kept
    calls = listener.steps["scan.nii.gz"]
    assert calls[-1] == (32 * 36 * 40, 32 * 36 * 40)
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    assert any("scan.nii.gz" in text and "40x36x32" in text and "0.4x0.45x0.55 mm" in text for text in listener.said)


def test_the_record_says_what_decided_the_bytes(tmp_path: Path, volume: Path, weights: Path) -> None:
    record = record_of(run(settings(volume, tmp_path / "out", weights)))
    assert record.inputs[0].sha256 == sha256_of(volume)
    assert record.output.sha256 == sha256_of(tmp_path / "out" / "scan.nii.gz")
    assert record.weights is not None
    assert record.weights.sha256 == sha256_of(weights)
    for key in ("executor", "plan", "backend", "precision", "device", "intensity", "network_sha256"):
        assert key in record.engine, key
    assert set(record.engine["plan"]) >= {"tile", "halo", "scale", "shape"}
    assert record.workflow["upscale"]["precision"] in ("float32", "bf16", "fp16")
    assert record.workflow["upscale"]["device"] == record.engine["device"]
    assert record.workflow["train"] is None
    assert record.consistency is not None
    assert record.consistency["rmse"] >= 0
    assert {"torch", "numpy", "scisr", "python"} <= set(record.versions)
    assert {"threads", "cores"} <= set(record.machine)
    assert {"plan", "write", "consistency"} <= set(record.timings)
    assert record.grids["output"]["shape"] == [32, 36, 40]


def test_the_consistency_in_the_record_is_that_of_the_saved_file(tmp_path: Path, volume: Path, weights: Path) -> None:
    from sciSR.degradation import degrade

    record = record_of(run(settings(volume, tmp_path / "out", weights)))
    seen = degrade(open_raster(tmp_path / "out" / "scan.nii.gz"), 2, sensor="mri", noise=False).read().values
    truth = open_raster(volume).read().values.astype(np.float64)
    assert record.consistency is not None
    assert record.consistency["rmse"] == pytest.approx(float(np.sqrt(np.mean((seen - truth) ** 2))), rel=1e-3)


def test_the_record_says_how_stored_numbers_were_read(tmp_path: Path, volume: Path, scene: Path) -> None:
    values = record_of(run({**settings(volume, tmp_path / "v"), "input": {"path": str(volume), "unit": "HU"}})).values
    assert (values["unit"], values["dtype"], values["scale"], values["offset"]) == ("HU", "int16", [1.0], [0.0])
    assert "origin" not in values
    given = run({**settings(scene, tmp_path / "s"), "input": {"path": str(scene), "offset": -300}})
    values = record_of(given).values
    assert (values["offset"], values["nodata"]) == ([-300.0], [0.0])
    assert values["origin"] == "offset=-300 as given, scale of the bands"


def test_an_offset_that_was_given_holds_for_the_output_too(tmp_path: Path, scene: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors", ndim=2, in_channels=4, sensor="generic-gaussian")
    plain, given = (
        record_of(run({**settings(scene, tmp_path / name, weights), "input": {"path": str(scene), **more}}))
        for name, more in (("plain", {}), ("given", {"offset": -300}))
    )
    assert plain.consistency is not None
    assert given.consistency is not None
    assert given.consistency["rmse"] == pytest.approx(plain.consistency["rmse"], rel=0.02)


def test_the_consistency_step_makes_the_result_explain_its_input(tmp_path: Path, volume: Path, weights: Path) -> None:
    plain = record_of(run(settings(volume, tmp_path / "plain", weights)))
    enforced = run(settings(volume, tmp_path / "fitted", weights, consistency={"iterations": 8}))
    fitted = record_of(enforced)
    assert plain.consistency is not None
    assert fitted.consistency is not None
    assert fitted.consistency["relative"] < 0.2 * plain.consistency["relative"]
    assert fitted.engine["consistency"]["iterations"] == 8
    assert fitted.engine["plan"] == plain.engine["plan"]
    again = run_workflow(enforced.done[0].job.record, output=tmp_path / "again", watcher=Listener())
    assert again.done[0].job.output.read_bytes() == enforced.done[0].job.output.read_bytes()
    with pytest.raises(InputError, match=r"consistency\.sensor is missing"):
        run(settings(volume, tmp_path / "none", "cubic", consistency={}))


@pytest.mark.parametrize("network", ["cubic", "ibp", "weights"])
def test_a_record_makes_its_output_again_byte_for_byte(
    tmp_path: Path, volume: Path, weights: Path, network: str
) -> None:
    chosen = weights if network == "weights" else network
    first = run(settings(volume, tmp_path / "out", chosen))
    listener = Listener()
    again = run_workflow(first.done[0].job.record, output=tmp_path / "again" / "b.nii.gz", watcher=listener)
    a, b = first.done[0].job.output, again.done[0].job.output
    assert a.read_bytes() == b.read_bytes()
    assert "the output is the recorded one, byte for byte" in listener.said
    third = run_workflow(again.done[0].job.record, output=tmp_path / "third", watcher=Listener())
    assert third.done[0].job.output.read_bytes() == a.read_bytes()


def test_a_tiled_run_is_made_again_with_its_own_tiles(tmp_path: Path, scene: Path) -> None:
    weights = write_weights(tmp_path / "s.safetensors", ndim=2, in_channels=4, sensor=None)
    values = settings(scene, tmp_path / "out", weights)
    first = run(values, overrides=["upscale.tile=16"])
    record = record_of(first)
    assert record.engine["executor"] == "tiles"
    assert record.engine["plan"]["tile"] == [16, 16]
    again = run_workflow(first.done[0].job.record, output=tmp_path / "again", watcher=Listener())
    assert again.done[0].job.output.read_bytes() == first.done[0].job.output.read_bytes()
    assert record_of(again).engine["plan"] == record.engine["plan"]


def test_neither_time_nor_path_is_inside_an_output(tmp_path: Path, volume: Path, scene: Path) -> None:
    for source in (volume, scene):
        here = run(settings(source, tmp_path / "here"), overrides=["upscale.scale=2"], overwrite=True)
        moved = tmp_path / "elsewhere" / source.name
        moved.parent.mkdir(exist_ok=True)
        moved.write_bytes(source.read_bytes())
        there = run(settings(moved, tmp_path / "there" / "deeper"), overrides=["upscale.scale=2"])
        assert here.done[0].job.output.read_bytes() == there.done[0].job.output.read_bytes()


def test_changed_bytes_are_refused(tmp_path: Path, volume: Path, weights: Path) -> None:
    first = run(settings(volume, tmp_path / "out", weights))
    record, kept = first.done[0].job.record, volume.read_bytes()
    write_volume(volume, smooth((20, 18, 16), seed=5))
    with pytest.raises(InputError, match=r"scan\.nii\.gz: its sha256 is"):
        run_workflow(record, output=tmp_path / "again", watcher=Listener())
    volume.write_bytes(kept)
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\x00\x00\x00\x01")
    with pytest.raises(InputError, match=r"small\.safetensors: its sha256 is"):
        run_workflow(record, output=tmp_path / "again", watcher=Listener())
    assert not (tmp_path / "again").exists()


def test_a_record_finds_an_input_that_moved_only_where_it_is_told(tmp_path: Path, volume: Path) -> None:
    record = run(settings(volume, tmp_path / "out")).done[0].job.record
    moved = tmp_path / "moved.nii.gz"
    volume.rename(moved)
    with pytest.raises(MissingFileError, match="the record expects it there"):
        run_workflow(record, output=tmp_path / "again", watcher=Listener())
    again = run_workflow(record, overrides=[f"input={moved}"], output=tmp_path / "again", watcher=Listener())
    assert again.done[0].record.output.sha256 == read_record(record).output.sha256


def test_a_record_finds_its_files_from_another_folder(
    tmp_path: Path, volume: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = run(settings(Path("in/scan.nii.gz"), Path("out"), "w/small.safetensors"))
    record = (tmp_path / first.done[0].job.record).resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = run_workflow(record, output="again", watcher=Listener())
    assert again.done[0].record.output.sha256 == read_record(record).output.sha256
    weights.unlink()
    with pytest.raises(MissingFileError, match=r"small\.safetensors"):
        run_workflow(record, output="third", watcher=Listener())


def test_both_files_of_a_pair_count(tmp_path: Path) -> None:
    header = write_volume(tmp_path / "in" / "scan.img").with_suffix(".hdr")
    first = run(settings(header, tmp_path / "out"))
    record = record_of(first)
    assert sorted(Path(fact.path).name for fact in record.inputs) == ["scan.hdr", "scan.img"]
    path = first.done[0].job.record
    again = run_workflow(path, output=tmp_path / "again", watcher=Listener())
    assert again.done[0].record.output.sha256 == record.output.sha256
    image = header.with_suffix(".img")
    image.write_bytes(image.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match=r"scan\.img: its sha256 is"):
        run_workflow(path, output=tmp_path / "third", watcher=Listener())


def test_a_remade_output_with_other_bytes_is_a_failure(tmp_path: Path, volume: Path) -> None:
    path = run(settings(volume, tmp_path / "out")).done[0].job.record
    values = json.loads(path.read_text(encoding="utf-8"))
    values["output"]["sha256"] = "0" * 64
    values["versions"]["torch"] = "0.1"
    path.write_text(json.dumps(values), encoding="utf-8")
    listener = Listener()
    with pytest.raises(RunError, match=r"not the recorded output byte for byte; versions differ: torch 0\.1"):
        run_workflow(path, output=tmp_path / "again", watcher=listener)
    assert "torch 0.1" in listener.warned[0]


def test_a_record_with_other_settings_is_a_new_run(tmp_path: Path, volume: Path) -> None:
    path = run(settings(volume, tmp_path / "out")).done[0].job.record
    other = run_workflow(path, overrides=["upscale.scale=3"], output=tmp_path / "x3", watcher=Listener())
    assert open_raster(other.done[0].job.output).shape == (48, 54, 60)


def test_one_bad_input_raises_and_leaves_nothing(tmp_path: Path, volume: Path) -> None:
    volume.write_bytes(volume.read_bytes()[:200])
    with pytest.raises(InputError, match=r"scan\.nii\.gz"):
        run(settings(volume, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_of_many_inputs_the_good_ones_are_done(tmp_path: Path, volume: Path) -> None:
    bad = write_volume(tmp_path / "in" / "bad.nii.gz")
    bad.write_bytes(bad.read_bytes()[:100])
    write_volume(tmp_path / "in" / "second.nii.gz", smooth((8, 9, 10)))
    listener = Listener()
    outcome = run(settings(tmp_path / "in" / "*.nii.gz", tmp_path / "out"), watcher=listener)
    assert [done.job.output.name for done in outcome.done] == ["scan.nii.gz", "second.nii.gz"]
    assert [job.output.name for job, _ in outcome.failed] == ["bad.nii.gz"]
    assert len(listener.problems) == 1
    assert "bad.nii.gz" in listener.problems[0]
    assert left_behind(tmp_path / "out") == []


def test_an_input_that_fails_in_the_middle_does_not_stop_the_others(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(tmp_path / "in" / "another.nii.gz")

    def failing(raster: Any, path: Path, **options: Any) -> Path:
        if path.name == "another.nii.gz":
            raise RunError("another.nii.gz: the disk is gone")
        return save_raster(raster, path, **options)

    monkeypatch.setattr(module, "save_raster", failing)
    listener = Listener()
    outcome = run(settings(tmp_path / "in" / "*.nii.gz", tmp_path / "out"), watcher=listener)
    assert len(outcome.done) == len(outcome.failed) == 1
    assert "the disk is gone" in listener.problems[0]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient(Listener):
        def step(self, name: str, unit: str = "px") -> Any:
            def stop(done: int, total: int) -> None:
                raise KeyboardInterrupt

            return stop

    with pytest.raises(KeyboardInterrupt):
        run(settings(volume, tmp_path / "out"), watcher=Impatient())
    assert list((tmp_path / "out").iterdir()) == []


def test_outputs_are_not_replaced_unasked(tmp_path: Path, volume: Path) -> None:
    values = settings(volume, tmp_path / "out")
    run(values)
    before = (tmp_path / "out" / "scan.nii.gz").stat().st_mtime_ns
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run(values)
    assert (tmp_path / "out" / "scan.nii.gz").stat().st_mtime_ns == before
    run(values, overwrite=True)
    assert (tmp_path / "out" / "scan.nii.gz").stat().st_mtime_ns > before


def test_resume_keeps_what_is_whole_and_up_to_date(tmp_path: Path, volume: Path, weights: Path) -> None:
    second = write_volume(tmp_path / "in" / "second.nii.gz", smooth((8, 9, 10)))
    values = settings(tmp_path / "in" / "*.nii.gz", tmp_path / "out", weights)
    run(values)
    (tmp_path / "out" / "second.nii.gz").unlink()
    (tmp_path / "out" / "second.run.json").unlink()
    before = (tmp_path / "out" / "scan.nii.gz").stat().st_mtime_ns
    outcome = run(values, resume=True)
    assert outcome.kept == (tmp_path / "out" / "scan.nii.gz",)
    assert [done.job.input for done in outcome.done] == [str(second)]
    assert (tmp_path / "out" / "scan.nii.gz").stat().st_mtime_ns == before
    assert len(run(values, resume=True).kept) == 2


@pytest.mark.parametrize("change", ["settings", "input", "output", "weights", "record"])
def test_resume_does_not_keep_what_would_come_out_otherwise(
    tmp_path: Path, volume: Path, weights: Path, change: str
) -> None:
    values = settings(volume, tmp_path / "out", weights)
    run(values)
    overrides = []
    if change == "settings":
        overrides = ["upscale.exact=true"]
    elif change == "input":
        write_volume(volume, smooth((20, 18, 16), seed=3))
    elif change == "output":
        (tmp_path / "out" / "scan.nii.gz").write_bytes(b"half")
    elif change == "weights":
        write_weights(weights, ndim=3, sensor="mri-kspace")
    else:
        (tmp_path / "out" / "scan.run.json").write_text("{}", encoding="utf-8")
    outcome = run(values, overrides=overrides, resume=True, overwrite=True)
    assert outcome.kept == ()
    assert len(outcome.done) == 1


@pytest.mark.parametrize(
    "moment", ["publish_all", "sciSR.workflow.consistency_facts", "sciSR.workflow.evaluated", "late"]
)
@pytest.mark.parametrize("ending", [".nii.gz", ".zarr"])
def test_a_run_that_is_killed_late_is_resumed(
    tmp_path: Path, volume: Path, weights: Path, moment: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings(volume, tmp_path / "out", weights, evaluate={"baselines": ["cubic"]}, report={"picture": True})
    values["output"] = {"path": str(tmp_path / "out" / f"scan{ending}")}

    class KilledError(Exception):
        """Nothing catches it, and nothing follows it."""

    def kill(*arguments: Any, **options: Any) -> Any:
        raise KilledError

    with monkeypatch.context() as patch:
        if moment == "publish_all":  # as if the moves were the last thing that was done
            real = io_module.publish_all
            patch.setattr(io_module, "publish_all", lambda *a: (real(*a), kill()))
        elif moment == "late":
            real_write, written = RunRecord.write, []

            def write(record: RunRecord, path: Path) -> Path:
                written.append(path)
                return kill() if len(written) == 3 else real_write(record, path)

            patch.setattr(RunRecord, "write", write)
        else:
            patch.setattr(moment, kill)
        with pytest.raises(KilledError):
            run(values, resume=True)
    output = tmp_path / "out" / f"scan{ending}"
    before = output.stat().st_mtime_ns
    outcome = run(values, resume=True)
    assert output.stat().st_mtime_ns == before, "the output was there, and is not made again"
    assert outcome.table is not None
    record = record_of(outcome)
    assert record.evaluation is not None
    assert record.consistency is not None
    assert ("write" in record.timings) == (moment != "publish_all")
    assert (tmp_path / "out" / "scan.png").exists()
    assert sorted(p.name for p in output.parent.iterdir()) == sorted([output.name, "scan.png", "scan.run.json"])
    assert run(values, resume=True).kept == (output,)


def test_what_is_left_without_an_output_is_replaced_on_resume(tmp_path: Path, volume: Path, weights: Path) -> None:
    values = settings(volume, tmp_path / "out", weights)
    run(values)
    (tmp_path / "out" / "scan.nii.gz").unlink()
    with pytest.raises(OutputExistsError):
        run(values)
    assert len(run(values, resume=True).done) == 1


def test_the_evaluate_step_prints_and_records_its_table(tmp_path: Path, volume: Path, weights: Path) -> None:
    listener = Listener()
    outcome = run(settings(volume, tmp_path / "out", weights, evaluate={"baselines": ["cubic"]}), watcher=listener)
    assert outcome.table is not None
    assert set(outcome.table.methods) == {"small", "cubic"}
    assert str(outcome.table) in "\n".join(listener.said)
    record = record_of(outcome)
    assert record.evaluation == json.loads(json.dumps(outcome.table.to_dict()))
    assert "evaluate" in record.timings


def test_the_tables_of_many_inputs_are_joined(tmp_path: Path, volume: Path) -> None:
    write_volume(tmp_path / "in" / "second.nii.gz", smooth((16, 16, 16), seed=4))
    evaluate = {"sensor": "mri", "baselines": ["linear"]}
    outcome = run(settings(tmp_path / "in" / "*.nii.gz", tmp_path / "out", evaluate=evaluate))
    assert outcome.table is not None
    assert set(outcome.table.subjects) == {"scan.nii.gz", "second.nii.gz"}


def test_a_result_is_compared_with_a_reference(tmp_path: Path) -> None:
    fine = write_volume(tmp_path / "in" / "fine.nii.gz", smooth((24, 24, 24)))
    run({"input": str(fine), "degrade": {"scale": 2, "sensor": "mri"}, "output": str(tmp_path / "low")})
    low = tmp_path / "low" / "fine.nii.gz"
    evaluate = {"protocol": "reference", "reference": str(fine), "baselines": ["nearest"], "sensor": "mri"}
    outcome = run(settings(low, tmp_path / "out", evaluate=evaluate))
    table = outcome.table
    assert table is not None
    assert table.value("cubic", "psnr") > table.value("nearest", "psnr")


def test_a_degraded_output_is_made_again_from_its_record(tmp_path: Path, volume: Path) -> None:
    values = {
        "input": str(volume),
        "degrade": {"scale": {"z": 2}, "sensor": "mri-thick", "seed": 3},
        "output": str(tmp_path / "low"),
    }
    first = run(values)
    assert open_raster(first.done[0].job.output).shape == (8, 18, 20)
    again = run_workflow(first.done[0].job.record, output=tmp_path / "again", watcher=Listener())
    assert again.done[0].job.output.read_bytes() == first.done[0].job.output.read_bytes()


def test_pictures_lie_beside_the_output(tmp_path: Path, volume: Path, weights: Path) -> None:
    report = {"picture": True, "html": True}
    outcome = run(settings(volume, tmp_path / "out", weights, evaluate={"baselines": ["cubic"]}, report=report))
    names = [path.name for path in outcome.done[0].files]
    assert names == ["scan.nii.gz", "scan.run.json", "scan.png", "scan.html"]
    assert (tmp_path / "out" / "scan.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "scan.html").read_text(encoding="utf-8")
    assert "PSNR" in page
    assert 'src="http' not in page
    title = re.search("<title>(.*)</title>", page)
    assert title is not None
    assert title[1] == f"scan.nii.gz, refined by {weights.stem} · sciSR"


def test_a_picture_names_weights_not_where_they_lie(
    tmp_path: Path, volume: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []

    def note(path: Path, *, method: str, **_: Any) -> Path:
        named.append(method)
        return path

    monkeypatch.setattr("sciSR.drawing.draw_picture", note)
    for network in (str(weights), "cubic"):
        changes = {"upscale": {"network": network, "scale": 2}, "report": {"picture": True, "html": False}}
        run(settings(volume, tmp_path / network[-5:], weights, **changes))
    assert named == [weights.stem, "cubic"]


def test_bands_in_files_of_their_own_are_one_scene(tmp_path: Path) -> None:
    values = smooth((3, 30, 28))
    for i, name in enumerate(("b2", "b3", "b4")):
        write_scene(tmp_path / "in" / f"{name}.tif", values[i : i + 1])
    whole = write_scene(tmp_path / "whole.tif", values)
    text = {"path": f"{tmp_path}/in/*.tif", "join": True}
    outcome = run(settings(whole, tmp_path / "out.tif") | {"input": text})
    joined = open_raster(outcome.done[0].job.output).read().values
    expected = open_raster(run(settings(whole, tmp_path / "one")).done[0].job.output).read().values
    np.testing.assert_array_equal(joined, expected)
    record = record_of(outcome)
    assert [Path(fact.path).name for fact in record.inputs] == ["b2.tif", "b3.tif", "b4.tif"]
    again = run_workflow(outcome.done[0].job.record, output=tmp_path / "again.tif", watcher=Listener())
    assert again.done[0].job.output.read_bytes() == outcome.done[0].job.output.read_bytes()


def test_a_label_map_keeps_its_labels(tmp_path: Path) -> None:
    blocks = np.kron(np.array([[[0, 3], [7, 0]], [[12, 3], [0, 7]]]), np.ones((5, 5, 5), int))
    source = write_volume(tmp_path / "in" / "labels.nii.gz", blocks, dtype="uint8")
    for network in ("cubic", "linear", write_weights(tmp_path / "w.safetensors", ndim=3)):
        values = settings(source, tmp_path / "out", network)
        outcome = run(values, overrides=["input.labels=true", "upscale.scale=2"], overwrite=True)
        result = open_raster(outcome.done[0].job.output, labels=True).read().values
        assert result.shape == (20, 20, 20)
        assert set(np.unique(result)) == {0, 3, 7, 12}


def test_series_are_refined_in_space_and_never_in_time(tmp_path: Path, weights: Path) -> None:
    values = np.stack([smooth((10, 9, 8), seed=s) for s in range(3)], axis=-1)
    source = write_volume(tmp_path / "in" / "series.nii.gz", values)
    outcome = run(settings(source, tmp_path / "out", weights))
    raster = open_raster(outcome.done[0].job.output)
    assert (raster.axes, raster.shape) == (("t", "z", "y", "x"), (3, 16, 18, 20))


def test_a_train_step_makes_the_network_of_the_upscale_step(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "in" / "fine.nii.gz", smooth((44, 44, 64)))
    checkpoint = tmp_path / "trained.safetensors"
    values = {
        "train": {
            "references": [{"path": str(source)}],
            "output": str(checkpoint),
            "network": {"family": "edsr", "scale": 2, "features": 4, "blocks": 1},
            "sensor": "mri",
            "patch": 4,
            "batch": 2,
            "steps": 2,
            "validate_every": 2,
        },
        "input": str(source),
        "upscale": {},
        "output": str(tmp_path / "out"),
    }
    listener = Listener()
    outcome = run(values, watcher=listener)
    assert outcome.trained == checkpoint
    record = record_of(outcome)
    assert record.weights is not None
    assert record.weights.sha256 == sha256_of(checkpoint)
    assert record.trained is not None
    assert any("trained.safetensors" in text for text in listener.said)
    again = run_workflow(outcome.done[0].job.record, output=tmp_path / "again", watcher=Listener())
    assert again.trained is None
    assert again.done[0].job.output.read_bytes() == outcome.done[0].job.output.read_bytes()
    with pytest.raises(OutputExistsError):
        run(values)
    assert run(values, resume=True).kept == (outcome.done[0].job.output,)

    other = run(values, overrides=["train.steps=3"], resume=True, overwrite=True)
    assert other.kept == ()
    assert record_of(other).weights is not None
    assert record_of(other).weights.sha256 == sha256_of(checkpoint) != record.weights.sha256  # type: ignore[union-attr]
    with pytest.raises(OutputExistsError, match="not made of this input with these settings and weights"):
        run(values, overrides=[f"train.output={tmp_path / 'another.safetensors'}"], resume=True)


def test_all_ways_to_give_a_workflow_do_the_same(tmp_path: Path, volume: Path) -> None:
    from sciSR.config import dump_workflow

    values = settings(volume, tmp_path / "a")
    workflow = make_workflow(values)
    file = tmp_path / "w.yaml"
    file.write_text(dump_workflow(workflow), encoding="utf-8")
    outputs = [
        run_workflow(values, watcher=Listener()),
        run_workflow(workflow, output=tmp_path / "b", watcher=Listener()),
        run_workflow(file, output=tmp_path / "c", watcher=Listener()),
    ]
    assert len({o.done[0].job.output.read_bytes() for o in outputs}) == 1


def test_nothing_is_warned_of_twice(tmp_path: Path, volume: Path, weights: Path) -> None:
    values = settings(volume, tmp_path / "out", weights)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(values, overrides=["upscale.scale=3"])
    told = [str(w.message) for w in caught if "more than the network's" in str(w.message)]
    assert len(told) == len(set(told))
    assert told


def test_a_cluster_gives_the_same_bytes(tmp_path: Path, volume: Path, weights: Path) -> None:
    distributed = pytest.importorskip("distributed")
    alone = run(settings(volume, tmp_path / "a", weights))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        spread = run(settings(volume, tmp_path / "b", weights), scheduler=cluster.scheduler_address)
    assert spread.done[0].job.output.read_bytes() == alone.done[0].job.output.read_bytes()
    assert left_behind(tmp_path / "b") == []


@pytest.mark.parametrize("ground_points", [False, True])
def test_a_scene_without_a_transform_is_judged_like_any_other(tmp_path: Path, ground_points: bool) -> None:
    values = (np.random.default_rng(0).normal(size=(48, 40)).cumsum(0).cumsum(1) * 10 + 3000).astype("uint16")
    source = tmp_path / "plain.tif"
    points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 40), (48, 0))]
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        profile = {"driver": "GTiff", "width": 40, "height": 48, "count": 1, "dtype": "uint16"}
        with rasterio.open(source, "w", **profile) as file:
            file.write(values, 1)
            if ground_points:
                file.gcps = (points, CRS.from_epsg(4326))
    evaluate = {"sensor": "generic-gaussian", "baselines": ["linear"]}
    outcome = run(settings(source, tmp_path / "out", evaluate=evaluate))
    assert outcome.table is not None
    assert np.isfinite(outcome.table.value("cubic", "psnr"))

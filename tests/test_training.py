from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from sciSR.errors import InputError, OutputExistsError, RunError, SciSRWarning
from sciSR.networks import build_network, checkpoint, load_network
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster
from sciSR.resampling import upsample
from sciSR.sampling import Reference
from sciSR.training import TrainingResult, supervised, train
from sciSR.training.state import StateFile, load_state, save_state
from tests.training_cases import QUICK, scene, volume


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path).state_dict()


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def go(path: Path, **changes: Any) -> TrainingResult:
    return train(scene(), path, **(QUICK | {"steps": 6} | changes))


def test_it_learns_and_writes_a_checkpoint_that_says_everything(tmp_path: Path) -> None:
    result = train(
        scene(size=144),
        tmp_path / "blobs.safetensors",
        **(QUICK | {"steps": 60, "validate_every": 20, "learning_rate": 3e-3, "validation_fraction": 0.4}),
    )
    network = load_network(result.path)
    assert network.card is not None
    assert network.card.name == "blobs"
    assert network.card.sensor is not None
    assert network.card.normalization is not None
    assert network.card.provenance["data"][0]["name"] == "scene"
    assert network.spec.receptive_radius is not None
    assert all(h <= r for h, r in zip(network.spec.halo, network.spec.receptive_radius, strict=True))
    values = json.loads(result.record.read_text())
    assert [h["step"] for h in values["history"]] == [20, 40, 60]
    matched = values["scores"]["matched"]["scene"]
    assert matched["network"]["psnr"] > matched["cubic"]["psnr"] + 0.2
    assert "| matched | scene |" in result.table()
    assert result.curve.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.state.pt"))


def test_the_same_call_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first = go(tmp_path / "a" / "net.safetensors").path
    assert first.read_bytes() == go(tmp_path / "b" / "net.safetensors").path.read_bytes()
    assert not same(first, go(tmp_path / "c" / "net.safetensors", seed=1).path)


class _StoppedError(Exception):
    pass


def stop_at(step: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise _StoppedError

    return progress


def test_a_killed_and_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole" / "net.safetensors", steps=9).path
    target = tmp_path / "net.safetensors"
    with pytest.raises(_StoppedError):
        go(target, steps=9, progress=stop_at(5))
    assert not target.exists()
    resumed = go(target, steps=9, resume=True)
    assert resumed.path.read_bytes() == whole.read_bytes()
    assert [h["step"] for h in resumed.values["history"]] == [3, 6, 9]


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    with pytest.raises(_StoppedError):
        go(target, progress=stop_at(4))
    with pytest.raises(InputError, match=r"resume: learning_rate was 0\.001 when the run began and is 0\.01 now"):
        go(target, resume=True, learning_rate=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"references": scene(1)},
            r"reference 1 was training scene \(sha256 \w+\).* and is training scene \(sha256",
        ),
        ({"references": [scene(), scene(1)]}, "the number of references was 1 when the run began and is 2 now"),
        ({"references": Reference(scene(), held_out={"y": (0, 30)})}, r"reference 1 was .* now; set it back"),
        (
            {"network": QUICK["network"] | {"features": 8}},
            r'network was edsr .*"features": 4.* and is edsr .*"features": 8',
        ),
        ({"normalization": {"kind": "identity"}}, r"normalization was \{'kind': 'percentile'.*'kind': 'identity'"),
        ({"sensor": "box"}, "sensor was .* when the run began"),
        ({"bands": ["red"]}, r"bands was None when the run began and is \['red'\] now"),
        ({"prune": 0.5}, r"prune was None when the run began and is 0\.5 now"),
        ({"adversarial": {"force": True}}, r"adversarial was None when the run began and is Game\("),
        ({"teacher": build_network("edsr", ndim=2, in_channels=1, scale=2)}, "teacher was None .* and is 'edsr' now"),
        ({"validation_fraction": 0.3}, r"validation_fraction was 0\.15 when the run began and is 0\.3 now"),
    ],
)
def test_resuming_another_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    target = tmp_path / "net.safetensors"
    with pytest.raises(_StoppedError):
        go(target, progress=stop_at(4))
    options = QUICK | {"steps": 6, "references": scene()} | changes
    with pytest.raises(InputError, match=f"resume: {message}"):
        train(output=target, **options, resume=True)


def test_an_interruption_says_that_the_state_is_kept(tmp_path: Path) -> None:
    def interrupt_at(step: int) -> Any:
        def progress(done: int, total: int) -> None:
            if done == step:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt) as early:
        go(tmp_path / "net.safetensors", progress=interrupt_at(2))
    assert not hasattr(early.value, "__notes__")
    with pytest.raises(KeyboardInterrupt) as late:
        go(tmp_path / "net.safetensors", progress=interrupt_at(4))
    assert late.value.__notes__ == ["net.safetensors: its state is kept; run it again with --resume"]


def test_a_state_without_all_the_texts_is_taken_back_where_it_fits(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    with pytest.raises(_StoppedError):
        go(target, progress=stop_at(4))
    state = tmp_path / "net.state.pt"
    kept = load_state(state)
    save_state(state, kept | {"settings": {"batch": "4"}})
    with pytest.raises(InputError, match=r"net\.state\.pt: does not fit this run \(.*\); train without resume"):
        go(target, resume=True, network=QUICK["network"] | {"features": 8})
    assert go(target, resume=True).values["steps"] == 6


def test_resuming_a_finished_run_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "net.safetensors"
    values = go(target).values
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    for overwrite in (False, True):
        again = go(target, resume=True, overwrite=overwrite, progress=stop_at(1))
        assert again.values == values
        assert again.path == target
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == files
    assert "net.safetensors: is finished and kept as it is; overwrite it to train anew" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 9}, "steps was 6 when the run began and is 9 now"),
        ({"learning_rate": 0.01}, r"learning_rate was 0\.001 when the run began and is 0\.01 now"),
        ({"references": scene(1)}, "reference 1 was training scene"),
    ],
)
def test_resuming_a_finished_run_of_other_settings_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    target = tmp_path / "net.safetensors"
    before = go(target).path.read_bytes()
    options = QUICK | {"steps": 6, "references": scene()} | changes
    with pytest.raises(InputError, match=f"net.safetensors: is finished, .*: {message}.*; choose another output"):
        train(output=target, **options, resume=True)
    assert target.read_bytes() == before
    train(output=target, **options, resume=True, overwrite=True)
    assert target.read_bytes() != before


def test_resuming_with_an_output_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    target.write_bytes(b"mine")
    for text in (None, "[", "{}"):
        if text is not None:
            (tmp_path / "net.train.json").write_text(text)
        with pytest.raises(InputError, match=r"net\.train\.json does not say of which run the output is; choose"):
            go(target, resume=True)
    assert target.read_bytes() == b"mine"


_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
from tests.training_cases import QUICK, scene
from sciSR.training import train
train(scene(), sys.argv[1], **(QUICK | {"network": QUICK["network"] | {"features": 16}}), steps=6)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_costs_the_state_but_not_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("resource")

    command = [sys.executable, "-c", _FULL, str(tmp_path / "net.safetensors")]
    command.append("100000")  # the state has some 300 kB, the weights and the picture 70 each
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stderr
    assert told.count("net.state.pt: the state of the run could not be written (File too large); the training") == 1
    assert load_network(tmp_path / "net.safetensors").spec.scale == (2, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "net.train.json", "net.train.png"}


def test_weights_that_could_not_be_written_can_be_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(RunError, match=r"net\.safetensors: could not be written") as told:
            go(tmp_path / "net.safetensors")
    assert "(No space left on device); free some space" in str(told.value)
    assert str(told.value).endswith("net.state.pt is kept, from which resume goes on")
    assert go(tmp_path / "net.safetensors", resume=True, progress=stop_at(1)).path.exists()


def test_a_state_that_could_not_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    class Full:
        def __reduce__(self) -> Any:
            raise OSError(28, "No space left on device")

    state = StateFile(tmp_path / "net.state.pt")
    state.keep({"step": 3})
    with pytest.warns(SciSRWarning, match=r"could not be written \(No space left on device\); an earlier state is"):
        state.keep({"step": 6, "other": Full()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state.keep({"step": 9, "other": Full()})
    assert load_state(state.path) == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["net.state.pt"]


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.state.pt").write_bytes(b"not a state")
    with pytest.raises(InputError, match=r"net\.state\.pt: not the state of a training run"):
        go(tmp_path / "net.safetensors", resume=True)


def test_a_loss_that_is_not_finite_stops_and_says_where(tmp_path: Path) -> None:
    values = scene().read().values.copy()
    values[20:50, 20:50] = 1e30  # the gradient overflows
    loud = Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="yx", name="loud")
    with pytest.raises(RunError, match=r"is not finite at step \d+, on the patches loud y=\d+:\d+ x=\d+:\d+"):
        train(loud, tmp_path / "net.safetensors", **QUICK, steps=30, normalization={"kind": "identity"})
    assert not (tmp_path / "net.safetensors").exists()
    kept = weights(tmp_path / "net.last_good.safetensors")
    assert all(bool(torch.isfinite(v).all()) for v in kept.values())


def test_a_run_that_diverges_leaves_the_earlier_output_and_its_record(tmp_path: Path) -> None:
    go(tmp_path / "net.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match="is not finite"):
        go(tmp_path / "net.safetensors", overwrite=True, learning_rate=1e30, warmup=0, clip=None, steps=30)
    assert before == {path: path.read_bytes() for path in before}
    assert json.loads((tmp_path / "net.last_good.train.json").read_text())["settings"]["learning_rate"] == 1e30


def test_a_record_that_could_not_be_written_leaves_the_earlier_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = go(tmp_path / "net.safetensors")
    plain = Path.write_text

    def half(path: Path, text: str, **options: Any) -> int:
        plain(path, text[:100], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(RunError, match="could not be written"):
        go(tmp_path / "net.safetensors", overwrite=True)
    assert json.loads(result.record.read_text()) == result.values


def test_a_dry_run_overfits_one_batch_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    result = go(target, dry_run=True, steps=3000, learning_rate=1e-2, trackers=None)
    told = result.values["dry_run"]
    assert told["steps"] == len(result.values["history"]) == 200
    assert told["learned"]
    assert told["last"] < 0.5 * told["first"]
    assert told["verdict"].endswith("the network learns; nothing was written")
    assert not list(tmp_path.iterdir())
    assert go(target).path.exists()
    assert go(target, dry_run=True, steps=2).values["dry_run"]["steps"] == 2


def test_a_dry_run_says_when_the_network_does_not_learn(tmp_path: Path) -> None:
    told = go(tmp_path / "net.safetensors", dry_run=True, steps=5, learning_rate=1e-12).values["dry_run"]
    assert not told["learned"]
    assert "not below 80% of it: the network did not learn; look at learning_rate" in told["verdict"]


def test_accumulated_batches_count_by_their_mean(tmp_path: Path) -> None:
    # a dry run draws one batch again and again, so three of it are as good as one
    plain = {"clip": None, "steps": 4, "validate_every": 1, "dry_run": True}
    one = go(tmp_path / "one.safetensors", **plain)
    three = go(tmp_path / "three.safetensors", accumulate=3, **plain)
    losses = [[record["loss"] for record in result.values["history"]] for result in (one, three)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    other = go(tmp_path / "other.safetensors", accumulate=3, **(plain | {"dry_run": False}))
    assert other.values["history"][0]["loss"] != pytest.approx(losses[0][0], rel=1e-3)


def test_minutes_become_steps(tmp_path: Path) -> None:
    result = go(tmp_path / "net.safetensors", steps=None, minutes=0.03, validate_every=1000)
    assert result.values["steps"] > 5
    assert result.values["seconds"] < 60


def test_training_stops_early_when_nothing_gets_better(tmp_path: Path) -> None:
    result = go(tmp_path / "net.safetensors", steps=400, patience=2, learning_rate=1e-12, warmup=0)
    assert result.values["steps"] <= 12


def test_fine_tuning_starts_from_weights_and_their_card(tmp_path: Path) -> None:
    first = go(
        tmp_path / "first.safetensors", steps=30, normalization={"kind": "fixed", "center": [500], "scale": [100]}
    )
    tuned = train(
        scene(1), tmp_path / "tuned.safetensors", **(QUICK | {"network": str(first.path), "sensor": None}), steps=1
    )
    before, after = load_network(first.path), load_network(tuned.path)
    assert before.card is not None
    assert after.card is not None
    assert after.card.normalization == before.card.normalization
    assert after.card.sensor == before.card.sensor
    x = torch.rand(1, 1, 12, 12)
    with torch.no_grad():
        assert float((before(x) - after(x)).abs().max()) < 0.1
        assert float((before(x) - upsample(x, (2, 2))).abs().max()) > 0


def test_a_rate_can_be_found_first(tmp_path: Path) -> None:
    result = go(tmp_path / "net.safetensors", learning_rate="auto")
    assert 1e-6 < result.values["settings"]["learning_rate"] < 0.1


def test_a_network_object_in_three_dimensions_with_a_factor_per_axis(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 1, (40, 24, 24)).cumsum(axis=0).astype(np.float32)
    volume = Raster.from_array(values, affine=np.eye(4), axes="zyx", name="volume")
    network = build_network("edsr", ndim=3, in_channels=1, scale={"z": 4}, features=4, blocks=1)
    result = train(
        volume,
        tmp_path / "z4.safetensors",
        **(QUICK | {"network": network, "sensor": "mri-thick", "patch": {"z": 4, "y": 10, "x": 10}}),
        validation=Raster.from_array(values[::-1].copy(), affine=np.eye(4), axes="zyx", name="other"),
        steps=2,
    )
    assert load_network(result.path).spec.scale == (4, 1, 1)
    assert set(result.values["scores"]["matched"]) == {"other"}


def real_pair() -> Reference:
    fine = scene()
    coarse = Raster.from_array(
        fine.read().values.reshape(36, 2, 36, 2).mean((1, 3)),
        affine=np.diag([20.0, -20.0, 1.0]),
        axes="yx",
        name="coarse",
    )
    return Reference(fine, low=coarse, held_out={"y": (48, 72)})


def test_the_sensor_that_a_loss_on_real_pairs_asks_for_is_the_runs_own(tmp_path: Path) -> None:
    options: dict[str, Any] = QUICK | {"steps": 3, "loss": {"data_consistency": 1.0}}
    train(real_pair(), tmp_path / "net.safetensors", **options)
    with pytest.raises(InputError, match=r"net\.safetensors: is finished.*sensor was .* when the run began"):
        train(real_pair(), tmp_path / "net.safetensors", **(options | {"sensor": "box"}), resume=True)


def test_real_pairs_need_no_sensor(tmp_path: Path) -> None:
    result = train(real_pair(), tmp_path / "net.safetensors", **(QUICK | {"sensor": None}), steps=3)
    card = load_network(result.path).card
    assert card is not None
    assert card.sensor is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "schedule: 'linear' is not one of cosine, step, constant"),
        ({"loss": "l3"}, "loss: 'l3' is not one of l1"),
        ({"precision": "int8"}, "precision: 'int8' came, expected one of float32, bf16, fp16"),
        ({"batch": 0}, "batch: 0 came, expected a whole number of at least 1"),
        ({"batch": -2}, "batch: -2 came"),
        ({"batch": 2.5}, r"batch: 2\.5 came"),
        ({"accumulate": 0}, "accumulate: 0 came"),
        ({"validate_every": 0}, "validate_every: 0 came"),
        ({"patience": 0}, "patience: 0 came"),
        ({"ema": 1.5}, r"ema: 1\.5 came, expected 0 or more, and less than 1"),
        ({"learning_rate": float("nan")}, "learning_rate: nan came, expected a number above 0"),
        ({"clip": 0.0}, r"clip: 0\.0 came, expected a number above 0, or None"),
        ({"warmup": -1}, "warmup: -1 came, expected 0 or more steps"),
        ({"final_learning_rate": 2.0}, r"final_learning_rate: 2\.0 came, expected a part of learning_rate, 0 to 1"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(supervised, "gather", lambda *_, **__: pytest.fail("the references were decoded"))
    with pytest.raises(InputError, match=message):
        go(tmp_path / "net.safetensors", **changes)


def test_patience_needs_something_held_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="patience: 1 came and nothing is held out to judge by; name validation"):
        go(tmp_path / "net.safetensors", patience=1, validation_fraction=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "give one of them"),
        ({"minutes": 1.0}, "give one of them"),
        ({"sensor": None}, "no sensor came"),
        ({"network": {"scale": 2}}, "names no family"),
        ({"patch": {"z": 8}}, "one for each of y, x"),
        ({"augment": {"flips": True}}, "augment: no setting flips; there are flip, swap"),
        ({"patch": 60}, "no reference has room"),
        ({"validation": "twice"}, "network has 2|both learned"),
    ],
)
def test_wrong_settings_are_answered_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if changes.get("validation") == "twice":
        changes = {"validation": Raster.from_array(np.zeros((4, 4, 4)), affine=np.eye(4), axes="zyx", name="cube")}
    with pytest.raises(InputError, match=message) as caught:
        go(tmp_path / "net.safetensors", **changes)
    assert "\n" not in str(caught.value)


def test_more_than_memory_is_read_part_by_part(tmp_path: Path) -> None:
    options = QUICK | {"steps": 6, "validate_every": 3}
    held = Reference(scene(size=240), held_out={"y": (0, 100), "x": (0, 100)})
    result = train(held, tmp_path / "net.safetensors", **options, cache_gb=100e-6)
    assert set(result.values["scores"]["matched"]) == {"scene"}
    assert (
        result.path.read_bytes()
        == train(held, tmp_path / "a" / "net.safetensors", **options, cache_gb=100e-6).path.read_bytes()
    )
    with pytest.raises(InputError, match="judged on what held_out or validation name"):
        train(scene(size=240), tmp_path / "other.safetensors", **options, cache_gb=100e-6)


def test_the_mode_self_learns_from_one_scan(tmp_path: Path) -> None:
    network = {"family": "edsr", "scale": {"z": 4}, "features": 4, "blocks": 1}
    options: dict[str, Any] = {"network": network, "sensor": "mri-thick", "device": "cpu", "patch": 8, "mode": "self"}
    scan = volume((12, 48, 48))
    result = train(scan, tmp_path / "own.safetensors", **options, steps=2, rounds=2)
    assert (result.values["mode"], result.values["steps"]) == ("self", 4)
    with pytest.raises(InputError, match="learns from one scan, 2 came"):
        train([scan, scan], tmp_path / "two.safetensors", **options, steps=1)
    with pytest.raises(InputError, match="mode: 'zero' came"):
        train(scan, tmp_path / "two.safetensors", **(options | {"mode": "zero"}), steps=1)


def test_an_output_is_not_replaced_unasked(tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        go(target)
    assert isinstance(load_network(go(target, overwrite=True).path), SRNetwork)

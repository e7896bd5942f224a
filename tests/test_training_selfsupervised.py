from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sciSR.degradation import degrade
from sciSR.errors import InputError, OutputExistsError, RunError
from sciSR.inference import upscale
from sciSR.metrics import psnr
from sciSR.networks import load_network
from sciSR.raster import Raster
from sciSR.sampling import Reference
from sciSR.training import selfsupervised, train, train_self
from sciSR.training.setup import launch
from tests.training_cases import scene, volume

FRESH: dict[str, Any] = {
    "network": {"family": "edsr", "scale": {"z": 4}, "features": 8, "blocks": 2},
    "sensor": "mri-thick",
    "device": "cpu",
}


def thick(fine: Raster, factor: int = 4) -> Raster:
    """What a scan with thick slices sees of a volume, in memory."""
    low = degrade(fine, {"z": factor}, sensor="mri-thick")
    return Raster.from_array(low.read().values, affine=low.grid.center_affine, axes="zyx", name="thick")


def test_the_plane_teaches_the_slices(tmp_path: Path) -> None:
    fine = volume((64, 64, 64))
    scan = thick(fine)
    done: list[tuple[int, int]] = []
    result = train_self(scan, tmp_path / "own.safetensors", **FRESH, steps=60, rounds=2, patch=12,
                        learning_rate=3e-3, progress=lambda a, b: done.append((a, b)))  # fmt: skip
    assert done[-1] == (120, 120)
    network = load_network(result.path)
    assert network.card is not None
    assert network.card.sensor is not None
    assert result.values["mode"] == "self"
    assert [h["step"] for h in result.values["history"]] == [60, 120]
    truth = fine.read().values
    span = float(truth.max() - truth.min())
    own = psnr(upscale(scan, network).read().values, truth, data_range=span)
    cubic = psnr(upscale(scan, "cubic", scale={"z": 4}).read().values, truth, data_range=span)
    assert own > cubic + 0.3


def test_minutes_bound_the_whole_run(tmp_path: Path) -> None:
    options: dict[str, Any] = FRESH | {"patch": 8, "rounds": 2, "warmup": 2}
    begun = time.perf_counter()
    values = train_self(thick(volume()), tmp_path / "own.safetensors", **options, minutes=0.1).values
    assert time.perf_counter() - begun < 120
    first, last = (record["step"] for record in values["history"])
    assert 0 < first < last == values["steps"]
    with pytest.raises(InputError, match="give one of them"):
        train_self(thick(volume()), tmp_path / "two.safetensors", **options, minutes=1, steps=3)


def test_a_loss_that_is_not_finite_leaves_the_last_good_weights(tmp_path: Path) -> None:
    scan = thick(volume())
    with pytest.raises(RunError, match=r"not finite at step \d+, on the patches thick z="):
        train_self(scan, tmp_path / "own.safetensors", **FRESH, steps=30, rounds=1, patch=8, learning_rate=1e30,
                   warmup=0)  # fmt: skip
    kept = load_network(tmp_path / "own.last_good.safetensors")
    assert all(bool(torch.isfinite(w).all()) for w in kept.state_dict().values())


def test_a_loss_may_know_the_slices(tmp_path: Path) -> None:
    loss = {"l1": 1.0, "data_consistency": {"weight": 0.5}, "ssim": 0.1}
    result = train_self(thick(volume()), tmp_path / "own.safetensors", **FRESH, steps=2, rounds=1, patch=8, loss=loss)
    assert result.values["settings"]["loss"] == loss
    plain = train_self(thick(volume()), tmp_path / "plain.safetensors", **FRESH, steps=2, rounds=1, patch=8)
    assert result.values["history"][0]["loss"] != plain.values["history"][0]["loss"]


def test_it_is_deterministic(tmp_path: Path) -> None:
    options: dict[str, Any] = FRESH | {"steps": 4, "rounds": 2, "patch": 8}
    first = train_self(thick(volume()), tmp_path / "a" / "own.safetensors", **options).path
    assert (
        first.read_bytes()
        == train_self(thick(volume()), tmp_path / "b" / "own.safetensors", **options).path.read_bytes()
    )


def test_an_isotropic_network_learns_from_the_scan_made_coarser(tmp_path: Path) -> None:
    network = {"family": "edsr", "scale": 2, "features": 4, "blocks": 1}
    options: dict[str, Any] = {
        "network": network,
        "sensor": "mri",
        "steps": 3,
        "rounds": 1,
        "patch": 8,
        "device": "cpu",
    }
    result = train_self(volume(), tmp_path / "own.safetensors", **options)
    assert load_network(result.path).spec.scale == (2, 2, 2)


@pytest.mark.parametrize(("width", "expected"), [("header", 1.0), (0.7, 0.7)])
def test_the_slice_width_is_in_the_checkpoint(tmp_path: Path, width: Any, expected: float) -> None:
    result = train_self(
        thick(volume()), tmp_path / "own.safetensors", **FRESH, steps=1, rounds=1, patch=8, slice_width=width
    )
    card = load_network(result.path).card
    assert card is not None
    assert card.sensor is not None
    assert card.sensor.z.fwhm == expected


def test_what_cannot_learn_from_itself_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "own.safetensors"
    with pytest.raises(InputError, match="2 spatial axes came, the network has 3"):
        train_self(scene(), target, **(FRESH | {"network": FRESH["network"] | {"ndim": 3}}))
    series = Raster.from_array(np.zeros((2, 8, 8, 8)), affine=np.eye(4), axes="tzyx", name="series")
    with pytest.raises(InputError, match="one volume or band"):
        train_self(series, target, **FRESH)
    odd = {"family": "edsr", "scale": {"z": 2, "x": 2}, "features": 4, "blocks": 1}
    with pytest.raises(InputError, match=r"network of scale \(2, 1, 2\) came"):
        train_self(volume(), target, **(FRESH | {"network": odd}))
    with pytest.raises(InputError, match="slice_width: 'thin' came"):
        train_self(thick(volume()), target, **FRESH, slice_width="thin")  # type: ignore[arg-type]
    target.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        train_self(thick(volume()), target, **FRESH)


def test_what_only_it_takes_is_refused_elsewhere(tmp_path: Path) -> None:
    given: dict[str, Any] = FRESH | {"steps": 1, "rounds": 3, "slice_width": 0.5}
    with pytest.raises(InputError, match=r"^rounds, slice_width: mode supervised does not take it"):
        train(volume(), tmp_path / "own.safetensors", **given)


@pytest.mark.parametrize(
    ("told", "given"),
    [
        ("teacher, prune", {"prune": 0.5, "teacher": "mri-z4"}),
        (
            "schedule, weight_decay, clip, accumulate",
            {"schedule": "nonsense", "weight_decay": 5.0, "clip": 1e-9, "accumulate": 7},
        ),
        ("devices, nodes", {"devices": 3, "nodes": 2}),
        (
            "validate_every, patience, dry_run, compiled",
            {"validate_every": 5, "patience": 2, "dry_run": True, "compiled": True},
        ),
        ("bands, deterministic", {"deterministic": True, "bands": ["t1"]}),
        ("validation", {"validation": [volume()]}),
    ],
)
def test_a_setting_that_it_does_not_take_is_refused(tmp_path: Path, told: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{told}: mode self does not take it"):
        train(thick(volume()), tmp_path / "own.safetensors", **(FRESH | {"steps": 1}), mode="self", **given)
    assert list(tmp_path.iterdir()) == []


def test_more_of_the_reference_than_the_scan_is_refused(tmp_path: Path) -> None:
    scan = thick(volume())
    options: dict[str, Any] = FRESH | {"steps": 1, "mode": "self"}
    for given in ({"held_out": {"z": (0, 4)}}, {"coarsen": {"y": 2.0}}, {"bands": (0,)}, {"low": scan}):
        (name,) = given
        with pytest.raises(InputError, match=f"thick: mode self learns from the whole scan and does not take {name}"):
            train(Reference(scan, **given), tmp_path / "own.safetensors", **options)


def test_the_same_settings_do_the_same_through_train(tmp_path: Path) -> None:
    options: dict[str, Any] = FRESH | {"steps": 2, "rounds": 1, "patch": 8}
    own = train_self(thick(volume()), tmp_path / "a.safetensors", **options, name="own")
    through = train([thick(volume())], tmp_path / "b.safetensors", **options, mode="self", validation=[], name="own")
    assert own.path.read_bytes() == through.path.read_bytes()


OWN: dict[str, Any] = FRESH | {"steps": 4, "rounds": 3, "patch": 8, "mode": "self"}


def stopped(target: Path, after: int) -> KeyboardInterrupt:
    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(thick(volume()), target, **OWN, progress=stop)
    return caught.value


def test_a_stopped_run_goes_on_after_its_last_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train(thick(volume()), tmp_path / "whole" / "own.safetensors", **OWN)
    target = tmp_path / "own.safetensors"
    stopped(target, after=6)
    with pytest.raises(InputError, match=r"resume: learning_rate was 0\.001 when the run began and is 0\.1 now"):
        train(thick(volume()), target, **(OWN | {"learning_rate": 0.1}), resume=True)
    done: list[tuple[int, int]] = []
    again = train(thick(volume()), target, **OWN, resume=True, progress=lambda a, b: done.append((a, b)))
    assert done[0] == (5, 12)
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert again.values["history"] == whole.values["history"]
    assert caplog.text == ""
    assert not list(tmp_path.glob("*.pt"))


def test_what_resume_cannot_go_on_from_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "own.safetensors"
    stopped(target, after=2)
    made = train(thick(volume()), target, **OWN, resume=True)
    assert "stopped before its first round was over; it begins anew" in caplog.text
    caplog.clear()
    before = target.stat().st_mtime_ns
    kept = train(thick(volume()), target, **OWN, resume=True)
    assert "is finished and kept as it is" in caplog.text
    assert target.stat().st_mtime_ns == before
    assert kept.values == made.values


def test_a_finished_run_is_kept_for_the_same_scan_and_settings_only(tmp_path: Path) -> None:
    target = tmp_path / "own.safetensors"
    options: dict[str, Any] = FRESH | {"steps": 1, "rounds": 1, "patch": 8}
    made = train_self(thick(volume()), target, **options)
    before = target.read_bytes()
    with pytest.raises(InputError, match=r"own\.safetensors: is finished.*reference 1 was"):
        train_self(thick(volume((48, 48, 40))), target, **options, resume=True)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("steps was 1 when", {"steps": 2}),
        ("loss was 'l1' when", {"loss": "l2"}),
        ("rounds was 1 when", {"rounds": 2}),
        (r"data_range was 1\.0 when", {"data_range": 2.0}),
        ("sensor was", {"slice_width": 0.7}),
        ("network was", {"network": FRESH["network"] | {"blocks": 1}}),
    ]
    for told, change in changes:
        with pytest.raises(InputError, match=rf"own\.safetensors: is finished.*{told}"):
            train_self(thick(volume()), target, **(options | change), resume=True)
    assert train_self(thick(volume()), target, **options, resume=True).values == made.values
    assert target.read_bytes() == before
    train_self(thick(volume((48, 48, 40))), target, **options, resume=True, overwrite=True)
    assert target.read_bytes() != before


def test_an_interrupted_run_goes_on_with_its_own_scan_and_rounds_only(tmp_path: Path) -> None:
    target = tmp_path / "own.safetensors"
    stopped(target, after=6)
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == ["own.state.pt"]
    with pytest.raises(InputError, match=r"resume: reference 1 was"):
        train(thick(volume((48, 48, 40))), target, **OWN, resume=True)
    with pytest.raises(InputError, match=r"resume: rounds was 3 when the run began and is 4 now"):
        train(thick(volume()), target, **(OWN | {"rounds": 4}), resume=True)


def test_an_interruption_says_whether_a_round_is_kept(tmp_path: Path) -> None:
    assert not hasattr(stopped(tmp_path / "a.safetensors", after=2), "__notes__")
    told = stopped(tmp_path / "b.safetensors", after=6)
    assert told.__notes__ == ["b.safetensors: its state is kept; run it again with --resume"]


def test_one_process_alone_opens_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def note(*_: Any, name: str, **__: Any) -> list[Any]:
        opened.append(name)
        return []

    def launched(*given: Any) -> Any:
        fabric = launch(*given)
        monkeypatch.setattr(type(fabric), "global_rank", property(lambda _: 1))
        return fabric

    monkeypatch.setattr(selfsupervised, "launch", launched)
    monkeypatch.setattr(selfsupervised, "open_trackers", note)
    monkeypatch.setattr(selfsupervised, "write", lambda *_, **__: None)
    train_self(thick(volume()), tmp_path / "own.safetensors", **FRESH, steps=1, rounds=1, patch=8)
    assert opened == []
    assert list(tmp_path.iterdir()) == []

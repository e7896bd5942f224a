from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sciSR.errors import InputError
from sciSR.networks import load_network
from sciSR.training import supervised, train
from sciSR.training.search import Search, Trial, search_network
from sciSR.training.setup import settings_of
from tests.training_cases import QUICK, scene

EDSR: dict[str, Any] = {"family": "edsr", "ndim": 2, "in_channels": 1, "scale": 2}


def test_the_best_network_within_the_budget_is_found() -> None:
    pytest.importorskip("optuna")
    tried = []

    def score(arguments: dict[str, Any]) -> float:
        tried.append((arguments["features"], arguments["blocks"]))
        return -float(abs(arguments["features"] - 16) + abs(arguments["blocks"] - 3))

    search = Search(features=(4, 32), blocks=(1, 6), gflop=20.0, trials=15, steps=1)
    best, trials = search_network(EDSR, search, score, seed=0)
    assert len(trials) == len(tried) == len(set(tried))
    assert [t.psnr for t in trials] == sorted((t.psnr for t in trials), reverse=True)
    assert (best["features"], best["blocks"]) == (trials[0].features, trials[0].blocks)
    assert abs(best["features"] - 16) <= 4
    assert all(t.gflop <= 20 for t in trials)
    again, _ = search_network(EDSR, search, score, seed=0)
    assert again == best


def test_a_budget_that_nothing_fits_is_said(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match=r"stays below 0\.001 GFLOP"):
        search_network(EDSR, Search(gflop=0.001, trials=2), lambda arguments: 0.0, seed=0)
    with pytest.raises(InputError, match="search: no setting width; there are features"):
        settings_of(Search, {"width": 3}, "search")
    with pytest.raises(InputError, match="weights have their size already"):
        train(scene(), tmp_path / "net.safetensors", **(QUICK | {"network": "mri-x2"}), steps=1, search={"trials": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": [64, 8]}, r"search\.features: 64 to 8 must be 1 or more and rise"),
        ({"blocks": (0, 3)}, r"search\.blocks: 0 to 3"),
        ({"trials": 0}, r"search\.trials: 0 came"),
        ({"features": [1, 2, 3]}, "search: .* of the wrong kind"),
        ({"gflop": "many"}, "search: .*'many'.* of the wrong kind"),
    ],
)
def test_settings_that_cannot_be_searched_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(Search, values, "search")


def test_the_network_that_was_found_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = {"features": [4, 8], "blocks": [1, 2], "gflop": 50.0, "trials": 2, "steps": 3}
    result = train(
        scene(size=120), tmp_path / "net.safetensors", **QUICK, steps=3, search=search, validation_fraction=0.4
    )
    tried = result.values["search"]
    assert len(tried) == 2
    rows = result.sizes().split("\n\n")[0].splitlines()[2:]
    assert [row.startswith("| chosen |") for row in rows] == [True, False]
    assert f"| {tried[0]['features']} | {tried[0]['blocks']} | {tried[0]['parameters']} |" in rows[0]
    assert [row["parameters"] for row in result.values["sizes"]] == [tried[0]["parameters"]]
    arguments = load_network(result.path).arguments
    assert (arguments["features"], arguments["blocks"]) == (tried[0]["features"], tried[0]["blocks"])


def test_a_run_taken_up_again_does_not_search_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    searched = []

    def other(network: Any, search: Any, score: Any, *, seed: int) -> Any:
        searched.append(search)
        trial = Trial(4 * len(searched), 1, 1.0, 100, 20.0)
        return {**network, "features": trial.features, "blocks": trial.blocks}, [trial]

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(supervised, "search_network", other)
    options: dict[str, Any] = QUICK | {"output": tmp_path / "net.safetensors", "steps": 6, "search": {"trials": 1}}
    with pytest.raises(KeyboardInterrupt):
        train(scene(), **options, progress=stop)
    for _ in range(2):
        values = train(scene(), **options, resume=True).values
        assert values["network"]["arguments"]["features"] == 4
        assert values["search"][0]["features"] == 4
    assert len(searched) == 1
    with pytest.raises(InputError, match=r"network was edsr .*\"features\": 4.* and is edsr .*\"features\": 8"):
        train(scene(), **(options | {"search": {"trials": 2}}), resume=True)


def test_a_family_without_width_or_depth_is_refused_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match="srcnn: no argument 'blocks'"):
        search_network(EDSR | {"family": "srcnn"}, Search(trials=2), lambda arguments: 0.0, seed=0)
    assert caplog.text == ""


def test_a_trial_that_fails_says_so_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("optuna")

    def fail(arguments: dict[str, Any]) -> float:
        raise InputError("nothing is held out")

    with pytest.raises(InputError, match="nothing is held out"):
        search_network(EDSR, Search(trials=2), fail, seed=0)
    assert caplog.text == ""

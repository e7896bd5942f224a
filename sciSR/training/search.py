"""Which width and depth to take: short trainings under a budget of operations, chosen by Optuna."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sciSR.errors import InputError
from sciSR.networks import build_network
from sciSR.networks.summary import summarise

__all__ = ["Search", "Trial", "check_search", "search_network"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """Settings of a search.

    Attributes:
        features: least and greatest width.
        blocks: least and greatest depth.
        gflop: most operations per million output pixels, 10^9 of them.
        trials: networks to train.
        steps: of each trial.
    """

    features: tuple[int, int] = (8, 64)
    blocks: tuple[int, int] = (1, 16)
    gflop: float = 100.0
    trials: int = 12
    steps: int = 200

    def __post_init__(self) -> None:
        for name in ("features", "blocks"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise InputError(f"search.{name}: {low} to {high} must be 1 or more and rise")
        for name in ("gflop", "trials", "steps"):
            if not getattr(self, name) > 0:
                raise InputError(f"search.{name}: {getattr(self, name)} came, expected more than 0")


@dataclass(frozen=True)
class Trial:
    """One network that was tried."""

    features: int
    blocks: int
    gflop: float
    parameters: int
    psnr: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        return asdict(self)


def search_network(
    network: Mapping[str, Any], search: Search, score: Callable[[dict[str, Any]], float], *, seed: int
) -> tuple[dict[str, Any], list[Trial]]:
    """The best width and depth for a family, by the tree-structured Parzen estimator (Akiba et al. 2019, Optuna).

    Args:
        network: family and its other arguments, ``ndim``, ``in_channels`` and ``scale`` among them.
        search: the settings.
        score: trains a network of these arguments for a while and gives its PSNR on held-out crops.
        seed: of the choices.

    Returns:
        The arguments of the best network, and all that were tried, best first.

    Raises:
        InputError: Optuna is not installed, the family has no width or depth, or nothing fits the budget.
    """
    check_search(network, search)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    done: dict[tuple[int, int], Trial] = {}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(20 * search.trials):
        if len(done) >= search.trials:
            break
        trial = study.ask()
        size = trial.suggest_int("features", *search.features, step=4), trial.suggest_int("blocks", *search.blocks)
        if size not in done:
            arguments = {**network, "features": size[0], "blocks": size[1]}
            gflop, parameters = _cost(arguments)
            if gflop > search.gflop:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            done[size] = Trial(*size, round(gflop, 3), parameters, score(arguments))
            log.info("features %d blocks %d: %.1f GFLOP, %.2f dB", *size, gflop, done[size].psnr)
        study.tell(trial, done[size].psnr)
    if not done:
        raise InputError(
            f"search: no network of {search.features[0]} to {search.features[1]} features and {search.blocks[0]} to "
            f"{search.blocks[1]} blocks stays below {search.gflop:g} GFLOP per million output pixels; allow more"
        )
    ranked = sorted(done.values(), key=lambda trial: -trial.psnr)
    return {**network, "features": ranked[0].features, "blocks": ranked[0].blocks}, ranked


def check_search(network: Mapping[str, Any], search: Search) -> None:
    """Raise InputError where Optuna is not installed, or the family has no width or depth."""
    if importlib.util.find_spec("optuna") is None:
        raise InputError("search: it needs the package optuna; pip install optuna")
    _cost({**network, "features": search.features[0], "blocks": search.blocks[0]})


def _cost(arguments: Mapping[str, Any]) -> tuple[float, int]:
    """GFLOP per million output pixels, and parameters."""
    plain = dict(arguments)
    with torch.device("meta"):
        built = build_network(plain.pop("family"), **plain)
    summary = summarise(built)
    return summary.gflop, summary.parameters

"""The training loop: step, validate, keep, resume. Read :func:`_run` from top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciSR.errors import InputError, RunError
from sciSR.networks.spec import SRNetwork
from sciSR.sampling import Augmentation, PairMaker
from sciSR.training.objective import Objective
from sciSR.training.schedules import learning_rate_at
from sciSR.training.state import MovingAverage, load_state, save_state
from sciSR.training.validation import Score, Validator, mean_scores

__all__ = ["DivergedError", "Outcome", "Settings", "run"]

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; see :func:`sciSR.training.train`."""

    patch: tuple[int, ...]
    batch: int
    steps: int | None
    minutes: float | None
    learning_rate: float
    warmup: int
    schedule: str
    final_learning_rate: float
    weight_decay: float
    loss: str | Mapping[str, float]
    ema: float
    clip: float | None
    accumulate: int
    precision: str
    seed: int
    validate_every: int
    patience: int | None
    dry_run: bool
    augment: Augmentation

    def to_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return asdict(self) | {"patch": list(self.patch)}


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        weights: of the best validation, or the last where nothing was validated.
        step: steps done.
        steps: steps planned.
        best: validation PSNR of the weights, or None.
        best_step: when it was reached.
        history: one record per validation: step, loss, learning rate, PSNR, SSIM.
        seconds: spent in this and earlier parts of the run.
    """

    weights: dict[str, Tensor]
    step: int = 0
    steps: int = 0
    best: float | None = None
    best_step: int = 0
    history: list[dict[str, Any]] | None = None
    seconds: float = 0.0


class DivergedError(RunError):
    """The loss is not finite.

    Attributes:
        outcome: what there was before, with the last good weights.
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def run(
    fabric: Any,
    network: SRNetwork,
    maker: PairMaker,
    objective: Objective,
    settings: Settings,
    *,
    validator: Validator | None,
    state: Path,
    resume: bool,
    observe: Callable[[Mapping[str, Any]], None],
    progress: Progress | None,
) -> Outcome:
    """Train ``network`` in place.

    Args:
        fabric: a launched ``lightning_fabric.Fabric``.
        network: what learns.
        maker: makes the batches.
        objective: what is made small.
        settings: the numbers.
        validator: scores on held-out crops; None: the last weights are kept.
        state: file in which the run is kept, so that it can go on.
        resume: go on from ``state`` if it is there.
        observe: called with each record of the history.
        progress: called with (steps done, steps in all).

    Raises:
        DivergedError: the loss is not finite.
        InputError: the state is of a run with other settings.
    """
    torch.manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
    )
    model, optimizer = fabric.setup(network, optimizer)
    average = MovingAverage(network, settings.ema)
    outcome = Outcome(weights=dict(average.values), history=[], steps=settings.steps or 0)
    if resume and state.exists():
        _restore(load_state(state), network, optimizer, average, outcome, settings)
        log.info("going on at step %d of %d", outcome.step, outcome.steps)
    share = _share(settings.batch, fabric.global_rank, fabric.world_size)
    clock = _Clock(settings, outcome)
    losses: list[Tensor] = []
    model.train()
    while outcome.steps == 0 or outcome.step < outcome.steps:
        step = outcome.step
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, outcome.steps, settings)
        total = torch.zeros((), device=fabric.device)
        for part in range(settings.accumulate):
            drawn = 0 if settings.dry_run else step * settings.accumulate + part
            pair = maker.make(settings.seed, drawn, share)
            with fabric.no_backward_sync(model, enabled=part < settings.accumulate - 1):
                value = objective(model(pair.low), pair.high) / settings.accumulate
                fabric.backward(value)
            total += value.detach()
        norm = total
        if settings.clip is not None:
            norm = fabric.clip_gradients(model, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
        if not bool(torch.isfinite(total + norm)):
            outcome.weights = dict(average.values)
            raise _diverged(outcome, [maker.sampler.where(p) for p in pair.patches], settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(network)
        losses.append(total)
        outcome.step = step + 1
        clock.tick(fabric)
        if progress is not None:
            progress(outcome.step, outcome.steps)
        if outcome.step % settings.validate_every == 0 or outcome.step == outcome.steps:
            record = {"step": outcome.step, "loss": _mean(fabric, losses), "learning_rate": group["lr"]}
            losses = []
            if validator is not None and not settings.dry_run:
                record |= _validated(fabric, network, average, validator, outcome)
            else:
                outcome.weights = {key: value.clone() for key, value in average.values.items()}
            assert outcome.history is not None
            outcome.history.append(record)
            outcome.seconds = clock.seconds
            observe(record)
            log.info("%s", _line(record, outcome, clock))
            if fabric.global_rank == 0:
                save_state(state, _kept(network, optimizer, average, outcome, settings))
            fabric.barrier()
            if settings.patience is not None and outcome.step - outcome.best_step >= (
                settings.patience * settings.validate_every
            ):
                log.info("no better validation since step %d: stopping", outcome.best_step)
                break
    return outcome


def _share(batch: int, rank: int, world: int) -> range:
    """The sample numbers of one process."""
    if batch % world:
        raise InputError(f"batch: {batch} patches cannot be shared by {world} processes; take a multiple of {world}")
    return range(rank * batch // world, (rank + 1) * batch // world)


def _rate(step: int, steps: int, settings: Settings) -> float:
    return learning_rate_at(
        step,
        steps or 10**9,
        peak=settings.learning_rate,
        warmup=settings.warmup,
        schedule=settings.schedule,
        final=settings.final_learning_rate,
    )


class _Clock:
    """Time spent; turns a budget of minutes into steps once it has seen how fast they are."""

    def __init__(self, settings: Settings, outcome: Outcome) -> None:
        self.settings, self.outcome = settings, outcome
        self.before = outcome.seconds
        self.start = time.perf_counter()
        self.first = outcome.step
        self._mark = 0.0

    @property
    def seconds(self) -> float:
        """Of this and earlier parts of the run."""
        return self.before + time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Steps per second in this part."""
        return (self.outcome.step - self.first) / max(1e-9, time.perf_counter() - self.start)

    def tick(self, fabric: Any) -> None:
        """After each step; fixes the number of steps when a twentieth of the minutes is over."""
        if self.outcome.steps or self.settings.minutes is None:
            return
        if self.outcome.step - self.first == 3:
            self._mark = self.seconds
        budget = self.settings.minutes * 60
        if self.outcome.step - self.first >= 5 and self.seconds >= budget / 20:
            each = (self.seconds - self._mark) / (self.outcome.step - self.first - 3)
            steps = self.outcome.step + max(1, int(0.95 * (budget - self.seconds) / each))
            self.outcome.steps = int(fabric.broadcast(steps))
            log.info("%.3f s a step: %d steps in %.1f minutes", each, self.outcome.steps, self.settings.minutes)


def _mean(fabric: Any, losses: Sequence[Tensor]) -> float:
    return float(fabric.all_reduce(torch.stack(list(losses)).mean(), reduce_op="mean"))


def _validated(
    fabric: Any, network: SRNetwork, average: MovingAverage, validator: Validator, outcome: Outcome
) -> dict[str, Any]:
    """Score the averaged weights and keep them if they are the best."""
    trained = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(average.values)
    scores: dict[str, Score] = {}
    if fabric.global_rank == 0:
        scores = validator.score(network)
    scores = fabric.broadcast(scores)
    network.load_state_dict(trained)
    score = mean_scores(list(scores.values()))
    if outcome.best is None or score.psnr > outcome.best:
        outcome.best, outcome.best_step = score.psnr, outcome.step
        outcome.weights = {key: value.clone() for key, value in average.values.items()}
    return {"psnr": score.psnr, "ssim": score.ssim}


def _line(record: Mapping[str, Any], outcome: Outcome, clock: _Clock) -> str:
    text = f"step {outcome.step}/{outcome.steps or '?'} loss {record['loss']:.3g}"
    if "psnr" in record:
        text += f" PSNR {record['psnr']:.2f} dB SSIM {record['ssim']:.4f}"
    left = (outcome.steps - outcome.step) / max(clock.rate, 1e-9)
    return text + f", {clock.rate:.2f} steps/s, {left / 60:.1f} minutes left"


def _kept(
    network: SRNetwork, optimizer: Any, average: MovingAverage, outcome: Outcome, settings: Settings
) -> dict[str, Any]:
    return {
        "step": outcome.step,
        "steps": outcome.steps,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": {"count": average.count, "values": average.values},
        "best": outcome.best,
        "best_step": outcome.best_step,
        "weights": outcome.weights,
        "history": outcome.history,
        "seconds": outcome.seconds,
        "settings": _comparable(settings),
    }


def _comparable(settings: Settings) -> dict[str, str]:
    """Settings that must not change within a run, as text."""
    free = {"steps", "minutes", "validate_every", "patience"}
    return {key: repr(value) for key, value in settings.to_dict().items() if key not in free}


def _restore(
    kept: Mapping[str, Any],
    network: SRNetwork,
    optimizer: Any,
    average: MovingAverage,
    outcome: Outcome,
    settings: Settings,
) -> None:
    for key, value in _comparable(settings).items():
        if kept["settings"].get(key) != value:
            raise InputError(
                f"resume: {key} was {kept['settings'].get(key)} when the run began and is {value} now; "
                "set it back, or train without resume"
            )
    network.load_state_dict(kept["network"])
    optimizer.load_state_dict(kept["optimizer"])
    average.count = kept["average"]["count"]
    for key, value in kept["average"]["values"].items():
        average.values[key].copy_(value)
    outcome.step, outcome.best, outcome.best_step = kept["step"], kept["best"], kept["best_step"]
    outcome.steps = settings.steps or kept["steps"]
    outcome.weights, outcome.history = dict(kept["weights"]), list(kept["history"])
    outcome.seconds = kept["seconds"]


def _diverged(outcome: Outcome, places: Sequence[str], settings: Settings) -> DivergedError:
    named = "; ".join(places[:4]) + (" and others" if len(places) > 4 else "")
    return DivergedError(
        f"training: the loss or its gradient is not finite at step {outcome.step}, on the patches {named}; the last good weights are kept; look at these places, "
        f"or lower learning_rate ({settings.learning_rate:g}) or clip ({settings.clip})",
        outcome,
    )

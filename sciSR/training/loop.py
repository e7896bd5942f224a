"""The training loop: step, validate, keep, resume. Read :func:`run` from top to bottom."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciSR.errors import CheckpointError, InputError, RunError
from sciSR.networks.spec import SRNetwork
from sciSR.sampling import Augmentation, Pair, PairMaker, RotatingMaker
from sciSR.training.identity import FREE, difference
from sciSR.training.lessons import Lesson
from sciSR.training.schedules import check_schedule, learning_rate_at
from sciSR.training.setup import check_batch
from sciSR.training.state import MovingAverage, StateFile, load_state
from sciSR.training.validation import Validator, mean_scores

__all__ = ["DivergedError", "Outcome", "Settings", "run"]

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]

_LOOK = 10
"""Steps between two looks at whether the minutes still hold what was planned."""

_FIRST_LOOKS = 5
"""Steps between two looks at whether it is time to plan."""

_SKIPS = 30
"""Steps in a row that fp16 may leave out; by then its first scale of 2^16 has come down to 2^-14."""


_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda value: 0 < value < math.inf, "a number above 0"),
    "clip": (lambda value: value > 0, "a number above 0, or None"),
    "warmup": (lambda value: value >= 0, "0 or more steps"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "0 or more"),
    "final_learning_rate": (lambda value: 0 <= value <= 1, "a part of learning_rate, 0 to 1"),
    "ema": (lambda value: 0 <= value < 1, "0 or more, and less than 1"),
}
"""Name of a setting -> which numbers it may be, and how to say that."""


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; see :func:`sciSR.training.train`.

    Raises:
        InputError: a number that cannot be, or no such schedule.
    """

    patch: tuple[int, ...]
    batch: int
    steps: int | None
    minutes: float | None
    learning_rate: float
    warmup: int
    schedule: str
    final_learning_rate: float
    weight_decay: float
    loss: str | Mapping[str, Any]
    ema: float
    clip: float | None
    accumulate: int
    precision: str
    seed: int
    validate_every: int
    patience: int | None
    dry_run: bool
    augment: Augmentation
    keep: str = "best"

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "validate_every", "patience"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise InputError(f"{name}: {value!r} came, expected a whole number of at least 1")
        for name, (fits, expected) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise InputError(f"{name}: {value!r} came, expected {expected}")
        check_schedule(self.schedule)

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
    history: list[dict[str, Any]] = field(default_factory=list)
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
    maker: PairMaker | RotatingMaker,
    lesson: Lesson,
    settings: Settings,
    *,
    validator: Validator | None,
    state: Path,
    identity: Mapping[str, str],
    found: Mapping[str, Any],
    resume: bool,
    compiled: bool,
    observe: Callable[[Mapping[str, Any]], None],
    progress: Progress | None,
) -> Outcome:
    """Train ``network`` in place.

    Args:
        fabric: a launched ``lightning_fabric.Fabric``.
        network: what learns.
        maker: makes the batches.
        lesson: what a step asks of it.
        settings: the numbers.
        validator: scores on held-out crops; None: the last weights are kept.
        state: file in which the run is kept, so that it can go on.
        identity: texts that tell this run from another; see :mod:`sciSR.training.identity`.
        found: plain values that the state holds for the run that goes on; see :mod:`sciSR.training.found`.
        resume: go on from ``state`` if it is there.
        compiled: run the network through torch.compile.
        observe: called with each record of the history.
        progress: called with (steps done, steps in all), once it is known how many there will be.

    Raises:
        DivergedError: the loss is not finite.
        CheckpointError: the state is damaged, or does not fit the network.
        InputError: the state is of another run.
    """
    torch.manual_seed(settings.seed)
    layout = torch.channels_last if network.spec.ndim == 2 else torch.channels_last_3d
    # a quarter faster on CPUs, and what tensor cores want
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
    scaler = getattr(fabric.strategy.precision, "scaler", None)  # fp16's
    optimizer = torch.optim.AdamW(
        network.parameters(),
        settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=scaler is None,  # a fused one unscales gradients itself, too late to clip them
    )
    model, optimizer = fabric.setup(torch.compile(network) if compiled else network, optimizer)
    average = MovingAverage(network, settings.ema)
    outcome = Outcome(weights=average.copy(), steps=settings.steps or 0)
    whole = _Run(fabric, network, optimizer, average, lesson, outcome, settings, identity, found)
    if resume and state.exists():
        whole.restore(load_state(state), state)
        log.info("going on at step %d of %d", outcome.step, outcome.steps)
    share = _share(settings.batch, fabric.global_rank, fabric.world_size)
    watch = _Watch(maker, settings, share, every=1 if fabric.device.type == "cpu" else 16)
    clock = _Clock(settings, outcome)
    keeper = StateFile(state)
    extra: dict[str, float] = {}
    model.train()
    while outcome.steps == 0 or outcome.step < outcome.steps:
        rate = _rate(outcome.step, outcome.steps, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=fabric.device)
        for part in range(settings.accumulate):
            drawn = 0 if settings.dry_run else outcome.step * settings.accumulate + part
            low, high, patches = maker.make(settings.seed, drawn, share)
            pair = Pair(low.contiguous(memory_format=layout), high, patches)
            with fabric.no_backward_sync(model, enabled=part < settings.accumulate - 1):
                value = lesson.value(model, pair) / settings.accumulate
                fabric.backward(value)
            total += value.detach()
        norm = total
        if settings.clip is not None:
            norm = fabric.clip_gradients(model, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
        if not watch.good(fabric, outcome.step, total, norm if scaler is None else total, average):
            outcome.weights = watch.weights
            raise watch.error(outcome)
        optimizer.step()
        if scaler is not None and watch.stuck(outcome.step, scaler.get_scale()):
            outcome.weights = average.copy()
            raise watch.error(outcome)
        optimizer.zero_grad(set_to_none=True)
        average.update(network)
        extra |= lesson.after(outcome.step)
        outcome.step += 1
        clock.tick(fabric)
        if progress is not None and outcome.steps:
            progress(outcome.step, outcome.steps)
        if outcome.step % settings.validate_every == 0 or outcome.step == outcome.steps:
            record = {"step": outcome.step, "loss": watch.mean_loss(fabric), "learning_rate": rate, **extra}
            for name, term in lesson.terms().items():
                record[f"loss/{name}"] = float(fabric.all_reduce(term, reduce_op="mean"))
            if validator is not None and not settings.dry_run:
                record |= whole.validated(validator)
            else:
                lesson.trim(average.values)
                outcome.weights = average.copy()
            outcome.history.append(record)
            outcome.seconds = clock.seconds
            observe(record)
            log.info("%s", _line(record, outcome, clock))
            if fabric.global_rank == 0 and not settings.dry_run:
                keeper.keep(whole.kept())
            fabric.barrier()
            if settings.patience and outcome.step - outcome.best_step >= settings.patience * settings.validate_every:
                log.info("no better validation since step %d: stopping", outcome.best_step)
                break
    return outcome


class _Watch:
    """Keeps an eye on the losses, and the last weights that were good.

    On a GPU it looks only every so many steps, for each look waits for the device.
    """

    def __init__(self, maker: PairMaker | RotatingMaker, settings: Settings, share: Sequence[int], every: int) -> None:
        self.maker, self.settings, self.share, self.every = maker, settings, share, every
        self.weights: dict[str, Tensor] = {}
        self.first_bad = 0
        self._scale = 0.0
        self._skipped = 0
        self._unseen: list[tuple[int, Tensor]] = []
        self._losses: list[Tensor] = []

    def good(self, fabric: Any, step: int, loss: Tensor, norm: Tensor, average: MovingAverage) -> bool:
        """Whether all losses and gradients of all processes up to now are finite, as far as it has looked."""
        self._losses.append(loss)
        self._unseen.append((step, loss + norm))
        if len(self._unseen) < self.every and self.weights:
            return True
        bad = (~torch.isfinite(torch.stack([value for _, value in self._unseen]))).float()
        found = fabric.all_reduce(bad, reduce_op="sum").cpu().nonzero()  # so that all processes stop at one step
        if len(found):
            self.first_bad = self._unseen[int(found[0])][0]
            self.weights = self.weights if self.every > 1 and self.weights else average.copy()
            return False
        self._unseen = []
        if self.every > 1:
            self.weights = average.copy()
        return True

    def stuck(self, step: int, scale: float) -> bool:
        """Whether fp16's gradients overflowed at so many steps in a row that no scale will help.

        A scaler leaves out a step whose gradients overflow and halves its ``scale``; a few such steps are its way to
        find the right one.
        """
        self._skipped = self._skipped + 1 if scale < self._scale else 0
        self._scale, self.first_bad = scale, step
        return self._skipped >= _SKIPS

    def mean_loss(self, fabric: Any) -> float:
        """Of the steps since it was last asked, over all processes."""
        mean = float(fabric.all_reduce(torch.stack(self._losses).mean(), reduce_op="mean"))
        self._losses = []
        return mean

    def error(self, outcome: Outcome) -> DivergedError:
        """What to raise: at which step, on which patches."""
        settings, step = self.settings, self.first_bad
        drawn = [step * settings.accumulate + part for part in range(settings.accumulate)]
        places = [
            self.maker.sampler.where(patch)
            for number in ([0] if settings.dry_run else drawn)
            for patch in self.maker.sampler.draw(settings.seed, number, self.share)
        ]
        named = "; ".join(places[:4]) + (" and others" if len(places) > 4 else "")
        return DivergedError(
            f"training: the loss or its gradient is not finite at step {step}, on the patches {named}; "
            f"{'' if settings.dry_run else 'the last good weights are kept; '}look at these places, "
            f"or lower learning_rate ({settings.learning_rate:g}) or clip ({settings.clip})",
            outcome,
        )


def _share(batch: int, rank: int, world: int) -> range:
    """The sample numbers of one process."""
    check_batch(batch, world)
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
    """Time spent; turns a budget of minutes into steps once it has seen how fast they are, fewer if they get slower."""

    def __init__(self, settings: Settings, outcome: Outcome) -> None:
        self.settings, self.outcome = settings, outcome
        self.before = outcome.seconds
        self.start = time.perf_counter()
        self.first = outcome.step
        self._mark = (outcome.step, self.before)

    @property
    def seconds(self) -> float:
        """Of this and earlier parts of the run."""
        return self.before + time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Steps per second in this part."""
        return (self.outcome.step - self.first) / max(1e-9, time.perf_counter() - self.start)

    def tick(self, fabric: Any) -> None:
        """After each step: fixes the number of steps when a twentieth of the minutes is over; lowers it if need be.

        The first process decides, and all ask it after the same steps.
        """
        if self.settings.minutes is None:
            return
        done, budget = self.outcome.step - self.first, self.settings.minutes * 60
        if self.outcome.steps == 0:
            if done == 3:
                self._mark = (self.outcome.step, self.seconds)
            if done % _FIRST_LOOKS == 0 and fabric.broadcast(self.seconds >= budget / 20):
                self._plan(fabric, budget, most=10**9)
                log.info("%d steps in %.1f minutes", self.outcome.steps, self.settings.minutes)
        elif done % _LOOK == 0 and self.outcome.step < self.outcome.steps:
            self._plan(fabric, budget, most=self.outcome.steps - self.outcome.step)

    def _plan(self, fabric: Any, budget: float, most: int) -> None:
        """As many more steps as the time left holds at the speed since the last look, at most ``most``."""
        step, seconds = self._mark
        each = (self.seconds - seconds) / max(1, self.outcome.step - step)
        room = int(0.95 * (budget - self.seconds) / each) + 1
        self.outcome.steps = self.outcome.step + int(fabric.broadcast(max(1, min(most, room))))
        self._mark = (self.outcome.step, self.seconds)


def _line(record: Mapping[str, Any], outcome: Outcome, clock: _Clock) -> str:
    text = f"step {outcome.step}/{outcome.steps or '?'} loss {record['loss']:.3g}"
    if "psnr" in record:
        text += f" PSNR {record['psnr']:.2f} dB SSIM {record['ssim']:.4f}"
    left = (outcome.steps - outcome.step) / max(clock.rate, 1e-9)
    return text + f", {clock.rate:.2f} steps/s, {left / 60:.1f} minutes left"


@dataclass(frozen=True)
class _Run:
    """All that changes during a run, to be kept and taken back."""

    fabric: Any
    network: SRNetwork
    optimizer: Any
    average: MovingAverage
    lesson: Lesson
    outcome: Outcome
    settings: Settings
    identity: Mapping[str, str]
    found: Mapping[str, Any]

    def validated(self, validator: Validator) -> dict[str, float]:
        """Score the averaged weights, and keep them if they are the best."""
        self.lesson.trim(self.average.values)
        trained = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.values)
        scores = validator.score(self.network) if self.fabric.global_rank == 0 else {}
        self.network.load_state_dict(trained)
        score = mean_scores(list(self.fabric.broadcast(scores).values()))
        better = self.outcome.best is None or score.psnr > self.outcome.best
        if better:
            self.outcome.best, self.outcome.best_step = score.psnr, self.outcome.step
        if better or self.settings.keep == "last":
            self.outcome.weights = self.average.copy()
        return {"psnr": score.psnr, "ssim": score.ssim}

    def kept(self) -> dict[str, Any]:
        """What the state file holds."""
        kept = {name: getattr(self.outcome, name) for name in _KEPT}
        return kept | {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": {"count": self.average.count, "values": self.average.values},
            "lesson": self.lesson.state_dict(),
            "settings": dict(self.identity),
            "found": dict(self.found),
            "random": torch.get_rng_state(),
        }

    def restore(self, kept: Mapping[str, Any], path: Path) -> None:
        """Take back what the state file ``path`` holds."""
        changed = difference(kept["settings"], self.identity, FREE)
        if changed is not None:
            raise InputError(f"resume: {changed}; set it back, or train without resume")
        try:
            self._take(kept)
        except (RuntimeError, ValueError, KeyError) as error:
            told = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{path}: does not fit this run ({told}); train without resume") from error
        for name in _KEPT:
            setattr(self.outcome, name, kept[name])
        self.outcome.steps = self.settings.steps or kept["steps"]
        torch.set_rng_state(kept["random"])

    def _take(self, kept: Mapping[str, Any]) -> None:
        """What has to fit the network: weights, their average, and what the optimizer and the lesson know of them."""
        self.network.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.lesson.load_state_dict(kept["lesson"])
        if kept.get("precision"):
            self.fabric.strategy.precision.load_state_dict(kept["precision"])
        self.average.count = kept["average"]["count"]
        for key, value in kept["average"]["values"].items():
            self.average.values[key].copy_(value)


_KEPT = ("step", "steps", "best", "best_step", "weights", "history", "seconds")

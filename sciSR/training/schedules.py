"""Learning rate as a function of the step alone, so that a resumed run needs no state for it."""

from __future__ import annotations

import math
from collections.abc import Callable

from sciSR.errors import InputError

__all__ = ["SCHEDULES", "check_schedule", "learning_rate_at"]


def _cosine(done: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _step(done: float) -> float:
    """Halved after each quarter of the run."""
    return 0.5 ** int(done * 4)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "step": _step,
    "constant": lambda done: 1.0,
}
"""Name -> factor on the learning rate at each part, 0 to 1, of the run after the warm-up."""


def check_schedule(name: str) -> None:
    """Raise InputError for a schedule that there is not."""
    if name not in SCHEDULES:
        raise InputError(f"schedule: {name!r} is not one of {', '.join(SCHEDULES)}")


def learning_rate_at(
    step: int, steps: int, *, peak: float, warmup: int = 0, schedule: str = "cosine", final: float = 0.0
) -> float:
    """The learning rate of a step.

    Args:
        step: from 0.
        steps: of the whole run.
        peak: highest rate, reached after the warm-up.
        warmup: steps over which it rises linearly from near 0.
        schedule: one of :data:`SCHEDULES`.
        final: rate at the end, as a part of ``peak``.

    Raises:
        InputError: no schedule of this name.

    Example:
        >>> [round(learning_rate_at(s, 10, peak=1.0, warmup=2), 2) for s in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    check_schedule(schedule)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (final + (1 - final) * SCHEDULES[schedule](done))

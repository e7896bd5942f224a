"""What a run tells its user: answers on stdout; progress, warnings and errors on stderr, one line each."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Console", "LogWatcher", "Progress", "Watcher", "clock", "one_line"]

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_log = logging.getLogger(__name__)

_SPARSE_SHARE = 0.25
_SPARSE_SECONDS = 30.0


class Watcher(Protocol):
    """Whoever follows a run."""

    def say(self, text: str) -> None:
        """Something that was done."""
        ...

    def warn(self, text: str) -> None:
        """Something to know that stops nothing."""
        ...

    def problem(self, text: str) -> None:
        """Something that failed, while the run goes on."""
        ...

    def step(self, name: str, unit: str = "px") -> Progress:
        """A step begins, counted in ``unit``; the function given is called as it proceeds."""
        ...


class LogWatcher:
    """A watcher that hands on to Python's logging, for notebooks and programs; progress goes to ``progress``."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress

    def say(self, text: str) -> None:
        """An INFO line."""
        _log.info("%s", text)

    def warn(self, text: str) -> None:
        """A WARNING line."""
        _log.warning("%s", text)

    def problem(self, text: str) -> None:
        """An ERROR line."""
        _log.error("%s", text)

    def step(self, name: str, unit: str = "px") -> Progress:
        """The function given, or one that does nothing."""
        _log.info("%s", name)
        return self._progress or (lambda done, total: None)


class Console:
    """A watcher that writes to a terminal, a file or a pipe.

    Attributes:
        quiet: only answers, warnings and errors.
    """

    def __init__(self, *, quiet: bool = False, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self.quiet = quiet
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._bar: tqdm[Any] | None = None

    def answer(self, text: str) -> None:
        """What was asked for; comes also when quiet."""
        self.clear()
        self._out.write(text + "\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """Something that was done."""
        if not self.quiet:
            self.answer(text)

    def warn(self, text: str) -> None:
        """One line ``scisr: warning: …`` on stderr."""
        self._complain(f"scisr: warning: {one_line(text)}")

    def problem(self, text: str) -> None:
        """One line ``scisr: error: …`` on stderr."""
        self._complain(f"scisr: error: {one_line(text)}")

    def step(self, name: str, unit: str = "px") -> Progress:
        """A progress bar on a terminal, sparse lines elsewhere, nothing when quiet."""
        self.clear()
        if self.quiet:
            return lambda done, total: None
        return self._bar_step(name, unit) if self._err.isatty() else self._line_step(name, unit)

    def clear(self) -> None:
        """End the progress bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _complain(self, text: str) -> None:
        self.clear()
        self._out.flush()
        self._err.write(text + "\n")
        self._err.flush()

    def _bar_step(self, name: str, unit: str) -> Progress:
        from tqdm import tqdm

        bar = tqdm(desc=name, unit=unit, unit_scale=unit == "px", file=self._err, leave=False, dynamic_ncols=True)
        self._bar = bar

        def advance(done: int, total: int) -> None:
            if bar.total != total:
                bar.total = total
                bar.refresh()
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        return advance

    def _line_step(self, name: str, unit: str) -> Progress:
        start = time.monotonic()
        last = [0.0, start]  # share and time of the last line

        def advance(done: int, total: int) -> None:
            now, share = time.monotonic(), done / max(1, total)
            due = share >= last[0] + _SPARSE_SHARE or now >= last[1] + _SPARSE_SECONDS
            if (not due and share < 1) or last[0] >= 1:
                return
            last[:] = [share, now]
            spent = now - start
            left = f", {clock(spent / share * (1 - share))} left" if 0 < share < 1 else ""
            rate = f", {_rate(done / spent, unit)}" if spent > 0.05 else ""
            self._err.write(f"{name}: {share:.0%} in {clock(spent)}{rate}{left}\n")
            self._err.flush()

        return advance


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second / 1e6:.2f} Mpx/s" if unit == "px" else f"{per_second:.2f} {unit}/s"


def clock(seconds: float) -> str:
    """A duration as ``3.2 s`` or ``4:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def one_line(text: object) -> str:
    """The text with every line break and run of blanks as one blank."""
    return " ".join(str(text).split())

"""What a run says, and where."""

from __future__ import annotations

import io
import logging

import pytest

from sciSR.console import Console, LogWatcher, clock, one_line


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def made(*, quiet: bool = False, terminal: bool = False) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    return Console(quiet=quiet, out=out, err=err), out, err


def test_answers_go_to_stdout_and_complaints_to_stderr_in_one_line() -> None:
    console, out, err = made()
    console.say("done")
    console.warn("odd\nthing")
    console.problem("bad\n  thing")
    assert out.getvalue() == "done\n"
    assert err.getvalue() == "scisr: warning: odd thing\nscisr: error: bad thing\n"


def test_quiet_leaves_answers_warnings_and_errors() -> None:
    console, out, err = made(quiet=True)
    console.say("chatter")
    console.answer("42")
    console.step("work")(1, 2)
    console.problem("bad")
    assert (out.getvalue(), err.getvalue()) == ("42\n", "scisr: error: bad\n")


def test_elsewhere_than_on_a_terminal_progress_is_a_few_lines() -> None:
    console, _, err = made()
    advance = console.step("work")
    for done in range(1, 1001):
        advance(done, 1000)
    advance(1000, 1000)
    lines = err.getvalue().splitlines()
    assert 3 <= len(lines) <= 5
    assert all(line.startswith("work: ") for line in lines)
    assert "100%" in lines[-1]
    assert "left" in lines[0]
    assert "\r" not in err.getvalue()


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    console, _, err = made(terminal=True)
    advance = console.step("work")
    advance(500_000, 1_000_000)
    advance(900_000, 1_000_000)
    console.say("done")
    text = err.getvalue()
    assert "work" in text
    assert "px/s" in text
    assert "1.00M" in text
    advance = console.step("more")
    advance(10, 10)
    console.clear()


def test_a_message_ends_the_bar_first() -> None:
    console, _, err = made(terminal=True)
    console.step("work")(1, 10)
    console.problem("bad")
    assert err.getvalue().endswith("scisr: error: bad\n")
    assert console._bar is None


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1:01"), (3599.6, "1:00:00"), (7384, "2:03:04")]
)
def test_durations_are_readable(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


def test_texts_become_one_line() -> None:
    assert one_line(" a\n\n b\tc ") == "a b c"


def test_programs_follow_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, int]] = []
    watcher = LogWatcher(lambda done, total: seen.append((done, total)))
    with caplog.at_level(logging.INFO, logger="sciSR"):
        watcher.say("said")
        watcher.warn("warned")
        watcher.problem("failed")
        watcher.step("step")(1, 2)
        LogWatcher().step("silent")(1, 2)
    assert [(r.levelname, r.message) for r in caplog.records[:3]] == [
        ("INFO", "said"), ("WARNING", "warned"), ("ERROR", "failed"),
    ]  # fmt: skip
    assert seen == [(1, 2)]


def test_steps_are_counted_in_their_own_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("sciSR.console.time.monotonic", lambda: now[0])
    console, _, err = made()
    for unit, expected in (("step", "25.00 step/s"), ("px", "0.00 Mpx/s")):
        start = now[0]
        advance = console.step("work", unit)
        now[0] = start + 2.0
        advance(50, 100)
        assert f"work: 50% in 2.0 s, {expected}, 2.0 s left" in err.getvalue()

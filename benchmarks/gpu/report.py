"""What the scripts of this folder share: their arguments, and REPORT.md, to which each adds its part."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu import pack

__all__ = ["add_to_report", "arguments"]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows where to run, how often, and where the report lies."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=pack.ROOT / "out/gpu")
    return parser


def add_to_report(folder: Path, lines: Iterable[str]) -> None:
    """Print the lines and add them to the report, each as it comes: time may run out."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "REPORT.md").open("a", encoding="utf-8") as file:
        for line in lines:
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()

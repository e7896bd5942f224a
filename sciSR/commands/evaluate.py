"""``scisr evaluate``: a result against its reference and against baselines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sciSR.console import Console
from sciSR.errors import InputError
from sciSR.evaluation import evaluate
from sciSR.io import open_raster
from sciSR.record import plain, write_text

__all__ = ["run"]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the table of scores; gives the exit code."""
    target = None if arguments.output is None else Path(arguments.output)
    if target is not None and target.suffix not in (".json", ".md"):
        raise InputError(f"{target}: a table is written as .json or .md; choose one of these endings")
    table = evaluate(
        open_raster(arguments.result),
        reference=open_raster(arguments.reference),
        low=None if arguments.low is None else open_raster(arguments.low),
        sensor=arguments.sensor,
        baselines=tuple(arguments.baseline),
        data_range=arguments.data_range,
        mask=None if arguments.mask is None else open_raster(arguments.mask),
        progress=console.step("evaluating"),
    )
    data = json.dumps(plain(table.to_dict()), indent=1, ensure_ascii=False)
    if target is not None:
        text = table.to_markdown() if target.suffix == ".md" else data
        write_text(target, text.rstrip() + "\n", overwrite=arguments.overwrite)
    console.answer(data if arguments.json else str(table))
    return 0

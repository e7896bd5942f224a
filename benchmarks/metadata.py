"""What survives: the same tagged scene and volume through sciSR and through its peers, and what each output still says.

    python benchmarks/metadata.py                  # prints the tables
    python benchmarks/metadata.py --write          # and writes benchmarks/results/metadata.md

Every arm refines by 2 with the interpolation at hand, as its documentation shows it, from a file to a file. A row
counts as kept only if plain rasterio or nibabel reads the right thing from the output. A peer that is not installed is
named as missing: odc-geo and rioxarray come with the extra ``geo``; opensr-utils is looked for in ``.venv-peers``,
which ``python benchmarks/engine.py --peers`` makes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import metadata_scene  # noqa: E402  # lies beside this file
import metadata_volume  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "metadata.md"
PEERS = ROOT / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Outcome:
    """What one arm made of the inputs: output or reason per input, or why it did not run at all."""

    outputs: dict[str, Path]
    failures: dict[str, str]
    missing: str | None = None


def main() -> None:
    """Run every arm and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)} too")
    parser.add_argument("--arm", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        part, arm, folder, *sources = options.arm
        _work(_part(part).ARMS[arm], Path(folder), [Path(source) for source in sources])
        return
    warnings.simplefilter("ignore")
    tables = [_table(part) for part in ("scene", "volume")]
    head = "# What survives an upscaling by 2\n\nMade by `python benchmarks/metadata.py --write`.\n"
    text = "\n".join([head, *tables])
    print(text)
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")


def _part(name: str) -> Any:
    return {"scene": metadata_scene, "volume": metadata_volume}[name]


def _table(name: str) -> str:
    part = _part(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs = part.make_inputs(folder / "in")
        outcomes = {arm: _run(name, arm, inputs, folder / arm) for arm in part.ARMS}
        marks = {arm: [_mark(row, inputs, outcome) for row in part.ROWS] for arm, outcome in outcomes.items()}
    titles = {arm: part.titles()[arm] for arm in part.ARMS}
    present = [arm for arm in part.ARMS if outcomes[arm].missing is None]
    lines = [f"## {part.TITLE}\n", "| kept | " + " | ".join(titles[arm] for arm in present) + " |"]
    lines.append("|---|" + "---|" * len(present))
    for i, row in enumerate(part.ROWS):
        lines.append(f"| {row.kind} | " + " | ".join(marks[arm][i] for arm in present) + " |")
    counts = [f"**{sum(m == 'yes' for m in marks[arm])} of {len(part.ROWS)}**" for arm in present]
    lines.append("| **rows kept** | " + " | ".join(counts) + " |")
    notes = [f"- {titles[arm]}: not run, {o.missing}" for arm, o in outcomes.items() if o.missing]
    for arm in present:
        notes += [f"- {titles[arm]}, {n}: no output: {why}" for n, why in outcomes[arm].failures.items()]
    return "\n".join([*lines, "", *notes, ""])


def _run(part: str, arm: str, inputs: dict[str, Path], folder: Path) -> Outcome:
    """The arm on every input, in a process of its own."""
    folder.mkdir()
    missing = _part(part).missing(arm, PEERS)
    if missing:
        return Outcome({}, {}, missing)
    python = str(PEERS) if arm == "opensr-utils" else sys.executable
    command = [python, "-W", "ignore", __file__, "--arm", part, arm, str(folder), *map(str, inputs.values())]
    subprocess.run(command, capture_output=True, text=True, check=True)
    failures = {}
    for name, source in inputs.items():
        words = folder / f"{source.name}.failed"
        if words.exists():
            failures[name] = words.read_text(encoding="utf-8").replace(str(source.parent), "").replace("|", "/")[:90]
    return Outcome({n: folder / s.name for n, s in inputs.items() if n not in failures}, failures)


def _work(arm: Callable[[Path, Path], None], folder: Path, sources: list[Path]) -> None:
    for source in sources:
        try:
            arm(source, folder / source.name)
            reason = None if (folder / source.name).exists() else "it ended without an output"
        except Exception as error:  # a peer may fail in any way, which is what the table tells
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[-1]}"
        if reason is not None:
            (folder / f"{source.name}.failed").write_text(reason, encoding="utf-8")


def _mark(row: Any, inputs: dict[str, Path], outcome: Outcome) -> str:
    """``yes``, ``no``, or ``–`` where there is no output to look at."""
    if row.source not in outcome.outputs:
        return "–"
    check: Callable[[Path, Path], bool] = row.check
    try:
        return "yes" if check(inputs[row.source], outcome.outputs[row.source]) else "no"
    except (KeyError, AttributeError, IndexError, ValueError, TypeError, OSError):
        if "-v" in sys.argv:
            traceback.print_exc()
        return "no"


if __name__ == "__main__":
    main()

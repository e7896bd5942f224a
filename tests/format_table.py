"""The tables of docs/formats.md, written by the tests that prove their rows.

A module lists its rows, proves each in a test of its own, and ends with :func:`check_table`. With
``SCISR_WRITE_DOCS=1`` the table is written; otherwise the page must hold it already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
HEAD = """# What each format keeps

Every row is a test, and the tests write these tables (`SCISR_WRITE_DOCS=1 make test`).
"""


@dataclass(frozen=True)
class Row:
    """One kind of metadata, what becomes of it at the new resolution, and the proof, called with an empty folder."""

    kind: str
    outcome: str
    proof: Callable[[Path], None]


def check_table(title: str, rows: Sequence[Row]) -> None:
    """Compare the section of the page called ``title`` with the rows, or write it."""
    lines = [f"## {title}", "", "| what the file says | what becomes of it |", "|---|---|"]
    section = "\n".join([*lines, *(f"| {row.kind} | {row.outcome} |" for row in rows)]) + "\n"
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else HEAD
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = pattern.search(page)
    if os.environ.get("SCISR_WRITE_DOCS"):
        text = (
            page[: found.start()] + section + "\n" + page[found.end() :] if found else f"{page.rstrip()}\n\n{section}"
        )
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")
        return
    assert found is not None, f"docs/formats.md has no section {title!r}; run with SCISR_WRITE_DOCS=1"
    assert found.group().strip() == section.strip(), f"docs/formats.md: {title} is stale; run with SCISR_WRITE_DOCS=1"

"""What a run found out before its first step, for the same run taken up again: it need not look anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sciSR.training.course import recorded
from sciSR.training.outputs import Files
from sciSR.training.search import Search, Trial
from sciSR.training.state import load_state

__all__ = ["found_before", "search_entry", "trials_before"]


def found_before(files: Files) -> dict[str, Any]:
    """What the interrupted or finished run of these files had found, by name; empty: nothing, or there is none.

    Raises:
        CheckpointError: its state is damaged.
    """
    if files.state.exists():
        kept: Mapping[str, Any] = load_state(files.state)
    elif files.target.exists():
        kept = recorded(files) or {}
    else:
        kept = {}
    return dict(kept.get("found", {}))


def search_entry(network: Mapping[str, Any], search: Search, trials: list[Trial]) -> dict[str, Any]:
    """A search as it is kept: what was asked, and what was tried, the best first."""
    return {"asked": _asked(network, search), "trials": [trial.to_dict() for trial in trials]}


def trials_before(found: Mapping[str, Any], network: Mapping[str, Any], search: Search) -> list[Trial]:
    """What the same search tried, the best first; empty: there was none."""
    entry = found.get("search", {})
    if entry.get("asked") != _asked(network, search):
        return []
    return [Trial(**values) for values in entry["trials"]]


def _asked(network: Mapping[str, Any], search: Search) -> str:
    return json.dumps([dict(network), asdict(search)], sort_keys=True, default=str)

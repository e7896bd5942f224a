"""What makes a run the one that it is, as texts by name: with them a run that goes on, or that is finished, is known.

A state and a record hold the texts of their run. Another run of the same texts, on the same machine, does the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sciSR.networks import weights_path
from sciSR.networks.checkpoint import sha256
from sciSR.networks.spec import SRNetwork, model_name

__all__ = ["FREE", "difference", "network_texts", "reference_texts", "weights_text"]

FREE = frozenset({"steps", "minutes", "validate_every", "patience"})
"""Settings that may change when an interrupted run goes on."""

_SHOWN = 12
"""Digits of a checksum."""


def difference(before: Mapping[str, str], now: Mapping[str, str], free: Collection[str] = ()) -> str | None:
    """What is not the same in two runs, for a message; None where nothing is.

    Args:
        before: texts of a run that began earlier; one that an older version wrote may lack some, which are not
            compared.
        now: those of the present one.
        free: names that may differ.

    Example:
        >>> difference({"batch": "8", "seed": "0"}, {"batch": "4", "seed": "0"})
        'batch was 8 when the run began and is 4 now'
    """
    for name, value in now.items():
        if name in before and name not in free and before[name] != value:
            return f"{name} was {before[name]} when the run began and is {value} now"
    return None


def reference_texts(record: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Their number, and of each its role, name, checksum and how it is used, from what a record says of them."""
    texts = {"the number of references": str(len(record))}
    for number, entry in enumerate(record, 1):
        low = entry.get("low")
        used = {key: entry[key] for key in ("weight", "coarsen", "bands", "held_out", "mask") if key in entry}
        pair = "" if low is None else f", low {_file(low)}{' aligned' if low['aligned'] else ''}"
        texts[f"reference {number}"] = f"{entry['role']} {_file(entry)}{pair}, {json.dumps(used, sort_keys=True)}"
    return texts


def network_texts(network: SRNetwork) -> dict[str, str]:
    """Family and arguments, and the weights that it starts from."""
    arguments = json.dumps(network.arguments, sort_keys=True, default=str)
    start = "none" if network.card is None else weights_text(network)
    return {"network": f"{network.family} {arguments}", "network's first weights": start}


def weights_text(model: SRNetwork | str) -> str:
    """Name and checksum of weights, the latter where they lie in a file."""
    if isinstance(model, str):
        checksum: str | None = sha256(weights_path(model))
    else:
        checksum = None if model.card is None else model.card.checksum
    return model_name(model) + ("" if checksum is None else f" (sha256 {checksum[:_SHOWN]})")


def _file(entry: Mapping[str, Any]) -> str:
    return f"{entry['name']} (sha256 {entry['sha256'][:_SHOWN]})"

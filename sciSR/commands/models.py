"""``scisr models``: what can be named as a model."""

from __future__ import annotations

import argparse
import json
import math
import os
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sciSR.classical import CLASSICAL
from sciSR.console import Console
from sciSR.networks import list_weights, weights_path
from sciSR.networks.figures import NetworkSummary, family_figures
from sciSR.networks.header import damaged, is_own, read_content
from sciSR.record import plain

__all__ = ["describe_weights", "run"]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the lists, or all about one; gives the exit code."""
    if arguments.model is not None:
        facts = describe_weights(arguments.model, whole=True)
        console.answer(json.dumps(facts, indent=1, ensure_ascii=False) if arguments.json else _as_text(facts))
        return 0
    if arguments.sensors:
        sensors = _described_sensors()
        console.answer(json.dumps(sensors, indent=1, ensure_ascii=False) if arguments.json else _sensor_list(sensors))
        return 0
    weights = [describe_weights(name) for name in list_weights()]
    if arguments.json:
        families = [s.to_dict() for ndim in (2, 3) for s in family_figures(ndim)]
        lists = {"weights": weights, "networks": plain(families), "classical": list(CLASSICAL)}
        console.answer(json.dumps(lists, indent=1, ensure_ascii=False))
        return 0
    console.answer("weights that ship (--model NAME)")
    console.answer(_weights_table(weights) if weights else "  none with this installation")
    console.answer(f"\nclassical methods (--model NAME)\n  {', '.join(CLASSICAL)}")
    console.answer("\nnetwork families, to train (train.network.family): with their own sizes, factor 2")
    console.answer(_family_table(family_figures(2), family_figures(3)))
    console.answer("  radius: input pixels on each side that an output pixel sees. GFLOP: per million output pixels.")
    return 0


def describe_weights(name: str, *, whole: bool = False) -> dict[str, Any]:
    """What a checkpoint says of itself, as plain values; read from its header.

    Raises:
        MissingFileError: no such weights.
        CheckpointError: not a checkpoint.
    """
    path = weights_path(name)
    if not is_own(path):
        return _described_by_loading(name)
    content = read_content(path)
    try:
        facts = _facts(content) | {"bytes": os.path.getsize(path)}
        if whole:
            kept = ("arguments", "spec", "normalization", "sensor", "provenance")
            facts |= {"file": str(path), **{key: content[key] for key in kept}}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    described: dict[str, Any] = plain(facts)
    return described


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of a checkpoint's header."""
    spec, sensor = content["spec"], content["sensor"]
    return {
        "name": content["name"],
        "family": content["family"],
        "axes": spec["axes"],
        "scale": dict(zip(spec["axes"], spec["scale"], strict=True)),
        "channels": content["bands"] or spec["in_channels"],
        "sensor": None if sensor is None else sensor["name"],
        "halo": spec["halo"],
    }


def _described_by_loading(name: str) -> dict[str, Any]:
    """The same of published weights, which say less."""
    from sciSR.networks import load_network

    network = load_network(name)
    described: dict[str, Any] = plain(
        {
            "name": os.path.basename(name),
            "family": network.family,
            "arguments": network.arguments,
            "spec": network.spec.to_dict(),
            "parameters": sum(math.prod(p.shape) for p in network.parameters()),
        }
    )
    return described


def _described_sensors() -> list[dict[str, str]]:
    """Name, description and source of every sensor that ships."""
    from sciSR.degradation import list_sensors, load_sensor

    found = [load_sensor(name) for name in list_sensors()]
    return [{"name": each.name, "description": each.description, "source": each.source} for each in found]


def _sensor_list(sensors: list[dict[str, str]]) -> str:
    """A paragraph for each."""
    paragraphs = ["sensors that ship (--sensor NAME, train.sensor)"]
    for each in sensors:
        told = [textwrap.fill(each[key], 110, initial_indent="    ", subsequent_indent="    ")
                for key in ("description", "source")]  # fmt: skip
        paragraphs.append("\n".join([f"  {each['name']}", *told]))
    return "\n".join(paragraphs)


def _weights_table(weights: list[dict[str, Any]]) -> str:
    rows = [("name", "family", "scale", "channels", "trained for", "halo", "size")]
    for facts in weights:
        scale = ",".join(f"{a}={s}" for a, s in facts["scale"].items())
        channels = facts["channels"]
        named = ",".join(channels) if isinstance(channels, list) else str(channels)
        halo = "x".join(str(h) for h in facts["halo"])
        size = f"{facts['bytes'] / 1e6:.2f} MB"
        rows.append((facts["name"], facts["family"], scale, named, facts["sensor"] or "not stated", halo, size))
    return _aligned(rows)


def _family_table(flat: list[NetworkSummary], deep: list[NetworkSummary]) -> str:
    heading = (
        "family",
        "2D: parameters",
        "radius",
        "tiles",
        "GFLOP",
        "3D: parameters",
        "radius",
        "tiles",
        "GFLOP",
        "from",
    )
    rows: list[tuple[str, ...]] = [heading]
    for plane, volume in zip(flat, deep, strict=True):
        rows.append((plane.name, *_cells(plane), *_cells(volume), plane.paper))
    return _aligned(rows, right=range(1, 9))


def _cells(summary: NetworkSummary) -> tuple[str, ...]:
    radius = "all" if summary.receptive_radius is None else str(max(summary.receptive_radius))
    tiles = "exact" if summary.exact_tiling else "windows"
    return f"{summary.parameters:,}", radius, tiles, f"{summary.gflop:,.0f}"


def _aligned(rows: Sequence[tuple[str, ...]], *, right: Collection[int] = ()) -> str:
    """Rows in columns, those numbered in ``right`` to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _as_text(facts: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}", _as_text(value, indent + "  ")]
        else:
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
            lines.append(f"{indent}{key:<14} {shown}")
    return "\n".join(lines)

"""Train the shipped weights on a GPU: ``python -m benchmarks.gpu.train --minutes 8 mri-x2 mri-z4``.

The settings are those of ``workflows/train_*.yaml``, with a larger batch, bfloat16, and as many steps as the
minutes hold. The minutes are for all networks together, from the first byte read to the last file written.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import pack
from benchmarks.gpu.report import add_to_report
from sciSR.training import train

GPU: dict[str, Any] = {"batch": 48, "precision": "bf16", "steps": None, "validate_every": 500}
"""What a GPU changes."""
DRY = 96**3
"""Pixels that a dry run takes of each reference."""
ASIDE = 60.0
"""Seconds that reading, scoring and writing a network may take beside its steps; what one took counts for the next."""


def main() -> None:
    """Train each, and add a row for each to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(pack.WEIGHTS))
    parser.add_argument("--minutes", type=float, default=16.0, help="for all of them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=pack.ROOT / "out/gpu")
    parser.add_argument("--dry", action="store_true", help="a few small steps on small parts, on the CPU")
    options = parser.parse_args()
    end, aside = time.perf_counter() + 60 * options.minutes, ASIDE
    for number, name in enumerate(options.names):
        begun = time.perf_counter()
        minutes = max(0.2, ((end - begun) / (len(options.names) - number) - aside) / 60)
        settings = pack.settings(name) | GPU | {"minutes": minutes, "device": options.device, "trackers": ()}
        if options.dry:
            settings |= {"batch": 2, "steps": 4, "minutes": None, "validate_every": 2, "validation_count": 1}
            settings |= {"device": "cpu", "precision": "float32", "validation_patch": None}
        most = DRY if options.dry else None
        result = train(
            pack.references(name, "references", most),
            options.output / f"{name}.safetensors",
            validation=pack.references(name, "validation", most),
            overwrite=True,
            **settings,
        )
        values = result.values
        aside = time.perf_counter() - begun - values["seconds"]
        rate = values["steps"] / max(values["seconds"], 1e-9)
        batch = values["settings"]["batch"]
        lines = [
            f"## {name}",
            "",
            f"{values['steps']} steps in {values['seconds']:.0f} s: {rate:.1f} steps/s, {rate * batch:.0f} patches/s, "
            f"and {aside:.0f} s for the rest; "
            f"{values['parameters']} parameters, halo {values['halo']}",
            "",
            result.table(),
            "",
        ]
        add_to_report(options.output, lines)
        json.loads(result.record.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

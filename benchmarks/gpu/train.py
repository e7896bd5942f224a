"""Train the shipped weights on a GPU: ``python -m benchmarks.gpu.train --minutes 4.5 mri-x2 …``.

The settings are those of ``workflows/train_*.yaml``, with a larger batch, bfloat16, and as many steps as the
minutes hold.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu import pack
from sciSR.training import train

GPU: dict[str, Any] = {"batch": 48, "precision": "bf16", "steps": None, "validate_every": 500}
"""What a GPU changes."""


def main() -> None:
    """Train each, and add a row for each to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(pack.WEIGHTS))
    parser.add_argument("--minutes", type=float, default=4.5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=pack.ROOT / "out/gpu")
    parser.add_argument("--dry", action="store_true", help="a few small steps on the CPU")
    options = parser.parse_args()
    for name in options.names:
        settings = pack.settings(name) | GPU | {"minutes": options.minutes, "device": options.device, "trackers": ()}
        if options.dry:
            settings |= {"batch": 2, "steps": 4, "minutes": None, "validate_every": 2, "validation_count": 1}
            settings |= {"device": "cpu", "precision": "float32"}
        result = train(
            pack.references(name, "references"),
            options.output / f"{name}.safetensors",
            validation=pack.references(name, "validation"),
            overwrite=True,
            **settings,
        )
        values = result.values
        rate = values["steps"] / max(values["seconds"], 1e-9)
        batch = values["settings"]["batch"]
        lines = [
            f"## {name}",
            "",
            f"{values['steps']} steps in {values['seconds']:.0f} s: {rate:.1f} steps/s, {rate * batch:.0f} patches/s; "
            f"{values['parameters']} parameters, halo {values['halo']}",
            "",
            result.table(),
            "",
        ]
        text = "\n".join(lines)
        print(text, flush=True)
        with (options.output / "REPORT.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        json.loads(result.record.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

"""The picture of a training run: loss and validation PSNR over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_curve"]


def draw_curve(path: Path, history: Sequence[Mapping[str, Any]], *, title: str, baselines: Mapping[str, float]) -> Path:
    """Draw a PNG of a run.

    Args:
        path: the file.
        history: records with ``step``, ``loss`` and, where it was measured, ``psnr``.
        title: above the picture.
        baselines: validation PSNR of methods to draw as level lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([h["step"] for h in history], [h["loss"] for h in history], color="#30638e")
    left.set(xlabel="step", ylabel="training loss", yscale="log", title=title)
    measured = [(h["step"], h["psnr"]) for h in history if "psnr" in h]
    right.plot([m[0] for m in measured], [m[1] for m in measured], color="#30638e", label="network")
    for (name, level), color in zip(baselines.items(), ("#d1495b", "#edae49", "#66a182"), strict=False):
        right.axhline(level, color=color, linestyle="--", label=name)
    right.set(xlabel="step", ylabel="PSNR on held-out crops (dB)")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path

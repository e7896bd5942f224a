"""What a run leaves behind: the checkpoint, its record, its curve, and the table of scores."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sciSR.files import whole_file
from sciSR.networks.checkpoint import save_checkpoint
from sciSR.networks.receptive import measure_halo
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.resampling import mirror_pad
from sciSR.sampling import Crop
from sciSR.training.curve import draw_curve
from sciSR.training.loop import Outcome, Settings
from sciSR.training.sizes import size_table, trial_table
from sciSR.training.validation import CONDITIONS, Validator

__all__ = ["Files", "TrainingResult", "score_table", "scores_of", "summary", "write_outputs"]

_MOST_ROWS = 12
"""Rasters that the table names one by one."""


@dataclass(frozen=True)
class TrainingResult:
    """What training made.

    Attributes:
        path: the checkpoint.
        record: the file ``<name>.train.json`` beside it.
        curve: the picture ``<name>.train.png`` beside it.
        values: what the record says: settings, data, history, scores.
    """

    path: Path
    record: Path
    curve: Path
    values: Mapping[str, Any]

    def table(self) -> str:
        """PSNR and SSIM per condition, held-out raster and method, as Markdown."""
        return score_table(self.values["scores"])

    def sizes(self) -> str:
        """Size, speed and PSNR before and after pruning or distillation, and what a search tried; else empty."""
        tables = [(trial_table, "search"), (size_table, "sizes")]
        return "\n\n".join(table(self.values[key]) for table, key in tables if key in self.values)


@dataclass(frozen=True)
class Files:
    """Where the output and the things beside it lie."""

    target: Path

    def _beside(self, ending: str) -> Path:
        return self.target.with_name(self.target.name.removesuffix(".safetensors") + ending)

    @property
    def record(self) -> Path:
        """What was done, and the scores."""
        return self._beside(".train.json")

    @property
    def curve(self) -> Path:
        """Loss and validation over the steps."""
        return self._beside(".train.png")

    @property
    def state(self) -> Path:
        """From which an interrupted run goes on."""
        return self._beside(".state.pt")

    @property
    def diverged(self) -> Files:
        """The last good weights of a run that went wrong, and what lies beside them."""
        return Files(self._beside(".last_good.safetensors"))

    @property
    def log(self) -> Path:
        """Folder of the run's TensorBoard events."""
        return self._beside(".events")


def write_outputs(
    network: SRNetwork,
    files: Files,
    values: dict[str, Any],
    *,
    normalization: Normalization,
    validator: Validator,
    crops: Sequence[Crop],
    bands: Sequence[str] | None,
) -> None:
    """Write checkpoint, record and curve; each appears whole or not at all.

    Args:
        network: with the weights to keep.
        files: where.
        values: of :func:`summary`.
        normalization: how values became its input.
        validator: whose sensor is stated, and on whose crops the halo is measured.
        crops: where it is measured if there are none.
        bands: names of the channels.
    """
    halo = _halo(network, validator.crops or crops)
    save_checkpoint(
        network,
        files.target,
        normalization=normalization,
        sensor=validator.sensor,
        bands=bands,
        provenance=_provenance(values),
        halo=halo,
        name=values["name"],
    )
    values["halo"] = list(halo)
    with whole_file(files.record) as temporary:
        temporary.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with whole_file(files.curve) as temporary:
        draw_curve(temporary, values["history"], title=values["name"], baselines=_levels(values["scores"]))


def _halo(network: SRNetwork, crops: Sequence[Crop]) -> tuple[int, ...]:
    """The measured halo, on the middle of the largest crop, mirrored where that is too small to try it."""
    spec = network.spec
    if not spec.exact_tiling or spec.receptive_radius is None:
        return spec.halo
    sample = max(crops, key=lambda c: c.high.numel()).high[None]
    for dim, radius in enumerate(spec.receptive_radius, 2):
        n, wanted = sample.shape[dim], 2 * radius + 2
        if n >= wanted:
            sample = sample.narrow(dim, (n - wanted) // 2, wanted)
        else:
            sample = mirror_pad(sample, dim, (wanted - n) // 2, wanted - n - (wanted - n) // 2)
    return measure_halo(network.to("cpu"), [sample])


def summary(
    network: SRNetwork,
    validator: Validator,
    data: Sequence[Mapping[str, Any]],
    settings: Settings,
    outcome: Outcome,
    *,
    name: str,
    device: torch.device,
) -> dict[str, Any]:
    """What ``<name>.train.json`` says, the final scores included."""
    return {
        "name": name,
        "network": {"family": network.family, "arguments": network.arguments},
        "parameters": sum(p.numel() for p in network.parameters()),
        "settings": settings.to_dict(),
        "data": list(data),
        "steps": outcome.step,
        "best_step": outcome.best_step,
        "history": outcome.history,
        "scores": scores_of(network, validator) if validator.crops else {},
        "seconds": round(outcome.seconds, 1),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def scores_of(network: SRNetwork, validator: Validator) -> dict[str, Any]:
    """PSNR and SSIM of the network and the baselines: condition -> raster -> method."""
    measured = validator.sensor is None
    scores: dict[str, Any] = {}
    for condition, how in CONDITIONS.items():
        methods = {"network": validator.score(network, how)}
        methods |= {name: validator.baseline(name, how) for name in (("cubic",) if measured else ("cubic", "ibp"))}
        rasters = methods["network"]
        scores["measured" if measured else condition] = {
            raster: {method: found[raster]._asdict() for method, found in methods.items()} for raster in rasters
        }
        if measured:
            break
    return scores


def _levels(scores: Mapping[str, Any]) -> dict[str, float]:
    """Mean PSNR of each baseline under the first condition."""
    rasters = list(next(iter(scores.values())).values()) if scores else []
    names = [name for name in rasters[0] if name != "network"] if rasters else []
    return {name: sum(r[name]["psnr"] for r in rasters) / len(rasters) for name in names}


def _provenance(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint itself says; no time, so that its bytes repeat."""
    kept = {key: values[key] for key in ("settings", "data", "steps", "best_step", "versions")}
    kept |= {key: values[key] for key in ("teacher", "pruned") if key in values}
    scores: Mapping[str, Any] = next(iter(values["scores"].values()), {})
    kept["scores"] = {
        raster: {method: {k: _rounded(v) for k, v in s.items()} for method, s in methods.items()}
        for raster, methods in scores.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def _rounded(value: float) -> float | None:
    """To four digits; None for what a checkpoint cannot say: the score of a network whose output overflowed."""
    return round(value, 4) if math.isfinite(value) else None


def score_table(scores: Mapping[str, Any]) -> str:
    """PSNR and SSIM per condition, held-out raster and method, as Markdown.

    Of more than a dozen rasters it has the mean, and the rasters of the network's least and greatest PSNR.
    """
    lines: list[str] = []
    for condition, rasters in scores.items():
        for raster, methods in _rows(rasters):
            if not lines:
                lines += [f"| condition | held out | {' | '.join(methods)} |", f"|{'---|' * (2 + len(methods))}"]
            cells = " | ".join(f"{s['psnr']:.2f} / {s['ssim']:.4f}" for s in methods.values())
            lines.append(f"| {condition} | {raster} | {cells} |")
    return "\n".join(lines)


def _rows(rasters: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    if len(rasters) <= _MOST_ROWS:
        return list(rasters.items())
    ordered = sorted(rasters.items(), key=lambda item: float(item[1]["network"]["psnr"]))
    means = {
        method: {key: sum(m[method][key] for m in rasters.values()) / len(rasters) for key in ("psnr", "ssim")}
        for method in ordered[0][1]
    }
    (worst, least), (best, most) = ordered[0], ordered[-1]
    return [(f"mean of {len(rasters)}", means), (f"worst: {worst}", least), (f"best: {best}", most)]

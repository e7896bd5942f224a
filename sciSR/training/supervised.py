"""``train()``: from fine rasters to a checkpoint one can trust."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from sciSR.degradation import Sensor, load_sensor
from sciSR.errors import InputError, OutputExistsError
from sciSR.networks import build_network, load_network
from sciSR.networks.checkpoint import save_checkpoint
from sciSR.networks.receptive import measure_halo
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Augmentation, PairMaker, Reference
from sciSR.training.curve import draw_curve
from sciSR.training.data import Data, as_references, gather, wide_enough
from sciSR.training.loop import DivergedError, Outcome, Progress, Settings, run
from sciSR.training.objective import build_objective
from sciSR.training.validation import CONDITIONS, Validator

__all__ = ["TrainingResult", "build", "score_table", "train"]

log = logging.getLogger(__name__)


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


def train(
    references: Sequence[Raster | Reference] | Raster | Reference,
    output: str | os.PathLike[str],
    *,
    network: SRNetwork | str | Mapping[str, Any],
    validation: Sequence[Raster | Reference] | Raster | Reference = (),
    validation_fraction: float = 0.15,
    normalization: Normalization | Mapping[str, Any] | None = None,
    sensor: Sensor | str | Mapping[str, Any] | None = None,
    bands: Sequence[str] | None = None,
    name: str | None = None,
    patch: int | Mapping[str, int] = 16,
    batch: int = 8,
    steps: int | None = None,
    minutes: float | None = None,
    learning_rate: float = 1e-3,
    warmup: int = 50,
    schedule: str = "cosine",
    final_learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    loss: str | Mapping[str, float] = "l1",
    ema: float = 0.999,
    clip: float | None = 1.0,
    accumulate: int = 1,
    augment: Augmentation | Mapping[str, Any] | None = None,
    precision: str = "float32",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    seed: int = 0,
    deterministic: bool = False,
    validate_every: int = 200,
    validation_patch: int | Mapping[str, int] | None = None,
    validation_count: int = 4,
    data_range: float = 1.0,
    patience: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a network on rasters and write it as a checkpoint, with its record and its training curve beside it.

    Every random draw is a function of (seed, step, sample), so the same call gives the same weights on the same
    machine, resumed or not, and the same validation on many devices.

    Args:
        references: fine rasters to learn from; a :class:`~sciSR.sampling.Reference` says more about one: a measured
            coarse partner, what to hold out, bands, weight.
        output: the checkpoint, ``.safetensors``.
        network: a network; the name or file of weights to start from; or ``{"family": "edsr", "scale": 2, …}``, what
            :func:`~sciSR.networks.build_network` takes (``ndim`` and ``in_channels`` follow from the references).
        validation: other rasters to be judged on. What references hold out is judged on too.
        validation_fraction: part of each reference that is held out where neither names anything.
        normalization: how values become the network's input; None: the weights' own, or percentile.
        sensor: the degradation to undo, a name of ``configs/sensors``, its values, or a Sensor; not for real pairs.
        bands: names of the channels; None: as the first reference names them.
        name: of the weights; None: the output's file name.
        patch: coarse pixels of a training patch, on every axis or by axis name.
        batch: patches per step, over all devices.
        steps: how long to train; reproducible.
        minutes: how long to train, turned into steps once their speed is known; the record holds the steps.
        learning_rate: the highest one.
        warmup: steps over which it rises to that.
        schedule: how it falls afterwards: cosine, step, constant.
        final_learning_rate: what is left of it at the end, as a part.
        weight_decay: of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
        loss: name of a loss, or ``{name: weight}``.
        ema: decay of the moving average of the weights; the average is what is validated and kept.
        clip: longest gradient; None: any.
        accumulate: batches per step.
        augment: what is varied from patch to patch: an Augmentation or its values.
        precision: ``float32``, ``bf16`` or ``fp16`` arithmetic; weights stay float32.
        device: auto, cpu, cuda, mps.
        devices: processes or GPUs per node.
        nodes: machines.
        seed: of everything random.
        deterministic: refuse operations that are not (slower on GPUs).
        validate_every: steps between validations, each of which also writes the state to resume from.
        validation_patch: coarse pixels of a validation crop; None: twice the patch.
        validation_count: crops per held-out raster.
        data_range: of PSNR and SSIM, in normalised units.
        patience: validations without a better one after which to stop; None: never.
        dry_run: overfit the first batch, to see that the network can learn at all.
        resume: go on where an interrupted run of the same settings stopped.
        overwrite: replace the output.
        progress: called with (steps done, steps in all).

    Returns:
        Where everything lies, and the scores.

    Raises:
        InputError: settings or references that do not fit.
        OutputExistsError: the output exists and neither ``overwrite`` nor ``resume`` was given.
        RunError: the loss became NaN; the last good weights are written beside the output.
    """
    from lightning_fabric import Fabric

    target = Path(output)
    label = name or target.name.removesuffix(".safetensors")
    if target.exists() and not (overwrite or resume):
        raise OutputExistsError(f"{target}: exists already; choose another name or allow overwriting (--overwrite)")
    if (steps is None) == (minutes is None) or (steps or minutes or 0) <= 0:
        raise InputError(f"training: steps {steps} and minutes {minutes} came; give one of them, above 0")
    if precision not in _PRECISIONS:
        raise InputError(f"precision: {precision!r} came, expected one of {', '.join(_PRECISIONS)}")
    learned, judged = as_references(references), as_references(validation)
    torch.manual_seed(seed)
    net = build(network, learned)
    axes, scale = net.spec.axes, net.spec.scale
    recipe = _normalization(normalization, net)
    physics = _sensor(sensor, net, learned)
    settings = Settings(
        patch=_per_axis(patch, axes, "patch"),
        batch=batch,
        steps=steps,
        minutes=minutes,
        learning_rate=learning_rate,
        warmup=warmup,
        schedule=schedule,
        final_learning_rate=final_learning_rate,
        weight_decay=weight_decay,
        loss=loss,
        ema=ema,
        clip=clip,
        accumulate=accumulate,
        precision=precision,
        seed=seed,
        validate_every=validate_every,
        patience=patience,
        dry_run=dry_run,
        augment=_augmentation(augment),
    )
    wide_enough(settings.patch, net.spec.minimum)
    objective = build_objective(loss, ndim=len(axes), data_range=data_range)
    fabric = Fabric(
        accelerator={"mps": "mps", "cuda": "cuda", "cpu": "cpu"}.get(device.split(":")[0], "auto"),
        devices=[int(device.split(":")[1])] if ":" in device else devices,
        num_nodes=nodes,
        precision=_PRECISIONS[precision],
    )
    fabric.launch()
    torch.use_deterministic_algorithms(deterministic)
    data = gather(
        learned, judged, normalization=recipe, channels=net.spec.in_channels, scale=scale, fraction=validation_fraction
    )
    maker = PairMaker(
        [crop.to(fabric.device) for crop in data.training],
        patch=settings.patch,
        scale=scale,
        sensor=physics,
        augmentation=settings.augment,
        device=fabric.device,
    )
    wide = tuple(2 * n for n in settings.patch) if validation_patch is None else None
    validator = Validator(
        data.validation,
        patch=wide or _per_axis(validation_patch or 1, axes, "validation_patch"),
        scale=scale,
        sensor=physics,
        count=validation_count,
        data_range=data_range,
        device=fabric.device,
    )
    files = _Files(target, label)
    net = net.to(fabric.device)
    stop: DivergedError | None = None
    try:
        outcome = run(
            fabric,
            net,
            maker,
            objective,
            settings,
            validator=validator if data.validation else None,
            state=files.state,
            resume=resume,
            observe=lambda record: None,
            progress=progress,
        )
    except DivergedError as error:
        stop, outcome = error, error.outcome
    net.load_state_dict(outcome.weights)
    if fabric.global_rank == 0:
        values = _summary(net, validator, data, settings, outcome, label, str(fabric.device))
        halo = _halo(net, validator, maker)
        target_bands = _bands(bands, learned, net.spec.in_channels)
        path = files.diverged if stop else target
        save_checkpoint(
            net, path, normalization=recipe, sensor=physics, bands=target_bands, provenance=_provenance(values),
            halo=halo, name=label,
        )  # fmt: skip
        values["halo"] = list(halo or net.spec.halo)
        files.record.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        draw_curve(files.curve, values["history"], title=label, baselines=values["baselines"])
        if stop is None:
            files.state.unlink(missing_ok=True)
    fabric.barrier()
    if stop is not None:
        raise stop
    return TrainingResult(target, files.record, files.curve, json.loads(files.record.read_text(encoding="utf-8")))


_PRECISIONS: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class _Files:
    """Where the things beside the output lie."""

    target: Path
    label: str

    def _beside(self, ending: str) -> Path:
        return self.target.with_name(self.target.name.removesuffix(".safetensors") + ending)

    @property
    def record(self) -> Path:
        return self._beside(".train.json")

    @property
    def curve(self) -> Path:
        return self._beside(".train.png")

    @property
    def state(self) -> Path:
        return self._beside(".state.pt")

    @property
    def diverged(self) -> Path:
        return self._beside(".last_good.safetensors")


def build(network: SRNetwork | str | Mapping[str, Any], references: Sequence[Reference]) -> SRNetwork:
    """The network that a setting means."""
    if isinstance(network, SRNetwork):
        return network
    if isinstance(network, str):
        return load_network(network)
    arguments = dict(network)
    if "family" not in arguments:
        raise InputError(f"network: {dict(network)} names no family; write family: edsr, or the name of weights")
    if not references:
        raise InputError("training: no reference came; name at least one fine raster")
    first = references[0]
    arguments.setdefault("ndim", len(first.raster.grid.shape))
    arguments.setdefault("in_channels", len(first.bands or first.raster.channels))
    return build_network(arguments.pop("family"), **arguments)


def _normalization(given: Normalization | Mapping[str, Any] | None, network: SRNetwork) -> Normalization:
    if isinstance(given, Normalization):
        return given
    if given is not None:
        return Normalization.from_dict(dict(given))
    if network.card is not None and network.card.normalization is not None:
        return network.card.normalization
    return Normalization("percentile")


def _sensor(
    given: Sensor | str | Mapping[str, Any] | None, network: SRNetwork, references: Sequence[Reference]
) -> Sensor | None:
    measured = bool(references) and all(r.low is not None for r in references)
    if measured:
        return None
    if given is None and network.card is not None:
        given = network.card.sensor
    if given is None:
        raise InputError("training: no sensor came; name the degradation to undo (sensor: mri), or give real pairs")
    first = references[0]
    names = [channel.name for channel in first.raster.channels]
    names = names if first.bands is None else [names[b] for b in first.bands]
    coarse = first.raster.grid.coarsen(dict(zip(network.spec.axes, map(float, network.spec.scale), strict=True)))
    return load_sensor(given).for_channels(names).at(coarse.spacing)


def _augmentation(given: Augmentation | Mapping[str, Any] | None) -> Augmentation:
    if isinstance(given, Augmentation):
        return given
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in dict(given or {}).items()}
    unknown = sorted(set(values) - {f.name for f in fields(Augmentation)})
    if unknown:
        known = ", ".join(f.name for f in fields(Augmentation))
        raise InputError(f"augment: no setting {', '.join(unknown)}; there are {known}")
    return Augmentation(**values)


def _per_axis(value: int | Mapping[str, int], axes: Sequence[str], what: str) -> tuple[int, ...]:
    named = dict(value) if isinstance(value, Mapping) else dict.fromkeys(axes, value)
    if set(named) != set(axes) or any(n < 1 for n in named.values()):
        raise InputError(f"{what}: {value} came; give a whole number above 0, or one for each of {', '.join(axes)}")
    return tuple(int(named[axis]) for axis in axes)


def _bands(given: Sequence[str] | None, references: Sequence[Reference], channels: int) -> list[str] | None:
    if given is not None:
        if len(given) != channels:
            raise InputError(f"bands: {len(given)} names came for a network of {channels} channels")
        return list(given)
    first = references[0]
    names = [channel.name for channel in first.raster.channels]
    names = names if first.bands is None else [names[b] for b in first.bands]
    return [str(n) for n in names] if len(names) == channels and all(names) else None


def _halo(network: SRNetwork, validator: Validator, maker: PairMaker) -> tuple[int, ...]:
    """The measured halo, on the best coarse crop there is."""
    spec = network.spec
    if not spec.exact_tiling or spec.receptive_radius is None:
        return spec.halo
    crops = validator.crops or maker.sampler.crops
    crop = max(crops, key=lambda c: c.high.numel())
    wanted = tuple(2 * r + 2 for r in spec.receptive_radius)
    probe = Validator([crop.to(torch.device("cpu"))], patch=wanted, scale=spec.scale, sensor=validator.sensor, count=1)
    return measure_halo(network.to("cpu"), [probe.samples()[0].low])


def _summary(
    network: SRNetwork,
    validator: Validator,
    data: Data,
    settings: Settings,
    outcome: Outcome,
    label: str,
    device: str,
) -> dict[str, Any]:
    """What ``<name>.train.json`` says."""
    conditions = CONDITIONS if validator.sensor is not None else {"measured": CONDITIONS["matched"]}
    scores: dict[str, Any] = {}
    for condition, how in conditions.items() if data.validation else ():
        methods = {"network": validator.score(network, how)}
        methods |= {method: validator.baseline(method, how) for method in _baselines(validator)}
        scores[condition] = {
            raster: {method: found[raster]._asdict() for method, found in methods.items()}
            for raster in methods["network"]
        }
    first = scores[next(iter(scores))] if scores else {}
    levels = {
        method: sum(r[method]["psnr"] for r in first.values()) / len(first) for method in _baselines(validator) if first
    }
    return {
        "name": label,
        "network": {"family": network.family, "arguments": network.arguments},
        "parameters": sum(p.numel() for p in network.parameters()),
        "settings": settings.to_dict(),
        "data": data.record,
        "steps": outcome.step,
        "best_step": outcome.best_step,
        "history": outcome.history,
        "scores": scores,
        "baselines": levels,
        "seconds": round(outcome.seconds, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def _baselines(validator: Validator) -> tuple[str, ...]:
    return ("cubic", "ibp") if validator.sensor is not None else ("cubic",)


def _provenance(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint itself says; no time, so that its bytes repeat."""
    kept = {key: values[key] for key in ("settings", "data", "steps", "best_step", "versions")}
    scores = values["scores"].get("matched", {})
    kept["scores"] = {
        raster: {method: {k: round(v, 4) for k, v in s.items()} for method, s in methods.items()}
        for raster, methods in scores.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def score_table(scores: Mapping[str, Any]) -> str:
    """PSNR and SSIM per condition, held-out raster and method, as Markdown."""
    lines: list[str] = []
    for condition, rasters in scores.items():
        for raster, methods in rasters.items():
            if not lines:
                lines += [f"| condition | held out | {' | '.join(methods)} |", f"|{'---|' * (2 + len(methods))}"]
            cells = " | ".join(f"{s['psnr']:.2f} / {s['ssim']:.4f}" for s in methods.values())
            lines.append(f"| {condition} | {raster} | {cells} |")
    return "\n".join(lines)

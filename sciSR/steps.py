"""The steps of a workflow on one input: each reads its section and calls the function that does it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sciSR.backends import frozen
from sciSR.classical import CLASSICAL
from sciSR.config import ConsistencySection, DegradeSection, EvaluateSection, InputSection, UpscaleSection, Workflow
from sciSR.consistency import enforce, residual
from sciSR.console import Progress
from sciSR.degradation import Sensor, degrade, load_sensor
from sciSR.derived import RecordedSource
from sciSR.errors import InputError
from sciSR.evaluation import ScoreTable, WaldResult, evaluate, wald
from sciSR.finishing import finish
from sciSR.inference import holds_classes, upscale
from sciSR.io import open_raster
from sciSR.networks import load_network
from sciSR.networks.spec import SRNetwork, model_name
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.tiling import central

__all__ = [
    "Model",
    "coarsened",
    "consistency_facts",
    "consistent",
    "engine_facts",
    "evaluated",
    "finished",
    "known_sensor",
    "load_model",
    "open_input",
    "refined",
    "resolved",
]

Model = SRNetwork | str
"""A network, or the name of a classical method, which is built for each raster."""

_RESIDUAL_VALUES = 2**22
"""Low-resolution values on which the consistency of a result is measured: some seconds at most."""


def open_input(section: InputSection, sources: Sequence[str]) -> Raster:
    """The lazy raster of one input, joined of several files if there are several."""
    if len(sources) == 1:
        return open_raster(sources[0], **section.options)
    from sciSR.io.geotiff import open_mosaic

    return open_mosaic(sources, **section.options)


def load_model(name: str) -> Model:
    """The network of shipped weights or of a file, frozen; a classical method stays its name."""
    return name if name in CLASSICAL and not os.path.exists(name) else frozen(load_network(name))


def refined(raster: Raster, model: Model, section: UpscaleSection, **changes: Any) -> Raster:
    """The lazy result of the upscale step; ``changes`` replace arguments of :func:`sciSR.upscale`.

    A label map is refined as classes onto the grid that the model would give: by nearest neighbour, or, where the model
    is ``linear``, by the greatest interpolated share.

    Raises:
        InputError: model and raster do not fit, or it looks like a label map and nobody said what it is.
    """
    arguments: dict[str, Any] = {
        "scale": section.scale,
        "target_spacing": section.target_spacing,
        "sensor": None if section.sensor is None else load_sensor(section.sensor),
        **_engine(section),
    }
    return upscale(raster, model, **{**arguments, **changes})


def consistent(raster: Raster, result: Raster, model: Model, workflow: Workflow) -> Raster:
    """The lazy result after the consistency step; the same where there is none.

    Raises:
        InputError: no sensor is known.
    """
    section = workflow.consistency
    if section is None:
        return result
    sensor = known_sensor(model, section, workflow.upscale)
    if sensor is None:
        raise InputError("consistency.sensor is missing: the model does not state the sensor it is for; name one")
    enforced = enforce(result, raster, sensor, iterations=section.iterations, exact=section.exact, floor=section.floor)
    facts = {**engine_facts(result), "consistency": {"iterations": section.iterations, "sensor": sensor.to_dict()}}
    return enforced.replace(source=RecordedSource(enforced.source, facts))


def finished(result: Raster, workflow: Workflow) -> Raster:
    """The lazy result after the finish step; the same where there is none, or where it holds classes."""
    section = workflow.finish
    if section is None or holds_classes(result):
        return result
    made = finish(result, denoise=section.denoise, sharpen=section.sharpen, width=section.width)
    facts = {**engine_facts(result), "finish": section.model_dump()}
    return made.replace(source=RecordedSource(made.source, facts))


def coarsened(raster: Raster, section: DegradeSection) -> Raster:
    """The lazy result of the degrade step."""
    if section.scale is None:
        raise InputError("degrade.scale is missing; give a factor such as 2, or by name such as {z: 4}")
    return degrade(
        raster,
        section.scale,
        sensor=load_sensor(section.sensor),
        seed=section.seed,
        noise=section.noise,
        data_range=section.data_range,
    )


def evaluated(
    workflow: Workflow, raster: Raster, result: Raster, model: Model, progress: Progress
) -> tuple[ScoreTable, WaldResult | None]:
    """The score table of the evaluate step, and for Wald's protocol what it was made from."""
    section, settings = workflow.evaluate, workflow.upscale
    if section is None or settings is None:
        raise InputError("evaluate: the workflow has no evaluate or no upscale section")
    mask = None if section.mask is None else open_raster(section.mask)
    if section.protocol == "reference":
        table = evaluate(
            {model_name(model): result},
            reference=open_raster(str(section.reference)),
            low=raster,
            sensor=known_sensor(model, section, settings),
            baselines=section.baselines,
            data_range=section.data_range,
            mask=mask,
            progress=progress,
        )
        return table, None
    judged = wald(
        raster,
        model,
        sensor=known_sensor(model, section, settings),
        scale=section.scale or (result.grid.factors(raster.grid) if isinstance(model, str) else None),
        baselines=section.baselines,
        crop=section.crop,
        seed=section.seed,
        data_range=section.data_range,
        mask=mask,
        progress=progress,
        **_engine(settings),
    )
    return judged.table, judged


def consistency_facts(raster: Raster, result: Raster, sensor: Sensor | None) -> dict[str, Any] | None:
    """How far the result, degraded again, is from the input; on the centre of a large one, so that it costs little.

    None where no sensor is known, the result is coarser than the input anywhere or holds classes, or a large raster has
    a factor that is not whole.
    """
    coarser = any(new < old for new, old in zip(result.grid.shape, raster.grid.shape, strict=True))
    if sensor is None or coarser or holds_classes(raster):
        return None
    window = _central(raster)
    factors = result.grid.factors(raster.grid)
    if window and any(abs(f - round(f)) > 1e-9 for f in factors.values()):
        return None
    fine = {
        axis: slice(part.start * round(factors.get(axis, 1)), part.stop * round(factors.get(axis, 1)))
        for axis, part in window.items()
    }
    low, high = raster.crop(**window), result.crop(**fine)
    told = {axis: [part.start, part.stop] for axis, part in window.items()} or "all of the input"
    return {**residual(high, low, sensor).to_dict(), "unit": raster.unit, "on": told}


def known_sensor(
    model: Model, section: EvaluateSection | ConsistencySection | None, settings: UpscaleSection | None
) -> Sensor | None:
    """The sensor that the step names, else that of the upscaling, else the checkpoint's own."""
    for given in (section, settings):
        if given is not None and given.sensor is not None:
            return load_sensor(given.sensor)
    card = model.card if isinstance(model, SRNetwork) else None
    return None if card is None else card.sensor


def engine_facts(result: Raster) -> dict[str, Any]:
    """What the source of a lazy result tells about how it is computed."""
    record = getattr(result.source, "record", None)
    return {} if record is None else dict(record())


def resolved(
    workflow: Workflow, sources: Sequence[str], output: str, engine: Mapping[str, Any], model: str | None
) -> Workflow:
    """The workflow of one input, every choice that was left open written out, so that it does the same again."""
    changes: dict[str, Any] = {
        "input": workflow.input and workflow.input.model_copy(update={"path": tuple(sources)}),
        "output": workflow.output.model_copy(update={"path": output, "suffix": None}),
        "train": None,
    }
    if workflow.upscale is not None:
        chosen: dict[str, Any] = {"network": model, "sensor": _plain_sensor(workflow.upscale.sensor)}
        chosen |= {
            k: engine[k]
            for k in ("device", "precision", "backend")
            if getattr(workflow.upscale, k) == "auto" and k in engine
        }
        if workflow.upscale.tile == "auto" and engine.get("executor") == "tiles":
            axes = ("z", "y", "x")[-len(engine["plan"]["tile"]) :]
            chosen["tile"] = dict(zip(axes, engine["plan"]["tile"], strict=True))
        changes["upscale"] = workflow.upscale.model_copy(update=chosen)
    for name in ("consistency", "degrade", "evaluate"):
        section = getattr(workflow, name)
        if section is not None:
            changes[name] = section.model_copy(update={"sensor": _plain_sensor(section.sensor)})
    return workflow.model_copy(update=changes)


def _plain_sensor(sensor: str | dict[str, Any] | None) -> dict[str, Any] | None:
    return None if sensor is None else load_sensor(sensor).to_dict()


def _engine(section: UpscaleSection) -> dict[str, Any]:
    """The arguments of :func:`sciSR.upscale` that say how, not what."""
    recipe = section.normalization
    return {
        "device": section.device,
        "tile": section.tile,
        "precision": section.precision,
        "backend": section.backend,
        "exact": section.exact,
        "normalization": None if recipe is None else Normalization(**recipe.model_dump()),
        "workers": section.workers,
    }


def _central(raster: Raster) -> dict[str, slice]:
    """The central part of a large raster, by axis; nothing for one that is small enough."""
    count = math.prod(raster.shape)
    if count <= _RESIDUAL_VALUES:
        return {}
    window = {}
    if "t" in raster.axes:
        window["t"] = central(raster.times, 1)
        count //= raster.times
    shrink = max(1.0, (count / _RESIDUAL_VALUES) ** (1 / len(raster.grid.shape)))
    for axis, n in zip(raster.grid.axes, raster.grid.shape, strict=True):
        window[axis] = central(n, max(1, int(n / shrink)))
    return window

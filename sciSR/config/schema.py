"""The workflow as closed, frozen models: every key that a workflow may have, its kind and its default.

The keys of a step are the keyword arguments of the function that does it (:func:`sciSR.upscale`, :func:`sciSR.train`,
:func:`sciSR.evaluate`, …), so that a workflow and a notebook read alike.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from sciSR.config.values import Factors, Paths, Spacing, TileSize

__all__ = [
    "DegradeSection",
    "EvaluateSection",
    "InputSection",
    "OutputSection",
    "ReportSection",
    "Section",
    "TrainSection",
    "UpscaleSection",
    "Workflow",
]

Precision = Literal["auto", "float32", "bf16", "fp16", "int8"]


class Section(BaseModel):
    """A part of a workflow: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class InputSection(Section):
    """What is read. A text or a list of texts alone is the path."""

    path: Paths
    """File, address, pattern (``scans/*.nii.gz``) or list of these; relative to the current directory."""
    labels: bool | None = None
    """True: a label map, upsampled by nearest neighbour. False: an image, whatever it looks like. null: find out."""
    offset: float | None = None
    """Radiometric offset in stored units that the file does not state (Sentinel-2 baseline 04.00: -1000)."""


class OutputSection(Section):
    """Where the result goes, and how it is stored. A text alone is the path."""

    path: str = "out"
    """A folder, or one file if there is one input; relative to the current directory."""
    suffix: str | None = None
    """Ending of the result's name (``.nii.gz``, ``.tif``), for another format than the input's."""
    cog: bool | None = None
    """Write a GeoTIFF as a cloud-optimised one."""


class UpscaleSection(Section):
    """From a raster to the same field of view with finer pixels: :func:`sciSR.upscale`."""

    network: str | None = None
    """Name of shipped weights, a file of weights, or a classical method; null: what the train step made."""
    scale: Factors = None
    """Factor on every spatial axis, or by name (``{z: 4}``); null: the network's own."""
    target_spacing: Spacing = None
    """Pixel size to reach, in world units, on every axis or by name; ``isotropic``: the finest axis's on all."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, …"""
    tile: TileSize = "auto"
    """Pixels of a tile along each axis, ``auto``, or null for the whole image at once."""
    batch: int | None = None
    """Tiles that go through the network together; null: chosen with the tile."""
    precision: Precision = "auto"
    """Number type of the network's arithmetic."""
    exact: bool = False
    """Read the whole receptive field around each tile instead of the measured halo."""
    normalization: dict[str, Any] | None = None
    """Intensity map to use instead of the checkpoint's own: a file of ``configs/normalizations`` or its keys."""
    sensor: str | dict[str, Any] | None = None
    """Sensor to use instead of the checkpoint's own, for methods that need one: a name, a file, or its keys."""

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if self.scale is not None and self.target_spacing is not None:
            raise ValueError("scale and target_spacing both came; give the one that is meant")
        return self


class DegradeSection(Section):
    """From a raster to what a coarser sensor would have seen: :func:`sciSR.degrade`."""

    scale: Factors
    """How many times coarser on every spatial axis, or by name (``{z: 4}``)."""
    sensor: str | dict[str, Any]
    """Name of a file of ``configs/sensors``, a file, or its keys."""
    seed: int = 0
    """Seed of the noise."""


class EvaluateSection(Section):
    """How far to trust the result."""

    protocol: Literal["wald", "reference"] = "wald"
    """``wald``: degrade the input, upscale that, compare with the input. ``reference``: compare with a finer raster."""
    reference: str | None = None
    """The finer raster, for the protocol ``reference``."""
    sensor: str | dict[str, Any] | None = None
    """Sensor that degrades; null: the one stated in the checkpoint."""
    baselines: tuple[str, ...] = ("cubic", "ibp")
    """Classical methods to compare with."""
    data_range: float | None = None
    """Length of the value range that PSNR and SSIM refer to; null: as the evaluation says."""
    mask: str | None = None
    """Raster that is not 0 where the comparison counts."""
    crop: int | None = None
    """Evaluate on the central part of at most this many pixels along each axis; null: on all of it."""

    @model_validator(mode="after")
    def _reference_named(self) -> Self:
        if self.protocol == "reference" and self.reference is None:
            raise ValueError("protocol reference needs the key reference: the finer raster to compare with")
        if self.protocol == "wald" and self.reference is not None:
            raise ValueError("protocol wald takes no reference; write protocol: reference to compare with it")
        return self


class ReportSection(Section):
    """What is drawn beside the result."""

    picture: bool = True
    """Draw ``<name>.png``: input, cubic, result, and for the degraded copy truth and error."""
    html: bool = False
    """Write ``<name>.html``, the report in one file."""


class TrainSection(Section):
    """From scans or scenes to a checkpoint: :func:`sciSR.train`."""

    output: str


class Workflow(Section):
    """A run: input -> train -> upscale (or degrade) -> evaluate -> report; steps that are not named are not done."""

    input: InputSection | None = None
    """What is read."""
    train: TrainSection | None = None
    """Make a network first."""
    upscale: UpscaleSection | None = None
    """Refine the input."""
    degrade: DegradeSection | None = None
    """Coarsen the input."""
    evaluate: EvaluateSection | None = None
    """Say how far to trust the result."""
    report: ReportSection | None = None
    """Draw pictures."""
    output: OutputSection = OutputSection()
    """Where results go."""
    seed: int = 0
    """Seed of whatever is drawn at random."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.upscale is not None and self.degrade is not None:
            raise ValueError("upscale and degrade are two runs; to judge an upscaling use evaluate: {protocol: wald}")
        if self.train is None and self.upscale is None and self.degrade is None:
            raise ValueError("no step to do; expected a section train, upscale or degrade")
        if (self.upscale is not None or self.degrade is not None) and self.input is None:
            raise ValueError("the key input is missing; name a file, a pattern or a list (--set input=FILE)")
        if self.upscale is not None and self.upscale.network is None and self.train is None:
            raise ValueError("upscale.network is missing; name shipped weights, a file or a classical method")
        if self.upscale is None and (self.evaluate is not None or self.report is not None):
            raise ValueError("evaluate and report need an upscale step")
        return self

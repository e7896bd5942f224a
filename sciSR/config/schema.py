"""The sections of a workflow as closed, frozen models: every key, its kind and its default.

The keys of a step are the keyword arguments of the function that does it (:func:`sciSR.upscale`, :func:`sciSR.train`,
:func:`sciSR.evaluate`, …), so that a workflow and a notebook read alike.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sciSR.config.values import Factors, Paths, Pixels, Spacing

__all__ = [
    "ConsistencySection",
    "DegradeSection",
    "EvaluateSection",
    "FinishSection",
    "InputSection",
    "NormalizationSection",
    "OutputSection",
    "ReportSection",
    "Section",
    "UpscaleSection",
]

Precision = Literal["auto", "float32", "bf16", "fp16", "int8"]


class Section(BaseModel):
    """A part of a workflow: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class NormalizationSection(Section):
    """How physical values become a network's: :class:`sciSR.normalization.Normalization`."""

    kind: Literal["identity", "fixed", "percentile"] = "identity"
    """``fixed``: (value - center) / scale. ``percentile``: center and scale from two percentiles of the raster."""
    center: tuple[float, ...] = (0.0,)
    """Value that becomes 0, for all channels or per channel."""
    scale: tuple[float, ...] = (1.0,)
    """Length that becomes 1, for all channels or per channel."""
    low: float = 0.5
    """Percentile that becomes 0."""
    high: float = 99.5
    """Percentile that becomes 1."""
    per_channel: bool = False
    """Fit each channel by itself."""
    nonnegative: bool | Literal["auto"] = False
    """Results are not below 0; ``auto``: not if the input nowhere is."""


class InputSection(Section):
    """What is read. A text or a list of texts alone is the path."""

    path: Paths
    """File, address, pattern (``scans/*.nii.gz``) or list of these; relative to the current directory."""
    join: bool = False
    """All paths are one scene: files on one grid are its bands, files beside each other its tiles."""
    series: int | str | None = None
    """Which series of a DICOM folder that holds several: its number or its UID."""
    labels: bool | None = None
    """True: a label map, refined by nearest neighbour. False: an image, whatever it looks like. null: find out."""
    spacing: Factors = None
    """Voxel size in mm to believe instead of the header's, for volumes."""
    nodata: float | None = None
    """Value that means no value though the file does not say so."""
    offset: float | None = None
    """Radiometric offset in stored units that the file does not state (Sentinel-2 baseline 04.00: -1000)."""
    unit: str | None = None
    """Unit of the values where the file does not state it, such as ``HU`` for a CT in NIfTI."""

    @property
    def options(self) -> dict[str, Any]:
        """What is passed on to :func:`sciSR.open_raster`."""
        return {k: v for k, v in self.model_dump(exclude={"path", "join"}).items() if v is not None}


class OutputSection(Section):
    """Where the result goes, and how it is stored. A text alone is the path."""

    path: str = "out"
    """A folder, or one file if there is one input; relative to the current directory."""
    suffix: str | None = None
    """Ending of the results' names (``.nii.gz``, ``.tif``), for another format than the input's."""
    dtype: Literal["uint8", "int16", "uint16", "int32", "float32", "float64"] | None = None
    """Number type of the stored values; null: as the input."""
    version: Literal[1, 2] | None = None
    """NIfTI version; null: as the input, 2 where it must be."""
    cog: bool | None = None
    """Write a GeoTIFF as a cloud-optimised one."""
    compress: Literal["deflate", "zstd", "lzw", "none"] | None = None
    """Compression of a GeoTIFF; null: as the input, or deflate."""
    overviews: bool | None = None
    """Smaller copies inside a GeoTIFF; null: as the input."""

    @property
    def options(self) -> dict[str, Any]:
        """What is passed on to :func:`sciSR.save_raster`."""
        return {k: v for k, v in self.model_dump(exclude={"path", "suffix"}).items() if v is not None}


class UpscaleSection(Section):
    """From a raster to the same field of view with finer pixels: :func:`sciSR.upscale`."""

    network: str | None = None
    """Name of shipped weights, a file of weights, or a classical method; null: what the train step made."""
    scale: Factors = None
    """Factor on every spatial axis, but not across a single slice, or by name (``{z: 4}``); null: the network's own."""
    target_spacing: Spacing = None
    """Pixel size to reach, in world units, on every axis or by name; ``isotropic``: the finest axis's on all."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, …"""
    tile: Pixels = "auto"
    """Pixels of a tile along each axis or by name, ``auto``, or null for the whole image at once."""
    precision: Precision = "auto"
    """Number type of the network's residual."""
    backend: Literal["auto", "torch", "compile", "openvino"] = "auto"
    """What runs the network; ``compile``: torch.compile; ``auto``: OpenVINO for int8, else torch and own code."""
    exact: bool = False
    """Read the whole receptive field around each tile instead of the measured halo."""
    normalization: NormalizationSection | None = None
    """Intensity map instead of the checkpoint's own: a file of ``configs/normalizations``, or its keys."""
    sensor: str | dict[str, Any] | None = None
    """Sensor for the methods that assume one: a name, a file, or its keys; null: the checkpoint's own."""
    workers: int | None = Field(default=None, ge=1)
    """Tiles, or strips up to two, worked on at once; null: one per core."""

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if self.scale is not None and self.target_spacing is not None:
            raise ValueError("scale and target_spacing both came; give the one that is meant")
        return self


class ConsistencySection(Section):
    """Make the result explain its input: :func:`sciSR.consistency.enforce`."""

    sensor: str | dict[str, Any] | None = None
    """What the input was seen with: a name, a file, or its keys; null: the checkpoint's own."""
    iterations: int = Field(default=10, ge=0)
    """Back-projections; few where the input is noisy, for they put its noise into the result."""
    exact: bool = False
    """Read all that can matter around each tile."""
    floor: float | None = None
    """Least value of the result (0 for magnitude images), or null."""


class FinishSection(Section):
    """A last touch on the result: :func:`sciSR.finishing.finish`. Wald's protocol judges the network without it."""

    denoise: float | None = Field(default=None, gt=0)
    """Standard deviation of the noise to smooth away, in the values' unit; edges stay. null: none."""
    sharpen: float | None = Field(default=None, gt=0)
    """How much of the detail to add: 0.5 makes half as much again. null: none."""
    width: float = Field(default=2.0, gt=0)
    """What counts as detail: narrower than so many pixels of the result."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.denoise is None and self.sharpen is None:
            raise ValueError("give denoise or sharpen, or leave the step away")
        return self


class DegradeSection(Section):
    """From a raster to what a coarser sensor would have seen: :func:`sciSR.degrade`."""

    scale: Factors
    """How many times coarser on every spatial axis, or by name (``{z: 4}``)."""
    sensor: str | dict[str, Any]
    """Name of a file of ``configs/sensors``, a file, or its keys."""
    seed: int = 0
    """Seed of the noise."""
    noise: bool = True
    """Whether to add the sensor's noise."""
    data_range: float | None = Field(default=None, gt=0)
    """Length of the value range that the noise is a fraction of; null: from the raster's percentiles."""


class EvaluateSection(Section):
    """How far to trust the result: :func:`sciSR.evaluation.wald` or :func:`sciSR.evaluate`."""

    protocol: Literal["wald", "reference"] = "wald"
    """``wald``: degrade the input, refine that, compare with the input. ``reference``: compare with a finer raster."""
    reference: str | None = None
    """The finer raster, for the protocol ``reference``."""
    sensor: str | dict[str, Any] | None = None
    """Sensor that degrades; null: the one stated in the checkpoint."""
    scale: Factors = None
    """Factor to degrade by, for the protocol ``wald``; null: the network's own."""
    baselines: tuple[str, ...] = ("cubic", "ibp")
    """Classical methods to compare with."""
    data_range: float | None = Field(default=None, gt=0)
    """Length of the value range of PSNR and SSIM; null: percentiles 0.1 to 99.9 of what is compared with."""
    mask: str | None = None
    """Raster that is not 0 where the comparison counts."""
    crop: Pixels = "auto"
    """Wald's protocol on the central part of so many pixels along each axis; ``auto``: if it is large; null: never."""
    seed: int = 0
    """Seed of the sensor's noise."""

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

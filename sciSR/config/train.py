"""The train section: the keyword arguments of :func:`sciSR.train`, with files where that takes rasters."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sciSR.config.schema import NormalizationSection, Section
from sciSR.config.values import AxisName, Paths, Pixels

__all__ = ["AugmentSection", "GameSection", "ReferenceSection", "SearchSection", "TrainSection"]

_Range = tuple[float, float]


class ReferenceSection(Section):
    """One raster to learn from, or several of one kind: :class:`sciSR.sampling.Reference`."""

    path: Paths
    """Fine raster: file, address, pattern, folder (its DICOM series, or all its files) or list of these."""
    low: Paths | None = None
    """Its measured coarse counterpart, for real pairs, or as many as there are fine ones, in their order; null: the
    fine one is degraded."""
    align: bool = False
    """Move the coarse counterpart by the displacement that is measured between the two."""
    coarsen: dict[AxisName, float] = Field(default_factory=dict)
    """Factor per axis by which the raster is made coarser first."""
    bands: tuple[int, ...] | None = None
    """Numbers of the channels to take, from 0; null: all."""
    weight: float = Field(default=1.0, gt=0)
    """How often it is drawn, relative to the others."""
    held_out: dict[AxisName, tuple[int, int]] | None = None
    """Pixel range per axis that is kept for validation."""
    mask: Paths | None = None
    """Draw patches where this file of the same field of view is above 0; or as many files as there are fine ones."""
    nodata: float | None = None
    """Value that means no value though the file does not say so."""
    labels: bool | None = None
    """False: an image, whatever it looks like."""

    @property
    def options(self) -> dict[str, Any]:
        """What is passed on to :func:`sciSR.open_raster`."""
        return {k: v for k, v in self.model_dump(include={"nodata", "labels"}).items() if v is not None}


class AugmentSection(Section):
    """What is varied at random from patch to patch: :class:`sciSR.sampling.Augmentation`."""

    flip: bool = True
    """Mirror each axis or not."""
    swap: bool = True
    """Exchange axes whose pixels are of about the same size."""
    gain: _Range = (1.0, 1.0)
    """Least and greatest factor on all values."""
    gamma: _Range = (1.0, 1.0)
    """Least and greatest exponent on the size of each value."""
    invert: float = Field(default=0.0, ge=0, le=1)
    """Share of the patches in which dark and bright are exchanged."""
    width: _Range = (1.0, 1.0)
    """Least and greatest factor on the sensor's widths."""
    noise: _Range = (0.0, 0.0)
    """Least and greatest standard deviation of the noise of the coarse patch, in normalised units."""


class GameSection(Section):
    """Adversarial training: :class:`sciSR.training.Game`."""

    kind: Literal["vanilla", "least_squares", "wgan_gp", "relativistic"] = "relativistic"
    """The game."""
    weight: float = Field(default=5e-3, gt=0)
    """Of the adversarial term beside the loss."""
    discriminator: Literal["patch", "vgg"] = "patch"
    """What judges."""
    features: int = Field(default=32, ge=1)
    """Channels of the discriminator's first layer."""
    layers: int | None = Field(default=None, ge=1)
    """Of the discriminator; null: its own default."""
    learning_rate: float = Field(default=1.0, gt=0)
    """The discriminator's, as a part of the network's."""
    force: bool = False
    """Start although the network was never trained without a game."""


class SearchSection(Section):
    """Width and depth under a budget of operations: :class:`sciSR.training.Search`."""

    features: tuple[int, int] = (8, 64)
    """Least and greatest width."""
    blocks: tuple[int, int] = (1, 16)
    """Least and greatest depth."""
    gflop: float = Field(default=100.0, gt=0)
    """Most operations per million output pixels, in 10^9."""
    trials: int = Field(default=12, ge=1)
    """Networks to train."""
    steps: int = Field(default=200, ge=1)
    """Of each trial."""


class TrainSection(Section):
    """From scans or scenes to a checkpoint: :func:`sciSR.train`."""

    references: tuple[ReferenceSection, ...] = ()
    """What to learn from; for ``mode: self`` left away: the workflow's input."""
    output: str
    """The checkpoint, ``.safetensors``."""
    network: str | dict[str, Any]
    """Weights to start from, by name or file; or a new network: its ``family`` and that family's arguments."""
    mode: Literal["supervised", "self"] = "supervised"
    """``self``: learn from one scan with thick slices alone: what its plane shows, across its slices."""
    validation: tuple[ReferenceSection, ...] = ()
    """Other rasters to be judged on."""
    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    """Part that is held out where nothing is named: of 8 references or more whole ones, of fewer each one's far end."""
    normalization: NormalizationSection | None = None
    """Intensity map: a file of ``configs/normalizations``, or its keys; null: weights' or teacher's, or percentile."""
    sensor: str | dict[str, Any] | None = None
    """The degradation to undo: a name, a file, or its keys; null: that of the weights, or real pairs."""
    bands: tuple[str, ...] | None = None
    """Names of the channels; null: as the first reference names them."""
    name: str | None = None
    """Short name of the weights; null: the output's file name."""
    patch: Pixels = 16
    """Coarse pixels of a training patch, on every axis or by name."""
    batch: int = Field(default=8, ge=1)
    """Patches per step, over all devices."""
    steps: int | None = Field(default=None, ge=1)
    """How long to train; reproducible."""
    minutes: float | None = Field(default=None, gt=0)
    """How long to train, turned into steps once their speed is known."""
    rounds: int = Field(default=2, ge=1)
    """For ``mode: self``: how often the estimate of the fine volume is renewed; each round takes ``steps``."""
    slice_width: float | Literal["header", "spectrum"] = "header"
    """For ``mode: self``: thickness of a slice as a part of the spacing; ``header``: the sidecar's, or one spacing."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = 1e-3
    """The highest one; ``auto``: found by a test over rising ones."""
    warmup: int = Field(default=50, ge=0)
    """Steps over which it rises to that."""
    schedule: str = "cosine"
    """How it falls afterwards: cosine, step, constant."""
    final_learning_rate: float = Field(default=0.01, ge=0, le=1)
    """What is left of it at the end, as a part."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    loss: str | dict[str, float | dict[str, Any]] = "l1"
    """Name of a loss, ``{name: weight}``, or ``{name: {weight: …, option: …}}``."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the moving average of the weights, which is what is kept."""
    clip: float | None = Field(default=1.0, gt=0)
    """Longest gradient; null: any."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per step."""
    augment: AugmentSection | None = None
    """What is varied from patch to patch."""
    adversarial: GameSection | None = None
    """A game against a discriminator, for a network that is trained already."""
    teacher: str | None = None
    """Name or file of a larger network whose output is a second target."""
    teacher_weight: float = Field(default=0.7, gt=0, le=1)
    """Share of that target."""
    prune: float | None = Field(default=None, gt=0, lt=1)
    """Share of the weights to set to zero, the smallest, while the others adapt."""
    search: SearchSection | None = None
    """Find width and depth of the network first."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Arithmetic; ``fp16`` needs a CUDA device; weights stay float32."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``mps``."""
    devices: int = Field(default=1, ge=1)
    """Processes or GPUs per node."""
    nodes: int = Field(default=1, ge=1)
    """Machines."""
    cache_gb: float | None = Field(default=None, gt=0)
    """Memory for all copies of decoded references, in 10^9 bytes; more is read part by part. null: all are held."""
    seed: int = 0
    """Of everything random."""
    deterministic: bool = False
    """Refuse operations that are not."""
    validate_every: int = Field(default=200, ge=1)
    """Steps between validations."""
    validation_patch: Pixels = None
    """Coarse pixels of a validation crop; null: twice the patch."""
    validation_count: int = Field(default=4, ge=1)
    """Crops per held-out raster."""
    data_range: float = Field(default=1.0, gt=0)
    """Of PSNR and SSIM, in normalised units."""
    patience: int | None = Field(default=None, ge=1)
    """Validations without a better one after which to stop; null: never."""
    dry_run: bool = False
    """Overfit the first batch for at most 200 steps and say whether the network learned; write nothing."""
    compiled: bool = False
    """Run the network through torch.compile."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] | None = None
    """Where to log; null: TensorBoard where it is installed."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give steps or minutes, one of them")
        if not self.references and self.mode == "supervised":
            raise ValueError("references is empty; name at least one fine raster")
        if "auto" in (self.patch, self.validation_patch) or self.patch is None:
            raise ValueError("patch and validation_patch are whole numbers of pixels")
        if not self.output.endswith(".safetensors"):
            raise ValueError(f"output: {self.output!r} came, expected a file name ending in .safetensors")
        return self

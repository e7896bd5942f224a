"""What a network can do: :class:`NetworkSpec`, and :class:`SRNetwork`, the class that carries it.

The engine reads the spec and never asks for a network's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.grid import SPATIAL_AXES, scale_per_axis
from sciSR.normalization import Normalization

if TYPE_CHECKING:
    from sciSR.degradation import Sensor

__all__ = ["NetworkCard", "NetworkSpec", "SRNetwork", "WholeScale", "axes_of", "model_name", "whole_scale"]

WholeScale = float | Sequence[float] | Mapping[str, float]
"""One whole factor for all axes, one per axis in array order, or by axis name."""


def axes_of(ndim: int) -> tuple[str, ...]:
    """Names of ``ndim`` spatial axes in array order.

    Raises:
        InputError: not 2 or 3.
    """
    if ndim not in (2, 3):
        raise InputError(f"network: ndim {ndim!r} came; expected 2 (y, x) or 3 (z, y, x)")
    return SPATIAL_AXES[-ndim:]


def whole_scale(scale: WholeScale, ndim: int) -> tuple[int, ...]:
    """Whole factor per spatial axis in array order.

    Args:
        scale: one number for all axes, one per axis in array order, or ``{axis: factor}``.
        ndim: number of spatial axes.

    Raises:
        InputError: a factor that is not a whole number of at least 1, or an axis that is not there.

    Example:
        >>> whole_scale({"z": 4}, 3)
        (4, 1, 1)
    """
    axes = axes_of(ndim)
    if isinstance(scale, Sequence):
        if len(scale) != ndim:
            raise InputError(
                f"scale: {len(scale)} factors came for {ndim} axes; give one for each of {', '.join(axes)}"
            )
        scale = dict(zip(axes, scale, strict=True))
    factors = scale_per_axis(scale, axes)
    for axis, factor in factors.items():
        if factor != int(factor):
            raise InputError(f"scale: {factor:g} on axis {axis} is not whole; a network refines by whole factors")
    return tuple(int(factors[axis]) for axis in axes)


@dataclass(frozen=True)
class NetworkSpec:
    """Capabilities of one network; tuples have one entry per spatial axis, in array order.

    Attributes:
        axes: ``("y", "x")`` or ``("z", "y", "x")``.
        scale: whole output pixels per input pixel.
        in_channels: channels it takes; 1 means that it also runs on each band of a many-band raster by itself.
        out_channels: channels it gives.
        receptive_radius: input pixels on each side of an input pixel that can change the output lying in it; None where
            nothing bounds it (global pooling, instance norm).
        halo: input pixels to read around a tile, so that the error is below 1e-6 of the range; the receptive radius
            until it has been measured.
        exact_tiling: whether a tile with a halo of the receptive radius gives the whole image's values.
        alignment: tile origins must be multiples of this (strides, windows).
        minimum: least pixels per axis that it takes.
        window: for networks that cannot tile exactly: the fixed window on whose grid they run.
        value_range: length of its own number range (1 or 255), None where it takes any numbers.
    """

    axes: tuple[str, ...]
    scale: tuple[int, ...]
    in_channels: int
    out_channels: int
    receptive_radius: tuple[int, ...] | None
    halo: tuple[int, ...]
    exact_tiling: bool = True
    alignment: tuple[int, ...] = ()
    minimum: tuple[int, ...] = ()
    window: tuple[int, ...] | None = None
    value_range: float | None = None

    def __post_init__(self) -> None:
        ones = (1,) * len(self.axes)
        object.__setattr__(self, "alignment", tuple(self.alignment) or ones)
        object.__setattr__(self, "minimum", tuple(self.minimum) or ones)
        for name in ("scale", "halo", "alignment", "minimum"):
            if len(getattr(self, name)) != len(self.axes):
                raise InputError(f"network spec: {name} {getattr(self, name)} has not one entry per axis {self.axes}")
        if self.exact_tiling and self.receptive_radius is None:
            raise InputError("network spec: exact tiling needs a finite receptive radius")

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @property
    def small_shape(self) -> tuple[int, ...]:
        """``(1, c, [z,] y, x)`` of a small input that it takes, to try something on."""
        return (1, self.in_channels, *[max(8, *self.minimum, *self.alignment)] * self.ndim)

    @property
    def scale_by_axis(self) -> dict[str, int]:
        """Factor per axis by name."""
        return dict(zip(self.axes, self.scale, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or record."""
        return asdict(self)


@dataclass(frozen=True)
class NetworkCard:
    """What a checkpoint says beside the weights.

    Attributes:
        name: short name of the weights (``"mri-x2"``).
        normalization: how physical values become its input; None: it takes them as they are.
        sensor: the degradation it was trained to undo, or None where it is not known.
        bands: names of the channels it was trained on, or None.
        provenance: what it was trained on, with which settings; plain values.
        checksum: sha256 of the file it was loaded from, or None.
    """

    name: str = "network"
    normalization: Normalization | None = None
    sensor: Sensor | None = None
    bands: tuple[str, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checksum: str | None = None


class SRNetwork(nn.Module):
    """A super-resolution network: low-resolution tensor in, refined grid out.

    ``forward(x)`` takes ``(b, c, [z,] y, x)`` floating tensors in the network's own range and returns the refined grid.
    Where the network adds a residual to a classical upsampling, ``forward`` is ``interpolate(x) + residual(x)``, so
    that an engine may run the residual in low precision and keep the interpolation in float32; a network without such a
    skip returns None from ``interpolate`` and everything from ``residual``; a classical method the other way round.

    Attributes:
        family: the name in :data:`sciSR.networks.NETWORKS`.
        arguments: the constructor's keyword arguments, plain values, from which it can be built again.
        card: what its checkpoint said, or None for a bare network.
        measured_halo: halo measured for its weights, which its spec then names; None: not measured.
    """

    family: ClassVar[str] = ""
    arguments: dict[str, Any]
    card: NetworkCard | None = None
    measured_halo: tuple[int, ...] | None = None

    @property
    def spec(self) -> NetworkSpec:
        """What it can do."""
        raise NotImplementedError

    def interpolate(self, x: Tensor) -> Tensor | None:
        """The classical upsampling that the residual is added to, in the type of ``x``; None where there is none."""
        return None

    @property
    def interpolation_radius(self) -> tuple[int, ...]:
        """Input pixels per axis on each side that :meth:`interpolate` may use; 3 holds for cubic and Lanczos."""
        return (3,) * self.spec.ndim

    def residual(self, x: Tensor) -> Tensor | None:
        """What the network adds to :meth:`interpolate`, or all of its output where that is None; None adds nothing."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The refined grid ``(b, c, [z,] y, x)``."""
        base = self.interpolate(x)
        detail = self.residual(x)
        if base is None or detail is None:
            whole = detail if base is None else base
            assert whole is not None, f"{self.family} gives neither an interpolation nor a residual"
            return whole
        return base + detail


def model_name(model: SRNetwork | str) -> str:
    """What records, tables and pictures call it: a method's name, or that of the weights, wherever their file lies."""
    if isinstance(model, str):
        return model
    return model.card.name if model.card is not None else model.family or type(model).__name__

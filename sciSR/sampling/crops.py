"""What teaches: a :class:`Reference` names a raster, :func:`decode` reads it once into :class:`Crop` tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from sciSR.errors import GeometryError, InputError
from sciSR.normalization import IntensityMap, Normalization
from sciSR.raster import Raster
from sciSR.regrid import regrid
from sciSR.resampling import resample
from sciSR.sampling.pairs import check_pair, moved, pair_gain, pair_shift

__all__ = ["Crop", "Reference", "decode", "hold_out", "validation_crops"]

Span = tuple[int, int]
Box = Mapping[str, Span]


@dataclass(frozen=True)
class Reference:
    """One raster that teaches.

    Attributes:
        raster: the fine raster, or the only one.
        low: the coarse raster of the same field of view, for real pairs; None: the fine one is degraded.
        align: move the coarse raster by what the two are measured to be displaced.
        coarsen: factor per axis by which the raster is made coarser before it serves, where its pixels are finer than
            what it resolves (``{"y": 2, "x": 2}``), or to teach other pixel sizes too.
        bands: numbers of the channels to take, from 0; None: all.
        weight: how often it is drawn, relative to the others.
        held_out: pixel range per axis of ``raster`` that is kept for validation; axes not named are taken whole.
        mask: patches are drawn where this is above 0, the oftener the more of a patch it covers; of the same field of
            view, with any pixel size, neither bands nor times. None: wherever there is detail.
    """

    raster: Raster
    low: Raster | None = None
    align: bool = False
    coarsen: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    bands: tuple[int, ...] | None = None
    weight: float = 1.0
    held_out: Box | None = None
    mask: Raster | None = None

    def part(self, **window: slice) -> Reference:
        """The reference under slices of named spatial axes, nothing of it held out; of one without a coarse partner."""
        mask = None if self.mask is None else _matched(self.mask, self.raster).crop(**window)
        return replace(self, raster=self.raster.crop(**window), mask=mask, held_out=None)


@dataclass(frozen=True)
class Crop:
    """A decoded part of a reference.

    Attributes:
        name: of the raster, for messages.
        high: ``(c, [z,] y, x)`` float32, normalised; 0 where there is no value.
        valid: ``([z,] y, x)`` bool, where a training patch may lie; None: everywhere.
        low: the measured coarse counterpart, like ``high``; None: it is made by degrading.
        mask: ``([z,] y, x)`` bool, where patches are drawn; None: wherever there is detail.
        spacing: pixel size per spatial axis in world units.
        weight: how often it is drawn, relative to the others.
        origin: where its first pixel lies in the decoded reference, per spatial axis.
        intensity: how its values become physical again.
        held_out: windows kept for validation, in its own pixels.
        shift: how far the coarse counterpart was measured to be displaced, in fine pixels per spatial axis; of a pair
            that was aligned, before it was. None: there is no counterpart.
        gain: of the counterpart's normalised values over its own (:func:`~sciSR.sampling.pairs.pair_gain`), and how far
            they lie above these; None: there is no counterpart.
    """

    name: str
    high: Tensor
    spacing: tuple[float, ...]
    intensity: IntensityMap
    valid: Tensor | None = None
    low: Tensor | None = None
    mask: Tensor | None = None
    weight: float = 1.0
    origin: tuple[int, ...] = ()
    held_out: tuple[tuple[slice, ...], ...] = ()
    shift: tuple[float, ...] | None = None
    gain: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return tuple(self.high.shape[1:])


def decode(
    reference: Reference,
    *,
    normalization: Normalization,
    channels: int,
    scale: Sequence[int],
    intensity: IntensityMap | None = None,
) -> list[Crop]:
    """The whole reference as tensors in memory, one crop per time step; per band too where ``channels`` is 1.

    Args:
        reference: what to decode.
        normalization: fitted on each raster by itself, as it is when a network is applied; of a real pair too.
        channels: what the network takes.
        scale: the network's factor per spatial axis, for real pairs.
        intensity: the fitted map, where the raster is a part of the one it was fitted on.

    Raises:
        InputError: the channels do not fit.
        GeometryError: a real pair does not cover the same field of view, or at another factor; or a mask does not.
    """
    raster = reference.raster
    if reference.low is not None:
        check_pair(raster, reference.low, scale)
        intensity, coarse = _pair_maps(raster, reference.low, normalization)
    intensity = intensity or normalization.fit(raster)
    high, valid = _read(raster, intensity, reference.bands, channels)
    low, shift, gain = None, None, None
    if reference.low is not None:
        low, low_valid = _read(reference.low, coarse, reference.bands, channels)
        shift, gain = pair_shift(low, high), pair_gain(low, high)
        if reference.align:
            low, inside = moved(low, [d / s for d, s in zip(shift, scale, strict=True)])
            if low_valid is not None:
                inside = inside & (
                    moved(low_valid.float(), [d / s for d, s in zip(shift, scale, strict=True)])[0] > 0.99
                )
            low_valid = inside.expand(len(high) // channels, *inside.shape)
        valid = _both(valid, low_valid, scale)
    spacing = [raster.grid.spacing[axis] for axis in raster.grid.axes]
    factors = [float(reference.coarsen.get(axis, 1)) for axis in raster.grid.axes]
    shape = tuple(max(1, round(n / f)) for n, f in zip(raster.grid.shape, factors, strict=True))
    box = _box(reference.held_out, raster)
    if shape != raster.grid.shape:
        if low is not None:
            raise InputError(f"{raster.name}: coarsen is for references that are degraded; this one has a real pair")
        ratio = [n / m for n, m in zip(raster.grid.shape, shape, strict=True)]
        high = torch.cat([resample(part[None], shape)[0] for part in torch.split(high, 1)])
        valid = None if valid is None else _coarse_valid(valid, shape)
        spacing = [s * r for s, r in zip(spacing, ratio, strict=True)]
        held = [(math.floor(p.start / r), math.ceil(p.stop / r)) for p, r in zip(box or (), ratio, strict=False)]
        box = tuple(slice(a, b) for a, b in held) if box else None
    mask = None if reference.mask is None else _drawn_where(reference.mask, raster, shape)
    crops = []
    for group, part in enumerate(torch.split(high, channels)):
        ok = None if valid is None else valid[group]
        crops.append(
            Crop(
                name=raster.name + _coarsened(reference.coarsen),
                high=part,
                spacing=tuple(spacing),
                intensity=intensity if len(intensity.center) in (1, channels) else intensity.channel(group),
                valid=None if ok is None or bool(ok.all()) else ok,
                low=None if low is None else torch.split(low, channels)[group],
                mask=mask,
                weight=reference.weight / (len(high) // channels),
                origin=(0,) * len(shape),
                held_out=(box,) if box else (),
                shift=shift,
                gain=gain,
            )
        )
    return crops


def _pair_maps(high: Raster, low: Raster, normalization: Normalization) -> tuple[IntensityMap, IntensityMap]:
    """The maps of the two rasters of a real pair, each fitted by itself, as the coarse one's is in application.

    Percentiles narrow with the pixel size, so the fine raster's are taken where it has the coarse one's pixels: else
    its values would be stretched less than the coarse one's, and the network would learn that.
    """
    fine = regrid(high, low.grid.shape) if normalization.kind == "percentile" else high
    return normalization.fit(fine), normalization.fit(low)


def _matched(mask: Raster, raster: Raster) -> Raster:
    """The mask on the pixels of its raster."""
    if math.prod(mask.leading) != 1 or not raster.grid.same_space(mask.grid, tolerance_px=0.5):
        raise GeometryError(
            f"{mask.name}: a mask of axes {', '.join(mask.axes)} and shape {mask.shape} came; expected one without "
            f"bands or times that covers the field of view of {raster.name} {raster.grid.shape} to half a "
            "pixel; regrid it"
        )
    return mask if mask.grid.shape == raster.grid.shape else regrid(mask, raster.grid.shape, kernel="nearest")


def _drawn_where(mask: Raster, raster: Raster, shape: tuple[int, ...]) -> Tensor:
    """True where the mask is above 0, on ``shape`` pixels over the raster's field of view."""
    block = regrid(_matched(mask, raster), shape, kernel="nearest").read()
    inside = block.values > 0
    inside = inside if block.valid is None else inside & block.valid
    return torch.from_numpy(np.ascontiguousarray(inside.reshape(shape)))


def _coarsened(factors: Mapping[str, float]) -> str:
    """What a name says of a reference that was made coarser."""
    named = ", ".join(f"{axis} {factor:g}" for axis, factor in factors.items() if factor != 1)
    return f" (coarser: {named})" if named else ""


def _read(
    raster: Raster, intensity: IntensityMap, bands: tuple[int, ...] | None, channels: int
) -> tuple[Tensor, Tensor | None]:
    """Values ``(groups * channels, [z,] y, x)`` and validity ``(groups, [z,] y, x)``."""
    block = raster.read()
    values = intensity.apply(block.values, raster.channel_axis)
    valid = np.isfinite(values) if block.valid is None else block.valid & np.isfinite(values)
    values = np.where(valid, values, np.float32(0))
    if raster.channel_axis is not None and bands is not None:
        values, valid = values.take(bands, raster.channel_axis), valid.take(bands, raster.channel_axis)
    spatial = raster.grid.shape
    values, valid = values.reshape(-1, *spatial), valid.reshape(-1, *spatial)
    count = 1 if raster.channel_axis is None else len(bands or raster.channels)
    if channels not in (1, count):
        raise InputError(
            f"{raster.name}: {count} channels came, the network takes {channels}; choose some with bands, "
            "or train a network of one channel"
        )
    joint = valid.reshape(-1, channels, *spatial).all(axis=1)
    return torch.from_numpy(values), None if joint.all() else torch.from_numpy(joint)


def _both(valid: Tensor | None, low_valid: Tensor | None, scale: Sequence[int]) -> Tensor | None:
    if low_valid is None:
        return valid
    for axis, s in enumerate(scale):
        low_valid = low_valid.repeat_interleave(s, dim=axis + 1)
    return low_valid if valid is None else valid & low_valid


def _coarse_valid(valid: Tensor, shape: tuple[int, ...]) -> Tensor:
    """True where every fine pixel under the cubic kernel has a value."""
    return torch.stack([resample(v[None, None].float(), shape, kernel="linear")[0, 0] > 1 - 1e-4 for v in valid])


def _box(held_out: Box | None, raster: Raster) -> tuple[slice, ...] | None:
    if not held_out:
        return None
    unknown = sorted(set(held_out) - set(raster.grid.axes))
    if unknown:
        raise InputError(
            f"{raster.name}: held_out names axis {', '.join(unknown)}; it has {', '.join(raster.grid.axes)}"
        )
    parts = []
    for axis, n in zip(raster.grid.axes, raster.grid.shape, strict=True):
        start, stop = held_out.get(axis, (0, n))
        if not 0 <= start < stop <= n:
            raise InputError(f"{raster.name}: held_out {start} to {stop} on axis {axis} is not within 0 to {n}")
        parts.append(slice(start, stop))
    return tuple(parts)


def hold_out(crop: Crop, fraction: float) -> Crop:
    """The crop with the far end of its longest axis kept for validation."""
    axis = int(np.argmax(crop.shape))
    n = crop.shape[axis]
    count = max(1, round(n * fraction))
    window = tuple(slice(n - count, n) if a == axis else slice(0, m) for a, m in enumerate(crop.shape))
    return replace(crop, held_out=(*crop.held_out, window))


def validation_crops(crop: Crop, scale: Sequence[int]) -> list[Crop]:
    """The held-out windows of a crop, as crops of their own; of real pairs the part that whole coarse pixels cover."""
    parts = []
    for window in crop.held_out:
        low = None
        if crop.low is not None:
            inner = [slice(-(-w.start // s), w.stop // s) for w, s in zip(window, scale, strict=True)]
            window = tuple(slice(i.start * s, i.stop * s) for i, s in zip(inner, scale, strict=True))
            low = crop.low[(slice(None), *inner)]
        valid = None if crop.valid is None else crop.valid[window]
        parts.append(
            replace(
                crop,
                high=crop.high[(slice(None), *window)],
                low=low,
                valid=None if valid is None or bool(valid.all()) else valid,
                mask=None if crop.mask is None else crop.mask[window],
                origin=tuple(o + w.start for o, w in zip(crop.origin, window, strict=True)),
                held_out=(),
            )
        )
    return parts

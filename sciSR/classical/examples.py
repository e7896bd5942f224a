"""Examples to learn from: what a sensor sees of rasters, beside the rasters themselves, as normalised tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sciSR.classical.method import AnySensor
from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.normalization import IntensityMap, Normalization
from sciSR.raster import Block, Raster, windows
from sciSR.resampling import mirror_pad
from sciSR.sensors import Sensor

__all__ = ["Pair", "inside", "pairs", "phases", "surroundings"]

_BLOCK = {2: 512, 3: 96}


class Pair(NamedTuple):
    """A block of a raster and what the sensor saw of it, in the same normalised range.

    ``low`` is ``(b, 1, [z,] y, x)``, ``fine`` the same refined, ``valid`` is bool like ``low``: whether a low pixel and
    all the fine ones in it have a value.
    """

    low: Tensor
    fine: Tensor
    valid: Tensor


def pairs(
    rasters: Iterable[Raster],
    scale: tuple[int, ...],
    sensor: AnySensor,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Pair]:
    """Blocks of ``rasters`` and what ``sensor`` sees of them, noise included.

    Every channel, time and, for two axes, slice is an image of its own. Each raster is normalised by its percentiles
    0.5 and 99.5 so that all count alike. A block's borders are mirrored, as an image's are.

    Args:
        rasters: fine images.
        scale: whole factor per axis of the method; two factors on volumes take their slices.
        sensor: as for :func:`~sciSR.degradation.load_sensor`.
        seed: of the noise.
        dtype: of the tensors.

    Raises:
        InputError: no raster came, or one with fewer axes than factors.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = load_sensor("generic-gaussian" if sensor is None else sensor)
    n, count = len(scale), 0
    for raster in rasters:
        count += 1
        if len(raster.grid.shape) < n:
            raise InputError(f"{raster.name}: {len(scale)} factors came for a scene with axes {raster.grid.axes}")
        intensity = Normalization("percentile").fit(raster)
        own = seen.for_channels([channel.name for channel in raster.channels])
        each = own.split(len(raster.channels))
        for window in windows(raster.shape, _blocks(raster, scale)):
            channel = window[raster.channel_axis].start if raster.channel_axis is not None else 0
            spatial = [slice(p.start, p.stop - (p.stop - p.start) % s) for p, s in zip(window[-n:], scale, strict=True)]
            if all(p.stop > p.start for p in spatial):
                block = raster.read((*window[:-n], *spatial))
                yield _pair(block, intensity, each[channel % len(each)], scale, generator, dtype)
    if count == 0:
        raise InputError("fit: no raster came; give at least one to learn from")


def _pair(
    block: Block,
    intensity: IntensityMap,
    sensor: Sensor,
    scale: tuple[int, ...],
    generator: torch.Generator,
    dtype: torch.dtype,
) -> Pair:
    values = intensity.apply(block.values)
    valid = np.isfinite(values) if block.valid is None else block.valid & np.isfinite(values)
    shape = (-1, 1, *values.shape[-len(scale) :])
    fine = torch.from_numpy(np.where(valid, values, 0)).to(dtype).reshape(shape)
    known = torch.from_numpy(valid).to(dtype).reshape(shape)
    low = sensor.apply(fine, scale, generator=generator)
    return Pair(low, fine, sensor.apply(known, scale, noise=False) > 0.999)


def _blocks(raster: Raster, scale: tuple[int, ...]) -> tuple[int, ...]:
    """Read windows: one channel and time, whole multiples of the factor."""
    n = len(scale)
    lead = tuple(1 for _ in raster.shape[:-n])
    if len(raster.grid.shape) > n:
        lead = (*lead[:-1], 16)
    return lead + tuple(max(s, _BLOCK[n] // s * s) for s in scale)


def surroundings(low: Tensor, radius: Sequence[int]) -> Tensor:
    """The window of ``2 radius + 1`` pixels around each pixel: ``(b, 1, [z,] y, x)`` to ``(b, [z,] y, x, k)``."""
    n = len(radius)
    for axis, r in enumerate(radius):
        low = mirror_pad(low, axis + 2, r, r)
    for axis, r in enumerate(radius):
        low = low.unfold(axis + 2, 2 * r + 1, 1)
    return low[:, 0].flatten(-n)


def phases(fine: Tensor, scale: tuple[int, ...]) -> Tensor:
    """The fine pixels in each coarse one: ``(b, 1, [z,] y, x)`` to ``(b, [z,] y, x, phases)``, x fastest."""
    n = len(scale)
    sizes = [m // s for m, s in zip(fine.shape[2:], scale, strict=True)]
    parts = fine.reshape(fine.shape[0], *(v for pair in zip(sizes, scale, strict=True) for v in pair))
    order = [0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2)]
    return parts.permute(order).reshape(fine.shape[0], *sizes, math.prod(scale))


def inside(valid: Tensor, radius: Sequence[int]) -> Tensor:
    """Whether the whole window around each pixel is valid: ``(b, 1, …)`` to ``(b, …)``."""
    holes = 1.0 - valid.float()
    for axis, r in enumerate(radius):
        shape = [1] * len(radius)
        shape[axis] = 2 * r + 1
        pool = functional.max_pool2d if len(radius) == 2 else functional.max_pool3d
        holes = pool(holes, shape, stride=1, padding=[r if i == axis else 0 for i in range(len(radius))])
    return holes[:, 0] == 0

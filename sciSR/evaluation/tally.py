"""Sums over a raster that arrives in slabs, from which its scores follow: bounded memory at any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sciSR.derived import whole_slabs
from sciSR.metrics import SSIMStream
from sciSR.raster import Block, Raster, Window

__all__ = ["Tally", "slabs"]

_SLAB_VALUES = 2**24


class Tally:
    """Error sums and SSIM of one image: all channels of one time step, over several regions.

    Args:
        shape: pixels per spatial axis.
        channels: how many.
        regions: how many masks come with each slab.
        data_range: length of the value range.
    """

    def __init__(self, shape: tuple[int, ...], *, channels: int, regions: int, data_range: float) -> None:
        self._range = data_range
        self._sums = np.zeros((5, regions, channels))
        self._angles = np.zeros((2, regions))
        self._streams = [SSIMStream(shape, data_range=data_range, regions=regions) for _ in range(channels)]

    def add(
        self,
        prediction: NDArray[np.float64],
        target: NDArray[np.float64],
        masks: NDArray[np.bool_],
        valid: NDArray[np.bool_],
    ) -> None:
        """Take the next rows: arrays ``(c, rows, …)``, masks ``(regions, c, rows, …)``."""
        error = prediction - target
        for region, mask in enumerate(masks & valid):
            for c in range(len(error)):
                inside = error[c][mask[c]]
                sums = (inside.size, np.abs(inside).sum(), (inside**2).sum(), inside.sum(), target[c][mask[c]].sum())
                self._sums[:, region, c] += sums
            if len(error) > 1:
                angles = _angles(prediction, target, mask.all(axis=0))
                self._angles[:, region] += angles.sum(), angles.size
        for c, stream in enumerate(self._streams):
            arrays = (prediction[c], target[c], masks[:, c], valid[c])
            x, y, chosen, exists = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
            stream.add(x, y, masks=chosen, valid=exists)

    def pixels(self, region: int, channels: Sequence[int]) -> int:
        """How many values were compared."""
        return int(self._sums[0, region, list(channels)].sum())

    @staticmethod
    def scores(
        tallies: Sequence[Tally], region: int, channels: Sequence[int], ratio: float | None = None
    ) -> dict[str, float]:
        """Metrics of some channels over several time steps: errors pooled, SSIM averaged.

        Args:
            tallies: one per time step.
            region: which mask.
            channels: which channels.
            ratio: size of a high-resolution pixel over that of a low-resolution one, for ERGAS.
        """
        first = tallies[0]
        per_channel = np.sum([t._sums[:, region, list(channels)] for t in tallies], axis=0)
        count, absolute, square, signed, _ = per_channel.sum(axis=1)
        if count == 0:
            return {}
        root = math.sqrt(square / count)
        values = {
            "psnr": 20 * math.log10(first._range / root) if root > 0 else (math.inf if root == 0 else math.nan),
            "ssim": float(np.mean([t._streams[c].means[region] for t in tallies for c in channels])),
            "mae": absolute / count,
            "rmse": root,
            "nrmse": root / first._range,
            "bias": signed / count,
        }
        if len(channels) > 1:
            angle, pixels = np.sum([t._angles[:, region] for t in tallies], axis=0)
            values["sam"] = math.degrees(angle / pixels) if pixels else math.nan
            if ratio is not None:
                values["ergas"] = _ergas(per_channel, ratio)
        return {name: float(value) for name, value in values.items()}


def _ergas(sums: NDArray[np.float64], ratio: float) -> float:
    """ERGAS, 100 h/l sqrt(mean of (RMSE / mean)² over channels); Wald, Data Fusion, Presses de l'Ecole 2002."""
    count, square, total = sums[0], sums[2], sums[4]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = (square / count) / (total / count) ** 2
    return float(100 * ratio * np.sqrt(relative.mean()))


def _angles(
    prediction: NDArray[np.float64], target: NDArray[np.float64], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Spectral angle in radians at each pixel of the mask (Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N)."""
    x, y = prediction[:, mask], target[:, mask]
    lengths = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    known = lengths > 0
    cosine = (x * y).sum(axis=0)[known] / lengths[known]
    angles: NDArray[np.float64] = np.arccos(np.clip(cosine, -1, 1))
    return angles


def slabs(raster: Raster) -> Iterator[tuple[Window, Block]]:
    """The raster in whole slabs: every channel, rows of the first spatial axis in order, all of the other axes.

    A source that gives all channels together is streamed, so that its workers stay busy; any other one is read.
    """
    channel = raster.channel_axis
    if channel is not None and raster.source.chunks[channel] < raster.shape[channel]:
        yield from _read(raster)
        return
    yield from whole_slabs(raster)


def _read(raster: Raster) -> Iterator[tuple[Window, Block]]:
    lead = len(raster.leading)
    row = math.prod(raster.shape) // raster.times // raster.shape[lead]
    rows = max(1, _SLAB_VALUES // row)
    for t in range(raster.times):
        for start in range(0, raster.shape[lead], rows):
            at = {"t": slice(t, t + 1), raster.axes[lead]: slice(start, min(start + rows, raster.shape[lead]))}
            window = tuple(at.get(axis, slice(0, n)) for axis, n in zip(raster.axes, raster.shape, strict=True))
            yield window, raster.read(window)

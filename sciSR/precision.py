"""Whether low precision is good enough for this raster: measured on its most detailed patches before the run.

The limits are at least 60 dB to float32 over the image's p0.1 to p99.9 range, a mean bias of at most a tenth of an
output step, and for 8-bit outputs a difference within one step at p99.9. The check costs at most one percent of the
run; where the image is too small for that, the run stays at float32.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.tiles import TileJob
from sciSR.tiling import Tile

__all__ = ["MIN_PSNR_DB", "calibration_patches", "check_precision"]

MIN_PSNR_DB = 60.0
_MAX_BIAS_STEPS = 0.1
_SHARE = 0.01
_CANDIDATES_PER_AXIS = {2: 5, 3: 3}
_RUN = 2
_CALIBRATION_PX = {2: 64, 3: 24}
_CALIBRATION_PER_AXIS = {2: 10, 3: 5}
_CALIBRATION_PATCHES = 27
_SLICES = 5
"""Places along an axis that the network does not run along."""
_SIZES = {2: (64, 48, 32, 24), 3: (24, 20, 16, 12)}


def check_precision(full: TileJob, low: TileJob, *, smallest: int | None = None) -> dict[str, Any]:
    """Compare two runners on the most detailed of at least 16 sampled patches.

    Args:
        full: the job at float32.
        low: the same job at low precision.
        smallest: patch to use where even the smallest would cost more than its share; None: then do not check.

    Returns:
        ``passed`` and, where it was measured, ``psnr_db``, ``bias_steps``, ``p99_9_steps`` and the patches used; or the
        ``reason`` why it was not.
    """
    size = _patch_size(full) or smallest
    if size is None:
        return {"passed": False, "reason": "the image is too small for the check to cost at most 1 % of the run"}
    patches = _candidates(full, size, _CANDIDATES_PER_AXIS[full.runner.network.spec.ndim])
    if len(patches) < _RUN:
        return {"passed": False, "reason": "too few patches with valid pixels"}
    sample = np.concatenate([values.reshape(-1) for _, values in patches])
    span = float(np.subtract(*np.percentile(sample, [99.9, 0.1])))
    if span <= 0:
        return {"passed": False, "reason": "the sampled patches are constant"}
    chosen = sorted(patches, key=lambda patch: _detail(patch[1]), reverse=True)[:_RUN]
    pairs = [(_refined(full, values), _refined(low, values)) for _, values in chosen]
    difference = np.concatenate([(b.astype(np.float64) - a).reshape(-1) for a, b in pairs])
    report = _judged(full, difference, span)
    return {**report, "patch_px": size, "patches_sampled": len(patches), "patches_run": [list(at) for at, _ in chosen]}


def _judged(job: TileJob, difference: NDArray[np.float64], span: float) -> dict[str, Any]:
    """The three limits, on differences in normalised units."""
    mse = float(np.mean(difference**2))
    psnr = 200.0 if mse == 0 else float(10 * np.log10(span**2 / mse))
    stored = np.dtype(job.raster.encoding.dtype)
    unit = float(np.abs(job.intensity.scale).max())
    step = float(np.abs(job.raster.encoding.scale).min()) / unit if stored.kind in "iu" else span / 65535
    bias = abs(float(difference.mean())) / step
    top = float(np.percentile(np.abs(difference), 99.9)) / step
    passed = psnr >= MIN_PSNR_DB and bias <= _MAX_BIAS_STEPS and (stored.itemsize > 1 or top <= 1)
    return {
        "passed": bool(passed),
        "psnr_db": round(psnr, 2),
        "bias_steps": round(bias, 4),
        "p99_9_steps": round(top, 3),
    }


def calibration_patches(job: TileJob) -> list[NDArray[np.float32]]:
    """The most detailed of many sampled patches without holes, as the network takes them, in falling order.

    Detail is where activations reach their extremes, and what goes beyond the extremes seen here will be cut.
    """
    dims = job.runner.network.spec.ndim
    size = min(_CALIBRATION_PX[dims], *(job.plan.shape[a] for a in job.order))
    sampled = _candidates(job, size, _CALIBRATION_PER_AXIS[dims])
    chosen = sorted(sampled, key=lambda patch: _detail(patch[1]), reverse=True)[:_CALIBRATION_PATCHES]
    return [job.to_network_axes(values) for _, values in chosen]


def _patch_size(job: TileJob) -> int | None:
    """The largest patch whose run stays within the share of the whole, or None."""
    dims = job.runner.network.spec.ndim
    total = float(np.prod(job.plan.shape))
    for size in _SIZES[dims]:
        fits = all(job.plan.shape[a] >= size for a in job.order)
        if fits and _RUN * size**dims <= _SHARE * total:
            return size
    return None


def _candidates(job: TileJob, size: int, per_axis: int) -> list[tuple[tuple[int, ...], NDArray[np.float32]]]:
    """Normalised patches ``(c, spatial…)`` without holes, on an even lattice; those with holes are left out."""
    shape = job.plan.shape
    extent = [size if a in job.order else 1 for a in range(len(shape))]
    starts = [
        sorted({round(f) for f in np.linspace(0, n - e, (per_axis if e > 1 else _SLICES) + 2)[1:-1]})
        for n, e in zip(shape, extent, strict=True)
    ]
    time = 0 if "t" in job.raster.axes else None
    found = []
    for at in product(*starts):
        window = tuple(slice(a, a + e) for a, e in zip(at, extent, strict=True))
        values, _, holes = job.load(Tile(window, window, window, window), time)
        if not holes:
            found.append((at, values))
    return found


def _detail(values: NDArray[np.float32]) -> float:
    """Mean absolute difference between neighbours along the axes."""
    return float(sum(np.abs(np.diff(values, axis=a)).mean() for a in range(1, values.ndim) if values.shape[a] > 1))


def _refined(job: TileJob, values: NDArray[np.float32]) -> NDArray[np.float32]:
    return job.runner(job.to_network_axes(values))

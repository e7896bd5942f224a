"""The opensr-test families of metrics for super-resolved satellite images, with its definitions and default settings.

Aybar et al. 2024, "A comprehensive benchmark for optical remote sensing image super-resolution"
(doi:10.1109/LGRS.2024.3401394) and the package opensr-test 1.3.3. A *consistent* result says, seen coarsely, what its
input says; *synthesis* is how much it adds to an interpolation; what it adds is *improvement* where it is nearer to the
truth, *hallucination* where it is neither in the truth nor in the input, *omission* where it stayed with the input.
Values are reflectances (about 0 to 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.errors import InputError
from sciSR.metrics.arrays import Image, batched
from sciSR.metrics.registration import displacement
from sciSR.metrics.spectral import spectral_angles

__all__ = ["Consistency", "Correctness", "consistency", "correctness", "harmonized", "synthesis"]

_BORDER = 16
_SCORE = 0.05
_TEMPERATURE = 0.25
_FLAT_SHARE = 0.75
_UPSAMPLING = 50
_FARTHEST = 5.0
_TINY = 1e-8


@dataclass(frozen=True)
class Consistency:
    """How well a result agrees with its input.

    Attributes:
        reflectance: mean absolute difference, in the unit of the values.
        spectral: mean spectral angle in degrees.
        spatial: displacement in low-resolution pixels; NaN where it is not found or beyond 5.
    """

    reflectance: float
    spectral: float
    spatial: float


@dataclass(frozen=True)
class Correctness:
    """What the added detail is; the three sum to 1.

    Attributes:
        improvement: nearer to the truth.
        omission: still the input.
        hallucination: neither.
    """

    improvement: float
    omission: float
    hallucination: float


def consistency(low: Image, result: Image, *, rgb: Sequence[int] = (0, 1, 2), border: int = _BORDER) -> Consistency:
    """Compare a result, made coarse again by antialiased linear interpolation, with its input.

    Args:
        low: the input ``(1, c, y, x)``.
        result: the super-resolved image ``(1, c, s * y, s * x)``.
        rgb: the bands whose mean is aligned; the first band where there are fewer than three.
        border: high-resolution pixels to leave out on each side.

    Raises:
        InputError: shapes that do not fit, or nothing left within the border.
    """
    lr, sr, _ = _images(low, result, None, border)
    coarse = _resized(sr, lr)
    bands = list(rgb) if lr.shape[1] >= 3 else [0]
    shift = _shift(lr[0, bands], coarse[0, bands])
    return Consistency(
        reflectance=float((lr - coarse).abs().mean()),
        spectral=math.degrees(float(spectral_angles(lr, coarse).nanmean())),
        spatial=math.nan if shift is None else float(np.hypot(*shift)),
    )


def synthesis(low: Image, result: Image, truth: Image | None = None, *, border: int = _BORDER) -> float:
    """Mean absolute difference between the harmonised result and the linearly interpolated input.

    Args:
        low: the input ``(1, c, y, x)``.
        result: the super-resolved image.
        truth: what the result is harmonised to, see :func:`harmonized`; None: the result itself.
        border: as for :func:`consistency`.
    """
    lr, sr, hr = _images(low, result, truth, border)
    return float((_resized(lr, sr) - harmonized(sr, hr)).abs().mean())


def correctness(
    low: Image,
    result: Image,
    truth: Image,
    *,
    border: int = _BORDER,
    threshold: float | None = None,
) -> Correctness:
    """Improvement, omission and hallucination, by normalised differences pixel by pixel.

    Args:
        low: the input ``(1, c, y, x)``.
        result: the super-resolved image.
        truth: the reference, same shape as the result.
        border: as for :func:`consistency`.
        threshold: pixels where neither result, truth nor input differ by more do not count; None: the percentile 75 of
            the difference between truth and input.
    """
    lr, sr, hr = _images(low, result, truth, border)
    up, fixed = _resized(lr, sr), harmonized(sr, hr)
    to_low, to_truth, stayed = _difference(up, hr), _difference(fixed, hr), _difference(fixed, up)
    if threshold is None:
        threshold = float(to_low.flatten().kthvalue(max(1, int(_FLAT_SHARE * to_low.numel()))).values)
    counts = (to_low > threshold) | (to_truth > threshold) | (stayed > threshold)
    near, far = (part[counts] / to_low[counts] for part in (to_truth, stayed))
    beyond = torch.exp(-(near + far - 1) * _SCORE)
    scores = torch.stack([near + far * (1 - beyond), far + near * (1 - beyond), torch.exp(-near * far * _SCORE)])
    shares = torch.softmax(-scores / _TEMPERATURE, dim=0)
    return Correctness(*(float(share.nanmean()) for share in shares))


def harmonized(result: Tensor, truth: Tensor) -> Tensor:
    """``result`` with the truth's histogram in each band and without its displacement against it.

    Both ``(1, c, y, x)``. What is left of the difference is the detail; a systematic error counts as consistency.
    """
    matched = torch.stack([_matched(a, b) for a, b in zip(result[0], truth[0], strict=True)])
    shift = _shift(matched, truth[0])
    return matched[None] if shift is None else _moved(matched[None], shift)


def _images(low: Image, result: Image, truth: Image | None, border: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three without their borders, float64 ``(1, c, y, x)``."""
    lr, sr = batched(low, "low"), batched(result, "result")
    hr = sr if truth is None else batched(truth, "truth").to(sr.device)
    scale = sr.shape[-1] // lr.shape[-1]
    if lr.dim() != 4 or len(lr) != 1 or sr.shape != (1, lr.shape[1], scale * lr.shape[2], scale * lr.shape[3]):
        raise InputError(
            f"opensr-test: low of shape {tuple(lr.shape)} and result of {tuple(sr.shape)} came, expected (1, c, y, x) "
            "and (1, c, s y, s x) with a whole factor s"
        )
    if hr.shape != sr.shape:
        raise InputError(f"opensr-test: truth of shape {tuple(hr.shape)} came for a result of {tuple(sr.shape)}")
    if min(sr.shape[2:]) <= 2 * border + scale:
        raise InputError(f"opensr-test: nothing is left of {tuple(sr.shape)} within a border of {border}")
    return _inner(lr.to(sr.device), border // scale), _inner(sr, border), _inner(hr, border)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """``x`` on the grid of ``like``: linear, antialiased when coarser, kernels cut at the edges as torch does."""
    return torch.nn.functional.interpolate(x, size=like.shape[2:], mode="bilinear", antialias=True)


def _inner(x: Tensor, border: int) -> Tensor:
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| / |a + b|, mean over the bands: ``(y, x)``."""
    return ((a - b).abs() / (a + b + _TINY).abs())[0].nanmean(dim=0)


def _shift(moved: Tensor, fixed: Tensor) -> NDArray[np.float64] | None:
    """Displacement (y, x) of the band mean, to 1/50 pixel; None beyond 5 pixels."""
    means = (image.mean(dim=0).cpu().numpy() for image in (moved, fixed))
    shift = displacement(*means, upsampling=_UPSAMPLING)
    return shift if float(np.hypot(*shift)) <= _FARTHEST else None


def _matched(values: Tensor, template: Tensor) -> Tensor:
    """``values`` mapped so that their cumulative histogram is the template's (Gonzalez and Woods, chapter 3)."""
    _, at, counts = np.unique(values.cpu().numpy(), return_inverse=True, return_counts=True)
    wanted, shares = np.unique(template.cpu().numpy(), return_counts=True)
    below, wanted_below = (np.cumsum(c) / c.sum() for c in (counts, shares))
    return torch.from_numpy(np.interp(below, wanted_below, wanted)[at].reshape(values.shape)).to(values)


def _moved(x: Tensor, shift: NDArray[np.float64]) -> Tensor:
    """``x`` moved back by ``shift`` pixels (y, x): linear interpolation, edges repeated."""
    for dim, by in zip((2, 3), shift, strict=True):
        n = x.shape[dim]
        places = np.clip(np.arange(n) + by, 0, n - 1)
        first = np.minimum(np.floor(places).astype(np.int64), n - 1)
        share = torch.from_numpy(places - first).to(x).reshape([-1 if d == dim else 1 for d in range(4)])
        rows, after = (torch.from_numpy(r).to(x.device) for r in (first, np.minimum(first + 1, n - 1)))
        x = x.index_select(dim, rows) * (1 - share) + x.index_select(dim, after) * share
    return x

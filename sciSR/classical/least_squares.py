"""The best linear filter for a degradation, learned from examples: the ceiling that a network must beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sciSR.classical.examples import inside, pairs, phases, surroundings
from sciSR.classical.method import AnySensor
from sciSR.classical.phase_filter import PhaseFilter, constrained_weights, default_radius
from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.networks.spec import NetworkCard, WholeScale, whole_scale
from sciSR.raster import Raster

__all__ = ["LeastSquares", "fit_least_squares"]

_Array = NDArray[np.float64]


class LeastSquares(PhaseFilter):
    """A linear filter per phase with learned weights; :func:`fit_least_squares` makes one.

    Unfitted it repeats pixels.

    Args:
        ndim: spatial axes, 2 or 3.
        scale: whole factor per axis.
        in_channels: channels it takes; all share the weights.
        radius: coarse pixels on each side, per axis; None: wide enough.
    """

    family = "least-squares"
    own = ("radius",)

    def __init__(
        self, *, ndim: int, scale: WholeScale, in_channels: int = 1, radius: Sequence[int] | None = None
    ) -> None:
        window = default_radius(whole_scale(scale, ndim)) if radius is None else tuple(radius)
        super().__init__(ndim=ndim, scale=scale, in_channels=in_channels, radius=window)
        weight = torch.zeros(1, math.prod(self.scale), *(2 * r + 1 for r in window))
        weight.flatten(2)[..., weight[0, 0].numel() // 2] = 1.0
        self.register_buffer("weight", weight)


def fit_least_squares(
    rasters: Sequence[Raster],
    *,
    ndim: int,
    scale: WholeScale,
    sensor: AnySensor = None,
    radius: Sequence[int] | None = None,
    ridge: float = 1e-6,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LeastSquares:
    """The filter with the least mean square error over what ``sensor`` sees of ``rasters``.

    Ridge regression on the differences to the middle pixel, with constants and ramps kept exactly and every example
    taken in all mirror images, so that the filter is symmetric.

    Args:
        rasters: fine images, read in blocks; each counts alike.
        ndim: spatial axes; 2 on volumes takes their slices.
        scale: whole factor per axis.
        sensor: what makes them coarse, noise included.
        radius: coarse pixels on each side, per axis; None: wide enough.
        ridge: weight of the squared weights, as a part of the mean square difference.
        seed: of the noise.
        progress: called with (rasters done, rasters in all).

    Raises:
        InputError: no raster, or not one example without holes.
    """
    network = LeastSquares(ndim=ndim, scale=scale, radius=radius)
    factors, window = network.scale, network.radius
    size = math.prod(2 * r + 1 for r in window)
    covariance, cross, count = np.zeros((size, size)), np.zeros((size, math.prod(factors))), 0
    for number, raster in enumerate(rasters, 1):
        for low, fine, valid in pairs([raster], factors, sensor, seed=seed):
            chosen = inside(valid, window)
            seen = surroundings(low, window)[chosen]
            middle = seen[:, size // 2 : size // 2 + 1]
            seen, wanted = (seen - middle).double(), (phases(fine, factors)[chosen] - middle).double()
            covariance += (seen.T @ seen).numpy()
            cross += (seen.T @ wanted).numpy()
            count += len(seen)
        if progress is not None:
            progress(number, len(rasters))
    if count == 0:
        raise InputError("fit: no example without holes; give rasters, at least one of them larger than the window")
    covariance, cross = _symmetric(covariance / count, cross / count, window, factors)
    weight = constrained_weights(covariance, cross, window, factors, ridge)
    network.weight.copy_(torch.from_numpy(weight).reshape(network.weight.shape))
    chosen_sensor = load_sensor("generic-gaussian" if sensor is None else sensor)
    network.card = NetworkCard(
        name="least-squares", sensor=chosen_sensor, provenance={"examples": count, "ridge": ridge, "seed": seed}
    )
    return network


def _symmetric(
    covariance: _Array, cross: _Array, radius: tuple[int, ...], scale: tuple[int, ...]
) -> tuple[_Array, _Array]:
    """Both averaged over the mirror images along every axis."""
    n = len(scale)
    window, fine = tuple(2 * r + 1 for r in radius), scale
    a, b = covariance.reshape(*window, *window), cross.reshape(*window, *fine)
    for axis in range(n):
        a = (a + np.flip(a, (axis, axis + n))) / 2
        b = (b + np.flip(b, (axis, axis + n))) / 2
    return a.reshape(covariance.shape), b.reshape(cross.shape)

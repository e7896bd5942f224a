"""Interpolation by a fixed kernel; centre-aligned, borders symmetric."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from sciSR.classical.method import Classical
from sciSR.kernels import KERNELS
from sciSR.resampling import upsample

__all__ = ["BSpline", "Cubic", "Interpolation", "Lanczos", "Linear", "Nearest"]


class Interpolation(Classical):
    """Upsampling with one of :data:`sciSR.kernels.KERNELS`.

    Attributes:
        kernel: its name.
    """

    kernel: ClassVar[str] = "cubic"

    def reach(self) -> tuple[int, ...]:
        """The kernel's radius along refined axes."""
        radius = 0 if self.kernel == "nearest" else math.ceil(KERNELS[self.kernel].radius)
        return tuple(radius if s > 1 else 0 for s in self.scale)

    def interpolate(self, x: Tensor) -> Tensor:
        """The refined grid ``(b, c, [z,] y, x)``."""
        return upsample(x, self.scale, kernel=self.kernel)


class Nearest(Interpolation):
    """Every pixel repeated."""

    family = "nearest"
    kernel = "nearest"


class Linear(Interpolation):
    """Linear along each axis (bilinear, trilinear)."""

    family = "linear"
    kernel = "linear"


class Cubic(Interpolation):
    """Keys' cubic convolution with a = -0.5 (1981, doi:10.1109/TASSP.1981.1163711)."""

    family = "cubic"
    kernel = "cubic"


class Lanczos(Interpolation):
    """Lanczos with three lobes, weights normalised (Duchon 1979, doi:10.1175/1520-0450(1979)018)."""

    family = "lanczos"
    kernel = "lanczos"


class BSpline(Interpolation):
    """Cubic B-spline interpolation, prefilter included (Unser et al. 1993, doi:10.1109/78.193220).

    Its kernel never ends; it is cut at twelve pixels, where it has fallen below 1e-7.
    """

    family = "bspline"
    kernel = "bspline"

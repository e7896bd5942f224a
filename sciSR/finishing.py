"""The last touch on a result, off by default: noise smoothed away with edges kept, and edges made steeper.

Both are local filters, computed window by window with the pixels under them, so windows do not change the values.
They change what was measured: a result that was finished explains its input less well, and its record says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciSR.derived import DerivedSource, rows_in_order
from sciSR.encoding import work_dtype
from sciSR.errors import InputError
from sciSR.kernels import FWHM_PER_SIGMA, gaussian_kernel
from sciSR.raster import Block, BlockSource, Raster, Window, windows
from sciSR.resampling import mirror_pad, sample_axis

__all__ = ["finish"]

_REACH = 2
_WINDOW = {2: 512, 3: 64}
_SLAB = 2**21
"""Values of a slab, about, for one band."""


def finish(raster: Raster, *, denoise: float | None = None, sharpen: float | None = None, width: float = 2.0) -> Raster:
    """The raster denoised and then sharpened; lazy.

    Denoising is a bilateral filter (Tomasi and Manduchi 1998, doi:10.1109/ICCV.1998.710815) over two pixels in each
    direction: neighbours count less the farther they are and the more their value differs, so that steps of more than
    some ``denoise`` stay. Sharpening adds a part of what a Gaussian of ``width`` takes away (unsharp masking).

    Args:
        raster: a volume or scene of physical values; pixels without a value count for nothing.
        denoise: standard deviation of the noise to smooth away, in the values' unit; None: none.
        sharpen: how much of the detail to add: 0.5 makes half as much again; None: none.
        width: full width at half maximum of that Gaussian, in pixels of the raster.

    Raises:
        InputError: a setting that is not a positive number, or neither of the two.

    Example:
        >>> flat = Raster.from_array(np.full((4, 4), 7.0, np.float32), affine=np.eye(3), axes="yx")
        >>> float(finish(flat, denoise=1, sharpen=0.5).read().values.max())
        7.0
    """
    for name, value in {"denoise": denoise, "sharpen": sharpen, "width": width}.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"finish: {name} {value} is not a positive number")
    if denoise is None and sharpen is None:
        raise InputError("finish: neither denoise nor sharpen came; give one, or leave the step away")
    record = json.dumps({"denoise": denoise, "sharpen": sharpen, "width": width})
    return raster.replace(
        source=_Finished(raster, denoise, sharpen, width),
        provenance=MappingProxyType({**raster.provenance, "finish": record}),
    )


class _Finished(DerivedSource):
    """Blocks of a filtered raster."""

    def __init__(self, raster: Raster, denoise: float | None, sharpen: float | None, width: float) -> None:
        super().__init__(raster.source)
        self._raster = raster
        self._denoise, self._sharpen = denoise, sharpen
        self._width = width
        self._lead = len(raster.leading)
        self._kernel = gaussian_kernel(width)
        self._halo = (_REACH if denoise else 0) + (math.ceil(self._kernel.radius) if sharpen else 0)

    @property
    def dtype(self) -> np.dtype[Any]:
        return work_dtype(self._raster.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        spatial = self._raster.grid.shape
        most = _WINDOW[len(spatial)]
        return self._raster.one_time + tuple(min(most, n) for n in spatial)

    def record(self) -> dict[str, Any]:
        record = getattr(self._inner, "record", None)
        return {} if record is None else dict(record())

    def over(self, source: BlockSource) -> BlockSource:
        return _Finished(self._raster.replace(source=source), self._denoise, self._sharpen, self._width)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once; of a network's result in slabs over the whole width, so that it is computed once."""
        with rows_in_order(self._inner, self._lead) as read:
            for window in windows(self.shape, self._slabs if self.by_slabs else self.chunks):
                yield window, self._filtered(window, read)

    @property
    def _slabs(self) -> tuple[int, ...]:
        across = self._raster.grid.shape[1:]
        return (*self._raster.one_time, max(1, _SLAB // math.prod(across)), *across)

    def read(self, window: Window) -> Block:
        return self._filtered(window, self._inner.read)

    def _needed(self, window: Window) -> Window:
        """The input's window under the filters of ``window``."""
        spatial = zip(window[self._lead :], self._raster.grid.shape, strict=True)
        inside = (slice(max(0, p.start - self._halo), min(n, p.stop + self._halo)) for p, n in spatial)
        return (*window[: self._lead], *inside)

    def _filtered(self, window: Window, read: Callable[[Window], Block]) -> Block:
        needed = self._needed(window)
        block, inside = read(needed), needed[self._lead :]
        missing = [
            (max(0, self._halo - p.start), max(0, p.stop + self._halo - n))
            for p, n in zip(window[self._lead :], self._raster.grid.shape, strict=True)
        ]
        x, weight = self._tensors(block)
        for dim, (before, after) in enumerate(missing, 2):
            x, weight = (mirror_pad(t, dim, before, after) for t in (x, weight))
        if self._denoise:
            x, weight = _bilateral(x, weight, self._denoise)
        if self._sharpen:
            x = x + self._sharpen * (x - self._smooth(x, weight))
        margin = self._halo - (_REACH if self._denoise else 0)
        for dim in range(2, x.dim()):
            x = x.narrow(dim, margin, x.shape[dim] - 2 * margin)
        shape = tuple(p.stop - p.start for p in window)
        keep = (slice(None),) * self._lead + tuple(
            slice(p.start - i.start, p.stop - i.start) for p, i in zip(window[self._lead :], inside, strict=True)
        )
        valid: NDArray[Any] | None = None if block.valid is None else block.valid[keep]
        return Block(x.numpy().reshape(shape), valid)

    def _tensors(self, block: Block) -> tuple[Tensor, Tensor]:
        """Values ``(b, 1, spatial…)``, every band by itself, and 1 where there is one."""
        values = block.values.astype(self.dtype)
        good = np.isfinite(values) if block.valid is None else block.valid & np.isfinite(values)
        values = np.where(good, values, 0).astype(self.dtype)
        spatial = values.shape[self._lead :]
        x = torch.from_numpy(np.ascontiguousarray(values)).reshape(-1, 1, *spatial)
        return x, torch.from_numpy(np.ascontiguousarray(good)).reshape(-1, 1, *spatial).to(x)

    def _smooth(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted Gaussian mean of the values that there are."""
        total, share = x * weight, weight
        for dim in range(2, x.dim()):
            total = sample_axis(total, dim, total.shape[dim], (self._kernel,))
            share = sample_axis(share, dim, share.shape[dim], (self._kernel,))
        return torch.where(share > 0, total / share.clamp_min(1e-12), x)


def _bilateral(x: Tensor, weight: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Filtered values and weights of all but the outermost ``_REACH`` pixels.

    The difference of two noisy values has sqrt(2) times their deviation; twice that keeps what is clearly an edge.
    """
    inner = [n - 2 * _REACH for n in x.shape[2:]]
    here, known = _shifted(x, (0,) * len(inner), inner), _shifted(weight, (0,) * len(inner), inner)
    total, share = torch.zeros_like(here), torch.zeros_like(here)
    spread = 2 * math.sqrt(2) * noise
    near = 2.0 / FWHM_PER_SIGMA
    for offset in product(range(-_REACH, _REACH + 1), repeat=len(inner)):
        there = _shifted(x, offset, inner)
        distance = math.exp(-0.5 * sum(o * o for o in offset) / near**2)
        each = distance * torch.exp(-0.5 * ((there - here) / spread) ** 2) * _shifted(weight, offset, inner)
        total += each * there
        share += each
    return torch.where(known > 0, total / share.clamp_min(1e-12), here), known


def _shifted(x: Tensor, offset: tuple[int, ...], size: list[int]) -> Tensor:
    for dim, (o, n) in enumerate(zip(offset, size, strict=True), 2):
        x = x.narrow(dim, _REACH + o, n)
    return x

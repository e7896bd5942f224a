"""Convolutions in machine code of our own, where that is faster than PyTorch's: float32, on CPUs.

- :class:`TileFilter`: 3 x 3 pixels at a quarter of the multiplications, Winograd's minimal filtering F(4 x 4, 3 x 3)
  (Lavin and Gray 2016, arXiv:1509.09308). In three dimensions x and y are transformed, and planes are summed up as
  they are. A result differs from the plain convolution's by some 1e-6 of its range.
- :class:`FewFilter`: many channels into a few, as at the end of a network.

Both read and write channels innermost. What follows a convolution by tiles, a pixel shuffle, an activation or a sum,
is taken along.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeGuard
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciSR.pipeline import core_count

if TYPE_CHECKING:
    from sciSR.filter_code import Shape

__all__ = [
    "Addresses",
    "AnyConv",
    "FewFilter",
    "Filter",
    "TileFilter",
    "addresses",
    "filtered_weights",
    "is_available",
    "is_few",
    "is_tiled",
]

_TILE = 4
_CACHE_BYTES = 2**19
"""What the transformed tiles and their products may take: well within the second cache of a core."""
_FEWEST_PLANES = 4
"""Planes that are filtered together at least: those that border on them are transformed again for the next ones."""
_LEAST_SHARE = 2**22
"""Multiplications below which a second thread costs more than it saves."""
_FEW = 6
_scratch = threading.local()
_kept: WeakKeyDictionary[AnyConv, tuple[Tensor, Tensor]] = WeakKeyDictionary()
AnyConv = nn.Conv2d | nn.Conv3d
Addresses = NDArray[np.int64]
"""Of the first float32 of each of several rows."""


def is_available() -> bool:
    """Whether the compiler is installed here."""
    try:
        import llvmlite  # noqa: F401
    except ImportError:
        return False
    return True


def is_tiled(module: nn.Module | None) -> TypeGuard[AnyConv]:
    """Whether it is a convolution for :class:`TileFilter`: 3 x 3 pixels, channels that fill vector registers."""
    if not isinstance(module, AnyConv) or not _is_plain(module):
        return False
    return module.kernel_size[-2:] == (3, 3) and module.in_channels % 8 == 0 and module.out_channels % 8 == 0


def is_few(module: nn.Module | None) -> TypeGuard[AnyConv]:
    """Whether it is a convolution for :class:`FewFilter`."""
    if not isinstance(module, AnyConv) or not _is_plain(module):
        return False
    return module.in_channels % 8 == 0 and module.out_channels <= _FEW and math.prod(module.kernel_size) > 1


def filtered_weights(network: nn.Module) -> int:
    """How many of a network's weights are in convolutions for a filter of this module."""
    return sum(m.weight.numel() for m in network.modules() if is_tiled(m) or is_few(m))


def _is_plain(module: AnyConv) -> bool:
    """Dense, keeps the size with zeros beyond the edges, float32 on a CPU."""
    if isinstance(module.padding, str) or module.padding_mode != "zeros" or module.groups != 1:
        return False
    same = all(k == 2 * p + 1 for k, p in zip(module.kernel_size, module.padding, strict=True))
    dense = set(module.stride) == set(module.dilation) == {1}
    return same and dense and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


class Filter:
    """A convolution on arrays with channels innermost.

    Attributes:
        results: channels of a result, once pixels are shuffled.
        margins: pixels around the image that it reads, per axis ``[z,] y, x``.
        tile: pixels that are computed together, per axis.
        fine: results per pixel, per axis.
        planes: along z, of which each is filtered for itself: results are ``(plane of weights, channel)`` and are yet
            to be summed up over the planes. 1: results are final.
    """

    planes = 1
    results: int
    margins: tuple[int, ...]
    tile: tuple[int, ...]
    fine: tuple[int, ...]

    def __call__(self, x: Addresses, y: Tensor, other: Addresses | None = None, *, threads: int = 1) -> None:
        """Compute one image.

        Args:
            x: ``([z,] y)`` of whole tiles with the margins around: the rows ``(x, c)`` float32, which begin with the
                margin.
            y: ``([z,] y, x, results)`` float32, pixels side by side, without margins; written.
            other: ``([z,] y)`` of y: rows that are added; not after a pixel shuffle, nor by :class:`FewFilter`.
            threads: at most so many compute; no result depends on them.
        """
        raise NotImplementedError


def addresses(x: Tensor) -> Addresses:
    """Where each row ``(x, c)`` of ``(…, x, c)`` lies in memory."""
    found = np.asarray(x.data_ptr(), np.int64)
    for n, stride in zip(x.shape[:-2], x.stride(), strict=False):
        found = found[..., None] + np.arange(n, dtype=np.int64) * (stride * x.element_size())
    return found


class TileFilter(Filter):
    """A convolution of 3 x 3 pixels by tiles.

    Args:
        module: one that :func:`is_tiled`.
        slope: of the activation for negative values, one or one per channel (0: ReLU); None: no activation.
        fine: factors of the pixel shuffle that follows.
    """

    def __init__(
        self,
        module: AnyConv,
        *,
        slope: float | Tensor | None = None,
        fine: Sequence[int] | None = None,
    ) -> None:
        from sciSR.filter_code import Shape, by_tiles

        ndim = len(module.kernel_size)
        self.fine = tuple(fine or [1] * ndim)
        self.tile = (1, _TILE, _TILE)[-ndim:]
        self.margins = tuple(int(p) for p in module.padding)
        self._depth = int(module.kernel_size[0]) if ndim == 3 else 1
        self._channels, channels = int(module.in_channels), int(module.out_channels)
        self.results = channels // math.prod(self.fine)
        shape = self._shape = Shape.of(channels, math.prod(self.fine))
        self._code = by_tiles(self._channels, channels, self._depth, _three(self.fine))
        # the shuffle wants (c, part) and the code (part, c)
        order = torch.arange(channels).reshape(self.results, -1).T.flatten()
        self._weights = _transformed(module, order, shape)
        self._bias = (torch.zeros(channels) if module.bias is None else module.bias.detach())[order].clone()
        slopes = torch.as_tensor(1.0 if slope is None else slope, dtype=torch.float32).detach().reshape(-1)
        self._slope = slopes.expand(channels)[order].clone()

    def __call__(self, x: Addresses, y: Tensor, other: Addresses | None = None, *, threads: int = 1) -> None:
        """As every filter's; some planes at a time, so that those rows of them that tiles share stay in the cache."""
        if y.dim() == 3:
            x, y, other = x[None], y[None], None if other is None else other[None]
        depth, fine = x.shape[0] - self._depth + 1, _three(self.fine)[0]
        row_bytes = 4 * y.shape[2] * self._channels
        most = max(_FEWEST_PLANES, _CACHE_BYTES // (12 * row_bytes) - self._depth)
        for z in range(0, depth, most):
            stop = min(z + most, depth)
            added = None if other is None else other[z:stop]
            self._planes(x[z : stop + self._depth - 1], y[z * fine : stop * fine], added, threads)

    def _planes(self, x: Addresses, y: Tensor, other: Addresses | None, threads: int) -> None:
        x, other = np.ascontiguousarray(x), None if other is None else np.ascontiguousarray(other)
        planes = x.shape[0]
        depth, rows, columns = (n // f for n, f in zip(y.shape[:-1], _three(self.fine), strict=True))
        across = -(-columns // _TILE)
        total = -(-rows // _TILE) * across
        rows_at_once = self._shape.rows
        fitting = _CACHE_BYTES // (36 * planes * (self._channels + self._shape.padded) * 4)
        most = max(1, fitting // rows_at_once) * rows_at_once
        pixel = self._bias.data_ptr(), self._slope.data_ptr(), 0 if other is None else other.ctypes.data

        def run(first: int, last: int) -> None:
            block = min(most, last - first)
            lines = -(-block // rows_at_once) * rows_at_once
            tiles = _space("tiles", 36 * planes * lines * self._channels)
            product = _space("product", 36 * planes * lines * self._shape.padded)
            self._code(
                *(x.ctypes.data, x.shape[1], planes, across, first, last, block, self._weights.data_ptr()),
                *(y.data_ptr(), y.stride(1), y.stride(0), depth, rows, columns, *pixel),
                *(tiles.data_ptr(), product.data_ptr(), lines),
            )

        _shared(run, total, planes * self._weights.numel(), threads)


def _transformed(module: AnyConv, order: Tensor, shape: Shape) -> Tensor:
    """The weights of 3 x 3 pixels as those of 6 x 6, by panels; kept for as long as they are the same.

    A batch of small images would otherwise spend more time here than some of its images take.
    """
    from sciSR.filter_code import WEIGHT

    weight = module.weight.detach()[order]
    before, panels = _kept.get(module, (None, None))
    if before is not None and panels is not None and torch.equal(before, weight):
        return panels
    g = torch.from_numpy(WEIGHT)
    planes = weight.double() if weight.dim() == 5 else weight.double()[:, :, None]
    six = torch.einsum("ai,kczij,bj->abzck", g, planes, g)
    six = nn.functional.pad(six, (0, shape.slices * shape.padded - six.shape[-1]))
    parts = six.reshape(36, -1, shape.slices, shape.padded // shape.panel, shape.panel)
    panels = parts.permute(2, 0, 3, 1, 4).float().contiguous()
    _kept[module] = weight, panels
    return panels


class FewFilter(Filter):
    """A convolution of any odd kernel from many channels into a few.

    Args:
        module: one that :func:`is_few`.
    """

    def __init__(self, module: AnyConv) -> None:
        from sciSR.filter_code import to_few

        kernel, channels = _three(module.kernel_size), int(module.out_channels)
        weights = module.weight.detach().movedim(1, -1).movedim(0, -2)
        bias = torch.zeros(channels) if module.bias is None else module.bias.detach()
        self.planes = kernel[0] if kernel[0] * channels <= _FEW else 1
        self.margins = tuple(int(p) for p in module.padding)
        if self.planes > 1:
            kernel, self.margins = (1, *kernel[1:]), (0, *self.margins[1:])
            weights = weights.movedim(0, -3).flatten(-3, -2)
            bias = torch.zeros(self.planes, channels).index_fill_(0, torch.tensor(self.planes // 2), 1.0) * bias
        self.tile = self.fine = (1,) * len(module.kernel_size)
        self.results = channels * self.planes
        self._code = to_few(int(module.in_channels), self.results, kernel)
        self._weights, self._bias = weights.contiguous(), bias.flatten().clone()

    def __call__(self, x: Addresses, y: Tensor, other: Addresses | None = None, *, threads: int = 1) -> None:
        """As every filter's."""
        assert other is None, "it adds nothing"
        if y.dim() == 3:
            x, y = x[None], y[None]
        x = np.ascontiguousarray(x)
        depth, rows, columns = y.shape[:-1]

        def run(first: int, last: int) -> None:
            self._code(
                *(x.ctypes.data, x.shape[1], self._weights.data_ptr(), self._bias.data_ptr()),
                *(y.data_ptr(), y.stride(1), y.stride(0), rows, columns, first, last),
            )

        _shared(run, depth * rows, columns * self._weights.numel(), threads)


def _three(numbers: Sequence[int]) -> tuple[int, int, int]:
    """Two numbers with a one before them, or three as they are."""
    z, y, x = (1, *numbers) if len(numbers) == 2 else numbers
    return int(z), int(y), int(x)


def _shared(run: Callable[[int, int], None], total: int, work: int, threads: int) -> None:
    """``run`` on the numbers below ``total``, shared out among so many threads or fewer.

    Args:
        run: takes the first number and the one after the last.
        total: how many.
        work: multiplications for each.
        threads: at most.
    """
    shares = max(1, min(threads, total, total * work // _LEAST_SHARE))
    cuts = [total * n // shares for n in range(shares + 1)]
    mine, *rest = pairwise(cuts)
    others = [_helpers(os.getpid()).submit(run, *cut) for cut in rest]
    run(*mine)
    wait(others)
    for other in others:
        other.result()


@cache
def _helpers(process: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked child has none of its parent's."""
    return ThreadPoolExecutor(core_count(), thread_name_prefix="sciSR-filter")


def _space(name: str, size: int) -> Tensor:
    """This thread's own memory of that name, so many float32; what is in it is left from before."""
    held: Tensor | None = getattr(_scratch, name, None)
    if held is None or held.numel() < size:
        held = torch.zeros(size)  # zeros: what lies between the lines in use is multiplied as well
        setattr(_scratch, name, held)
    return held[:size]

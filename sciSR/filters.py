"""Convolutions of 3 x 3 pixels at a quarter of the multiplications: Winograd's minimal filtering, F(4 x 4, 3 x 3).

Source: Lavin and Gray 2016, arXiv:1509.09308; as there, the products are 36 matrix products, here of tiles that lie in
the processor's second cache. In three dimensions x and y are transformed, and the planes of z are summed up as they
are. float32 on CPUs only; a result differs from the plain convolution's by some 1e-6 of its range.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

__all__ = ["TILE", "WinogradFilter", "is_available", "space", "suits"]

TILE = 4
"""Pixels along y and x that are computed together."""

_CACHE_BYTES = 2**19
"""What the transformed tiles and their products may take: well within the second cache of a core."""
_FEWEST_CHANNELS = 8
"""With fewer, the transforms cost more than the products save."""
_scratch = threading.local()


def is_available() -> bool:
    """Whether the compiler of the loops is installed here."""
    try:
        import numba  # noqa: F401 - takes a third of a second
    except ImportError:
        return False
    return True


def suits(module: nn.Module) -> bool:
    """Whether a convolution is one that :class:`WinogradFilter` computes: dense, 3 x 3 pixels, zeros at the edges."""
    if not isinstance(module, nn.Conv2d | nn.Conv3d) or isinstance(module.padding, str):
        return False
    plain = set(module.stride) == set(module.dilation) == {1} and module.groups == 1 and module.padding_mode == "zeros"
    sides = module.kernel_size[-2:] == (3, 3) and module.padding[-2:] == (1, 1)
    deep = module.kernel_size[0] == 2 * int(module.padding[0]) + 1
    enough = min(module.in_channels, module.out_channels) >= _FEWEST_CHANNELS
    on_cpu = module.weight.device.type == "cpu" and module.weight.dtype == torch.float32
    return bool(plain and sides and deep and enough and on_cpu)


class WinogradFilter:
    """A convolution with its weights transformed, and the activation that follows it.

    Args:
        module: one that :func:`suits`.
        slope: of the activation for negative values, one or one per channel (0: ReLU); None: no activation.
    """

    def __init__(self, module: nn.Conv2d | nn.Conv3d, slope: float | Tensor | None = None) -> None:
        from sciSR.filter_code import WEIGHT, Shape, convolution

        self.depth = int(module.kernel_size[0]) if isinstance(module, nn.Conv3d) else 1
        self.channels, self.results = int(module.in_channels), int(module.out_channels)
        self._shape = Shape.of(self.results)
        self._run = convolution(self.channels, self.results, self.depth)
        weight = module.weight.detach().double()
        g = torch.from_numpy(WEIGHT)
        six = torch.einsum("ai,kczij,bj->abzck", g, weight if weight.dim() == 5 else weight[:, :, None], g)
        six = six.reshape(36, self.depth * self.channels, self.results)
        filled = nn.functional.pad(six, (0, self._shape.padded - self.results))
        self._weights = filled.reshape(36, len(six[0]), -1, self._shape.panel).transpose(1, 2).float().contiguous()
        self._bias = torch.zeros(self.results) if module.bias is None else module.bias.detach().clone()
        slopes = torch.as_tensor(1.0 if slope is None else slope, dtype=torch.float32).detach().reshape(-1)
        self._slope = slopes.expand(self.results).clone()

    @property
    def nbytes(self) -> int:
        """Memory of the transformed weights."""
        return int(self._weights.nbytes)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """Compute one image.

        Args:
            x: ``(planes, y, x, c)`` float32, contiguous, with a margin of one pixel and whole tiles along y and x.
            y: ``(planes - depth + 1, y, x, results)`` float32, contiguous, without margin; written.
        """
        planes = x.shape[0]
        _, rows, columns, _ = y.shape
        across = -(-columns // TILE)
        total = -(-rows // TILE) * across
        block = min(total, self._block(planes))
        lines = block * planes + self.depth - 1 + self._shape.rows
        tiles, product = space("tiles", 36 * lines * self.channels), space("product", 36 * lines * self._shape.padded)
        self._run(
            *(x.data_ptr(), x.stride(1), x.stride(0), planes, across, 0, total, block),
            *(self._weights.data_ptr(), self._bias.data_ptr(), self._slope.data_ptr()),
            *(y.data_ptr(), y.shape[0], rows, columns, tiles.data_ptr(), product.data_ptr(), lines),
        )

    def _block(self, planes: int) -> int:
        """Tiles that are transformed together."""
        return int(max(1, _CACHE_BYTES // (36 * planes * (self.channels + self._shape.padded) * 4)))


def space(name: str, size: int) -> Tensor:
    """This thread's own memory of that name, so many float32 or more; what is in it is left from before."""
    held: Tensor | None = getattr(_scratch, name, None)
    if held is None or held.numel() < size:
        held = torch.zeros(size)  # zeros: what lies between the lines in use is multiplied as well
        setattr(_scratch, name, held)
    return held[:size]

"""Convolutions in machine code of our own: PyTorch's results, for any channels, sizes, kernels and threads."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sciSR import filters
from sciSR.filter_rows import SummedRows
from sciSR.filters import AnyConv, FewFilter, Filter, TileFilter, addresses, is_few, is_tiled
from sciSR.networks.shuffle import pixel_shuffle_nd

pytest.importorskip("llvmlite")


def _convolution(ndim: int, channels: int, results: int, kernel: int | tuple[int, ...] = 3, **how: object) -> AnyConv:
    sides = kernel if isinstance(kernel, tuple) else (kernel,) * ndim
    kind = nn.Conv2d if ndim == 2 else nn.Conv3d
    module = kind(channels, results, sides, padding=tuple(k // 2 for k in sides), **how)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(channels)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
    return module.requires_grad_(False)


def _filtered(filters: Filter, x: torch.Tensor) -> torch.Tensor:
    """What a filter makes of ``x (c, [z,] y, x)``; numbers that must not be used lie around the result."""
    size = x.shape[1:]
    padded = (-(-n // t) * t + 2 * m for n, t, m in zip(size, filters.tile, filters.margins, strict=True))
    source = torch.zeros(*padded, x.shape[0])
    source[tuple(slice(m, m + n) for m, n in zip(filters.margins, size, strict=True))] = x.movedim(0, -1)
    shape = (*(n * f for n, f in zip(size, filters.fine, strict=True)), filters.results)
    around = torch.full((int(np.prod(shape)) + 128,), 7.0)
    result = around[64:-64].view(shape)
    filters(addresses(source), result)
    assert (around[:64] == 7).all()
    assert (around[-64:] == 7).all()
    return result.movedim(-1, 0)


def _summed(filters: FewFilter, x: torch.Tensor) -> torch.Tensor:
    """The results of a filter that leaves the sum over planes to be made."""
    parts = _filtered(filters, x)
    if filters.planes == 1:
        return parts
    results = SummedRows(filters.planes).step([parts[None]], True)
    assert results is not None
    return results[0]


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


SIZES = [(1, 1), (4, 4), (5, 3), (9, 22), (40, 37), (1, 1, 1), (2, 5, 4), (5, 8, 9), (13, 7, 21)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(8, 8), (24, 40), (64, 16)], ids=str)
def test_tiles_give_the_convolution(channels: tuple[int, int], size: tuple[int, ...]) -> None:
    module = _convolution(len(size), *channels)
    assert is_tiled(module)
    x = torch.randn(channels[0], *size, generator=torch.Generator().manual_seed(1))
    _close(_filtered(TileFilter(module), x), module.double()(x.double()).float())


@pytest.mark.parametrize("depth", [1, 5])
def test_planes_of_weights_may_be_any_odd_number(depth: int) -> None:
    module = _convolution(3, 16, 8, (depth, 3, 3))
    x = torch.randn(16, 6, 7, 10, generator=torch.Generator().manual_seed(1))
    _close(_filtered(TileFilter(module), x), module(x))


@pytest.mark.parametrize("fine", [(2, 2), (3, 3), (1, 4), (2, 1, 1), (2, 2, 2)], ids=str)
def test_the_pixel_shuffle_is_taken_along(fine: tuple[int, ...]) -> None:
    module = _convolution(len(fine), 16, 8 * int(np.prod(fine)))
    x = torch.randn(16, *(5, 6, 7)[-len(fine) :], generator=torch.Generator().manual_seed(1))
    _close(_filtered(TileFilter(module, fine=fine), x), pixel_shuffle_nd(module(x)[None], fine)[0])


@pytest.mark.parametrize("bias", [True, False])
def test_the_activation_is_taken_along(bias: bool) -> None:
    module = _convolution(2, 8, 16, bias=bias)
    x = torch.randn(8, 6, 7, generator=torch.Generator().manual_seed(1))
    slopes = torch.linspace(-0.5, 2.0, 16)
    plain = module(x)
    _close(_filtered(TileFilter(module, slope=0.0), x), functional.relu(plain))
    _close(_filtered(TileFilter(module, slope=0.2), x), functional.leaky_relu(plain, 0.2))
    _close(_filtered(TileFilter(module, slope=slopes), x), functional.prelu(plain[None], slopes)[0])


@pytest.mark.parametrize(("size", "kernel"), list(itertools.product(SIZES, [3, 5, 9])), ids=str)
def test_few_results_are_the_convolution(size: tuple[int, ...], kernel: int) -> None:
    if len(size) == 3 and kernel == 9:
        pytest.skip("the same code as for 5")
    for results in (1, 4, 6):
        module = _convolution(len(size), 24, results, kernel)
        assert is_few(module)
        x = torch.randn(24, *size, generator=torch.Generator().manual_seed(1))
        _close(_summed(FewFilter(module), x), module(x))


def test_changed_weights_are_seen() -> None:
    module = _convolution(2, 8, 8)
    x = torch.randn(8, 9, 9, generator=torch.Generator().manual_seed(1))
    kept = TileFilter(module)
    _close(_filtered(kept, x), module(x))
    before = module(x)
    module.weight.data.mul_(2)  # PyTorch does not count changes through .data
    _close(_filtered(TileFilter(module), x), module(x))
    _close(_filtered(kept, x), before)
    fine = TileFilter(module, fine=(2, 2))
    _close(_filtered(fine, x), pixel_shuffle_nd(module(x)[None], (2, 2))[0])


def test_what_is_not_finite_stays_so() -> None:
    module = _convolution(2, 8, 8)
    x = torch.zeros(8, 9, 9)
    x[0, 4, 4] = torch.nan
    assert _filtered(TileFilter(module, slope=0.0), x).isnan().any(0)[3:6, 3:6].all()
    assert _filtered(FewFilter(_convolution(2, 8, 1)), x)[0, 3:6, 3:6].isnan().all()


def test_threads_and_blocks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_LEAST_SHARE", 1)
    x = torch.randn(16, 9, 30, 45, generator=torch.Generator().manual_seed(1))
    made = TileFilter(_convolution(3, 16, 32)), FewFilter(_convolution(3, 16, 1))
    results = []
    threads = torch.get_num_threads()
    for count, cache in ((1, 2**19), (3, 2**19), (1, 2**12), (5, 2**22)):
        monkeypatch.setattr(filters, "_CACHE_BYTES", cache)
        torch.set_num_threads(count)
        try:
            results.append([_filtered(f, x) for f in made])
        finally:
            torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1).to(torch.bfloat16),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.Conv2d(16, 3, 1),
        nn.ReLU(),
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(module: nn.Module) -> None:
    assert not is_tiled(module)
    assert not is_few(module)

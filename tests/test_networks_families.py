"""Every family in two and three dimensions: shapes, the cubic start, radius, tiles, training, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sciSR.errors import InputError
from sciSR.networks import build_network, list_networks
from sciSR.networks.checkpoint import load_checkpoint, save_checkpoint
from sciSR.networks.receptive import measure_receptive_radius
from sciSR.networks.spec import SRNetwork
from sciSR.resampling import upsample
from sciSR.tiling import TilePlan
from tests.network_cases import TINY

CASES = [(family, 2, (2, 3)) for family in TINY] + [(family, 3, (2, 1, 1)) for family in TINY]
POOLED = ("imdn", "rcan")
each_case = pytest.mark.parametrize(("family", "ndim", "scale"), CASES)


def make(family: str, ndim: int, scale: object, **changes: Any) -> SRNetwork:
    torch.manual_seed(0)
    return build_network(family, ndim=ndim, in_channels=1, scale=scale, **TINY[family] | changes).eval()


def awake(network: SRNetwork) -> SRNetwork:
    """The same network with nothing at zero, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if not value.any():
                spread = 0.01 if name.endswith("bias") else 0.3
                value.copy_(torch.randn(value.shape, generator=generator) * spread)
    return network


def test_the_table_names_every_family() -> None:
    assert list_networks() == sorted(TINY)


@each_case
def test_untrained_it_is_cubic_upsampling(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = make(family, ndim, scale)
    x = torch.randn(2, 1, *(9, 10, 7)[:ndim])
    with torch.no_grad():
        assert torch.equal(network(x), upsample(x, scale))


@each_case
def test_without_a_skip_the_network_gives_everything(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = make(family, ndim, scale, skip=None, out_channels=2)
    x = torch.randn(1, 1, *(5, 6, 7)[:ndim])
    with torch.no_grad():
        y = network(x)
        assert network.interpolate(x) is None
    assert y.shape == (1, 2, *(n * s for n, s in zip(x.shape[2:], scale, strict=True)))
    assert float(y.std()) > 0
    assert network.spec.out_channels == 2


@each_case
def test_forward_is_interpolation_and_residual(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = awake(make(family, ndim, scale, skip="linear"))
    x = torch.randn(1, 1, *(6, 5, 4)[:ndim])
    with torch.no_grad():
        base, detail = network.interpolate(x), network.residual(x)
        assert base is not None
        assert detail is not None
        torch.testing.assert_close(network(x), base + detail)
        assert float(detail.abs().max()) > 1e-4


@each_case
def test_an_image_of_one_pixel_runs(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = awake(make(family, ndim, scale))
    with torch.no_grad():
        y = network(torch.ones(1, 1, *(1,) * ndim))
    assert y.shape[2:] == scale
    assert y.isfinite().all()


@each_case
def test_the_measured_radius_is_the_specs(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = make(family, ndim, scale, skip=None, **({"pooling": 1} if family in POOLED else {}))
    assert measure_receptive_radius(network) == network.spec.receptive_radius


@each_case
def test_tiles_equal_the_whole(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = awake(make(family, ndim, scale, **({"pooling": 5} if family in POOLED else {})))
    spec = network.spec
    assert spec.exact_tiling
    assert spec.receptive_radius is not None
    side = 2 * spec.receptive_radius[0] + 9
    shape = (side, *(11, 6)[: ndim - 1])
    tile = tuple(-(-t // a) * a for t, a in zip((10, 7, 4)[:ndim], spec.alignment, strict=True))
    x = torch.randn(1, 1, *shape)
    with torch.no_grad():
        whole = network(x)
        span = float(whole.max() - whole.min())
        for part in TilePlan(shape, tile, spec.receptive_radius, scale, spec.alignment):
            y = network(x[(slice(None), slice(None), *part.read)])[(slice(None), slice(None), *part.keep)]
            assert float((y - whole[(slice(None), slice(None), *part.write)]).abs().max()) <= 4e-6 * span


@pytest.mark.parametrize("family", POOLED)
@pytest.mark.parametrize("ndim", [2, 3])
def test_global_attention_says_that_it_cannot_tile(family: str, ndim: int) -> None:
    spec = make(family, ndim, 2).spec
    assert not spec.exact_tiling
    assert spec.receptive_radius is None
    assert spec.window is not None
    assert all(2 * h < w for h, w in zip(spec.halo, spec.window, strict=True))
    with pytest.raises(InputError, match="pooling 4 is not an odd window"):
        make(family, ndim, 2, pooling=4)


@pytest.mark.parametrize("family", POOLED)
def test_a_window_larger_than_the_image_is_global_attention(family: str) -> None:
    x = torch.randn(1, 1, 6, 7)
    whole, local = (awake(make(family, 2, 2, skip=None, pooling=p)) for p in (None, 15))
    with torch.no_grad():
        torch.testing.assert_close(local(x), whole(x), rtol=1e-4, atol=1e-5)


@each_case
def test_a_few_steps_lower_the_loss(family: str, ndim: int, scale: tuple[int, ...]) -> None:
    network = make(family, ndim, scale).train()
    generator = torch.Generator().manual_seed(2)
    low = torch.rand(2, 1, *(8, 8, 4)[:ndim], generator=generator)
    high = 1.3 * upsample(low, scale) + 0.1
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = (network(low) - high).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert all(p.grad is not None for p in network.parameters())


@each_case
def test_it_comes_back_from_its_checkpoint(family: str, ndim: int, scale: tuple[int, ...], tmp_path: Path) -> None:
    network = awake(make(family, ndim, scale))
    path = save_checkpoint(
        network, tmp_path / "n.safetensors", normalization=None, sensor=None, bands=None, provenance={}, name="n"
    )
    loaded = load_checkpoint(path)
    x = torch.randn(1, 1, *(7, 6, 5)[:ndim])
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))
    assert loaded.spec == network.spec


@pytest.mark.parametrize("family", sorted(set(TINY) - {"swinir"}))
def test_low_precision_runs_the_residual(family: str) -> None:
    network = awake(make(family, 2, 2)).to(torch.bfloat16)
    with torch.no_grad():
        detail = network.residual(torch.rand(1, 1, 9, 9, dtype=torch.bfloat16))
    assert detail is not None
    assert detail.dtype == torch.bfloat16

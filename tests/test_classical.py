"""The classical methods' contract: constants, ramps, channels, spec, tiles equal to the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sciSR.classical import CLASSICAL, build_classical
from sciSR.errors import InputError
from sciSR.networks.receptive import measure_receptive_radius
from sciSR.networks.spec import SRNetwork
from sciSR.tiling import TilePlan

INTERPOLATIONS = ["nearest", "linear", "cubic", "lanczos"]
SCALES: list[tuple[int, Any]] = [(2, 2), (2, (3, 1)), (2, {"y": 4, "x": 2}), (3, {"z": 4}), (3, 2)]


def noise(*shape: int) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) > 0.5).double()


def tiles(
    network: SRNetwork, x: Tensor, tile: int, halo: tuple[int, ...]
) -> Iterator[tuple[Tensor, tuple[slice, ...]]]:
    size = tuple(x.shape[2:])
    for part in TilePlan(size, tuple(min(tile, n) for n in size), halo, network.spec.scale):
        yield network(x[(slice(None), slice(None), *part.read)])[(slice(None), slice(None), *part.keep)], part.write


def greatest_tile_error(network: SRNetwork, x: Tensor, tile: int, halo: tuple[int, ...]) -> float:
    whole = network(x)
    span = float(whole.max() - whole.min())
    return max(float((part - whole[(..., *at)]).abs().max()) for part, at in tiles(network, x, tile, halo)) / span


@pytest.mark.parametrize("name", list(CLASSICAL))
@pytest.mark.parametrize(("ndim", "scale"), SCALES)
def test_constant_in_constant_out(name: str, ndim: int, scale: Any) -> None:
    network = build_classical(name, ndim=ndim, scale=scale)
    size = [9, 7, 8][-ndim:]
    out = network(torch.full((1, 1, *size), -1000.0, dtype=torch.float64))
    assert tuple(out.shape[2:]) == tuple(n * s for n, s in zip(size, network.spec.scale, strict=True))
    assert (out + 1000).abs().max() < 1e-6


@pytest.mark.parametrize("name", list(CLASSICAL))
@pytest.mark.parametrize(("ndim", "scale"), SCALES)
def test_spec_says_what_was_asked(name: str, ndim: int, scale: Any) -> None:
    network = build_classical(name, ndim=ndim, scale=scale, in_channels=3)
    spec = network.spec
    assert spec.axes == ("z", "y", "x")[-ndim:]
    assert (spec.in_channels, spec.out_channels, spec.exact_tiling) == (3, 3, True)
    assert spec.receptive_radius is not None
    assert all(h <= r for h, r in zip(spec.halo, spec.receptive_radius, strict=True))
    if name not in ("wiener", "tv"):  # these look to the sides for a direction
        assert all(r == 0 for r, s in zip(spec.receptive_radius, spec.scale, strict=True) if s == 1)
    again = build_classical(name, **network.arguments)
    x = noise(1, 3, *[6, 5, 7][-ndim:])
    assert torch.equal(network(x), again(x))


@pytest.mark.parametrize("name", list(CLASSICAL))
def test_channels_do_not_mix_and_do_not_matter(name: str) -> None:
    x = noise(2, 3, 11, 12)
    network = build_classical(name, ndim=2, scale=2, in_channels=3)
    alone = build_classical(name, ndim=2, scale=2)
    for channel in range(3):
        one = x[:, channel : channel + 1]
        assert (network(x)[:, channel : channel + 1] - alone(one)).abs().max() < 1e-12


@pytest.mark.parametrize("name", list(CLASSICAL))
def test_all_of_it_is_interpolation(name: str) -> None:
    network = build_classical(name, ndim=2, scale=2)
    x = noise(1, 1, 8, 8)
    base: Tensor | None = network.interpolate(x)
    assert base is not None
    assert torch.equal(SRNetwork.forward(network, x), base)


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize(("ndim", "scale"), SCALES)
def test_tiles_equal_the_whole_to_the_bit(name: str, ndim: int, scale: Any) -> None:
    network = build_classical(name, ndim=ndim, scale=scale)
    radius = network.spec.receptive_radius
    assert radius is not None
    x = noise(1, 1, *[13, 19, 17][-ndim:]).float()
    whole = network(x)
    for part, at in tiles(network, x, 5, radius):
        assert torch.equal(part, whole[(..., *at)])


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_stated_radius_is_the_measured_one(name: str) -> None:
    network = build_classical(name, ndim=2, scale=(2, 3))
    assert measure_receptive_radius(network) == network.spec.receptive_radius


@pytest.mark.parametrize("name", [name for name in CLASSICAL if name not in ("nearest", "lanczos", "tv")])
@pytest.mark.parametrize("scale", [2, 3])
def test_ramp_is_met_at_pixel_centres(name: str, scale: int) -> None:
    n = 64
    ramp = ((torch.arange(n, dtype=torch.float64) + 0.5) / n).expand(1, 1, 40, n)
    out = build_classical(name, ndim=2, scale=scale)(ramp)[0, 0]
    world = (torch.arange(n * scale, dtype=torch.float64) + 0.5) / (n * scale)
    inside = slice(20 * scale, -20 * scale)
    assert (out - world)[:, inside].abs().max() < 1e-3 / (n * scale)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("cubik", {}, "did you mean 'cubic'"),
        ("cubic", {"iterations": 3}, "no argument 'iterations'; it has none"),
        ("ibp", {"steps": 3}, "it has iterations, clamp"),
        ("ibp", {"iterations": -1}, "iterations -1"),
        ("ibp", {"clamp": -0.5}, "clamp -0.5"),
        ("cubic", {"ndim": 4}, "ndim 4"),
        ("cubic", {"in_channels": 0}, "in_channels 0"),
        ("cubic", {"scale": 2.5}, "2.5 on axis y is not whole"),
        ("cubic", {"scale": (2, 2, 2)}, "3 factors came for 2 axes"),
        ("ibp", {"sensor": "mri-thick"}, "axis y has no profile"),
    ],
)
def test_wrong_requests_are_refused(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_classical(name, **({"ndim": 2, "scale": 2} | arguments))

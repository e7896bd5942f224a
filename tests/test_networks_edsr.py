"""EDSR: paper's sizes, the cubic start, shapes per axis, radius, tiles, training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from sciSR.errors import InputError
from sciSR.networks import build_network
from sciSR.networks.receptive import measure_halo, measure_receptive_radius
from sciSR.resampling import upsample
from sciSR.tiling import TilePlan


def tiny(**changes: object) -> object:
    arguments = {"ndim": 2, "in_channels": 1, "scale": 2, "features": 4, "blocks": 2} | changes
    return build_network("edsr", **arguments)  # type: ignore[arg-type]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("scale", "published"),
    # counted by hand from the paper's table 1: 3x3 convolutions of 64 features, biases included
    [(2, 1_369_859), (3, 1_554_499), (4, 1_517_571)],
)
def test_the_baseline_has_the_papers_size(scale: int, published: int) -> None:
    assert parameters(build_network("edsr", ndim=2, in_channels=3, scale=scale, skip=None)) == published


def test_the_large_network_has_the_papers_size() -> None:
    network = build_network("edsr", ndim=2, in_channels=3, scale=2, features=256, blocks=32, skip=None)
    assert parameters(network) == 40_729_603


def test_forward_is_the_papers() -> None:
    torch.manual_seed(0)
    network = build_network(
        "edsr", ndim=2, in_channels=3, scale=4, features=6, blocks=2, residual_scale=0.1, skip=None,
        mean=(0.4488, 0.4371, 0.4040), value_range=255.0,
    )  # fmt: skip
    w = list(network.parameters())
    x = torch.rand(1, 3, 5, 6) * 255

    def c(y: torch.Tensor, k: int) -> torch.Tensor:
        return functional.conv2d(y, w[2 * k], w[2 * k + 1], padding=1)

    mean = torch.tensor([0.4488, 0.4371, 0.4040]).reshape(1, 3, 1, 1) * 255
    h = c(x - mean, 0)
    y = h
    for block in range(2):
        y = y + 0.1 * c(torch.relu(c(y, 1 + 2 * block)), 2 + 2 * block)
    y = h + c(y, 5)
    y = functional.pixel_shuffle(c(y, 6), 2)
    y = functional.pixel_shuffle(c(y, 7), 2)
    torch.testing.assert_close(network(x), c(y, 8) + mean)


@pytest.mark.parametrize("scale", [{"z": 4}, {"y": 2, "x": 3}, 2, {"z": 2, "y": 1, "x": 4}])
def test_untrained_it_is_cubic_upsampling_on_any_scale(scale: object) -> None:
    network = build_network("edsr", ndim=3, in_channels=2, scale=scale, features=4, blocks=1)
    x = torch.randn(1, 2, 3, 4, 5)
    assert torch.equal(network(x), upsample(x, network.spec.scale))


def test_a_linear_or_nearest_skip_may_be_had() -> None:
    x = torch.randn(1, 1, 4, 5)
    for kernel in ("linear", "nearest"):
        network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1, skip=kernel)
        assert torch.equal(network(x), upsample(x, (2, 2), kernel=kernel))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("skip", ["cubic", None])
def test_gives_the_channels_and_pixels_asked_for(ndim: int, skip: str | None) -> None:
    network = build_network("edsr", ndim=ndim, in_channels=3, scale=3, features=4, blocks=1, skip=skip)
    assert network(torch.zeros(2, 3, *range(4, 4 + ndim))).shape == (2, 3, *(3 * n for n in range(4, 4 + ndim)))


def test_other_channels_out_need_no_skip() -> None:
    network = build_network("edsr", ndim=2, in_channels=3, out_channels=1, scale=2, features=4, blocks=1, skip=None)
    assert network(torch.zeros(1, 3, 4, 4)).shape == (1, 1, 8, 8)
    with pytest.raises(InputError, match="skip=None"):
        build_network("edsr", ndim=2, in_channels=3, out_channels=1, scale=2)


def test_one_pixel_axes_run() -> None:
    network = build_network("edsr", ndim=3, in_channels=1, scale=2, features=4, blocks=1)
    assert network(torch.ones(1, 1, 1, 1, 1)).allclose(torch.ones(1, 1, 2, 2, 2))


@pytest.mark.parametrize(
    ("ndim", "scale", "skip"),
    [
        (2, 1, None),
        (2, 2, "cubic"),
        (2, 3, None),
        (2, 4, None),
        (2, (1, 3), None),
        (3, (4, 1, 1), "cubic"),
        (3, 2, None),
    ],
)
def test_the_measured_radius_is_the_specs(ndim: int, scale: object, skip: str | None) -> None:
    network = build_network("edsr", ndim=ndim, in_channels=1, scale=scale, features=2, blocks=1, skip=skip)
    assert measure_receptive_radius(network) == network.spec.receptive_radius


def test_the_baselines_radius_is_the_known_one() -> None:
    for scale in (2, 3, 4):
        network = build_network("edsr", ndim=2, in_channels=3, scale=scale, features=2, skip=None)
        assert network.spec.receptive_radius == (36, 36)


@pytest.mark.parametrize(("ndim", "scale"), [(2, (2, 2)), (2, (3, 1)), (3, (4, 1, 1))])
def test_tiles_with_the_radius_as_halo_equal_the_whole(ndim: int, scale: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    network = build_network("edsr", ndim=ndim, in_channels=1, scale=scale, features=4, blocks=1, skip="cubic").double()
    nn.init.normal_(network.get_parameter("tail.conv.weight"))
    shape = (23, 17, 19)[:ndim]
    x = torch.randn(1, 1, *shape, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
        plan = TilePlan(shape, (6,) * ndim, network.spec.halo, network.spec.scale)
        for tile in plan:
            part = network(x[(slice(None), slice(None), *tile.read)])[(slice(None), slice(None), *tile.keep)]
            torch.testing.assert_close(part, whole[(slice(None), slice(None), *tile.write)], rtol=0, atol=1e-12)


def test_the_measured_halo_suffices_and_is_no_larger_than_the_radius() -> None:
    torch.manual_seed(2)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=4, skip=None)
    seen: list[tuple[int, int]] = []
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 60, 60), 3, stride=1, padding=1)
    halo = measure_halo(network, [image], progress=lambda done, total: seen.append((done, total)))
    radius = network.spec.receptive_radius
    assert radius is not None
    assert 0 < halo[0] <= radius[0]
    assert halo[0] == halo[1]
    assert seen[-1] == (2, 2)
    x = torch.randn(1, 1, 60, 60).double()
    wide = network.double()
    plan = TilePlan((60, 60), (30, 30), halo, (2, 2))
    with torch.no_grad():
        whole = wide(x)
        worst = max(float((wide(x[:, :, *t.read])[:, :, *t.keep] - whole[:, :, *t.write]).abs().max()) for t in plan)
    assert worst <= 2e-6 * float(whole.max() - whole.min())


@pytest.mark.parametrize("tap", [0, 2])
def test_the_measured_halo_is_the_smallest(tap: int) -> None:
    torch.manual_seed(4)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=2, skip=None)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            # all look at their own pixel; the first two look one pixel away, to one side only
            kept = torch.zeros_like(layer.weight)
            at = tap if number < 2 else 1
            kept[:, :, at, at] = torch.randn(layer.weight.shape[:2])
            layer.weight.copy_(kept)
            layer.bias.zero_() if layer.bias is not None else None
    assert measure_halo(network, [torch.rand(1, 1, 40, 40)]) == (2, 2)


def test_a_halo_needs_a_sample() -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1)
    with pytest.raises(InputError, match="no sample"):
        measure_halo(network, [])


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_few_steps_lower_the_loss(ndim: int) -> None:
    torch.manual_seed(3)
    network = build_network("edsr", ndim=ndim, in_channels=1, scale=2, features=8, blocks=1)
    high = torch.rand(2, 1, *(12,) * ndim)
    low = functional.avg_pool2d(high, 2) if ndim == 2 else functional.avg_pool3d(high, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = (network(low) - high).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 2.5}, "scale: 2.5 on axis y is not whole"),
        ({"scale": {"z": 2}}, "no spatial axis z"),
        ({"scale": (2, 2, 2)}, "3 factors came for 2 axes"),
        ({"ndim": 4}, "ndim 4 came"),
        ({"features": 0}, "features 0"),
        ({"skip": "cubik"}, "skip 'cubik' is not one of"),
        ({"feature": 8}, "did you mean 'features'"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny(**changes)


def test_an_unknown_family_gets_a_near_match() -> None:
    with pytest.raises(InputError, match="did you mean 'edsr'"):
        build_network("edsrr", ndim=2, in_channels=1, scale=2)

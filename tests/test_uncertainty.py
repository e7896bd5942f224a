"""Spread over turns and networks: which turns are allowed, what mean and deviation are, blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR.classical import build_classical
from sciSR.errors import InputError
from sciSR.inference import upscale
from sciSR.networks import build_network
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster
from sciSR.uncertainty import Turn, Turned, ensemble, self_ensemble, turns_for

SQUARE = {"z": 4.0, "y": 1.0, "x": 1.0}


def scene(array: NDArray[Any]) -> Raster:
    return Raster.from_array(array, affine=np.eye(3), axes="cyx")


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def wild(seed: int, **arguments: Any) -> SRNetwork:
    """A small network with random weights everywhere."""
    torch.manual_seed(seed)
    network = build_network("edsr", **({"ndim": 2, "in_channels": 1, "scale": 2} | arguments), features=6, blocks=1)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn_like(value) * 0.2)
    return network


def test_turns_that_physics_allows() -> None:
    plane = build_classical("cubic", ndim=2, scale=2).spec
    thick = build_classical("cubic", ndim=3, scale={"z": 4}).spec
    tall = build_classical("cubic", ndim=2, scale=(2, 1)).spec
    assert len(turns_for(plane, SQUARE)) == 8
    assert len(turns_for(plane, SQUARE, "flips")) == 4
    assert len(turns_for(plane, {"y": 1.0, "x": 1.2})) == 4
    assert len(turns_for(tall, SQUARE)) == 4
    assert len(turns_for(thick, SQUARE)) == 16
    assert turns_for(plane, SQUARE)[0] == Turn()
    with pytest.raises(InputError, match="cannot change places"):
        turns_for(tall, SQUARE, "all")


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("flips", [(), ("y",), ("z", "x")])
def test_turning_back_undoes_turning(flips: tuple[str, ...], swap: bool) -> None:
    x = torch.rand(1, 2, 3, 4, 5)
    turn, axes = Turn(flips, swap), ("z", "y", "x")
    assert torch.equal(turn.undo(turn.apply(x, axes), axes), x)
    assert (flips == () and not swap) or not torch.equal(turn.apply(x, axes), x)


def test_symmetric_methods_have_no_spread() -> None:
    raster = scene(random(2, 20, 23))
    spread = self_ensemble(raster, "ibp", scale=2)
    assert spread.members == 8
    assert spread.std.read().values.max() < 1e-6
    plain = upscale(raster, "ibp", scale=2).read().values
    assert np.abs(spread.mean.read().values - plain).max() < 1e-6


def test_mean_and_deviation_are_those_of_the_members() -> None:
    array = random(1, 14, 17)
    network = wild(0)
    spread = self_ensemble(scene(array), network, precision="float32")
    members = []
    for turn in turns_for(network.spec, SQUARE):
        flipped = array[0]
        for axis in turn.flips:
            flipped = np.flip(flipped, "yx".index(axis))
        flipped = flipped.T if turn.swap else flipped
        with torch.inference_mode():
            out = network(torch.from_numpy(np.ascontiguousarray(flipped))[None, None])[0, 0].numpy()
        out = out.T if turn.swap else out
        for axis in turn.flips:
            out = np.flip(out, "yx".index(axis))
        members.append(out)
    assert np.abs(spread.mean.read().values[0] - np.mean(members, axis=0)).max() < 1e-5
    assert np.abs(spread.std.read().values[0] - np.std(members, axis=0)).max() < 1e-5


def test_tiles_give_the_whole() -> None:
    raster = scene(random(1, 40, 37))
    network = wild(1)
    whole = self_ensemble(raster, network, tile=None, precision="float32")
    tiled = self_ensemble(raster, network, tile=11, exact=True, precision="float32")
    assert np.abs(whole.mean.read().values - tiled.mean.read().values).max() < 1e-5
    assert np.abs(whole.std.read().values - tiled.std.read().values).max() < 1e-5


def test_stream_gives_both_at_once() -> None:
    spread = self_ensemble(scene(random(1, 30, 30)), wild(2), turns="flips", tile=10, precision="float32")
    mean, std = spread.mean.read().values, spread.std.read().values
    covered = np.zeros(mean.shape, int)
    for window, middle, deviation in spread.stream():
        covered[window] += 1
        assert np.array_equal(middle.values, mean[window])
        assert np.array_equal(deviation.values, std[window])
    assert (covered == 1).all()
    for window, block in spread.std.stream():
        assert np.array_equal(block.values, std[window])
    assert len(spread.mean.source.record()["members"]) == 4  # type: ignore[attr-defined]  # a source may have a record
    assert spread.std.encoding.dtype == "float32"


def test_ensemble_of_networks() -> None:
    raster = scene(random(1, 20, 20))
    networks = [wild(seed) for seed in range(3)]
    spread = ensemble(raster, networks, precision="float32")
    each = np.stack([upscale(raster, network, precision="float32").read().values for network in networks])
    assert np.abs(spread.mean.read().values - each.mean(0)).max() < 1e-6
    assert np.abs(spread.std.read().values - each.std(0)).max() < 1e-6
    mixed = ensemble(raster, [networks[0], "cubic"], scale=2, precision="float32")
    parts = {tuple(p.start for p in window): block for window, block in mixed.std.stream()}
    assert sum(block.values.size for block in parts.values()) == 40 * 40


def test_holes_stay_holes() -> None:
    array = random(1, 20, 20)
    array[0, 5, 5] = np.nan
    spread = self_ensemble(scene(array), wild(0), precision="float32")
    for block in (spread.mean.read(), spread.std.read()):
        assert block.valid is not None
        assert not block.valid[0, 10:12, 10:12].any()
        assert block.valid.sum() == 40 * 40 - 4


def test_turned_network_keeps_its_card_and_swaps_its_reach() -> None:
    network = build_classical("ibp", ndim=2, scale=2, sensor={"y": {"fwhm": 3.0}})
    turned = Turned(network, Turn(swap=True))
    assert network.spec.receptive_radius is not None
    assert turned.spec.receptive_radius == network.spec.receptive_radius[::-1]
    assert turned.card is not None
    assert turned.card.name == "ibp"


def test_wrong_requests_are_refused() -> None:
    raster = scene(random(1, 16, 16))
    with pytest.raises(InputError, match="no turns came"):
        self_ensemble(raster, "cubic", turns=[])
    with pytest.raises(InputError, match="no networks came"):
        ensemble(raster, [])
    with pytest.raises(InputError, match="must reach the same grid"):
        ensemble(raster, [wild(0), wild(0, scale=3)])

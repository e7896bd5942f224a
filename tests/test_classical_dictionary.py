"""Sparse coding and A+: the pursuit, the fit, contract and tiles, gain over their base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciSR.classical import build_classical
from sciSR.classical.dictionary import APlus, Dictionary, Sparse, matching_pursuit
from sciSR.classical.examples import inside, pairs, phases, surroundings
from sciSR.classical.fitting import fit_dictionary, surroundings_of_phases
from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.io import open_raster
from sciSR.networks import build_network, load_network
from sciSR.raster import Raster
from tests.made_files import kept
from tests.test_classical import greatest_tile_error, noise
from tests.test_classical_back_projection import psnr
from tests.test_classical_filters import raster

FAMILIES: list[type[Dictionary]] = [Sparse, APlus]
SMALL: dict[str, Any] = {"atoms": 24, "components": 8, "examples": 6000}


def edges(seed: int, size: int = 160) -> Tensor:
    """Straight edges of all directions: what a linear filter cannot sharpen and a dictionary can."""
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    image = np.zeros((size, size))
    for _ in range(12):
        angle, offset, height = random.uniform(0, np.pi), random.uniform(-0.4, 0.4) * size, random.uniform(0.3, 1)
        image += height * ((x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle) > offset)
    return torch.from_numpy(image)


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request: pytest.FixtureRequest) -> Dictionary:
    found: Dictionary = fit_dictionary(
        request.param, [raster(edges(seed)) for seed in range(3)], ndim=2, scale=2, sensor="mri", **SMALL
    )
    return found


def test_beats_its_base_on_what_it_has_not_seen(fitted: Dictionary) -> None:
    fine = edges(99)[None, None]
    low = load_sensor("mri").apply(fine, 2)
    base = psnr(build_classical("wiener", ndim=2, scale=2, sensor="mri")(low), fine)
    assert psnr(fitted(low), fine) > base + 0.1


def test_a_plus_beats_cubic_by_far_on_a_real_scene(crops: Path) -> None:
    scene = open_raster(crops / "sentinel2_crop.tif")
    network = fit_dictionary(
        APlus, [scene.crop(y=slice(0, 128))], ndim=2, scale=2, sensor="s2", atoms=32, components=12, examples=20000
    )
    fine = torch.from_numpy(scene.crop(y=slice(128, 256)).read().values.astype(np.float32))[:, None]
    low = load_sensor("s2").apply(fine, 2)
    cubic = psnr(build_classical("cubic", ndim=2, scale=2)(low), fine)
    wiener = psnr(build_classical("wiener", ndim=2, scale=2, sensor="s2")(low), fine)
    assert psnr(network(low), fine) > max(cubic + 1.5, wiener - 0.1)


def test_tiles_with_its_halo_are_within_a_millionth(fitted: Dictionary) -> None:
    x = noise(1, 1, 40, 41).float() + torch.rand(1, 1, 40, 41, generator=torch.Generator().manual_seed(1))
    radius = fitted.spec.receptive_radius
    assert radius is not None
    assert greatest_tile_error(fitted, x, 15, fitted.spec.halo) < 1e-6
    assert greatest_tile_error(fitted, x, 15, radius) < 1e-6


def test_constant_in_constant_out_and_channels_apart(fitted: Dictionary) -> None:
    assert (fitted(torch.full((1, 1, 9, 9), -1000.0)) + 1000).abs().max() < 1e-2
    x = noise(2, 3, 12, 13)
    for channel in range(3):
        one = x[:, channel : channel + 1]
        assert (fitted(x)[:, channel : channel + 1] - fitted(one)).abs().max() < 1e-12


def test_contrast_and_level_do_not_matter(fitted: Dictionary) -> None:
    x = noise(1, 1, 16, 16)
    assert (fitted(250 * x - 1000) - (250 * fitted(x) - 1000)).abs().max() < 1e-6 * 250


def test_survives_its_file(fitted: Dictionary, tmp_path: Path) -> None:
    assert fitted.card is not None
    file = kept(fitted, tmp_path / "d.safetensors")
    again = load_network(file)
    x = noise(1, 1, 12, 12)
    assert torch.equal(again(x), fitted(x))
    assert again.card is not None
    assert again.card.provenance["examples"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_volumes_too(family: type[Dictionary]) -> None:
    random = np.random.default_rng(0)
    values = torch.from_numpy(np.cumsum(random.normal(size=(24, 30, 30)), axis=0))
    network = fit_dictionary(
        family, [raster(values)], ndim=3, scale={"z": 4}, sensor="mri-thick", atoms=8, components=6, examples=2000
    )
    assert network.spec.scale == (4, 1, 1)
    x = noise(1, 1, 24, 9, 9).float()
    assert network(x).shape == (1, 1, 96, 9, 9)
    assert greatest_tile_error(network, x, 8, network.spec.halo) < 1e-6


@pytest.mark.parametrize("family", ["sparse", "a-plus"])
def test_unfitted_is_the_base(family: str) -> None:
    x = noise(1, 1, 12, 12)
    network = build_network(family, ndim=2, in_channels=1, scale=2, base="ibp", sensor="box")
    assert (network(x) - build_classical("ibp", ndim=2, scale=2, sensor="box")(x)).abs().max() < 1e-12


def test_pursuit_finds_the_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    codes = torch.zeros(50, 12, dtype=torch.float64)
    for row in codes:
        row[torch.randperm(12, generator=generator)[:3]] = torch.rand(3, generator=generator, dtype=torch.float64) + 0.5
    index, weight = matching_pursuit(codes @ shapes.T, shapes, 3)
    assert (torch.zeros_like(codes).scatter_(1, index, weight) - codes).abs().max() < 1e-9
    _, nothing = matching_pursuit(torch.zeros(4, 12, dtype=torch.float64), shapes, 3)
    assert torch.equal(nothing, torch.zeros_like(nothing))


def test_examples_are_what_they_say() -> None:
    values = edges(0, 24)
    holed = values.clone()
    holed[4, 4] = float("nan")
    (pair,) = pairs([raster(holed)], (2, 3), "box")
    assert pair.fine.shape == (1, 1, 24, 24)
    assert pair.low.shape == (1, 1, 12, 8)
    assert (~pair.valid).nonzero().tolist() == [[0, 0, 2, 1]]
    told = phases(pair.fine, (2, 3))
    assert torch.equal(told[0, 5, 4], pair.fine[0, 0, 10:12, 12:15].flatten())
    around = surroundings(pair.low, (1, 2))
    assert torch.equal(around[0, 5, 4], pair.low[0, 0, 4:7, 2:7].flatten())
    ok = inside(pair.valid, (1, 1))
    assert (~ok).sum() == 9
    both = surroundings_of_phases(told, (1, 1)).reshape(1, 12, 8, 9, 6)
    assert torch.equal(both[0, 5, 4, 2], told[0, 4, 5])


def test_examples_of_many_kinds_of_raster() -> None:
    array = np.random.default_rng(0).random((2, 3, 20, 21, 22)).astype(np.float32)
    series = Raster.from_array(array[:, 0], affine=np.eye(4), axes="tzyx")
    assert sum(p.low.shape[0] for p in pairs([series], (2, 2, 2), None)) == 2
    assert sum(p.low.shape[0] for p in pairs([series], (2, 2), None)) == 40
    scene = Raster.from_array(array[0, :, 0], affine=np.eye(3), axes="cyx", channels=("B02", "B05", "B8A"))
    found = list(pairs([scene], (2, 2), "s2"))
    assert len(found) == 3
    wanted = load_sensor("s2").for_channels(["B05"]).apply(found[1].fine, 2)
    assert (found[1].low - wanted).abs().max() < 1e-6
    with pytest.raises(InputError, match="no raster came"):
        list(pairs([], (2, 2), None))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"base": "edsr"}, "base 'edsr'"),
        ({"components": 30}, "30 components"),
        ({"atoms": 0}, "0 atoms"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        APlus(ndim=2, scale=2, **arguments)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(InputError, match="give more or larger rasters"):
        fit_dictionary(APlus, [raster(edges(0, 16))], ndim=2, scale=2, atoms=512)
    with pytest.raises(InputError, match="no example without holes"):
        fit_dictionary(APlus, [], ndim=2, scale=2)

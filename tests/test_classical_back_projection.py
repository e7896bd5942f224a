"""Back-projection: it explains its input, beats cubic on real scans, and its halo holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from sciSR.classical import build_classical
from sciSR.degradation import load_sensor
from sciSR.io import open_raster
from tests.test_classical import greatest_tile_error, noise


def smooth(*shape: int) -> Tensor:
    values = np.random.default_rng(0).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(values, (0, 0, *[1.5] * (len(shape) - 2)))).double()


def mri(crops: Path, start: int = 0) -> Tensor:
    """A cube of the real T1 head."""
    cube = slice(start, start + 56)
    raster = open_raster(crops / "mri_t1_head_crop.nii.gz").crop(z=cube, y=cube, x=cube)
    return torch.from_numpy(raster.read().values.astype(np.float32))[None, None]


def psnr(a: Tensor, b: Tensor) -> float:
    span = float(b.max() - b.min())
    return float(10 * torch.log10(span**2 / (a - b).pow(2).mean()))


@pytest.mark.parametrize("sensor", ["mri", "box", "s2"])
@pytest.mark.parametrize(("ndim", "scale"), [(2, 2), (2, (4, 1)), (3, {"z": 4}), (3, 2)])
def test_sensor_sees_the_input_again(sensor: str, ndim: int, scale: Any) -> None:
    fine = smooth(1, 1, *[16, 24, 24][-ndim:])
    seen = load_sensor(sensor)
    low = seen.apply(fine, scale)
    span = float(low.max() - low.min())

    def rest(name: str, **arguments: Any) -> float:
        network = build_classical(name, ndim=ndim, scale=scale, **arguments)
        return float((seen.apply(network(low), scale) - low).pow(2).mean().sqrt()) / span

    assert rest("ibp", sensor=sensor) < 0.15 * rest("cubic")
    assert rest("ibp", sensor=sensor, iterations=40) < 3e-3
    assert rest("ibp", sensor=sensor, iterations=0) == pytest.approx(rest("cubic"))


@pytest.mark.parametrize("sensor", ["mri", "box", "s2", "mri-kspace"])
@pytest.mark.parametrize(("ndim", "scale"), [(2, 2), (2, 4), (2, (3, 1))])
def test_tiles_with_its_halo_are_within_a_millionth(sensor: str, ndim: int, scale: Any) -> None:
    network = build_classical("ibp", ndim=ndim, scale=scale, sensor=sensor)
    assert greatest_tile_error(network, noise(1, 1, 70, 64), 23, network.spec.halo) < 1e-6


def test_volume_tiles_with_its_halo_are_within_a_millionth() -> None:
    network = build_classical("ibp", ndim=3, scale={"z": 4, "y": 1, "x": 1}, sensor="mri-thick")
    assert greatest_tile_error(network, noise(1, 1, 48, 9, 9), 16, network.spec.halo) < 1e-6
    cube = build_classical("ibp", ndim=3, scale=2, sensor="mri")
    assert greatest_tile_error(cube, noise(1, 1, 34, 12, 12), 17, cube.spec.halo) < 1e-6


@pytest.mark.parametrize("clamp", [None, 0.5])
def test_tiles_with_the_receptive_radius_equal_the_whole(clamp: float | None) -> None:
    network = build_classical("ibp", ndim=2, scale=2, sensor="mri", iterations=3, clamp=clamp)
    radius = network.spec.receptive_radius
    assert radius is not None
    assert greatest_tile_error(network, noise(1, 1, 60, 30), 20, radius) < 1e-15


def test_beats_cubic_on_a_real_scan(crops: Path) -> None:
    fine = mri(crops)
    low = load_sensor("mri").apply(fine, 2)
    cubic = psnr(build_classical("cubic", ndim=3, scale=2)(low), fine)
    assert psnr(build_classical("ibp", ndim=3, scale=2, sensor="mri")(low), fine) > cubic + 1.0


def test_clamp_keeps_to_the_neighbours_range() -> None:
    low = noise(1, 1, 24, 24)
    out = build_classical("ibp", ndim=2, scale=2, clamp=0.0)(low)
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    free = build_classical("ibp", ndim=2, scale=2)(low)
    assert float(free.max()) > 1.01

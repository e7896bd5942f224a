"""Which patches stand for a raster when its network is quantised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR.backends import prepare
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.plans import find_target, plan_tiles
from sciSR.precision import calibration_patches
from sciSR.raster import Raster
from sciSR.tiles import TileJob
from tests.test_inference import _network


def _job(raster: Raster, network: SRNetwork) -> TileJob:
    target = find_target(raster, network.spec, None)
    plan, fill = plan_tiles(raster, network.spec, target, "auto", False, "cpu")
    runner = prepare(network, torch.device("cpu"), "float32")
    return TileJob(raster, runner, plan, Normalization().fit(raster), target.order, fill)


def _smooth(shape: tuple[int, ...]) -> NDArray[np.float32]:
    ramps = np.meshgrid(*(np.linspace(0, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    total: NDArray[np.float32] = np.stack(ramps).sum(axis=0)
    return total


@pytest.mark.parametrize("at", [(60, 300), (200, 90), (330, 410), (480, 480)])
def test_a_small_bright_spot_is_among_the_patches_of_a_scene(at: tuple[int, int]) -> None:
    values = _smooth((560, 560))
    values[at[0] : at[0] + 6, at[1] : at[1] + 6] = 50
    raster = Raster.from_array(values[None], affine=np.diag([10, -10, 1.0]), axes="cyx")
    patches = calibration_patches(_job(raster, _network(ndim=2, in_channels=1, scale=2)))
    assert patches[0].max() == 50
    assert 16 <= len(patches) <= 27


@pytest.mark.parametrize("at", [(15, 20, 70), (60, 60, 30)])
def test_a_small_bright_spot_is_among_the_patches_of_a_volume(at: tuple[int, int, int]) -> None:
    values = _smooth((96, 96, 96))
    values[tuple(slice(a, a + 4) for a in at)] = 50
    raster = Raster.from_array(values, affine=np.eye(4), axes="zyx")
    patches = calibration_patches(_job(raster, _network(ndim=3, in_channels=1, scale=2)))
    assert patches[0].max() == 50
    assert 16 <= len(patches) <= 27


def test_patches_avoid_holes_and_fit_small_images() -> None:
    values = _smooth((70, 90))
    values[:20] = np.nan
    raster = Raster.from_array(values[None], affine=np.diag([10, -10, 1.0]), axes="cyx")
    job = _job(raster.crop(y=slice(30, 70)), _network(ndim=2, in_channels=1, scale=2))
    patches = calibration_patches(job)
    assert {patch.shape for patch in patches} == {(1, 1, 40, 40)}
    assert all(np.isfinite(patch).all() for patch in patches)
    holed = calibration_patches(_job(raster, _network(ndim=2, in_channels=1, scale=2)))
    assert all(np.isfinite(patch).all() for patch in holed)

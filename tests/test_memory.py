"""Estimates of memory: what they grow with, and that they are not far from what torch allocates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciSR import memory
from sciSR.config import EvaluateSection
from sciSR.inference import upscale
from sciSR.memory import activation_load, available_memory, needed_memory
from sciSR.networks import build_network
from sciSR.raster import Raster


def scene(side: int, bands: int = 1) -> Raster:
    return Raster.from_array(np.zeros((bands, side, side), np.float32), affine=np.eye(3), axes="cyx")


def test_the_load_of_a_network_is_that_of_its_layers() -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=16, blocks=2)
    widest, total = activation_load(network)
    # the last layer of features before the pixels are laid out: 16 in and 4 x 16 out per input pixel
    assert 16 + 16 <= widest <= 16 + 16 * 4 + 64
    assert total > widest
    assert activation_load(build_network("edsr", ndim=2, in_channels=1, scale=2, features=32, blocks=2))[0] > widest


def test_the_estimate_grows_with_the_tile_and_not_with_the_scene() -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=16, blocks=2)

    def need(side: int, tile: int | None) -> int:
        raster = scene(side)
        result = upscale(raster, network, tile=tile, precision="float32")
        return needed_memory(raster, result, network, result.source.record())  # type: ignore[attr-defined]  # of the engine

    assert need(1024, 256) == pytest.approx(need(4096, 256), rel=0.01)
    assert need(1024, 512) > need(1024, 128)
    assert need(1024, None) > need(1024, 512)


def test_judging_by_wald_counts() -> None:
    raster = scene(2048)
    result = upscale(raster, "cubic", scale=2)
    plain = needed_memory(raster, result, "cubic", {})
    judged = needed_memory(raster, result, "cubic", {}, EvaluateSection())
    assert judged >= plain
    assert judged >= 5 * 4 * 2048**2


def test_the_machine_tells_what_is_free() -> None:
    free = available_memory()
    assert free is None or 2**20 < free < 2**50


def test_a_group_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_machine_memory", lambda: 10**9)
    monkeypatch.setattr(memory, "_group_memory", lambda: 10**6)
    assert available_memory() == 10**6
    monkeypatch.setattr(memory, "_group_memory", lambda: None)
    assert available_memory() == 10**9
    monkeypatch.setattr(memory, "_machine_memory", lambda: None)
    assert available_memory() is None

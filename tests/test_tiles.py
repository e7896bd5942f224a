"""Tiles on a device whose memory runs out: before the run, in the middle of it, on one device of several."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sciSR.backends import Runner, RunnerPool
from sciSR.derived import DerivedSource
from sciSR.errors import ResourceError, RunError
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.journal import journal_key
from sciSR.networks import build_network
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Block, Raster, Window
from sciSR.tiles import UpscaledSource, fitting_plan
from tests.test_inference import TOLERANCE, _network, _scene, _streamed, _volume

EXAMPLES = Path(__file__).parents[1] / "examples" / "data"


class Memory:
    """Room for so many input values at once; some of it may be taken after a number of calls."""

    def __init__(self, room: int, *, later: int | None = None, calls: int = 2) -> None:
        self.room, self.later, self.calls = room, later, calls
        self.seen: list[tuple[int, ...]] = []
        self._lock = threading.Lock()

    def over(self, residual: Callable[[Tensor], Tensor | None]) -> Callable[[Tensor], Tensor | None]:
        def limited(x: Tensor) -> Tensor | None:
            with self._lock:
                self.seen.append(tuple(x.shape))
                taken = self.later is not None and len(self.seen) > self.calls
            if x.numel() > (self.later if taken and self.later is not None else self.room):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return residual(x)

        return limited


def _on(result: Raster, *memories: Memory) -> Raster:
    """The same result on devices with these memories: the runner is the real one, its residual may find no room."""
    source = result.source
    assert isinstance(source, UpscaledSource)
    runner = source.job.runner
    assert isinstance(runner, Runner)
    each = [replace(runner, compiled=memory.over(runner.residual_network.residual)) for memory in memories]
    job = replace(source.job, runner=each[0] if len(each) == 1 else RunnerPool(each), shortages=Counter())
    return result.replace(source=UpscaledSource(job, workers=source.workers, facts=source.facts))


def _counts(result: Raster) -> dict[str, int]:
    return dict(result.source.record()["out_of_memory"])  # type: ignore[attr-defined]


def test_memory_taken_in_the_middle_of_a_run_costs_time_alone(tmp_path: Path) -> None:
    raster = open_raster(EXAMPLES / "sentinel2_crop.tif").crop(y=slice(0, 100), x=slice(0, 130))
    network = _network(ndim=2, in_channels=4, scale=2)
    result = upscale(raster, network, tile=48, precision="float32", workers=2)
    memory = Memory(10**9, later=4 * 42 * 42)
    short = _on(result, memory)
    key = journal_key(short)
    save_raster(result, tmp_path / "all.tif", dtype="float32")
    save_raster(short, tmp_path / "short.tif", dtype="float32")
    expected, got = (open_raster(tmp_path / f"{name}.tif").read().values for name in ("all", "short"))
    assert np.abs(got - expected).max() <= TOLERANCE * np.ptp(expected)
    assert _counts(result) == {}
    assert _counts(short)["tiles_cut"] >= 3
    record = result.source.record()  # type: ignore[attr-defined]
    assert record["plan"] == short.source.record()["plan"]  # type: ignore[attr-defined]
    assert journal_key(short) == key


def test_holes_stay_where_they_are_in_tiles_that_were_cut() -> None:
    result = upscale(_scene(), _network(ndim=2, in_channels=4, scale=2), tile=48, precision="float32")
    expected, valid = _streamed(result)
    got, same = _streamed(_on(result, Memory(4 * 40 * 40)))
    np.testing.assert_array_equal(same, valid)
    assert np.abs(got - expected)[valid].max() <= TOLERANCE * np.ptp(expected[valid])


def test_batches_are_halved_before_tiles_are() -> None:
    result = upscale(_volume(), _network(ndim=2, in_channels=1, scale=2), tile=64, precision="float32")
    expected, _ = _streamed(result)
    memory = Memory(5 * 30 * 27)
    short = _on(result, memory)
    got, _ = _streamed(short)
    assert np.abs(got - expected).max() <= TOLERANCE * np.ptp(expected)
    assert set(_counts(short)) == {"batches_halved"}
    assert {shape[2:] for shape in memory.seen} == {(30, 27)}


@pytest.mark.parametrize("workers", [1, 2])
def test_where_not_even_a_small_tile_fits_the_run_ends_with_advice(workers: int) -> None:
    result = upscale(
        _scene(holes=False), _network(ndim=2, in_channels=4, scale=2), tile=32, precision="float32", workers=workers
    )
    with pytest.raises(RunError, match=r"scene: .*out of memory on a tile of 16 x 16 .*device cpu") as caught:
        _streamed(_on(result, Memory(10**9, later=50)))
    assert isinstance(caught.value, ResourceError)


def _pooled() -> SRNetwork:
    """A network that looks at its whole window."""
    network = build_network("rcan", ndim=2, in_channels=4, scale=2, features=8, groups=1, blocks=1).eval()
    assert not network.spec.exact_tiling
    return network


def test_windows_that_decide_the_values_are_not_cut() -> None:
    result = upscale(_scene(holes=False), _pooled(), precision="float32")
    with pytest.raises(ResourceError, match="windows cannot be cut"):
        _streamed(_on(result, Memory(4 * 20 * 20)))


def test_a_shortage_is_told(caplog: pytest.LogCaptureFixture) -> None:
    result = upscale(_scene(), _network(ndim=2, in_channels=4, scale=2), tile=48, precision="float32")
    with caplog.at_level(logging.WARNING, "sciSR.tiles"):
        _streamed(_on(result, Memory(4 * 40 * 40)))
    assert any("out of memory" in message and "scene" in message for message in caplog.messages)


def test_a_device_too_small_for_the_smallest_tile_is_told_before_the_run() -> None:
    source = _on(
        upscale(_scene(), _network(ndim=2, in_channels=4, scale=2), tile=48, precision="float32"), Memory(4 * 16 * 16)
    ).source
    assert isinstance(source, UpscaledSource)
    with pytest.raises(ResourceError, match=r"scene: the device cpu has no room for a tile of 16 x 16"):
        fitting_plan(source.job)


@pytest.mark.parametrize("rooms", [(10**9, 4 * 50 * 50), (4 * 50 * 50, 10**9)])
def test_every_device_is_asked_whether_a_tile_fits(rooms: tuple[int, int]) -> None:
    result = upscale(_scene(), _network(ndim=2, in_channels=4, scale=2), tile=48, precision="float32")
    memories = [Memory(room) for room in rooms]
    source = _on(result, *memories).source
    assert isinstance(source, UpscaledSource)
    plan = fitting_plan(source.job)
    halo = plan.halo[0]
    assert max(plan.tile) + 2 * halo <= 50 < 2 * max(plan.tile) + 2 * halo
    assert all(memory.seen for memory in memories)


def test_a_pool_goes_on_when_one_of_its_devices_runs_short() -> None:
    result = upscale(_scene(), _network(ndim=2, in_channels=4, scale=2), tile=16, precision="float32", workers=2)
    expected, valid = _streamed(result)
    memories = Memory(10**9), Memory(10**9, later=4 * 36 * 36, calls=1)
    short = _on(result, *memories)
    got, _ = _streamed(short)
    assert np.abs(got - expected)[valid].max() <= TOLERANCE * np.ptp(expected[valid])
    assert all(memory.seen for memory in memories)


class Counted(DerivedSource):
    """A source that counts the values read from it."""

    count = 0

    def read(self, window: Window) -> Block:
        self.count += math.prod(part.stop - part.start for part in window)
        return super().read(window)


@pytest.mark.parametrize("tile", [16, "auto"])
def test_all_of_a_source_is_read_as_it_streams(tile: Any) -> None:
    values = np.random.default_rng(2).normal(size=(1, 410, 40)).astype(np.float32)
    raster = Raster.from_array(values, affine=np.diag([10, -10, 1.0]), axes="cyx")
    network = _network(ndim=2, in_channels=1, scale=2)
    counts = []
    results = []
    for way in (Raster.stream, lambda result: [(..., result.source.read(tuple(slice(0, n) for n in result.shape)))]):
        counted = Counted(raster.source)
        result = upscale(raster.replace(source=counted), network, precision="float32", workers=1, tile=tile)
        counted.count = 0
        whole = np.zeros(result.shape, np.float32)
        for window, block in way(result):
            whole[window] = block.values
        counts.append(counted.count)
        results.append(whole)
    assert counts[0] == counts[1]
    np.testing.assert_array_equal(results[0], results[1])

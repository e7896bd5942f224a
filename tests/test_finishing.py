"""The finish step: what it leaves alone, what it does, and that windows do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR.errors import InputError
from sciSR.finishing import finish
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.journal import Journal, journalled
from sciSR.networks import build_network
from sciSR.raster import ArraySource, Block, Raster
from sciSR.tiles import TileJob
from sciSR.workflow import run_workflow


def scene(array: NDArray[Any]) -> Raster:
    return Raster.from_array(array, affine=np.eye(3 if array.ndim == 2 else 4), axes="zyx"[-array.ndim :])


def step(size: int = 40, noise: float = 0.0) -> NDArray[np.float32]:
    values = np.where(np.arange(size) < size // 2, 100.0, 200.0)[None].repeat(size, 0)
    return (values + noise * np.random.default_rng(0).normal(size=values.shape)).astype(np.float32)


def test_wide_integers_are_finished_in_float64() -> None:
    finished = finish(scene(np.full((12, 12), 2**28 + 1, np.int32)), denoise=1.0, sharpen=0.5).read().values
    assert finished.dtype == np.float64
    np.testing.assert_allclose(finished, 2**28 + 1, rtol=0, atol=1e-6)


def test_noise_falls_and_the_edge_stays() -> None:
    noisy = finish(scene(step(noise=4.0)), denoise=4.0).read().values
    flat = noisy[:, :17]
    assert flat.std() < 2.0
    assert abs(float(flat.mean()) - 100) < 1
    jump = noisy[:, 20] - noisy[:, 19]
    assert abs(float(jump.mean()) - 100) < 3


def test_sharpening_makes_edges_steeper_and_leaves_flat_parts() -> None:
    soft = finish(scene(step()), sharpen=0.5).read().values
    assert np.allclose(soft[:, :12], 100, atol=1e-3)
    assert float((soft[:, 20] - soft[:, 19]).mean()) > 110


@pytest.mark.parametrize("shape", [(30, 37), (9, 12, 11), (1, 8, 8)])
def test_windows_do_not_matter(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    values.flat[5] = np.nan
    raster = finish(scene(values), denoise=0.3, sharpen=0.7, width=1.5)
    whole = raster.read()
    for start in (0, 3):
        window = tuple(slice(min(start, n - 1), n) for n in shape)
        part = raster.source.read(window)
        np.testing.assert_allclose(part.values[part.valid], whole.values[window][part.valid], atol=1e-5)
    streamed = np.full(shape, np.nan, np.float32)
    for at, block in raster.stream():
        streamed[at] = np.where(True if block.valid is None else block.valid, block.values, np.nan)
    np.testing.assert_allclose(streamed[np.isfinite(values)], whole.values[np.isfinite(values)], atol=1e-5)
    assert np.isnan(streamed.flat[5])
    assert np.isfinite(streamed).sum() == values.size - 1


def test_a_hole_pulls_at_nothing() -> None:
    values = np.full((16, 16), 50.0, np.float32)
    holes = values.copy()
    holes[4:8, 4:8] = -9999
    raster = Raster.from_array(values, affine=np.eye(3), axes="yx")
    masked = raster.replace(source=ArraySource(holes, nodata=-9999.0))
    block = finish(masked, denoise=1.0, sharpen=1.0).read()
    assert block.valid is not None
    assert np.allclose(block.values[block.valid], 50, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({}, "neither denoise nor sharpen"), ({"denoise": -1.0}, "denoise -1"), ({"sharpen": 1, "width": 0}, "width 0")],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        finish(scene(step()), **wrong)


def test_a_workflow_ends_in_it(tmp_path: Path) -> None:
    source = tmp_path / "in.nii.gz"
    coarse = np.random.default_rng(2).normal(500, 30, (6, 8, 8)).astype(np.float32)
    save_raster(Raster.from_array(coarse, affine=np.eye(4), axes="zyx"), source)
    plan = {"input": str(source), "upscale": {"network": "cubic", "scale": 2}}
    plain = run_workflow(plan, output=tmp_path / "plain").done[0]
    done = run_workflow(plan | {"finish": {"denoise": 20.0}}, output=tmp_path / "smooth").done[0]
    a, b = (open_raster(d.job.output).read().values for d in (plain, done))
    assert b.std() < a.std()
    assert done.record.workflow["finish"] == {"denoise": 20.0, "sharpen": None, "width": 2.0}
    again = run_workflow(done.job.record, output=tmp_path / "again").done[0]
    assert open_raster(again.job.output).read().values.tobytes() == b.tobytes()


@pytest.mark.parametrize("scale", [2, 1.5])
def test_a_network_runs_once_for_it_and_is_resumed(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciSR.finishing._SLAB", 700)
    values = np.random.default_rng(0).normal(size=(2, 41, 37)).astype(np.float32)
    values[0, 5:9, 3:8] = np.nan
    raster = Raster.from_array(values, affine=np.eye(3), axes="cyx")
    torch.manual_seed(0)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1)
    refined = upscale(raster, network, scale=scale, tile=16, precision="float32")
    finished = finish(refined, denoise=0.2, sharpen=0.5)
    tiles: list[Any] = []
    original = TileJob.run

    def counted(job: TileJob, *at: Any) -> Block:
        tiles.append(at)
        return original(job, *at)

    monkeypatch.setattr(TileJob, "run", counted)
    journal = Journal(tmp_path / "j", "key")
    journal.open()
    for once in (finished, journalled(finished, journal)):
        tiles.clear()
        got, valid = np.zeros(finished.shape), np.ones(finished.shape, bool)
        for window, block in once.stream():
            got[window] = block.values
            if block.valid is not None:
                valid[window] = block.valid
        assert len(tiles) == 9
        whole = finished.read()
        assert whole.valid is not None
        np.testing.assert_array_equal(valid, whole.valid)
        np.testing.assert_allclose(got[valid], whole.values[valid], rtol=0, atol=2e-5)
    assert journal.has(0)

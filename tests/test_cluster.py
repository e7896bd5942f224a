"""A run on a local cluster: the bytes of a single process, also when a worker dies in the middle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sciSR
from sciSR.cluster import compute_parts, save_on_cluster
from sciSR.errors import InputError
from sciSR.journal import file_checksum
from sciSR.networks import build_network
from sciSR.networks.spec import SRNetwork

distributed = pytest.importorskip("distributed")
DATA = Path(__file__).parents[1] / "examples" / "data"


def _network() -> SRNetwork:
    torch.manual_seed(0)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=16, blocks=4).eval()
    for parameter in network.tail.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.mark.slow
def test_a_killed_worker_costs_a_task_and_not_a_byte(tmp_path: Path) -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif")
    result = sciSR.upscale(scene, _network(), tile=32, workers=1, precision="float32")
    alone = sciSR.save_raster(result, tmp_path / "alone.tif")
    target = tmp_path / "cluster.tif"
    killed = False

    def kill_one(done: int, total: int) -> None:
        nonlocal killed
        if done >= 2 and not killed:
            killed = True
            next(iter(cluster.workers.values())).process.process.kill()

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        journal = compute_parts(result, target, client, progress=kill_one)
        assert killed
        assert all(journal.has(n) for n in range(8))
    sciSR.save_raster(result, target, resume=True)
    assert target.read_bytes() == alone.read_bytes()
    assert not journal.folder.exists()


@pytest.mark.parametrize("settings", [{"tile": 32}, {"tile": "auto"}], ids=["tiles", "strips"])
def test_workers_write_their_own_chunks_of_a_zarr_store(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zarr")
    monkeypatch.setattr("sciSR.io.zarr._SCENE_CHUNK", 100)
    monkeypatch.setattr("sciSR.strips._STRIP_BYTES", 2**21)
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif").crop(y=slice(0, 180))
    result = sciSR.upscale(scene, _network(), workers=1, precision="float32", **settings)
    alone = sciSR.save_raster(result, tmp_path / "alone" / "x.zarr")
    target = tmp_path / "x.zarr"
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done >= 2:
            raise KeyboardInterrupt

    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        with pytest.raises(KeyboardInterrupt):
            save_on_cluster(result, target, client, progress=stop)
        assert not target.exists()
        told.clear()
        save_on_cluster(result, target, client, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] >= 2
    assert told[-1][0] == told[-1][1]
    assert file_checksum(target) == file_checksum(alone)
    resumed = sciSR.save_raster(result, tmp_path / "resumed" / "x.zarr", resume=True)
    assert file_checksum(resumed) == file_checksum(alone)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_another_type_or_place_begins_a_store_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif").crop(y=slice(0, 60), x=slice(0, 60))
    result = sciSR.upscale(scene, _network(), workers=1, precision="float32", tile=32)
    alone = sciSR.save_raster(result, tmp_path / "alone" / "x.zarr", dtype="float32")
    target = tmp_path / "x.zarr"

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        with pytest.raises(KeyboardInterrupt):
            save_on_cluster(result, target, client, progress=stop, dtype="int32")
        save_on_cluster(result, target, client, dtype="float32")
        assert file_checksum(target) == file_checksum(alone)
        other = tmp_path / "y.zarr"

        def beside(done: int, total: int) -> None:
            if done and not other.exists():
                save_on_cluster(result, other, client, dtype="float32")

        save_on_cluster(result, target, client, progress=beside, overwrite=True, dtype="float32")
        assert file_checksum(other) == file_checksum(target) == file_checksum(alone)


def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path) -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif")
    result = sciSR.upscale(scene, _network(), tile=64)
    with pytest.raises(InputError, match="does not answer"):
        compute_parts(result, tmp_path / "x.tif", "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="result of a network"):
        compute_parts(scene, tmp_path / "x.tif", "tcp://127.0.0.1:1")


def test_the_dask_view_of_a_result_has_its_values() -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif").crop(y=slice(0, 60), x=slice(10, 90))
    result = sciSR.upscale(scene, _network(), tile=32, precision="float32")
    array = result.array
    assert array.chunks is not None
    np.testing.assert_array_equal(array.values, result.read().values)
    part = array[1:2, 30:50, 10:100].values
    np.testing.assert_array_equal(part, array.values[1:2, 30:50, 10:100])

"""A run on a local cluster: the bytes of a single process, also when a worker dies in the middle."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import sciSR
from sciSR import cluster
from sciSR.cluster import compute_parts, save_on_cluster
from sciSR.errors import InputError, MetadataWarning
from sciSR.finishing import finish
from sciSR.journal import file_checksum, parted_source
from sciSR.networks import build_network
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster

distributed = pytest.importorskip("distributed")
DATA = Path(__file__).parents[1] / "examples" / "data"


def _network(ndim: int = 2, *, features: int = 16, blocks: int = 4) -> SRNetwork:
    torch.manual_seed(0)
    network = build_network("edsr", ndim=ndim, in_channels=1, scale=2, features=features, blocks=blocks).eval()
    for parameter in network.tail.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter, std=0.05)
    return network


class _Killing:
    """Workers with a process each, of which one is killed once some parts are finished."""

    def __init__(self, after: int, count: int = 2) -> None:
        self.after = after
        self.count = count
        self.killed = False

    def __enter__(self) -> Any:
        settings = {"n_workers": self.count, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
        self.cluster = distributed.LocalCluster(processes=True, **settings)
        self.client = distributed.Client(self.cluster)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.cluster.close()

    def progress(self, done: int, total: int) -> None:
        if done >= self.after and not self.killed:
            self.killed = True
            next(iter(self.cluster.workers.values())).process.process.kill()


def _threads(count: int) -> Any:
    """A client whose workers are threads of this process."""
    return distributed.Client(processes=False, n_workers=count, threads_per_worker=1, dashboard_address=None)


def _stopped_and_resumed(result: Raster, target: Path) -> int:
    """A run that is stopped when something is done, and one that goes on; how many parts there were in all."""
    before = sorted(target.parent.iterdir())
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    with _threads(2) as client:
        with pytest.raises(KeyboardInterrupt):
            save_on_cluster(result, target, client, progress=stop)
        assert [p for p in target.parent.iterdir() if not p.name.startswith(".")] == before
        save_on_cluster(result, target, client, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] > 0
    assert told[-1][0] == told[-1][1]
    assert [p.name for p in target.parent.iterdir() if p.name.startswith(".")] == []
    return told[-1][1]


@pytest.mark.slow
def test_a_killed_worker_costs_a_task_and_not_a_byte(tmp_path: Path) -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif")
    result = sciSR.upscale(scene, _network(), tile=32, workers=1, precision="float32")
    alone = sciSR.save_raster(result, tmp_path / "alone.tif")
    target = tmp_path / "cluster.tif"
    with _Killing(2) as workers:
        journal = compute_parts(result, target, workers.client, progress=workers.progress)
        assert workers.killed
        assert all(journal.has(n) for n in range(8))
    sciSR.save_raster(result, target, resume=True)
    assert target.read_bytes() == alone.read_bytes()
    assert not journal.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_worker_costs_nothing_of_a_geotiff(tmp_path: Path, count: int) -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif")
    result = sciSR.upscale(scene, _network(), tile=32, workers=1, precision="float32")
    alone = sciSR.save_raster(result, tmp_path / "alone.tif")
    with _Killing(1, count) as workers:
        target = save_on_cluster(result, tmp_path / "cluster.tif", workers.client, progress=workers.progress)
    assert workers.killed
    assert target.read_bytes() == alone.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.tif", "cluster.tif"]


@pytest.mark.parametrize("settings", [{"tile": 32}, {"tile": "auto"}], ids=["tiles", "strips"])
def test_workers_write_their_own_rows_of_a_geotiff(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciSR.io.geotiff_plan._block", lambda layout, shape: (80, 96))  # beside the parts of 64 rows
    monkeypatch.setattr("sciSR.strips._STRIP_BYTES", 2**21)
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif").crop(y=slice(0, 180), x=slice(0, 150))
    result = sciSR.upscale(scene, _network(), workers=1, precision="float32", **settings)
    (tmp_path / "alone").mkdir()
    alone = sciSR.save_raster(result, tmp_path / "alone" / "x.tif")
    target = tmp_path / "x.tif"
    source = parted_source(result.source)
    assert source is not None
    assert _stopped_and_resumed(result, target) == len(source.parts)
    assert target.read_bytes() == alone.read_bytes()
    with _threads(1) as client:
        lonely = save_on_cluster(result, tmp_path / "one.tif", client)
    assert lonely.read_bytes() == target.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


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
    _stopped_and_resumed(result, target)
    assert file_checksum(target) == file_checksum(alone)
    resumed = sciSR.save_raster(result, tmp_path / "resumed" / "x.zarr", resume=True)
    assert file_checksum(resumed) == file_checksum(alone)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def _head_scan(folder: Path, times: int = 0) -> Path:
    """A series, or a volume with a sidecar, of a real scan."""
    scan = nib.load(DATA / "mri_t1_head_crop.nii.gz")
    values = np.asarray(scan.dataobj)[30:42, 40:50, 20:36]
    if times:
        values = np.stack([values + t for t in range(times)], -1)
    else:
        (folder / "in.json").write_text('{"SliceThickness": 0.7}')
    nib.save(nib.Nifti1Image(values, scan.affine), folder / "in.nii.gz")
    return folder / "in.nii.gz"


@pytest.mark.parametrize(("name", "times"), [("x.nii.gz", 2), ("x.nii", 0), ("x.img.gz", 0)])
def test_workers_write_their_own_planes_of_a_nifti_file(
    name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciSR.io.gzipped.PIECE", 3001)
    monkeypatch.setattr("sciSR.io.nifti._SHARED_PLANES", 8)
    volume = sciSR.open_raster(_head_scan(tmp_path, times))
    result = sciSR.upscale(volume, _network(3, features=4, blocks=1), workers=1, precision="float32", tile=4)
    (tmp_path / "alone").mkdir()
    (tmp_path / "cluster").mkdir()
    alone = sciSR.save_raster(result, tmp_path / "alone" / name)
    target = tmp_path / "cluster" / name
    _stopped_and_resumed(result, target)
    files = sorted(p.name for p in target.parent.iterdir())
    assert files == sorted(p.name for p in alone.parent.iterdir())
    assert ("x.json" in files) == (times == 0)
    for file in files:
        assert (target.parent / file).read_bytes() == (alone.parent / file).read_bytes(), file


def test_voxels_without_a_value_are_told_of_on_a_cluster_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(300, 90, (8, 9, 10)).astype(np.float32)
    values[3:5, 2, 2] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "in.nii")
    result = sciSR.upscale(
        sciSR.open_raster(tmp_path / "in.nii"), _network(3, features=4, blocks=1), tile=8, precision="float32"
    )
    with (
        _threads(1) as client,
        pytest.warns(MetadataWarning, match="voxels without a value are stored as 0, int16 has no NaN"),
    ):
        save_on_cluster(result, tmp_path / "out.nii.gz", client, dtype="int16")
    with pytest.warns(MetadataWarning, match="stored as 0"):
        alone = sciSR.save_raster(result, tmp_path / "alone.nii.gz", dtype="int16")
    assert (tmp_path / "out.nii.gz").read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_of_a_nifti_file(tmp_path: Path) -> None:
    volume = sciSR.open_raster(_head_scan(tmp_path, 4))
    result = sciSR.upscale(volume, _network(3, features=4, blocks=1), workers=1, precision="float32", tile=4)
    alone = sciSR.save_raster(result, tmp_path / "alone.nii.gz")
    target = tmp_path / "cluster.nii.gz"
    with _Killing(1) as workers:
        save_on_cluster(result, target, workers.client, progress=workers.progress)
    assert workers.killed
    assert target.read_bytes() == alone.read_bytes()
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

    with _threads(1) as client:
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


def test_what_later_steps_make_is_written_from_parts(tmp_path: Path) -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif").crop(y=slice(0, 60), x=slice(0, 60))
    result = finish(sciSR.upscale(scene, _network(), workers=1, precision="float32", tile=32), sharpen=0.5)
    alone = sciSR.save_raster(result, tmp_path / "alone.tif")
    with _threads(1) as client:
        target = save_on_cluster(result, tmp_path / "x.tif", client)
    assert target.read_bytes() == alone.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.tif", "x.tif"]


def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path) -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif")
    result = sciSR.upscale(scene, _network(), tile=64)
    with pytest.raises(InputError, match="does not answer"):
        compute_parts(result, tmp_path / "x.tif", "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="result of a network"):
        compute_parts(scene, tmp_path / "x.tif", "tcp://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_the_dask_view_of_a_result_has_its_values() -> None:
    scene = sciSR.open_raster(DATA / "sentinel2_crop.tif").crop(y=slice(0, 60), x=slice(10, 90))
    result = sciSR.upscale(scene, _network(), tile=32, precision="float32")
    array = result.array
    assert array.chunks is not None
    np.testing.assert_array_equal(array.values, result.read().values)
    part = array[1:2, 30:50, 10:100].values
    np.testing.assert_array_equal(part, array.values[1:2, 30:50, 10:100])


@pytest.mark.parametrize(
    ("missing", "weight", "before", "workers", "expected"),
    [
        (1000, 1, 0, 4, 16),  # short ones: a worker that dies costs little
        (1000, 1, 11, 4, 44),  # mostly new parts, where each begins with 11 old ones
        (40, 1, 11, 4, 10),  # one for each worker
        (1000, 4, 11, 4, 11),
        (3, 1, 2, 8, 1),
        (100, 32, 0, 2, 1),
    ],
)
def test_tasks_are_long_enough_for_what_each_begins_with(
    missing: int, weight: int, before: int, workers: int, expected: int
) -> None:
    assert cluster._run_length(missing, weight, before, workers) == expected

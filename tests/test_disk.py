"""Expected room on disk, beside what really comes to lie there."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciSR.batch import Job
from sciSR.disk import DiskNeed, crowded, disk_need
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.journal import Journal, journal_folder, journal_key, journalled
from sciSR.networks import build_network
from tests.made_files import smooth, write_scene, write_volume


def need(source: Path, output: Path, options: dict[str, Any], **run: bool) -> tuple[DiskNeed, Any]:
    raster = open_raster(source)
    ndim = len(raster.grid.shape)
    network = build_network("srcnn", ndim=ndim, in_channels=1, scale=2).eval()
    result = upscale(raster, network, tile=16)
    return disk_need(raster, result, Job(str(source), output), options, **run), result


@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": "float32", "compress": "none"}, {"compress": "none"}, {"dtype": "float32"}, {"overviews": True}],
    ids=str,
)
def test_a_scene_takes_about_what_was_expected(tmp_path: Path, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    source = write_scene(
        tmp_path / "a.tif", smooth((2, 512, 512)) + rng.integers(0, 9, (2, 512, 512)).astype(np.uint16)
    )
    expected, result = need(source, tmp_path / "o.tif", options)
    size = os.path.getsize(save_raster(result, tmp_path / "o.tif", **options))
    assert 0.8 * size <= expected.output <= 3 * size
    assert expected.working == 0


def test_a_volume_of_another_type_takes_its_own_size(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz", smooth((12, 14, 16)))
    for name in ("o.nii", "o.nii.gz"):
        expected, result = need(source, tmp_path / name, {"dtype": "float32"})
        size = os.path.getsize(save_raster(result, tmp_path / name, dtype="float32"))
        assert expected.output >= 24 * 28 * 32 * 4
        assert size <= 1.2 * expected.output


def test_parts_that_are_kept_are_counted_until_they_are_there(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz", smooth((16, 14, 40)))
    output = tmp_path / "o.nii.gz"
    expected, result = need(source, output, {}, resume=True)
    assert expected.working == 80 * 28 * 32 * 4
    journal = Journal(journal_folder(output), journal_key(result))
    journal.open()
    next(iter(journalled(result, journal).stream()))
    later, _ = need(source, output, {}, resume=True)
    assert 0 < later.working < expected.working
    assert need(source, output, {}, distributed=True)[0].working == 0, "NIfTI takes planes from every worker"
    assert need(source, tmp_path / "o.nrrd", {}, distributed=True)[0].working == expected.working
    assert need(source, output, {})[0].working == 0


def test_a_cloud_optimised_file_is_there_twice(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "a.tif", smooth((1, 64, 64)))
    expected, _ = need(source, tmp_path / "o.tif", {"cog": True})
    assert expected.working == expected.output > 0


def test_outputs_add_up_and_what_lies_beside_them_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100 * 2**20})
    monkeypatch.setattr("sciSR.disk.shutil.disk_usage", lambda place: usage)
    jobs = [(tmp_path / "new" / f"{n}.tif", DiskNeed(10 * 2**20, 10 * 2**20)) for n in range(3)]
    assert crowded(jobs[:2]) == []
    (error,) = crowded(jobs)
    assert "about 31.5 MB of disk and 10.5 MB until it is finished, 104.9 MB are free, and 67.1 MB stay so" in str(
        error
    )

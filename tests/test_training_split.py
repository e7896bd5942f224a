"""Who is judged on what: no image on both sides, whole references of many, subjects together."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciSR.errors import InputError
from sciSR.io import open_raster, save_raster
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Reference
from sciSR.training import train
from sciSR.training.data import Data, gather
from sciSR.training.outputs import score_table
from sciSR.training.split import checksum
from tests.training_cases import QUICK, scene

OPTIONS: dict[str, Any] = {"normalization": Normalization(), "channels": 1, "scale": (2, 2), "fraction": 0.15}


def split(references: list[Reference], validation: list[Reference] | None = None, **changes: Any) -> Data:
    return gather(references, validation or [], **(OPTIONS | changes))


def file(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_raster(scene(seed, size=40), path)


def test_a_file_is_known_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "scene.tif")
    shutil.copy(tmp_path / "scene.tif", tmp_path / "copy.tif")
    monkeypatch.chdir(tmp_path)
    for other in ("./scene.tif", str(tmp_path / "scene.tif"), "copy.tif"):
        with pytest.raises(InputError, match=r"is both learned from .*validated on"):
            split([Reference(open_raster("scene.tif"))], [Reference(open_raster(other))])


def test_what_one_entry_holds_out_no_other_learns_from(tmp_path: Path) -> None:
    path = file(tmp_path / "scene.tif")
    first = Reference(open_raster(path), held_out={"y": (20, 40)})
    data = split([first, Reference(open_raster(path), coarsen={"y": 2, "x": 2})])
    assert [crop.held_out for crop in data.training] == [
        ((slice(20, 40), slice(0, 40)),),
        ((slice(10, 20), slice(0, 20)),),
    ]
    assert data.record[1]["held_out"] == {"y": [20, 40]}
    with pytest.raises(InputError, match=r"came more than once, and holds out .* give both the same held_out"):
        split([first, Reference(open_raster(path), held_out={"y": (0, 20)})])


def test_headers_alike_of_other_data_are_two_images(tmp_path: Path) -> None:
    for number, folder in enumerate("ab"):
        values = np.random.default_rng(number).random((8, 8, 8)).astype(np.float32)
        (tmp_path / folder).mkdir()
        save_raster(Raster.from_array(values, affine=np.eye(4), axes="zyx"), tmp_path / folder / "scan.mhd")
    rasters = [open_raster(tmp_path / folder / "scan.mhd") for folder in "ab"]
    data = split([Reference(rasters[0])], [Reference(rasters[1])], scale=(2, 2, 2))
    assert [entry["role"] for entry in data.record] == ["training", "validation"]
    again = open_raster(tmp_path / "a" / ".." / "a" / "scan.mhd")
    with pytest.raises(InputError, match="is both learned from"):
        split([Reference(rasters[0])], [Reference(again)], scale=(2, 2, 2))


def test_the_checksum_follows_every_file_of_an_image(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    for name, data in (("scan.mhd", "scan.raw"), ("scan.hdr", "scan.img")):
        path = save_raster(Raster.from_array(values, affine=np.eye(4), axes="zyx"), tmp_path / name)
        before, header = checksum(open_raster(path)), path.read_bytes()
        assert checksum(open_raster(path)) == before
        with (tmp_path / data).open("r+b") as stored:
            stored.write(np.float32(0.5).tobytes())
        assert path.read_bytes() == header
        assert checksum(open_raster(path)) != before


def test_statistics_beside_an_image_do_not_change_its_checksum(tmp_path: Path) -> None:
    path = file(tmp_path / "scene.tif")
    before = checksum(open_raster(path))
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>", encoding="utf-8")
    assert checksum(open_raster(path)) == before == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_is_not_resumed_with_other_data_under_the_same_header(tmp_path: Path) -> None:
    path = tmp_path / "scan.mhd"
    options: dict[str, Any] = QUICK | {"sensor": "mri", "patch": 4, "steps": 1, "validation_fraction": 0.0}
    for number in range(2):
        values = np.random.default_rng(number).random((24, 24, 24)).astype(np.float32)
        save_raster(Raster.from_array(values, affine=np.eye(4), axes="zyx"), path, overwrite=True)
        if number == 0:
            train(open_raster(path), tmp_path / "net.safetensors", **options)
    with pytest.raises(InputError, match=r"is finished.*reference 1 was"):
        train(open_raster(path), tmp_path / "net.safetensors", **options, resume=True)


def many(count: int) -> list[Reference]:
    return [Reference(scene(n, size=40, name=f"{n:02d}")) for n in range(count)]


def test_of_many_references_whole_ones_are_held_out() -> None:
    data = split(many(20))
    judged = [entry["name"] for entry in data.record if entry["role"] == "validation"]
    assert [crop.name for crop in data.validation] == judged
    assert len(judged) == 3
    assert len(data.training) == 17
    assert not any(crop.held_out for crop in data.training)
    assert {crop.name for crop in data.training}.isdisjoint(judged)
    assert len(data.references) == 17
    assert [c.name for c in split(many(20)).validation] == judged
    assert [c.name for c in split(many(20), seed=1).validation] != judged
    assert [len(split(many(n)).validation) for n in (7, 8, 120)] == [7, 1, 16]
    assert not split(many(20), fraction=0).validation


def test_the_files_of_a_subject_stay_together(tmp_path: Path) -> None:
    references = [
        Reference(
            open_raster(file(tmp_path / f"sub-{n:02d}" / f"sub-{n:02d}_{kind}.tif", seed=n + 7 * (kind == "T2w")))
        )
        for n in range(6)
        for kind in ("T1w", "T2w")
    ]
    for seed in range(3):
        judged = {crop.name[:6] for crop in split(references, fraction=0.3, seed=seed).validation}
        learned = {crop.name[:6] for crop in split(references, fraction=0.3, seed=seed).training}
        assert len(judged) == 2
        assert judged.isdisjoint(learned)


def test_references_larger_than_the_cache_need_no_names_where_there_are_many(tmp_path: Path) -> None:
    references = [Reference(scene(n, size=160, name=f"{n:02d}")) for n in range(8)]
    result = train(references, tmp_path / "net.safetensors", **QUICK, steps=2, cache_gb=700e-6)
    assert len(result.values["scores"]["matched"]) == 1


def test_the_table_of_many_rasters_is_short() -> None:
    def scores(count: int) -> dict[str, Any]:
        return {
            "matched": {
                f"{n:02d}": {"network": {"psnr": 30.0 + n, "ssim": 0.9}, "cubic": {"psnr": 20.0, "ssim": 0.5}}
                for n in range(count)
            }
        }

    assert len(score_table(scores(12)).splitlines()) == 14
    lines = score_table(scores(13)).splitlines()
    assert lines[2:] == [
        "| matched | mean of 13 | 36.00 / 0.9000 | 20.00 / 0.5000 |",
        "| matched | worst: 00 | 30.00 / 0.9000 | 20.00 / 0.5000 |",
        "| matched | best: 12 | 42.00 / 0.9000 | 20.00 / 0.5000 |",
    ]

"""Which output belongs to which input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.shutil import copy

from sciSR.batch import expand_inputs, input_files, pair_outputs, split_suffix
from sciSR.errors import FormatError, InputError, MissingFileError
from sciSR.io import save_raster
from sciSR.raster import Raster


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", ("a", ".nii.gz")),
        ("a.b.nii", ("a.b", ".nii")),
        ("A.TIF", ("A", ".TIF")),
        ("a.txt", ("a.txt", "")),
        (".nii.gz", (".nii.gz", "")),
    ],
)
def test_names_are_split_at_a_formats_ending(name: str, expected: tuple[str, str]) -> None:
    assert split_suffix(name) == expected


def test_patterns_give_their_matches_in_order_and_each_once(tmp_path: Path) -> None:
    for name in ("b.nii", "a.nii", "sub/c.nii", ".a.nii.tmp.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand_inputs([f"{tmp_path}/*.nii", f"{tmp_path}/a.nii"]) == [f"{tmp_path}/a.nii", f"{tmp_path}/b.nii"]
    assert expand_inputs([f"{tmp_path}/**/*.nii"])[-1] == f"{tmp_path}/sub/c.nii"
    with pytest.raises(MissingFileError, match="matches no file"):
        expand_inputs([f"{tmp_path}/*.tif"])
    with pytest.raises(InputError, match="no file came"):
        expand_inputs([])


def test_a_name_with_brackets_that_is_there_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "scan[1].nii").touch()
    assert expand_inputs([f"{tmp_path}/scan[1].nii"]) == [f"{tmp_path}/scan[1].nii"]


def test_addresses_are_taken_as_they_are() -> None:
    address = "https://example.org/a.tif?token=*"
    assert expand_inputs([address]) == [address]
    assert pair_outputs([address], "out")[0].output == Path("out/a.tif")
    assert input_files([address]) == [address]


def test_one_input_goes_to_a_file_or_into_a_folder(tmp_path: Path) -> None:
    assert pair_outputs(["a.nii.gz"], "x/b.nii")[0].output == Path("x/b.nii")
    assert pair_outputs(["d/a.nii.gz"], "x")[0].output == Path("x/a.nii.gz")
    assert pair_outputs(["d/a.nii.gz"], "x", suffix=".nii")[0].output == Path("x/a.nii")
    folder = tmp_path / "odd.tif"
    folder.mkdir()
    assert pair_outputs(["a.tif"], str(folder))[0].output == folder / "a.tif"
    job = pair_outputs(["d/a.nii.gz"], "x")[0]
    assert (job.record, job.beside(".png")) == (Path("x/a.run.json"), Path("x/a.png"))


def test_what_is_read_only_is_stored_in_a_format_that_is_written() -> None:
    assert pair_outputs(["a.vrt"], "x")[0].output == Path("x/a.tif")
    assert pair_outputs(["a.jp2"], "x")[0].output == Path("x/a.tif")
    assert pair_outputs(["a.hdr"], "x")[0].output == Path("x/a.hdr")


def test_a_dicom_series_becomes_nifti(tmp_path: Path) -> None:
    (tmp_path / "series 3").mkdir()
    jobs = pair_outputs([str(tmp_path / "series 3"), "other/0001.dcm"], str(tmp_path / "out"))
    assert [job.output for job in jobs] == [tmp_path / "out" / "series 3.nii.gz", tmp_path / "out" / "0001.nii.gz"]


def test_outputs_that_clash_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is one file, but 2 inputs came"):
        pair_outputs(["a.tif", "b.tif"], "x.tif")
    with pytest.raises(InputError, match=r"p/a\.tif and q/a\.tif|q/a\.tif and p/a\.tif"):
        pair_outputs(["p/a.tif", "q/a.tif"], "x")
    with pytest.raises(InputError, match="would both be written"):
        pair_outputs(["p/a.nii", "p/a.nii.gz"], "x")
    (tmp_path / "a.tif").touch()
    with pytest.raises(InputError, match="is an input of this run"):
        pair_outputs([str(tmp_path / "a.tif")], str(tmp_path))
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    with pytest.raises(InputError, match="is an input of this run"):
        pair_outputs([str(tmp_path / "a.tif")], str(tmp_path / "link.tif"))


def test_unknown_endings_are_refused() -> None:
    with pytest.raises(InputError, match=r"output\.suffix: no format for '\.xyz'"):
        pair_outputs(["a.tif"], "x", suffix=".xyz")
    with pytest.raises(InputError, match=r"a\.xyz: no format"):
        pair_outputs(["a.xyz"], "x")
    with pytest.raises(FormatError, match=r"a\.xyz"):
        input_files(["a.xyz"])


def test_a_pair_of_files_is_one_input(tmp_path: Path) -> None:
    header, image = str(tmp_path / "a.hdr"), str(tmp_path / "a.img")
    assert input_files([header]) == [header]
    for path in (header, image):
        Path(path).touch()
    assert input_files([header]) == [image, header]
    assert input_files([image]) == [header, image]


def test_a_header_that_names_its_data_is_one_input_with_it(tmp_path: Path) -> None:
    raster = Raster.from_array(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine=np.eye(4), axes="zyx")
    for name in ("a.mhd", "b.nhdr"):
        header = save_raster(raster, tmp_path / name)
        data = header.with_suffix(".raw").rename(tmp_path / f"{name}.values")
        header.write_text(header.read_text().replace(f"{header.stem}.raw", data.name))
        assert input_files([str(header)]) == [str(data), str(header)]
    plain = save_raster(raster, tmp_path / "c.nrrd")
    assert input_files([str(plain)]) == [str(plain)]


def test_a_virtual_raster_is_one_input_with_what_it_is_made_of(tmp_path: Path) -> None:
    scene, vrt = tmp_path / "a.tif", tmp_path / "a.vrt"
    values = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    save_raster(Raster.from_array(values, affine=np.diag([10, -10, 1]), axes="cyx"), scene)
    copy(str(scene), str(vrt), driver="VRT")
    assert input_files([str(vrt)]) == [str(scene), str(vrt)]
    assert input_files([str(scene)]) == [str(scene)]


def test_joined_inputs_are_one_job(tmp_path: Path) -> None:
    (job,) = pair_outputs(["p/b2.tif", "p/b3.tif"], str(tmp_path), join=True)
    assert (job.input, job.sources, job.output) == ("p/b2.tif", ("p/b2.tif", "p/b3.tif"), tmp_path / "b2.tif")
    (job,) = pair_outputs(["p/b2.tif", "p/b3.tif"], "x.tif", join=True)
    assert job.output == Path("x.tif")
    assert input_files(["p/b2.tif", "p/b3.tif"]) == ["p/b2.tif", "p/b3.tif"]


def test_a_folder_is_one_input_and_becomes_a_volume(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (job,) = pair_outputs([str(folder)], str(tmp_path / "out"))
    assert job.output == tmp_path / "out" / "series.nii.gz"
    assert input_files([str(folder)]) == [str(folder)]


def test_a_format_that_is_a_folder_is_an_output_of_its_own(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    assert pair_outputs(["a.tif"], str(store))[0].output == store
    store.mkdir()
    assert pair_outputs(["a.tif"], str(store))[0].output == store

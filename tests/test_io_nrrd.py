"""NRRD against pynrrd and ITK."""

from __future__ import annotations

import bz2
import gzip
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR.errors import FormatError, GeometryError, InputError, MetadataWarning, MissingFileError
from sciSR.io import adapter_for, open_raster, save_raster
from sciSR.raster import Raster
from sciSR.regrid import regrid
from tests.format_table import Row, check_table
from tests.nifti_files import AFFINES, make

itk = pytest.importorskip("SimpleITK")
RNG = np.random.default_rng(2)
VALUES = RNG.normal(100, 400, (5, 6, 7)).astype(np.int16)  # z, y, x
LPS = np.diag([-1.0, -1.0, 1.0])


def write(path: Path, values: NDArray[Any], lines: str, end: str = "\n\n", coded: bytes | None = None) -> Path:
    """A file of the given header lines and values."""
    path.write_bytes(
        f"NRRD0005\n# made by hand\n{lines.strip()}{end}".encode() + (values.tobytes() if coded is None else coded)
    )
    return path


def head(space: str = "left-posterior-superior", **more: str) -> str:
    fields = {
        "type": "short",
        "dimension": "3",
        "space": space,
        "sizes": "7 6 5",
        "space directions": "(0.7,0,0.1) (0,0.8,0) (0,-0.5,5)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(-90,-126,72)",
        "thicknesses": "nan nan 4.5",
        "measurement frame": "(1,0,0) (0,1,0) (0,0,1)",
        "content": "a head: T1w",
        **more,
    }
    return "\n".join(f"{k}: {v}" for k, v in fields.items() if v) + "\nDWMRI_b-value:=1000\nmy key:=a: b:=c"


def itk_image(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Values and RAS centre affine as ITK reads them."""
    image = itk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = LPS @ image.GetOrigin()
    return itk.GetArrayFromImage(image), affine


def refined(raster: Raster, *factors: int) -> Raster:
    return regrid(raster, tuple(n * f for n, f in zip(raster.grid.shape, factors, strict=True)), kernel="linear")


@pytest.mark.parametrize(
    "space", ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS"]
)
def test_every_space_is_placed_where_itk_places_it(tmp_path: Path, space: str) -> None:
    path = write(tmp_path / "a.nrrd", VALUES, head(space))
    values, affine = itk_image(path)
    raster = open_raster(path)
    assert np.array_equal(raster.read().values, values)
    assert np.allclose(raster.grid.center_affine, affine, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"]
)
def test_types_and_byte_orders(tmp_path: Path, dtype: str) -> None:
    values = VALUES.clip(0, 99).astype(dtype)
    names = {"float32": "float", "float64": "double"}
    for endian, order in (("little", "<"), ("big", ">")):
        lines = head(type=names.get(dtype, dtype), endian=endian)
        path = write(tmp_path / f"{endian}.nrrd", values.astype(np.dtype(dtype).newbyteorder(order)), lines)  # type: ignore[arg-type]  # a literal
        raster = open_raster(path)
        assert np.array_equal(raster.read().values, values)
        assert raster.dtype == np.dtype(dtype)
        out, _ = itk_image(save_raster(raster, tmp_path / f"out_{endian}.nrrd"))
        assert out.dtype == np.dtype(dtype)
        assert np.array_equal(out, values)


def test_what_a_header_says_stays_in_its_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nrrd", VALUES, head())
    same = save_raster(open_raster(path), tmp_path / "b.nrrd")
    assert same.read_bytes() == path.read_bytes()
    fine = save_raster(refined(open_raster(path), 2, 1, 1), tmp_path / "c.nrrd")
    before, after = (p.read_bytes().split(b"\n\n")[0].decode().splitlines() for p in (path, fine))
    changed = {a.split(":")[0]: a.split(": ")[1] for a, b in zip(after, before, strict=True) if a != b}
    assert changed == {
        "sizes": "7 6 10",
        "space directions": "(0.69999999999999996,0,0.10000000000000001) (0,0.80000000000000004,0) (0,-0.25,2.5)",
        "space origin": "(-90,-125.875,70.75)",
        "thicknesses": f"nan nan {np.hypot(0.25, 2.5):.17g}",
    }


@pytest.mark.parametrize("name", AFFINES)
def test_a_volume_of_nifti_lies_in_the_same_place(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "a.nii.gz", VALUES.T, AFFINES[name], codes=(0, 1))
    out = save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nrrd")
    values, affine = itk_image(out)
    expected = nib.load(save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nii.gz"))
    assert np.allclose(affine, expected.affine, atol=1e-4)
    assert np.array_equal(values, np.asarray(expected.dataobj).T)
    back = nib.load(save_raster(open_raster(out), tmp_path / "c.nii.gz"))
    assert np.allclose(back.affine, expected.affine, atol=1e-4)


def test_gzip_bzip2_and_skips(tmp_path: Path) -> None:
    raw = VALUES.tobytes()
    cases = {
        "gzip": (gzip.compress(raw), {"encoding": "gzip"}),
        "gz": (gzip.compress(b"12345" + raw), {"encoding": "gz", "byte skip": "5"}),
        "bzip2": (bz2.compress(raw), {"encoding": "bzip2"}),
        "skips": (b"a line\nanother\nxyz" + raw, {"line skip": "2", "byte skip": "3"}),
        "end": (b"any length of junk" + raw, {"byte skip": "-1"}),
    }
    for name, (coded, more) in cases.items():
        raster = open_raster(write(tmp_path / f"{name}.nrrd", VALUES, head(**more), coded=coded))
        assert np.array_equal(
            pickle.loads(pickle.dumps(raster.source)).read((slice(1, 4), slice(0, 6), slice(2, 7))).values,
            VALUES[1:4, :, 2:],
        ), name
        out, _ = itk_image(save_raster(raster, tmp_path / f"out_{name}.nrrd"))
        assert np.array_equal(out, VALUES), name


def test_a_header_with_its_data_file(tmp_path: Path) -> None:
    (tmp_path / "values.raw").write_bytes(VALUES.tobytes())
    path = write(tmp_path / "a.nhdr", VALUES, head(**{"data file": "values.raw"}), end="\n", coded=b"")
    raster = open_raster(path)
    assert np.array_equal(raster.read().values, VALUES)
    out = save_raster(refined(raster, 2, 2, 2), tmp_path / "b.nhdr")
    assert {p.name for p in tmp_path.iterdir()} == {"a.nhdr", "values.raw", "b.nhdr", "b.raw"}
    assert itk_image(out)[0].shape == (10, 12, 14)
    with pytest.raises(InputError, match=r"values\.raw: belongs to the input"):
        save_raster(raster, tmp_path / "values.nhdr", overwrite=True)
    (tmp_path / "values.raw").unlink()
    with pytest.raises(MissingFileError, match="the file with its values, is not there"):
        open_raster(path)


def test_a_series_keeps_its_step(tmp_path: Path) -> None:
    series = RNG.normal(0, 100, (3, 5, 6, 7)).astype(np.int16)
    lines = head(
        dimension="4",
        sizes="7 6 5 3",
        kinds="domain domain domain time",
        spacings="nan nan nan 2.5",
        units='"" "" "" "s"',
        thicknesses="",
        **{"space directions": "(0.7,0,0.1) (0,0.8,0) (0,-0.5,5) none"},
    )
    raster = open_raster(write(tmp_path / "a.nrrd", series, lines))
    assert raster.axes == ("t", "z", "y", "x")
    assert np.array_equal(raster.read().values, series)
    assert raster.time is not None
    assert (raster.time.step, raster.time.unit) == (2.5, "s")
    again = open_raster(save_raster(refined(raster, 2, 1, 1), tmp_path / "b.nrrd"))
    assert again.shape == (3, 10, 6, 7)
    assert again.time == raster.time
    nifti = nib.load(save_raster(raster, tmp_path / "b.nii.gz"))
    assert nifti.header["pixdim"][4] == 2.5
    back = open_raster(save_raster(open_raster(tmp_path / "b.nii.gz"), tmp_path / "c.nrrd"))
    assert back.time == raster.time


def test_units_are_honoured_and_kept(tmp_path: Path) -> None:
    raster = open_raster(write(tmp_path / "a.nrrd", VALUES, head(**{"space units": '"um" "um" "um"'})))
    assert raster.grid.spacing["y"] == pytest.approx(0.0008)
    text = save_raster(refined(raster, 1, 2, 1), tmp_path / "b.nrrd").read_bytes()
    assert b"(0,0.40000000000000002,0)" in text
    assert b'space units: "um" "um" "um"' in text


def test_a_file_without_space_is_named_and_read_like_itk(tmp_path: Path) -> None:
    lines = head(
        space="", spacings="0.7 0.8 5", **{"space directions": "", "space origin": "", "measurement frame": ""}
    )
    path = write(tmp_path / "a.nrrd", VALUES, lines)
    with pytest.warns(MetadataWarning, match="its space, not stated, is no anatomical one"):
        raster = open_raster(path)
    assert np.allclose(raster.grid.center_affine, itk_image(path)[1])
    out = save_raster(refined(raster, 2, 2, 2), tmp_path / "b.nrrd")
    assert np.allclose(open_raster(out).grid.center_affine, refined(raster, 2, 2, 2).grid.center_affine)
    assert np.allclose(itk_image(out)[1], open_raster(out).grid.center_affine)


def test_scaled_values_are_written_as_they_are_meant(tmp_path: Path) -> None:
    hounsfield = make(tmp_path / "ct.nii.gz", VALUES.T.clip(0, 3000).astype(np.uint16), scl_inter=-1024.0)
    out, _ = itk_image(save_raster(open_raster(hounsfield), tmp_path / "ct.nrrd"))
    assert out.dtype == np.int32  # the smallest that holds 65535 - 1024 and -1024
    assert np.array_equal(out, VALUES.clip(0, 3000).astype(int) - 1024)
    slope = make(tmp_path / "mr.nii.gz", VALUES.T, scl_slope=0.25)
    out, _ = itk_image(save_raster(open_raster(slope), tmp_path / "mr.nrrd"))
    assert out.dtype == np.float32
    assert np.allclose(out, VALUES * 0.25)


def test_provenance_becomes_keys_and_bytes_repeat(tmp_path: Path) -> None:
    raster = open_raster(
        write(tmp_path / "a.nrrd", VALUES, head(encoding="gzip"), coded=gzip.compress(VALUES.tobytes()))
    )
    raster = raster.replace(provenance={"SCISR_MODEL": "cubic", "at": "/home/me"})
    one, two = (save_raster(raster, tmp_path / f, threads=n).read_bytes() for f, n in (("b.nrrd", 1), ("c.nrrd", 3)))
    assert one == two
    assert itk.ReadImage(str(tmp_path / "b.nrrd")).GetMetaData("SCISR_MODEL") == "cubic"
    assert b"/home/me" not in one


def test_pynrrd_reads_the_same(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    out = save_raster(refined(open_raster(write(tmp_path / "a.nrrd", VALUES, head())), 2, 2, 2), tmp_path / "b.nrrd")
    values, header = nrrd.read(str(out), index_order="C")
    assert np.array_equal(values, open_raster(out).read().values)
    assert header["DWMRI_b-value"] == "1000"
    assert header["my key"] == "a: b:=c"
    assert header["content"] == "a head: T1w"
    nrrd.write(str(tmp_path / "c.nrrd"), values, header, index_order="C")
    assert np.allclose(open_raster(tmp_path / "c.nrrd").grid.affine, open_raster(out).grid.affine)


def test_describe_shows_fields_and_keys(tmp_path: Path) -> None:
    facts = adapter_for("a.nrrd").describe(str(write(tmp_path / "a.nrrd", VALUES, head())))
    assert facts["version"] == "NRRD0005"
    assert facts["fields"]["content"] == "a head: T1w"
    assert facts["keys"] == {"DWMRI_b-value": "1000", "my key": "a: b:=c"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"type": "block"}, "values of type 'block'"),
        ({"type": ""}, "no field 'type'"),
        ({"sizes": "7 6"}, r"sizes \[7, 6\]; expected a volume"),
        ({"sizes": "7 0 5"}, "expected a volume"),
        ({"sizes": "7 6 500"}, "promises 42000 bytes of values, the file has 420"),
        ({"encoding": "hex"}, "encoding 'hex'; expected raw, gzip or bzip2"),
        ({"encoding": "bzip2"}, "damaged or cut off"),
        ({"space directions": "(1,0) (0,1) (0,0)"}, "has 2 components"),
        ({"space directions": "(1,0,x) (0,1,0) (0,0,1)"}, "is not a vector"),
        ({"kinds": "3-color domain domain"}, "split vectors and colours"),
        ({"sizes": "7 6 y5"}, "sizes '7 6 y5' are not whole numbers"),
        ({"space directions": "", "spacings": "1 1 (1)"}, r"spacings '1 1 \(1\)' are not numbers"),
        ({"sizes": "3000000000 3000000000 3000000000"}, "promises 54000000000000000000000000000 bytes"),
        ({"byte skip": "x"}, "byte skip 'x' are not whole numbers"),
        ({"byte skip": "-2"}, "byte skip '-2'; expected one whole number"),
        ({"line skip": "1 2"}, "line skip '1 2'; expected one whole number"),
        ({"line skip": "1000000000000"}, "it is cut off"),
        ({"data file": "LIST"}, "values lie in several files"),
        ({"data file": "slice_%03d.raw 1 5 1"}, "values lie in several files"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, more: dict[str, str], message: str) -> None:
    path = write(tmp_path / "a.nrrd", VALUES, head(**more))
    with pytest.raises(FormatError, match=message) as caught:
        open_raster(path).read()
    assert "a.nrrd" in str(caught.value)


def test_a_data_file_that_is_a_folder_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "values").mkdir()
    path = write(tmp_path / "a.nhdr", VALUES[:0], head(**{"data file": "values"}))
    with pytest.raises(MissingFileError, match=r"a\.nhdr: values, the file with its values, is not there"):
        open_raster(path)


def test_interleaved_vectors_and_parallel_axes_are_refused(tmp_path: Path) -> None:
    lines = head(
        dimension="4",
        sizes="3 7 6 5",
        kinds="vector domain domain domain",
        thicknesses="",
        **{"space directions": "none (1,0,0) (0,1,0) (0,0,1)"},
    )
    with pytest.raises(FormatError, match="split vectors and colours"):
        open_raster(write(tmp_path / "a.nrrd", VALUES, lines))
    flat = head(**{"space directions": "(1,0,0) (1,0,0) (0,0,1)"})
    with pytest.raises(GeometryError, match=r"b\.nrrd: .*parallel"):
        open_raster(write(tmp_path / "b.nrrd", VALUES, flat))
    (tmp_path / "c.nrrd").write_bytes(b"not at all")
    with pytest.raises(FormatError, match="not an NRRD file"):
        open_raster(tmp_path / "c.nrrd")


def test_what_nrrd_cannot_hold_is_refused(tmp_path: Path) -> None:
    scene = Raster.from_array(np.zeros((3, 3)), affine=np.eye(3), axes="yx")
    with pytest.raises(GeometryError, match="NRRD holds volumes"):
        save_raster(scene, tmp_path / "a.nrrd")
    waves = Raster.from_array(np.zeros((3, 3, 3), complex), affine=np.eye(4), axes="zyx")
    with pytest.raises(InputError, match="complex128 came"):
        save_raster(waves, tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="no option compress"):
        save_raster(open_raster(write(tmp_path / "b.nrrd", VALUES, head())), tmp_path / "c.nrrd", compress=True)


ROWS = (
    Row(
        "header lines, comments, the file's own keys",
        "kept as they are, in their order",
        test_what_a_header_says_stays_in_its_lines,
    ),
    Row(
        "space, directions, origin",
        "moved in the file's own space and unit",
        test_what_a_header_says_stays_in_its_lines,
    ),
    Row("space units", "honoured and kept", test_units_are_honoured_and_kept),
    Row("thicknesses", "replaced by the new distance along a refined axis", test_what_a_header_says_stays_in_its_lines),
    Row("no space", "read as ITK reads it, and said", test_a_file_without_space_is_named_and_read_like_itk),
    Row("series", "kept, with its step and unit", test_a_series_keeps_its_step),
    Row("raw, gzip, bzip2; line and byte skip", "read; written raw or gzip", test_gzip_bzip2_and_skips),
    Row("`.nhdr` with its data file", "kept as two files", test_a_header_with_its_data_file),
    Row("interleaved vectors, colours", "refused", test_interleaved_vectors_and_parallel_axes_are_refused),
    Row(
        "scaled values of another format", "written as they are meant", test_scaled_values_are_written_as_they_are_meant
    ),
    Row("provenance", "keys of the header; no time, no path", test_provenance_becomes_keys_and_bytes_repeat),
)


def test_the_page_holds_this_table() -> None:
    check_table("NRRD", ROWS)

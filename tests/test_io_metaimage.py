"""MetaImage against ITK."""

from __future__ import annotations

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
RNG = np.random.default_rng(4)
VALUES = RNG.normal(100, 400, (5, 6, 7)).astype(np.int16)  # z, y, x
LPS = np.diag([-1.0, -1.0, 1.0])
TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])


def itk_image(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Values and RAS centre affine as ITK reads them."""
    image = itk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = LPS @ image.GetOrigin()
    return itk.GetArrayFromImage(image), affine


def from_itk(path: Path, values: NDArray[Any] = VALUES, compress: bool = False) -> Path:
    """A turned image with metadata, written by ITK."""
    image = itk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 5.0))
    image.SetOrigin((-90.0, -126.0, 72.0))
    image.SetDirection(TURN.ravel())
    for key, value in {"Modality": "MET_MOD_CT", "PatientPosition": "HFS", "Note": "a = b"}.items():
        image.SetMetaData(key, value)
    itk.WriteImage(image, str(path), compress)
    return path


def by_hand(path: Path, values: NDArray[Any] = VALUES, /, **more: str) -> Path:
    """A header of the given keys, then the values; an empty key is left out."""
    keys = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "DimSize": "7 6 5",
        "ElementSpacing": "0.7 0.8 5",
        "Offset": "1 2 3",
        "ElementType": "MET_SHORT",
        **more,
        "ElementDataFile": more.get("ElementDataFile", "LOCAL"),
    }
    keys["ElementDataFile"] = keys.pop("ElementDataFile")
    text = "".join(f"{k} = {v}\n" for k, v in keys.items() if v)
    path.write_bytes(text.encode() + values.tobytes())
    return path


def refined(raster: Raster, *factors: int) -> Raster:
    return regrid(raster, tuple(n * f for n, f in zip(raster.grid.shape, factors, strict=True)), kernel="linear")


def header(path: Path) -> dict[str, str]:
    text = path.read_bytes().split(b"ElementDataFile")[0].decode()
    return dict(line.split(" = ", 1) for line in text.splitlines())


@pytest.mark.parametrize("name", ["a.mha", "a.mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_an_image_of_itk_is_read_as_itk_reads_it(tmp_path: Path, name: str, compress: bool) -> None:
    path = from_itk(tmp_path / name, compress=compress)
    values, affine = itk_image(path)
    raster = open_raster(path)
    assert np.array_equal(raster.read().values, values)
    assert np.allclose(raster.grid.center_affine, affine)
    window = (slice(1, 4), slice(0, 6), slice(2, 7))
    assert np.array_equal(pickle.loads(pickle.dumps(raster.source)).read(window).values, values[window])


@pytest.mark.parametrize("compress", [False, True])
def test_a_refined_image_keeps_its_keys(tmp_path: Path, compress: bool) -> None:
    path = from_itk(tmp_path / "a.mha", compress=compress)
    raster = refined(open_raster(path), 2, 1, 4)
    out = save_raster(raster, tmp_path / "b.mha")
    values, affine = itk_image(out)
    assert np.array_equal(values, np.rint(raster.read().values))
    assert np.allclose(affine, raster.grid.center_affine)
    before, after = header(path), header(out)
    places = {"DimSize", "ElementSpacing", "Offset", "CompressedDataSize"}
    assert {k: v for k, v in before.items() if k not in places} == {k: v for k, v in after.items() if k not in places}
    assert after["ElementSpacing"] == "0.17499999999999999 0.80000000000000004 2.5"
    assert itk.ReadImage(str(out)).GetMetaData("Note") == "a = b"


def test_an_unchanged_image_comes_back_byte_for_byte(tmp_path: Path) -> None:
    path = from_itk(tmp_path / "a.mha")
    assert save_raster(open_raster(path), tmp_path / "b.mha").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", AFFINES)
def test_a_volume_of_nifti_lies_in_the_same_place(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "a.nii.gz", VALUES.T, AFFINES[name], codes=(0, 1))
    raster = refined(open_raster(source), 2, 2, 2)
    out = save_raster(raster, tmp_path / "b.mha")
    values, affine = itk_image(out)
    assert np.allclose(affine, raster.grid.center_affine, atol=1e-6)
    assert np.array_equal(values, np.rint(raster.read().values))
    assert open_raster(out).grid.same_space(raster.grid)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"]
)
def test_types(tmp_path: Path, dtype: str) -> None:
    values = VALUES.clip(0, 99).astype(dtype)
    raster = open_raster(from_itk(tmp_path / "a.mha", values))
    assert raster.dtype == np.dtype(dtype)
    out, _ = itk_image(save_raster(raster.replace(metadata=None), tmp_path / "b.mha"))
    assert out.dtype == np.dtype(dtype)
    assert np.array_equal(out, values)


def test_byte_order_header_size_and_second_spellings(tmp_path: Path) -> None:
    big = by_hand(tmp_path / "big.mha", VALUES.astype(">i2"), BinaryDataByteOrderMSB="True")
    assert np.array_equal(open_raster(big).read().values, VALUES)
    assert np.array_equal(itk_image(save_raster(open_raster(big), tmp_path / "little.mha"))[0], VALUES)
    (tmp_path / "v.raw").write_bytes(b"junk" + VALUES.tobytes())
    for size in ("4", "-1"):
        path = by_hand(tmp_path / f"{size}.mhd", VALUES[:0], HeaderSize=size, ElementDataFile="v.raw")
        assert np.array_equal(open_raster(path).read().values, VALUES)
    old = by_hand(tmp_path / "old.mha", Offset="", Position="1 2 3", Rotation="0 1 0 -1 0 0 0 0 1")
    assert np.allclose(open_raster(old).grid.center_affine, itk_image(old)[1])
    out = save_raster(refined(open_raster(old), 2, 2, 2), tmp_path / "new.mha")
    assert np.allclose(itk_image(out)[1], refined(open_raster(old), 2, 2, 2).grid.center_affine)


def test_units_and_voxel_size(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "a.mha", DistanceUnits="um", ElementSize="0.6 0.6 4")
    raster = open_raster(path)
    assert raster.grid.spacing["z"] == pytest.approx(0.005)
    after = header(save_raster(refined(raster, 2, 2, 2), tmp_path / "b.mha"))
    assert (after["DistanceUnits"], after["ElementSize"]) == ("um", after["ElementSpacing"])
    odd = by_hand(tmp_path / "c.mha", DistanceUnits="furlong", ElementSpacing="")
    with pytest.warns(MetadataWarning) as caught:
        open_raster(odd)
    assert {"c.mha: states no ElementSpacing; 1 was assumed"} < {str(w.message) for w in caught}


def test_a_series_keeps_its_step(tmp_path: Path) -> None:
    series = RNG.normal(0, 100, (3, 5, 6, 7)).astype(np.int16)
    image = itk.GetImageFromArray(series, isVector=False)
    image.SetSpacing((0.7, 0.8, 5.0, 2.5))
    image.SetOrigin((1.0, 2.0, 3.0, 0.5))
    itk.WriteImage(image, str(tmp_path / "a.mha"))
    raster = open_raster(tmp_path / "a.mha")
    assert raster.axes == ("t", "z", "y", "x")
    assert np.array_equal(raster.read().values, series)
    assert raster.time is not None
    assert (raster.time.start, raster.time.step) == (0.5, 2.5)
    out = itk.ReadImage(str(save_raster(refined(raster, 2, 1, 1), tmp_path / "b.mha")))
    assert out.GetSize() == (7, 6, 10, 3)
    assert out.GetSpacing() == pytest.approx((0.7, 0.8, 2.5, 2.5))
    nifti = nib.load(save_raster(raster, tmp_path / "b.nii.gz"))
    assert float(nifti.header["pixdim"][4]) == 2.5
    back = open_raster(save_raster(open_raster(tmp_path / "b.nii.gz"), tmp_path / "c.mha"))
    assert back.time is not None
    assert back.time.step == 2.5


def test_scaled_values_are_written_as_they_are_meant(tmp_path: Path) -> None:
    source = make(tmp_path / "mr.nii.gz", VALUES.T, scl_slope=0.25, scl_inter=3.0)
    out, _ = itk_image(save_raster(open_raster(source), tmp_path / "mr.mha"))
    assert out.dtype == np.float32
    assert np.allclose(out, VALUES * 0.25 + 3)


def test_a_header_with_its_data_file(tmp_path: Path) -> None:
    path = from_itk(tmp_path / "a.mhd")
    out = save_raster(refined(open_raster(path), 2, 2, 2), tmp_path / "b.mhd")
    assert {p.name for p in tmp_path.iterdir()} == {"a.mhd", "a.raw", "b.mhd", "b.raw"}
    assert itk_image(out)[0].shape == (10, 12, 14)
    with pytest.raises(InputError, match=r"a\.raw: belongs to the input"):
        save_raster(open_raster(path), tmp_path / "a.mhd", overwrite=True)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(MissingFileError, match=r"a\.raw, the file with its values, is not there"):
        open_raster(path)


def test_bytes_repeat_and_provenance_is_read_by_itk(tmp_path: Path) -> None:
    raster = open_raster(from_itk(tmp_path / "a.mha", compress=True))
    raster = raster.replace(provenance={"SCISR_MODEL": "cubic", "at": "/home/me"})
    one, two = (save_raster(raster, tmp_path / f, threads=n).read_bytes() for f, n in (("b.mha", 1), ("c.mha", 3)))
    assert one == two
    assert itk.ReadImage(str(tmp_path / "b.mha")).GetMetaData("SCISR_MODEL") == "cubic"
    assert b"/home/me" not in one


def test_describe_shows_the_keys(tmp_path: Path) -> None:
    facts = adapter_for("a.mha").describe(str(from_itk(tmp_path / "a.mha")))
    assert facts["keys"]["PatientPosition"] == "HFS"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"DimSize": ""}, "no 'DimSize'"),
        ({"DimSize": "7 6"}, r"DimSize \[7, 6\]; expected a volume"),
        ({"DimSize": "7 6 0"}, "expected a volume"),
        ({"DimSize": "7 6 50"}, "promises 4200 bytes of values, the file has 420"),
        ({"ElementType": "MET_SHORT_ARRAY"}, "of type MET_SHORT_ARRAY; expected one channel"),
        ({"ElementNumberOfChannels": "3"}, r"3 channel\(s\) of type MET_SHORT"),
        ({"BinaryData": "False"}, "values as text"),
        ({"ElementSpacing": "1 2"}, "has 2 numbers, expected 3"),
        ({"Offset": "a b c"}, "are not numbers"),
        ({"DimSize": "7 6 (5)"}, r"DimSize '7 6 \(5\)' are not whole numbers"),
        ({"DimSize": "3000000000 3000000000 3000000000"}, "promises 54000000000000000000000000000 bytes"),
        ({"ElementNumberOfChannels": "one"}, r"one channel\(s\) of type MET_SHORT"),
        ({"HeaderSize": "some"}, "HeaderSize 'some' are not whole numbers"),
        ({"HeaderSize": "-2"}, "HeaderSize '-2'; expected one whole number"),
        ({"ElementDataFile": "LIST"}, "values lie in several files"),
        ({"CompressedData": "True"}, "compressed data are damaged"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, more: dict[str, str], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        open_raster(by_hand(tmp_path / "a.mha", **more)).read()
    assert "a.mha" in str(caught.value)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = from_itk(tmp_path / "a.mha", compress=True)
    raw = path.read_bytes()
    (tmp_path / "cut.mha").write_bytes(raw[:-60])
    with pytest.raises(FormatError, match="cut off"):
        open_raster(tmp_path / "cut.mha").read()
    (tmp_path / "check.mha").write_bytes(raw[:-4] + b"\0\0\0\0")
    with pytest.raises(FormatError, match="damaged"):
        open_raster(tmp_path / "check.mha").read()
    (tmp_path / "no.mha").write_bytes(b"nothing here")
    with pytest.raises(FormatError, match="not a MetaImage header"):
        open_raster(tmp_path / "no.mha")
    with pytest.raises(GeometryError, match=r"flat\.mha: .*parallel"):
        open_raster(by_hand(tmp_path / "flat.mha", TransformMatrix="1 0 0 1 0 0 0 0 1"))


@pytest.mark.parametrize("matrix", ["2 0 0 0 0.5 0 0 0 1", "0.6 0.8 0 -0.8 0.6001 0 0 0 1", "1 0 0 0 1 0 0 0 1"])
def test_directions_that_are_not_of_length_one_keep_their_place(tmp_path: Path, matrix: str) -> None:
    source = by_hand(tmp_path / "a.mha", TransformMatrix=matrix)
    raster = open_raster(source)
    out = save_raster(refined(raster, 2, 3, 1), tmp_path / "b.mha")
    assert header(out)["TransformMatrix"] == matrix
    low, fine = itk_image(source)[1], itk_image(out)[1]
    for corner in np.ndindex(2, 2, 2):
        places = [
            affine @ [*(c * n - 0.5 for c, n in zip(corner, size, strict=True)), 1]
            for affine, size in ((low, (7, 6, 5)), (fine, (7, 18, 10)))
        ]
        np.testing.assert_allclose(places[0], places[1], atol=1e-9)


def test_time_mixed_with_space_is_refused(tmp_path: Path) -> None:
    matrix = "1 0 0 0 0 1 0 0 0 0 1 0 0.1 0 0 1"
    sizes = {"NDims": "4", "DimSize": "7 6 5 1", "ElementSpacing": "1 1 1 1", "Offset": "0 0 0 0"}
    with pytest.raises(FormatError, match="mixes time with space"):
        open_raster(by_hand(tmp_path / "a.mha", TransformMatrix=matrix, **sizes))
    single = open_raster(by_hand(tmp_path / "b.mha", TransformMatrix="", **sizes))
    assert single.axes == ("z", "y", "x")
    assert header(save_raster(single, tmp_path / "c.mha"))["DimSize"] == "7 6 5 1"


ROWS = (
    Row(
        "header lines, unknown keys",
        "kept as they are, in their order",
        test_an_unchanged_image_comes_back_byte_for_byte,
    ),
    Row(
        "TransformMatrix, Offset, ElementSpacing",
        "moved; the matrix stays as it is",
        lambda folder: test_a_refined_image_keeps_its_keys(folder, True),
    ),
    Row("DistanceUnits; ElementSize", "honoured and kept; replaced by the new spacing", test_units_and_voxel_size),
    Row("series", "kept, with start and step", test_a_series_keeps_its_step),
    Row(
        "byte order, HeaderSize, older spellings",
        "read; written little endian",
        test_byte_order_header_size_and_second_spellings,
    ),
    Row("`.mhd` with its data file", "kept as two files", test_a_header_with_its_data_file),
    Row(
        "scaled values of another format", "written as they are meant", test_scaled_values_are_written_as_they_are_meant
    ),
    Row("provenance", "keys of the header; no time, no path", test_bytes_repeat_and_provenance_is_read_by_itk),
)


def test_the_page_holds_this_table() -> None:
    check_table("MetaImage", ROWS)

"""Headers that lie, are cut off or hold what sciSR refuses."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from sciSR.errors import FormatError, GeometryError, MetadataWarning, MissingFileError
from sciSR.io import open_raster, save_raster
from tests.nifti_files import AFFINES, header_of, make, patch

VALUES = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)
DIM, DATATYPE, BITPIX, PIXDIM, OFFSET, SLOPE, UNITS, QUATERN, SROW, MAGIC = 40, 70, 72, 76, 108, 112, 123, 256, 280, 344


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return make(tmp_path / "scan.nii", VALUES, AFFINES["oblique"], codes=(1, 2))


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, struct.pack("<i", 347), "not a NIfTI file: it begins with 347"),
        (MAGIC, b"\0\0\0\0", "ANALYZE 7.5, which does not say left from right"),
        (MAGIC, b"ni1\0", "its magic calls it one of a pair, its name does not"),
        (DIM, struct.pack("<h", 0), r"dim\[0\] says 0 axes, expected 1 to 7"),
        (DIM, struct.pack("<h", 9), r"dim\[0\] says 9 axes"),
        (DIM + 4, struct.pack("<h", 0), "axis y has length 0; an empty volume"),
        (DIM + 6, struct.pack("<h", -5), "axis z has length -5"),
        (DIM + 6, struct.pack("<h", 6), "promises 504 bytes of values after 352, the file has 772 bytes"),
        (DIM, struct.pack("<6h", 5, 7, 6, 5, 1, 3), "vectors or tensors; expected a volume or a time series"),
        (DATATYPE, struct.pack("<h", 128), r"values are RGB colours \(datatype 128\)"),
        (DATATYPE, struct.pack("<h", 2304), "values are RGBA colours"),
        (DATATYPE, struct.pack("<h", 32), "values are complex"),
        (DATATYPE, struct.pack("<h", 1792), "values are complex"),
        (DATATYPE, struct.pack("<h", 1), "values are of single bits"),
        (DATATYPE, struct.pack("<h", 1536), "128-bit floats"),
        (DATATYPE, struct.pack("<h", 77), r"of unknown type \(datatype 77\)"),
        (OFFSET, struct.pack("<f", np.nan), "vox_offset nan is not a position"),
        (SLOPE, struct.pack("<2f", np.inf, 0), "scl_slope inf, scl_inter 0.0 cannot scale values"),
        (SLOPE, struct.pack("<2f", 2, np.nan), "scl_inter nan cannot scale values"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(plain: Path, offset: int, data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        open_raster(patch(plain, offset, data))
    assert "scan.nii" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cifti_file_is_called_so(plain: Path) -> None:
    patch(plain, DIM, struct.pack("<7h", 6, 1, 1, 1, 1, 7, 6))
    with pytest.raises(FormatError, match="a CIFTI file"):
        open_raster(patch(plain, 68, struct.pack("<h", 3006)))


@pytest.mark.parametrize("size", [0, 100, 347])
def test_a_stump_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"\x5c\1\0\0" + bytes(max(0, size - 4)) if size else b"")
    with pytest.raises(FormatError, match="too few for a NIfTI header"):
        open_raster(path)


def test_a_truncated_gzip_is_refused_when_its_values_are_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    path = make(tmp_path / "a.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:-30000])
    raster = open_raster(path)
    with pytest.raises(FormatError, match=r"a\.nii\.gz: the compressed data are damaged or cut off"):
        raster.read()
    with pytest.raises(FormatError, match="damaged or cut off"):
        raster.read((slice(30, 40), slice(0, 40), slice(0, 40)))
    with pytest.raises(FormatError, match="damaged or cut off"):
        save_raster(open_raster(path), tmp_path / "b.nii.gz")
    assert not (tmp_path / "b.nii.gz").exists()


def test_flipped_bits_in_gzip_are_noticed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32))
    raw = bytearray(path.read_bytes())
    raw[-8:-4] = bytes(4)  # the checksum
    path.write_bytes(bytes(raw))
    with pytest.raises(FormatError, match="damaged"):
        open_raster(path).read()


def test_a_header_that_promises_more_than_gzip_can_hold_is_refused_at_once(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii", VALUES)
    patch(path, DIM, struct.pack("<4h", 3, 30000, 30000, 30000))
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FormatError, match=r"more than .* compressed bytes can hold"):
        open_raster(packed)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_values_that_begin_far_beyond_the_file_are_refused(tmp_path: Path, suffix: str) -> None:
    path = patch(make(tmp_path / "a.nii", VALUES), 108, struct.pack("<f", 1e30))
    if suffix == ".nii.gz":
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FormatError, match=r"vox_offset 1e\+30 leaves 1e\+30 bytes for extensions"):
        open_raster(tmp_path / f"a{suffix}")


def test_a_gzip_that_is_no_gzip_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"\x1f\x8b" + bytes(range(200)))
    with pytest.raises(FormatError, match="damaged or cut off"):
        open_raster(path)


def test_a_name_may_lie_about_compression(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii", VALUES)
    renamed = source.rename(tmp_path / "b.nii.gz")
    assert np.array_equal(open_raster(renamed).read().values, VALUES.T)


def test_either_name_of_a_pair_opens_it_and_a_lone_half_is_refused(tmp_path: Path) -> None:
    image = make(tmp_path / "a.img", VALUES, extensions=((6, b"kept too"),))
    for name in ("a.img", "a.hdr"):
        out = save_raster(open_raster(tmp_path / name), tmp_path / name.replace("a", f"from_{name[2:]}"))
        assert np.array_equal(nib.load(out).dataobj, VALUES)
        assert out.with_suffix(".hdr").read_bytes()[:348] == image.with_suffix(".hdr").read_bytes()[:348]
        assert [bytes(e.get_content()).rstrip(b"\0") for e in nib.load(out).header.extensions] == [b"kept too"]
    with pytest.raises(MissingFileError, match=r"c\.hdr, the other file of the pair, is not there; .* as \.tif"):
        open_raster(image.rename(tmp_path / "c.img"))
    with pytest.raises(MissingFileError, match=r"a\.img, the other file of the pair, is not there$"):
        open_raster(tmp_path / "a.hdr")


def test_a_compressed_pair(tmp_path: Path) -> None:
    out = save_raster(open_raster(make(tmp_path / "a.nii", VALUES)), tmp_path / "b.img.gz")
    assert {p.name for p in tmp_path.iterdir()} == {"a.nii", "b.img.gz", "b.hdr.gz"}
    assert np.array_equal(open_raster(out).read().values, VALUES.T)
    assert np.array_equal(nib.load(out).dataobj, VALUES)


def odd(path: Path, message: str, **options: Any) -> Any:
    with pytest.warns(MetadataWarning, match=message):
        return open_raster(path, **options)


def test_odd_fields_are_named(plain: Path) -> None:
    odd(patch(plain, BITPIX, struct.pack("<h", 8)), "bitpix says 8, datatype 4 has 16; the datatype was used")


@pytest.mark.parametrize(("said", "meant"), [(-0.3, -1), (7.0, 1), (np.nan, 1)])
def test_a_handedness_that_is_no_sign_is_named_and_written_as_one(tmp_path: Path, said: float, meant: int) -> None:
    path = make(tmp_path / "a.nii", VALUES, codes=(1, 0))
    right = make(tmp_path / "right.nii", VALUES, codes=(1, 0))
    patch(path, 76, struct.pack("<f", said))
    patch(right, 76, struct.pack("<f", meant))
    raster = odd(path, "neither 1 nor -1; read as")
    assert raster.grid == open_raster(right).grid
    out = nib.load(save_raster(raster, tmp_path / "b.nii"))
    assert float(out.header["pixdim"][0]) == meant
    np.testing.assert_array_equal(out.get_qform(), nib.load(right).get_qform())


def test_an_offset_inside_the_header_is_named(plain: Path) -> None:
    raster = odd(patch(plain, OFFSET, struct.pack("<f", 348)), "vox_offset 348 lies inside the header; 352 was used")
    assert np.array_equal(raster.read().values, VALUES.T)


def test_an_offset_of_zero_means_right_after_the_header(plain: Path) -> None:
    assert np.array_equal(open_raster(patch(plain, OFFSET, bytes(4))).read().values, VALUES.T)


def test_values_may_begin_after_padding(tmp_path: Path, plain: Path) -> None:
    raw = plain.read_bytes()
    far = tmp_path / "far.nii"
    far.write_bytes(raw[:OFFSET] + struct.pack("<f", 1000) + raw[OFFSET + 4 : 352] + bytes(648) + raw[352:])
    assert np.array_equal(open_raster(far).read().values, VALUES.T)


def test_a_damaged_extension_is_dropped_and_named(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii", VALUES, extensions=((6, b"good"), (4, b"bad")))
    raster = odd(patch(path, 352 + 16, struct.pack("<i", 17)), "extension of 17 bytes is damaged")
    out = save_raster(raster, tmp_path / "b.nii")
    assert [e.get_code() for e in nib.load(out).header.extensions] == [6]


def test_unknown_units_are_named(plain: Path) -> None:
    odd(patch(plain, UNITS, b"\6"), "xyzt_units 6 names no unit of length")


@pytest.mark.parametrize(("value", "what"), [(0.0, "a zero"), (np.nan, "no number")])
def test_a_spacing_of_nothing_is_refused_unless_given(tmp_path: Path, value: float, what: str) -> None:
    path = make(tmp_path / "a.nii", VALUES, AFFINES["axial"], codes=(1, 0))
    patch(path, PIXDIM + 12, struct.pack("<f", value))
    with pytest.raises(GeometryError, match=rf"a\.nii: spacing .* has {what} on axis z; repair .* or pass spacing="):
        open_raster(path)
    raster = open_raster(path, spacing={"z": 5.0})
    assert raster.grid.spacing == pytest.approx({"z": 5.0, "y": 0.8, "x": 0.7})
    out = nib.load(save_raster(raster, tmp_path / "b.nii"))
    assert np.allclose(out.affine, AFFINES["axial"], atol=1e-5)


def test_a_sform_without_a_column_needs_the_qform_and_a_spacing(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii", VALUES, AFFINES["axial"], codes=(1, 2))
    for row in range(3):
        patch(path, SROW + 16 * row + 8, bytes(4))
    with pytest.raises(GeometryError, match=r"\(sform\) has a zero on axis z"):
        open_raster(path)
    raster = odd(path, "the sform has no direction along some axis; it was switched off", spacing={"z": 5.0})
    assert np.allclose(raster.grid.center_affine, AFFINES["axial"], atol=1e-5)
    assert int(header_of(save_raster(raster, tmp_path / "b.nii"))["sform_code"]) == 0


def test_a_given_spacing_is_believed_and_written(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii", VALUES, AFFINES["oblique"], codes=(1, 2))
    before = nib.load(path)
    raster = open_raster(path, spacing=2.0)
    assert raster.grid.spacing == pytest.approx({"z": 2.0, "y": 2.0, "x": 2.0})
    out = nib.load(save_raster(raster, tmp_path / "b.nii"))
    lengths = np.linalg.norm(before.affine[:3, :3], axis=0)
    for affine in (out.get_qform(), out.get_sform()):
        assert np.allclose(affine[:3, :3], before.affine[:3, :3] / lengths * 2, atol=1e-5)
        assert np.allclose(affine[:3, 3], before.affine[:3, 3], atol=1e-5)


@pytest.mark.parametrize("spacing", [0, -1.0, np.nan, {"w": 1.0}, {"z": 0.0}])
def test_an_impossible_spacing_is_refused(plain: Path, spacing: Any) -> None:
    with pytest.raises(GeometryError, match=r"spacing: .* expected a positive number for x, y or z"):
        open_raster(plain, spacing=spacing)


def test_a_sform_that_is_no_number_is_refused(plain: Path) -> None:
    with pytest.raises(GeometryError, match="offset of the sform is no number"):
        open_raster(patch(plain, SROW + 12, struct.pack("<f", np.nan)))


def test_parallel_axes_are_refused_with_the_files_name(plain: Path) -> None:
    for row, value in enumerate((1.0, 0.0, 0.0)):
        patch(plain, SROW + 16 * row, struct.pack("<2f", value, value))
    with pytest.raises(GeometryError, match=r"scan\.nii: sform: .*parallel"):
        open_raster(plain)


def test_an_impossible_quaternion(tmp_path: Path, plain: Path) -> None:
    patch(plain, QUATERN, struct.pack("<3f", 1, 1, 1))
    raster = odd(plain, "disagree, the qform's quaternion .* is longer than 1; the sform was used")
    with pytest.warns(MetadataWarning, match="it was switched off"):
        out = save_raster(raster.crop(z=slice(1, 5)), tmp_path / "b.nii")
    assert int(header_of(out)["qform_code"]) == 0
    patch(plain, 254, bytes(2))
    with pytest.raises(GeometryError, match="longer than 1; repair the header"):
        open_raster(plain)


def test_a_negative_pixdim_is_read_as_positive(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii", VALUES, AFFINES["axial"], codes=(1, 0))
    raster = odd(patch(path, PIXDIM + 4, struct.pack("<f", -0.7)), "is negative; its absolute value was used")
    assert raster.grid.spacing["x"] == pytest.approx(0.7)


def test_a_pixdim_that_contradicts_the_sform_is_named_and_a_missing_one_filled(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii", VALUES, AFFINES["axial"], codes=(0, 2))
    raster = odd(patch(path, PIXDIM + 12, struct.pack("<f", 1)), r"pixdim says .* 1\), the sform .* 5\)")
    assert raster.grid.spacing["z"] == pytest.approx(5.0)
    raster = odd(patch(path, PIXDIM + 12, struct.pack("<f", 0)), "the sform was used")
    assert float(header_of(save_raster(raster, tmp_path / "b.nii"))["pixdim"][3]) == pytest.approx(5.0)

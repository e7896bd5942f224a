"""Reading and writing NIfTI, judged by nibabel and by ITK."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from sciSR.errors import FormatError, GeometryError, InputError, MetadataWarning, OutputExistsError, RunError
from sciSR.io import adapter_for, open_raster, save_raster
from sciSR.raster import ArraySource, Block, Raster
from sciSR.regrid import regrid
from tests.nifti_files import AFFINES, header_of, make

RNG = np.random.default_rng(7)
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def values_of(dtype: str, shape: tuple[int, ...] = (7, 6, 5)) -> NDArray[Any]:
    """Random stored values, the extremes of the type among them, in order (x, y, z[, t])."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return RNG.normal(100, 30, shape).astype(kind)
    info = np.iinfo(kind)
    values = RNG.integers(max(info.min, -3000), min(info.max, 3000), shape).astype(kind)
    values.flat[0], values.flat[-1] = info.min, info.max
    return values


def stored(path: Path) -> NDArray[Any]:
    """The stored values as nibabel reads them, unscaled."""
    values: NDArray[Any] = nib.load(path).dataobj.get_unscaled()
    return np.asarray(values)


def refined(raster: Raster, *factors: int) -> Raster:
    """The raster with each spatial axis (z, y, x) refined, linearly."""
    shape = tuple(n * f for n, f in zip(raster.grid.shape, factors, strict=True))
    return regrid(raster, shape, kernel="linear")


def header_differences(a: Path, b: Path) -> set[str]:
    first, second = header_of(a), header_of(b)
    return {
        name for name in first if not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f")
    }


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_comes_back_as_it_was(tmp_path: Path, suffix: str, version: int, dtype: str) -> None:
    source = make(tmp_path / f"a{suffix}", values_of(dtype), AFFINES["oblique"], version=version)
    out = save_raster(open_raster(source), tmp_path / f"b{suffix}")
    assert np.array_equal(stored(out), stored(source))
    assert stored(out).dtype == np.dtype(dtype)
    assert header_differences(source, out) == set()


def test_axes_are_t_z_y_x_without_a_copy_of_meaning(tmp_path: Path) -> None:
    values = values_of("int16", (7, 6, 5, 3))
    raster = open_raster(make(tmp_path / "a.nii.gz", values, pixdim=[1, 0.7, 0.8, 5, 2.53, 0, 0, 0], xyzt_units=10))
    assert raster.axes == ("t", "z", "y", "x")
    assert raster.shape == (3, 5, 6, 7)
    assert np.array_equal(raster.read().values, values.T)
    assert raster.time is not None
    assert raster.time.step == pytest.approx(2.53)
    assert raster.time.unit == "s"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_any_window_reads_what_the_whole_holds(tmp_path: Path, suffix: str) -> None:
    values = values_of("float32", (9, 8, 11, 4))
    raster = open_raster(make(tmp_path / f"a{suffix}", values))
    for _ in range(20):
        window = []
        for n in raster.shape:
            low = int(RNG.integers(0, n))
            window.append(slice(low, int(RNG.integers(low + 1, n + 1))))
        assert np.array_equal(raster.read(tuple(window)).values, values.T[tuple(window)])
    parts = np.full(raster.shape, np.nan, np.float32)
    for at, block in raster.stream():
        parts[at] = block.values
    assert np.array_equal(parts, values.T)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_several_reads_at_once_agree(tmp_path: Path, suffix: str) -> None:
    values = values_of("int16", (40, 40, 60))
    raster = pickle.loads(pickle.dumps(open_raster(make(tmp_path / f"a{suffix}", values)).source))
    starts = RNG.integers(0, 50, 64)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda z: raster.read((slice(z, z + 10), slice(3, 30), slice(0, 40))).values, starts)
        for start, block in zip(starts, found, strict=True):
            assert np.array_equal(block, values.T[start : start + 10, 3:30])


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 1), (1, 2, 4)])
def test_refined_voxels_carry_their_world_coordinates(tmp_path: Path, name: str, factors: tuple[int, ...]) -> None:
    affine, shape = AFFINES[name], (8, 9, 7)
    weights = np.array([0.31, -0.52, 0.79])
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    ramp = ((index @ affine[:3, :3].T + affine[:3, 3]) @ weights).astype(np.float64)
    source = make(tmp_path / "a.nii.gz", ramp, affine, codes=(0 if name == "sheared" else 1, 2))
    out = nib.load(save_raster(refined(open_raster(source), *factors), tmp_path / "b.nii.gz"))
    fine = np.stack(np.meshgrid(*[np.arange(n) for n in out.shape], indexing="ij"), axis=-1)
    expected = apply_affine(out.affine, fine) @ weights
    inside = tuple(slice(2 * f, -2 * f) for f in factors[::-1])
    spacing = np.linalg.norm(out.affine[:3, :3], axis=0).min()
    assert np.abs(out.get_fdata()[inside] - expected[inside]).max() < 1e-3 * spacing


@pytest.mark.parametrize("name", AFFINES)
def test_corners_stay_to_a_ten_thousandth_of_a_millimetre(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), AFFINES[name], codes=(0 if name == "sheared" else 1, 4))
    out = save_raster(refined(open_raster(source), 3, 2, 4), tmp_path / "b.nii.gz")

    def corners(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        ends = [(-0.5, n - 0.5) for n in shape]
        points = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1).T
        return np.asarray(apply_affine(affine, points))

    before, after = nib.load(source), nib.load(out)
    for get in ("get_sform",) if name == "sheared" else ("get_sform", "get_qform"):
        gap = corners(getattr(before, get)(), before.shape) - corners(getattr(after, get)(), after.shape)
        assert np.abs(gap).max() < 1e-4
    assert open_raster(out).grid.same_space(open_raster(source).grid, tolerance_px=1e-3)


@pytest.mark.parametrize("name", [n for n in AFFINES if n != "sheared"])
def test_itk_places_the_result_where_nibabel_does(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), AFFINES[name])
    out = save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nii.gz")
    itk = pytest.importorskip("SimpleITK")
    image, affine = itk.ReadImage(str(out)), nib.load(out).affine
    for index in ((0, 0, 0), (13, 11, 9)):
        ras = affine @ [*index, 1]
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.allclose(lps * [-1, -1, 1], ras[:3], atol=1e-4)
    assert np.array_equal(itk.GetArrayFromImage(image), stored(out).T)


@pytest.mark.parametrize("codes", [(1, 2), (3, 4), (1, 0), (0, 2), (0, 0)])
def test_each_transform_keeps_its_code_and_moves_by_the_product(tmp_path: Path, codes: tuple[int, int]) -> None:
    source = make(tmp_path / "a.nii", values_of("int16"), AFFINES["oblique"], codes=codes)
    out = nib.load(save_raster(refined(open_raster(source), 2, 1, 4), tmp_path / "b.nii"))
    assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == codes
    change = np.diag([1 / 4, 1, 1 / 2, 1])
    change[:3, 3] = [(1 / 4 - 1) / 2, 0, (1 / 2 - 1) / 2]
    for code, get in zip(codes, ("get_qform", "get_sform"), strict=True):
        if code:
            before = getattr(nib.load(source), get)()
            assert np.allclose(getattr(out, get)(), before @ change, atol=1e-5)
    assert np.allclose(out.header.get_zooms(), np.array(nib.load(source).header.get_zooms()) / [4, 1, 2])


def test_a_file_without_position_keeps_its_spacing_and_its_codes(tmp_path: Path) -> None:
    raster = open_raster(make(tmp_path / "a.nii.gz", values_of("int16"), codes=(0, 0)))
    assert raster.grid.spacing == pytest.approx({"z": 5.0, "y": 0.8, "x": 0.7})
    assert np.allclose(raster.grid.center_affine[:3, 3], 0)  # nifti1.h, method 1


def test_disagreeing_transforms_are_named_and_both_kept(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), AFFINES["axial"], codes=(1, 4), qoffset_x=-80.0)
    with pytest.warns(MetadataWarning, match=r"qform \(code 1\) and sform \(code 4\) disagree by up to 10 .*sform was"):
        raster = open_raster(source)
    assert np.allclose(raster.grid.center_affine, AFFINES["axial"], atol=1e-5)
    out = nib.load(save_raster(refined(raster, 2, 2, 2), tmp_path / "b.nii.gz"))
    assert out.get_qform()[0, 3] - out.get_sform()[0, 3] == pytest.approx(10.0, abs=1e-4)


def test_units_of_the_file_are_honoured_and_kept(tmp_path: Path) -> None:
    metres = AFFINES["flipped"].copy()
    metres[:3] *= 1e-3
    source = make(tmp_path / "a.nii.gz", values_of("int16"), metres, xyzt_units=1)
    raster = open_raster(source)
    assert raster.grid.spacing == pytest.approx({"z": 5.0, "y": 0.8, "x": 0.7}, rel=1e-6)
    assert raster.grid.unit == "mm"
    out = nib.load(save_raster(refined(raster, 2, 2, 2), tmp_path / "b.nii.gz"))
    assert int(out.header["xyzt_units"]) == 1
    assert np.allclose(out.header.get_zooms(), (0.00035, 0.0004, 0.0025), rtol=1e-6)


KEPT: dict[str, Any] = {
    "descrip": b"T1w, gradient echo",
    "aux_file": b"scan.aux",
    "intent_code": 5,
    "intent_p1": 12.0,
    "intent_p2": 3.0,
    "intent_name": b"Zstat-ish",
    "cal_min": -10.0,
    "cal_max": 900.0,
    "toffset": 4.5,
    "xyzt_units": 2 | 16,
    "dim_info": 1 | 2 << 2 | 3 << 4,
}


def test_texts_intent_and_display_range_stay(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), **KEPT)
    out = save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nii.gz")
    assert header_differences(source, out) == {"dim", "pixdim", *(f"srow_{a}" for a in "xyz"), *QOFFSETS}


QOFFSETS = {f"qoffset_{a}" for a in "xyz"}


def test_extensions_stay_byte_for_byte(tmp_path: Path) -> None:
    extensions = ((6, b"a comment of some length"), (4, bytes(range(40))), (44, b'{"ResonantNucleus": ["1H"]}'))
    source = make(tmp_path / "a.nii", values_of("int16"), extensions=extensions)
    out = save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nii")
    size = int(nib.load(source).header["vox_offset"])
    assert out.read_bytes()[348:size] == source.read_bytes()[348:size]
    assert [e.get_code() for e in nib.load(out).header.extensions] == [6, 4, 44]


def test_provenance_becomes_a_comment_after_the_others_without_paths_or_times(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), extensions=((4, b"first"),))
    facts = {"SCISR_MODEL": "mri-x2", "from": str(source), "when": "2026-01-05T10:00:00", "ratio": "1/2"}
    out = save_raster(open_raster(source).replace(provenance=facts), tmp_path / "b.nii.gz")
    first, second = nib.load(out).header.extensions
    assert (first.get_code(), second.get_code()) == (4, 6)
    text = bytes(second.get_content()).rstrip(b"\0").decode()
    assert "mri-x2" in text
    assert "1/2" in text
    assert str(tmp_path) not in text
    assert "2026" not in text


SLICES: dict[str, Any] = {"slice_start": 1, "slice_end": 4, "slice_duration": 0.08, "slice_code": 3}


@pytest.mark.parametrize(
    ("slice_axis", "factors", "kept"), [(3, (1, 2, 2), True), (3, (2, 1, 1), False), (1, (2, 2, 1), True)]
)
def test_slice_timing_is_dropped_only_along_a_refined_slice_axis(
    tmp_path: Path, slice_axis: int, factors: tuple[int, ...], kept: bool
) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), dim_info=slice_axis << 4, **SLICES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = nib.load(save_raster(refined(open_raster(source), *factors), tmp_path / "b.nii.gz")).header
    expected = SLICES if kept else dict.fromkeys(SLICES, 0)
    assert {name: float(out[name]) for name in SLICES} == pytest.approx(expected)
    assert int(out["dim_info"]) == slice_axis << 4
    assert any("slice_duration" in str(w.message) for w in caught) is not kept


def test_scaled_integers_come_back_on_the_inputs_slope(tmp_path: Path) -> None:
    values = values_of("int16")
    source = make(tmp_path / "a.nii.gz", values, scl_slope=0.25, scl_inter=-1024.0)
    raster = open_raster(source)
    assert np.allclose(raster.read().values, values.T * 0.25 - 1024)
    out = save_raster(refined(raster, 2, 2, 2), tmp_path / "b.nii.gz")
    header = header_of(out)
    assert (float(header["scl_slope"]), float(header["scl_inter"])) == (0.25, -1024.0)
    assert header.get_data_dtype() == np.int16
    exact = refined(raster, 2, 2, 2).read().values
    assert np.abs(nib.load(out).get_fdata().T - exact).max() <= 0.125 + 1e-3


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 0.0), (np.nan, np.nan), (1.0, 0.0)])
def test_an_unscaled_file_stays_unscaled_in_its_own_words(tmp_path: Path, slope: float, inter: float) -> None:
    source = make(tmp_path / "a.nii", values_of("int16"))
    raw = bytearray(source.read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    source.write_bytes(bytes(raw))
    out = save_raster(open_raster(source), tmp_path / "b.nii")
    assert out.read_bytes()[112:120] == bytes(raw[112:120])


def test_values_beyond_the_type_saturate_and_round_half_to_even(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16))
    wild = np.array([[[40000.0, -40000], [1.5, 2.5]], [[-1.9, 1.9], [1e30, -1e30]]], np.float32)
    out = save_raster(open_raster(source).replace(source=ArraySource(wild)), tmp_path / "b.nii")
    assert stored(out).T.ravel().tolist() == [32767, -32768, 2, 2, -2, 2, 32767, -32768]


def test_nan_voxels_stay_where_they_are(tmp_path: Path) -> None:
    values = values_of("float32")
    holes = RNG.random(values.shape) < 0.2
    values[holes] = np.nan
    source = make(tmp_path / "a.nii.gz", values)
    block = open_raster(source).read()
    assert block.valid is not None
    assert np.array_equal(~block.valid, holes.T)
    out = save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nii.gz")
    children = holes.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(np.isnan(stored(out)), children)


def test_a_padding_value_can_be_named_and_comes_back(tmp_path: Path) -> None:
    values = values_of("int16")
    values[:2] = -2000
    source = make(tmp_path / "a.nii.gz", values, scl_slope=1.0, scl_inter=-24.0)
    raster = open_raster(source, nodata=-2024)
    block = raster.read()
    assert block.valid is not None
    assert np.array_equal(~block.valid, values.T == -2000)
    out = save_raster(refined(raster, 2, 2, 2), tmp_path / "b.nii.gz")
    assert (stored(out)[:4] == -2000).all()
    assert (stored(out)[4:] != -2000).all()
    with pytest.raises(InputError, match=r"nodata 0\.5 is no value that int16 stores"):
        open_raster(source, nodata=0.5)


def test_voxels_without_value_in_a_type_without_nan_are_told_of(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii", values_of("int16"))
    holes = np.full((5, 6, 7), np.nan, np.float32)
    raster = open_raster(source).replace(source=ArraySource(holes))
    with pytest.warns(MetadataWarning, match="stored as 0, int16 has no NaN"):
        save_raster(raster, tmp_path / "b.nii")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = save_raster(raster, tmp_path / "c.nii", dtype="float32")
    assert np.isnan(stored(out)).all()


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_both_byte_orders_read_alike(tmp_path: Path, byteorder: Literal["<", ">"]) -> None:
    values = values_of("int16")
    header = nib.Nifti1Header(endianness=byteorder)
    header.set_data_dtype(np.dtype("int16").newbyteorder(byteorder))
    image = nib.Nifti1Image(values, AFFINES["oblique"], header)
    nib.save(image, tmp_path / "a.nii.gz")
    raster = open_raster(tmp_path / "a.nii.gz")
    assert np.array_equal(raster.read().values, values.T)
    assert raster.read().values.dtype.isnative
    assert np.array_equal(stored(save_raster(raster, tmp_path / "b.nii.gz")), values)


def test_one_pixel_axes_and_plane_files(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16", (7, 6, 1)))
    out = save_raster(refined(open_raster(source), 1, 2, 2), tmp_path / "b.nii.gz")
    assert nib.load(out).shape == (14, 12, 1)
    plane = values_of("int16", (7, 6))
    nib.save(nib.Nifti1Image(plane, AFFINES["axial"]), tmp_path / "p.nii.gz")
    raster = open_raster(tmp_path / "p.nii.gz")
    assert raster.axes == ("z", "y", "x")
    assert nib.load(save_raster(raster, tmp_path / "q.nii.gz")).shape == (7, 6)
    assert nib.load(save_raster(refined(raster, 2, 1, 1), tmp_path / "r.nii.gz")).shape == (7, 6, 2)


def test_a_single_time_step_is_a_volume_and_keeps_its_four_axes(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16", (7, 6, 5, 1)))
    raster = open_raster(source)
    assert raster.axes == ("z", "y", "x")
    assert nib.load(save_raster(raster, tmp_path / "b.nii.gz")).shape == (7, 6, 5, 1)


def test_a_series_keeps_its_repetition_time_and_a_cut_moves_its_start(tmp_path: Path) -> None:
    source = make(
        tmp_path / "a.nii.gz", values_of("int16", (7, 6, 5, 4)), pixdim=[1, 0.7, 0.8, 5, 2.5, 0, 0, 0], xyzt_units=10
    )
    out = nib.load(save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / "b.nii.gz"))
    assert out.shape == (14, 12, 10, 4)
    assert float(out.header["pixdim"][4]) == 2.5
    late = save_raster(open_raster(source).crop(t=slice(2, 4)), tmp_path / "c.nii.gz")
    assert float(nib.load(late).header["toffset"]) == 5.0
    assert np.array_equal(stored(late), stored(source)[..., 2:])


def test_a_crop_lies_where_it_was_cut(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), AFFINES["oblique"])
    out = nib.load(save_raster(open_raster(source).crop(x=slice(2, 6), z=slice(1, 5)), tmp_path / "b.nii.gz"))
    expected = nib.load(source).slicer[2:6, :, 1:5]
    assert np.allclose(out.get_qform(), expected.affine, atol=1e-4)
    assert np.allclose(out.get_sform(), expected.affine, atol=1e-4)
    assert np.array_equal(out.dataobj, expected.dataobj)


def test_nifti2_is_taken_where_an_axis_is_too_long(tmp_path: Path) -> None:
    long = Raster.from_array(np.zeros((1, 1, 40000), np.uint8), affine=np.eye(4), axes="zyx")
    out = nib.load(save_raster(long, tmp_path / "a.nii.gz"))
    assert isinstance(out.header, nib.Nifti2Header)
    assert out.shape == (40000, 1, 1)
    with pytest.raises(InputError, match="needs NIfTI-2"):
        save_raster(long, tmp_path / "b.nii.gz", version=1)
    source = make(tmp_path / "c.nii.gz", values_of("int16"), **KEPT)
    second = nib.load(save_raster(open_raster(source), tmp_path / "d.nii.gz", version=2))
    assert isinstance(second.header, nib.Nifti2Header)
    assert second.header["descrip"] == KEPT["descrip"]
    assert np.allclose(second.affine, nib.load(source).affine)


@pytest.mark.parametrize(("name", "codes"), [("oblique", (2, 2)), ("permuted", (2, 2)), ("flipped", (2, 2))])
def test_a_raster_of_the_memory_gets_a_sane_header(tmp_path: Path, name: str, codes: tuple[int, int]) -> None:
    values = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    out = nib.load(save_raster(Raster.from_array(values, affine=AFFINES[name], axes="zyx"), tmp_path / "a.nii.gz"))
    assert (int(out.header["qform_code"]), int(out.header["sform_code"])) == codes
    assert np.allclose(out.get_qform(), AFFINES[name], atol=1e-4)
    assert np.allclose(out.get_sform(), AFFINES[name], atol=1e-5)
    assert int(out.header["xyzt_units"]) == 2
    assert np.array_equal(out.get_fdata(dtype=np.float32), values.T)


def test_a_sheared_raster_of_the_memory_says_that_a_qform_cannot_hold_it(tmp_path: Path) -> None:
    raster = Raster.from_array(np.zeros((3, 3, 3), np.uint8), affine=AFFINES["sheared"], axes="zyx")
    with pytest.warns(MetadataWarning, match="sheared .* which a qform cannot hold"):
        out = nib.load(save_raster(raster, tmp_path / "a.nii.gz"))
    assert int(out.header["qform_code"]) == 0
    assert np.allclose(out.get_sform(), AFFINES["sheared"], atol=1e-5)


def test_the_qform_of_a_sheared_file_stays_beside_its_sform(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"), AFFINES["sheared"], codes=(0, 2))
    held = nib.load(source)
    held.header.set_qform(AFFINES["axial"], 1)
    nib.save(held, tmp_path / "b.nii.gz")
    with pytest.warns(MetadataWarning, match="disagree"):
        raster = open_raster(tmp_path / "b.nii.gz")
    out = nib.load(save_raster(refined(raster, 2, 2, 2), tmp_path / "c.nii.gz")).header
    assert (int(out["qform_code"]), int(out["sform_code"])) == (1, 2)
    before = held.header
    assert [float(out[f"quatern_{k}"]) for k in "bcd"] == [float(before[f"quatern_{k}"]) for k in "bcd"]


@pytest.mark.parametrize(
    ("raster", "message"),
    [
        (Raster.from_array(np.zeros((2, 2)), affine=np.eye(3), axes="yx"), "a scene came"),
        (Raster.from_array(np.zeros((2, 3, 3, 3)), affine=np.eye(4), axes="czyx"), "one channel, 2 came"),
        (Raster.from_array(np.zeros((3, 3, 3), complex), affine=np.eye(4), axes="zyx"), "cannot store complex128"),
    ],
)
def test_what_nifti_cannot_hold_is_refused_before_work(tmp_path: Path, raster: Raster, message: str) -> None:
    with pytest.raises((GeometryError, InputError), match=message):
        save_raster(raster, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_and_the_input_itself_are_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii.gz", values_of("int16"))
    with pytest.raises(InputError, match="no option lables"):
        open_raster(source, lables=True)
    raster = open_raster(source)
    with pytest.raises(OutputExistsError):
        save_raster(raster, source)
    before = source.read_bytes()
    with pytest.raises(InputError, match="belongs to the input"):
        save_raster(raster, source, overwrite=True)
    assert source.read_bytes() == before


def test_slabs_out_of_order_are_a_defect(tmp_path: Path) -> None:
    raster = open_raster(make(tmp_path / "a.nii", values_of("int16")))
    writer = adapter_for("b.nii").create(raster, tmp_path / "b.nii")
    with pytest.raises(RunError, match="out of order"):
        writer.write((slice(2, 3), slice(0, 6), slice(0, 7)), Block(np.zeros((1, 6, 7), np.int16)))
    with pytest.raises(RunError, match="0 values came, 210 were expected"):
        writer.finish()
    writer.abort()


def test_the_bytes_do_not_depend_on_threads_or_blocks(tmp_path: Path) -> None:
    values = RNG.normal(size=(40, 200, 250)).astype(np.float32)
    whole = Raster.from_array(values, affine=np.eye(4), axes="zyx")
    thin = whole.replace(source=ArraySource(values, chunks=(1, 200, 250)))
    files = [
        save_raster(raster, tmp_path / f"{i}.nii.gz", threads=threads).read_bytes()
        for i, (raster, threads) in enumerate([(whole, 1), (whole, 4), (thin, 3)])
    ]
    assert files[0] == files[1] == files[2]
    assert files[0][3:8] == bytes(5)  # no flags, so no file name; mtime 0
    assert np.array_equal(nib.load(tmp_path / "1.nii.gz").get_fdata(dtype=np.float32), values.T)


def test_real_scans_come_back_byte_for_byte(tmp_path: Path, crops: Path) -> None:
    scans = sorted(crops.glob("*.nii.gz"))
    assert scans
    for source in scans:
        out = save_raster(open_raster(source), tmp_path / source.name)
        assert np.array_equal(stored(out), stored(source))
        assert header_differences(source, out) == set()
        fine = save_raster(refined(open_raster(source), 2, 2, 2), tmp_path / f"fine_{source.name}")
        assert header_differences(source, fine) - QOFFSETS <= {"dim", "pixdim", "srow_x", "srow_y", "srow_z"}
        assert nib.load(fine).get_data_dtype() == nib.load(source).get_data_dtype()


def test_a_file_cut_off_after_opening_is_told_of(tmp_path: Path) -> None:
    source = make(tmp_path / "a.nii", values_of("int16"))
    raster = open_raster(source)
    source.write_bytes(source.read_bytes()[:400])
    with pytest.raises(FormatError, match="it was cut off"):
        raster.read()


MEASURE = """
import resource, sys
import numpy as np
from sciSR.grid import RAS_MM, Grid
from sciSR.io import save_raster
from sciSR.raster import Block, Raster, windows
import sciSR.io.nifti

class Lazy:
    shape, dtype, chunks = (256, 256, 256), np.dtype("float32"), (8, 256, 256)
    slab = np.random.default_rng(0).normal(1000, 40, chunks).astype(np.float32)
    def read(self, window):
        return Block(self.slab[: window[0].stop - window[0].start].copy())
    def stream(self):
        return ((window, self.read(window)) for window in windows(self.shape, self.chunks))

small = Raster.from_array(np.zeros((1, 1, 1), np.float32), affine=np.eye(4), axes="zyx")
grid = Grid.from_center_affine(Lazy.shape, np.eye(4), frame=RAS_MM, unit="mm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_raster(small.replace(source=Lazy(), grid=grid), sys.argv[1], threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_writing_holds_a_few_slabs_and_never_the_volume(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "a.nii.gz")], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 0.9 * 256**3 * 4  # the volume is 64 MiB of float32
    assert nib.load(tmp_path / "a.nii.gz").shape == (256, 256, 256)

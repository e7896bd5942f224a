"""Everything that a NIfTI file means, through an upscaling by 2: one row of docs/formats.md each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray

import sciSR
from sciSR.errors import FormatError, InputError, MetadataWarning
from sciSR.labels import check_labels, upscale_labels
from tests.format_table import Row, check_table
from tests.nifti_files import AFFINES, header_of, make, patch

RNG = np.random.default_rng(11)
VOLUME = RNG.normal(300, 80, (9, 8, 7)).astype(np.int16)
TAGS: dict[str, Any] = {
    "descrip": b"T1w, defaced",
    "aux_file": b"scan.aux",
    "intent_code": 5,
    "intent_p1": 7.0,
    "intent_name": b"contrast A",
    "cal_min": 10.0,
    "cal_max": 900.0,
    "toffset": 1.5,
    "xyzt_units": 2 | 8,
    "dim_info": 1 | 2 << 2 | 3 << 4,
}


def twice(source: Path, out: Path, scale: Any = 2, **options: Any) -> Path:
    """Upscaled as a user would."""
    return sciSR.save_raster(
        sciSR.upscale(sciSR.open_raster(source, **{"labels": False, **options}), "cubic", scale=scale), out
    )


def tagged(folder: Path, suffix: str = ".nii.gz", **more: Any) -> tuple[Any, Any]:
    """The header of a tagged volume, and of its refinement."""
    source = make(folder / f"in{suffix}", VOLUME, AFFINES["oblique"], codes=(1, 4), **{**TAGS, **more})
    return header_of(source), header_of(twice(source, folder / f"out{suffix}"))


def stored(path: Path) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj.get_unscaled())


def equal_fields(*names: str) -> Any:
    def proof(folder: Path) -> None:
        before, after = tagged(folder)
        for name in names:
            assert before[name].tobytes() == after[name].tobytes(), name
            assert before[name].tobytes().strip(b"\0"), f"{name} is empty in the input, which proves nothing"

    return proof


def types_stay(folder: Path) -> None:
    for name in ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"):
        source = make(folder / f"{name}.nii", np.abs(VOLUME).clip(0, 99).astype(name))
        assert stored(twice(source, folder / f"{name}_2.nii")).dtype == np.dtype(name)


def slope_stays(folder: Path) -> None:
    _, after = tagged(folder, scl_slope=0.5, scl_inter=-1024.0)
    assert (float(after["scl_slope"]), float(after["scl_inter"])) == (0.5, -1024.0)
    exact = sciSR.upscale(sciSR.open_raster(folder / "in.nii.gz", labels=False), "cubic", scale=2).read().values
    assert np.abs(nib.load(folder / "out.nii.gz").get_fdata().T - exact).max() <= 0.25 + 1e-3


def values_saturate(folder: Path) -> None:
    steps = np.where(np.arange(9)[:, None, None] < 4, -32768, 32767) + np.zeros((9, 8, 7))
    out = stored(twice(make(folder / "a.nii", steps.astype(np.int16)), folder / "b.nii"))
    assert (out[:4] == -32768).all()  # cubic overshoots both limits beside the step
    assert (out[-4:] == 32767).all()
    assert (np.diff(out.astype(int), axis=0) >= 0).all()


def holes_stay(folder: Path) -> None:
    values = VOLUME.astype(np.float32)
    holes = RNG.random(values.shape) < 0.1
    values[holes] = RNG.choice([np.nan, np.inf, -np.inf], int(holes.sum()))
    out = stored(twice(make(folder / "a.nii.gz", values), folder / "b.nii.gz"))
    assert np.array_equal(np.isnan(out), holes.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def padding_stays(folder: Path) -> None:
    values = VOLUME.copy()
    values[:3] = -2000
    out = stored(twice(make(folder / "a.nii.gz", values), folder / "b.nii.gz", nodata=-2000))
    assert (out[:6] == -2000).all()
    assert out[6:].min() > -500


def field_of_view_stays(folder: Path) -> None:
    for name, affine in AFFINES.items():
        source = make(folder / f"{name}.nii.gz", VOLUME, affine, codes=(0, 2))
        out = nib.load(twice(source, folder / f"{name}_2.nii.gz"))
        before = nib.load(source)
        for corner in np.ndindex(2, 2, 2):
            low = [c * n - 0.5 for c, n in zip(corner, before.shape, strict=True)]
            high = [c * n - 0.5 for c, n in zip(corner, out.shape, strict=True)]
            gap = apply_affine(before.affine, low) - apply_affine(out.affine, high)
            assert np.abs(gap).max() < 1e-4, name


def forms_stay(folder: Path) -> None:
    change = np.diag([0.5, 0.5, 0.5, 1.0])
    change[:3, 3] = -0.25
    for codes in ((1, 4), (1, 0), (0, 2), (3, 3)):
        source = make(folder / f"{codes}.nii", VOLUME, AFFINES["oblique"], codes=codes)
        before, after = nib.load(source), nib.load(twice(source, folder / f"{codes}_2.nii"))
        assert (int(after.header["qform_code"]), int(after.header["sform_code"])) == codes
        for code, get in zip(codes, ("get_qform", "get_sform"), strict=True):
            if code:
                assert np.allclose(getattr(after, get)(), getattr(before, get)() @ change, atol=1e-5)


def disagreement_is_told(folder: Path) -> None:
    source = make(folder / "a.nii.gz", VOLUME, AFFINES["axial"], codes=(1, 4), qoffset_x=-80.0)
    with pytest.warns(MetadataWarning, match="disagree by up to 10 units; the sform was used"):
        out = nib.load(twice(source, folder / "b.nii.gz"))
    assert out.get_qform()[0, 3] - out.get_sform()[0, 3] == pytest.approx(10, abs=1e-4)


def no_position_stays_none(folder: Path) -> None:
    out = header_of(twice(make(folder / "a.nii", VOLUME, codes=(0, 0)), folder / "b.nii"))
    assert (int(out["qform_code"]), int(out["sform_code"])) == (0, 0)
    assert np.allclose(out["pixdim"][1:4], (0.35, 0.4, 2.5))


def spacing_follows(folder: Path) -> None:
    before, after = tagged(folder)
    assert np.array_equal(after["pixdim"][1:4], before["pixdim"][1:4] / 2)
    assert before["pixdim"][0] == after["pixdim"][0]


def metres_stay(folder: Path) -> None:
    metres = np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINES["axial"]
    out = header_of(twice(make(folder / "a.nii", VOLUME, metres, xyzt_units=1), folder / "b.nii"))
    assert int(out["xyzt_units"]) == 1
    assert np.allclose(out["pixdim"][1:4], (0.00035, 0.0004, 0.0025))


def series_stay(folder: Path) -> None:
    series = RNG.normal(300, 80, (6, 5, 4, 3)).astype(np.int16)
    source = make(folder / "a.nii.gz", series, **{**TAGS, "pixdim": [1, 0.7, 0.8, 5, 2.53, 0, 0, 0]})
    out = nib.load(twice(source, folder / "b.nii.gz"))
    assert out.shape == (12, 10, 8, 3)
    assert float(out.header["pixdim"][4]) == pytest.approx(2.53)
    one = make(folder / "one.nii.gz", series[..., 1])
    assert np.array_equal(stored(folder / "b.nii.gz")[..., 1], stored(twice(one, folder / "one_2.nii.gz")))


def single_slices_stay_single(folder: Path) -> None:
    plane = RNG.normal(300, 80, (12, 10)).astype(np.int16)
    affine = AFFINES["oblique"]
    for values in (plane, plane[:, :, None], plane[None], np.stack([plane, plane], -1)[:, :, None]):
        source = make(folder / f"{values.shape}.nii.gz", values, affine)
        out = nib.load(twice(source, folder / f"{values.shape}_2.nii.gz"))
        space = values.ndim if values.ndim < 4 else 3
        assert out.shape == tuple(n if n == 1 or i >= space else 2 * n for i, n in enumerate(values.shape))
        assert int(out.header["dim"][0]) == values.ndim
        before = nib.load(source)
        lengths = zip(out.header.get_zooms()[:space], before.header.get_zooms()[:space], values.shape, strict=False)
        assert all(new == old if n == 1 else new == pytest.approx(old / 2) for new, old, n in lengths)
        full = [(*values.shape, 1, 1)[:3], (*out.shape, 1, 1)[:3]]
        for corner in np.ndindex(2, 2, 2):
            low, high = ([c * n - 0.5 for c, n in zip(corner, size, strict=True)] for size in full)
            assert np.abs(apply_affine(before.affine, low) - apply_affine(out.affine, high)).max() < 1e-4
    named = twice(folder / "(12, 10, 1).nii.gz", folder / "named.nii.gz", scale={"z": 2})
    assert nib.load(named).shape == (12, 10, 2)
    even = sciSR.upscale(sciSR.open_raster(folder / "(12, 10).nii.gz"), "cubic", target_spacing=0.35)
    assert even.shape[0] == 1


SLICES: dict[str, Any] = {"slice_start": 1, "slice_end": 6, "slice_duration": 0.125, "slice_code": 3}


def extremes_are_dropped(folder: Path) -> None:
    _, after = tagged(folder, glmax=255, glmin=3)
    assert (int(after["glmax"]), int(after["glmin"])) == (0, 0)


def slice_timing(folder: Path) -> None:
    source = make(folder / "a.nii", VOLUME, dim_info=3 << 4, **SLICES)
    inside = header_of(twice(source, folder / "b.nii", scale={"x": 2, "y": 2}))
    assert {name: float(inside[name]) for name in SLICES} == SLICES
    with pytest.warns(MetadataWarning, match="no longer hold along the changed slice axis z"):
        across = header_of(twice(source, folder / "c.nii", scale={"z": 2}))
    assert {float(across[name]) for name in SLICES} == {0.0}


def extensions_stay(folder: Path) -> None:
    extensions = ((6, b"a comment"), (4, bytes(range(90))), (44, b'{"key": "value"}'))
    for suffix in (".nii", ".img"):
        source = make(folder / f"a{suffix}", VOLUME, extensions=extensions)
        twice(source, folder / f"b{suffix}")
        head, fine = (folder / f"{n}{'.nii' if suffix == '.nii' else '.hdr'}" for n in "ab")
        size = sum(-(-(len(content) + 8) // 16) * 16 for _, content in extensions)
        assert fine.read_bytes()[352 : 352 + size] == head.read_bytes()[352 : 352 + size]


def provenance_is_told(folder: Path) -> None:
    tagged(folder)
    (comment,) = nib.load(folder / "out.nii.gz").header.extensions
    assert comment.get_code() == 6
    told = json.loads(bytes(comment.get_content()).rstrip(b"\0"))
    assert told["SCISR_MODEL"] == "cubic"


def no_time_no_path(folder: Path) -> None:
    for place in (folder / "one", folder / "two"):
        place.mkdir()
        tagged(place)
    one, two = ((folder / n / "out.nii.gz").read_bytes() for n in ("one", "two"))
    assert one == two
    assert one[3:8] == bytes(5)


def kind_stays(folder: Path) -> None:
    for suffix in (".nii", ".nii.gz", ".img"):
        for version, size in ((1, 348), (2, 540)):
            source = make(folder / f"a{version}{suffix}", VOLUME, version=version)
            out = twice(source, folder / f"b{version}{suffix}")
            assert int(header_of(out)["sizeof_hdr"]) == size
            assert nib.load(out).shape == (18, 16, 14)


def sidecar_follows(folder: Path) -> None:
    source = make(folder / "a.nii.gz", VOLUME)
    (folder / "a.json").write_text('{"EchoTime": 0.003, "SliceThickness": 4.0, "SliceTiming": [0, 1]}')
    twice(source, folder / "b.nii.gz")
    after = json.loads((folder / "b.json").read_text())
    assert (after["EchoTime"], after["SliceThickness"]) == (0.003, 2.5)
    assert "SliceTiming" not in after
    assert after["GeneratedBy"][0]["Name"] == "sciSR"


def labels_are_refused(folder: Path) -> None:
    source = make(folder / "a.nii.gz", RNG.choice(np.array([0, 2, 4, 41], np.int16), VOLUME.shape))
    with pytest.raises(InputError, match=r"--labels .* --not-labels"):
        check_labels(sciSR.open_raster(source))
    raster = sciSR.open_raster(source, labels=True)
    assert check_labels(raster)
    for method in ("nearest", "linear"):
        fine = upscale_labels(raster, (14, 16, 18), method)
        out = stored(sciSR.save_raster(fine, folder / f"{method}.nii.gz"))
        assert set(np.unique(out)) <= {0, 2, 4, 41}


def others_are_refused(folder: Path) -> None:
    for code, what in ((128, "RGB"), (2304, "RGBA"), (32, "complex"), (1792, "complex")):
        source = patch(make(folder / f"{code}.nii", VOLUME), 70, int(code).to_bytes(2, "little"))
        with pytest.raises(FormatError, match=what):
            sciSR.open_raster(source)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 1, 3), np.float32), np.eye(4)), folder / "v.nii")
    with pytest.raises(FormatError, match="vectors or tensors"):
        sciSR.open_raster(folder / "v.nii")


ROWS = (
    Row("type of the values", "kept: 8 to 64-bit integers, float32, float64", types_stay),
    Row("scl_slope, scl_inter", "kept; results return onto the input's steps, rounded half to even", slope_stays),
    Row("limits of the type", "values saturate, none wraps", values_saturate),
    Row("NaN, infinity", "filled for the network, NaN again in exactly the children of such voxels", holes_stay),
    Row("padding value (`nodata=`)", "not smoothed into the image; exactly the children keep it", padding_stays),
    Row(
        "position: oblique, flipped, permuted, sheared",
        "corners of the field of view stay to 1e-4 mm",
        field_of_view_stays,
    ),
    Row("qform and sform, each with its code", "both multiplied by the same change, codes kept", forms_stay),
    Row("qform and sform that disagree", "the one used (sform) is named, both are kept", disagreement_is_told),
    Row("neither qform nor sform", "stays so: spacing without position", no_position_stays_none),
    Row("pixdim", "spacing divided, handedness (qfac) kept", spacing_follows),
    Row("xyzt_units", "kept; metres and micrometres stay what they are", metres_stay),
    Row("time series", "one volume after the other; repetition time kept", series_stay),
    Row(
        "a single slice (two axes, or three with one voxel along one)",
        "refined in its plane, stays one slice as thick; across by name only (`--scale z=2`)",
        single_slices_stay_single,
    ),
    Row("toffset, time unit", "kept", equal_fields("toffset", "xyzt_units")),
    Row("descrip, aux_file", "kept", equal_fields("descrip", "aux_file")),
    Row("intent: code, parameters, name", "kept", equal_fields("intent_code", "intent_p1", "intent_name")),
    Row("cal_min, cal_max", "kept", equal_fields("cal_min", "cal_max")),
    Row("dim_info", "kept", equal_fields("dim_info")),
    Row("glmax, glmin (extremes of the values, ANALYZE)", "dropped: they no longer hold", extremes_are_dropped),
    Row("slice timing", "kept in plane; dropped with a warning along a refined slice axis", slice_timing),
    Row("header extensions", "kept byte for byte, in order", extensions_stay),
    Row(
        "NIfTI-1 or -2, .nii, .nii.gz, .hdr with .img",
        "files as the output's name says; version as the input's, 2 where an axis is too long",
        kind_stays,
    ),
    Row(
        "BIDS sidecar",
        "carried over; SliceThickness and others replaced, SliceTiming dropped along the slice axis",
        sidecar_follows,
    ),
    Row(
        "label map (by intent, or 2 to 40 whole numbers)",
        "refused, or upsampled as classes with `--labels`",
        labels_are_refused,
    ),
    Row("colours, complex numbers, vectors", "refused", others_are_refused),
    Row(
        "provenance", "network and factors in the sidecar's GeneratedBy, or in a comment extension", provenance_is_told
    ),
    Row("time and place of the run", "nowhere: the same work gives the same bytes", no_time_no_path),
)


@contextmanager
def only_told_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetadataWarning)
        yield


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_row(row: Row, tmp_path: Path) -> None:
    with only_told_warnings():
        row.proof(tmp_path)


def test_the_page_holds_this_table() -> None:
    check_table("NIfTI", ROWS)


def test_full_scans_keep_their_headers(full_data: Path, tmp_path: Path) -> None:
    scans = sorted(full_data.glob("*/*.nii.gz"))
    assert scans
    for scan in scans:
        raster = sciSR.open_raster(scan).crop(z=slice(4, 20), y=slice(60, 92), x=slice(70, 102))
        out = header_of(sciSR.save_raster(sciSR.upscale(raster, "cubic", scale=2), tmp_path / scan.name))
        before = header_of(scan)
        changed = {n for n in before if before[n].tobytes() != out[n].tobytes()}
        places = {
            "dim",
            "pixdim",
            "vox_offset",
            "glmax",
            "glmin",
            *(f"srow_{a}" for a in "xyz"),
            *(f"qoffset_{a}" for a in "xyz"),
        }
        assert changed <= places, scan.name
        corner = nib.load(scan).slicer[70:102, 60:92, 4:20].affine @ [-0.5, -0.5, -0.5, 1]
        assert np.allclose(nib.load(tmp_path / scan.name).affine @ [-0.5, -0.5, -0.5, 1], corner, atol=1e-4)

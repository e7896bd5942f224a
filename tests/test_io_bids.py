from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from sciSR import __version__
from sciSR.errors import FormatError, InputError, MetadataWarning, OutputExistsError
from sciSR.io import open_raster, save_raster
from sciSR.io.bids import carry_over, read_sidecar, sidecar_path, stable, to_json
from sciSR.raster import Raster
from sciSR.regrid import regrid
from tests.nifti_files import make

VALUES = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)

SIDECAR: dict[str, Any] = {
    "Modality": "MR",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.00298,
    "SliceThickness": 4.5,
    "SpacingBetweenSlices": 5,
    "SliceTiming": [0.0, 0.5, 0.1, 0.6, 0.2],
    "PhaseEncodingDirection": "j-",
    "ReconMatrixPE": 6,
    "EffectiveEchoSpacing": 0.0006,
    "TotalReadoutTime": 0.003,
    "AcquisitionMatrixPE": 5,
    "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0],
    "Rows": 6,
    "Columns": 999,
    "Ünïcode": "±µ",
}


def scan(folder: Path, sidecar: Any = SIDECAR, name: str = "sub-01_T1w.nii.gz") -> Path:
    path = make(folder / name, VALUES)
    sidecar_path(path).write_text(sidecar if isinstance(sidecar, str) else json.dumps(sidecar), encoding="utf-8")
    return path


def refined(raster: Raster, *factors: int) -> Raster:
    return regrid(raster, tuple(n * f for n, f in zip(raster.grid.shape, factors, strict=True)), kernel="nearest")


def beside(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(
    "name", ["sub-01_T1w.nii.gz", "sub-01_T1w.nii", "sub-01_T1w.img", "sub-01_T1w.hdr.gz", "sub-01_T1w.NII.GZ"]
)
def test_the_sidecar_has_the_images_name(name: str) -> None:
    assert sidecar_path(Path("d") / name) == Path("d/sub-01_T1w.json")


def test_dots_in_a_name_stay() -> None:
    assert sidecar_path("a/t1_0.7mm.nii.gz") == Path("a/t1_0.7mm.json")


def test_what_no_longer_holds_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    out = save_raster(refined(open_raster(scan(tmp_path)), 2, 2, 1), tmp_path / "out" / "sub-01_T1w.nii.gz")
    after = beside(out)
    assert after["SliceThickness"] == 2.5
    assert after["SpacingBetweenSlices"] == 2.5
    assert "SliceTiming" not in after
    assert after["ReconMatrixPE"] == 12
    assert after["EffectiveEchoSpacing"] * (after["ReconMatrixPE"] - 1) == pytest.approx(after["TotalReadoutTime"])
    assert after["Rows"] == 12
    unchanged = set(SIDECAR) - {
        "SliceThickness", "SpacingBetweenSlices", "SliceTiming", "ReconMatrixPE", "EffectiveEchoSpacing", "Rows"
    }  # fmt: skip
    assert {key: after[key] for key in unchanged} == {key: SIDECAR[key] for key in unchanged}
    replaced = after["GeneratedBy"][-1]["ReplacedFields"]
    assert replaced == {key: SIDECAR[key] for key in set(SIDECAR) - unchanged}
    assert beside(tmp_path / "sub-01_T1w.nii.gz") == SIDECAR


def test_in_plane_refinement_leaves_the_slices_alone(tmp_path: Path) -> None:
    after = beside(save_raster(refined(open_raster(scan(tmp_path)), 1, 1, 2), tmp_path / "b.nii.gz"))
    for key in ("SliceThickness", "SpacingBetweenSlices", "SliceTiming", "ReconMatrixPE", "Rows"):
        assert after[key] == SIDECAR[key]
    assert "Columns" not in after, "999 was never the count along x, nobody knows what it meant"


def test_the_slice_axis_is_the_headers_or_the_sidecars(tmp_path: Path) -> None:
    sideways = {"SliceEncodingDirection": "i", "SliceThickness": 0.7}
    out = save_raster(refined(open_raster(scan(tmp_path, sideways)), 2, 1, 1), tmp_path / "b.nii.gz")
    assert beside(out)["SliceThickness"] == 0.7
    coronal = make(tmp_path / "c.nii.gz", VALUES, dim_info=2 << 4)
    sidecar_path(coronal).write_text('{"SliceThickness": 0.8}')
    out = save_raster(refined(open_raster(coronal), 1, 2, 1), tmp_path / "d.nii.gz")
    assert beside(out)["SliceThickness"] == pytest.approx(0.4)


def test_echo_spacing_without_a_known_axis_is_dropped() -> None:
    sizes = {"x": (8, 1.0), "y": (8, 1.0), "z": (8, 1.0)}
    finer = dict.fromkeys("xyz", (16, 0.5))
    known = {"EffectiveEchoSpacing": 0.001, "ReconMatrixPE": 8, "PixelSize": [1, 2, 3], "Resolution": "native"}
    after = carry_over(known, before=sizes, after=finer, slice_axis=None, provenance={})
    assert set(after) == {"PixelSize", "Resolution", "GeneratedBy"}
    assert after["PixelSize"] == [0.5, 1, 1.5]
    assert after["Resolution"] == "0.5 x 0.5 x 0.5 mm, upsampled"
    same = carry_over(known, before=sizes, after=sizes, slice_axis=None, provenance={})
    assert {k: same[k] for k in known} == known


def test_provenance_is_an_entry_after_the_earlier_ones_and_the_header_gets_none(tmp_path: Path) -> None:
    earlier = {"GeneratedBy": [{"Name": "dcm2niix", "Version": "1.0"}], "EchoTime": 0.003}
    raster = open_raster(scan(tmp_path, earlier)).replace(provenance={"SCISR_MODEL": "cubic", "at": "/home/me/x"})
    out = save_raster(raster, tmp_path / "b.nii.gz")
    first, second = beside(out)["GeneratedBy"]
    assert first == earlier["GeneratedBy"][0]  # type: ignore[index]  # the entry of the sidecar above
    assert second == {"Name": "sciSR", "Version": __version__, "Description": "SCISR_MODEL: cubic"}
    assert len(nib.load(out).header.extensions) == 0


def test_the_same_work_gives_the_same_sidecar(tmp_path: Path) -> None:
    raster = refined(open_raster(scan(tmp_path)), 2, 2, 2)
    one, two = (save_raster(raster, tmp_path / f / "b.nii.gz") for f in ("one", "two"))
    assert sidecar_path(one).read_bytes() == sidecar_path(two).read_bytes()
    assert "±µ" in sidecar_path(one).read_text(encoding="utf-8")
    assert one.read_bytes() == two.read_bytes()


def test_a_scan_without_sidecar_gets_none(tmp_path: Path) -> None:
    save_raster(open_raster(make(tmp_path / "a.nii.gz", VALUES)), tmp_path / "out" / "b.nii.gz")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.nii.gz"]


def test_a_sidecar_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    raster = open_raster(scan(tmp_path))
    (tmp_path / "b.json").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"b\.json"):
        save_raster(raster, tmp_path / "b.nii.gz")
    assert (tmp_path / "b.json").read_text() == "mine"
    save_raster(raster, tmp_path / "b.nii.gz", overwrite=True)
    assert beside(tmp_path / "b.nii.gz")["EchoTime"] == SIDECAR["EchoTime"]


def test_the_sidecar_of_an_older_output_does_not_outlive_it(tmp_path: Path) -> None:
    with_one = open_raster(scan(tmp_path))
    without = open_raster(make(tmp_path / "plain.nii.gz", VALUES))
    out = save_raster(with_one, tmp_path / "b.nii.gz")
    save_raster(with_one, out, overwrite=True)
    assert sidecar_path(out).exists()
    save_raster(without, out, overwrite=True)
    assert not sidecar_path(out).exists()
    for foreign in ('{"EchoTime": 1}', "no json", '{"GeneratedBy": [{"Name": "dcm2niix"}]}'):
        sidecar_path(out).write_text(foreign)
        save_raster(without, out, overwrite=True)
        assert sidecar_path(out).read_text() == foreign


def test_the_inputs_own_sidecar_is_never_replaced(tmp_path: Path) -> None:
    raster = open_raster(scan(tmp_path))
    with pytest.raises(InputError, match=r"sub-01_T1w\.json: belongs to the input"):
        save_raster(raster, tmp_path / "sub-01_T1w.nii", overwrite=True)


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", "\ufeff"])
def test_a_broken_sidecar_is_named_and_left(tmp_path: Path, text: str) -> None:
    path = scan(tmp_path, text)
    with pytest.raises(FormatError, match=r"sub-01_T1w\.json"):
        read_sidecar(path)
    with pytest.warns(MetadataWarning, match="it is not carried over"):
        raster = open_raster(path)
    out = save_raster(raster, tmp_path / "b.nii.gz")
    assert not sidecar_path(out).exists()


def test_the_unit_of_the_values_comes_from_the_sidecar(tmp_path: Path) -> None:
    assert open_raster(scan(tmp_path, {"Units": "Hz"})).unit == "Hz"
    assert open_raster(scan(tmp_path, {"EchoTime": 1})).unit is None


@pytest.mark.parametrize(
    "text", ["/home/me/scan.nii", "~/x", "./x", "../x", "C:\\scans\\x", "model=/a/b", "at 2026-01-02", "10:11:12"]
)
def test_paths_and_times_are_no_stable_provenance(text: str) -> None:
    assert stable({"key": text, "model": "mri-x2"}) == {"model": "mri-x2"}


@pytest.mark.parametrize(
    "text", ["mri-x2", "z=4, y=1, x=1", "https://doi.org/10.1109/TMI.2020", "m/s", "0.1.0", "2:1", "1.5 mm"]
)
def test_other_facts_are(text: str) -> None:
    assert stable({"key": text}) == {"key": text}


def test_equal_content_gives_equal_text() -> None:
    assert to_json({"a": 0.1, "b": [1, "ü"]}) == '{\n  "a": 0.1,\n  "b": [\n    1,\n    "ü"\n  ]\n}\n'

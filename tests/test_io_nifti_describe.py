from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sciSR.io import adapter_for, open_raster
from sciSR.io.nifti_describe import orientation
from tests.nifti_files import AFFINES, make

VALUES = np.zeros((7, 6, 5, 3), np.int16)


def test_a_full_header_is_told_in_plain_values(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.nii.gz",
        VALUES,
        AFFINES["flipped"],
        codes=(1, 4),
        extensions=((6, b"hello"), (22, b"x")),
        scl_slope=2.0,
        scl_inter=-1024.0,
        descrip=b"a text",
        intent_code=5,
        cal_max=300.0,
        pixdim=[1, 0.7, 0.8, 5, 2.5, 0, 0, 0],
        xyzt_units=10,
        dim_info=3 << 4,
        slice_code=3,
        slice_end=4,
        slice_duration=0.5,
    )
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.json").write_text('{"EchoTime": 1}')
    facts = adapter_for(path).describe(str(path))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["version"] == "NIfTI-1, single file"
    assert facts["orientation"].startswith("LPS")
    assert facts["qform"] == "code 1, scanner"
    assert facts["sform"] == "code 4, MNI 152"
    assert facts["placed by"] == "sform"
    assert facts["intent"] == "code 5, z score"
    assert facts["descrip"] == "a text"
    assert facts["display range"] == [0.0, 300.0]
    assert facts["time"] == {"start": 0.0, "step": 2.5, "unit": "s"}
    assert facts["slices"] == {"axis": "z", "order": "alternating, rising", "last": 4, "duration": 0.5}
    assert [(e["code"], e["name"]) for e in facts["extensions"]] == [(6, "comment"), (22, "other")]
    assert facts["sidecar"] == "carried over"


def test_an_empty_header_is_told_in_few_words(tmp_path: Path) -> None:
    path = make(tmp_path / "a.img", VALUES[..., 0], codes=(0, 0), version=2)
    facts = adapter_for(path).describe(str(path))
    assert facts["version"] == "NIfTI-2, pair"
    assert facts["placed by"].startswith("pixdim alone")
    assert facts["file unit"] == "not stated, taken as mm"
    assert not {"intent", "descrip", "aux_file", "time", "slices", "extensions", "sidecar", "notes"} & set(facts)


def test_doubts_are_listed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii.gz", VALUES, bitpix=8)
    assert "bitpix says 8" in adapter_for(path).describe(str(path))["notes"][0]


@pytest.mark.parametrize(("name", "letters"), [("axial", "RAS"), ("flipped", "LPS"), ("permuted", "PSR")])
def test_letters_tell_where_axes_grow(tmp_path: Path, name: str, letters: str) -> None:
    assert orientation(open_raster(make(tmp_path / "a.nii", VALUES, AFFINES[name]))) == letters

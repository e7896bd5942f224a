"""The run record: whole, plain, and exact about bytes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciSR import record as module
from sciSR.errors import ConfigError, InputError, MissingFileError, OutputExistsError
from sciSR.record import FileFact, RunRecord, is_record, plain, read_record, sha256_of, version_facts, write_text


def a_record(folder: Path) -> RunRecord:
    source = folder / "in.bin"
    source.write_bytes(b"input")
    return RunRecord(
        workflow={"input": {"path": ["in.bin"]}, "upscale": {"network": "cubic"}},
        inputs=[FileFact.of(source)],
        weights=None,
        output=FileFact.of(source),
        engine={"plan": {"tile": [1, 2]}, "share": 0.1},
        grids={"input": {"affine": np.eye(3)}},
        versions=version_facts(),
        timings={"write": 1.25},
        created="2026-01-01T00:00:00+00:00",
    )


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    record = a_record(tmp_path)
    path = record.write(tmp_path / "x.run.json")
    again = read_record(path)
    assert again.to_dict() == record.to_dict()
    assert again.inputs[0] == record.inputs[0]
    assert "[1.0, 0.0, 0.0]" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_checksums_are_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, ("x", "y")), (two, ("y", "x"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(name.encode())
    assert sha256_of(one) == sha256_of(two)
    (two / "x").write_bytes(b"other")
    assert sha256_of(one) != sha256_of(two)
    with pytest.raises(MissingFileError):
        sha256_of(tmp_path / "none")


def test_a_changed_file_is_refused_and_a_moved_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.bin").write_bytes(b"input")
    monkeypatch.chdir(tmp_path)
    fact = FileFact.of("in.bin")
    assert fact.locate() == "in.bin"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fact.locate() == str(tmp_path / "in.bin")
    fact.verify(fact.locate())
    (tmp_path / "in.bin").write_bytes(b"other")
    with pytest.raises(InputError, match=r"in\.bin: its sha256 is .* the file has changed"):
        fact.verify(fact.locate())
    (tmp_path / "in.bin").unlink()
    with pytest.raises(MissingFileError, match="the record expects it there or at"):
        fact.locate()


def test_an_address_is_not_read_whole() -> None:
    fact = FileFact.of("https://example.org/a.tif")
    assert (fact.sha256, fact.bytes, fact.locate()) == (None, None, "https://example.org/a.tif")
    fact.verify("anything")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("not json", "not a run record"),
        ("[]", "the keys record and workflow are missing"),
        ('{"record": 1}', "the keys record and workflow are missing"),
        ('{"record": 99, "workflow": {}, "sciSR": "7.0"}', "record format 99 came"),
        ('{"record": 1, "workflow": {}}', "not a whole run record"),
        ('{"record": 1, "workflow": {}, "inputs": [{"pth": 1}], "weights": null, "output": {}}', "not a whole"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "x.run.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_record(path)
    with pytest.raises(MissingFileError):
        read_record(tmp_path / "none.run.json")


def test_records_are_told_by_their_name() -> None:
    assert is_record("out/a.run.json")
    assert not is_record("w.yaml")
    assert not is_record("train.json")


def test_plain_values_are_json() -> None:
    values = {1: (np.float32(0.5), np.int64(3)), "p": Path("a"), "bad": [math.nan, math.inf], "s": {"x"}}
    assert plain(values) == {"1": [0.5, 3], "p": "a", "bad": [None, None], "s": ["x"]}
    json.dumps(plain(values), allow_nan=False)


def test_other_versions_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_record(tmp_path)
    assert record.changed_versions() == []
    older = replace(record, versions={**record.versions, "torch": "1.0", "python": "2.7"})
    assert [text.split()[0:2] for text in older.changed_versions()] == [["torch", "1.0"]]
    now: dict[str, Any] = {**module.version_facts(), "numpy": "99"}
    monkeypatch.setattr(module, "version_facts", lambda: now)
    assert record.changed_versions() == [f"numpy {record.versions['numpy']} -> 99"]


def test_text_files_appear_whole_and_are_not_replaced_unasked(tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "a.md", "one\n")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_text(path, "two\n", overwrite=False)
    assert path.read_text(encoding="utf-8") == "one\n"
    write_text(path, "two\n")
    assert path.read_text(encoding="utf-8") == "two\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.md"]

"""Slabs of several writers, in any order and more than once, become the bytes of one."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from sciSR.encoding import Encoding
from sciSR.errors import RunError
from sciSR.io import gzipped
from sciSR.io.gzipped import GzipSink, PlainSink
from sciSR.io.shared_slabs import SharedSlabWriter, _product, _shift, begin_slabs, complete_slabs
from sciSR.raster import Block, Raster

RNG = np.random.default_rng(4)
VALUES = RNG.normal(100, 30, (3, 40, 7, 9)).astype(np.int16)
RASTER = Raster.from_array(VALUES, affine=np.eye(4), axes="tzyx", name="scan")
HEAD = bytes(range(97))


def alone(path: Path) -> bytes:
    sink = GzipSink(path, threads=1) if path.suffix == ".gz" else PlainSink(path)
    sink.write(HEAD + VALUES.astype("<i2").tobytes())
    sink.close()
    return path.read_bytes()


def tasks() -> list[list[tuple[int, slice]]]:
    """Slabs of some planes of one time step, in tasks of several slabs, in no order; one task twice."""
    found = []
    for t in range(3):
        slabs = [(t, slice(z, min(z + 6, 40))) for z in range(0, 40, 6)]
        found += [slabs[:2], slabs[2:5], slabs[5:]]
    RNG.shuffle(found)
    return [*found, found[0]]


def write(path: Path, task: list[tuple[int, slice]]) -> None:
    writer = SharedSlabWriter(RASTER, Encoding("int16"), path, len(HEAD))
    for t, planes in task:
        window = (slice(t, t + 1), planes, slice(0, 7), slice(0, 9))
        writer.write(window, Block(VALUES[window]))
    writer.finish()


@pytest.mark.parametrize("name", ["a.bin", "a.gz"])
@pytest.mark.parametrize("piece", [50, 997, 4096, 10**6])
def test_the_bytes_are_those_of_one_writer(
    tmp_path: Path, name: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gzipped, "PIECE", piece)
    expected = alone(tmp_path / f"alone-{name}")
    begin_slabs(tmp_path / name, HEAD, VALUES.nbytes)
    for task in tasks():
        write(tmp_path / name, task)
    complete_slabs(tmp_path / name, len(HEAD) + VALUES.nbytes, "scan", Encoding("int16"))
    assert (tmp_path / name).read_bytes() == expected


def test_a_slab_that_nobody_wrote_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "PIECE", 997)
    begin_slabs(tmp_path / "a.gz", HEAD, VALUES.nbytes)
    for task in tasks()[1:-1]:
        write(tmp_path / "a.gz", task)
    with pytest.raises(RunError, match=r"a\.gz: \d+ bytes are missing"):
        complete_slabs(tmp_path / "a.gz", len(HEAD) + VALUES.nbytes, "scan", Encoding("int16"))


@pytest.mark.parametrize("count", [0, 1, 5, 4095, 100_003])
def test_checksums_of_pieces_give_that_of_the_whole(count: int) -> None:
    first, second = RNG.bytes(1234), RNG.bytes(count)
    assert _product(_shift(count), zlib.crc32(first)) ^ zlib.crc32(second) == zlib.crc32(first + second)

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR.errors import FormatError
from sciSR.io import save_raster
from sciSR.io.gzipped import PIECE, GzipSink, GzipSlabs, PlainSink, is_gzip, open_decompressed
from sciSR.raster import Raster

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_goes_in_comes_out_in_one_member(tmp_path: Path, size: int, threads: int) -> None:
    data = RNG.integers(0, 7, size, dtype=np.uint8).tobytes()
    path = tmp_path / "a.gz"
    sink = GzipSink(path, threads=threads)
    sink.write(data[:1000])
    sink.write(memoryview(data)[1000:])
    sink.close()
    raw = path.read_bytes()
    machine = zlib.decompressobj(31)  # stops after the first member
    assert machine.decompress(raw) == data
    assert machine.eof
    assert machine.unused_data == b""
    assert raw[3:8] == bytes(5)
    assert struct.unpack("<I", raw[-4:])[0] == size


def test_other_readers_take_a_volume_of_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.io.gzipped.PIECE", 5000)
    values = RNG.normal(100, 30, (20, 30, 40)).astype(np.int16)
    path = save_raster(Raster.from_array(values, affine=np.eye(4), axes="zyx"), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj).T, values)
    itk = pytest.importorskip("SimpleITK")
    np.testing.assert_array_equal(itk.GetArrayFromImage(itk.ReadImage(str(path))), values)
    if shutil.which("gzip"):
        told = subprocess.run(["gzip", "-t", "-v", path], capture_output=True, text=True, check=True)
        assert "OK" in told.stdout + told.stderr


def test_a_failing_disk_stops_the_threads(tmp_path: Path) -> None:
    sink = GzipSink(tmp_path / "a.gz", threads=2)
    sink.write(bytes(2 * PIECE))
    sink.abort()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sciSR-gzip")]


def test_a_plain_sink_writes_what_it_gets(tmp_path: Path) -> None:
    sink = PlainSink(tmp_path / "a")
    sink.write(b"one")
    sink.write(memoryview(b"two"))
    sink.close()
    assert (tmp_path / "a").read_bytes() == b"onetwo"


def test_content_tells_gzip_from_plain(tmp_path: Path) -> None:
    packed, plain = tmp_path / "plain.nii", tmp_path / "packed.nii.gz"
    packed.write_bytes(gzip.compress(b"hello"))
    plain.write_bytes(b"hello")
    assert (is_gzip(str(packed)), is_gzip(str(plain))) == (True, False)
    for path in (packed, plain):
        with open_decompressed(str(path)) as file:
            assert file.read() == b"hello"


def packed(path: Path, values: NDArray[Any], members: int = 1) -> Path:
    """The values after ten bytes, in so many gzip members."""
    raw = b"0123456789" + values.tobytes()
    step = -(-len(raw) // members)
    path.write_bytes(b"".join(gzip.compress(raw[i : i + step]) for i in range(0, len(raw), step)))
    return path


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("cache", [2**29, 3 * 2**20])
@pytest.mark.parametrize("indexed", [True, False])
def test_windows_in_any_order_under_a_small_cache(
    tmp_path: Path, members: int, cache: int, indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not indexed:
        monkeypatch.setitem(sys.modules, "indexed_gzip", None)
    monkeypatch.setattr("sciSR.io.gzipped.SLAB_BYTES", 2**19)
    values = RNG.integers(-99, 99, (3, 40, 150, 170), dtype=np.int16)
    path = packed(tmp_path / "a.gz", values, members)
    slabs = GzipSlabs(str(path), np.dtype("<i2"), values.shape, 10, cache_bytes=cache)
    for t, z in [(2, 30), (0, 0), (1, 39), (0, 20), (2, 0), (2, 39)]:
        window = (slice(t, t + 1), slice(z, min(40, z + 9)), slice(3, 90), slice(100, 101))
        assert np.array_equal(slabs.read(window), values[window])
    assert np.array_equal(slabs.read(tuple(slice(0, n) for n in values.shape)), values)
    kept = sum(slab.nbytes for slab in slabs._cache.values())
    assert kept <= max(cache, 2 * 2**19)


def test_threads_share_one_small_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.io.gzipped.SLAB_BYTES", 2**16)
    values = RNG.integers(0, 99, (60, 50, 60), dtype=np.uint8)
    slabs = GzipSlabs(str(packed(tmp_path / "a.gz", values)), np.dtype("u1"), values.shape, 10, cache_bytes=2**17)

    def read(z: int) -> bool:
        window = (slice(z, z + 5), slice(0, 50), slice(z, z + 3))
        return np.array_equal(slabs.read(window), values[window])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, RNG.integers(0, 55, 100)))


def test_a_short_file_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "short.gz", np.zeros((4, 5, 6), np.int16))
    slabs = GzipSlabs(str(path), np.dtype("<i2"), (5, 5, 6), 10)
    with pytest.raises(FormatError, match=r"short\.gz: .*300 bytes of values expected, the file ends before"):
        slabs.read((slice(0, 5), slice(0, 5), slice(0, 6)))

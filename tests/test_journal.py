"""Parts on disk: the same bytes in any order, whole or not there, never another computation's."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio

from sciSR.errors import InputError
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.journal import Journal, PartedSource, file_checksum, journal_key, journalled, parted_source
from sciSR.normalization import Normalization
from sciSR.raster import Block, Metadata, Raster, Window
from tests.test_inference import CASES, _network


def _result(case: str, settings: dict[str, Any]) -> Raster:
    raster, arguments = CASES[case]
    return upscale(raster, _network(**arguments), precision="float32", **settings)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [{"tile": 16}, {"tile": "auto"}], ids=["tiles", "strips"])
def test_chosen_parts_have_the_bytes_of_a_whole_run(
    case: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciSR.strips.strip_rows", lambda job, program: (6, 6))
    source = _result(case, settings).source
    assert isinstance(source, PartedSource)
    parts = source.parts
    whole = dict(source.stream_parts(range(len(parts))))
    assert len(whole) == len(parts)
    stream = np.zeros(_result(case, settings).shape, np.float32)
    for window, block in _result(case, settings).stream():
        stream[window] = block.values
    for number, window in enumerate(parts):
        np.testing.assert_array_equal(whole[number].values, stream[window])
    chosen = [n for n in range(len(parts)) if n % 3 != 0]
    for number, block in source.stream_parts(chosen):
        np.testing.assert_array_equal(block.values, whole[number].values)
        if block.valid is not None:
            np.testing.assert_array_equal(block.valid, whole[number].valid)


def test_parts_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "key")
    journal.open()
    rng = np.random.default_rng(0)
    block = Block(rng.normal(size=(3, 5, 7)).astype(np.float32), rng.random((3, 5, 7)) > 0.5)
    journal.write(4, block)
    back = Journal(tmp_path / "j", "key").read(4)
    np.testing.assert_array_equal(back.values, block.values)
    np.testing.assert_array_equal(back.valid, block.valid)
    assert not journal.has(3)


@pytest.mark.parametrize("how", ["empty", "cut", "zeros", "changed"])
def test_a_part_that_is_not_whole_is_made_again(tmp_path: Path, how: str) -> None:
    result = _result("volume", {"tile": 8})
    journal = Journal(tmp_path / "j", "key")
    journal.open()
    values = [block.values for _, block in journalled(result, journal).stream()]
    part = journal.folder / "part-00000001.npz"
    data = part.read_bytes()
    middle = len(data) // 2
    broken = {
        "empty": b"",
        "cut": data[:middle],
        "zeros": bytes(len(data)),
        "changed": data[:middle] + bytes(b ^ 255 for b in data[middle : middle + 8]) + data[middle + 8 :],
    }
    part.write_bytes(broken[how])
    assert not journal.has(1)
    again = [block.values for _, block in journalled(_result("volume", {"tile": 8}), journal).stream()]
    for one, other in zip(values, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert part.read_bytes() == data


def test_parts_of_another_computation_are_dropped(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", "one")
    first.open()
    first.write(0, Block(np.zeros(3)))
    same = Journal(tmp_path / "j", "one")
    same.open()
    assert same.has(0)
    other = Journal(tmp_path / "j", "two")
    other.open()
    assert not other.has(0)


def test_a_journalled_run_computes_only_what_is_missing(tmp_path: Path) -> None:
    result = _result("volume", {"tile": 8})
    journal = Journal(tmp_path / "j", "key")
    journal.open()
    values = np.concatenate([b.values for _, b in journalled(result, journal).stream()])
    source = result.source
    assert isinstance(source, PartedSource)
    count = len(source.parts)
    assert count > 2
    (tmp_path / "j" / "part-00000001.npz").unlink()
    asked: list[int] = []
    original = type(source).stream_parts

    def watched(self: Any, numbers: Any) -> Any:
        asked.extend(numbers)
        return original(self, numbers)

    type(source).stream_parts = watched  # type: ignore[method-assign]
    try:
        again = np.concatenate([b.values for _, b in journalled(result, journal).stream()])
    finally:
        type(source).stream_parts = original  # type: ignore[method-assign]
    np.testing.assert_array_equal(again, values)
    assert asked == [1]


def test_the_key_knows_input_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "in.bin"
    file.write_bytes(b"one")
    raster, arguments = CASES["volume"]
    named = raster.replace(metadata=Metadata("x", raster.grid, path=str(file)))
    network = _network(**arguments)
    keys = [journal_key(upscale(named, network, tile=t)) for t in (8, 8, 16)]
    assert keys[0] == keys[1] != keys[2]
    file.write_bytes(b"two")
    assert journal_key(upscale(named, network, tile=8)) != keys[0]
    with pytest.raises(InputError, match="local file"):
        journal_key(upscale(raster, network, tile=8))


def test_the_key_knows_every_file_that_the_input_is_made_of(tmp_path: Path) -> None:
    network = _network(ndim=2, in_channels=1, scale=2)
    values = np.arange(1, 1 + 24 * 24, dtype=np.uint16).reshape(1, 24, 24)

    def scene(name: str, west: float = 0) -> Path:
        affine = np.array([[10, 0, west], [0, -10, 240], [0, 0, 1]])
        raster = Raster.from_array(values, affine=affine, axes="cyx", crs="EPSG:32632")
        return save_raster(raster, tmp_path / name, overwrite=True)

    def spoil(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-2] + b"\7\7")

    def remask(path: Path, rows: int = 3) -> None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path.with_suffix(""), "r+") as file:
            file.write_mask(np.repeat([[False], [True]], [rows, 24 - rows], axis=0) & np.ones((24, 24), bool))

    volume = Raster.from_array(values.repeat(8, 0).astype(np.int16), affine=np.eye(4), axes="zyx")
    first, second = scene("a.tif"), scene("b.tif", 240)
    masked = scene("m.tif")
    remask(tmp_path / "m.tif.msk", 5)
    band = f'<SimpleSource><SourceFilename relativeToVRT="1">{first.name}</SourceFilename></SimpleSource>'
    vrt = tmp_path / "v.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="24" rasterYSize="24"><SRS>EPSG:32632</SRS><GeoTransform>0,10,0,240,0,-10'
        f'</GeoTransform><VRTRasterBand dataType="UInt16" band="1">{band}</VRTRasterBand></VRTDataset>'
    )
    cases: list[tuple[Any, Path, Callable[[Path], None]]] = [
        (save_raster(volume, tmp_path / "x.mhd"), tmp_path / "x.raw", spoil),
        (save_raster(volume, tmp_path / "y.nhdr"), tmp_path / "y.raw", spoil),
        (save_raster(volume, tmp_path / "z.hdr"), tmp_path / "z.img", spoil),
        (masked, tmp_path / "m.tif.msk", remask),
        (vrt, first, spoil),
        ([first, second], second, spoil),
    ]
    for source, file, change in cases:
        assert file.exists()
        keys = []
        for _ in range(2):
            raster = open_raster(source)
            keys.append(journal_key(upscale(raster, network, normalization=Normalization(), precision="float32")))
            change(file)
        assert keys[0] != keys[1], file.name


def _virtual(path: Path, source: str, relative: int = 1) -> Path:
    band = f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{source}</SourceFilename></SimpleSource>'
    path.write_text(
        '<VRTDataset rasterXSize="24" rasterYSize="24"><SRS>EPSG:32632</SRS><GeoTransform>0,10,0,240,0,-10'
        f'</GeoTransform><VRTRasterBand dataType="UInt16" band="1">{band}</VRTRasterBand></VRTDataset>'
    )
    return path


@pytest.mark.parametrize("form", ["nested", "zip", "directory of a TIFF"])
def test_the_key_knows_files_behind_virtual_rasters(tmp_path: Path, form: str) -> None:
    network = _network(ndim=2, in_channels=1, scale=2)
    values = np.arange(1, 1 + 24 * 24, dtype=np.uint16).reshape(1, 24, 24)
    affine = np.array([[10, 0, 0], [0, -10, 240], [0, 0, 1]])
    (tmp_path / "deep").mkdir()

    def write(last: int) -> None:
        values[0, -1, -1] = last
        raster = Raster.from_array(values, affine=affine, axes="cyx", crs="EPSG:32632")
        file = save_raster(raster, tmp_path / "deep" / "a.tif", overwrite=True)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(file, "in/a.tif")

    write(1)
    _virtual(tmp_path / "deep" / "one.vrt", "a.tif")
    _virtual(tmp_path / "two.vrt", "deep/one.vrt")
    vrt = {
        "nested": _virtual(tmp_path / "three.vrt", "two.vrt"),
        "zip": _virtual(tmp_path / "z.vrt", f"/vsizip/{tmp_path}/a.zip/in/a.tif", 0),
        "directory of a TIFF": _virtual(tmp_path / "d.vrt", f"GTIFF_DIR:1:{tmp_path}/deep/a.tif", 0),
    }[form]
    keys = []
    for last in (1, 2):
        write(last)
        raster = open_raster(vrt)
        assert raster.read().values[0, -1, -1] == last
        keys.append(journal_key(upscale(raster, network, normalization=Normalization(), precision="float32")))
    assert keys[0] != keys[1]


def test_a_virtual_raster_over_an_address_cannot_be_resumed(tmp_path: Path) -> None:
    raster = open_raster(_virtual(tmp_path / "a.vrt", "/vsicurl/http://127.0.0.1:9/a.tif", 0))
    result = raster.replace(source=_Parted(raster.source))
    with pytest.raises(InputError, match=r"a\.vrt: resume needs local files, .*127\.0\.0\.1"):
        journal_key(result)


class _Parted:
    """A source in one part, of which nothing is read."""

    def __init__(self, inner: Any) -> None:
        self.shape, self.dtype, self.chunks = inner.shape, inner.dtype, inner.chunks
        self.parts = [tuple(slice(0, n) for n in inner.shape)]
        self.before_a_part = 0

    def read(self, window: Any) -> Any:
        raise AssertionError

    def stream(self) -> Any:
        raise AssertionError

    def stream_parts(self, numbers: Any) -> Any:
        raise AssertionError

    def record(self) -> dict[str, Any]:
        return {}


def test_the_checksum_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert file_checksum(tmp_path / "a") == file_checksum(tmp_path / "b")
    (tmp_path / "b" / "x").write_bytes(b"2")
    assert file_checksum(tmp_path / "a") != file_checksum(tmp_path / "b")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [{"tile": 16}, {"tile": "auto"}], ids=["tiles", "strips"])
def test_a_resampled_result_streams_each_part_once_and_is_resumed(
    case: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sciSR.strips.strip_rows", lambda job, program: (6, 6))
    monkeypatch.setattr("sciSR.regrid._BLOCK_VALUES", 2**13)
    raster, arguments = CASES[case]

    def result() -> Raster:
        return upscale(raster, _network(**arguments), scale=1.5, precision="float32", **settings)

    parted = parted_source(result().source)
    assert parted is not None
    seen: list[Window] = []
    original = type(parted).stream

    def watched(self: Any) -> Any:
        for window, block in original(self):
            seen.append(window)
            yield window, block

    monkeypatch.setattr(type(parted), "stream", watched)
    streamed = _filled(result())
    assert sum(int(np.prod([p.stop - p.start for p in window])) for window in seen) == np.prod(parted.shape)
    whole = result().read()
    np.testing.assert_allclose(streamed.values, whole.values, rtol=0, atol=2e-5 * np.nanmax(np.abs(whole.values)))
    if whole.valid is not None:
        np.testing.assert_array_equal(streamed.valid, whole.valid)
    journal = Journal(tmp_path / "j", "key")
    journal.open()
    first = _filled(journalled(result(), journal))
    (tmp_path / "j" / "part-00000000.npz").unlink()
    np.testing.assert_array_equal(_filled(journalled(result(), journal)).values, first.values)
    np.testing.assert_array_equal(first.values, streamed.values)


def test_parts_of_machine_code_and_of_pytorch_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    monkeypatch.setattr("sciSR.strips._WORTH_COMPILING", 0)
    monkeypatch.setattr("sciSR.strips.strip_rows", lambda job, program: (8, 8))
    raster, arguments = CASES["scene, four bands together"]
    network = _network(**arguments)
    file = tmp_path / "in.bin"
    file.write_bytes(b"input")
    named = raster.replace(metadata=Metadata("x", raster.grid, path=str(file)))

    def result(backend: Literal["auto", "torch"] = "auto") -> Raster:
        return upscale(named, network, normalization=Normalization(), precision="float32", backend=backend)

    def resumed(made: Raster) -> Block:
        """What is written where a killed run with own machine code left its first part, marked here by its values."""
        journal = Journal(tmp_path / "j", key)
        journal.open()
        _, first = next(iter(made.stream()))
        journal.write(0, Block(np.full_like(first.values, 7.0), first.valid))
        again = Journal(tmp_path / "j", journal_key(made))
        again.open()
        return _filled(journalled(made, again))

    key, own = journal_key(result()), _filled(result()).values
    assert (resumed(result()).values == 7.0).any()
    for backend in ("torch", "auto"):
        if backend == "auto":
            monkeypatch.setattr("sciSR.strips.is_available", lambda: False)
        plain = result(backend)
        assert journal_key(plain) != key
        values = _filled(plain).values
        assert not np.array_equal(values, own, equal_nan=True)
        np.testing.assert_array_equal(resumed(plain).values, values)


def _filled(raster: Raster) -> Block:
    block = Block(np.full(raster.shape, np.nan), np.ones(raster.shape, bool))
    assert block.valid is not None
    for window, part in raster.stream():
        block.values[window] = part.values
        if part.valid is not None:
            block.valid[window] = part.valid
    return block

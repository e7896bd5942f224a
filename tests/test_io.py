from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sciSR.derived import whole_slabs
from sciSR.errors import FormatError, InputError, MissingFileError, OutputExistsError, RunError
from sciSR.io import ADAPTERS, adapter_for, open_raster, save_raster
from sciSR.raster import ArraySource, Block, Raster, Window, windows


class NpyWriter:
    """Writes blocks into an array and the array into a file; fails where it is told to."""

    def __init__(self, path: Path, shape: tuple[int, ...], order: Literal["any", "slabs"]) -> None:
        self.order = order
        self.chunks = shape
        self.path = path
        self.values: NDArray[Any] = np.full(shape, np.nan, np.float32)
        self.windows: list[Window] = []
        path.write_bytes(b"half a file")

    def write(self, window: Window, block: Block) -> None:
        if NpyAdapter.failure is not None and len(self.windows) == 2:
            raise NpyAdapter.failure
        assert np.isnan(self.values[window]).all(), "a value came twice"
        self.values[window] = block.values
        self.windows.append(window)

    def finish(self) -> None:
        with self.path.open("wb") as file:
            np.save(file, self.values)

    def abort(self) -> None:
        NpyAdapter.aborted += 1


class NpyAdapter:
    """A format for these tests: the array alone."""

    name = "npy"
    suffixes = (".npytest",)
    failure: BaseException | None = None
    order: Literal["any", "slabs"] = "slabs"
    aborted = 0
    last: NpyWriter

    def describe(self, path: str) -> dict[str, Any]:
        return {"format": self.name, "shape": np.load(path).shape}

    def open(self, path: str, **options: Any) -> Raster:
        return Raster.from_array(np.load(path), affine=np.eye(4), axes="zyx", name=Path(path).name, **options)

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        if options:
            raise InputError(f"{path}: no option {', '.join(options)}")

    def create(self, raster: Raster, path: Path, **options: Any) -> NpyWriter:
        NpyAdapter.last = NpyWriter(path, raster.shape, self.order)
        return NpyAdapter.last


@pytest.fixture(autouse=True)
def _npy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, ".npytest", f"{__name__}:NpyAdapter")
    monkeypatch.setattr(NpyAdapter, "failure", None)
    monkeypatch.setattr(NpyAdapter, "aborted", 0)


def volume(chunks: tuple[int, ...] = (2, 3, 4)) -> Raster:
    values = np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32)
    raster = Raster.from_array(values, affine=np.eye(4), axes="zyx", name="volume")
    return raster.replace(source=ArraySource(values, chunks=chunks))


def test_what_was_saved_opens_again(tmp_path: Path) -> None:
    raster = volume()
    path = save_raster(raster, tmp_path / "new" / "a.npytest")
    np.testing.assert_array_equal(open_raster(path).read().values, raster.read().values)
    assert [p.name for p in path.parent.iterdir()] == ["a.npytest"]


@pytest.mark.parametrize("order", ["any", "slabs"])
def test_a_writer_gets_blocks_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    monkeypatch.setattr(NpyAdapter, "order", order)
    save_raster(volume(), tmp_path / "a.npytest")
    got = NpyAdapter.last.windows
    if order == "slabs":
        assert got == [(slice(a, b), slice(0, 6), slice(0, 7)) for a, b in ((0, 2), (2, 4), (4, 5))]
    else:
        assert len(got) == 3 * 2 * 2


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    monkeypatch.setattr(NpyAdapter, "failure", failure)
    expected: type[BaseException] = RunError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        save_raster(volume(), tmp_path / "a.npytest")
    assert list(tmp_path.iterdir()) == []
    assert NpyAdapter.aborted == 1


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NpyAdapter, "failure", OSError(28, "No space left on device"))
    with pytest.raises(RunError, match=r"a\.npytest: writing failed: .*No space left"):
        save_raster(volume(), tmp_path / "a.npytest")


def test_what_is_there_stays_unless_overwriting_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.npytest"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"a\.npytest: exists already"):
        save_raster(volume(), path)
    assert path.read_bytes() == b"precious"
    save_raster(volume(), path, overwrite=True)
    assert open_raster(path).shape == (5, 6, 7)


def test_a_failed_overwrite_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npytest"
    path.write_bytes(b"precious")
    monkeypatch.setattr(NpyAdapter, "failure", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        save_raster(volume(), path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_an_option_that_the_format_does_not_know_fails_before_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no option colour"):
        save_raster(volume(), tmp_path / "a.npytest", colour="red")
    assert list(tmp_path.iterdir()) == []


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    save_raster(volume(), tmp_path / "a.npytest", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(84, 210), (168, 210), (210, 210)]


class Leaky(ArraySource):
    """A source that forgets its last block."""

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window in list(windows(self.shape, self.chunks))[:-1]:
            yield window, self.read(window)


@pytest.mark.parametrize("order", ["any", "slabs"])
def test_a_source_that_forgets_values_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    monkeypatch.setattr(NpyAdapter, "order", order)
    raster = volume()
    with pytest.raises(RunError, match="defect of the source"):
        save_raster(raster.replace(source=Leaky(raster.read().values, chunks=(2, 3, 4))), tmp_path / "a.npytest")
    assert list(tmp_path.iterdir()) == []


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    st.tuples(*[st.integers(1, 7)] * 4),
    st.booleans(),
)
def test_slabs_are_whole_rise_and_cover_once(shape: tuple[int, ...], chunks: tuple[int, ...], holes: bool) -> None:
    """One time step after the other, rising along z, y and x whole, values and validity in their places."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if holes:
        values[values > 1] = np.nan
    chunks = (1, *chunks[1:])
    raster = Raster.from_array(values, affine=np.eye(4), axes="tzyx")
    raster = raster.replace(source=ArraySource(values, chunks=chunks))
    position = (0, 0)
    for window, block in whole_slabs(raster):
        assert (window[0].start, window[1].start) == position
        assert window[2:] == (slice(0, shape[2]), slice(0, shape[3]))
        np.testing.assert_array_equal(block.values, values[window])
        valid = np.ones(block.values.shape, bool) if block.valid is None else block.valid
        np.testing.assert_array_equal(valid, ~np.isnan(values[window]))
        done = window[1].stop == shape[1]
        position = (window[0].stop, 0) if done else (window[0].start, window[1].stop)
    assert position == (shape[0], 0)


def test_missing_file_and_unknown_ending() -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.nii\.gz: no such file"):
        open_raster("nowhere.nii.gz")
    with pytest.raises(FormatError, match=r"scan\.bmp: no format for this file name; expected one of .*\.nii\.gz"):
        open_raster("scan.bmp")
    with pytest.raises(FormatError, match="no format"):
        save_raster(volume(), "scan")


def test_the_longest_ending_wins_and_case_does_not_matter() -> None:
    assert adapter_for("A.NPYTEST").name == "npy"
    assert type(adapter_for("a.nii.gz")) is type(adapter_for("b.NII"))
    assert type(adapter_for("https://example.org/a.tif?token=x.nii")) is type(adapter_for("a.TIFF"))


@pytest.mark.parametrize("suffix", sorted(set(ADAPTERS)))
def test_every_ending_in_the_table_has_its_adapter(suffix: str) -> None:
    adapter = adapter_for(f"file{suffix}")
    assert suffix in adapter.suffixes


def test_a_unit_can_be_named(tmp_path: Path) -> None:
    volume = Raster.from_array(np.zeros((3, 4, 5), np.int16), affine=np.eye(4), axes="zyx")
    path = save_raster(volume, tmp_path / "a.nii.gz")
    assert open_raster(path).unit is None
    assert open_raster(path, unit="HU").unit == "HU"
    scene = Raster.from_array(np.zeros((2, 4, 5), np.int16), affine=np.eye(3), axes="cyx", unit="m")
    first, second = (save_raster(scene, tmp_path / f"{name}.tif") for name in "ab")
    assert open_raster(first).unit == "m"
    assert open_raster([first, second], unit="K").unit == "K"
    assert open_raster(save_raster(open_raster(first, unit="K"), tmp_path / "c.tif")).unit == "K"

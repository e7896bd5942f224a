"""Rows of blocks of one writer or several, in any order and more than once, become the file that GDAL makes."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from sciSR.errors import MetadataWarning, RunError
from sciSR.io import geotiff_cog, geotiff_plan, geotiff_rows, geotiff_write, open_raster, save_raster
from sciSR.io.assemble import ChunkAssembler
from sciSR.io.geotiff import GeoTiffAdapter
from sciSR.io.geotiff_layout import block_tables
from sciSR.io.geotiff_plan import DTYPES
from sciSR.io.geotiff_source import gdal_environment
from sciSR.io.geotiff_write import TileWriter, begin_file, draft_path, finish_file, stored_block, tile_shape
from sciSR.raster import Raster
from tests.scene_files import (
    RPC,
    UTM,
    assert_same_scene,
    corner_gcps,
    palette_file,
    physical,
    refined,
    scene,
    values_of,
    write,
    write_tagged,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
tifffile = pytest.importorskip("tifffile")
ADAPTER = GeoTiffAdapter()


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small scenes have several rows of blocks, the last ones in part."""
    monkeypatch.setattr(geotiff_plan, "_block", lambda layout, shape: (64, 48))


def write_rows(raster: Raster, path: Path, numbers: range | list[int], **options: Any) -> None:
    """What one process does: some rows of blocks, in slabs that do not know of them."""
    rows = ADAPTER.shared_rows(raster)
    for number in numbers:
        writer = ADAPTER.join(raster, path, **options)
        stop = min((number + 1) * rows, raster.shape[1])
        for start in range(number * rows, stop, 25):
            window = (slice(0, raster.shape[0]), slice(start, min(start + 25, stop)), slice(0, raster.shape[2]))
            writer.write(window, raster.read(window))
        writer.finish()


def begun(raster: Raster, folder: Path, **options: Any) -> Path:
    """A file with all of its rows written, last rows first and one of them twice, and nothing joined."""
    folder.mkdir(parents=True)
    ADAPTER.begin(raster, folder / "x.tif", **options)
    count = -(-raster.shape[1] // ADAPTER.shared_rows(raster))
    write_rows(raster, folder / "x.tif", [*reversed(range(count)), 0], **options)
    return folder / "x.tif"


def shared(raster: Raster, folder: Path, **options: Any) -> Path:
    """The file as several processes make it."""
    path = begun(raster, folder, **options)
    ADAPTER.complete(raster, path, **options)
    assert list((folder / "x.tif.parts").glob("*.tif")) == []
    assert [p.name for p in folder.iterdir() if p.name.endswith(".tif")] == ["x.tif"]
    return path


def by_gdal(raster: Raster, path: Path, **options: Any) -> Path:
    """The file as GDAL makes it of all blocks."""
    plan = geotiff_plan.make_plan(raster, path.name, **options)
    path.parent.mkdir()
    whole = tuple(slice(0, n) for n in raster.shape)
    with gdal_environment(str(path)):
        tiles = begin_file(plan, draft_path(plan, path))
        parts = ChunkAssembler(plan.shape, tile_shape(plan), np.dtype(plan.encoding.dtype))
        for window, chunk in parts.add(*stored_block(plan, whole, raster.read(whole))):
            tiles.put(window, chunk)
        tiles.finish()
        finish_file(plan, path)
    return path


def check(raster: Raster, folder: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> None:
    several = shared(raster, folder / "shared", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetadataWarning)
        assert_same_scene(several, by_gdal(raster, folder / "gdal" / "x.tif", **options), caplog)
    alone = save_raster(raster, folder / "alone" / "x.tif", **options)
    assert several.read_bytes() == alone.read_bytes()
    assert [p.name for p in alone.parent.iterdir()] == ["x.tif"]


@pytest.mark.parametrize(
    ("dtype", "compress"), list(zip(DTYPES, itertools.cycle(("deflate", "zstd", "lzw", "none")), strict=False))
)
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_every_type_and_compression(
    dtype: str, compress: str, interleave: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene(tmp_path / "a.tif", dtype, (3, 75, 101), interleave=interleave)
    check(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path, caplog, compress=compress)


@pytest.mark.parametrize("options", [{}, {"overviews": True}, {"cog": True}], ids=str)
def test_blocks_may_come_in_any_order(options: dict[str, Any], tmp_path: Path) -> None:
    raster = holed(tmp_path / "a.tif")
    expected = save_raster(raster, tmp_path / "rows.tif", **options).read_bytes()
    bands, rows, columns = (
        [slice(a, min(a + step, n)) for a in range(0, n, step)]
        for n, step in zip(raster.shape, (1, 30, 70), strict=True)
    )
    by_columns = [(c, y, x) for x in columns for c in bands for y in rows]
    for number, order in enumerate((by_columns, by_columns[::-1])):
        path = tmp_path / str(number) / "x.tif"
        path.parent.mkdir()
        writer = ADAPTER.create(raster, path, **options)
        for window in order:
            writer.write(window, raster.read(window))
        writer.finish()
        assert path.read_bytes() == expected
        assert [p.name for p in path.parent.iterdir()] == ["x.tif"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 500), (1, 200, 5), (5, 64, 48), (1, 129, 97)])
def test_odd_shapes(shape: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(open_raster(scene(tmp_path / "a.tif", "int16", shape)), tmp_path, caplog)


@pytest.mark.parametrize(("alpha", "mask"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("options", [{}, {"overviews": True}, {"cog": True}], ids=str)
def test_tags_masks_and_alpha(
    alpha: bool, mask: bool, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tagged(tmp_path / "a.tif", alpha=alpha, mask=mask, size=(75, 70))
    check(refined(open_raster(tmp_path / "a.tif"), 2), tmp_path, caplog, **options)


def test_a_palette_and_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(refined(open_raster(palette_file(tmp_path / "p.tif"), labels=True), 30), tmp_path / "p", caplog)
    with write(tmp_path / "b.tif", values_of((1, 75, 101), "uint8") % 2, nbits=1, compress="lzw"):
        pass
    check(refined(open_raster(tmp_path / "b.tif", labels=True), 2), tmp_path / "b", caplog)


def test_places_without_a_transform(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with write(tmp_path / "g.tif", values_of((1, 75, 80))) as dataset:
        dataset.gcps = (corner_gcps(80, 75), rasterio.CRS.from_string(UTM))
    check(refined(open_raster(tmp_path / "g.tif"), 2), tmp_path / "g", caplog)
    with write(tmp_path / "r.tif", values_of((1, 75, 80))) as dataset:
        dataset.update_tags(ns="RPC", **RPC)
    check(refined(open_raster(tmp_path / "r.tif"), 2), tmp_path / "r", caplog)


def holed(path: Path, dtype: str = "uint8") -> Raster:
    """A scene whose middle has pixels without a value, which its type and tags cannot say."""
    with rasterio.open(scene(path, dtype, (2, 200, 101)), "r+") as dataset:
        dataset.update_tags(1, WAVELENGTH="490")
    raster = open_raster(path)
    values = values_of((2, 200, 101), "float32")
    values[0, 70:75, 20:60] = np.nan
    return physical(raster, values)


@pytest.mark.parametrize("options", [{}, {"overviews": True}, {"cog": True}], ids=str)
def test_a_hole_in_one_row_gives_the_whole_file_a_mask(
    options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raster = holed(tmp_path / "a.tif")
    check(raster, tmp_path, caplog, **options)
    with rasterio.open(tmp_path / "shared" / "x.tif") as dataset:
        assert (dataset.dataset_mask() == 0).sum() == 5 * 40
    check(holed(tmp_path / "f.tif", "float32"), tmp_path / "float", caplog, **options)


def test_big_files(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = geotiff_plan._creation_options
    monkeypatch.setattr(geotiff_plan, "_creation_options", lambda *a: wanted(*a) | {"bigtiff": "YES"})
    check(holed(tmp_path / "a.tif"), tmp_path, caplog)
    with tifffile.TiffFile(tmp_path / "shared" / "x.tif") as file:
        assert file.is_bigtiff


def test_blocks_are_those_of_the_rows_in_order(tmp_path: Path) -> None:
    path = begun(holed(tmp_path / "a.tif"), tmp_path / "b")
    rows = sorted(shutil.copytree(tmp_path / "b" / "x.tif.parts", tmp_path / "rows").iterdir())
    ADAPTER.complete(holed(tmp_path / "a.tif"), path)
    assert [row.name for row in rows] == [f"{n:08d}.tif" for n in range(4)]
    expected = b"".join(data for row in rows for data in blocks(row))
    assert path.read_bytes().endswith(expected)
    assert b"".join(sorted(blocks(path)[:12])) == b"".join(sorted(b for row in rows for b in blocks(row)[:3]))


def blocks(path: Path) -> list[bytes]:
    """The bytes of each block of the image, then of the mask."""
    data = path.read_bytes()
    with path.open("rb") as file:
        return [data[a : a + n] for table in block_tables(file) if table is not None for a, n in table.read()]


class Killed(BaseException):
    """A process ended in the middle."""


def killing(count: int, call: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """``call`` for ``count`` times; the process ends before the next one, or right after it."""
    left = itertools.count(count, -1)

    def until(*args: Any, **kwargs: Any) -> Any:
        last = next(left) <= 0
        if last and not after:
            raise Killed
        found = call(*args, **kwargs)
        if last:
            raise Killed
        return found

    return until


def interruptions(options: dict[str, Any]) -> Iterator[tuple[Any, str, int]]:
    """What is called while a file is joined and finished, and how often before the end."""
    yield from ((os, name, n) for name in ("fsync", "replace") for n in range(4))
    yield from ((Path, "unlink", n) for n in range(4 + ("cog" in options)))
    if "overviews" in options:
        yield geotiff_write, "_build_overviews", 0
        yield geotiff_write, "update_dataset", 0
    if "cog" in options:
        yield geotiff_cog, "update_dataset", 0
        yield geotiff_cog, "copy", 0
        yield geotiff_cog, "_restore_metadata", 0
        yield geotiff_write, "to_cog", 0


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("options", [{}, {"overviews": True}, {"cog": True}], ids=str)
def test_a_killed_join_goes_on_to_the_same_bytes(
    options: dict[str, Any], after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raster = holed(tmp_path / "a.tif")
    whole = shared(raster, tmp_path / "whole", **options).read_bytes()
    for number, (where, name, count) in enumerate(interruptions(options)):
        path = begun(raster, tmp_path / str(number), **options)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, killing(count, getattr(where, name), after=after))
            with pytest.raises(Killed):
                ADAPTER.complete(raster, path, **options)
        draft = path.with_name(".draft-x.tif") if "cog" in options else path
        if draft.exists():
            with draft.open("ab") as file:
                file.write(b"a block in part")
        ADAPTER.complete(raster, path, **options)
        assert path.read_bytes() == whole, (name, count)


def test_no_more_than_one_row_is_on_disk_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 300, 200)))
    path = begun(raster, tmp_path / "b")
    rows = sorted((tmp_path / "b" / "x.tif.parts").glob("*.tif"))
    sizes = [row.stat().st_size for row in rows]
    most = 0

    def measured(number: int) -> None:
        nonlocal most
        most = max(most, sum(file.stat().st_size for file in (tmp_path / "b").rglob("*") if file.is_file()))

    monkeypatch.setattr(os, "fsync", measured)
    ADAPTER.complete(raster, path)
    assert len(rows) == 5
    assert sum(sizes) < most < sum(sizes) + 2 * max(sizes)


def test_a_row_that_nobody_wrote_is_told(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 200, 101)))
    path = begun(raster, tmp_path / "b")
    (tmp_path / "b" / "x.tif.parts" / "00000002.tif").unlink()
    with pytest.raises(RunError, match=r"x\.tif: row 2 of 4 rows of blocks is missing"):
        ADAPTER.complete(raster, path)
    write_rows(raster, path, [2])
    ADAPTER.complete(raster, path)
    np.testing.assert_array_equal(open_raster(path).read().values, raster.read().values)


def test_a_row_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 200, 101)))
    ADAPTER.begin(raster, tmp_path / "x.tif")
    window = (slice(0, 2), slice(64, 120), slice(0, 101))
    writer = ADAPTER.join(raster, tmp_path / "x.tif")
    writer.write(window, raster.read(window))
    with pytest.raises(RunError, match="came in part"):
        writer.finish()
    writer.abort()
    part = (slice(0, 2), slice(64, 128), slice(0, 96))
    writer = ADAPTER.join(raster, tmp_path / "x.tif")
    writer.write(part, raster.read(part))
    with pytest.raises(RunError, match=r"row 1 of blocks came in part"):
        writer.finish()
    writer.abort()
    assert list((tmp_path / "x.tif.parts").iterdir()) == []
    writer = ADAPTER.join(raster, tmp_path / "x.tif")
    monkeypatch.setattr(TileWriter, "put", killing(2, TileWriter.put, after=False))
    writer.write((window[0], slice(64, 128), window[2]), raster.read((window[0], slice(64, 128), window[2])))
    with pytest.raises(Killed):
        writer.finish()
    assert len(list((tmp_path / "x.tif.parts").iterdir())) == 1
    writer.abort()
    assert list((tmp_path / "x.tif.parts").iterdir()) == []


def test_a_row_that_the_disk_did_not_take_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 60, 101)))
    ADAPTER.begin(raster, tmp_path / "x.tif")
    finish = TileWriter.finish

    def cut(tiles: TileWriter) -> None:
        finish(tiles)
        (partial,) = (tmp_path / "x.tif.parts").iterdir()
        os.truncate(partial, partial.stat().st_size - 1)

    monkeypatch.setattr(TileWriter, "finish", cut)
    window = (slice(0, 2), slice(0, 60), slice(0, 101))
    writer = ADAPTER.join(raster, tmp_path / "x.tif")
    writer.write(window, raster.read(window))
    with pytest.raises(RunError, match="row 0 of blocks is not whole on the disk"):
        writer.finish()
    writer.abort()
    assert list((tmp_path / "x.tif.parts").iterdir()) == []


def test_what_gdal_refuses_is_told_before_any_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 60, 101)))

    def refuse(*args: Any) -> None:
        raise RunError("no such tag")

    monkeypatch.setattr(geotiff_write, "_describe", refuse)
    with pytest.raises(RunError, match="no such tag"):
        ADAPTER.create(raster, tmp_path / "b.tif")
    with pytest.raises(RunError, match="no such tag"):
        ADAPTER.begin(raster, tmp_path / "c.tif")


def test_a_join_that_the_disk_does_not_take_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 1300, 101)))  # 21 rows of blocks
    monkeypatch.setattr(geotiff_rows, "core_count", lambda: 1)
    copy, tried = geotiff_rows._copy, []

    def fill(row: Path, pieces: list[tuple[int, int, int]], draft: Path) -> None:
        tried.append(row.name)
        if len(tried) == 2:
            raise OSError(28, "No space left on device")
        if len(tried) > 2:
            time.sleep(0.2)
        copy(row, pieces, draft)

    monkeypatch.setattr(geotiff_rows, "_copy", fill)
    with pytest.raises(RunError, match="No space left"):
        save_raster(raster, tmp_path / "b.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert len(tried) < 12  # those after it may have begun, not all of them


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 500), (3, 900, 101)])
def test_threads_do_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=shape))
    for threads in (1, 8):
        monkeypatch.setattr(geotiff_rows, "core_count", lambda threads=threads: threads)
        save_raster(raster, tmp_path / f"{threads}.tif")
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "8.tif").read_bytes()
    np.testing.assert_array_equal(open_raster(tmp_path / "8.tif").read().values, raster.read().values)


def test_what_cannot_be_kept_is_told_once(tmp_path: Path) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", dtype="int16", shape=(1, 100, 101), nodata=-9999))
    with pytest.warns(MetadataWarning, match="nodata -9999") as told:
        shared(raster, tmp_path / "b", dtype="uint8")
    assert len(told) == 1


def test_a_cloud_optimized_file_that_the_disk_did_not_take_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raster = open_raster(scene(tmp_path / "a.tif", shape=(2, 300, 201)))
    path = begun(raster, tmp_path / "b", cog=True)
    copy = rasterio.shutil.copy

    def short(source: str, target: str, **options: Any) -> None:
        copy(source, target, **options)
        os.truncate(target, Path(target).stat().st_size // 2)

    monkeypatch.setattr(geotiff_cog, "copy", short)
    for _ in range(2):
        with pytest.raises(RunError, match="not whole on the disk"):
            ADAPTER.complete(raster, path, cog=True)
    monkeypatch.setattr(geotiff_cog, "copy", copy)
    ADAPTER.complete(raster, path, cog=True)
    assert_same_scene(path, save_raster(raster, tmp_path / "b.tif", cog=True), caplog)

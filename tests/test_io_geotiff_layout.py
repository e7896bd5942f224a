"""Directories and blocks of TIFF files, as tifffile and libtiff write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from sciSR.io.geotiff_layout import block_tables, read_directories
from tests.scene_files import values_of, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
tifffile = pytest.importorskip("tifffile")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("size", [16, 20, 100])
def test_tags_and_blocks_stand_where_they_are_said_to(order: str, big: bool, size: int, tmp_path: Path) -> None:
    values = values_of((2, size, size))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, byteorder=order, bigtiff=big, tile=(16, 16), photometric="minisblack")
    with path.open("rb") as file, tifffile.TiffFile(path) as known:
        found_order, directories = read_directories(file)
        assert found_order == order
        assert len(directories) == len(known.pages) == 2
        for directory, page in zip(directories, known.pages, strict=True):
            assert {code: (e.kind, e.count, e.at) for code, e in directory.items()} == {
                t.code: (t.dtype, t.count, t.valueoffset) for t in page.tags
            }
        blocks, mask = block_tables(file)
        assert mask is None
        expected = list(zip(known.pages[0].dataoffsets, known.pages[0].databytecounts, strict=True))
        assert blocks.read() == expected
        assert len(blocks) == len(expected)


@pytest.mark.parametrize("big", ["NO", "YES"])
def test_blocks_can_be_moved(big: str, tmp_path: Path) -> None:
    values = values_of((2, 40, 50))
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "band"}
    with write(tmp_path / "a.tif", values, bigtiff=big, **layout) as dataset:
        dataset.write_mask(values[0] > 100)
    with (tmp_path / "a.tif").open("r+b") as file:
        for table in block_tables(file):
            assert table is not None
            for number, (offset, length) in enumerate(table.read()):
                file.seek(offset)
                data = file.read(length)
                file.seek(offset)
                file.write(bytes(length))
                place = file.seek(0, 2)
                file.write(data)
                table.put(number, place, length)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, values[0] > 100)

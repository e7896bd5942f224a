"""Scenes over the network: only what is needed is asked for."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from sciSR.errors import FormatError
from sciSR.io import block_cache, geotiff_source, mosaic, open_raster, save_raster
from sciSR.io.block_cache import CACHE_BYTES, BlockCache
from sciSR.io.geotiff import open_mosaic
from sciSR.io.geotiff_source import gdal_environment, gdal_path, is_remote
from tests.range_server import Served, serve
from tests.scene_files import NORTH_UP, UTM, refined, scene, values_of, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plain scene of four bands, 1536 pixels square, and the same as a COG."""
    made = tmp_path_factory.mktemp("scenes")
    with write(made / "plain.tif", values_of((4, 1536, 1536)), transform=NORTH_UP, crs=UTM):
        pass
    save_raster(open_raster(made / "plain.tif"), made / "scene.tif", cog=True)
    return made


@pytest.fixture
def web(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server of the COG, at an address of its own, so that nothing of it is in GDAL's cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "www" / "bucket").mkdir(parents=True)
    for name in ("scene.tif", "bucket/scene.tif"):
        (tmp_path / "www" / name).hardlink_to(folder / "scene.tif")
    with serve(tmp_path / "www") as served:
        yield served


@pytest.mark.parametrize("prefix", ["http://", "/vsicurl/http://"])
def test_a_window_costs_few_requests(folder: Path, web: Served, prefix: str) -> None:
    raster = open_raster(f"{prefix}{web.address}/scene.tif?token=a.b")
    opened = len(web.requests)
    assert opened <= 3, web.requests
    window = (slice(0, 4), slice(600, 700), slice(1100, 1200))
    block = raster.read(window)
    with rasterio.open(folder / "plain.tif") as plain:
        np.testing.assert_array_equal(block.values, plain.read()[window])
    # one tile of 512 x 512 pixels and four bands, in one or two pieces, of a file of nine
    assert len(web.requests) - opened <= 3, web.requests
    assert web.sent < 0.25 * (folder / "scene.tif").stat().st_size
    assert not [r for r in web.requests if ".aux" in r or ".ovr" in r or ".msk" in r]


def test_a_whole_scene_is_asked_for_once(folder: Path, tmp_path: Path, web: Served) -> None:
    raster = open_raster(f"http://{web.address}/scene.tif")
    target = save_raster(refined(raster, 1), tmp_path / "copy.tif")
    with rasterio.open(folder / "plain.tif") as plain, rasterio.open(target) as new:
        np.testing.assert_array_equal(new.read(), plain.read())
        assert new.transform == plain.transform
    assert web.sent < 1.1 * (folder / "scene.tif").stat().st_size


@pytest.mark.parametrize("address", ["s3://bucket/scene.tif", "/vsis3/bucket/scene.tif"])
def test_objects_of_a_bucket_are_read(folder: Path, web: Served, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for key, value in {
        "AWS_S3_ENDPOINT": web.address,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_NO_SIGN_REQUEST": "YES",
    }.items():
        monkeypatch.setenv(key, value)
    block = open_raster(address).read((slice(0, 1), slice(0, 50), slice(0, 50)))
    with rasterio.open(folder / "plain.tif") as plain:
        np.testing.assert_array_equal(block.values[0], plain.read(1)[:50, :50])


def test_what_is_not_there_is_said_in_one_line(web: Served) -> None:
    with pytest.raises(FormatError, match=r"^nowhere\.tif: not a raster that GDAL can open: [^\n]+$"):
        open_raster(f"http://{web.address}/nowhere.tif")


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        ("a.tif", "a.tif"),
        ("https://h/a.tif?x=1", "/vsicurl/https://h/a.tif?x=1"),
        ("s3://b/k.tif", "/vsis3/b/k.tif"),
        ("gs://b/k.tif", "/vsigs/b/k.tif"),
        ("az://c/k.tif", "/vsiaz/c/k.tif"),
        ("file:///data/a.tif", "/data/a.tif"),
        ("/vsizip/a.zip/b.tif", "/vsizip/a.zip/b.tif"),
        ("<VRTDataset>http://x</VRTDataset>", "<VRTDataset>http://x</VRTDataset>"),
    ],
)
def test_addresses_become_gdal_names(path: str, opened: str) -> None:
    assert gdal_path(path) == opened
    assert is_remote(path) == opened.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz"))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^gopher://h/a\.tif: cannot read gopher:// addresses"):
        gdal_path("gopher://h/a.tif")


def test_the_block_cache_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rasterio.env import getenv

    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    monkeypatch.setattr(geotiff_source, "BLOCK_CACHE", BlockCache())
    with gdal_environment("a.tif"):
        assert getenv()["GDAL_CACHEMAX"] == CACHE_BYTES == 128 * 2**20
    monkeypatch.setenv("GDAL_CACHEMAX", "64")
    with gdal_environment("a.tif"):
        assert "GDAL_CACHEMAX" not in getenv()


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_block_cache_holds_a_row_of_blocks_of_a_wide_scene(
    interleave: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rasterio.env import getenv

    cache = BlockCache()
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    monkeypatch.setattr(cache, "size", 1000)
    for module in (geotiff_source, mosaic):
        monkeypatch.setattr(module, "BLOCK_CACHE", cache)
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 32, "interleave": interleave}
    row = 3 * 32 * (3 * 64) * 2
    one, other = (str(scene(tmp_path / name, shape=(3, 70, 130), **tiles)) for name in ("a.tif", "b.tif"))
    open_raster(one)
    with gdal_environment(one):
        assert getenv()["GDAL_CACHEMAX"] == row * 3 // 2
    stack = open_mosaic([one, other])  # the same place: their bands are stacked
    assert cache.size == 2 * row * 3 // 2
    monkeypatch.setattr(cache, "size", 1000)
    pickle.loads(pickle.dumps(stack.source))  # as a worker of a cluster gets it
    assert cache.size == 2 * row * 3 // 2
    size, left, top = NORTH_UP.a, NORTH_UP.c, NORTH_UP.f
    places = [Affine(size, 0, left + size * x, 0, -size, top - size * y) for x, y in ((130, 0), (260, 0), (0, 70))]
    more = [str(scene(tmp_path / f"{n}.tif", shape=(3, 70, 130), transform=t, **tiles)) for n, t in enumerate(places)]
    open_mosaic([one, *more])
    assert cache.size == 3 * row * 3 // 2
    monkeypatch.setattr(block_cache, "MOST_CACHE_BYTES", 70000)
    monkeypatch.setattr(cache, "size", 1000)
    open_raster(scene(tmp_path / "f.tif", shape=(3, 70, 1300), **tiles))
    assert cache.size == 70000


def test_chunks_are_whole_blocks_of_the_file(tmp_path: Path) -> None:
    tiled = open_raster(scene(tmp_path / "a.tif", shape=(1, 600, 700), tiled=True, blockxsize=128, blockysize=64))
    assert tiled.source.chunks[1] % 64 == 0 or tiled.source.chunks[1] == 600
    striped = open_raster(scene(tmp_path / "b.tif", shape=(1, 600, 700), blockysize=7))
    assert striped.source.chunks[2] == 700
    huge = open_raster(scene(tmp_path / "c.tif", "uint8", (4, 3000, 2000), tiled=True, blockxsize=256, blockysize=256))
    assert all(c % 256 == 0 for c in huge.source.chunks[1:])
    assert np.prod(huge.source.chunks) <= 2**22

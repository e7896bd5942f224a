"""Scenes for tests, written with plain rasterio: fully tagged, or awkward in one way."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from sciSR.raster import ArraySource, Block, Raster, Window

_PLACES = {"TileOffsets", "TileByteCounts"}
UTM = "EPSG:32618"
NORTH_UP = Affine(10, 0, 499_980, 0, -10, 4_200_000)
ROTATED = Affine(8, 6, 499_980, 6, -8, 4_200_000)
SHEARED = Affine(7.3, 1.9, 499_980.1, -2.2, -8.7, 4_200_000.7)
XMP = "<x:xmpmeta xmlns:x='adobe:ns:meta/'><a b='1'/></x:xmpmeta>"
COEFFICIENTS = {
    f"{name}_COEFF": " ".join(repr(0.001 * (i + 1) + k) for i in range(20))
    for k, name in enumerate(("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN"))
}
RPC = {
    **{
        "LINE_OFF": "23.5",
        "SAMP_OFF": "31",
        "LINE_SCALE": "24",
        "SAMP_SCALE": "32",
        "ERR_BIAS": "1",
        "ERR_RAND": "0.5",
    },
    **{"LAT_OFF": "45.25", "LONG_OFF": "5.5", "HEIGHT_OFF": "100", "LAT_SCALE": "0.1", "LONG_SCALE": "0.125"},
    **{"HEIGHT_SCALE": "500", **COEFFICIENTS},
}


def values_of(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    """Random values well inside the type."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    info = np.iinfo(kind)
    return rng.integers(max(info.min, -5000) // 2, min(info.max, 9000), shape).astype(dtype)


def write(path: Path, values: NDArray[Any], **profile: Any) -> Any:
    """An open rasterio dataset with the values written; close it, or use it in ``with``."""
    count, height, width = values.shape
    settings = {"driver": "GTiff", "dtype": values.dtype.name, "count": count, "height": height, "width": width}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            dataset = rasterio.open(path, "w", **settings | profile)
            dataset.write(values)
    return dataset


def scene(path: Path, dtype: str = "uint16", shape: tuple[int, ...] = (2, 33, 47), **profile: Any) -> Path:
    """A scene of random values without tags."""
    with write(path, values_of(shape, dtype), **{"transform": NORTH_UP, "crs": UTM} | profile):
        return path


def write_tagged(path: Path, *, alpha: bool = False, mask: bool = False, size: tuple[int, int] = (48, 64)) -> Path:
    """A uint16 scene of blue, green, red and near infrared with everything that a GeoTIFF can say."""
    values = values_of((4 + alpha, *size))
    values[:, 5:9, 10:20] = 0
    if alpha:
        values[4] = 65535
        values[4, 30:, :8] = 0
    profile = {"transform": NORTH_UP, "crs": "EPSG:32618", "nodata": 0, "photometric": "minisblack", "tiled": True}
    layout = {"blockxsize": 32, "blockysize": 32, "interleave": "band", "compress": "lzw", "predictor": 2}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), write(path, values, **profile, **layout) as dataset:
        dataset.descriptions = ("B02", "B03", "B04", "B08", "opacity")[: dataset.count]
        dataset.scales = (1e-4, 2e-4, 1e-4, 1e-4, 1)[: dataset.count]
        dataset.offsets = (-0.1, -0.1, -0.2, -0.1, 0)[: dataset.count]
        dataset.units = ("reflectance", "reflectance", "reflectance", "1", "")[: dataset.count]
        colors = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir, ColorInterp.alpha)
        dataset.colorinterp = colors[: dataset.count]
        dataset.update_tags(AREA_OR_POINT="Area", PROCESSING="05.10", EMPTY="", ACQUIRED="2023-01-05T10:11:12Z")
        dataset.update_tags(TIFFTAG_SOFTWARE="maker 1.0", TIFFTAG_XRESOLUTION="300", TIFFTAG_YRESOLUTION="150")
        dataset.update_tags(TIFFTAG_RESOLUTIONUNIT="2")
        dataset.update_tags(ns="MISSION", ORBIT="007", NOTE="a = b < c")
        dataset.update_tags(ns="xml:XMP", **dict([XMP.split("=", 1)]))
        for band in range(1, 5):
            dataset.update_tags(band, WAVELENGTH="490.0", STATISTICS_MAXIMUM="9000", STATISTICS_MEAN="4000")
            dataset.update_tags(band, ns="SENSOR", DETECTOR=f"0{band}")
        if mask:
            ok = np.ones(size, bool)
            ok[20:25, 40:50] = False
            dataset.write_mask(ok)
    return path


def corner_gcps(width: int, height: int) -> list[GroundControlPoint]:
    """Five points of an oblique view, in world metres."""
    places = [(0, 0), (0, width), (height, 0), (height, width), (height / 2 + 0.25, width / 4)]
    return [
        GroundControlPoint(row=r, col=c, x=500_000 + 9 * c + r, y=4_200_000 - 11 * r + 0.5 * c, z=12.5, id=str(i + 1))
        for i, (r, c) in enumerate(places)
    ]


class Repeated:
    """A source with every pixel repeated ``scale`` times down and across: exact, so that bytes can be compared."""

    def __init__(self, raster: Raster, scale: tuple[int, int]) -> None:
        self._source = raster.source
        self._scale = scale

    @property
    def shape(self) -> tuple[int, ...]:
        count, *size = self._source.shape
        return (count, *(n * s for n, s in zip(size, self._scale, strict=True)))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return (self.shape[0], 40, self.shape[2])

    def read(self, window: Window) -> Block:
        low = [slice(w.start // s, -(-w.stop // s)) for w, s in zip(window[1:], self._scale, strict=True)]
        crop = [
            slice(w.start - p.start * s, w.stop - p.start * s)
            for w, p, s in zip(window[1:], low, self._scale, strict=True)
        ]
        block = self._source.read((window[0], *low))
        values, valid = (a if a is None else repeat(a, self._scale)[:, crop[0], crop[1]] for a in block)
        assert values is not None
        return Block(values, valid)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        step = 40
        for start in range(0, self.shape[1], step):
            rows = slice(start, min(start + step, self.shape[1]))
            window = (slice(0, self.shape[0]), rows, slice(0, self.shape[2]))
            yield window, self.read(window)


def world(transform: Affine, row: float, column: float) -> NDArray[np.float64]:
    """World coordinates of an index point."""
    point: NDArray[np.float64] = np.array(transform).reshape(3, 3) @ [column, row, 1.0]
    return point[:2]


def repeat(values: NDArray[Any], scale: tuple[int, int]) -> NDArray[Any]:
    """The last two axes with every pixel repeated."""
    return np.repeat(np.repeat(values, scale[0], axis=-2), scale[1], axis=-1)


def refined(raster: Raster, scale: int | tuple[int, int]) -> Raster:
    """The raster with pixels repeated, on the refined grid; alpha stays as it is, as its owner may leave it."""
    factors = (scale, scale) if isinstance(scale, int) else scale
    grid = raster.grid.refine({"y": factors[0], "x": factors[1]})
    return raster.replace(source=Repeated(raster, factors), grid=grid)


def physical(raster: Raster, values: Any) -> Raster:
    """The raster with other physical values, as a network would give them."""
    return raster.replace(source=ArraySource(np.asarray(values, np.float32)))


def palette_file(path: Path) -> Path:
    """A one-band image with a colour table."""
    values = np.array([[[0, 1, 1, 2]] * 5], np.uint8)
    with write(path, values, transform=NORTH_UP, crs=UTM, photometric="palette") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 0, 255, 255)})
    return path


def said(path: Path) -> dict[str, Any]:
    """Everything that a file says beside its values, as GDAL reads it."""
    with rasterio.open(path) as dataset:
        names = ("descriptions", "scales", "offsets", "units", "colorinterp", "mask_flag_enums", "block_shapes")
        domains = [None, *(domain for domain in dataset.tag_namespaces() if domain != "DERIVED_SUBDATASETS")]
        return {
            "profile": str(dataset.profile),
            "wkt": dataset.crs and dataset.crs.to_wkt(),
            "gcps": ([p.asdict() for p in dataset.gcps[0]], dataset.gcps[1]),
            "rpcs": dataset.rpcs and dataset.rpcs.to_gdal(),
            "tags": {domain: dataset.tags(ns=domain) for domain in domains},
            "bands": [
                {domain: dataset.tags(band, ns=domain) for domain in [None, *dataset.tag_namespaces(band)]}
                for band in dataset.indexes
            ],
            "overviews": [dataset.overviews(band) for band in dataset.indexes],
            "colors": dataset.colormap(1) if dataset.colorinterp[0].name == "palette" else None,
            **{name: getattr(dataset, name) for name in names},
        }


def assert_same_scene(path: Path, alone: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That two files hold and say the same, for GDAL and for tifffile, and that GDAL has nothing to warn of."""
    with caplog.at_level(logging.WARNING):
        assert said(path) == said(alone)
        for level in (None, 0):
            kind = {} if level is None else {"overview_level": level}
            with rasterio.open(path) as dataset:
                if level is not None and not dataset.overviews(1):
                    break
            with rasterio.open(path, **kind) as one, rasterio.open(alone, **kind) as two:
                np.testing.assert_array_equal(one.read(), two.read())
                np.testing.assert_array_equal(one.read_masks(), two.read_masks())
    assert [r.message for r in caplog.records if r.name.startswith(("rasterio", "tifffile"))] == []
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(alone) as two:
        assert (one.is_bigtiff, len(one.pages)) == (two.is_bigtiff, len(two.pages))
        for page, other in zip(one.pages, two.pages, strict=True):
            tags, others = ({t.name: t.value for t in p.tags if t.name not in _PLACES} for p in (page, other))
            assert str(tags) == str(others)
            if find_spec("imagecodecs") or (page.compression in (1, 8) and page.predictor < 3):  # or it cannot decode
                np.testing.assert_array_equal(page.asarray(), other.asarray())

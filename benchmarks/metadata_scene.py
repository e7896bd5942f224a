"""The scene part of ``metadata.py``: tagged scenes, the arms, and what is looked for in their outputs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

TITLE = "A scene: uint16, four bands, everything set that a GeoTIFF can say"


class Row(NamedTuple):
    """One kind of metadata, which input shows it, and whether an output has it."""

    kind: str
    source: str
    check: Callable[[Path, Path], bool]


def make_inputs(folder: Path) -> dict[str, Path]:
    """Scenes written with plain rasterio."""
    from tests.scene_files import RPC, SHEARED, UTM, corner_gcps, scene, values_of, write, write_tagged

    inputs = {name: folder / f"{name}.tif" for name in ("tagged", "alpha", "sheared", "point", "nan", "gcps", "rpcs")}
    with rasterio.open(write_tagged(inputs["tagged"], mask=True, size=(96, 128)), "r+") as dataset:
        values = dataset.read()
        values[:, 60:70, 60:70] = 14_000
        dataset.write(values)
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)
    write_tagged(inputs["alpha"], alpha=True, size=(96, 128))
    scene(inputs["sheared"], shape=(4, 96, 128), transform=SHEARED)
    with rasterio.open(scene(inputs["point"], shape=(4, 96, 128)), "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    holed = values_of((4, 96, 128), "float32")
    holed[:, 20:23, 30:34] = np.nan
    with write(inputs["nan"], holed, transform=SHEARED, crs=UTM):
        pass
    with write(inputs["gcps"], values_of((4, 96, 128))) as dataset:
        dataset.gcps = (corner_gcps(128, 96), rasterio.CRS.from_string(UTM))
    with write(inputs["rpcs"], values_of((4, 96, 128))) as dataset:
        dataset.update_tags(ns="RPC", **RPC)
    return inputs


def _scisr(source: Path, target: Path) -> None:
    import sciSR

    sciSR.save_raster(sciSR.upscale(sciSR.open_raster(source), "cubic", scale=2), target)


def _rioxarray(source: Path, target: Path) -> None:
    import rioxarray

    scene: Any = rioxarray.open_rasterio(source)
    shape = (2 * scene.rio.height, 2 * scene.rio.width)
    transform = scene.rio.transform() @ rasterio.Affine.scale(0.5)
    fine = scene.rio.reproject(
        scene.rio.crs, shape=shape, transform=transform, resampling=rasterio.enums.Resampling.cubic
    )
    fine.rio.to_raster(target, tiled=True, compress="deflate")


def _odc(source: Path, target: Path) -> None:
    import odc.geo.xr
    import rioxarray
    from odc.geo.cog import save_cog_with_dask

    scene: Any = rioxarray.open_rasterio(source, chunks={"x": 64, "y": 64})
    fine = odc.geo.xr.xr_reproject(scene, scene.odc.geobox.zoom_out(0.5), resampling="cubic")
    # its predictor for floating values needs a package more
    predictor = {} if fine.dtype.kind != "f" else {"predictor": False}
    save_cog_with_dask(fine, str(target), compression="deflate", **predictor).compute()


def _opensr(source: Path, target: Path) -> None:
    from opensr_utils import super_resolve

    super_resolve(str(source), model=None, output=str(target), factor=2, device="cpu", window_size=(64, 64))


ARMS: dict[str, Callable[[Path, Path], None]] = {
    "sciSR": _scisr,
    "rioxarray": _rioxarray,
    "odc-geo": _odc,
    "opensr-utils": _opensr,
}


def titles() -> dict[str, str]:
    """What to call each arm, with its version."""
    from sciSR import __version__

    calls = {"sciSR": "", "rioxarray": " `reproject`, `to_raster`", "odc-geo": " `save_cog_with_dask`"}
    found = {}
    for arm in ARMS:
        try:
            number = __version__ if arm == "sciSR" else version(arm)
        except PackageNotFoundError:
            number = "" if arm != "opensr-utils" else "2.1.0"
        found[arm] = f"{arm} {number}{calls.get(arm, '')}".strip()
    return found


def missing(arm: str, peers: Path) -> str | None:
    """Why an arm cannot run, or None."""
    if arm == "opensr-utils":
        here = (
            peers.exists() and subprocess.run([peers, "-c", "import opensr_utils"], capture_output=True).returncode == 0
        )
        return None if here else "it is not installed (python benchmarks/engine.py --peers)"
    if arm == "sciSR":
        return None
    try:
        version(arm)
    except PackageNotFoundError:
        return f"{arm} is not installed"
    return None


def _same(*names: str) -> Callable[[Path, Path], bool]:
    def check(before: Path, after: Path) -> bool:
        with rasterio.open(before) as old, rasterio.open(after) as new:
            return all(getattr(old, name) == getattr(new, name) for name in names)

    return check


def _files(test: Callable[[Any, Any], bool]) -> Callable[[Path, Path], bool]:
    def check(before: Path, after: Path) -> bool:
        with rasterio.open(before) as old, rasterio.open(after) as new:
            return bool(test(old, new))

    return check


def _corners(old: Any, new: Any) -> bool:
    matrices = [np.array(d.transform).reshape(3, 3) for d in (old, new)]
    ends = [[(0, 0, 1), (d.width, 0, 1), (0, d.height, 1), (d.width, d.height, 1)] for d in (old, new)]
    was, now = (np.array(e) @ m.T for e, m in zip(ends, matrices, strict=True))
    return bool(np.abs(was - now).max() <= 1e-9 * new.res[0])


def _twice(values: Any) -> Any:
    return np.repeat(np.repeat(values, 2, axis=-2), 2, axis=-1)


def _valid(old: Any, new: Any) -> bool:
    return bool(
        np.array_equal(new.dataset_mask() > 0, _twice((old.dataset_mask() > 0) & (old.read() != 0).any(axis=0)))
    )


def _gcps(old: Any, new: Any) -> bool:
    (before, frame), (after, other) = old.gcps, new.gcps
    moved = [(2 * p.row, 2 * p.col, p.x, p.y, p.z) for p in before]
    return frame == other and moved == [(p.row, p.col, p.x, p.y, p.z) for p in after]


def _rpcs(old: Any, new: Any) -> bool:
    a, b = old.rpcs, new.rpcs
    places = b.line_off == (a.line_off + 0.5) * 2 - 0.5 and b.samp_scale == 2 * a.samp_scale
    return places and a.line_num_coeff == b.line_num_coeff


def _alpha(old: Any, new: Any) -> bool:
    place = new.colorinterp.index(ColorInterp.alpha)
    return bool(np.array_equal(new.read(place + 1), _twice(old.read(5))))


ROWS = (
    Row("CRS", "tagged", _same("crs")),
    Row("bounds, bit for bit", "tagged", _same("bounds")),
    Row("rotated and sheared transform", "sheared", _files(_corners)),
    Row("AREA_OR_POINT=Point", "point", _files(lambda a, b: b.tags()["AREA_OR_POINT"] == "Point" and _corners(a, b))),
    Row("GCPs as the only georeference", "gcps", _files(_gcps)),
    Row("RPCs as the only georeference", "rpcs", _files(_rpcs)),
    Row(
        "no transform made up where there was none", "gcps", _files(lambda a, b: b.transform.is_identity and not b.crs)
    ),
    Row("type", "tagged", _same("dtypes")),
    Row("nodata value", "tagged", _same("nodatavals")),
    Row("mask of the dataset", "tagged", _files(_valid)),
    Row("mask stays inside the file", "tagged", _files(lambda a, b: MaskFlags.per_dataset in b.mask_flag_enums[0])),
    Row("alpha band, not interpolated", "alpha", _files(_alpha)),
    Row(
        "NaN exactly where it was",
        "nan",
        _files(lambda a, b: np.array_equal(np.isnan(b.read()), _twice(np.isnan(a.read())))),
    ),
    Row("values above 10000", "tagged", _files(lambda a, b: (b.read()[:, 124:136, 124:136] == 14_000).all())),
    Row("scale and offset", "tagged", _same("scales", "offsets")),
    Row("units", "tagged", _same("units")),
    Row("band descriptions", "tagged", _same("descriptions")),
    Row("colour interpretation", "tagged", _same("colorinterp")),
    Row(
        "tags, word for word",
        "tagged",
        _files(lambda a, b: b.tags()["PROCESSING"] == "05.10" and "ACQUIRED" in b.tags()),
    ),
    Row("tags in other domains", "tagged", _files(lambda a, b: b.tags(ns="MISSION") == a.tags(ns="MISSION"))),
    Row("tags of bands", "tagged", _files(lambda a, b: b.tags(2)["WAVELENGTH"] == "490.0")),
    Row("print resolution, times 2", "tagged", _files(lambda a, b: float(b.tags()["TIFFTAG_XRESOLUTION"]) == 600)),
    Row("no stale statistics", "tagged", _files(lambda a, b: "4000" not in (*b.tags().values(), *b.tags(1).values()))),
    Row("compressed", "tagged", _files(lambda a, b: b.compression is not None)),
    Row("overviews", "tagged", _files(lambda a, b: bool(b.overviews(1)))),
)

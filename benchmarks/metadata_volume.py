"""The volume part of ``metadata.py``: tagged volumes, the arms, and what is looked for in their outputs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

TITLE = "A volume: int16, oblique, every field of the NIfTI header set"
_FIELDS: dict[str, Any] = {
    "descrip": b"T1w, defaced",
    "aux_file": b"scan.aux",
    "intent_code": 5,
    "intent_p1": 7.0,
    "intent_name": b"contrast A",
    "cal_min": 10.0,
    "cal_max": 900.0,
    "toffset": 1.5,
    "xyzt_units": 2 | 8,
    "dim_info": 1 | 2 << 2 | 3 << 4,
    "slice_code": 1,
    "slice_end": 15,
    "slice_duration": 0.05,
}


class Row(NamedTuple):
    """One kind of metadata, which input shows it, and whether an output has it."""

    kind: str
    source: str
    check: Callable[[Path, Path], bool]


def make_inputs(folder: Path) -> dict[str, Path]:
    """Volumes written with nibabel."""
    from tests.nifti_files import AFFINES, make

    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    values = rng.normal(300, 80, (20, 18, 16)).astype(np.int16)
    values[:10, :9] = 32_000  # a steep edge near the limit of the type: interpolation overshoots it
    values[:10, 9:] = -32_000
    oblique = AFFINES["oblique"]
    inputs = {name: folder / f"{name}.nii.gz" for name in ("tagged", "scaled", "sheared", "series", "nan")}
    text = (6, b"kept byte for byte\0\0")
    make(inputs["tagged"], values, oblique, codes=(1, 4), extensions=(text,), **_FIELDS)
    make(inputs["scaled"], values, oblique, codes=(1, 4), scl_slope=0.5, scl_inter=-1024.0)
    make(inputs["sheared"], values, AFFINES["sheared"], codes=(0, 2))
    series = rng.normal(300, 80, (12, 10, 8, 3)).astype(np.int16)
    make(inputs["series"], series, oblique, codes=(1, 1), xyzt_units=2 | 8, pixdim=[1, 1, 1, 1, 2.5, 0, 0, 0])
    holed = rng.normal(300, 80, (20, 18, 16)).astype(np.float32)
    holed[4:6, 7, 3:5] = np.nan
    make(inputs["nan"], holed, oblique, codes=(1, 1))
    return inputs


def _scisr(source: Path, target: Path) -> None:
    import sciSR

    sciSR.save_raster(sciSR.upscale(sciSR.open_raster(source), "cubic", scale=2), target)


def _monai(source: Path, target: Path) -> None:
    from monai.transforms import LoadImage, SaveImage, Zoom

    image: Any = LoadImage(image_only=True, ensure_channel_first=True)(str(source))
    fine: Any = Zoom(2, mode="trilinear", align_corners=False, keep_size=False)(image)
    writer = SaveImage(
        output_dir=target.parent,
        output_postfix="",
        separate_folder=False,
        print_log=False,
        output_dtype=_stored(source),
    )
    writer(fine)


def _stored(source: Path) -> Any:
    return nib.load(source).get_data_dtype()  # type: ignore[attr-defined]  # nibabel's images have it


def _by_hand(source: Path, target: Path) -> None:
    """As many scripts do it: array, affine with the same field of view, the old header."""
    from scipy import ndimage

    image: Any = nib.load(source)
    factors = (2, 2, 2, 1)[: image.ndim]
    values = ndimage.zoom(image.get_fdata(), factors, order=3, mode="nearest", grid_mode=True)
    step = np.diag([0.5, 0.5, 0.5, 1.0])
    step[:3, 3] = -0.25
    nib.save(nib.Nifti1Image(values, image.affine @ step, image.header), target)


ARMS: dict[str, Callable[[Path, Path], None]] = {"sciSR": _scisr, "monai": _monai, "nibabel": _by_hand}


def titles() -> dict[str, str]:
    """What to call each arm, with its version."""
    from sciSR import __version__

    return {
        "sciSR": f"sciSR {__version__}",
        "monai": f"MONAI {version('monai')} `Zoom`, `SaveImage`",
        "nibabel": f"nibabel {version('nibabel')} by hand",
    }


def missing(arm: str, peers: Path) -> str | None:
    """Why an arm cannot run, or None: all of these come with sciSR."""
    del arm, peers
    return None


def _files(test: Callable[[Any, Any], bool]) -> Callable[[Path, Path], bool]:
    return lambda before, after: bool(test(nib.load(before), nib.load(after)))


def _header(*names: str) -> Callable[[Path, Path], bool]:
    def same(old: Any, new: Any) -> bool:
        return all(old.header[name].tobytes() == new.header[name].tobytes() for name in names)

    return _files(same)


def _corners(old: Any, new: Any) -> bool:
    found = []
    for image in (old, new):
        size = np.array(image.shape[:3])
        ends = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * size - 0.5
        found.append(ends @ image.affine[:3, :3].T + image.affine[:3, 3])
    return new.shape[:3] == tuple(2 * n for n in old.shape[:3]) and bool(np.abs(found[0] - found[1]).max() < 1e-4)


def _forms(old: Any, new: Any) -> bool:
    return bool(np.allclose(new.get_qform(), new.affine, atol=1e-3)) and _corners(old, new)


def _slope(old: Any, new: Any) -> bool:
    return new.get_data_dtype() == old.get_data_dtype() and (
        new.dataobj.slope == old.dataobj.slope and new.dataobj.inter == old.dataobj.inter
    )


def _whole(old: Any, new: Any) -> bool:
    return new.get_data_dtype() == np.int16 and new.dataobj.slope == 1 and new.dataobj.inter == 0


def _limits(old: Any, new: Any) -> bool:
    """No value came round: inside the bright half nothing is dark, inside the dark half nothing is bright."""
    values = new.get_fdata()
    return bool(values[4:14, 4:14].min() > 20_000 and values[4:14, 22:32].max() < -20_000)


def _children(old: Any, new: Any) -> bool:
    parents = np.isnan(old.get_fdata())
    for axis in range(3):
        parents = np.repeat(parents, 2, axis=axis)
    return bool(np.array_equal(np.isnan(new.get_fdata()), parents))


def _series(old: Any, new: Any) -> bool:
    return new.shape == (24, 20, 16, 3) and float(new.header["pixdim"][4]) == 2.5


def _extensions(old: Any, new: Any) -> bool:
    kept = [(e.get_code(), e.get_content()) for e in new.header.extensions]
    return all((e.get_code(), e.get_content()) in kept for e in old.header.extensions)


def _fresh(old: Any, new: Any) -> bool:
    """Slice timing counts slices of the old volume: it must not be there for the new ones."""
    return int(new.header["slice_end"]) == 0 and float(new.header["slice_duration"]) == 0


ROWS = (
    Row("field of view, oblique", "tagged", _files(_corners)),
    Row("field of view, sheared", "sheared", _files(_corners)),
    Row("qform says the same place", "tagged", _files(_forms)),
    Row("qform code", "tagged", _header("qform_code")),
    Row("sform code", "tagged", _header("sform_code")),
    Row("no qform made up for a sheared volume", "sheared", _files(lambda a, b: int(b.header["qform_code"]) == 0)),
    Row("int16 without a slope", "tagged", _files(_whole)),
    Row("slope and intercept", "scaled", _files(_slope)),
    Row("no value wraps", "tagged", _files(_limits)),
    Row("NaN exactly where it was", "nan", _files(_children)),
    Row("time series and its TR", "series", _files(_series)),
    Row("xyzt_units", "tagged", _header("xyzt_units")),
    Row("descrip", "tagged", _header("descrip")),
    Row("intent", "tagged", _header("intent_code", "intent_p1", "intent_name")),
    Row("cal_min, cal_max", "tagged", _header("cal_min", "cal_max")),
    Row("toffset", "tagged", _header("toffset")),
    Row("aux_file", "tagged", _header("aux_file")),
    Row("dim_info", "tagged", _header("dim_info")),
    Row("extensions", "tagged", _files(_extensions)),
    Row("no stale slice timing", "tagged", _files(_fresh)),
)

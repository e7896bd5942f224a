"""Cut the example crops out of the full scans and scenes: ``python examples/data/make_crops.py [SOURCE_FOLDER]``.

Values are copied untouched. Positions move by a matrix product, so each voxel of a crop lies where it lay before.
The windows below are also what a training run must leave out, if the crops are to test its network.
"""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import rasterio
from rasterio.windows import Window

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "shared" / "data"

VOLUMES: dict[str, tuple[str, tuple[slice, slice, slice]]] = {
    "mri_t1_head_crop.nii.gz": (
        "mri/t1_head_0.7mm_pddl.nii.gz",
        (slice(84, 196), slice(176, 304), slice(196, 308)),
    ),
    "ct_chest_crop.nii.gz": (
        "ct/ct_chest2_0.63x0.63x5mm.nii.gz",
        (slice(200, 352), slice(250, 402), slice(0, 61)),
    ),
    "mri_thick_crop.nii.gz": (
        "mri/t1gd_brain_0.78x0.78x6.5mm.nii.gz",
        (slice(24, 232), slice(12, 252), slice(0, 25)),
    ),
}
"""Crop -> source and its window along the file's voxel axes x, y, z."""

SCENES: dict[str, tuple[str, tuple[slice, slice], tuple[str, ...]]] = {
    "sentinel2_crop.tif": (
        "sat/sentinel2_10m_b02b03b04b08.tif",
        (slice(592, 848), slice(592, 848)),
        ("B02", "B03", "B04", "B08"),
    ),
}
"""Crop -> source, window in rows and columns, and the names of its bands (the source says them in its file name)."""


def crop_volume(source: Path, target: Path, window: tuple[slice, slice, slice]) -> None:
    """Write a window of a NIfTI volume; header fields, sform and qform codes stay, the affines move along."""
    image = nib.load(source)
    move = np.eye(4)
    move[:3, 3] = [part.start for part in window]
    cropped = nib.Nifti1Image(np.asarray(image.dataobj)[window], image.affine @ move, image.header)
    for name in ("qform", "sform"):
        affine, code = getattr(image, f"get_{name}")(coded=True)
        if affine is not None:
            getattr(cropped, f"set_{name}")(affine @ move, code, update_affine=False)
    cropped.header.set_zooms(image.header.get_zooms())
    plain = io.BytesIO(cropped.to_bytes())
    with target.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(plain.getvalue())


def crop_scene(source: Path, target: Path, window: tuple[slice, slice], names: tuple[str, ...]) -> None:
    """Write a window of a GeoTIFF, tiled and deflated, with its band names."""
    rows, columns = window
    part = Window.from_slices(rows, columns)
    with rasterio.open(source) as scene:
        profile = scene.profile | {
            "height": rows.stop - rows.start,
            "width": columns.stop - columns.start,
            "transform": scene.window_transform(part),
            "interleave": "band",
            "blockxsize": 128,
            "blockysize": 128,
            "compress": "deflate",
            "predictor": 2,
            "zlevel": 9,
        }
        with rasterio.open(target, "w", **profile) as crop:
            crop.write(scene.read(window=part))
            crop.update_tags(**scene.tags())
            crop.descriptions = names


def main() -> None:
    """Make all crops beside this script."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    for name, (source, volume_window) in VOLUMES.items():
        crop_volume(folder / source, HERE / name, volume_window)
    for name, (source, scene_window, bands) in SCENES.items():
        crop_scene(folder / source, HERE / name, scene_window, bands)


if __name__ == "__main__":
    main()

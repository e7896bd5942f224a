"""World position through the whole command: a ramp of world coordinates stays one, and bounds stay.

Each output voxel of ``scisr upscale --model cubic`` must carry the world coordinate of its own centre, judged with
nibabel and rasterio alone. Values are the sum of the world axes' coordinates, weighted so that each can be told apart.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio.transform import Affine

from sciSR.cli import main
from tests.made_files import NORTH_UP, write_scene, write_volume

SHAPE = (14, 12, 10)
WEIGHTS = np.array([1.0, 0.31, 0.17])
BORDER = 3
"""Input pixels next to the edge that are not judged: a kernel of radius 2 mirrors there."""


def rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    matrix = np.eye(3)
    i, j = (k for k in range(3) if k != axis)
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return matrix


def placed(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = (-31.5, 12.25, 7.75)
    return affine


SPACING = np.diag([0.7, 0.9, 2.5])
AFFINES = {
    "straight": placed(SPACING),
    "flipped": placed(np.diag([-1.0, 1.0, 1.0]) @ SPACING),
    "all flipped": placed(-SPACING),
    "oblique": placed(rotation(0, 17) @ rotation(1, -23) @ rotation(2, 31) @ SPACING),
    "axes exchanged": placed(np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]]) @ SPACING),
    "sheared": placed(rotation(2, 8) @ np.array([[1, 0.2, 0.1], [0, 1, -0.3], [0, 0, 1]]) @ SPACING),
}
SCALES = {"2": (2, 2, 2), "z=3": (1, 1, 3), "x=2,z=4": (2, 1, 4)}


def centres(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    found: NDArray[np.float64] = index @ affine[:3, :3].T + affine[:3, 3]
    return found


def corners(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    ends = np.stack(np.meshgrid(*((-0.5, n - 0.5) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    found: NDArray[np.float64] = ends @ affine[:3, :3].T + affine[:3, 3]
    return found


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", AFFINES)
def test_each_voxel_carries_the_world_position_of_its_centre(tmp_path: Path, name: str, scale: str) -> None:
    affine = AFFINES[name]
    source = write_volume(tmp_path / "ramp.nii.gz", centres(affine, SHAPE) @ WEIGHTS, affine, "float32")
    target = tmp_path / "out" / "fine.nii.gz"

    assert main(["upscale", str(source), "-o", str(target), "--model", "cubic", "--scale", scale, "-q"]) == 0

    factors = SCALES[scale]
    result = nib.load(target)
    assert result.shape == tuple(n * f for n, f in zip(SHAPE, factors, strict=True))
    for matrix in (result.affine, result.header.get_sform()):
        np.testing.assert_allclose(corners(matrix, result.shape), corners(affine, SHAPE), atol=1e-4)
    inner = tuple(slice(BORDER * f, -BORDER * f if f else None) for f in factors)
    got = np.asarray(result.dataobj)[inner]
    expected = (centres(result.affine, result.shape) @ WEIGHTS)[inner]
    step = np.abs(np.diag(WEIGHTS) @ result.affine[:3, :3]).sum(axis=0).max()
    assert np.abs(got - expected).max() <= 1e-3 * step


def mapped(transform: Affine, column: ArrayLike, row: ArrayLike) -> NDArray[np.float64]:
    """Map coordinates (east, north) of places in a scene, counted from the corner of its first pixel."""
    x, y = np.asarray(column, dtype=np.float64), np.asarray(row, dtype=np.float64)
    return np.stack([transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f])


@pytest.mark.parametrize("scale", ["2", "4", "3", "y=2"])
@pytest.mark.parametrize(
    "transform",
    [
        NORTH_UP,
        Affine(0.1, 0.0, -76.3, 0.0, -0.1, 37.9),
        Affine(10.0, 0.0, 500_000.0, 0.0, 10.0, 4_200_000.0),
        Affine(9.4, 4.1, 500_000.0, 3.4, -11.3, 4_200_000.0),
        Affine(10.0, 3.0, 500_000.0, -1.0, -10.0, 4_200_000.0),
    ],
    ids=["north-up", "degrees", "south-up", "rotated", "sheared"],
)
def test_each_pixel_carries_the_map_position_of_its_centre(tmp_path: Path, transform: Affine, scale: str) -> None:
    height, width = 17, 15
    y, x = np.mgrid[0:height, 0:width] + 0.5
    origin = mapped(transform, 0, 0)[:, None, None]
    values = mapped(transform, x, y) - origin
    degrees = abs(transform.a) < 1
    crs = "EPSG:4326" if degrees else "EPSG:32618"
    source = write_scene(tmp_path / "ramp.tif", values, transform, "float32", crs)
    target = tmp_path / "out" / "fine.tif"

    assert main(["upscale", str(source), "-o", str(target), "--model", "cubic", "--scale", scale, "-q"]) == 0

    with rasterio.open(target) as dataset:
        result, got = dataset.transform, dataset.read()
        fy, fx = dataset.height // height, dataset.width // width
        assert dataset.crs == rasterio.crs.CRS.from_string(crs)
    assert (fy, fx) == {"2": (2, 2), "4": (4, 4), "3": (3, 3), "y=2": (2, 1)}[scale]
    columns, rows = np.array([0, width, 0, width]), np.array([0, 0, height, height])
    before, after = mapped(transform, columns, rows), mapped(result, columns * fx, rows * fy)
    pixel = np.hypot(transform.a, transform.d)
    if scale in ("2", "4") and transform.b == transform.d == 0:
        np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-9 * pixel)
    y, x = np.mgrid[0 : height * fy, 0 : width * fx] + 0.5
    expected = mapped(result, x, y) - origin
    inner = (slice(None), slice(BORDER * fy, -BORDER * fy), slice(BORDER * fx, -BORDER * fx))
    assert np.abs(got - expected)[inner].max() <= 1e-3 * pixel / max(fy, fx)


def test_target_spacing_keeps_the_bounds_and_rounds_the_count(tmp_path: Path) -> None:
    affine = AFFINES["oblique"]
    source = write_volume(tmp_path / "ramp.nii.gz", centres(affine, SHAPE) @ WEIGHTS, affine, "float32")
    target = tmp_path / "fine.nii.gz"

    arguments = ["upscale", str(source), "-o", str(target), "--model", "cubic", "--target-spacing", "z=1.0", "-q"]
    assert main(arguments) == 0

    result = nib.load(target)
    assert result.shape == (14, 12, 25)
    np.testing.assert_allclose(corners(result.affine, result.shape), corners(affine, SHAPE), atol=1e-4)
    inner = (slice(3, -3), slice(3, -3), slice(8, -8))
    expected = (centres(result.affine, result.shape) @ WEIGHTS)[inner]
    step = np.abs(np.diag(WEIGHTS) @ result.affine[:3, :3]).sum(axis=0).max()
    assert np.abs(np.asarray(result.dataobj)[inner] - expected).max() <= 1e-3 * step

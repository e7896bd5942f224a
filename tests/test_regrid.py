"""Lazy resampling: any factor, the same from any blocks, right in the world."""

import numpy as np
import pytest

from sciSR.raster import Raster
from sciSR.regrid import regrid


def _volume(dtype: str = "float32") -> Raster:
    values = (np.random.default_rng(0).normal(size=(9, 11, 13)) * 100).astype(dtype)
    return Raster.from_array(values, affine=np.eye(4), axes="zyx")


@pytest.mark.parametrize("kernel", ["nearest", "linear", "cubic", "lanczos", "box"])
@pytest.mark.parametrize("shape", [(18, 22, 26), (9, 17, 30), (5, 11, 13), (1, 1, 1)])
def test_a_window_equals_the_same_part_of_the_whole(kernel: str, shape: tuple[int, ...]) -> None:
    result = regrid(_volume(), shape, kernel=kernel)
    whole = result.read().values
    assert whole.shape == shape
    window = tuple(slice(n // 4, n // 4 + max(1, n // 2)) for n in shape)
    np.testing.assert_allclose(result.read(window).values, whole[window], rtol=0, atol=1e-4)
    parts = np.full(shape, np.nan)
    for at, block in result.stream():
        parts[at] = block.values
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(18, 22, 26), (27, 25, 31), (13, 11, 13)])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_a_ramp_of_world_coordinates_stays_one(shape: tuple[int, ...], kernel: str) -> None:
    affine = np.array([[0.9, 0.2, -0.1, 5], [-0.3, 1.1, 0.2, -7], [0.1, -0.1, 2.0, 3], [0, 0, 0, 1]])
    volume = Raster.from_array(np.zeros((9, 11, 13), np.float32), affine=affine, axes="zyx")
    index = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in volume.shape], indexing="ij"), axis=-1)[..., ::-1]
    for axis in range(3):
        ramp = Raster.from_array(volume.grid.world(index)[..., axis], affine=affine, axes="zyx")
        fine = regrid(ramp, shape, kernel=kernel)
        at = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in shape], indexing="ij"), axis=-1)[..., ::-1]
        inside = tuple(
            slice(int(3 * n / m) + 1, n - int(3 * n / m) - 1) for n, m in zip(shape, volume.shape, strict=True)
        )
        error = fine.read().values - fine.grid.world(at)[..., axis]
        assert np.abs(error[inside]).max() < 1e-6


def test_nearest_keeps_type_and_values_beyond_float32() -> None:
    values = np.array([[[2**30 + 1, 2**30 + 3]]], np.int32)
    fine = regrid(Raster.from_array(values, affine=np.eye(3), axes="cyx"), (2, 4), kernel="nearest").read().values
    assert fine.dtype == np.int32
    np.testing.assert_array_equal(fine[0, 0], [2**30 + 1, 2**30 + 1, 2**30 + 3, 2**30 + 3])


def test_invalid_pixels_hurt_no_neighbour_and_stay_invalid_as_their_children() -> None:
    values = np.ones((1, 8, 8), np.float32)
    values[0, 3, 4] = np.nan
    block = regrid(Raster.from_array(values, affine=np.eye(3), axes="cyx"), (16, 16)).read()
    assert block.valid is not None
    expected = np.ones((16, 16), bool)
    expected[6:8, 8:10] = False
    np.testing.assert_array_equal(block.valid[0], expected)
    np.testing.assert_allclose(block.values[0][expected], 1, atol=1e-6)


def test_wide_integers_are_interpolated_in_float64() -> None:
    values = np.full((1, 6, 6), 2**28 + 1, np.int32)
    fine = regrid(Raster.from_array(values, affine=np.eye(3), axes="cyx"), (12, 12)).read().values
    assert fine.dtype == np.float64
    np.testing.assert_allclose(fine, 2**28 + 1, rtol=0, atol=1e-6)


def test_a_much_coarser_grid_sees_no_fill_value_beside_valid_pixels() -> None:
    values = np.full((1, 40, 400), 290.0, np.float32)
    values[:, :, 200:] = np.nan
    block = regrid(Raster.from_array(values, affine=np.eye(3), axes="cyx"), (4, 40)).read()
    assert block.valid is not None
    np.testing.assert_allclose(block.values[block.valid], 290, atol=1e-3)

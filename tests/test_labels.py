from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR.errors import InputError
from sciSR.io import open_raster
from sciSR.labels import MOST_LABELS, check_labels, is_label_map, upscale_labels
from sciSR.raster import ArraySource, Block, Raster, Window
from tests.nifti_files import make

RNG = np.random.default_rng(5)


def volume(values: NDArray[Any], **options: Any) -> Raster:
    return Raster.from_array(values, affine=np.eye(4), axes="zyx", **options)


def blobs(*labels: float, dtype: str = "int16", shape: tuple[int, ...] = (6, 7, 8)) -> NDArray[Any]:
    return RNG.choice(np.array(labels, dtype), shape)


@pytest.mark.parametrize(
    "values",
    [
        blobs(0, 1, dtype="uint8"),
        blobs(0, 1000, 2035),
        blobs(0, 4, 7, dtype="float32"),
        blobs(-1, 1, dtype="int8"),
        np.arange(MOST_LABELS, dtype=np.uint8).reshape(2, 4, 5).repeat(2, 0).repeat(2, 1).repeat(2, 2),
        np.array([[[False, True, True, False]]]),
        np.array([0, 5, 0, 0, 5, 5, 0, 5], np.uint8).reshape(2, 2, 2),
        np.where(RNG.random((4, 4, 4)) < 0.3, np.nan, blobs(1, 2, dtype="float64", shape=(4, 4, 4))),
    ],
)
def test_few_distinct_whole_numbers_are_labels(values: NDArray[Any]) -> None:
    assert is_label_map(volume(values))
    with pytest.raises(InputError, match=r"looks like a label map .*--labels .*--not-labels"):
        check_labels(volume(values))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 3, 3), np.uint8),
        np.full((3, 3, 3), 7.0, np.float32),
        np.full((3, 3, 3), np.nan, np.float32),
        blobs(0, 0.5, 1, dtype="float32"),
        np.arange(MOST_LABELS + 1, dtype=np.uint8).reshape(1, 1, -1).repeat(2, 2),
        np.arange(27, dtype=np.int16).reshape(3, 3, 3),
        np.array([[[12, 80, 12, 31], [55, 14, 80, 3]]], np.int16),
        RNG.normal(0, 100, (5, 5, 5)).astype(np.int16),
        np.array([[[0.0, 1.0, np.inf]]]),
        np.broadcast_to(np.arange(12.0), (6, 5, 12)),
        np.add.outer(np.arange(6), np.add.outer(np.arange(5), np.arange(12))).astype(np.int16),
    ],
)
def test_images_and_constants_are_not(values: NDArray[Any]) -> None:
    assert not is_label_map(volume(values))
    assert check_labels(volume(values)) is False


def test_tiny_pieces_of_real_scans_are_images(crops: Path) -> None:
    for name in ("ct_chest_crop.nii.gz", "mri_t1_head_crop.nii.gz"):
        raster = open_raster(crops / name)
        z, y, x = (n // 2 for n in raster.shape)
        for size in (2, 3):
            piece = raster.crop(z=slice(z, z + size), y=slice(y, y + size), x=slice(x, x + size))
            assert not is_label_map(piece), (name, size)


def test_a_padding_value_does_not_count() -> None:
    values = blobs(3, dtype="int16")
    values[0] = -2000
    assert not is_label_map(volume(values, nodata=-2000))
    assert is_label_map(volume(values))


def test_what_was_said_counts() -> None:
    mask = volume(blobs(0, 1, dtype="uint8"))
    assert check_labels(mask, labels=True) is True
    assert check_labels(mask, labels=False) is False


def test_what_was_said_when_opening_counts_and_an_argument_more(tmp_path: Path) -> None:
    path = make(tmp_path / "mask.nii.gz", blobs(0, 1, dtype="uint8"))
    assert check_labels(open_raster(path, labels=True)) is True
    assert check_labels(open_raster(path, labels=False)) is False
    assert check_labels(open_raster(path, labels=False), labels=True) is True
    with pytest.raises(InputError, match=r"mask\.nii\.gz: looks like a label map \(it holds 2 to 40"):
        check_labels(open_raster(path))


def test_an_intent_of_labels_counts_without_reading(tmp_path: Path) -> None:
    many = RNG.integers(0, 3000, (6, 7, 8)).astype(np.int16)
    raster = open_raster(make(tmp_path / "aparc.nii.gz", many, intent_code=1002))
    with pytest.raises(InputError, match="its header calls it labels"):
        check_labels(raster)


def test_an_image_is_told_from_its_first_slab() -> None:
    class Counting(ArraySource):
        slabs = 0

        def stream(self) -> Iterator[tuple[Window, Block]]:
            for part in super().stream():
                self.slabs += 1
                yield part

    source = Counting(RNG.normal(0, 500, (50, 20, 20)).astype(np.int16), chunks=(2, 20, 20))
    raster = volume(np.zeros((50, 20, 20), np.int16)).replace(source=source)
    assert not is_label_map(raster)
    assert source.slabs == 1


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_no_new_label_appears(method: Any, dtype: str) -> None:
    low = volume(blobs(0, 2, 4, 11, dtype=dtype))
    fine = upscale_labels(low, (13, 14, 24), method)
    values = fine.read().values
    assert values.shape == (13, 14, 24)
    assert values.dtype == np.dtype(dtype)
    assert set(np.unique(values)) <= {0, 2, 4, 11}
    assert fine.grid.same_space(low.grid)


def test_nearest_gives_each_child_its_parent() -> None:
    values = blobs(0, 3, 9)
    fine = upscale_labels(volume(values), (12, 14, 16))
    assert np.array_equal(fine.read().values, values.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_linear_gives_the_label_with_the_greatest_share() -> None:
    from scipy import ndimage

    values = ndimage.label(ndimage.gaussian_filter(RNG.normal(size=(8, 9, 10)), 1) > 0)[0].astype(np.int16)
    fine = upscale_labels(volume(values), (24, 27, 30), "linear").read().values
    grid = np.meshgrid(*[(np.arange(3 * n) + 0.5) / 3 - 0.5 for n in values.shape], indexing="ij")
    shares = [
        ndimage.map_coordinates((values == k).astype(float), grid, order=1, mode="nearest") for k in np.unique(values)
    ]
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-3
    assert np.array_equal(fine[clear], np.unique(values)[np.argmax(shares, axis=0)][clear])
    assert (fine != values.repeat(3, 0).repeat(3, 1).repeat(3, 2)).any()


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_blocks_give_what_the_whole_gives(method: Any) -> None:
    fine = upscale_labels(volume(blobs(0, 1, 5)), (18, 14, 8), method)
    whole = fine.read().values
    for _ in range(10):
        window = tuple(slice(int(a), int(a) + 5) for a in RNG.integers(0, np.array(fine.shape) - 5))
        assert np.array_equal(fine.read(window).values, whole[window])
    assert sum(block.values.size for _, block in fine.stream()) == whole.size


def test_holes_in_labels_stay_holes() -> None:
    values = blobs(1, 2, dtype="float32")
    values[2] = np.nan
    block = upscale_labels(volume(values), (12, 7, 8), "linear").read()
    assert block.valid is not None
    assert np.array_equal(~block.valid, np.isnan(values).repeat(2, 0))
    assert set(np.unique(block.values[block.valid])) == {1, 2}


def test_another_method_is_refused() -> None:
    with pytest.raises(InputError, match="method 'cubic'; expected 'nearest' or 'linear'"):
        upscale_labels(volume(blobs(0, 1)), (12, 14, 16), "cubic")  # type: ignore[arg-type]  # on purpose

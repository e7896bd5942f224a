from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sciSR.errors import GeometryError, InputError
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Reference, decode, hold_out, validation_crops

PLAIN = Normalization("fixed", center=(100.0,), scale=(50.0,))


def volume(shape: tuple[int, ...] = (12, 16, 20), spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Raster:
    values = np.random.default_rng(0).normal(100, 50, shape).astype(np.float32)
    return Raster.from_array(values, affine=np.diag([*spacing[::-1], 1.0]), axes="zyx", name="volume")


def scene(channels: int = 3, shape: tuple[int, int] = (24, 32)) -> Raster:
    values = np.random.default_rng(1).normal(100, 50, (channels, *shape)).astype(np.float32)
    return Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="cyx", name="scene")


def test_values_are_normalised_and_holes_marked() -> None:
    raster = volume()
    values = raster.read().values.copy()
    values[3, 4, 5] = np.nan
    holed = Raster.from_array(values, affine=np.eye(4), axes="zyx", name="holed")
    (crop,) = decode(Reference(holed), normalization=PLAIN, channels=1, scale=(2, 2, 2))
    assert crop.valid is not None
    assert int((~crop.valid).sum()) == 1
    assert not crop.valid[3, 4, 5]
    good = crop.valid.numpy()
    np.testing.assert_allclose(crop.high[0].numpy()[good], (values[good] - 100) / 50, atol=1e-6)
    assert torch.isfinite(crop.high).all()


def test_a_one_channel_network_sees_each_band_by_itself() -> None:
    crops = decode(Reference(scene(3)), normalization=PLAIN, channels=1, scale=(2, 2))
    assert [tuple(c.high.shape) for c in crops] == [(1, 24, 32)] * 3
    assert sum(c.weight for c in crops) == pytest.approx(1.0)
    (joint,) = decode(Reference(scene(3)), normalization=PLAIN, channels=3, scale=(2, 2))
    assert torch.equal(joint.high, torch.cat([c.high for c in crops]))


def test_chosen_bands_and_wrong_counts() -> None:
    (crop,) = decode(Reference(scene(4), bands=(2, 0)), normalization=PLAIN, channels=2, scale=(2, 2))
    (whole,) = decode(Reference(scene(4)), normalization=PLAIN, channels=4, scale=(2, 2))
    assert torch.equal(crop.high, whole.high[[2, 0]])
    with pytest.raises(InputError, match="3 channels came, the network takes 2"):
        decode(Reference(scene(3)), normalization=PLAIN, channels=2, scale=(2, 2))


def test_coarsening_keeps_the_field_of_view() -> None:
    reference = Reference(volume((8, 16, 20)), coarsen={"y": 2, "x": 2}, held_out={"y": (4, 9)})
    (crop,) = decode(reference, normalization=PLAIN, channels=1, scale=(2, 2, 2))
    assert crop.shape == (8, 8, 10)
    assert crop.spacing == (1.0, 2.0, 2.0)
    assert crop.held_out == ((slice(0, 8), slice(2, 5), slice(0, 10)),)


def test_held_out_windows_become_validation_crops() -> None:
    reference = Reference(volume(), held_out={"x": (5, 15), "z": (2, 6)})
    (crop,) = decode(reference, normalization=PLAIN, channels=1, scale=(2, 2, 2))
    (part,) = validation_crops(crop, (2, 2, 2))
    assert part.origin == (2, 0, 5)
    assert torch.equal(part.high, crop.high[:, 2:6, :, 5:15])
    (end,) = validation_crops(
        hold_out(decode(Reference(volume()), normalization=PLAIN, channels=1, scale=(2,) * 3)[0], 0.2), (2,) * 3
    )
    assert end.shape == (12, 16, 4)
    assert end.origin == (0, 0, 16)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [({"q": (0, 2)}, "axis q"), ({"x": (4, 99)}, "not within 0 to 20"), ({"x": (5, 5)}, "5 to 5")],
)
def test_a_held_out_range_that_cannot_be_is_refused(held_out: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(Reference(volume(), held_out=held_out), normalization=PLAIN, channels=1, scale=(2, 2, 2))


def test_real_pairs_must_cover_the_same_field_of_view() -> None:
    fine = volume((8, 8, 8))
    coarse = Raster.from_array(np.zeros((4, 4, 4), np.float32), affine=_doubled(0.5), axes="zyx", name="coarse")
    reference = Reference(fine, low=coarse, held_out={"y": (3, 8)})
    (crop,) = decode(reference, normalization=PLAIN, channels=1, scale=(2, 2, 2))
    assert crop.low is not None
    (part,) = validation_crops(crop, (2, 2, 2))
    assert part.low is not None
    assert (part.shape, part.origin) == ((8, 4, 8), (0, 4, 0))
    assert torch.equal(part.low, crop.low[:, :, 2:])
    assert tuple(crop.low.shape) == (1, 4, 4, 4)
    assert float(crop.low[0, 0, 0, 0]) == pytest.approx(-2.0)  # the fine raster's map: (0 - 100) / 50
    moved = Raster.from_array(np.zeros((4, 4, 4), np.float32), affine=_doubled(1.5), axes="zyx", name="moved")
    with pytest.raises(GeometryError, match="moved: does not cover"):
        decode(Reference(fine, low=moved), normalization=PLAIN, channels=1, scale=(2, 2, 2))
    with pytest.raises(GeometryError, match=r"refined by \(4, 2, 2\)"):
        decode(Reference(fine, low=coarse), normalization=PLAIN, channels=1, scale=(4, 2, 2))


def _doubled(origin: float) -> np.ndarray:
    """Centre affine of 2 mm voxels; origin 0.5 is what refines to 1 mm voxels centred at 0."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = origin
    return affine


def test_a_mask_covers_the_field_of_view_with_any_pixels() -> None:
    fine = volume((8, 8, 8))
    values = np.zeros((4, 4, 4), np.uint8)
    values[1:3, :, 2] = 2
    mask = Raster.from_array(values, affine=_doubled(0.5), axes="zyx", name="mask")
    options: dict[str, Any] = {"normalization": PLAIN, "channels": 1, "scale": (2, 2, 2)}
    (crop,) = decode(Reference(fine, mask=mask), **options)
    assert crop.mask is not None
    np.testing.assert_array_equal(crop.mask, values.repeat(2, 0).repeat(2, 1).repeat(2, 2) > 0)
    (coarser,) = decode(Reference(fine, mask=mask, coarsen={"z": 2, "y": 2, "x": 2}), **options)
    np.testing.assert_array_equal(coarser.mask, values > 0)
    window = (slice(2, 7), slice(0, 8), slice(3, 8))
    (part,) = decode(Reference(fine, mask=mask).part(z=window[0], x=window[2]), **options)
    np.testing.assert_array_equal(part.mask, crop.mask[window])
    moved = Raster.from_array(values, affine=_doubled(1.5), axes="zyx", name="moved")
    with pytest.raises(GeometryError, match=r"moved: a mask of axes z, y, x .*covers the field of view of volume"):
        decode(Reference(fine, mask=moved), **options)

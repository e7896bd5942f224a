from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sciSR.errors import InputError
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Crop, Library, PairMaker, Reference, RotatingMaker, decode, decoded_bytes
from sciSR.sensors import Sensor

PLAIN = Normalization("percentile")


def scene(shape: tuple[int, int] = (160, 200), seed: int = 0) -> Raster:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Raster.from_array(values, affine=np.diag([1.0, -1.0, 1.0]), axes="yx", name=f"scene{seed}")


def library(*references: Reference, budget_gb: float = 40e-6, seed: int = 0) -> Library:
    return Library(
        references, normalization=PLAIN, channels=1, scale=(2, 2), budget_gb=budget_gb, least=(16, 16), seed=seed
    )


def build(crops: Sequence[Crop]) -> PairMaker:
    return PairMaker(crops, patch=(4, 4), scale=(2, 2), sensor=Sensor())


def test_blocks_cover_each_reference_once_and_rounds_keep_the_budget() -> None:
    shelves = library(Reference(scene()), Reference(scene(seed=1)))
    assert decoded_bytes(shelves.references) == 2 * 4 * 160 * 200
    seen = np.zeros((2, 160, 200), int)
    for block in shelves.blocks:
        seen[block.reference][block.window] += 1
    assert (seen == 1).all()
    for number in range(5):
        crops = shelves.round(number)
        assert len(crops) > 1
        assert sum(4 * crop.high.numel() for crop in crops) <= 40e3
    first, again, other = shelves.round(0), shelves.round(0), shelves.round(1)
    assert [c.origin for c in first] == [c.origin for c in again]
    assert [c.origin for c in first] != [c.origin for c in other]


def test_a_block_holds_the_values_of_the_whole_raster() -> None:
    (whole,) = decode(Reference(scene()), normalization=PLAIN, channels=1, scale=(2, 2))
    for crop in library(Reference(scene())).round(3):
        part = tuple(slice(o, o + n) for o, n in zip(crop.origin, crop.shape, strict=True))
        torch.testing.assert_close(crop.high, whole.high[(slice(None), *part)])


def test_what_is_held_out_is_guarded_across_blocks() -> None:
    shelves = library(Reference(scene(), held_out={"y": (70, 90), "x": (80, 110)}))
    for number in range(20):
        made = build(shelves.round(number))
        for patch in made.sampler.draw(0, number, range(40)):
            origin = made.sampler.crops[patch.crop].origin
            (y, x) = (o + a for o, a in zip(origin, patch.start, strict=True))
            (h, w) = patch.size
            assert y + h <= 70 - 16 or y >= 90 + 16 or x + w <= 80 - 16 or x >= 110 + 16


def test_a_step_sees_the_same_whether_or_not_others_came_before() -> None:
    shelves = library(Reference(scene()))
    running, resumed = RotatingMaker(shelves, build, steps=3), RotatingMaker(shelves, build, steps=3)
    made = [running.make(0, step, range(4)).low for step in range(8)]
    assert torch.equal(resumed.make(0, 7, range(4)).low, made[7])
    assert torch.equal(resumed.make(0, 2, range(4)).low, made[2])
    assert resumed.sampler.crops


def test_what_lives_at_a_time_keeps_the_budget() -> None:
    """Beside the values that patches are gathered from there is the next round, and no other copy."""
    decoded: list[weakref.ref[torch.Tensor]] = []
    shelved: list[int] = []

    def watched(crops: Sequence[Crop]) -> PairMaker:
        assert running is None or running._maker is None  # the round before is gone
        decoded.extend(weakref.ref(crop.high) for crop in crops)
        shelved.append(sum(4 * crop.high.numel() for crop in crops))
        return build(crops)

    running: RotatingMaker | None = None
    running = RotatingMaker(library(Reference(scene()), Reference(scene(seed=1))), watched, steps=1)
    for step in range(4):
        running.make(0, step, range(2))
        gc.collect()
        assert not any(reference() is not None for reference in decoded)
    assert len(shelved) == 4
    assert 2 * max(shelved) <= 40e3


def test_blocks_beside_the_mask_are_not_read() -> None:
    values = np.zeros((160, 200), np.uint8)
    values[:50, :60] = 1
    mask = Raster.from_array(values, affine=np.diag([1.0, -1.0, 1.0]), axes="yx", name="mask")
    shelves = library(Reference(scene(), mask=mask))
    for number in range(4):
        for patch in (made := build(shelves.round(number))).sampler.draw(0, number, range(20)):
            origin = made.sampler.crops[patch.crop].origin
            assert all(o + a < n for o, a, n in zip(origin, patch.start, (50, 60), strict=True))


def test_heavier_references_come_oftener() -> None:
    shelves = library(Reference(scene(), weight=4.0), Reference(scene(seed=1), weight=1.0))
    names = [crop.name for number in range(60) for crop in shelves.round(number)]
    assert names.count("scene0") > 1.5 * names.count("scene1")


def test_too_small_a_budget_and_real_pairs_are_refused() -> None:
    with pytest.raises(InputError, match=r"cache_gb: .* holds blocks of .* pixels a side of scene0, a patch needs 16"):
        library(Reference(scene()), budget_gb=1e-6)
    with pytest.raises(InputError, match="real pairs are held in memory whole"):
        library(Reference(scene(), low=scene()))

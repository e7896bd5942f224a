from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciSR.errors import InputError
from sciSR.normalization import IntensityMap
from sciSR.sampling import Crop, PatchSampler


def crop(values: torch.Tensor, **changes: object) -> Crop:
    spacing = (1.0,) * (values.dim() - 1)
    return Crop(name="crop", high=values, spacing=spacing, intensity=IntensityMap(), **changes)  # type: ignore[arg-type]


def textured(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(9, 30), st.integers(9, 30), st.integers(9, 30)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_patches_lie_inside(shape: tuple[int, ...], size: tuple[int, ...], seed: int) -> None:
    sampler = PatchSampler([crop(textured(shape))], [size])
    for patch in sampler.draw(seed, 0, range(8)):
        assert patch.size == size
        assert all(a >= 0 and a + n <= m for a, n, m in zip(patch.start, size, shape, strict=True))


def test_patches_avoid_pixels_without_value_and_what_is_held_out() -> None:
    valid = torch.ones(64, 80, dtype=torch.bool)
    valid[:, :20] = False
    valid[30, 40] = False
    held = (slice(0, 64), slice(60, 70))
    sampler = PatchSampler([crop(textured((64, 80)), valid=valid, held_out=(held,))], [(8, 8)], guard=3, uniform=True)
    seen = np.zeros((64, 80), bool)
    for patch in sampler.draw(0, 0, range(4000)):
        (y, x) = patch.start
        assert bool(valid[y : y + 8, x : x + 8].all())
        assert x + 8 <= 57 or x >= 73 or not (x < 73 and x + 8 > 57)
        seen[y : y + 8, x : x + 8] = True
    assert seen[:, 22:25].any()  # right beside the holes
    assert not seen[:, 57:73].any()


def test_detail_is_drawn_more_often_than_background() -> None:
    values = torch.zeros(1, 96, 96)
    values[:, :32] = textured((32, 96))
    starts = [p.start[0] for p in PatchSampler([crop(values)], [(12, 12)]).draw(1, 0, range(500))]
    assert np.mean([s < 32 for s in starts]) > 0.95
    even = [p.start[0] for p in PatchSampler([crop(values)], [(12, 12)], uniform=True).draw(1, 0, range(500))]
    assert np.mean([s < 32 for s in even]) < 0.6


def test_weights_share_the_draws() -> None:
    crops = [crop(textured((40, 40)), weight=3.0), crop(textured((40, 40), 1), weight=1.0)]
    numbers = [p.crop for p in PatchSampler(crops, [(8, 8)] * 2).draw(0, 0, range(2000))]
    assert np.mean(numbers) == pytest.approx(0.25, abs=0.03)


def test_a_crop_too_small_is_left_out_and_all_too_small_is_an_error() -> None:
    small, large = crop(textured((6, 40))), crop(textured((40, 40)))
    assert {p.crop for p in PatchSampler([small, large], [(8, 8)] * 2).draw(0, 0, range(50))} == {1}
    with pytest.raises(InputError, match="no reference has room for"):
        PatchSampler([small], [(8, 8)])


def test_real_pairs_start_at_multiples_of_the_scale() -> None:
    low = textured((12, 14))
    high = low.repeat_interleave(3, 1).repeat_interleave(2, 2)
    sampler = PatchSampler([crop(high, low=low)], [(12, 8)], align=(3, 2))
    for patch in sampler.draw(0, 0, range(60)):
        assert patch.start[0] % 3 == 0
        assert patch.start[1] % 2 == 0


def test_a_place_is_named_in_the_reference_it_came_from() -> None:
    part = crop(textured((20, 20)), origin=(100, 7))
    sampler = PatchSampler([part], [(20, 20)])
    assert sampler.where(sampler.draw(0, 0, [0])[0]) == "crop y=100:120 x=7:27"


def test_mostly_background_is_rare() -> None:
    """A textured disc in dark noise, as a head is in air: the rim has detail, but only half of it is the head."""
    y, x = np.mgrid[0:160, 0:160] - 80
    head = torch.from_numpy((y**2 + x**2 < 40**2).astype(np.float32))[None]
    values = (1 + 0.2 * textured((160, 160))) * head + 0.005 * textured((160, 160), 1)
    shares = [
        float(head[0, p.start[0] : p.start[0] + 24, p.start[1] : p.start[1] + 24].mean())
        for p in PatchSampler([crop(values)], [(24, 24)]).draw(0, 0, range(500))
    ]
    assert np.mean([share < 0.5 for share in shares]) < 0.05
    assert min(shares) < 0.6  # the rim is seen too


def test_little_in_much_background_is_still_drawn() -> None:
    values = torch.zeros(1, 96, 96)
    values[:, 40:44, 40:44] = 1 + textured((4, 4))[0] * 0.1
    for patch in PatchSampler([crop(values)], [(24, 24)]).draw(0, 0, range(100)):
        assert all(40 - 24 - 6 <= a <= 44 + 6 for a in patch.start)


@pytest.mark.parametrize("size", [5, 12, 24])
def test_patches_lie_where_the_mask_is(size: int) -> None:
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[50:80, 10:30] = True
    for uniform in (False, True):
        sampler = PatchSampler([crop(textured((96, 96)), mask=mask)], [(size, size)], uniform=uniform)
        for patch in sampler.draw(0, 0, range(200)):
            (y, x) = patch.start
            assert bool(mask[y : y + size, x : x + size].any())
    with pytest.raises(InputError, match="outside what is held out and inside its mask"):
        PatchSampler([crop(textured((96, 96)), mask=mask & False)], [(size, size)])

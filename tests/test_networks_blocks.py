"""The shared blocks: pixel shuffle per axis, ICNR, stages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sciSR.networks.blocks import MeanShift
from sciSR.networks.shuffle import icnr_, pixel_shuffle_nd, pixel_unshuffle_nd, stages
from sciSR.networks.spec import whole_scale
from sciSR.networks.upsamplers import SubpixelUpsampler, transposed_convolution


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_equal_factors_in_2d_are_torchs_pixel_shuffle(factor: int) -> None:
    x = torch.randn(2, 3 * factor**2, 4, 5)
    assert torch.equal(pixel_shuffle_nd(x, (factor, factor)), nn.PixelShuffle(factor)(x))


def test_each_subpixel_comes_from_its_own_channel() -> None:
    fz, fy, fx = 2, 3, 4
    x = torch.arange(fz * fy * fx, dtype=torch.float32).reshape(1, -1, 1, 1, 1).expand(1, -1, 2, 2, 2)
    y = pixel_shuffle_nd(x, (fz, fy, fx))
    assert y.shape == (1, 1, 4, 6, 8)
    for z in range(4):
        for j in range(6):
            for i in range(8):
                assert y[0, 0, z, j, i] == ((z % fz) * fy + j % fy) * fx + i % fx


def test_axes_of_factor_one_keep_their_pixels() -> None:
    x = torch.randn(1, 4, 3, 5, 6)
    y = pixel_shuffle_nd(x, (4, 1, 1))
    assert y.shape == (1, 1, 12, 5, 6)
    assert torch.equal(y[0, 0, 1::4], x[0, 1])


@given(st.lists(st.integers(1, 12), min_size=2, max_size=3))
def test_stages_multiply_to_the_scale(scale: list[int]) -> None:
    product = [1] * len(scale)
    for factors in stages(scale):
        assert max(factors) > 1
        product = [p * f for p, f in zip(product, factors, strict=True)]
    assert product == scale


@pytest.mark.parametrize("scale", [(3, 3), (4, 1), (2, 3, 1)])
def test_icnr_makes_nearest_neighbour_of_every_stage(scale: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    upsampler = SubpixelUpsampler(len(scale), 3, scale)
    y = upsampler(torch.randn(1, 3, *(4,) * len(scale)))
    inner = y[(slice(None), slice(None), *(slice(4 * s // 4, 3 * s) for s in scale))]
    for axis, s in enumerate(scale):
        if len(stages(scale)) == 1:
            blocks = inner.unflatten(axis + 2, (-1, s))
            assert torch.allclose(blocks, blocks.narrow(axis + 3, 0, 1).expand_as(blocks))
    for name, value in upsampler.named_parameters():
        assert not name.endswith("bias") or not value.any()


def test_icnr_groups_are_equal_and_groups_differ() -> None:
    layer = nn.Conv3d(2, 12, 3)
    icnr_(layer, (3, 2, 1))
    weight = layer.weight
    assert torch.equal(weight[0:1].expand(6, -1, -1, -1, -1), weight[:6])
    assert not torch.equal(weight[0], weight[6])


def test_scale_is_read_in_every_form() -> None:
    assert whole_scale(2, 3) == (2, 2, 2)
    assert whole_scale((4, 1, 1), 3) == (4, 1, 1)
    assert whole_scale({"x": 3.0}, 2) == (1, 3)


def test_mean_shifts_undo_each_other_and_none_does_nothing() -> None:
    x = torch.randn(1, 2, 3, 3)
    away, back = MeanShift(2, (1.0, -2.0), -1.0), MeanShift(2, (1.0, -2.0), 1.0)
    assert torch.allclose(away(x)[0, :, 0, 0], x[0, :, 0, 0] - torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(back(away(x)), x)
    assert MeanShift(2, None, 1.0)(x) is x


@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (2, 3, 4)])
def test_unshuffle_undoes_shuffle(factors: tuple[int, ...]) -> None:
    x = torch.randn(2, 48, 3, 4, 5) if len(factors) == 3 else torch.randn(2, 12, 4, 5)
    assert torch.equal(pixel_unshuffle_nd(pixel_shuffle_nd(x, factors), factors), x)


def test_equal_factors_in_2d_are_torchs_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 6, 9)
    assert torch.equal(pixel_unshuffle_nd(x, (3, 3)), nn.PixelUnshuffle(3)(x))


@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (4, 1, 2), (5, 5)])
def test_transposed_convolution_refines_and_is_centred(factors: tuple[int, ...]) -> None:
    layer = transposed_convolution(len(factors), 1, 1, factors)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 1, *(7,) * len(factors))
    x[(0, 0, *(3,) * len(factors))] = 1
    y = layer(x) - 1
    assert y.shape[2:] == tuple(7 * f for f in factors)
    assert torch.equal(y, y.flip(*range(2, y.dim())))

"""Far edges that are mirrored to a size a network takes, and cut off again."""

import pytest
import torch
from torch import nn

from sciSR.networks.borders import crop_to, pad_to_multiple


@pytest.mark.parametrize("shape", [(9, 16), (5, 6), (8, 8)])
def test_padding_mirrors_as_torch_does(shape: tuple[int, int]) -> None:
    x = torch.randn(1, 2, *shape)
    bottom, right = -shape[0] % 8, -shape[1] % 8
    if bottom < shape[0] and right < shape[1]:
        assert torch.equal(pad_to_multiple(x, 8), nn.functional.pad(x, (0, right, 0, bottom), "reflect"))
    assert pad_to_multiple(x[..., :1, :1], 8).shape == (1, 2, 8, 8)


def test_what_was_padded_is_cut_off() -> None:
    x = torch.randn(1, 2, 5, 6, 7)
    fine = pad_to_multiple(x, 4).repeat_interleave(2, 3).repeat_interleave(3, 4)
    assert torch.equal(crop_to(fine, x, (1, 2, 3)), x.repeat_interleave(2, 3).repeat_interleave(3, 4))

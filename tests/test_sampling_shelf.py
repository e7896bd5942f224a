from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciSR.sampling.shelf import Shelf, Turned


@settings(max_examples=40, deadline=None)
@given(data=st.data(), channels=st.integers(1, 3), ndim=st.integers(2, 3))
def test_gathering_is_slicing_permuting_and_flipping(data: st.DataObject, channels: int, ndim: int) -> None:
    values = [
        torch.rand(
            channels, *data.draw(st.tuples(*[st.integers(5, 9)] * ndim)), generator=torch.Generator().manual_seed(k)
        )
        for k in range(3)
    ]
    size = data.draw(st.tuples(*[st.integers(1, 5)] * ndim))
    patches, expected = [], []
    for crop in data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4)):
        order = tuple(data.draw(st.permutations(range(ndim))))
        room = [values[crop].shape[a + 1] - size[order.index(a)] for a in range(ndim)]
        start = tuple(data.draw(st.integers(0, r)) for r in room)
        flips = tuple(data.draw(st.booleans()) for _ in range(ndim))
        patches.append(Turned(crop, start, order, flips))
        window = tuple(slice(a, a + size[order.index(i)]) for i, a in enumerate(start))
        turned = values[crop][(slice(None), *window)].permute(0, *(a + 1 for a in order))
        expected.append(turned.flip([a + 1 for a, f in enumerate(flips) if f]))
    made = Shelf(values, torch.device("cpu")).gather(patches, size)
    assert torch.equal(made, torch.stack(expected))

"""Discriminators: shapes, least patches, learning to tell, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciSR.errors import InputError
from sciSR.networks.discriminator import build_discriminator

KINDS = [("patch", {"features": 4, "layers": 2}), ("vgg", {"features": 4, "levels": 2})]
each_kind = pytest.mark.parametrize(("kind", "arguments"), KINDS)


@each_kind
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("norm", [None, "batch", "instance"])
def test_scores_a_batch_from_its_least_patch_on(kind: str, arguments: dict[str, Any], ndim: int, norm: Any) -> None:
    critic = build_discriminator(kind, ndim=ndim, in_channels=2, norm=norm, **arguments).train()
    for size in (critic.minimum, critic.minimum + 5):
        scores = critic(torch.randn(3, 2, *(size,) * ndim))
        assert scores.shape[0] == 3
        assert scores.isfinite().all()
    with pytest.raises(InputError, match="train on larger patches"):
        critic(torch.randn(3, 2, *(critic.minimum - 1,) * ndim))


@each_kind
def test_gives_its_features_with_the_score_last(kind: str, arguments: dict[str, Any]) -> None:
    critic = build_discriminator(kind, ndim=2, in_channels=1, **arguments).eval()
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        features = critic.features(x)
        torch.testing.assert_close(features[-1], critic(x))
    assert len(features) >= 3


@each_kind
@pytest.mark.parametrize("ndim", [2, 3])
def test_learns_to_tell_noise_from_flat_images(kind: str, arguments: dict[str, Any], ndim: int) -> None:
    torch.manual_seed(0)
    critic = build_discriminator(kind, ndim=ndim, in_channels=1, **arguments)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    shape = (4, 1, *(16,) * ndim)
    for _ in range(25):
        real, fake = torch.randn(shape), torch.zeros(shape)
        loss = (critic(real) - 1).square().mean() + critic(fake).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float(critic(torch.randn(shape)).mean()) > float(critic(torch.zeros(shape)).mean()) + 0.2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: build_discriminator("pach", ndim=2, in_channels=1), "'pach' is not one of patch, vgg"),
        (lambda: build_discriminator("vgg", ndim=4, in_channels=1), "ndim 4"),
        (lambda: build_discriminator("vgg", ndim=2, in_channels=1, norm="group"), "norm 'group'"),
        (lambda: build_discriminator("vgg", ndim=2, in_channels=1, depth=3), "depth"),
        (lambda: build_discriminator("patch", ndim=2, in_channels=1)(torch.zeros(1, 2, 32, 32)), "expected 1 channels"),
        (lambda: build_discriminator("patch", ndim=3, in_channels=1)(torch.zeros(1, 1, 32, 32)), "3 spatial axes"),
    ],
)
def test_wrong_use_is_named(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()

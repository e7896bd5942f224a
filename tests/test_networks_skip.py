"""Classical skips: interpolations and back-projections that a network's residual is added to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sciSR.classical import build_classical
from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.networks import build_network
from sciSR.networks.checkpoint import load_checkpoint, save_checkpoint
from sciSR.networks.skip import Skip

BACK = {"iterations": 3, "sensor": "generic-gaussian"}


@pytest.mark.parametrize(("ndim", "scale"), [(2, (2, 2)), (3, (4, 1, 1))])
def test_untrained_it_is_the_classical_back_projection(ndim: int, scale: tuple[int, ...]) -> None:
    network = build_network("edsr", ndim=ndim, in_channels=1, scale=scale, features=4, blocks=1, skip=BACK)
    method = build_classical("ibp", ndim=ndim, scale=scale, iterations=3, sensor="generic-gaussian")
    x = torch.rand(1, 1, *(9, 8, 7)[:ndim])
    torch.testing.assert_close(network(x), method(x))


def test_back_projection_explains_the_input_better() -> None:
    sensor = load_sensor("generic-gaussian")
    x = torch.rand(1, 1, 16, 16)
    errors = []
    for iterations in (1, 2, 4, 8):
        fine = Skip("cubic", iterations, sensor.noiseless())(x, (2, 2))
        errors.append(float((sensor.apply(fine, (2, 2), noise=False) - x).abs().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_nothing_beyond_its_radius_changes_a_pixel() -> None:
    skip = Skip.of(BACK)
    (reach, same) = skip.radius((2, 1))
    assert same == 0
    x = torch.rand(1, 1, 4 * reach + 9, 3, dtype=torch.float64)
    y = x.clone()
    center = 2 * reach + 4
    y[:, :, : center - reach] += 1
    y[:, :, center + reach + 1 :] += 1
    both = [skip(image, (2, 1))[:, :, 2 * center : 2 * center + 2] for image in (x, y)]
    assert torch.equal(*both)


def test_it_survives_a_checkpoint(tmp_path: Path) -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1, skip=BACK)
    path = save_checkpoint(
        network, tmp_path / "n.safetensors", normalization=None, sensor=None, bands=None, provenance={}, name="n"
    )
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(load_checkpoint(path)(x), network(x))


def test_plain_values_come_back() -> None:
    for value in ("linear", BACK):
        skip = Skip.of(value)
        assert Skip.of(skip.to_plain()) == skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cubik", "is not one of nearest, linear, cubic"),
        ({"kernal": "cubic"}, "no entry kernal"),
        ({"iterations": 3}, "need both"),
        ({"sensor": "box"}, "need both"),
        ({"iterations": -1, "sensor": "box"}, "iterations -1"),
    ],
)
def test_wrong_skips_are_named(value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_network("edsr", ndim=2, in_channels=1, scale=2, skip=value)


def test_a_sensor_without_a_profile_along_a_refined_axis_is_refused() -> None:
    with pytest.raises(InputError, match="axis y has no profile"):
        build_network("edsr", ndim=3, in_channels=1, scale=2, skip={"iterations": 2, "sensor": "mri-thick"})

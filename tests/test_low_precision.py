"""Residuals at bfloat16 and float16: what rounding the input would cost is carried along."""

import threading
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciSR.backends import prepare
from sciSR.depth_first import derive
from sciSR.low_precision import Halves, lowered
from sciSR.networks import build_network, list_networks, load_network
from sciSR.networks.edsr import EDSR
from sciSR.networks.spec import SRNetwork
from tests.test_depth_first import SMALL, _filled


def _decibels(network: SRNetwork, low: SRNetwork, x: Tensor, taken: Tensor) -> float:
    with torch.inference_mode():
        full, residual = network.residual(x), low.residual(taken)
    assert full is not None
    assert residual is not None
    return float(-10 * torch.log10((residual.float() - full).square().mean()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["s2-x2", "mri-x2", "ct-x2"])
def test_shipped_weights_lose_much_less_than_with_a_rounded_input(name: str, dtype: torch.dtype) -> None:
    network = load_network(name).eval()
    along = np.linspace(0, 1, 24, dtype=np.float32)
    bumps = torch.from_numpy(0.5 + 0.3 * np.sin(9 * np.add.outer(along, along**2)))
    x = bumps.expand(1, network.spec.in_channels, *[24] * network.spec.ndim)
    low, careful = lowered(network, dtype)
    assert careful
    plain = network.__class__(**network.arguments).eval()
    plain.load_state_dict(network.state_dict())
    plain.to(dtype)
    assert _decibels(network, low, x, x) > _decibels(network, plain, x, x.to(dtype)) + 4


@pytest.mark.parametrize("family", sorted(list_networks()))
def test_every_family_rounds_by_itself(family: str) -> None:
    network = _filled(build_network(family, ndim=2, in_channels=2, scale=2, **SMALL.get(family, {})))
    low, careful = lowered(network, torch.bfloat16)
    assert careful
    x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        full, residual = network.residual(x), low.residual(x)
    assert full is not None
    assert residual is not None
    assert (residual.float() - full).std() < 0.1 * full.std()


def test_rows_at_low_precision_give_the_whole_image() -> None:
    low, _ = lowered(_filled(EDSR(ndim=2, in_channels=2, scale=2, features=16, blocks=2)), torch.bfloat16)
    x = torch.randn(1, 2, 33, 19, generator=torch.Generator().manual_seed(1))
    stream = derive(low).start(gently=False, wide_rows=None)
    with torch.inference_mode():
        whole = low.residual(x)
        assert whole is not None
        rows = [part for a in range(0, 33, 7) for part in stream.feed(x[:, :, a : a + 7], last=a + 7 >= 33)]
    assert (torch.cat(rows, 2).float() - whole.float()).abs().max() <= 0.02 * whole.abs().max()


class _Twice(nn.Module):
    """The network's first convolution, once more at the end."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convolution(self.convolution(x))
        return result


class _Apart(nn.Module):
    """Two convolutions that both meet the input."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.one(x) + self.other(x)
        return result


class _Standardised(nn.Conv2d):
    """Its weights, brought to a variance that depends on how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / (self.weight.std() * self.weight[0].numel() ** 0.5)
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


class _Asked(nn.Module):
    """Something else looks at the convolution's own weight."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convolution(x) * self.convolution.weight.mean()
        return result


def _normed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(nn.Conv2d(4, 4, 3, padding=1))


@pytest.mark.parametrize(
    "head",
    [
        _Standardised(4, 4, 3),
        _Asked(nn.Conv2d(4, 4, 3, padding=1)),
        _normed(),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)),
        nn.Sequential(nn.Linear(8, 200), nn.Linear(200, 8), nn.Conv2d(4, 4, 3, padding=1)),
        _Twice(nn.Conv2d(4, 4, 3, padding=1)),
        _Apart(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Identity(),
    ],
    ids=[
        "standardised",
        "asked",
        "normed",
        "parametrized",
        "much before it",
        "used twice",
        "two entrances",
        "groups",
        "another input",
    ],
)
def test_a_first_convolution_that_does_not_meet_the_input_alone_is_left_as_it_is(head: nn.Module) -> None:
    network = EDSR(ndim=2, in_channels=4, scale=2, features=4, blocks=1).eval()
    network.add_module("head", head)
    if isinstance(head, nn.Identity):
        network.body[0].second = network.body[0].first
    network.requires_grad_(False)
    network.residual(torch.ones(1, 4, 8, 8))
    low, careful = lowered(network, torch.bfloat16)
    assert not careful
    assert not any(isinstance(m, Halves) for m in low.modules())
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        assert low.residual(torch.ones(1, 4, 8, 8, dtype=torch.bfloat16)) is not None


def test_another_thread_may_run_the_network_meanwhile() -> None:
    network = _filled(EDSR(ndim=2, in_channels=2, scale=2, features=16, blocks=2)).requires_grad_(False)
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            network.residual(torch.zeros(1, 2, 8, 8))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert all(lowered(network, torch.bfloat16)[1] for _ in range(40))
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("careful", [True, False])
def test_a_runner_gives_what_its_low_network_takes(careful: bool) -> None:
    network = _filled(EDSR(ndim=2, in_channels=4, scale=2, features=4, blocks=1))
    if not careful:
        network.add_module("head", nn.Conv2d(4, 4, 3, padding=1, groups=2))
    runner = prepare(network, torch.device("cpu"), "bf16")
    assert runner.record()["input"] == ("float32" if careful else "bfloat16")
    x = np.random.default_rng(0).normal(size=(1, 4, 9, 9)).astype(np.float32)
    expected = prepare(network, torch.device("cpu"), "float32")(x)
    assert np.abs(runner(x) - expected).std() < 0.05 * expected.std()

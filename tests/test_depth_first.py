"""Row programs: every network that can stream gives its whole-image residual, however the rows are cut."""

import numpy as np
import pytest
import torch
from torch import nn

from sciSR.depth_first import NotStreamableError, derive
from sciSR.inference import upscale
from sciSR.networks import build_network, list_networks
from sciSR.networks.spec import SRNetwork
from sciSR.raster import Raster
from sciSR.strips import StripSource

UNBOUNDED = {"rcan", "imdn"}
"""Families that pool over the whole image."""
WINDOWED = {"swinir"}
SMALL: dict[str, dict[str, object]] = {
    "rdn": {"features": 16, "growth": 8, "blocks": 2, "layers": 3},
    "rrdbnet": {"features": 16, "growth": 8, "blocks": 1},
    "drrn": {"features": 16, "units": 3},
}
"""Of families whose usual size takes long to make ready; their operations are the same."""


def _network(family: str, ndim: int, **arguments: object) -> SRNetwork:
    return _filled(build_network(family, ndim=ndim, in_channels=2, scale=2, **arguments))


def _filled(network: SRNetwork) -> SRNetwork:
    """With weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan = max(1, parameter[0].numel()) if parameter.dim() > 1 else 16
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return network.eval()


def _by_rows(
    network: SRNetwork, x: torch.Tensor, rows: int, wide_rows: int | None = None, *, fast: bool = False
) -> torch.Tensor:
    stream = derive(network, fast=fast).start(gently=rows < 8, wide_rows=wide_rows)
    cuts = range(0, x.shape[2], rows)
    return torch.cat(
        [part for a in cuts for part in stream.feed(x[:, :, a : a + rows], last=a + rows >= x.shape[2])], 2
    )


@pytest.mark.parametrize("fast", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("family", sorted(set(list_networks()) - UNBOUNDED - WINDOWED))
def test_rows_give_the_whole_image(family: str, ndim: int, fast: bool) -> None:
    network = _network(family, ndim, **SMALL.get(family, {}))
    if fast and not derive(network, fast=True).fast:
        pytest.skip("no convolution of it goes by tiles")
    for size, rows in ((33, 7), (9, 2), (8, 8), (1, 1)) if ndim == 2 else ((13, 5), (4, 4)):
        x = torch.randn(1, 2, size, *((19,) if ndim == 2 else (6, 5)), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            whole = network.residual(x)
            assert whole is not None
            rows_joined = _by_rows(network, x, rows, fast=fast)
        assert rows_joined.shape == whole.shape
        assert (rows_joined - whole).abs().max() <= 5e-5 * whole.abs().max()


@pytest.mark.parametrize("fast", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize("how", ["module", "function", "method", "sum"])
def test_what_works_in_place_changes_what_comes_after_alone(how: str, fast: bool) -> None:
    network = build_network("edsr", ndim=2, in_channels=2, scale=2, features=16, blocks=1)
    network.body = _InPlace(how)
    network = _filled(network)
    x = torch.randn(1, 2, 20, 9, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network.residual(x)
        assert whole is not None
        for rows in (1, 6):
            assert (_by_rows(network, x, rows, fast=fast) - whole).abs().max() <= 1e-5 * whole.abs().max()


class _InPlace(nn.Module):
    """Changes what a layer has taken before and the network adds afterwards."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.layer = nn.Conv2d(16, 16, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        if self.how == "module":
            z = self.act(x)
        elif self.how == "function":
            z = nn.functional.relu(x, inplace=True)
        elif self.how == "method":
            z = x.relu_()
        else:
            z = x
            z += y
        total: torch.Tensor = y + self.layer(z)
        return total


class _OddSums(nn.Module):
    """Sums of what comes early and late, of one channel and many, of what was activated, and of a thing with itself."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        kind = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.layers = nn.ModuleList(kind(16, 16, 3, padding=1) for _ in range(4))
        self.thin = kind(16, 1, 3, padding=1)
        self.widen, self.narrow = kind(16, 64, 3, padding=1), kind(64, 16, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        late = self.layers[1](self.layers[0](x))
        early = self.layers[2](x)
        y = early + late
        y = self.act(self.layers[3](y)) + y
        y = self.layers[2](y) + self.thin(y)
        y = torch.add(x, self.layers[3](y + y))
        again = self.layers[0](y)
        total: torch.Tensor = self.narrow(self.widen(y)) + y + again
        return total


@pytest.mark.parametrize("fast", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_any_sum_of_rows_gives_the_whole_image(ndim: int, fast: bool) -> None:
    network = build_network("edsr", ndim=ndim, in_channels=2, scale=2, features=16, blocks=1)
    network.body = _OddSums(ndim)
    network = _filled(network)
    x = torch.randn(2, 2, *(33, 19, 6)[:ndim], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network.residual(x)
        assert whole is not None
        for rows, wide in ((1, None), (4, None), (7, 2), (16, 4), (33, 8)):
            found = _by_rows(network, x, rows, wide, fast=fast)
            assert (found - whole).abs().max() <= 5e-5 * whole.abs().max()


class _Joins(nn.Module):
    """Concatenations of one thing several times, by every name, and sums with constants."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        kind = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.thin, self.back = kind(16, 4, 3, padding=1), kind(48, 16, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(1, 16, *(1,) * ndim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.thin(x)
        four = torch.cat([y] * 4, 1)
        total: torch.Tensor = self.back(torch.concat(tensors=(four, x, four), dim=1)) * self.gain
        return total


@pytest.mark.parametrize("fast", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_joined_twice_comes_twice(ndim: int, fast: bool) -> None:
    network = build_network("edsr", ndim=ndim, in_channels=2, scale=2, features=16, blocks=1)
    network.body = _Joins(ndim)
    network = _filled(network)
    assert derive(network, fast=fast).widest >= 48
    x = torch.randn(2, 2, *(33, 19, 6)[:ndim], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network.residual(x)
        assert whole is not None
        for rows, wide in ((1, None), (7, 2), (33, 8)):
            found = _by_rows(network, x, rows, wide, fast=fast)
            assert (found - whole).abs().max() <= 5e-5 * whole.abs().max()


class _Constant(nn.Module):
    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.map = nn.Parameter(torch.ones(1, 16, 12, 10))
        self.layer = nn.Conv2d(32, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([x, self.map], 1)) if self.joined else x + self.map


@pytest.mark.parametrize("joined", [True, False])
def test_constants_of_many_rows_go_by_tiles(joined: bool) -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=16, blocks=1)
    network.body = _Constant(joined)
    with pytest.raises(NotStreamableError, match="constant"):
        derive(network.eval())


@pytest.mark.parametrize("family", sorted(UNBOUNDED | WINDOWED))
def test_what_cannot_stream_says_why(family: str) -> None:
    with pytest.raises(NotStreamableError, match=r"receptive field has no bound|depends on the values or shapes"):
        derive(build_network(family, ndim=2, in_channels=1, scale=2).eval())


def test_normalisation_by_batch_is_no_operation_on_rows() -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=8, blocks=1)
    network.head = nn.Sequential(network.head, nn.BatchNorm2d(8))  # type: ignore[arg-type]
    derive(network.eval())
    with pytest.raises(NotStreamableError, match="BatchNorm2d"):
        derive(network.train())


@pytest.mark.parametrize("fast", [False, True], ids=["direct", "winograd"])
@pytest.mark.parametrize("family", ["unet", "encoder_decoder", "vdsr", "edsr"])
def test_parts_have_the_bytes_of_a_whole_run(family: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if fast:
        pytest.importorskip("llvmlite")
        monkeypatch.setattr("sciSR.strips._WORTH_COMPILING", 0)
    monkeypatch.setattr("sciSR.strips._STRIP_BYTES", 1)
    values = np.random.default_rng(0).normal(size=(2, 205, 21)).astype(np.float32)
    raster = Raster.from_array(values, affine=np.eye(3), axes="cyx")
    arguments = {"features": 8, "blocks": 6} if family == "edsr" else {"features": 8}
    if family in ("unet", "encoder_decoder"):
        arguments["depth"] = 2
    source = upscale(raster, _network(family, 2, **arguments), precision="float32").source
    assert isinstance(source, StripSource)
    parts = source.parts
    whole = {number: block.values for number, block in source.stream_parts(range(len(parts)))}
    for number in (len(parts) // 2, len(parts) - 2, len(parts) - 1):
        ((_, block),) = source.stream_parts([number])
        np.testing.assert_array_equal(block.values, whole[number])
    stream = np.concatenate([block.values for _, block in source.stream()], axis=1)
    np.testing.assert_array_equal(np.concatenate(list(whole.values()), axis=1), stream)

"""Several strips under way give the bytes of one at a time; errors and a caller that stops end all of them."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR import upscale
from sciSR.filter_rows import FilterRows
from sciSR.networks import build_network
from sciSR.raster import Block, Raster
from sciSR.strips import StripSource

pytest.importorskip("llvmlite")
pytestmark = pytest.mark.usefixtures("two_threads")


_SMALL: dict[str, dict[str, int]] = {
    "edsr": {"features": 8, "blocks": 2},
    "rdn": {"features": 8, "growth": 8, "blocks": 2, "layers": 2},
    "unet": {"features": 8, "depth": 1},
    "vdsr": {"features": 8, "layers": 5},
}


@pytest.fixture(autouse=True)
def _many_small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.strips._WORTH_COMPILING", 0)
    monkeypatch.setattr("sciSR.strips._STRIP_BYTES", 1)
    monkeypatch.setattr("sciSR.strips._WIDE_BYTES", 1)
    monkeypatch.setattr("sciSR.strips._WIDE_ROWS", 0)


def _source(family: str, raster: Raster, workers: int, ndim: int = 2) -> StripSource:
    torch.manual_seed(0)
    channels = len(raster.channels) if ndim == 2 and "c" in raster.axes and raster.axes[0] == "c" else 1
    network = build_network(family, ndim=ndim, in_channels=channels, scale=2, **_SMALL[family])
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    source = upscale(raster, network, precision="float32", workers=workers, device="cpu").source
    assert isinstance(source, StripSource)
    return source


def _values(blocks: Iterator[tuple[tuple[slice, ...], Block]]) -> list[NDArray[np.float32]]:
    return [block.values for _, block in blocks]


@pytest.mark.parametrize("family", sorted(_SMALL))
@pytest.mark.parametrize(("axes", "shape"), [("cyx", (3, 101, 24)), ("tcyx", (3, 2, 21, 16)), ("zyx", (9, 57, 16))])
def test_strips_side_by_side_have_the_bytes_of_one_at_a_time(family: str, axes: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    affine = np.eye(4 if axes == "zyx" else 3)
    alone, beside = (
        _values(_source(family, Raster.from_array(values, affine=affine, axes=axes), workers).stream())
        for workers in (1, 2)
    )
    assert len(alone) == len(beside) > 3
    assert all(a.tobytes() == b.tobytes() for a, b in zip(alone, beside, strict=True))


def test_a_volume_in_strips_side_by_side() -> None:
    values = np.random.default_rng(0).normal(size=(25, 12, 16)).astype(np.float32)
    raster = Raster.from_array(values, affine=np.eye(4), axes="zyx")
    alone, beside = (_values(_source("edsr", raster, workers, 3).stream()) for workers in (1, 2))
    assert len(alone) > 3
    assert np.concatenate(alone).tobytes() == np.concatenate(beside).tobytes()


def test_a_caller_that_stops_early_ends_all_strips() -> None:
    raster = Raster.from_array(np.ones((1, 400, 32), np.float32), affine=np.eye(3), axes="cyx")
    before = threading.active_count()
    stream = _source("edsr", raster, 2).stream()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    kept = [t for t in threading.enumerate() if not t.name.startswith("sciSR-filter")]
    assert len(kept) <= before


def test_an_error_in_a_strip_reaches_the_caller_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    raster = Raster.from_array(np.ones((1, 400, 32), np.float32), affine=np.eye(3), axes="cyx")
    source = _source("edsr", raster, 2)
    calls = []
    step = FilterRows.step

    def failing(self: FilterRows, inputs: list[torch.Tensor | None], last: bool) -> torch.Tensor | None:
        calls.append(self)
        if len(calls) == 50:
            raise MemoryError("no room")
        return step(self, inputs, last)

    monkeypatch.setattr(FilterRows, "step", failing)
    with pytest.raises(MemoryError, match="no room"):
        for _ in source.stream():
            pass

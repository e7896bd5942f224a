"""ONNX: what onnxruntime computes is what the network computes, at other sizes too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sciSR.errors import InputError
from sciSR.networks import build_network
from sciSR.networks.checkpoint import load_checkpoint, save_checkpoint
from sciSR.networks.export import export_onnx
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from tests.network_cases import TINY

onnxruntime = pytest.importorskip("onnxruntime")


def awake(family: str, ndim: int, scale: object) -> SRNetwork:
    torch.manual_seed(0)
    network = build_network(family, ndim=ndim, in_channels=2, scale=scale, **TINY[family]).eval()
    with torch.no_grad():
        for value in network.parameters():
            if not value.any():
                value.normal_(std=0.05)
    return network


def run(path: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["high"], {"low": x.numpy()})[0])


def check(network: SRNetwork, path: Path, x: torch.Tensor) -> None:
    with torch.no_grad():
        expected = network(x)
    assert float((run(path, x) - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())


def test_the_graph_computes_what_the_network_computes(tmp_path: Path) -> None:
    network = awake("edsr", 2, (2, 3)).train()
    path = export_onnx(network, tmp_path / "deep" / "n.onnx")
    assert network.training
    assert [p.name for p in path.parent.iterdir()] == ["n.onnx"]
    check(network.eval(), path, torch.randn(3, 2, 21, 17))


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(("ndim", "scale"), [(2, (2, 3)), (3, (2, 1, 1))])
def test_every_family_exports(family: str, ndim: int, scale: tuple[int, ...], tmp_path: Path) -> None:
    network = awake(family, ndim, scale)
    path = export_onnx(network, tmp_path / "n.onnx")
    sizes = [n * a for n, a in zip((24, 28, 20), network.spec.alignment, strict=False)]
    check(network, path, torch.randn(1, 2, *sizes))


def test_the_file_says_what_it_needs(tmp_path: Path) -> None:
    network = awake("espcn", 2, 2)
    save_checkpoint(
        network,
        tmp_path / "n.safetensors",
        normalization=Normalization("fixed", scale=(10000.0,)),
        sensor=None,
        bands=("red", "nir"),
        provenance={},
        name="small",
    )
    path = export_onnx(load_checkpoint(tmp_path / "n.safetensors"), tmp_path / "n.onnx", size=(12, 16), dynamic=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["scisr"])
    assert (card["name"], card["bands"], card["spec"]["scale"]) == ("small", ["red", "nir"], [2, 2])
    assert card["normalization"]["scale"] == [10000.0]
    assert session.get_inputs()[0].shape == [1, 2, 12, 16]


def test_sizes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one multiple of \(4, 4\) for each of y, x"):
        export_onnx(awake("unet", 2, 2), tmp_path / "n.onnx", size=(10, 12))
    assert not list(tmp_path.iterdir())

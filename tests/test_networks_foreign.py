"""Files from elsewhere: wrappers, prefixes, options, and everything that is refused."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sciSR.errors import CheckpointError, InputError, MissingFileError
from sciSR.networks import build_network, load_network
from sciSR.networks.foreign import import_checkpoint, load_foreign, read_weights
from sciSR.networks.spec import SRNetwork


def espcn() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"first_part.0": (4, 1, 5, 5), "first_part.2": (3, 4, 3, 3), "last_part.0": (4, 3, 3, 3)}
    weights = {f"{key}.weight": torch.randn(shape, generator=random) * 0.1 for key, shape in shapes.items()}
    return weights | {f"{key}.bias": torch.randn(shape[0], generator=random) for key, shape in shapes.items()}


def old_esrgan() -> dict[str, Tensor]:
    dense = {
        f"model.1.sub.0.RDB{d}.conv{c}.0": (4 if c == 5 else 2, 4 + 2 * (c - 1)) for d in (1, 2, 3) for c in range(1, 6)
    }
    plain = {"model.0": (4, 3), "model.1.sub.1": (4, 4), "model.3": (4, 4), "model.5": (4, 4), "model.7": (3, 4)}
    weights: dict[str, Tensor] = {}
    random = torch.Generator().manual_seed(0)
    for key, (out, into) in (dense | plain).items():
        weights |= {f"{key}.weight": torch.rand(out, into, 3, 3, generator=random), f"{key}.bias": torch.zeros(out)}
    return weights


def same(network: SRNetwork, other: SRNetwork) -> bool:
    x = torch.rand(1, network.spec.in_channels, 8, 9)
    with torch.inference_mode():
        return torch.equal(network(x), other(x))


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "epoch": 7},
        lambda w: {"params": w},
        lambda w: {"params": {k: torch.zeros_like(v) for k, v in w.items()}, "params_ema": w},
        lambda w: {"model": {f"module.{k}": v for k, v in w.items()}, "args": argparse.Namespace(scale=2)},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()},
        lambda w: {"net": {"state_dict": w}},
        lambda w: {
            "model_state_dict": w,
            "best_psnr": np.float64(33.1),
            "optimizer": {"state": {}, "param_groups": []},
        },
        lambda w: {k: v.half().float().half() for k, v in w.items()},
    ],
    ids=["state_dict", "params", "ema", "model", "module", "compiled", "net", "numpy", "half"],
)
def test_usual_wrappers_are_undone(wrap: Any, tmp_path: Path) -> None:
    weights = {k: v.half().float() for k, v in espcn().items()}
    plain = load_network(save(tmp_path / "plain.pth", weights))
    wrapped = load_network(save(tmp_path / "wrapped.pth", wrap(weights)))
    assert same(plain, wrapped)


def test_safetensors_from_elsewhere_are_read(tmp_path: Path) -> None:
    save_file(espcn(), tmp_path / "weights.safetensors")
    plain = load_network(save(tmp_path / "plain.pth", espcn()))
    assert same(plain, load_network(tmp_path / "weights.safetensors"))


def test_a_prefix_that_belongs_to_the_dialect_stays(tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "old.pth", old_esrgan()))
    assert network.family == "rrdbnet"
    assert same(network, load_network(save(tmp_path / "more.pth", {f"module.{k}": v for k, v in old_esrgan().items()})))


def test_the_old_zip_free_format_is_read(tmp_path: Path) -> None:
    torch.save(espcn(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_network(tmp_path / "old.pth").family == "espcn"


def test_the_card_says_where_it_came_from(tmp_path: Path) -> None:
    card = load_network(save(tmp_path / "espcn_x2.pth", espcn())).card
    assert card is not None
    assert card.name == "espcn_x2"
    assert card.provenance["dialect"] == "ESPCN, yjn870"
    assert card.provenance["source"] == "https://github.com/yjn870/ESPCN-pytorch"
    assert card.checksum is not None


def test_a_pickled_module_is_refused_and_never_run(tmp_path: Path) -> None:
    path = save(tmp_path / "module.pth", {"epoch": 50, "model": nn.Conv2d(1, 1, 3)})
    with pytest.raises(
        CheckpointError, match=r"module\.pth: holds a pickled module .* torch\.save\(model\.state_dict\(\)"
    ):
        load_network(path)


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = save(tmp_path / "evil.pth", {"params": espcn(), "extra": Evil(tmp_path / "ran")})
    with pytest.raises(CheckpointError, match="never runs"):
        load_network(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not really", b"\x80\x02 neither"])
def test_something_else_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"thing\.pth: (not a PyTorch checkpoint|holds a pickled)") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.pth", espcn())
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CheckpointError, match=r"cut\.pth: not a PyTorch checkpoint, or a truncated one"):
        load_network(path)


def test_a_file_without_tensors_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no state dict in it \(it holds epoch, loss\)"):
        load_network(save(tmp_path / "log.pth", {"epoch": 1, "loss": 2.0}))
    with pytest.raises(CheckpointError, match="it holds nothing"):
        load_network(save(tmp_path / "empty.pth", {}))
    with pytest.raises(CheckpointError, match="it holds list"):
        load_network(save(tmp_path / "list.pth", [1, 2]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.pth"):
        read_weights(tmp_path / "none.pth")


def test_keys_that_do_not_fit_are_named_as_in_the_file(tmp_path: Path) -> None:
    weights = espcn()
    weights["first_part.4.weight"] = torch.zeros(2)
    weights["first_part.2.bias"] = torch.zeros(9)
    del weights["last_part.0.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_network(save(tmp_path / "odd.pth", weights))
    message = str(caught.value)
    assert message.startswith("odd.pth: looks like ESPCN, yjn870, but keys do not fit: ")
    assert "1 missing (last_part.0.bias)" in message
    assert "1 left over (first_part.4.weight)" in message
    assert "first_part.2.bias (9,) instead of (3,)" in message


def test_channels_that_cannot_be_shuffled_are_named(tmp_path: Path) -> None:
    weights = espcn()
    weights["last_part.0.weight"] = torch.zeros(5, 3, 3, 3)
    with pytest.raises(CheckpointError, match=r"last_part\.0\.weight: 5 channels do not shuffle into 1"):
        load_network(save(tmp_path / "five.pth", weights))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 3}, r"^w\.pth: scale: 3 was asked for, but these weights refine by 2"),
        ({"value_range": 0}, "value_range 0 is not a number above 0"),
        ({"value_range": "255"}, "value_range '255' is not a number above 0"),
        ({"residual_scale": True}, "residual_scale True is not a number above 0"),
        ({"scale": 2.5}, "scale 2.5 is not a whole number"),
        ({"padding": "replicate"}, "padding means nothing for ESPCN"),
        ({"residual_scale": 0.1}, "residual_scale means nothing for ESPCN"),
        ({"range": 255}, "no option range; there are scale, residual_scale, value_range, padding"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", espcn())
    with pytest.raises(InputError, match=words):
        load_foreign(path, **options)


def test_the_scale_may_be_said_where_the_keys_say_it_too(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", espcn())
    assert load_network(path, scale=2, value_range=255).spec.value_range == 255


def test_the_number_range_scales_the_mean(tmp_path: Path) -> None:
    ours = build_network("edsr", ndim=2, in_channels=3, scale=2, features=4, blocks=1, skip=None)
    state = ours.state_dict()
    names = {
        "head.conv": "conv_first", "body.0.first.conv": "body.0.conv1", "body.0.second.conv": "body.0.conv2",
        "body.1.conv": "conv_after_body", "upsampler.0.conv": "upsample.0", "tail.conv": "conv_last",
    }  # fmt: skip
    weights = {f"{b}.{end}": state[f"{a}.{end}"] for a, b in names.items() for end in ("weight", "bias")}
    path = save(tmp_path / "w.pth", weights)
    for span in (1.0, 255.0):
        network = load_network(path, value_range=span)
        x = torch.rand(1, 3, 6, 6) * span
        mean = torch.tensor([0.4488, 0.4371, 0.4040]).reshape(1, 3, 1, 1) * span
        with torch.inference_mode():
            torch.testing.assert_close(network(x), ours(x - mean) + mean, rtol=1e-5, atol=1e-5 * span)


def test_unknown_weights_point_to_the_optional_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "w.pth", {"strange.weight": torch.zeros(3)})
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(CheckpointError, match=r"\(strange\.weight, …\) are in no dialect .*EDSR, RCAN"):
        load_network(path)


def test_a_torchvision_that_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages" / "spandrel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    path = save(tmp_path / "w.pth", {"strange.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"nms does not exist\): it needs a torchvision that was built for torch"):
        load_network(path)


def test_spandrels_networks_come_behind_the_same_spec(tmp_path: Path) -> None:
    try:
        spandrel = import_module("spandrel")
        span = import_module("spandrel.architectures.SPAN").SPAN
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"spandrel cannot be imported here: {error}")
    model = span(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).eval()
    path = save(tmp_path / "span.pth", model.state_dict())
    network = load_network(path, scale=2)
    x = torch.rand(1, 3, 12, 15)
    with torch.inference_mode():
        expected = spandrel.ModelLoader().load_from_file(path).model(x)
        torch.testing.assert_close(network(x), expected)
    assert not network.spec.exact_tiling
    with pytest.raises(CheckpointError, match="cannot be converted"):
        import_checkpoint(path, tmp_path / "n.safetensors")

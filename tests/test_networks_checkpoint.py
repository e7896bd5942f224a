"""Checkpoints: everything comes back, equal content is equal bytes, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sciSR.degradation import load_sensor
from sciSR.errors import CheckpointError, InputError, MissingFileError
from sciSR.networks import build_network, list_weights, load_network, weights_path
from sciSR.networks.checkpoint import is_own, load_checkpoint, read_card, read_header, save_checkpoint
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization

HOUNSFIELD = Normalization("fixed", center=(-1024.0,), scale=(4095.0,))


def network(seed: int = 0) -> SRNetwork:
    torch.manual_seed(seed)
    made = build_network("edsr", ndim=3, in_channels=1, scale={"z": 4}, features=4, blocks=1)
    nn.init.normal_(made.get_parameter("tail.conv.weight"))
    return made


def save(path: Path, made: SRNetwork | None = None, **changes: object) -> Path:
    arguments: dict[str, object] = {
        "normalization": HOUNSFIELD,
        "sensor": None,
        "bands": ("T1w",),
        "provenance": {"data": ["a head"], "steps": 12},
        "halo": (2, 3, 3),
        "name": "mri-z4",
    }
    return save_checkpoint(made or network(), path, **(arguments | changes))  # type: ignore[arg-type]


def test_everything_comes_back(tmp_path: Path) -> None:
    made = network()
    path = save(tmp_path / "n.safetensors", made)
    loaded = load_network(path)
    x = torch.randn(1, 1, 3, 5, 6)
    with torch.no_grad():
        assert torch.equal(loaded(x), made(x))
    assert loaded.arguments == made.arguments
    assert loaded.spec.scale == (4, 1, 1)
    assert loaded.spec.halo == (2, 3, 3)
    assert loaded.spec.receptive_radius == made.spec.receptive_radius
    assert not loaded.training
    card = loaded.card
    assert card is not None
    assert (card.name, card.bands, card.normalization) == ("mri-z4", ("T1w",), HOUNSFIELD)
    assert card.provenance == {"data": ["a head"], "steps": 12}
    assert card.checksum is not None
    assert len(card.checksum) == 64


def test_the_sensor_comes_back(tmp_path: Path) -> None:
    sensor = load_sensor("mri-thick")
    path = save(tmp_path / "n.safetensors", sensor=sensor)
    card = load_checkpoint(path).card
    assert card is not None
    assert card.sensor == sensor


def test_the_header_is_read_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "n.safetensors")
    header = read_header(path)
    assert header.family == "edsr"
    assert header.spec.halo == (2, 3, 3)
    assert read_card(path).name == "mri-z4"


def test_without_a_measured_halo_the_radius_serves(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path / "n.safetensors", halo=None))
    assert loaded.spec.halo == loaded.spec.receptive_radius


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "a.safetensors", provenance={"b": 1, "a": {"y": 1, "x": 2}}).read_bytes()
    second = save(tmp_path / "b.safetensors", provenance={"a": {"x": 2, "y": 1}, "b": 1}).read_bytes()
    assert first == second
    assert save(tmp_path / "c.safetensors", network(1)).read_bytes() != first


def test_a_saved_copy_of_a_loaded_network_is_the_same_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors")
    again = save(tmp_path / "b.safetensors", load_checkpoint(path))
    assert again.read_bytes() == path.read_bytes()


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    save(tmp_path / "deep" / "n.safetensors")
    with pytest.raises(InputError, match="plain values"):
        save(tmp_path / "deep" / "m.safetensors", provenance={"when": object()})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["n.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: not a safetensors file, or a truncated one"):
        load_network(path)


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("these are not the weights")
    with pytest.raises(CheckpointError, match=r"text\.safetensors: not a safetensors"):
        load_checkpoint(path)
    assert not is_own(_write(tmp_path / "note.txt", b"hello"))


def test_a_checkpoint_may_have_any_ending(tmp_path: Path) -> None:
    assert load_network(save(tmp_path / "weights.bin")).family == "edsr"


def test_weights_without_a_card_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(network().state_dict(), path)
    assert not is_own(path)
    with pytest.raises(CheckpointError, match="without sciSR's card"):
        load_checkpoint(path)


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "n.safetensors")
    tensors = load_file(path)
    tensors["tail.conv.wait"] = tensors.pop("tail.conv.weight")
    tensors["head.conv.bias"] = torch.zeros(5)
    save_file(tensors, path, metadata=_metadata(path))
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    message = str(caught.value)
    assert "1 missing (tail.conv.weight)" in message
    assert "1 left over (tail.conv.wait)" in message
    assert "head.conv.bias (5,) instead of (4,)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "format 99"),
        ({"family": "edsrr"}, "did you mean 'edsr'"),
        ({"arguments": {"ndim": 3}}, "cannot be built"),
        ({"spec": {}}, "card is damaged"),
    ],
)
def test_a_card_that_lies_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = save(tmp_path / "n.safetensors")
    content = json.loads(_metadata(path)["scisr"]) | change
    save_file(load_file(path), path, metadata={"scisr": json.dumps(content)})
    with pytest.raises(CheckpointError, match=words):
        load_network(path)


def test_a_missing_file_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file, and no weights of this name"):
        load_network(tmp_path / "none.safetensors")


def test_own_checkpoints_take_no_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scale cannot be set"):
        load_network(save(tmp_path / "n.safetensors"), scale=2)


@pytest.mark.parametrize("name", list_weights())
def test_shipped_weights_load(name: str) -> None:
    assert weights_path(name).stat().st_size <= 2 * 2**20
    card = load_network(name).card
    assert card is not None
    assert card.name == name


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        return dict(opened.metadata())

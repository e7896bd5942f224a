from __future__ import annotations

from pathlib import Path

import torch

from sciSR.losses import build_loss
from sciSR.networks import build_network
from sciSR.normalization import Normalization
from sciSR.sampling import Augmentation, PairMaker, Reference, decode
from sciSR.sensors import Sensor
from sciSR.training.lessons import Supervised
from sciSR.training.loop import Settings
from sciSR.training.rates import try_rates
from tests.training_cases import scene


def settings() -> Settings:
    return Settings(
        patch=(8, 8), batch=4, steps=10, minutes=None, learning_rate=1e-3, warmup=0, schedule="cosine",
        final_learning_rate=0.0, weight_decay=0.0, loss="l1", ema=0.9, clip=1.0, accumulate=1, precision="float32",
        seed=0, validate_every=5, patience=None, dry_run=False, augment=Augmentation(),
    )  # fmt: skip


def test_the_suggestion_lies_where_the_loss_falls_and_the_network_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=4, blocks=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    crops = decode(Reference(scene(size=120)), normalization=Normalization("percentile"), channels=1, scale=(2, 2))
    maker = PairMaker(crops, patch=(8, 8), scale=(2, 2), sensor=Sensor())
    found = try_rates(
        network, maker, Supervised(build_loss("l1")), settings(), device=torch.device("cpu"), most=10.0, steps=80
    )
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert list(found.rates) == sorted(found.rates)
    assert 1e-5 < found.suggestion < 1.0
    at = min(range(len(found.rates)), key=lambda i: abs(found.rates[i] - found.suggestion))
    assert found.losses[at] < found.losses[0]
    assert found.losses[-1] > min(found.losses)  # it went on until too high a rate hurt
    assert found.draw(tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")

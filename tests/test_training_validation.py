"""What is held out to judge by: what tells nothing is left out, and said so before the first step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from sciSR.errors import InputError
from sciSR.normalization import Normalization
from sciSR.raster import Raster
from sciSR.sampling import Reference, decode
from sciSR.sensors import Sensor
from sciSR.training import train
from sciSR.training.validation import Validator
from tests.training_cases import QUICK, scene


def raster(values: np.ndarray[Any, Any], name: str = "scene") -> Raster:
    return Raster.from_array(values, affine=np.diag([10.0, -10.0, 1.0]), axes="yx", name=name)


def stripped(size: int = 96) -> Raster:
    """A scene whose far end is air."""
    values = scene(size=size).read().values.copy()
    values[-size // 3 :] = 0
    return raster(values, "stripped")


def test_a_constant_part_is_not_judged_by(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train([stripped(), scene(size=144)], tmp_path / "net.safetensors", **QUICK, steps=2)
    assert set(result.values["scores"]["matched"]) == {"scene"}
    assert "left out: stripped: what is held out is constant" in caplog.text


@pytest.mark.parametrize("changes", [{}, {"steps": None, "minutes": 5.0}])
def test_nothing_left_to_judge_by_is_told_before_the_first_step(tmp_path: Path, changes: dict[str, Any]) -> None:
    def progress(done: int, total: int) -> None:
        raise AssertionError

    with pytest.raises(InputError, match=r"nothing is left to judge by \(stripped: .* constant .*held_out or valid"):
        train(stripped(), tmp_path / "net.safetensors", **(QUICK | {"steps": 3} | changes), progress=progress)


def test_a_part_too_small_for_a_crop_is_told_before_the_first_step(tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        raise AssertionError

    part = Reference(scene(size=96), held_out={"y": (90, 94)})
    with pytest.raises(InputError, match=r"scene: what is held out has \(4, 96\) pixels, too few .*; hold out more"):
        train(part, tmp_path / "net.safetensors", **QUICK, steps=3, progress=progress)


def test_scores_are_finite_whatever_the_method_gives() -> None:
    class _Repeat(nn.Module):
        def forward(self, low: Tensor) -> Tensor:
            return low.repeat_interleave(2, -1).repeat_interleave(2, -2)

    blocks = np.random.default_rng(0).random((24, 24)).astype(np.float32).repeat(2, 0).repeat(2, 1)
    crops = decode(Reference(raster(blocks)), normalization=Normalization(), channels=1, scale=(2, 2))
    low = decode(Reference(raster(blocks[::2, ::2])), normalization=Normalization(), channels=1, scale=(2, 2))
    pair = replace(crops[0], low=low[0].high)
    validator = Validator([pair], patch=(24, 24), scale=(2, 2), sensor=None)
    assert math.isfinite(validator.score(_Repeat())["scene"].psnr)
    assert Validator([pair], patch=(8, 8), scale=(2, 2), sensor=Sensor()).samples()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave

from sciSR.errors import InputError
from sciSR.inference import upscale
from sciSR.io import open_raster, save_raster
from sciSR.networks import load_network
from sciSR.training import train


def photograph(path: Path, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 255, (60, 72, 3), dtype=np.uint8)
    imsave(path, values)
    return values


def test_a_folder_of_photographs_trains_a_network(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from sciSR.config import ReferenceSection
    from sciSR.trainer import references

    first = photograph(tmp_path / "0001.png", 0)
    photograph(tmp_path / "0002.png", 1)
    named = references((ReferenceSection(path=(str(tmp_path / "*.png"),), bands=(0, 1, 2)),))
    assert [r.raster.name for r in named] == ["0001.png", "0002.png"]
    np.testing.assert_array_equal(named[0].raster.read().values[:3], first.transpose(2, 0, 1))
    network = {"family": "edsr", "scale": 2, "features": 4, "blocks": 1}
    fixed = {"kind": "fixed", "scale": [255.0]}
    result = train(named, tmp_path / "rgb.safetensors", network=network, sensor="box", normalization=fixed, patch=8,
                   batch=2, steps=2, validate_every=2, validation_fraction=0.5, validation_count=1, trackers=(),
                   device="cpu")  # fmt: skip
    assert load_network(result.path).spec.in_channels == 3


def test_a_photograph_is_refined_to_a_tiff_and_not_written(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    photograph(tmp_path / "in.png", 0)
    fine = upscale(open_raster(tmp_path / "in.png"), "cubic", scale=2)
    assert open_raster(save_raster(fine, tmp_path / "out.tif")).grid.shape == (120, 144)
    with pytest.raises(InputError, match=r"\.png is read only; write out\.tif instead"):
        save_raster(fine, tmp_path / "out.png")

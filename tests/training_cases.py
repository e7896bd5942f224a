"""A small scene and settings that the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciSR.raster import Raster
from sciSR.training import train

QUICK: dict[str, Any] = {
    "network": {"family": "edsr", "scale": 2, "features": 4, "blocks": 1},
    "sensor": "generic-gaussian",
    "patch": 8,
    "batch": 4,
    "validate_every": 3,
    "validation_count": 1,
    "device": "cpu",
    "trackers": (),
}
"""Settings of a run of seconds."""


def scene(seed: int = 0, size: int = 72, name: str = "scene") -> Raster:
    """Smooth blobs with sharp edges, so that there is something to learn."""
    y, x = np.mgrid[0:size, 0:size] / 6.0
    values = np.sign(np.sin(x + seed) * np.cos(y * 1.3)) + 0.3 * np.sin(3 * x * y / 20)
    return Raster.from_array(
        (values * 100 + 500).astype(np.float32), affine=np.diag([10.0, -10.0, 1.0]), axes="yx", name=name
    )


def same_when_resumed(folder: Path, after: int, **options: Any) -> bool:
    """Whether a run that is stopped after some steps and taken up again leaves the weights of one that is not."""
    whole = train(scene(size=120), folder / "whole" / "net.safetensors", **options).path

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    target = folder / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(scene(size=120), target, **options, progress=stop)
    return train(scene(size=120), target, **options, resume=True).path.read_bytes() == whole.read_bytes()


def volume(shape: tuple[int, int, int] = (48, 48, 48), name: str = "volume") -> Raster:
    """Blobs of several sizes with sharp edges in three dimensions."""
    z, y, x = np.mgrid[tuple(slice(0, n) for n in shape)] / 5.0
    values = np.sign(np.sin(x + 0.3 * z) * np.cos(y * 1.3) + np.sin(1.7 * z)) + 0.2 * np.cos(2.5 * x)
    return Raster.from_array((values * 100 + 300).astype(np.float32), affine=np.eye(4), axes="zyx", name=name)

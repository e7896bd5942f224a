"""int8 through OpenVINO: how near it stays to float32 on real crops, and what stays in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciSR.inference import upscale
from sciSR.io import open_raster
from sciSR.networks import load_network
from sciSR.raster import Raster
from sciSR.tiles import UpscaledSource
from tests.test_inference import _network, _volume

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")

EXAMPLES = Path(__file__).parents[1] / "examples" / "data"
LEAST_DB = 48.0
"""To the whole image in float32, over its p0.1 to p99.9 range: what int8 promises on trained weights."""


def _crop(name: str, pixels: int) -> Raster:
    raster = open_raster(EXAMPLES / name)
    return raster.crop(**{axis: slice(8, 8 + pixels) for axis in raster.grid.axes})


@pytest.mark.parametrize(
    ("weights", "file", "pixels", "tile"),
    [
        ("mri-x2", "mri_t1_head_crop.nii.gz", 40, 32),
        ("ct-x2", "ct_chest_crop.nii.gz", 40, 32),
        ("s2-x2", "sentinel2_crop.tif", 160, 96),
    ],
)
def test_trained_weights_stay_near_float32_without_seams(weights: str, file: str, pixels: int, tile: int) -> None:
    raster, network = _crop(file, pixels), load_network(weights)
    whole = upscale(raster, network, tile=None, precision="float32").read().values.astype(np.float64)
    tiled = upscale(raster, network, tile=tile, precision="int8").read().values
    span = float(np.subtract(*np.percentile(whole, [99.9, 0.1])))
    error = tiled - whole
    assert 0 < np.mean(error**2) <= span**2 / 10 ** (LEAST_DB / 10)
    for axis, s in enumerate(network.spec.scale, start=whole.ndim - network.spec.ndim):
        seam = tile * s
        steps = np.abs(np.diff(error, axis=axis)).mean(axis=tuple(a for a in range(whole.ndim) if a != axis))
        assert steps[seam - 1] <= 1.5 * np.median(steps)


def test_ends_and_sums_stay_in_float() -> None:
    network = _network(ndim=3, in_channels=1, scale=2)
    source = upscale(_volume(), network, precision="int8").source
    assert isinstance(source, UpscaledSource)
    operations = source.job.runner.model.get_ordered_ops()  # type: ignore[union-attr]
    rounded = [
        [value.get_source_output().get_node().get_type_name() == "FakeQuantize" for value in op.inputs()]
        for op in operations
        if op.get_type_name() == "Convolution"
    ]
    assert len(rounded) == 2 * network.blocks + 4  # type: ignore[operator]
    assert not any(rounded[0] + rounded[-1])
    assert all(inputs[0] for inputs in rounded[1:-1])
    sums = [
        op
        for op in operations
        if op.get_type_name() == "Add" and all(v.get_partial_shape().is_dynamic for v in op.inputs())
    ]
    assert len(sums) == network.blocks + 1  # type: ignore[operator]
    assert not any(
        v.get_source_output().get_node().get_type_name() == "FakeQuantize" for op in sums for v in op.inputs()
    )

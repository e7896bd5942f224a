"""Small files for tests of the whole path, written with nibabel, rasterio and our own checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from sciSR.degradation import load_sensor
from sciSR.networks import build_network
from sciSR.networks.checkpoint import save_checkpoint
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.raster import ArraySource, Block, Window, windows

NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)


def smooth(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float64]:
    """Values from about 100 to 900 that vary over some pixels, with texture."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    waves = sum(np.sin(g / (2.5 + i) + i) for i, g in enumerate(grids))
    return 500 + 110 * np.asarray(waves) + rng.normal(0, 12, shape)


def write_volume(
    path: Path, values: NDArray[Any] | None = None, affine: NDArray[np.float64] | None = None, dtype: str = "int16"
) -> Path:
    """A NIfTI volume; ``values`` in the file's order x, y, z."""
    stored = (smooth((20, 18, 16)) if values is None else values).astype(dtype)
    matrix = np.diag([0.8, 0.9, 1.1, 1.0]) if affine is None else affine
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(stored, matrix)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def write_scene(
    path: Path,
    values: NDArray[Any] | None = None,
    transform: Affine = NORTH_UP,
    dtype: str = "uint16",
    crs: str = "EPSG:32618",
    **profile: Any,
) -> Path:
    """A GeoTIFF; ``values`` in order band, y, x."""
    stored = (smooth((4, 40, 36)) if values is None else values).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = stored.shape
    layout = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": dtype}
    with rasterio.open(path, "w", crs=crs, transform=transform, **layout, **profile) as dataset:
        dataset.write(stored)
    return path


def write_weights(path: Path, *, ndim: int, in_channels: int = 1, scale: Any = 2, sensor: str | None = "mri") -> Path:
    """A checkpoint of a very small network with random weights."""
    network = build_network("edsr", ndim=ndim, in_channels=in_channels, scale=scale, features=4, blocks=1)
    rng = np.random.default_rng(1)
    state = network.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            value.copy_(value.new_tensor(rng.normal(0, 0.05, tuple(value.shape))))
        state[key] = value
    network.load_state_dict(state)
    save_checkpoint(
        network,
        path,
        normalization=Normalization("percentile"),
        sensor=None if sensor is None else load_sensor(sensor),
        bands=None,
        provenance={},
        name=path.stem,
    )
    return path


def kept(network: SRNetwork, path: Path) -> Path:
    """The file of a fitted method, with what its card says."""
    assert network.card is not None
    return save_checkpoint(
        network,
        path,
        normalization=None,
        sensor=network.card.sensor,
        bands=None,
        provenance=network.card.provenance,
        name=path.stem,
    )


class Streamed(ArraySource):
    """An array whose blocks come in order, as those of a network's result do; nothing may be read."""

    by_slabs = True
    ended = False

    def read(self, window: Window) -> Block:
        """Refuse."""
        raise AssertionError(f"read {window}")

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every block once."""
        try:
            for window in windows(self.shape, self.chunks):
                yield window, super().read(window)
        finally:
            self.ended = True

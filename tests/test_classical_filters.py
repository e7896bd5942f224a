"""B-spline, Wiener, least squares and total variation: definitions, exactness, tiles, gains on real crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from sciSR import run_workflow, save_raster
from sciSR.classical import build_classical
from sciSR.classical.least_squares import LeastSquares, fit_least_squares
from sciSR.classical.phase_filter import phase_offsets, shuffle_phases, window_offsets
from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.networks import load_network
from sciSR.raster import Raster
from sciSR.resampling import upsample
from sciSR.sensors import Sensor
from tests.made_files import kept
from tests.test_classical import greatest_tile_error, noise
from tests.test_classical_back_projection import mri, psnr, smooth


def raster(values: Tensor) -> Raster:
    array = values.numpy()
    return Raster.from_array(array, affine=np.eye(4 if array.ndim == 3 else 3), axes="zyx"[-array.ndim :])


@pytest.mark.parametrize("scale", [(2, 2), (3, 1), (4, 5)])
def test_bspline_is_scipys(scale: tuple[int, int]) -> None:
    x = noise(1, 1, 20, 23)
    places = [(np.arange(n * s) + 0.5) / s - 0.5 for n, s in zip((20, 23), scale, strict=True)]
    at = np.meshgrid(*places, indexing="ij")
    wanted = ndimage.map_coordinates(x[0, 0].numpy(), at, order=3, mode="reflect")
    assert np.abs(build_classical("bspline", ndim=2, scale=scale)(x)[0, 0].numpy() - wanted).max() < 1e-6


def test_bspline_tiles_within_a_millionth() -> None:
    network = build_classical("bspline", ndim=2, scale=2)
    assert greatest_tile_error(network, noise(1, 1, 60, 50), 17, network.spec.halo) < 1e-6


def test_phases_go_where_their_pixels_lie() -> None:
    scale = (2, 1, 3)
    offsets = phase_offsets(scale)
    planes = torch.from_numpy(offsets.T.copy())[:, None, :, None, None, None].expand(3, 1, 6, 2, 2, 2)
    out = shuffle_phases(planes, scale)
    for axis, s in enumerate(scale):
        along = out[axis, 0].movedim(axis, 0)
        wanted = ((torch.arange(s, dtype=torch.float64) + 0.5) / s - 0.5).repeat(2)
        assert (along - wanted.reshape(-1, 1, 1)).abs().max() < 1e-15
    assert window_offsets((1, 0)).tolist() == [[-1, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize(("ndim", "scale"), [(2, 2), (2, (3, 1)), (3, {"z": 4})])
def test_wiener_keeps_ramps_and_tiles_exactly(ndim: int, scale: Any) -> None:
    network = build_classical("wiener", ndim=ndim, scale=scale)
    x = noise(1, 1, *[20, 21, 22][-ndim:])
    radius = network.spec.receptive_radius
    assert radius is not None
    assert greatest_tile_error(network, x, 9, radius) < 1e-12


def test_wiener_without_blur_and_noise_goes_through_the_samples() -> None:
    network = build_classical("wiener", ndim=2, scale=(3, 1), sensor={"axes": {"kind": "box", "fwhm": 0.01}}, noise=0.0)
    x = noise(1, 1, 20, 20)
    assert (network(x)[:, :, 1::3] - x).abs().max() < 1e-6


@pytest.mark.parametrize("sensor", ["mri", "box"])
def test_wiener_and_least_squares_beat_cubic_and_back_projection_on_a_real_scan(sensor: str, crops: Path) -> None:
    fine = mri(crops)
    low = load_sensor(sensor).apply(fine, 2)
    found = {
        name: psnr(build_classical(name, ndim=3, scale=2, sensor=sensor)(low), fine)
        for name in ("cubic", "ibp", "wiener")
    }
    other = mri(crops, start=40)
    filtered = fit_least_squares([raster(other[0, 0])], ndim=3, scale=2, sensor=sensor, radius=(2, 2, 2))
    assert found["wiener"] > found["ibp"] - 0.05 > found["cubic"]
    assert psnr(filtered(low), fine) > found["cubic"] + 0.4


def test_wiener_tames_noise_when_told() -> None:
    fine = smooth(1, 1, 96, 96)
    span = float(fine.max() - fine.min())
    low = load_sensor("mri").apply(fine, 2)
    noisy = low + 0.05 * span * torch.randn(low.shape, generator=torch.Generator().manual_seed(0), dtype=low.dtype)
    trusting = psnr(build_classical("wiener", ndim=2, scale=2, noise=0.01)(noisy), fine)
    wary = psnr(build_classical("wiener", ndim=2, scale=2, noise=0.5)(noisy), fine)
    assert wary > trusting + 2


def test_bands_have_their_own_filters() -> None:
    sensor = load_sensor("s2").for_channels(["B02", "B05"])
    network = build_classical("wiener", ndim=2, scale=2, in_channels=2, sensor=sensor)
    x = noise(1, 2, 16, 16)
    for channel, name in enumerate(("B02", "B05")):
        one = Sensor.from_dict(load_sensor("s2").to_dict()).for_channels([name])
        alone = build_classical("wiener", ndim=2, scale=2, sensor=one)
        assert (network(x)[:, channel : channel + 1] - alone(x[:, channel : channel + 1])).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("wiener", {"noise": -1}, "noise -1"),
        ("wiener", {"smoothness": 1.5}, "smoothness 1.5"),
        ("wiener", {"radius": (2,)}, r"radius \[2\]"),
        ("tv", {"weight": -1}, "weight -1"),
        ("tv", {"iterations": -1}, "iterations -1"),
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_classical(name, ndim=2, scale=2, **arguments)


def test_least_squares_finds_the_filter_that_made_its_examples() -> None:
    truth = torch.from_numpy(np.random.default_rng(0).normal(size=(160, 160)))
    low = load_sensor("box").apply(truth[None, None], 2)
    fine = upsample(low, (2, 2), kernel="linear")[0, 0]
    # linear interpolation seen through the box: the best filter inverts exactly this
    network = fit_least_squares([raster(fine)], ndim=2, scale=2, sensor="box", radius=(4, 4), ridge=0.0)
    seen = load_sensor("box").apply(fine[None, None], 2)
    rest = (network.double()(seen) - fine)[..., 20:-20, 20:-20].abs().max()
    assert rest < 0.02 * (upsample(seen, (2, 2)) - fine)[..., 20:-20, 20:-20].abs().max()


def test_least_squares_keeps_constants_ramps_and_mirror_images() -> None:
    network = fit_least_squares([raster(smooth(1, 1, 90, 80)[0, 0])], ndim=2, scale=(2, 3), sensor="mri").double()
    assert (network(torch.full((1, 1, 12, 12), -1000.0).double()) + 1000).abs().max() < 1e-3
    ramp = ((torch.arange(30, dtype=torch.float64) + 0.5) / 30).expand(1, 1, 20, 30)
    world = (torch.arange(90, dtype=torch.float64) + 0.5) / 90
    assert (network(ramp)[0, 0] - world)[:, 20:-20].abs().max() < 1e-5
    x = noise(1, 1, 14, 15)
    for axis in (2, 3):
        assert (network(x.flip(axis)).flip(axis) - network(x)).abs().max() < 1e-6


def test_least_squares_ignores_holes() -> None:
    values = smooth(1, 1, 120, 120)[0, 0]
    holed = values.clone()
    holed[30:40, 50:60] = float("nan")
    whole = fit_least_squares([raster(values)], ndim=2, scale=2, radius=(2, 2))
    other = fit_least_squares([raster(holed)], ndim=2, scale=2, radius=(2, 2))
    assert torch.isfinite(other.weight).all()
    assert (whole.weight - other.weight).abs().max() < 0.1
    with pytest.raises(InputError, match="no example without holes"):
        fit_least_squares([raster(torch.where(torch.rand(20, 20) > 0.3, values[:20, :20], torch.nan))], ndim=2, scale=2)


def test_least_squares_learns_from_slices_bands_and_noise() -> None:
    volume = smooth(1, 1, 6, 60, 60)[0, 0]
    calls: list[tuple[int, int]] = []
    network = fit_least_squares(
        [raster(volume), raster(volume[0])],
        ndim=2,
        scale=2,
        radius=(2, 2),
        sensor={"noise": {"kind": "gaussian", "std": 0.3}},
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 2), (2, 2)]
    clean = fit_least_squares([raster(volume)], ndim=2, scale=2, radius=(2, 2))
    assert network.weight.square().sum() < 0.7 * clean.weight.square().sum()
    with pytest.raises(InputError, match="3 factors came"):
        fit_least_squares([raster(volume[0])], ndim=3, scale=2)
    with pytest.raises(InputError, match="no example"):
        fit_least_squares([], ndim=2, scale=2)


def test_least_squares_survives_its_file(tmp_path: Path) -> None:
    network = fit_least_squares([raster(smooth(1, 1, 80, 80)[0, 0])], ndim=2, scale=2, radius=(3, 3), sensor="box")
    file = kept(network, tmp_path / "lls.safetensors")
    again = load_network(file)
    x = noise(1, 1, 12, 12).float()
    assert isinstance(again, LeastSquares)
    assert torch.equal(again(x), network(x))
    assert again.card is not None
    assert again.card.sensor == load_sensor("box")


def test_a_fitted_filter_is_a_workflows_model_and_a_baseline(tmp_path: Path) -> None:
    network = fit_least_squares([raster(smooth(1, 1, 80, 80)[0, 0])], ndim=2, scale=2, radius=(2, 2), sensor="box")
    file = kept(network, tmp_path / "lls.safetensors")
    values = smooth(1, 1, 8, 40, 36)[0, 0].numpy().astype(np.float32)
    scan = Raster.from_array(values, affine=np.diag([0.5, 0.5, 2.0, 1.0]), axes="zyx")
    save_raster(scan, tmp_path / "scan.nii.gz")
    workflow = {
        "input": str(tmp_path / "scan.nii.gz"),
        "output": str(tmp_path / "out"),
        "upscale": {"network": str(file), "device": "cpu"},
        "evaluate": {"protocol": "wald", "baselines": ["cubic", str(file)]},
    }
    done = run_workflow(workflow)
    assert done.table is not None
    assert set(done.table.methods) >= {"lls", "cubic"}
    lost = workflow | {"evaluate": {"protocol": "wald", "baselines": [str(tmp_path / "none.safetensors")]}}
    with pytest.raises(InputError, match=r"no method .*none\.safetensors"):
        run_workflow(lost, overwrite=True)


@pytest.mark.parametrize("sensor", ["mri", "s2", "mri-kspace", "box"])
def test_adjoint_is_the_transpose(sensor: str) -> None:
    chosen = load_sensor(sensor)
    x, y = noise(1, 2, 12, 18), noise(1, 2, 6, 6).flip(2)
    seen = (chosen.apply(x, (2, 3)) * y).sum()
    assert float(seen - (x * chosen.adjoint(y, (2, 3))).sum()) == pytest.approx(0, abs=1e-10)


def test_total_variation_falls_and_the_input_stays_explained() -> None:
    blocks = torch.zeros(1, 1, 48, 48, dtype=torch.float64)
    blocks[..., 13:30, 9:37] = 1.0
    low = load_sensor("mri").apply(blocks, 2)
    low = low + 0.02 * torch.randn(low.shape, generator=torch.Generator().manual_seed(0), dtype=low.dtype)

    def variation(x: Tensor) -> float:
        return float(x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum())

    start = build_classical("wiener", ndim=2, scale=2, sensor="mri")(low)
    out = build_classical("tv", ndim=2, scale=2, sensor="mri", weight=0.01)(low)
    assert variation(out) < 0.7 * variation(start)
    assert psnr(out, blocks) > psnr(start, blocks) + 1
    assert (load_sensor("mri").apply(out, 2) - low).pow(2).mean().sqrt() < 0.03


def test_total_variation_lowers_what_it_minimises() -> None:
    low = load_sensor("mri").apply(smooth(1, 1, 40, 40), 2)

    def cost(x: Tensor, weight: float) -> float:
        gx = torch.diff(x, dim=2, append=x[:, :, -1:])
        gy = torch.diff(x, dim=3, append=x[..., -1:])
        misfit = (load_sensor("mri").apply(x, 2) - low).pow(2).sum() / 2
        return float(misfit + weight * (gx**2 + gy**2).sqrt().sum())

    costs = [
        cost(build_classical("tv", ndim=2, scale=2, weight=0.02, iterations=n)(low), 0.02) for n in (0, 20, 80, 320)
    ]
    assert costs[0] > costs[1] > costs[2] > costs[3]
    assert costs[2] - costs[3] < 0.05 * (costs[0] - costs[3])


def test_total_variation_weighs_with_the_noise_of_the_sensor() -> None:
    clean = build_classical("tv", ndim=2, scale=2, sensor="box")
    noisy = build_classical("tv", ndim=2, scale=2, sensor={"noise": {"kind": "gaussian", "std": 0.02}})
    assert clean.arguments["weight"] == 0.0003
    assert noisy.arguments["weight"] == pytest.approx(0.002)
    assert clean.card is not None
    assert clean.card.normalization is not None


def test_total_variation_tiles_with_its_reach() -> None:
    network = build_classical("tv", ndim=2, scale=2, iterations=4, weight=0.01)
    radius = network.spec.receptive_radius
    assert radius is not None
    assert greatest_tile_error(network, noise(1, 1, 70, 60), 24, radius) < 1e-12


@pytest.mark.parametrize(("scale", "sensor"), [((2, 2), "mri"), ((3, 1), "mri"), ((2, 2), "box")])
def test_total_variation_tiles_with_its_halo_are_within_a_millionth(scale: tuple[int, int], sensor: str) -> None:
    network = build_classical("tv", ndim=2, scale=scale, sensor=sensor, weight=0.02)
    size = [48 if s > 1 else 70 for s in scale]
    tile = max(size) // 2
    assert greatest_tile_error(network, noise(1, 1, *size), tile, network.spec.halo) < 1e-6

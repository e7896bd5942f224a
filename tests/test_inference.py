"""upscale(): right place, the same from any tiles, holes and channels kept, wrong input refused."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sciSR.backends import prepare
from sciSR.errors import GeometryError, InputError, PrecisionWarning, RunError
from sciSR.inference import upscale
from sciSR.io import open_raster
from sciSR.networks import build_network, list_weights, load_network
from sciSR.networks.spec import NetworkCard, NetworkSpec, SRNetwork
from sciSR.normalization import Normalization
from sciSR.precision import MIN_PSNR_DB, check_precision
from sciSR.raster import Channel, Raster
from sciSR.tiles import TileJob, UpscaledSource

TOLERANCE = 4e-6
"""Float32 rounding between plans and executors, as a part of the range (DESIGN section 5)."""


def _network(**arguments: Any) -> SRNetwork:
    """A small EDSR whose residual is not zero."""
    torch.manual_seed(0)
    network = build_network("edsr", features=8, blocks=2, **arguments).eval()
    for parameter in network.tail.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def _scene(bands: int = 4, holes: bool = True) -> Raster:
    values = np.random.default_rng(0).normal(size=(bands, 50, 63)).astype(np.float32)
    if holes:
        values[:, 20:30, 40:60] = np.nan
        values[bands - 1, 44, 3] = np.nan
    return Raster.from_array(values, affine=np.diag([10, -10, 1.0]), axes="cyx", name="scene")


def _volume(times: int = 0, spacing: tuple[float, ...] = (1, 1, 1)) -> Raster:
    shape = (times, 19, 30, 27) if times else (19, 30, 27)
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return Raster.from_array(values, affine=np.diag([*spacing, 1.0]), axes="tzyx"[-len(shape) :], name="volume")


def _streamed(raster: Raster) -> tuple[NDArray[Any], NDArray[Any]]:
    values, seen = np.zeros(raster.shape, raster.dtype), np.zeros(raster.shape, int)
    valid = np.ones(raster.shape, bool)
    for window, block in raster.stream():
        values[window] = block.values
        seen[window] += 1
        if block.valid is not None:
            valid[window] = block.valid
    assert (seen == 1).all()
    return values, valid


CASES: dict[str, tuple[Raster, dict[str, Any]]] = {
    "scene, four bands together": (_scene(), {"ndim": 2, "in_channels": 4, "scale": 2}),
    "scene, each band alone": (_scene(3), {"ndim": 2, "in_channels": 1, "scale": 3}),
    "volume": (_volume(), {"ndim": 3, "in_channels": 1, "scale": 2}),
    "series": (_volume(2), {"ndim": 3, "in_channels": 1, "scale": 2}),
    "volume by slices": (_volume(), {"ndim": 2, "in_channels": 1, "scale": 2}),
    "thick along z": (_volume(spacing=(1, 1, 4)), {"ndim": 3, "in_channels": 1, "scale": {"z": 4}}),
    "thick along x": (_volume(spacing=(4, 1, 1)), {"ndim": 3, "in_channels": 1, "scale": {"z": 4}}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "settings", [{"tile": 32}, {"tile": 13}, {"tile": "auto"}, {"tile": 16, "workers": 1}], ids=str
)
def test_tiles_and_strips_equal_the_whole_image(case: str, settings: dict[str, Any]) -> None:
    raster, arguments = CASES[case]
    network = _network(**arguments)
    whole, valid = _streamed(upscale(raster, network, tile=None, precision="float32"))
    got, got_valid = _streamed(upscale(raster, network, precision="float32", **settings))
    np.testing.assert_array_equal(got_valid, valid)
    span = whole[valid].max() - whole[valid].min()
    assert np.abs(got - whole)[valid].max() <= TOLERANCE * span


@pytest.mark.parametrize("case", CASES)
def test_any_window_equals_the_stream(case: str) -> None:
    raster, arguments = CASES[case]
    result = upscale(raster, _network(**arguments), tile=16, precision="float32")
    values, valid = _streamed(result)
    window = tuple(slice(n // 3, 2 * n // 3 + 1) for n in result.shape)
    block = result.read(window)
    good = valid[window]
    assert np.abs(block.values - values[window])[good].max() <= TOLERANCE * np.ptp(values[valid])
    np.testing.assert_array_equal(np.ones_like(good) if block.valid is None else block.valid, good)


def test_workers_do_not_change_a_byte() -> None:
    one, two = (upscale(_volume(), _network(ndim=3, in_channels=1, scale=2), tile=8, workers=w) for w in (1, 2))
    np.testing.assert_array_equal(_streamed(one)[0], _streamed(two)[0])


@pytest.mark.usefixtures("two_threads")
def test_workers_do_not_change_a_byte_where_the_threads_of_pytorch_do() -> None:
    values = np.random.default_rng(0).normal(size=(3, 101, 134)).astype(np.float32)
    raster = Raster.from_array(values, affine=np.eye(3), axes="cyx")
    torch.manual_seed(0)
    network = build_network("unet", ndim=2, in_channels=3, scale=2, features=8, depth=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    results = [upscale(raster, network, tile=33, precision="float32", workers=w, backend="torch") for w in (1, 2)]
    one, two = (result.read().values for result in results)
    np.testing.assert_array_equal(one, two)
    for part in ((slice(0, 3), slice(10, 60), slice(5, 50)), (slice(0, 3), slice(0, 202), slice(100, 101))):
        np.testing.assert_array_equal(results[1].read(part).values, one[part], "a window read for itself")


def test_holes_come_back_as_exactly_their_children() -> None:
    raster = _scene()
    _, valid = _streamed(upscale(raster, _network(ndim=2, in_channels=4, scale=2)))
    low = raster.read().valid
    assert low is not None
    np.testing.assert_array_equal(valid, low.repeat(2, axis=1).repeat(2, axis=2))


def test_what_stands_in_holes_does_not_matter() -> None:
    network = _network(ndim=2, in_channels=4, scale=2)
    clean = _scene()
    values = np.nan_to_num(clean.read().values, nan=-9999.0)
    marked = Raster.from_array(values, affine=np.diag([10, -10, 1.0]), axes="cyx", nodata=-9999.0)
    a, valid = _streamed(upscale(clean, network, tile=None))
    b, other = _streamed(upscale(marked, network, tile=None))
    np.testing.assert_array_equal(valid, other)
    np.testing.assert_array_equal(a[valid], b[valid])


def test_an_untrained_network_is_cubic_and_a_constant_stays_constant() -> None:
    network = build_network("edsr", ndim=2, in_channels=1, scale=2, features=8, blocks=1)
    raster = _scene(1, holes=False)
    np.testing.assert_allclose(
        upscale(raster, network).read().values, upscale(raster, "cubic", scale=2).read().values, atol=1e-6
    )
    flat = Raster.from_array(np.full((1, 9, 9), 700, np.uint16), affine=np.eye(3), axes="cyx")
    np.testing.assert_allclose(upscale(flat, network, normalization=Normalization("percentile")).read().values, 700)


@pytest.mark.parametrize("model", ["nearest", "linear", "cubic", "lanczos", "ibp"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (1, 1, 6)])
def test_classical_models_take_one_pixel_images_and_keep_bounds(model: str, shape: tuple[int, ...]) -> None:
    raster = Raster.from_array(np.full(shape, 3.0, np.float32), affine=np.diag([10, -10, 1.0]), axes="cyx")
    result = upscale(raster, model, scale=2)
    assert result.grid.bounds == raster.grid.bounds
    np.testing.assert_allclose(result.read().values, 3, atol=1e-5)


def test_target_spacing_keeps_bounds_and_records_the_resampling() -> None:
    raster = _volume(spacing=(1, 1, 4))
    result = upscale(raster, _network(ndim=3, in_channels=1, scale={"z": 4}), target_spacing={"z": 1.5})
    assert result.shape == (51, 30, 27)
    np.testing.assert_allclose(result.grid.bounds, raster.grid.bounds, atol=1e-9)
    record = result.source.record()  # type: ignore[attr-defined]
    assert record["resampled"]["kernel"] == "cubic"
    iso = upscale(raster, "cubic", target_spacing="isotropic")
    assert iso.shape == (76, 30, 27)


def test_a_factor_beyond_the_network_is_said() -> None:
    with pytest.warns(PrecisionWarning, match="more than the network's 2"):
        upscale(_scene(1, holes=False), _network(ndim=2, in_channels=1, scale=2), scale=4)


def test_a_single_slice_is_refined_in_its_plane() -> None:
    plane = _volume(spacing=(1, 1, 4)).crop(z=slice(9, 10))
    for model in ("cubic", "ibp", "nearest", _network(ndim=2, in_channels=1, scale=2)):
        assert upscale(plane, model).shape == (1, 60, 54)
        assert upscale(plane, model, scale=2).shape == (1, 60, 54)
    assert upscale(plane, "cubic", target_spacing="isotropic").shape == (1, 30, 27)
    assert upscale(plane, "cubic", scale={"z": 4}).shape == (4, 30, 27)
    deep = _network(ndim=3, in_channels=1, scale=2)
    with pytest.warns(PrecisionWarning, match="refines along z, where there is a single voxel"):
        fine = upscale(plane, deep)
    assert fine.shape == (1, 60, 54)
    np.testing.assert_allclose(fine.grid.bounds, plane.grid.bounds, atol=1e-9)
    across = _network(ndim=3, in_channels=1, scale={"z": 4})
    with pytest.raises(InputError, match="refines along z, where there is a single voxel"):
        upscale(plane, across)
    with pytest.warns(PrecisionWarning, match="single voxel"):
        assert upscale(plane, across, scale={"z": 4}).shape == (4, 30, 27)


def test_a_single_voxel_is_refined_along_all_axes() -> None:
    one = Raster.from_array(np.full((1, 1, 1), 3.0, np.float32), affine=np.eye(4), axes="zyx")
    assert upscale(one, "cubic", scale=2).shape == (2, 2, 2)


def test_low_precision_is_taken_only_where_it_is_good_enough() -> None:
    rng = np.random.default_rng(0)
    big = Raster.from_array((rng.normal(size=(1, 400, 500)) * 100).astype(np.int16), affine=np.eye(3), axes="cyx")
    gentle, harsh = (_network(ndim=2, in_channels=1, scale=2) for _ in range(2))
    for parameter in harsh.tail.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter, std=5)
    outcomes = []
    for network in (gentle, harsh):
        source = upscale(big, network, precision="float32").source
        assert isinstance(source, UpscaledSource)
        job = source.job
        low = TileJob(big, prepare(network, job.runner.device, "bf16"), job.plan, job.intensity, job.order, 0)
        outcomes.append(check_precision(job, low))
    assert outcomes[0]["passed"]
    assert outcomes[0]["psnr_db"] >= MIN_PSNR_DB
    assert outcomes[0]["patches_sampled"] >= 16
    assert not outcomes[1]["passed"]
    small = upscale(_scene(1), gentle, precision="auto").source.record()  # type: ignore[attr-defined]
    assert small["precision"] == "float32"


@pytest.mark.parametrize("fast", [True, False])
def test_low_precision_says_where_it_saves_no_time(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.inference.has_fast_bfloat16", lambda _: fast)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        upscale(_scene(1, holes=False), _network(ndim=2, in_channels=1, scale=2), precision="bf16")
    assert any("no faster than float32" in str(w.message) for w in told) is not fast


def test_low_precision_stays_near_float32() -> None:
    raster = _scene(1, holes=False)
    network = _network(ndim=2, in_channels=1, scale=2)
    full, low = (upscale(raster, network, precision=p).read().values for p in ("float32", "bf16"))
    mse = float(((full - low) ** 2).mean())
    assert mse > 0
    assert 10 * np.log10(np.ptp(full) ** 2 / mse) > 50


@pytest.mark.parametrize(
    ("raster", "arguments", "settings", "message"),
    [
        (_scene(3), {"ndim": 2, "in_channels": 4, "scale": 2}, {}, "3 channel.*network takes 4"),
        (_scene(1), {"ndim": 3, "in_channels": 1, "scale": 2}, {}, "2D network"),
        (_scene(1), {"ndim": 2, "in_channels": 1, "scale": 2}, {"precision": "int3"}, "precision"),
        (_scene(1), {"ndim": 2, "in_channels": 1, "scale": 2}, {"device": "gpu"}, "device"),
        (_scene(1), {"ndim": 2, "in_channels": 1, "scale": 2}, {"tile": "big"}, "tile"),
        (_scene(1), {"ndim": 2, "in_channels": 1, "scale": 2}, {"scale": 2, "target_spacing": 1}, "exclude"),
    ],
)
def test_what_does_not_fit_is_refused(
    raster: Raster, arguments: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        upscale(raster, _network(**arguments), **settings)


def test_axes_that_are_not_there_are_refused() -> None:
    with pytest.raises(GeometryError, match="no spatial axis t"):
        upscale(_volume(2), "cubic", scale={"t": 2})
    with pytest.raises(GeometryError, match="not a positive"):
        upscale(_volume(), "cubic", target_spacing=0)


def test_an_all_nan_image_is_refused() -> None:
    empty = Raster.from_array(np.full((1, 8, 8), np.nan, np.float32), affine=np.eye(3), axes="cyx", name="empty.tif")
    with pytest.raises(InputError, match=r"empty\.tif: no valid value"):
        upscale(empty, _network(ndim=2, in_channels=1, scale=2), normalization=Normalization("percentile"))


@pytest.mark.parametrize("name", list_weights())
def test_shipped_weights_tile_as_the_whole(name: str) -> None:
    crops = {"mri": "mri_t1_head_crop.nii.gz", "ct": "ct_chest_crop.nii.gz", "s2": "sentinel2_crop.tif"}
    source = open_raster(Path(__file__).parents[1] / "examples" / "data" / crops[name.split("-")[0]])
    size = {axis: slice(0, 40 if source.grid.axes[0] == "z" else 150) for axis in source.grid.axes}
    raster = source.crop(**{a: slice(0, min(s.stop, source.shape[source.axes.index(a)])) for a, s in size.items()})
    network = load_network(name)
    whole, valid = _streamed(upscale(raster, network, tile=None, precision="float32"))
    choices: list[dict[str, Any]] = [{"tile": 32}, {"tile": 32, "exact": True}, {"tile": "auto"}]
    for settings in choices:
        got, _ = _streamed(upscale(raster, network, precision="float32", **settings))
        assert np.abs(got - whole)[valid].max() <= TOLERANCE * np.ptp(whole[valid])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"ndim": 2, "in_channels": 4, "scale": 2}, {"ndim": 3, "in_channels": 1, "scale": 2}]
)
def test_openvino_agrees_with_torch(arguments: dict[str, Any]) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    raster = _scene(4, holes=False) if arguments["ndim"] == 2 else _volume()
    network = _network(**arguments)
    torch_values = upscale(raster, network, precision="float32", tile=None).read().values
    span = np.ptp(torch_values)
    same, _ = _streamed(upscale(raster, network, backend="openvino", precision="float32", tile=32))
    assert np.abs(same - torch_values).max() <= 4 * TOLERANCE * span
    result = upscale(raster, network, precision="int8", tile=32)
    coarse, _ = _streamed(result)
    mse = float(((coarse - torch_values) ** 2).mean())
    assert 0 < mse < span**2 / 10**4
    assert result.source.record()["precision_check"]["psnr_db"] > 30  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["unet", "encoder_decoder"])
def test_openvino_takes_sizes_that_are_no_multiple_of_the_strides(family: str) -> None:
    pytest.importorskip("openvino")
    network = build_network(family, ndim=2, in_channels=4, scale=2).eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    raster = _scene(4, holes=False).crop(y=slice(0, 29), x=slice(0, 35))
    expected = upscale(raster, network, precision="float32", tile=None).read().values
    for tile in (16, None):
        got, _ = _streamed(upscale(raster, network, backend="openvino", precision="float32", tile=tile))
        assert np.abs(got - expected).max() <= 4 * TOLERANCE * np.ptp(expected)


def test_what_was_asked_to_be_compiled_runs_compiled() -> None:
    network = _network(ndim=2, in_channels=4, scale=2)
    source = upscale(_scene(), network, precision="float32", backend="compile").source
    assert source.record()["executor"] == "tiles"  # type: ignore[attr-defined]


def test_a_count_of_workers_that_is_none_is_refused() -> None:
    for workers in (0, -1):
        with pytest.raises(InputError, match="workers"):
            upscale(_scene(), _network(ndim=2, in_channels=4, scale=2), workers=workers)


def test_label_maps_are_refused_or_refined_as_classes() -> None:
    classes = np.zeros((1, 20, 20), np.uint8)
    classes[0, 4:15, 3:12] = 4
    raster = Raster.from_array(classes, affine=np.eye(3), axes="cyx", name="mask")
    network = _network(ndim=2, in_channels=1, scale=2)
    for model in (network, "cubic", "nearest"):
        with pytest.raises(InputError, match="--labels"):
            upscale(raster, model)
    for model in (network, "nearest", "linear"):
        fine = upscale(raster, model, scale=2, labels=True).read().values
        assert set(np.unique(fine)) == {0, 4}
        assert fine.shape == (1, 40, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)  # nothing is interpolated, whatever the network's factor
        assert upscale(raster, network, scale=3, labels=True).shape == (1, 60, 60)
    assert len(np.unique(upscale(raster, "cubic", labels=False).read().values)) > 2


def test_bands_in_another_order_are_refused() -> None:
    network = _network(ndim=2, in_channels=4, scale=2)
    network.card = NetworkCard(bands=("B02", "B03", "B04", "B08"))

    def scene(*names: str | None) -> Raster:
        return _scene().replace(channels=tuple(Channel(name) for name in names))

    for fine in (("B02, blue", "B03, green", "B04, red", "B08, nir"), ("b2", "b3", "b4", "b8"), (None,) * 4):
        upscale(scene(*fine), network)
    for wrong in (("B08", "B04", "B03", "B02"), ("B01", "B02", "B03", "B04"), ("aerosol", "B02", "B03", "B04")):
        with pytest.raises(InputError, match="takes B02, B03, B04, B08 in this order"):
            upscale(scene(*wrong), network)


def test_a_resampled_result_travels_to_other_processes() -> None:
    result = upscale(_scene(1, holes=False), _network(ndim=2, in_channels=1, scale=2), scale=1.5)
    again = pickle.loads(pickle.dumps(result.source))
    np.testing.assert_array_equal(
        again.read((slice(0, 1), slice(0, 9), slice(0, 9))).values, result.read().values[:, :9, :9]
    )


def test_a_worker_without_the_senders_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    monkeypatch.setattr("sciSR.strips._WORTH_COMPILING", 0)
    sent = pickle.dumps(upscale(_scene(1, holes=False), _network(ndim=2, in_channels=1, scale=2)).source)
    pickle.loads(sent)
    monkeypatch.setattr("sciSR.strips.is_available", lambda: False)
    with pytest.raises(RunError, match="llvmlite"):
        pickle.loads(sent)


SCENE = Raster.from_array(np.random.default_rng(0).random((1, 21, 34), np.float32), affine=np.eye(3), axes="cyx")


class _Own(SRNetwork):
    """A user's own network, without a family or arguments."""

    spec = NetworkSpec(("y", "x"), (2, 2), in_channels=1, out_channels=1, receptive_radius=(1, 1), halo=(1, 1))

    def __init__(self, slope: float = 0.1, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(slope), nn.PixelShuffle(2)
        )
        self.register_buffer("gain", torch.tensor(gain), persistent=False)
        self.note = "plain"

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        fine: torch.Tensor = self.layers(x) * self.gain
        return fine


class _Another(_Own):
    """The same weights and attributes, and another forward."""

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return -super().residual(x)


class _Several(_Own):
    def residual(self, x: torch.Tensor) -> Any:
        return (super().residual(x),)


def test_networks_of_ones_own_are_told_apart_by_all_that_decides_their_values() -> None:
    networks = [_Own(), _Own(slope=0.2), _Own(gain=2.0), _Another(), _Own()]
    networks[-1].note = "another"
    sums = {upscale(SCENE, network).source.record()["network_sha256"] for network in networks}  # type: ignore[attr-defined]
    assert len(sums) == len(networks)
    assert upscale(SCENE, _Own().eval()).source.record()["network_sha256"] in sums  # type: ignore[attr-defined]
    trained = _Own()
    with torch.no_grad():
        next(trained.parameters()).add_(1e-3)
    assert upscale(SCENE, trained).source.record()["network_sha256"] not in sums  # type: ignore[attr-defined]


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="Conv2d came"):
        upscale(SCENE, nn.Conv2d(1, 1, 3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is a tuple"):
        upscale(SCENE, _Several()).read()

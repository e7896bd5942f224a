"""evaluate() and wald(): the same numbers as the metrics on whole arrays, in any order of blocks, and honest words."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sciSR import metrics
from sciSR.degradation import degrade, load_sensor
from sciSR.errors import GeometryError, InputError
from sciSR.evaluation import ScoreTable, evaluate, wald
from sciSR.evaluation.tally import slabs
from sciSR.inference import upscale
from sciSR.io import open_raster
from sciSR.networks import build_network
from sciSR.networks.spec import NetworkCard
from sciSR.raster import Block, Raster, Window, windows

SENSOR = "generic-gaussian"
RNG = np.random.default_rng(0)


class Chunked:
    """An array as a source that streams small blocks."""

    def __init__(self, array: NDArray[Any], chunks: tuple[int, ...]) -> None:
        self.array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype

    def read(self, window: Window) -> Block:
        values = self.array[window]
        valid = ~np.isnan(values)
        return Block(values, None if valid.all() else valid)

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window in windows(self.shape, self.chunks):
            yield window, self.read(window)


def field(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Smooth positive values with an air border, as float32."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.normal(size=(1, 1, *shape[-3:])))
    if len(shape) == 3:
        smooth = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)
        return (1000 + 400 * smooth[0, 0].numpy()).astype(np.float32)
    raise AssertionError(shape)


def volume(array: NDArray[Any], name: str = "volume", unit: str | None = "HU") -> Raster:
    return Raster.from_array(array, affine=np.diag([1, 1, 2, 1.0]), axes="zyx", unit=unit, name=name)


def scene(array: NDArray[Any], **options: Any) -> Raster:
    affine = [[10, 0, 500000], [0, -10, 4500000], [0, 0, 1]]
    return Raster.from_array(array, affine=affine, axes="cyx", crs="EPSG:32618", name="scene", **options)


@pytest.mark.parametrize("chunks", [(14, 20, 22), (4, 20, 22), (5, 7, 9), (13, 20, 1)])
def test_slab_by_slab_gives_the_metrics_of_the_whole(chunks: tuple[int, ...]) -> None:
    target = field((14, 20, 22))
    prediction = target + RNG.normal(0, 50, target.shape).astype(np.float32)
    result = volume(prediction).replace(source=Chunked(prediction, chunks))
    table = evaluate(result, reference=volume(target), data_range=2000)
    for name, expected in {
        "psnr": metrics.psnr(prediction, target, data_range=2000),
        "ssim": metrics.ssim(prediction, target, data_range=2000),
        "mae": metrics.mae(prediction, target),
        "rmse": metrics.rmse(prediction, target),
        "nrmse": metrics.nrmse(prediction, target, data_range=2000),
        "bias": float((prediction.astype(np.float64) - target).mean()),
    }.items():
        assert table.value("result", name) == pytest.approx(expected, rel=1e-9), name
    assert table.rows[0].pixels == target.size
    assert "MAE [HU]" in str(table)


def test_foreground_row_counts_reference_pixels_above_the_stated_threshold() -> None:
    target = np.full((12, 16, 16), -1000, np.float32)
    target[:, 4:12, 4:12] = field((12, 8, 8))
    prediction = target.copy()
    prediction[:, 5, 5] += 30
    table = evaluate(volume(prediction), reference=volume(target), data_range=2000)
    inside = target > 0
    assert table.value("result", "mae", region="foreground") == pytest.approx(30 * 12 / inside.sum())
    assert [row.region for row in table.rows] == ["valid", "foreground"]
    assert table.settings["foreground"].endswith("HU")


def test_missing_pixels_are_left_out_and_nan_results_are_not() -> None:
    target = field((12, 16, 16))
    prediction = target + 10
    target[3, 2:5, 2:5] = np.nan
    prediction[3, 2:5, 2:5] = 1e30
    table = evaluate(volume(prediction), reference=volume(target), data_range=2000)
    assert table.value("result", "mae") == pytest.approx(10, rel=1e-4)
    assert table.rows[0].pixels == target.size - 9


def test_methods_with_values_at_different_pixels_are_noted() -> None:
    target = scene(RNG.normal(500, 100, (1, 20, 20)))
    holed = RNG.normal(500, 100, (1, 20, 20))
    holed[0, 4, 4] = np.nan
    table = evaluate({"whole": target, "holed": scene(holed)}, reference=target, data_range=1000)
    assert "whole 400, holed 399" in table.notes[0]


def test_masks_as_arrays_and_as_rasters_agree() -> None:
    target = field((12, 16, 18))
    prediction = target + RNG.normal(0, 50, target.shape).astype(np.float32)
    mask = RNG.random(target.shape) > 0.5
    tables = [
        evaluate(volume(prediction), reference=volume(target), data_range=2000, mask=m)
        for m in (mask, volume(mask.astype(np.uint8), "mask", None))
    ]
    expected = metrics.rmse(prediction, target, mask=mask)
    for table in tables:
        assert table.value("result", "rmse", region="mask") == pytest.approx(expected, rel=1e-9)
        assert table.value("result", "ssim", region="mask") == pytest.approx(
            metrics.ssim(prediction, target, data_range=2000, mask=mask), rel=1e-9
        )


def test_channels_have_rows_of_their_own_and_spectral_columns() -> None:
    target = RNG.uniform(100, 3000, (3, 24, 20))
    prediction = target * np.array([1.0, 1.01, 1.02])[:, None, None]
    table = evaluate(scene(prediction, channels=("B02", "B03", "B04")), reference=scene(
        target, channels=("B02", "B03", "B04")), data_range=3000)  # fmt: skip
    assert table.value("result", "mae", part="B02") == 0
    assert table.value("result", "psnr", part="B02") == math.inf
    assert table.value("result", "mae", part="B04") == pytest.approx(0.02 * target[2].mean())
    cosine = (prediction * target).sum(0) / np.sqrt((prediction**2).sum(0) * (target**2).sum(0))
    assert table.value("result", "sam") == pytest.approx(np.degrees(np.arccos(cosine)).mean(), rel=1e-6)


@pytest.mark.parametrize("chunks", [(1, 24, 20), (3, 5, 20), (2, 24, 7)])
def test_bands_that_come_one_after_the_other_change_nothing(chunks: tuple[int, ...]) -> None:
    target = RNG.uniform(100, 3000, (3, 24, 20))
    prediction = target + RNG.normal(0, 50, target.shape)
    expected = evaluate(scene(prediction), reference=scene(target), data_range=3000)
    result = scene(prediction).replace(source=Chunked(prediction, chunks))
    got = evaluate(result, reference=scene(target), data_range=3000)
    for one, other in zip(expected.rows, got.rows, strict=True):
        assert one.values == pytest.approx(other.values, rel=1e-9)


def test_series_have_a_row_per_time_step() -> None:
    target = RNG.normal(500, 100, (3, 6, 12, 12)).astype(np.float32)
    prediction = target + np.array([1, 2, 3], np.float32)[:, None, None, None]
    rasters = [Raster.from_array(a, affine=np.eye(4), axes="tzyx", name="series") for a in (prediction, target)]
    table = evaluate(rasters[0], reference=rasters[1], data_range=1000)
    steps = [table.value("result", "mae", part=f"t={t}") for t in range(3)]
    assert steps == pytest.approx([1, 2, 3], rel=1e-4)
    assert table.value("result", "mae") == pytest.approx(2, rel=1e-4)


def test_the_range_is_derived_once_from_the_reference_and_said() -> None:
    target = scene(np.linspace(0, 1000, 2500).reshape(1, 50, 50))
    table = evaluate(target, reference=target)
    assert table.settings["data_range"] == pytest.approx(998, abs=0.1)
    assert "percentiles 0.1 to 99.9 of the reference" in str(table)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.crop(y=slice(0, 10)), "crop or resample"),
        (lambda r: r.replace(grid=replace(r.grid, frame="EPSG:32619")), "EPSG:32619"),
        (lambda r: r.replace(channels=(r.channels[0]._replace(unit="mW"),)), "values in mW"),
    ],
)
def test_unlike_rasters_are_refused(change: Any, words: str) -> None:
    target = scene(RNG.normal(size=(1, 20, 20)), unit="K")
    with pytest.raises(InputError, match=words):
        evaluate(change(target), reference=target, data_range=1)


def test_another_pixel_count_over_the_same_field_of_view_is_refused() -> None:
    target = scene(RNG.normal(size=(1, 20, 20)))
    coarse = scene(RNG.normal(size=(1, 10, 10))).replace(grid=target.grid.coarsen(2))
    with pytest.raises(GeometryError, match=r"\(10, 10\) pixels over the field of view"):
        evaluate(coarse, reference=target, data_range=1)


def test_baselines_need_the_low_resolution_raster() -> None:
    target = scene(RNG.normal(size=(1, 20, 20)))
    with pytest.raises(InputError, match="give low="):
        evaluate(target, reference=target, baselines=("cubic",))


def test_baselines_and_consistency() -> None:
    truth = volume(field((16, 16, 16)))
    low = degrade(truth, 2, sensor=SENSOR, noise=False)
    table = evaluate(
        upscale(low, "nearest", scale=2), reference=truth, low=low, sensor=SENSOR, baselines=("cubic", "ibp")
    )
    assert table.methods == ("result", "cubic", "ibp")
    assert table.value("cubic", "psnr") > table.value("result", "psnr")
    assert table.value("ibp", "consistency") < 0.2 * table.value("cubic", "consistency")
    again = evaluate(truth, reference=truth, low=low, sensor=SENSOR, data_range=1000)
    assert again.value("result", "consistency") == pytest.approx(0, abs=1e-6)


def test_progress_reaches_its_total_once() -> None:
    truth = volume(field((16, 16, 16)))
    seen: list[tuple[int, int]] = []
    evaluate({"a": truth, "b": truth}, reference=truth, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * 16**3, 2 * 16**3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_wald_degrades_refines_and_compares() -> None:
    raster = volume(field((17, 20, 21)))
    seen: list[tuple[int, int]] = []
    result = wald(
        raster, "linear", scale={"z": 2, "y": 2}, sensor=SENSOR, progress=lambda done, total: seen.append((done, total))
    )
    assert list(result.outputs) == ["linear", "cubic", "ibp"]
    assert result.truth.shape == (16, 20, 21)
    assert result.low.shape == (8, 10, 21)
    for output in result.outputs.values():
        assert output.grid == result.truth.grid
    expected = metrics.psnr(
        result.outputs["cubic"].read().values,
        result.truth.read().values,
        data_range=result.table.settings["data_range"],
    )
    assert result.table.value("cubic", "psnr") == pytest.approx(expected, rel=1e-9)
    assert result.table.settings["scale"] == {"z": 2.0, "y": 2.0}
    assert "z 16 of 17" in result.table.settings["part"]
    assert seen[-1][0] == seen[-1][1]
    json.dumps(result.table.to_dict(), allow_nan=False)


def test_wald_on_a_centred_crop_says_so() -> None:
    raster = volume(field((20, 20, 20)))
    result = wald(raster, "cubic", scale=2, sensor=SENSOR, baselines=(), crop=12)
    assert result.truth.grid == raster.grid.crop((slice(4, 16),) * 3)
    assert result.table.settings["part"] == "its centre, z 12 of 20, y 12 of 20, x 12 of 20"
    whole = wald(raster, "cubic", scale=2, sensor=SENSOR, baselines=())
    assert whole.table.settings["part"] == "the whole input"


def test_wald_takes_sensor_scale_and_name_from_the_network_s_card() -> None:
    network = build_network("edsr", ndim=3, in_channels=1, scale=(1, 2, 2), features=4, blocks=1)
    raster = volume(field((12, 16, 18)))
    with pytest.raises(InputError, match="edsr does not say which sensor"):
        wald(raster, network)
    network.card = NetworkCard(name="tiny", sensor=load_sensor(SENSOR))
    result = wald(raster, network, baselines=("cubic",), device="cpu")
    assert list(result.outputs) == ["tiny", "cubic"]
    assert result.network == "tiny"
    assert result.table.settings["scale"] == {"y": 2.0, "x": 2.0}
    # an untrained network is the cubic that it adds its residual to
    assert result.table.value("tiny", "psnr") == pytest.approx(result.table.value("cubic", "psnr"), abs=1e-3)


def test_wald_crops_large_rasters_by_itself_and_long_series_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciSR.evaluation.protocol._CROP_VALUES", 12 * 16 * 16)
    array = np.stack([field((6, 20, 40), seed) for seed in range(7)])
    series = Raster.from_array(array, affine=np.eye(4), axes="tzyx", name="series")
    result = wald(series, "cubic", scale=2, sensor=SENSOR, baselines=())
    assert result.truth.shape[0] == 1
    assert result.table.settings["part"].startswith("its centre, t 1 of 7, z 6 of 6, y 20 of 20, x 24 of 40")
    assert math.prod(result.truth.shape) <= 12 * 16 * 16
    named = wald(series.crop(t=slice(0, 2)), "cubic", scale=2, sensor=SENSOR, baselines=(), crop={"x": 9})
    assert named.truth.shape == (2, 6, 20, 8)


def test_masks_that_do_not_fit_are_refused() -> None:
    raster = volume(field((12, 12, 12)))
    with pytest.raises(InputError, match="mask: shape"):
        evaluate(raster, reference=raster, data_range=1, mask=np.ones((3, 3)))
    with pytest.raises(InputError, match="mask: shape"):
        wald(raster, "cubic", scale=2, sensor=SENSOR, mask=np.ones((3, 3)))
    with pytest.raises(GeometryError, match="the mask covers"):
        evaluate(raster, reference=raster, data_range=1, mask=raster.crop(z=slice(0, 6)))


def test_low_of_another_place_and_an_impossible_range_are_refused() -> None:
    raster = volume(field((12, 12, 12)))
    low = degrade(raster.crop(z=slice(0, 6)), 2, sensor=SENSOR)
    with pytest.raises(GeometryError, match="the raster that the result was made from"):
        evaluate(raster, reference=raster, low=low, baselines=("cubic",))
    with pytest.raises(InputError, match="data_range -1"):
        evaluate(raster, reference=raster, data_range=-1)


def test_wald_crops_the_mask_along() -> None:
    raster = volume(field((20, 20, 20)))
    mask = np.zeros((20, 20, 20), bool)
    mask[5:9, 6:10, 7:11] = True
    tables = [
        wald(raster, "cubic", scale=2, sensor=SENSOR, baselines=(), crop=12, mask=m).table
        for m in (mask, volume(mask.astype(np.uint8), "mask", None))
    ]
    assert tables[0].rows[1].pixels == 64
    assert tables[0].to_dict() == tables[1].to_dict()


def test_wald_needs_a_scale_a_sensor_and_pixels() -> None:
    raster = volume(field((3, 8, 8)))
    with pytest.raises(InputError, match="give scale="):
        wald(raster, "cubic", sensor=SENSOR)
    with pytest.raises(InputError, match="give sensor="):
        wald(raster, "cubic", scale=2)
    with pytest.raises(GeometryError, match="3 pixels along z"):
        wald(raster, "cubic", scale={"z": 4}, sensor=SENSOR)


def test_wald_on_missing_pixels_and_one_channel_of_ints() -> None:
    array = RNG.integers(100, 4000, (2, 30, 30)).astype(np.uint16)
    array[:, :8, :8] = 0
    result = wald(scene(array, nodata=0), "cubic", scale=2, sensor=SENSOR, baselines=("nearest",))
    assert result.truth.dtype == np.float32
    rows = {row.method: row.pixels for row in result.table.rows if row.part == "all"}
    assert 2 * (900 - 200) < rows["cubic"] <= 2 * (900 - 64)
    assert math.isfinite(result.table.value("cubic", "psnr"))


def test_subjects_join() -> None:
    tables = []
    for seed in range(3):
        raster = volume(field((12, 12, 12), seed), name=f"subject-{seed}")
        tables.append(wald(raster, "cubic", scale=2, sensor=SENSOR, baselines=("nearest",), data_range=2000).table)
    joined = ScoreTable.join(tables)
    gain = joined.interval("cubic", "psnr", minus="nearest")
    assert gain.subjects == 3
    assert "mean of 3" in joined.to_markdown()


def test_the_size_of_the_pieces_does_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = scene(RNG.uniform(100, 900, (2, 30, 17)))
    result = scene(truth.read().values + RNG.normal(0, 30, (2, 30, 17)))
    low = degrade(truth, 1.5, sensor=SENSOR)
    found = []
    for values in (2**21, 40):
        monkeypatch.setattr("sciSR.evaluation.comparison._PIECE_VALUES", values)
        found.append(evaluate(result, reference=truth, low=low, data_range=800))
    for one, other in zip(found[0].rows, found[1].rows, strict=True):
        assert one.values == pytest.approx(other.values, rel=1e-9)
    assert {"sam", "ergas"} <= set(found[0].metrics)


@pytest.mark.parametrize(
    ("name", "scale", "sensor", "gain"),
    [("mri_t1_head_crop.nii.gz", 2, "mri", 1.0), ("sentinel2_crop.tif", 2, "sentinel-2", 2.0)],
)
def test_on_real_crops_back_projection_beats_cubic_and_explains_its_input(
    name: str, scale: int, sensor: str, gain: float
) -> None:
    raster = open_raster(Path(__file__).parents[1] / "examples" / "data" / name)
    table = wald(raster, "cubic", scale=scale, sensor=sensor, baselines=("ibp",), crop=64).table
    assert table.value("ibp", "psnr") > table.value("cubic", "psnr") + gain
    assert table.value("ibp", "ssim") > table.value("cubic", "ssim")
    assert table.value("ibp", "consistency") < 0.002
    assert 0.004 < table.value("cubic", "consistency") < 0.05


def test_slabs_are_whole_and_in_order() -> None:
    array = RNG.normal(size=(2, 9, 8))
    raster = scene(array).replace(source=Chunked(array, (2, 4, 3)))
    seen = [window for window, _ in slabs(raster)]
    assert [(w[1].start, w[1].stop) for w in seen] == [(0, 4), (4, 8), (8, 9)]
    assert all(w[0] == slice(0, 2) and w[2] == slice(0, 8) for w in seen)

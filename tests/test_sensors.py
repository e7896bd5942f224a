"""Sensors as data: files, names, bands, widths, and the operator's properties."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sciSR.cli import main
from sciSR.degradation import list_sensors, load_sensor
from sciSR.errors import InputError, MissingFileError
from sciSR.sensors import Band, Noise, Profile, Sensor, fwhm_of_mtf

ISOTROPIC = ["box", "ct", "generic-gaussian", "landsat-8", "mri", "mri-kspace", "sentinel-2"]
THROUGH_PLANE = ["ct-thick", "mri-slr", "mri-thick"]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_shipped_sensors_are_all_here() -> None:
    assert list_sensors() == sorted(ISOTROPIC + THROUGH_PLANE)


@pytest.mark.parametrize("name", ISOTROPIC + THROUGH_PLANE)
def test_every_shipped_sensor_names_its_source_and_survives_plain_values(name: str) -> None:
    sensor = load_sensor(name)
    assert sensor.name == name
    assert len(sensor.source) > 20
    assert Sensor.from_dict(sensor.to_dict()) == sensor


@pytest.mark.parametrize("name", ISOTROPIC)
@pytest.mark.parametrize("scale", [2, 3, 4, 2.5, (1, 2.3)])
def test_constant_stays_constant(name: str, scale: Any) -> None:
    x = torch.full((1, 2, 24, 25), 3.5, dtype=torch.float64)
    assert (load_sensor(name).apply(x, scale) - 3.5).abs().max() < 1e-12


@pytest.mark.parametrize("name", ISOTROPIC)
@pytest.mark.parametrize("factor", [2, 3, 3.5])
def test_sampling_is_centre_aligned(name: str, factor: float) -> None:
    n = 84
    ramp = ((torch.arange(n, dtype=torch.float64) + 0.5) / n).expand(1, 1, 4, n)
    out = load_sensor(name).apply(ramp, (1, factor))[0, 0, 0]
    world = (torch.arange(len(out), dtype=torch.float64) + 0.5) / len(out)
    inside = slice(8, len(out) - 8)
    tolerance = 2e-4 if name == "mri-kspace" else 1e-9  # a sinc that is cut does not meet a ramp exactly
    assert (out - world)[inside].abs().max() < tolerance


def test_factor_one_leaves_an_axis_alone() -> None:
    x = noise(1, 1, 8, 6, 5)
    out = load_sensor("mri-thick").apply(x, {"z": 4})
    assert out.shape == (1, 1, 2, 6, 5)
    assert torch.equal(load_sensor("mri").apply(x, 1), x)


def test_box_is_the_mean_over_the_pixel() -> None:
    x = noise(1, 1, 6, 8)
    wanted = x.reshape(1, 1, 3, 2, 4, 2).mean(dim=(3, 5))
    assert (load_sensor("box").apply(x, 2) - wanted).abs().max() < 1e-12


def test_profile_without_an_axis_refuses_to_make_it_coarser() -> None:
    with pytest.raises(InputError, match="axis x has no profile"):
        load_sensor("mri-thick").apply(noise(1, 1, 8, 8, 8), {"x": 2})


@pytest.mark.parametrize(("scale", "words"), [(0.5, "0.5 on axis y"), ((2,), "1 factors came"), ({"q": 2}, "axis q")])
def test_wrong_factors_are_refused(scale: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_sensor("box").apply(noise(1, 1, 8, 8), scale)


@pytest.mark.parametrize("name", ISOTROPIC)
@pytest.mark.parametrize("factor", [2, 3, 4, 2.6])
def test_radius_bounds_what_a_coarse_pixel_sees(name: str, factor: float) -> None:
    sensor = load_sensor(name)
    n = 96
    size = max(1, round(n / factor))
    step = n / size
    radius = sensor.radius((1, step))[1]
    x = torch.eye(n, dtype=torch.float64).reshape(n, 1, 1, n)
    seen = (sensor.apply(x, (1, step)).reshape(n, size) != 0).T
    for coarse in range(size // 3, 2 * size // 3):
        fine = seen[coarse].nonzero().flatten()
        assert int(fine[0]) >= math.floor(coarse * step) - radius
        assert int(fine[-1]) < math.ceil((coarse + 1) * step) + radius


def test_transfer_at_nyquist_is_the_stated_mtf() -> None:
    factor, n = 16, 16 * 64
    sensor = Sensor(bands=(Band("a", 0.3), Band("b", 0.15)))
    wave = torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / factor - math.pi / 2)
    out = sensor.apply(wave.expand(1, 2, 1, n), (1, factor))[0, :, 0, 8:-8].abs()
    assert out[0].mean() == pytest.approx(0.3, abs=1e-3)
    assert out[1].mean() == pytest.approx(0.15, abs=1e-3)
    assert math.exp(-0.5 * (math.pi * fwhm_of_mtf(0.3) / 2.3548200450309493) ** 2) == pytest.approx(0.3)


def test_gaussian_widths_add_in_squares() -> None:
    n = 128
    impulse = torch.zeros(1, 1, 1, n, dtype=torch.float64)
    impulse[..., n // 2] = 1
    whole = Sensor(x=Profile("gaussian", 1.0)).apply(impulse, (1, 8))
    blurred = torch.exp(-4 * math.log(2) * ((torch.arange(n) - n // 2) / 5.0) ** 2).to(impulse).reshape(impulse.shape)
    rest = Sensor(x=Profile("gaussian", 1.0, fine_fwhm=5.0)).apply(blurred / blurred.sum(), (1, 8))
    assert (whole - rest).abs().max() < 2e-4 * whole.max()


def test_millimetres_need_a_spacing() -> None:
    sensor = Sensor("slab", z=Profile("box", fwhm_mm=5.0), y=Profile("none"), x=Profile("none"))
    with pytest.raises(InputError, match="5 mm"):
        sensor.apply(noise(1, 1, 8, 4, 4), {"z": 2})
    gap = sensor.at({"z": 10.0, "y": 1.0, "x": 1.0})
    assert gap.z == Profile("box", 0.5)
    x = noise(1, 1, 8, 4, 4)
    assert (gap.apply(x, {"z": 4})[0, 0, 0] - x[0, 0, 1:3].mean(0)).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["B02", "b2", "B2 - 490 nm", "S2A_B02_10m", "blue", "Blue band"])
def test_bands_are_found_by_name(name: str) -> None:
    assert load_sensor("s2").for_channels([name]).bands[0].name == "B02"


def test_bands_with_like_names_are_told_apart() -> None:
    found = load_sensor("s2").for_channels(["B8A", "B08", "B12", "B1", "red", None])
    assert [band.name for band in found.bands] == ["B8A", "B08", "B12", "B01", "B04", "channel 6"]
    assert found.bands[5].mtf == 0.26


def test_channels_that_are_no_bands() -> None:
    strict = replace(load_sensor("s2"), other_mtf=None)
    with pytest.raises(InputError, match=r"channel 2 \(swir9\)"):
        strict.for_channels(["B02", "swir9"])
    with pytest.raises(InputError, match="3 channels came for its 12 bands"):
        strict.apply(noise(1, 3, 8, 8), 2)
    four = load_sensor("s2").apply(noise(1, 4, 8, 8), 2)
    assert four.shape == (1, 4, 4, 4)


def test_gaussian_noise_has_the_stated_deviation_and_seed() -> None:
    sensor = Sensor(noise=Noise("gaussian", 0.05))
    x = torch.zeros(1, 1, 400, 400)
    first = sensor.apply(x, 2, generator=torch.Generator().manual_seed(1), data_range=10.0)
    assert float(first.std()) == pytest.approx(0.5, rel=0.02)
    assert torch.equal(first, sensor.apply(x, 2, generator=torch.Generator().manual_seed(1), data_range=10.0))
    assert torch.equal(sensor.apply(x, 2, noise=False), torch.zeros(1, 1, 200, 200))
    assert sensor.noiseless().noise == Noise()


def test_rician_noise_has_its_floor_and_is_never_negative() -> None:
    out = Sensor(noise=Noise("rician", 0.1)).apply(torch.zeros(1, 1, 600, 600), 2)
    assert float(out.min()) >= 0
    assert float(out.mean()) == pytest.approx(0.1 * math.sqrt(math.pi / 2), rel=0.01)


def test_operator_can_be_differentiated() -> None:
    sensor = load_sensor("s2").for_channels(["B02", "B04"])
    x = noise(1, 2, 6, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: sensor.apply(v, 3, noise=False), x)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"axes": {"kind": "gausian"}}, "gausian"),
        ({"axes": {"knid": "box"}}, "did you mean kind"),
        ({"blur": 3}, "unknown key 'blur'"),
        ({"z": 4}, "sensor: z: 4 came"),
        ({"axes": {"fwhm": 0}}, "fwhm 0 is not"),
        ({"axes": {"fwhm_mm": -1}}, "fwhm_mm -1"),
        ({"axes": {"kind": "slr", "edge": 1.5}}, "edge 1.5"),
        ({"axes": {"kind": "kspace", "lobes": 0}}, "lobes 0"),
        ({"axes": {"fine_fwhm": -1}}, "fine_fwhm -1"),
        ({"axes": {"kind": "box", "fine_fwhm": 1}}, "for gaussian profiles"),
        ({"noise": {"kind": "poisson"}}, "poisson"),
        ({"noise": {"kind": "gaussian", "std": -1}}, "std -1"),
        ({"bands": [{"name": "a", "mtf": 1.5}]}, "MTF 1.5"),
        ({"other_mtf": 2}, "other_mtf 2"),
        ({"axes": {"kind": "box"}, "bands": [{"name": "a", "mtf": 0.5}]}, "needs gaussian profiles"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Sensor.from_dict(values)


def test_own_files_and_unknown_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("axes: {kind: box, fwhm: 1.2}\nsource: measured\n")
    assert (
        load_sensor(str(file))
        == load_sensor(file)
        == Sensor.from_dict({"name": "mine", "axes": {"kind": "box", "fwhm": 1.2}, "source": "measured"})
    )
    with pytest.raises(MissingFileError, match="no such sensor file"):
        load_sensor(str(tmp_path / "other.yaml"))
    with pytest.raises(InputError, match="'sentinell' is not one of box, ct"):
        load_sensor("sentinell")
    for text, words in (("axes: [", "not valid YAML"), ("3", "expected a mapping"), ("axs: 1", "bad.yaml: sensor")):
        bad = tmp_path / "bad.yaml"
        bad.write_text(text)
        with pytest.raises(InputError, match=words):
            load_sensor(bad)


def test_the_command_lists_every_sensor_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--sensors", "--json"]) == 0
    told = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert sorted(told) == list_sensors()
    assert told["mri-slr"]["source"] == load_sensor("mri-slr").source
    assert main(["models", "--sensors"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{each['description']} {' '.join(each['source'].split())}" in text for each in told.values())

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciSR.degradation import load_sensor
from sciSR.errors import InputError
from sciSR.normalization import IntensityMap
from sciSR.sampling import Augmentation, Crop, PairMaker, Patch, widened
from sciSR.sensors import Noise, Profile, Sensor, fwhm_of_mtf

STILL = Augmentation(flip=False, swap=False)


def crop(shape: tuple[int, ...] = (40, 44, 48), channels: int = 1, **changes: Any) -> Crop:
    values = torch.rand(channels, *shape, generator=torch.Generator().manual_seed(0))
    fields: dict[str, Any] = {"spacing": (1.0,) * len(shape), "intensity": IntensityMap()} | changes
    return Crop(name="crop", high=values, **fields)


def maker(*crops: Crop, scale: tuple[int, ...] = (2, 2, 2), patch: int = 6, **changes: Any) -> PairMaker:
    fields: dict[str, Any] = {"sensor": load_sensor("mri"), "augmentation": STILL} | changes
    return PairMaker(crops, patch=(patch,) * len(scale), scale=scale, **fields)


def _under(source: Crop, patch: Patch) -> torch.Tensor:
    return source.high[(slice(None), *(slice(a, a + n) for a, n in zip(patch.start, patch.size, strict=True)))]


@pytest.mark.parametrize("scale", [(2, 2, 2), (4, 1, 1), (3, 2, 1)])
def test_pairs_are_what_the_sensor_makes_of_the_whole_image(scale: tuple[int, ...]) -> None:
    sensor = load_sensor("mri")
    source = crop((48, 48, 48))
    made = maker(source, scale=scale, sensor=sensor)
    low, high, patches = made.make(0, 3, range(5))
    assert tuple(low.shape) == (5, 1, 6, 6, 6)
    assert tuple(high.shape) == (5, 1, *(6 * s for s in scale))
    whole = [_under(source, p)[None] for p in patches]
    for i, fine in enumerate(whole):
        coarse = sensor.apply(fine, scale)
        for axis, (m, s) in enumerate(zip(made.margin, scale, strict=True), 2):
            coarse = coarse.narrow(axis, m, 6)
            fine = fine.narrow(axis, m * s, 6 * s)
        torch.testing.assert_close(low[i : i + 1], coarse, atol=1e-6, rtol=0)
        assert torch.equal(high[i : i + 1], fine)


def test_bands_keep_their_own_transfer_function() -> None:
    sensor = load_sensor("sentinel-2").for_channels(["B02", "B03", "B04", "B08"])
    source = crop((64, 64), channels=4)
    made = maker(source, scale=(2, 2), sensor=sensor)
    low, _, patches = made.make(0, 0, range(3))
    coarse = sensor.apply(torch.stack([_under(source, p) for p in patches]), (2, 2))
    (m, n) = made.margin
    torch.testing.assert_close(low, coarse[:, :, m : m + 6, n : n + 6], atol=1e-6, rtol=0)


def test_the_same_key_gives_the_same_pair_whoever_else_is_in_the_batch() -> None:
    vary = Augmentation(gain=(0.5, 2), gamma=(0.5, 2), invert=0.5, width=(0.8, 1.25), noise=(0.01, 0.1))
    made = maker(crop(), augmentation=vary)
    together = made.make(7, 11, range(4, 8))
    alone = made.make(7, 11, [6])
    assert torch.equal(together.low[2:3], alone.low)
    assert torch.equal(together.high[2:3], alone.high)
    assert not torch.equal(made.make(7, 12, [6]).low, alone.low)


def test_axes_are_swapped_only_where_pixels_are_about_equal() -> None:
    values = torch.zeros(1, 40, 40, 40) + torch.arange(40.0)[:, None, None]  # grows along z alone

    def growing(spacing: tuple[float, ...]) -> set[int]:
        source = Crop(name="ramp", high=values, spacing=spacing, intensity=IntensityMap())
        made = maker(source, augmentation=Augmentation(), uniform=True)
        high = made.make(0, 0, range(40)).high
        return {int(torch.tensor([h.diff(dim=a).abs().max() for a in (1, 2, 3)]).argmax()) for h in high}

    assert growing((1.0, 1.0, 1.1)) == {0, 1, 2}
    assert growing((3.0, 1.0, 1.0)) == {0}


def test_flips_show_all_orientations() -> None:
    values = torch.arange(40.0)[None, :, None] + 100 * torch.arange(40.0)[None, None, :]
    source = Crop(name="ramp", high=values, spacing=(1.0, 1.0), intensity=IntensityMap())
    made = maker(source, scale=(2, 2), augmentation=Augmentation(swap=False), uniform=True)
    high = made.make(0, 0, range(32)).high[:, 0]
    signs = {(bool(h[1, 0] > h[0, 0]), bool(h[0, 1] > h[0, 0])) for h in high}
    assert len(signs) == 4


def test_a_patch_of_a_flat_image_stays_flat_and_gain_scales_both() -> None:
    source = Crop(name="flat", high=torch.full((1, 40, 40, 40), 0.5), spacing=(1.0,) * 3, intensity=IntensityMap())
    vary = Augmentation(gain=(0.5, 2.0), width=(0.7, 1.4))
    low, high, _ = maker(source, augmentation=vary, uniform=True).make(0, 0, range(6))
    torch.testing.assert_close(low.mean(dim=(1, 2, 3, 4)), high.mean(dim=(1, 2, 3, 4)))
    assert float((low.amax(dim=(1, 2, 3, 4)) - low.amin(dim=(1, 2, 3, 4))).max()) < 1e-6
    assert float(high.amax()) > 1.3 * float(high.amin())


def test_noise_has_the_size_that_was_asked_for() -> None:
    source = Crop(name="flat", high=torch.full((1, 60, 60, 60), 0.5), spacing=(1.0,) * 3, intensity=IntensityMap())
    made = maker(source, patch=16, uniform=True, augmentation=Augmentation(noise=(0.05, 0.05)))
    low, high, _ = made.make(0, 0, range(4))
    assert float((low - 0.5).std()) == pytest.approx(0.05, rel=0.03)
    assert float(high.std()) == 0
    rician = Sensor("rician", noise=Noise("rician", 0.5))
    loud = maker(source, patch=16, uniform=True, sensor=rician).make(0, 0, range(4)).low
    assert float(loud.min()) >= 0
    # Rice distribution of nu = sigma = 0.5: mean sigma sqrt(pi / 2) L(-1/2) = 0.5 * 1.5486
    assert float(loud.mean()) == pytest.approx(0.774, abs=0.01)


def test_a_wider_sensor_smooths_more() -> None:
    low = {
        w: maker(crop(), augmentation=Augmentation(False, False, width=(w, w))).make(0, 0, range(8)).low
        for w in (0.8, 1.3)
    }
    assert float(low[1.3].std()) < 0.8 * float(low[0.8].std())
    wide = widened(load_sensor("sentinel-2"), 1.5)
    plain = load_sensor("sentinel-2")
    assert fwhm_of_mtf(wide.bands[1].mtf) == pytest.approx(1.5 * fwhm_of_mtf(plain.bands[1].mtf))
    assert widened(Sensor(z=Profile("box", 2.0)), 0.5).z == Profile("box", 1.0)


def test_measured_pairs_are_turned_together() -> None:
    low = torch.rand(1, 20, 20, 20)
    high = low.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    source = Crop(name="pair", high=high, low=low, spacing=(1.0,) * 3, intensity=IntensityMap())
    made = maker(source, sensor=None, augmentation=Augmentation(gain=(0.5, 2.0)))
    pair = made.make(0, 0, range(8))
    again = pair.low.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    torch.testing.assert_close(pair.high, again)
    with pytest.raises(InputError, match="some references have a measured coarse partner"):
        maker(source, crop(), sensor=None)
    with pytest.raises(InputError, match="need a sensor"):
        maker(crop(), sensor=None)


@pytest.mark.parametrize("wrong", [{"gain": (2.0, 1.0)}, {"width": (0.0, 1.0)}, {"noise": (-1, 0)}, {"invert": 1.5}])
def test_ranges_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="augment"):
        Augmentation(**wrong)

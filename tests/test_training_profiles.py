from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciSR.errors import InputError
from sciSR.raster import Metadata, Raster
from sciSR.sensors import Profile, Sensor
from sciSR.training.profiles import estimate_fwhm, stated_fwhm


def tissue(shape: tuple[int, int, int]) -> torch.Tensor:
    """Noise with the falling spectrum of natural images, the same along every axis."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.fftn(torch.randn(shape, generator=generator))
    axes = torch.meshgrid(*[torch.fft.fftfreq(n) for n in shape], indexing="ij")
    radius = torch.stack([a.square() for a in axes]).sum(dim=0).sqrt().clamp_min(1 / max(shape))
    values: torch.Tensor = torch.fft.ifftn(spectrum / radius**2.2).real
    return values / values.std()


@pytest.mark.parametrize("fwhm", [0.7, 1.0, 1.4])
def test_the_width_of_the_slices_is_found_in_the_spectrum(fwhm: float) -> None:
    fine = tissue((128, 96, 96))
    thick = Sensor(z=Profile("gaussian", fwhm)).apply(fine[None, None], (4.0, 1, 1))[0, 0]
    assert estimate_fwhm(thick, (4.0, 1.0, 1.0)) == pytest.approx(fwhm, abs=0.25)


def test_what_cannot_tell_is_refused() -> None:
    with pytest.raises(InputError, match="4 slices are too few"):
        estimate_fwhm(torch.rand(4, 64, 64), (4.0, 1.0, 1.0))
    with pytest.raises(InputError, match="not much thicker"):
        estimate_fwhm(torch.rand(32, 64, 64), (1.0, 1.0, 1.0))
    flicker = (-1.0) ** torch.arange(32)[:, None, None]  # no slice makes an image sharper across than within
    with pytest.raises(InputError, match="does not tell"):
        estimate_fwhm(tissue((32, 64, 64)) * flicker, (4.0, 1.0, 1.0))


def test_a_sidecar_states_the_thickness() -> None:
    scan = Raster.from_array(np.zeros((8, 8, 8)), affine=np.diag([1.0, 1.0, 6.5, 1.0]), axes="zyx", name="scan")
    assert stated_fwhm(scan) is None
    known = replace(scan, metadata=Metadata("nifti", scan.grid, {"sidecar": {"SliceThickness": 5.2}}))
    assert stated_fwhm(known) == pytest.approx(0.8)
    wrong = replace(scan, metadata=Metadata("nifti", scan.grid, {"sidecar": {"SliceThickness": "thick"}}))
    with pytest.raises(InputError, match="SliceThickness of 'thick'"):
        stated_fwhm(wrong)

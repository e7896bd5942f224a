"""MATLAB's arithmetic and the three protocols."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sciSR.benchmark_images import (
    Protocol,
    benchmark_low,
    benchmark_score,
    imresize,
    modcrop,
    rgb_to_ycbcr,
    ycbcr_to_rgb,
)
from sciSR.errors import InputError


def photo(shape: tuple[int, ...] = (41, 53, 3), seed: int = 0) -> NDArray[np.uint8]:
    """Something smooth with edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    base = 120 + 60 * np.sin(x / 5) * np.cos(y / 7) + 50 * ((x + y) % 23 > 11)
    noise = rng.normal(0, 6, shape)
    values = np.clip(np.round(base.reshape(shape[:2] + (1,) * (len(shape) - 2)) + noise), 0, 255)
    return np.asarray(values, dtype=np.uint8)


def keys(d: float) -> float:
    d = abs(d)
    if d <= 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def row(values: NDArray[np.float64], scale: float) -> list[float]:
    """One row resized, written out as MATLAB's documentation of the method says, counting from 1."""
    n = len(values)
    shrink = min(scale, 1.0)
    width = 4 / shrink
    result = []
    for i in range(1, math.ceil(n * scale) + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        places = range(left, left + math.ceil(width) + 2)
        weights = [keys(shrink * (u - p)) for p in places]
        mirrored = [((p - 1) % (2 * n)) for p in places]
        picked = [values[m if m < n else 2 * n - 1 - m] for m in mirrored]
        result.append(sum(w * v for w, v in zip(weights, picked, strict=True)) / sum(weights))
    return result


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2.0, 3.0, 4.0])
def test_rows_are_matlab_s(scale: float) -> None:
    values = np.random.default_rng(0).random(24)
    expected = np.array(row(values, scale))
    # the other axis is constant, so it must not change anything
    image = np.broadcast_to(values, (12, 24)).copy()
    result = imresize(image, scale)
    assert result.shape == (round(12 * scale), round(24 * scale))
    np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_inside_it_is_pillow_s_bicubic(factor: int) -> None:
    image = photo((48, 60)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((60 // factor, 48 // factor), Image.Resampling.BICUBIC))
    rim = 3
    np.testing.assert_allclose(imresize(image, 1 / factor)[rim:-rim, rim:-rim], expected[rim:-rim, rim:-rim], atol=1e-3)


def test_uint8_is_rounded_and_cut_after_each_pass() -> None:
    image = photo((24, 36, 3))
    first = np.clip(np.floor(np.apply_along_axis(row, 0, image.astype(float), 0.5) + 0.5), 0, 255)
    second = np.clip(np.floor(np.apply_along_axis(row, 1, first, 0.5) + 0.5), 0, 255)
    result = imresize(image, 0.5)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, second)
    once = np.clip(np.floor(imresize(image.astype(float), 0.5) + 0.5), 0, 255)
    assert (result != once).any()


def test_ycbcr_of_the_corners_is_bt_601() -> None:
    corners = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    expected = [[16, 128, 128], [235, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110]]
    np.testing.assert_array_equal(np.round(rgb_to_ycbcr(corners)), expected)
    rgb = np.random.default_rng(0).random((5, 6, 3))
    np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, atol=1e-12)


def test_inputs_by_protocol() -> None:
    image = photo()
    one, two, three = (benchmark_low(image, 2, protocol) for protocol in ("P1", "P2", "P3"))
    assert (one.shape, two.shape, three.shape) == ((20, 26), (20, 26, 3), (20, 26))
    assert two.dtype == np.uint8
    luma = rgb_to_ycbcr(image[:40, :52] / 255)[..., 0]
    np.testing.assert_allclose(one * 255, imresize(np.floor(luma + 0.5), 0.5), atol=1e-9)
    np.testing.assert_allclose(three * 255, imresize(luma, 0.5), atol=1e-9)
    assert not np.allclose(one, three, atol=1e-6)


@pytest.mark.parametrize("protocol", ["P1", "P2"])
def test_a_perfect_result_scores_perfectly(protocol: Protocol) -> None:
    image = photo()
    rgb = modcrop(image, 3) / 255
    luma = rgb_to_ycbcr(rgb)[..., 0] / 255
    score = benchmark_score(rgb if protocol == "P2" else luma, image, 3, protocol)
    assert score.psnr == math.inf
    assert score.ssim == pytest.approx(1)


def test_p3_of_a_grey_image_is_perfect_too() -> None:
    grey = photo((40, 44))
    result = rgb_to_ycbcr(np.repeat(grey[..., None], 3, axis=2) / 255)[..., 0] / 255
    assert benchmark_score(result, grey, 2, "P3").psnr == math.inf


def test_rounding_is_where_each_protocol_has_it() -> None:
    image = photo()
    luma = rgb_to_ycbcr(modcrop(image, 2) / 255)[..., 0] / 255
    shy = luma + 0.2 / 255
    one = benchmark_score(shy, image, 2, "P1")
    wrong = np.floor(luma * 255 + 0.2 + 0.5) != np.floor(luma * 255 + 0.5)
    share = wrong[2:-2, 2:-2].mean()
    assert 0 < share < 1
    assert one.psnr == pytest.approx(10 * math.log10(255**2 / share))
    rgb = modcrop(image, 2) / 255
    assert benchmark_score(rgb + 0.4 / 255, image, 2, "P2").psnr == math.inf
    offset = benchmark_score(rgb * 0.9 + 0.05, image, 2, "P2").psnr
    assert offset < 40


def test_the_border_does_not_count() -> None:
    image = photo((30, 33, 3))
    rgb = modcrop(image, 3) / 255
    spoilt = rgb.copy()
    spoilt[:3] = spoilt[-3:] = 0
    spoilt[:, :3] = spoilt[:, -3:] = 1
    assert benchmark_score(spoilt, image, 3, "P2").psnr == math.inf
    spoilt[3, 3] = 0
    assert benchmark_score(spoilt, image, 3, "P2").psnr < 80


def test_bicubic_loses_with_the_factor_and_protocols_are_near_each_other() -> None:
    image = photo((96, 96, 3))
    scores = {}
    for factor in (2, 3, 4):
        up = imresize(benchmark_low(image, factor, "P1"), float(factor))
        scores[factor] = benchmark_score(up, image, factor, "P1")
    assert scores[2].psnr > scores[3].psnr > scores[4].psnr
    assert scores[2].ssim > scores[3].ssim > scores[4].ssim
    colour = imresize(benchmark_low(image, 2, "P2") / 255, 2.0)
    assert benchmark_score(colour, image, 2, "P2").psnr == pytest.approx(scores[2].psnr, abs=0.2)


def test_grey_images_count_as_colour() -> None:
    grey = photo((30, 30))
    colour = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(benchmark_low(grey, 2, "P2"), benchmark_low(colour, 2, "P2"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="expected uint8"):
        benchmark_low(np.zeros((8, 8, 3)), 2, "P1")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InputError, match="'P4' is not P1, P2 or P3"):
        benchmark_low(photo(), 2, "P4")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InputError, match="no multiple of 9"):
        benchmark_low(photo((8, 8)), 9, "P1")
    with pytest.raises(InputError, match=r"expected \(40, 52, 3\)"):
        benchmark_score(np.zeros((41, 53, 3)), photo(), 2, "P2")

"""Stored and physical values: rounding, saturation, nodata."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciSR.encoding import Encoding, stored_mark, work_dtype
from sciSR.errors import InputError

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_stored_values_come_back_as_they_were(dtype: str) -> None:
    info = np.iinfo(dtype)
    stored = np.array([info.min, info.min + 1, 0, 1, info.max - 1, info.max], dtype)
    encoding = Encoding(dtype)
    values, valid = encoding.decode(stored)
    assert valid is None
    np.testing.assert_array_equal(encoding.encode(values), stored)


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, -0.1), (0.02, 273.15), (-2.0, 5.0), (1.0, -1024.0)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_scaled_integers_come_back_on_their_slope(dtype: str, scale: float, offset: float) -> None:
    info = np.iinfo(dtype)
    stored = np.unique(np.linspace(info.min, info.max, 4001).astype(np.int64)).astype(dtype)
    encoding = Encoding(dtype, (scale,), (offset,))
    values, _ = encoding.decode(stored)
    np.testing.assert_allclose(values.astype(float), stored.astype(float) * scale + offset, rtol=1e-6)
    np.testing.assert_array_equal(encoding.encode(values), stored)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("values_type", [np.float32, np.float64])
def test_values_beyond_the_type_saturate(dtype: str, values_type: Any) -> None:
    info = np.iinfo(dtype)
    values = np.array(
        [-1e30, float(info.min) * 1.5 - 10, float(info.max) * 1.5 + 10, 1e30, np.inf, -np.inf], values_type
    )
    expected = [info.min, info.min, info.max, info.max, info.max, info.min]
    assert Encoding(dtype).encode(values).tolist() == expected


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", ">i2", "float16", "float32", ">f4"])
def test_narrow_types_are_computed_in_float32(dtype: str) -> None:
    assert work_dtype(np.dtype(dtype)) == np.float32


@pytest.mark.parametrize("dtype", ["int32", ">u4", "int64", "uint64", "float64", ">f8"])
def test_wide_types_are_computed_in_float64(dtype: str) -> None:
    assert work_dtype(np.dtype(dtype)) == np.float64


def test_reflectance_above_ten_thousand_survives() -> None:
    assert Encoding("uint16").encode(np.array([14000.4, 65534.6], np.float32)).tolist() == [14000, 65535]


@pytest.mark.parametrize("values_type", [np.float32, np.float64])
def test_halves_round_to_even(values_type: Any) -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 3.4999], values_type)
    assert Encoding("int16").encode(values).tolist() == [0, 2, 2, 0, -2, 3]


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", -9999.0), ("uint8", 256.0), ("uint16", 0.5), ("int16", np.nan), ("uint8", -np.inf)]
)
def test_nodata_outside_the_type_marks_nothing(dtype: str, nodata: float) -> None:
    encoding = Encoding(dtype, nodata=(nodata,))
    stored = np.arange(256).astype(dtype)
    values, valid = encoding.decode(stored)
    assert valid is None
    np.testing.assert_array_equal(encoding.encode(values), stored)


def test_nodata_is_not_wrapped_into_a_legal_value() -> None:
    # -9999 modulo 256 is 241: a wrapped mark would hide those pixels
    values = np.array([241.0, 3.0, 7.0], np.float32)
    stored = Encoding("uint8", nodata=(-9999.0,)).encode(values, np.array([True, False, True]))
    assert stored.tolist() == [241, 0, 7]


@pytest.mark.parametrize(
    ("dtype", "nodata", "clash", "moved"),
    [
        ("uint16", 0.0, [0.2, -5.0], [1, 1]),
        ("uint16", 65535.0, [65535.0, 1e9], [65534, 65534]),
        ("int16", -1.0, [-1.0], [0]),
    ],
)
def test_a_valid_value_never_equals_nodata(dtype: str, nodata: float, clash: list[float], moved: list[int]) -> None:
    encoding = Encoding(dtype, nodata=(nodata,))
    stored = encoding.encode(np.array(clash, np.float32))
    assert stored.tolist() == moved
    assert encoding.decode(stored)[1] is None


@pytest.mark.parametrize("nodata", [-9999.0, 0.0, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)])
def test_a_valid_float_moves_by_one_step_from_nodata(nodata: float) -> None:
    encoding = Encoding("float32", nodata=(nodata,))
    stored = encoding.encode(np.array([nodata], np.float32))
    assert encoding.decode(stored)[1] is None
    assert np.isfinite(stored).all()
    assert abs(float(stored[0]) - nodata) <= abs(nodata) * 1.2e-7 + 1e-44


def test_the_text_of_the_least_float32_marks_it() -> None:
    # as many files state it: the double just below float32's least
    encoding = Encoding("float32", nodata=(-3.40282346638529e38,))
    stored = np.array([np.finfo(np.float32).min, 5.0], np.float32)
    valid = encoding.decode(stored)[1]
    assert valid is not None
    assert valid.tolist() == [False, True]


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number_is_no_value(hole: float) -> None:
    stored = np.array([[1.0, hole, 3.0], [4.0, 7.0, hole]], np.float32)
    for encoding in (Encoding("float32"), Encoding("float32", nodata=(7.0,)), Encoding("float32", (2.0,), (1.0,))):
        valid = encoding.decode(stored)[1]
        assert valid is not None
        expected = np.isfinite(stored) & (stored != 7.0 if encoding.nodata[0] is not None else True)
        np.testing.assert_array_equal(valid, expected)


def test_values_whose_sum_overflows_are_valid() -> None:
    assert Encoding("float32").decode(np.full(9, 3e38, np.float32))[1] is None


@pytest.mark.parametrize("encoding", [Encoding("uint16"), Encoding("float32"), Encoding("uint16", nodata=(9.5,))])
def test_reading_what_is_valid_everywhere_makes_no_copy(encoding: Encoding) -> None:
    stored = np.zeros((64, 128, 128), encoding.dtype)
    tracemalloc.start()
    values, valid = encoding.decode(stored)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values is stored
    assert valid is None
    assert most < 100_000


def test_one_channels_nodata_marks_nothing_in_another() -> None:
    stored = np.array([[0, 5], [0, 5], [0, 5]], np.uint16)
    valid = Encoding("uint16", nodata=(0.0, None, 5.0)).decode(stored, channel_axis=0)[1]
    assert valid is not None
    assert valid.tolist() == [[False, True], [True, True], [True, False]]


def test_an_infinite_nodata_marks_infinity() -> None:
    valid = Encoding("float32", nodata=(-np.inf,)).decode(np.array([-np.inf, 1.0], np.float32))[1]
    assert valid is not None
    assert valid.tolist() == [False, True]


def test_nan_is_not_valid_and_becomes_nodata() -> None:
    values = np.array([np.nan, 4.0], np.float32)
    assert Encoding("int16", nodata=(-32768.0,)).encode(values).tolist() == [-32768, 4]
    assert Encoding("float32", nodata=(-9.0,)).encode(values).tolist() == [-9.0, 4.0]
    kept = Encoding("float32").encode(values)
    assert np.isnan(kept[0])
    assert kept[1] == 4.0


def test_each_channel_has_its_own_scale_offset_and_nodata() -> None:
    encoding = Encoding("uint8", (1.0, 0.5), (0.0, 10.0), (0.0, 255.0))
    stored = np.array([[0, 255], [0, 255]], np.uint8)
    values, valid = encoding.decode(stored, channel_axis=0)
    assert valid is not None
    assert valid.tolist() == [[False, True], [True, False]]
    assert values[1, 0] == 10.0
    np.testing.assert_array_equal(encoding.encode(values, valid, channel_axis=0), stored)
    second = encoding.select(slice(1, 2))
    assert (second.scale, second.offset, second.nodata) == ((0.5,), (10.0,), (255.0,))


def test_channel_values_need_a_channel_axis() -> None:
    with pytest.raises(InputError, match="2 channel values"):
        Encoding("uint8", (1.0, 0.5)).decode(np.zeros(3, np.uint8))


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf])
def test_a_scale_that_cannot_be_undone_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="cannot be inverted"):
        Encoding("uint8", (scale,))


def test_an_offset_must_be_finite() -> None:
    with pytest.raises(InputError, match="not finite"):
        Encoding("uint8", offset=(np.inf,))


@settings(deadline=None)
@given(
    dtype=st.sampled_from(INTEGERS),
    nodata=st.one_of(st.none(), st.integers(-(2**40), 2**40).map(float)),
    value=st.floats(-1e20, 1e20),
)
def test_any_valid_value_is_stored_as_the_nearest_legal_one(dtype: str, nodata: float | None, value: float) -> None:
    encoding = Encoding(dtype, nodata=(nodata,))
    stored = int(encoding.encode(np.array([value]))[0])
    info = np.iinfo(dtype)
    wanted = min(max(round(value), info.min), info.max)
    mark = stored_mark(nodata, np.dtype(dtype))
    room = 1 if mark is not None and int(mark) == wanted else 0
    assert stored != (None if mark is None else int(mark))
    # beyond 2**53 a float64 itself is coarser than the type
    assert abs(stored - wanted) <= room + abs(value) * 2**-52

"""The kinds of value that settings have, each read in one way and refused in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

__all__ = ["AxisName", "Factors", "Paths", "Pixels", "Spacing", "parse_factors"]


def parse_factors(value: Any, *, words: tuple[str, ...] = ()) -> float | dict[str, float] | str:
    """A number for every spatial axis, or a number per named axis; as text ``"2"``, ``"z=4"`` or ``"z=4,y=2"``.

    Args:
        value: a number, a mapping or a text.
        words: texts that stand for themselves (``"isotropic"``).

    Raises:
        ValueError: anything else; numbers for axes must be named, never given by position.
    """
    if isinstance(value, str):
        if value in words:
            return value
        value = _from_text(value)
    if isinstance(value, Mapping):
        if not value:
            raise ValueError("names no axis; expected such as {z: 4}")
        return {_axis(axis): _positive(number) for axis, number in value.items()}
    if isinstance(value, (list, tuple)):
        raise ValueError(f"{list(value)} gives numbers by position; name the axes, such as {{z: 4, y: 1, x: 1}}")
    return _positive(value)


def _from_text(text: str) -> float | dict[str, float] | str:
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        named: dict[str, float] = {}
        for part in parts:
            axis, _, number = (piece.strip() for piece in part.partition("="))
            if axis in named:
                raise ValueError(f"{text!r} names the axis {axis} twice")
            named[axis] = _positive(number)
        return named
    if len(parts) > 1:
        raise ValueError(f"{text!r} gives numbers by position; name the axes, such as z=4,y=1,x=1")
    return _positive(text)


def _axis(name: Any) -> str:
    if name == "t":
        raise ValueError("the axis t is time and is never refined; name some of z, y, x")
    if name not in ("z", "y", "x"):
        raise ValueError(f"no spatial axis {name!r}; name some of z, y, x")
    return str(name)


def _positive(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value!r} is not a positive number; expected such as 2 or {{z: 4}} (z=4)")
    return int(number) if number == int(number) else number


def _factors(value: Any) -> Any:
    return None if value is None else parse_factors(value)


def _spacing(value: Any) -> Any:
    return None if value is None else parse_factors(value, words=("isotropic",))


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pixels(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    number = parse_factors(value)
    if any(not isinstance(n, int) for n in (number.values() if isinstance(number, dict) else [number])):
        raise ValueError(f"{value!r} came, expected auto, null (all of it) or pixels as a whole number")
    return number


_Number = int | float
AxisName = Annotated[str, Field(pattern="^[zyx]$")]
"""Name of a spatial axis."""

Factors = Annotated[_Number | dict[AxisName, _Number] | None, BeforeValidator(_factors)]
"""Factor for every spatial axis, or per named axis."""

Spacing = Annotated[_Number | dict[AxisName, _Number] | Literal["isotropic"] | None, BeforeValidator(_spacing)]
"""Pixel size in world units for every spatial axis or per named axis, or "isotropic"."""

Pixels = Annotated[int | dict[AxisName, int] | Literal["auto"] | None, BeforeValidator(_pixels)]
"""Pixels along each spatial axis or per named axis, "auto", or None for all of the image."""

Paths = Annotated[tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | tuple[str, ...])]
"""One path, address or pattern, or several."""

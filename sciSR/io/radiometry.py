"""Which scale and offset turn a scene's stored numbers into physical ones, and whether the numbers agree.

``physical = stored * scale + offset``, as GDAL's bands state it. Since processing baseline 04.00 (25 January 2022)
Sentinel-2 products store ``reflectance * 10000 + 1000`` and say so as BOA_ADD_OFFSET (level 2A) or RADIO_ADD_OFFSET
(level 1C) of -1000 beside a quantification value of 10000 (ESA, S2 Products Specification Document,
https://sentiwiki.copernicus.eu/web/s2-products). Archives differ in whether they took the 1000 off again. An offset
known from such a tag alone is applied without the division, so that scenes of every baseline are reflectance times
10000.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciSR.errors import InputError, RadiometryWarning

__all__ = ["Radiometry", "resolve"]

_OFFSET_KEYS = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
_APPLIED_KEYS = ("BOA_OFFSET_APPLIED", "EARTHSEARCH:BOA_OFFSET_APPLIED")
_BASELINE_KEYS = ("PROCESSING_BASELINE", "S2:PROCESSING_BASELINE")
_ADDED = 1000
"""What baseline 04.00 adds to every stored value."""
_MANY = 0.1
"""Share of values below the offset from which on it cannot be there: shadow and water reach 0, seldom below."""
_FEW = 0.001


@dataclass(frozen=True)
class Radiometry:
    """Scale and offset per channel, and where they come from.

    Attributes:
        scale: factor per channel.
        offset: added after scaling, per channel.
        origin: in words, for the run record.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    origin: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {"scale": list(self.scale), "offset": list(self.offset), "origin": self.origin}


def resolve(
    tags: Mapping[str, Mapping[str, str]],
    band_tags: tuple[Mapping[str, Mapping[str, str]], ...],
    scales: tuple[float, ...],
    offsets: tuple[float, ...],
    *,
    given: float | None,
    sample: Callable[[], NDArray[Any]],
    name: str,
) -> Radiometry:
    """Scale and offset of a scene, from what was given, else its bands, else its tags; doubts become warnings.

    Args:
        tags: dataset tags by domain.
        band_tags: tags per channel.
        scales: scale that each band states.
        offsets: offset that each band states.
        given: offset in stored units that the user states, or None; it wins.
        sample: some valid stored values ``(n, c)``; called only where the tags speak of Sentinel-2's offset.
        name: for messages.

    Raises:
        InputError: an offset tag that is no number.
    """
    stated = [_stated_offset((*band.values(), *tags.values()), name) for band in band_tags]
    baseline = _find(tags.values(), _BASELINE_KEYS)
    applied = (_find(tags.values(), _APPLIED_KEYS) or "").strip().lower() in ("true", "1", "yes")
    in_bands = any(s != 1 for s in scales) or any(o != 0 for o in offsets)
    if given is not None:
        return Radiometry(scales, tuple(s * given for s in scales), f"offset={given:g} as given, scale of the bands")
    if in_bands:
        result = Radiometry(scales, offsets, "scale and offset of the bands")
        shifted = any(o != 0 for o in offsets)
    elif any(stated) and not applied:
        result = Radiometry(scales, tuple(s or 0.0 for s in stated), "tag BOA_ADD_OFFSET or RADIO_ADD_OFFSET")
        shifted = True
    else:
        result = Radiometry(scales, offsets, "stored values as they are")
        shifted = False
    doubts = [*_in_words(applied, shifted, stated)]
    if any(stated) or applied or baseline is not None:
        doubts += _in_values(sample(), result, shifted, baseline)
    for doubt in doubts:
        warnings.warn(f"{name}: {doubt}", RadiometryWarning, stacklevel=3)
    return result


def _find(domains: Any, keys: tuple[str, ...]) -> str | None:
    for entries in domains:
        for key, value in entries.items():
            # GDAL splits a text at its first colon or equals sign: "a:b=c" comes as key a, value "b=c"
            rest, found, tail = str(value).partition("=")
            if found and f"{key}:{rest}".upper() in keys:
                return tail
            if key.upper() in keys:
                return str(value)
    return None


def _stated_offset(domains: tuple[Mapping[str, str], ...], name: str) -> float | None:
    text = _find(domains, _OFFSET_KEYS)
    return None if text is None else _number(text, "BOA_ADD_OFFSET/RADIO_ADD_OFFSET", name)


def _number(text: str, key: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{name}: tag {key} is {text!r}, no number; repair it or pass offset=") from error
    if not np.isfinite(value):
        raise InputError(f"{name}: tag {key} is {text!r}, not finite; repair it or pass offset=")
    return value


def _in_words(applied: bool, shifted: bool, stated: list[float | None]) -> list[str]:
    """What the metadata itself contradicts."""
    doubts = []
    if applied and shifted:
        doubts.append(
            "boa_offset_applied says that the offset was taken off already, the bands state one; the bands' is used; "
            "pass offset=0 if that is wrong"
        )
    if any(s is not None and s > 0 for s in stated):
        doubts.append("the stated BOA/RADIO offset is positive, Sentinel-2's is -1000; it is used as stated")
    return doubts


def _in_values(sample: NDArray[Any], result: Radiometry, shifted: bool, baseline: str | None) -> list[str]:
    """What the stored values contradict."""
    if sample.size == 0:
        return []
    if shifted:
        reflectance = sample.astype(np.float64) * np.array(result.scale) + np.array(result.offset)
        below = float((reflectance < 0).mean())
        if below > _MANY:
            return [
                f"{below:.0%} of the values are negative with the stated offset, which seems to have been taken off "
                "already; it is used nevertheless; pass offset=0 if that is wrong"
            ]
        return []
    if baseline is not None and not _before_04(baseline) and float((sample < _ADDED).mean()) < _FEW:
        return [
            f"processing baseline {baseline} adds {_ADDED} to the stored values, hardly any value is smaller, and "
            f"nothing says that it was taken off; the values are used as they are; pass offset=-{_ADDED} if it is there"
        ]
    return []


def _before_04(baseline: str) -> bool:
    try:
        return float(baseline) < 4
    except ValueError:
        return True

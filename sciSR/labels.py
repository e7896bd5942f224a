"""Label maps: told from images before any work, and upsampled as classes.

A network, or any interpolation, between label 2 and label 4 makes a label 3 that is not there. So a raster that looks
like a label map is refused until its owner says what it is, and a label map is upsampled by nearest neighbour or class
by class.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sciSR.derived import DerivedSource
from sciSR.errors import InputError
from sciSR.raster import Block, Raster, Window

__all__ = ["MOST_LABELS", "check_labels", "is_label_map", "refuse_labels", "upscale_labels"]

MOST_LABELS = 40
"""Up to so many distinct whole numbers, and at least two, may be labels; images have more, a constant has one."""

_GLANCE = 2**16


def check_labels(raster: Raster, labels: bool | None = None) -> bool:
    """Whether to treat the raster as labels; call it before work.

    Args:
        raster: what is to be upscaled.
        labels: True: labels. False: an image. None: as said when the file was opened, else found out, which reads the
            values as far as needed: the first slab of an image, all of a label map.

    Raises:
        InputError: it looks like a label map and nobody said what it is.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(8, 8, 8))
        >>> image = Raster.from_array(noise, affine=np.eye(4), axes="zyx")
        >>> check_labels(image), check_labels(image, labels=True)
        (False, True)
    """
    said = labels if labels is not None else _said(raster)
    if said is not None:
        return said
    if not is_label_map(raster):
        return False
    raise InputError(
        f"{raster.name}: looks like a label map ({_why(raster)}), which must not be interpolated; pass --labels "
        "(labels=True) to upsample it as classes, or --not-labels (labels=False) if it is an image"
    )


def refuse_labels(raster: Raster) -> None:
    """Raise InputError for labels where only an image serves, as in training; what was said at opening counts."""
    said = _said(raster)
    if said is None and is_label_map(raster):
        raise InputError(
            f"{raster.name}: looks like a label map ({_why(raster)}), from which no network learns what images look "
            "like; leave it away, or say labels: false (labels=False when it is opened) if it is an image"
        )
    if said:
        raise InputError(f"{raster.name}: is a label map, from which no network learns what images look like")


def _why(raster: Raster) -> str:
    return "its header calls it labels" if _intent(raster) else f"it holds 2 to {MOST_LABELS} distinct whole numbers"


def is_label_map(raster: Raster) -> bool:
    """Whether the file calls itself labels, or holds 2 to :data:`MOST_LABELS` distinct whole numbers that repeat.

    Each must be there twice on average, or a small piece of any image would be a map; and beyond that many pixels some
    neighbours along every axis must be equal: classes fill regions, while a ramp of few whole numbers is no map.
    """
    if _intent(raster):
        return True
    found: NDArray[Any] = np.empty(0)
    count = 0
    spatial = len(raster.grid.shape)
    compared, equal = np.zeros(spatial, bool), np.zeros(spatial, bool)
    for _, block in raster.stream():
        if block.valid is not None and block.values.dtype.kind == "f" and np.isinf(block.values).any():
            return False  # infinity is no value, but no class either
        values = block.values if block.valid is None else block.values[block.valid]
        values = values.ravel()
        count += values.size
        for part in (values[:: max(1, values.size // _GLANCE)], values):
            if part.dtype.kind == "f" and not (np.isfinite(part) & (part == np.rint(part))).all():
                return False
            found = np.union1d(found, np.unique(part))
            if len(found) > MOST_LABELS:
                return False
        for i, axis in enumerate(range(block.values.ndim - spatial, block.values.ndim)):
            if block.values.shape[axis] > 1 and not equal[i]:
                compared[i] = True
                equal[i] = bool((np.diff(block.values, axis=axis) == 0).any())
    regions = np.prod(raster.shape) <= MOST_LABELS or bool((equal | ~compared).all())
    return 2 <= len(found) <= count // 2 and bool(regions)


def upscale_labels(raster: Raster, shape: tuple[int, ...], method: Literal["nearest", "linear"] = "nearest") -> Raster:
    """The label map on the same field of view with ``shape`` pixels per spatial axis; lazy, no new label appears.

    Args:
        raster: a label map.
        shape: pixels per spatial axis in array order.
        method: ``"nearest"``, or ``"linear"``: each label's share is interpolated linearly and the greatest wins (of
            equal shares the smallest label), which leaves smoother borders.

    Raises:
        InputError: another method.
    """
    from sciSR.regrid import regrid

    if method not in ("nearest", "linear"):
        raise InputError(f"labels: method {method!r}; expected 'nearest' or 'linear'")
    near = regrid(raster, shape, kernel="nearest")
    return near if method == "nearest" else near.replace(source=_OneHotSource(raster, near))


class _OneHotSource(DerivedSource):
    """Blocks of a label map by linear interpolation of each label's share."""

    def __init__(self, raster: Raster, near: Raster) -> None:
        super().__init__(near.source)
        self._raster = raster
        self._shape = near.grid.shape

    def record(self) -> dict[str, Any]:
        """What was done, for the run record."""
        return {"executor": "labels", "kernel": "one-hot linear", "shape": list(self._shape)}

    def _changed(self, window: Window, near: Block) -> Block:
        """The winning labels under ``window``."""
        from sciSR.regrid import regrid

        best = np.zeros(near.values.shape, np.float32)
        labels = near.values.copy()
        for label in np.unique(self._under(window)):
            share = self._raster.replace(source=_ShareSource(self._raster, label), auxiliary={})
            value = regrid(share, self._shape, kernel="linear").read(window).values
            wins = value > best + np.float32(1e-6)
            best[wins] = value[wins]
            labels[wins] = label
        return Block(labels, near.valid)

    def _under(self, window: Window) -> NDArray[Any]:
        """The input's labels that can reach the window."""
        lead = len(self._raster.leading)
        parts = list(window[:lead])
        for part, n, m in zip(window[lead:], self._raster.grid.shape, self._shape, strict=True):
            step = max(1.0, n / m)
            low, high = int(np.floor(part.start * n / m - step)), int(np.ceil(part.stop * n / m + step))
            parts.append(slice(max(0, low), min(n, high)))
        block = self._raster.read(tuple(parts))
        return block.values if block.valid is None else block.values[block.valid]


class _ShareSource(DerivedSource):
    """1 where a raster has one label, else 0."""

    def __init__(self, raster: Raster, label: Any) -> None:
        super().__init__(raster.source)
        self._label = label

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def _changed(self, window: Window, block: Block) -> Block:
        share = (block.values == self._label).astype(np.float32)
        return Block(share if block.valid is None else np.where(block.valid, share, np.float32(0)))


def _said(raster: Raster) -> bool | None:
    said = None if raster.metadata is None else raster.metadata.items.get("labels")
    return said if isinstance(said, bool) else None


def _intent(raster: Raster) -> bool:
    return raster.metadata is not None and raster.metadata.items.get("intent") == "labels"

"""DICOM series: a folder of slices, or one file of slices or frames, read as a volume in physical values; read only."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciSR.encoding import Encoding
from sciSR.errors import FormatError, InputError, MetadataWarning
from sciSR.io.adapter import Writer
from sciSR.io.planes import slab_length
from sciSR.io.volumes import check_options, grid_from_lps, integer_type
from sciSR.raster import Block, Channel, Metadata, Raster, Window, windows

if TYPE_CHECKING:
    from sciSR.io.dicom_series import Series, Slice

__all__ = ["DicomAdapter"]

CACHE_BYTES = 2**28
"""Bytes of decoded slices that one open series keeps."""

_SIDECAR = {
    "Modality": "Modality",
    "Manufacturer": "Manufacturer",
    "ManufacturerModelName": "ManufacturersModelName",
    "SeriesDescription": "SeriesDescription",
    "ProtocolName": "ProtocolName",
    "BodyPartExamined": "BodyPart",
    "PatientPosition": "PatientPosition",
    "MagneticFieldStrength": "MagneticFieldStrength",
    "FlipAngle": "FlipAngle",
    "SliceThickness": "SliceThickness",
    "SpacingBetweenSlices": "SpacingBetweenSlices",
    "KVP": "KVP",
    "ConvolutionKernel": "ConvolutionKernel",
}
"""DICOM keyword -> BIDS field; nothing that tells who was scanned, or when."""

_PIXELS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
"""What decoding needs; not the groups of each frame, which take long to read."""

_SECONDS = {"RepetitionTime": "RepetitionTime", "EchoTime": "EchoTime", "InversionTime": "InversionTime"}


class DicomAdapter:
    """Reads a DICOM series.

    Options of ``open``: ``series`` (number or UID, where a folder holds several), ``labels`` (as for NIfTI).
    """

    name = "DICOM"
    suffixes = (".dcm",)

    def describe(self, path: str) -> dict[str, Any]:
        """What the headers say of the scanner, the protocol and the slices; nothing of the patient."""
        series = _series(path)
        facts = {**_sidecar(series), "slices": len(series.slices), "notes": list(series.notes)}
        return {key: value for key, value in facts.items() if value not in (None, "", [])}

    def open(self, path: str, **options: Any) -> Raster:
        """A lazy volume ``(z, y, x)``; CT in HU, others through their rescale slope and intercept."""
        check_options(options, ("labels", "series"), path, self.name)
        series = _series(path, options.get("series"))
        name = os.path.basename(os.path.normpath(path))
        for note in series.notes:
            warnings.warn(f"{name}: {note}", MetadataWarning, stacklevel=3)
        encoding = _encoding(series)
        grid = grid_from_lps(series.shape, series.affine, name)
        items = {"labels": options.get("labels"), "sidecar": _sidecar(series), "xform_code": 1}
        return Raster(
            source=_SeriesSource(series.slices, series.shape, encoding),
            grid=grid,
            axes=("z", "y", "x"),
            channels=(Channel(None, _unit(series)),),
            encoding=encoding,
            metadata=Metadata(self.name, grid, items, path),
            name=name,
        )

    def files(self, path: Path) -> tuple[Path, ...]:
        """The folder or file itself."""
        return (path,)

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Always raises: results are not acquisitions, and DICOM is for these."""
        raise InputError(f"{path}: DICOM is read only; save the result as {path.stem or 'result'}.nii.gz")

    def create(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """Always raises, as :meth:`check` does."""
        raise InputError(f"{path}: DICOM is read only")


def _series(path: str, series: int | str | None = None) -> Series:
    if find_spec("pydicom") is None:
        raise InputError(f"{path}: reading DICOM needs pydicom; install scisr[dicom]")
    from sciSR.io.dicom_series import read_series

    return read_series(path, series)


def _encoding(series: Series) -> Encoding:
    """The smallest plain type that holds every physical value, with the padding value as nodata."""
    head = series.head
    bits, signed = int(head.BitsStored), int(head.PixelRepresentation) == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    maps = {(s.slope, s.intercept) for s in series.slices}
    slope, intercept = next(iter(maps))
    name = None
    if len(maps) == 1 and slope == int(slope) and intercept == int(intercept):
        name = integer_type(*sorted((low * int(slope) + int(intercept), high * int(slope) + int(intercept))))
    padding = _padding(head, signed)
    nodata = None if padding is None or len(maps) > 1 else padding * slope + intercept
    return Encoding(name or "float32", nodata=(nodata,))


def _padding(head: Any, signed: bool) -> int | None:
    """PixelPaddingValue as a stored value; some writers give it with the other signedness."""
    value = head.get("PixelPaddingValue")
    if value is None or head.get("PixelPaddingRangeLimit") not in (None, value):
        return None
    stored = int(value) if isinstance(value, int) else int.from_bytes(bytes(value)[:2], "little")
    wraps = signed and stored >= 2 ** (int(head.BitsAllocated) - 1)
    return stored - 2 ** int(head.BitsAllocated) if wraps else stored


def _unit(series: Series) -> str | None:
    head = series.head
    said = str(head.get("RescaleType") or "").strip()
    if head.get("Modality") == "CT":
        return said if said not in ("", "US") else "HU"  # PS3.3 C.11.1.1.2: HU where CT says nothing else
    return str(head.get("Units") or "").strip() or None


def _sidecar(series: Series) -> dict[str, Any]:
    """A BIDS sidecar: times in seconds, what the scanner and the protocol were."""
    from sciSR.io.dicom_head import number

    head = series.head
    fields: dict[str, Any] = {}
    for keyword, field in _SIDECAR.items():
        value = head.get(keyword)
        if value not in (None, ""):
            fields[field] = float(value) if isinstance(value, float) else str(value)
    for keyword, field in _SECONDS.items():
        seconds = number(head, keyword)
        if seconds is not None:
            fields[field] = seconds / 1000
    unit = _unit(series)
    return fields if unit is None else {**fields, "Units": unit}


class _SeriesSource:
    """Blocks of a series; each slice is decoded when needed, and the latest stay in memory."""

    def __init__(self, slices: tuple[Slice, ...], shape: tuple[int, ...], encoding: Encoding) -> None:
        self._args = (slices, shape, encoding)
        self._slices, self._shape, self._encoding = slices, shape, encoding
        size = int(np.prod(shape[1:])) * np.dtype(encoding.dtype).itemsize
        self._room = max(2, CACHE_BYTES // size)
        self._cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._latest: tuple[str, Any] | None = None
        self._file_lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._encoding.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        return (slab_length(self._shape), *self._shape[1:])

    def read(self, window: Window) -> Block:
        """Physical values under ``window``."""
        planes = [self._plane(z)[window[1:]] for z in range(window[0].start, window[0].stop)]
        return Block(*self._encoding.decode(np.stack(planes)))

    def stream(self) -> Iterator[tuple[Window, Block]]:
        """Every value once, slab by slab."""
        for window in windows(self._shape, self.chunks):
            yield window, self.read(window)

    def _plane(self, z: int) -> NDArray[Any]:
        with self._lock:
            if z in self._cache:
                self._cache.move_to_end(z)
                return self._cache[z]
        plane = self._decoded(self._slices[z])
        with self._lock:
            self._cache[z] = plane
            while len(self._cache) > self._room:
                self._cache.popitem(last=False)
        return plane

    def _file(self, path: str) -> Any:
        """What decoding a file's frames needs; the latest file stays, so that many frames cost one reading."""
        import pydicom

        with self._file_lock:
            if self._latest is None or self._latest[0] != path:
                self._latest = (path, pydicom.dcmread(path, specific_tags=list(_PIXELS)))
            return self._latest[1]

    def _decoded(self, part: Slice) -> NDArray[Any]:
        from pydicom.pixels.utils import pixel_array

        try:
            stored = pixel_array(self._file(part.path), index=part.frame)
        except (AttributeError, EOFError, OSError, RuntimeError, ValueError) as error:
            raise FormatError(f"{part.path}: its pixels cannot be read ({error})") from error
        if stored.shape != self._shape[1:]:
            raise FormatError(f"{part.path}: {stored.shape} pixels came, {self._shape[1:]} were expected")
        values = stored * np.float64(part.slope) + part.intercept
        if self.dtype.kind in "iu":  # a file may hold bits beyond its BitsStored
            values = np.clip(values, np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        return values.astype(self.dtype)

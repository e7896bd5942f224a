"""NIfTI files for the tests, written with nibabel, and the affines they are tried with."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

AFFINES: dict[str, NDArray[np.float64]] = {
    "axial": np.array([[0.7, 0, 0, -90], [0, 0.8, 0, -126], [0, 0, 5.0, -72], [0, 0, 0, 1]]),
    "flipped": np.array([[-0.7, 0, 0, 90], [0, -0.8, 0, 126], [0, 0, 5.0, -72], [0, 0, 0, 1]]),
    "permuted": np.array([[0, 0, 1.5, -90], [-0.7, 0, 0, 126], [0, 0.8, 0, -72], [0, 0, 0, 1]]),
    "oblique": np.array(
        [[0.68, -0.21, 0.4, -81.5], [0.15, 0.75, -0.9, -120.25], [-0.07, 0.17, 3.9, -70.125], [0, 0, 0, 1]]
    ),
    "sheared": np.array([[0.7, 0, 0.3, -90], [0, 0.8, 1.1, -126], [0, 0, 5.0, -72], [0, 0, 0, 1]]),
}
"""Voxel-centre affines; ``oblique`` is orthogonal up to what :func:`orthogonal` makes of it."""


def orthogonal(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest affine without shear, same column lengths."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(affine[:3, :3] / lengths)
    result = affine.copy()
    result[:3, :3] = (u @ vt) * lengths
    return result


AFFINES["oblique"] = orthogonal(AFFINES["oblique"])


def make(
    path: Path,
    values: NDArray[Any],
    affine: NDArray[np.float64] | None = None,
    *,
    codes: tuple[int, int] = (1, 1),
    version: int = 1,
    extensions: tuple[tuple[int, bytes], ...] = (),
    **fields: Any,
) -> Path:
    """A file of ``values`` in order ``(x, y, z[, t])``, stored as they are; ``fields`` go into the header as given.

    ``codes`` are those of qform and sform; a code of 0 leaves the transform empty.
    """
    image = (
        (nib.Nifti1Image if version == 1 else nib.Nifti2Image)
        if path.suffix != ".img"
        else (nib.Nifti1Pair if version == 1 else nib.Nifti2Pair)
    )
    made = image(values, None, dtype=values.dtype)
    header = made.header
    header.set_data_dtype(values.dtype)
    affine = AFFINES["axial"] if affine is None else affine
    header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1.0] * (values.ndim - 3)][: values.ndim])
    made.set_sform(affine if codes[1] else None, codes[1])
    made.set_qform(affine if codes[0] else None, codes[0])
    for code, content in extensions:
        header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    header.set_slope_inter(fields.pop("scl_slope", 1.0), fields.pop("scl_inter", 0.0))
    for name, value in fields.items():
        header[name] = value
    _save_raw(made, path, values)
    return path


def _save_raw(made: Any, path: Path, values: NDArray[Any]) -> None:
    """Save without nibabel's own scaling: header bytes, extensions, then the stored values in Fortran order."""
    header = made.header
    single = path.suffix != ".img"
    head = io.BytesIO()
    header["magic"] = (b"n+" if single else b"ni") + (b"1" if header["sizeof_hdr"] == 348 else b"2")
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4 + header.extensions.get_sizeondisk() if single else 0
    head.write(header.binaryblock)
    head.write(b"\1\0\0\0" if len(header.extensions) else b"\0\0\0\0")
    header.extensions.write_to(head, header.endianness != "<")
    body = values.astype(values.dtype.newbyteorder(header.endianness)).tobytes(order="F")
    if not single:
        path.with_suffix(".hdr").write_bytes(head.getvalue())
        path.write_bytes(body)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(head.getvalue() + body, 1, mtime=0))
    else:
        path.write_bytes(head.getvalue() + body)


def patch(path: Path, offset: int, data: bytes) -> Path:
    """Overwrite bytes of a plain file."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(bytes(raw))
    return path


def header_of(path: Path) -> Any:
    """The header as it stands in the file, read by nibabel without its repairs."""
    path = path.with_suffix(".hdr") if path.suffix == ".img" else path
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    kind = nib.Nifti1Header if raw[0] == 348 % 256 or raw[3] == 348 % 256 else nib.Nifti2Header
    return kind.from_fileobj(io.BytesIO(raw), check=False)

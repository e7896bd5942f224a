"""What a checkpoint's header says, as plain values; read without PyTorch, so that listing weights is quick."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sciSR.errors import CheckpointError, MissingFileError

__all__ = ["FORMAT", "KEY", "damaged", "is_own", "read_content"]

KEY = "scisr"
"""The one metadata entry of a checkpoint."""

FORMAT = 1
"""Version of its content."""


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a checkpoint of :mod:`sciSR.networks.checkpoint`; reads its header only.

    A damaged ``.safetensors`` file counts as own, so that loading it says what is wrong.
    """
    file = Path(path)
    if file.suffix.lower() != ".safetensors":
        with file.open("rb") as stream:
            start = stream.read(9)
        # safetensors: eight bytes with the header's length, then JSON
        if len(start) < 9 or start[8:] != b"{":
            return False
    return KEY in _metadata(file)


def read_content(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Name, family, arguments, spec, normalization, sensor, bands and provenance of a checkpoint, as they were written.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a checkpoint, a damaged one, or one of a later version.
    """
    file = Path(path)
    metadata = _metadata(file)
    if KEY not in metadata:
        raise CheckpointError(
            f"{file.name}: a safetensors file without sciSR's card; load_network() reads weights from elsewhere"
        )
    try:
        content: dict[str, Any] = json.loads(metadata[KEY])
        later = content["format"] > FORMAT
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(file, error) from error
    if later:
        raise CheckpointError(
            f"{file.name}: checkpoint format {content['format']}; this version reads up to {FORMAT}: update sciSR"
        )
    return content


def damaged(file: Path, error: Exception) -> CheckpointError:
    """What to say of a card that cannot be understood."""
    return CheckpointError(
        f"{file.name}: the checkpoint's card is damaged ({type(error).__name__}: {error}); fetch the file again"
    )


def _metadata(file: Path) -> dict[str, str]:
    if not file.is_file():
        raise MissingFileError(f"{file}: no such checkpoint")
    try:
        with safe_open(file, framework="np") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file.name}: not a safetensors file, or a truncated one ({error}); fetch it again or choose another"
        ) from error

"""Files that appear whole or not at all, and never in the place of another unless asked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sciSR.errors import OutputExistsError

__all__ = ["check_free", "remove_unfinished", "unfinished_folder", "whole_file"]

_unfinished: set[Path] = set()
"""What goes where the process ends at once."""


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to replace what is there.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is false.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; choose another name or allow overwriting (--overwrite)")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file on the same disk that takes the place of ``path`` in the end; after an error nothing is there.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_file(folder / "new" / "a.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in (folder / "new").iterdir()]
        ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextmanager
def unfinished_folder(beside: Path) -> Iterator[Path]:
    """A new folder on the same disk as ``beside``, which goes in the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{beside.name}.", suffix=".tmp", dir=beside.parent))
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unfinished.discard(folder)


def remove_unfinished() -> None:
    """Remove all temporary files and folders of this process now, whoever still works on them."""
    for path in [*_unfinished]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

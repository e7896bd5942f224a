"""The contract of a file format.

An adapter is an object with the five members of :class:`FormatAdapter`; ``sciSR/io/__init__.py`` lists it in the table
``ADAPTERS``. Adding a format costs one module, one line of that table and one test module.

Reading. ``open`` reads the header only, checks it, and returns a lazy :class:`~sciSR.raster.Raster`: spatial axes last
in the order ``(z, y, x)``, physical values, the stored form in ``encoding``, and everything else that the file means in
``metadata``. Its source may be read from several threads at once. What cannot be placed or understood is refused with a
:class:`~sciSR.errors.FormatError` or :class:`~sciSR.errors.GeometryError` that names the file; nothing is guessed.

Writing. ``check`` finds, before any work, everything that would make writing fail. ``create`` starts a file at a
temporary path and returns a :class:`Writer`, which gets every value exactly once, through ``write``, in the order that
it declares, from one thread at a time, and then ``finish`` (the file is whole) or ``abort`` (it is to be forgotten).
The caller moves the finished files to their place; an adapter never writes at the final path, and never touches its
input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from sciSR.raster import Block, Raster, Window

__all__ = ["FormatAdapter", "WithCompanions", "WithLeftovers", "WithParts", "WithSharedWriting", "Writer"]


class Writer(Protocol):
    """A file in the making.

    Attributes:
        order: ``"any"``: blocks may come in any order; ``"slabs"``: whole slabs along the first axis (of a series: of
            the first spatial axis, one time step after the other), rising and without gaps.
        chunks: block shape that costs least, one entry per axis of the raster.
    """

    order: Literal["any", "slabs"]
    chunks: tuple[int, ...]

    def write(self, window: Window, block: Block) -> None:
        """Take the values of ``window``; may return before they are on disk, so they must not change afterwards."""
        ...

    def finish(self) -> None:
        """Complete the file; afterwards it reads back whole."""
        ...

    def abort(self) -> None:
        """Release everything; what is on disk is removed by the caller."""
        ...


class FormatAdapter(Protocol):
    """One file format.

    Attributes:
        name: short name, as ``scisr info`` prints it.
        suffixes: the file name endings it answers for, longest first, lower case.
    """

    name: str
    suffixes: tuple[str, ...]

    def describe(self, path: str) -> dict[str, Any]:
        """What ``scisr info`` shows: nested plain values, from the header alone."""
        ...

    def open(self, path: str, **options: Any) -> Raster:
        """A lazy raster of the file; ``path`` stays a string (``https://…`` and ``/vsicurl/…`` are paths too)."""
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """Every file that an output at ``path`` consists of (a ``.hdr`` with its ``.img``), the named one last."""
        ...

    def check(self, raster: Raster, path: Path, **options: Any) -> None:
        """Raise what would make writing ``raster`` to ``path`` fail; cheap, touches no value."""
        ...

    def create(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """Start writing ``raster`` at the temporary ``path``."""
        ...


@runtime_checkable
class WithCompanions(Protocol):
    """A format whose outputs may have files beside them that depend on the raster, such as a BIDS sidecar.

    The writer makes them in the folder of its temporary path; the caller moves them before the format's own files.
    """

    def companions(self, raster: Raster, path: Path) -> tuple[Path, ...]:
        """The files that writing ``raster`` to ``path`` makes beside it."""
        ...


@runtime_checkable
class WithLeftovers(Protocol):
    """An adapter whose format reads files beside the named one, which must not outlive the file they belonged to."""

    def leftovers(self, path: Path) -> tuple[Path, ...]:
        """Files beside an output at ``path`` that an earlier output of that name may have left; they are removed."""
        ...


@runtime_checkable
class WithParts(Protocol):
    """A format whose inputs may be made of files that their name does not tell: a header that names its data."""

    def parts(self, path: str) -> tuple[str, ...]:
        """The files that an input at ``path`` is read from, other than itself."""
        ...


@runtime_checkable
class WithSharedWriting(Protocol):
    """A format into which several processes may write at once, each whole rows of its own.

    ``begin`` in one process, then ``join`` in as many as there are, then ``complete`` in one; all rows may be written
    again after a process died, and ``complete`` may be called again where it was killed itself.
    """

    def shared_rows(self, raster: Raster, **options: Any) -> int:
        """Rows along the first spatial axis that one process must write whole; the last ones may be fewer."""
        ...

    def begin(self, raster: Raster, path: Path, **options: Any) -> None:
        """Start writing ``raster`` at the temporary ``path``: everything but the values is there."""
        ...

    def join(self, raster: Raster, path: Path, **options: Any) -> Writer:
        """A writer for some rows of what ``begin`` has begun at ``path``; ``finish`` completes these rows."""
        ...

    def complete(self, raster: Raster, path: Path, **options: Any) -> None:
        """Make the file whole once all rows are written."""
        ...

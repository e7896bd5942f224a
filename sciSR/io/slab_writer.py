"""Writing values in file order: slabs along z, one time step after the other, encoded and handed to a sink."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np

from sciSR.encoding import Encoding
from sciSR.errors import MetadataWarning, RunError
from sciSR.io.gzipped import Sink
from sciSR.io.planes import slab_length
from sciSR.raster import Block, Raster, Window

__all__ = ["SlabWriter", "holes_lost", "stored_bytes"]


class SlabWriter:
    """A file whose values stand in C order of ``(t, z, y, x)``, little endian, after a header that is written already.

    Args:
        raster: what is written, for shape and name.
        encoding: the stored form.
        sink: where the bytes go.
        whole: called when all values are on disk, to write what belongs beside them.
    """

    order: Literal["any", "slabs"] = "slabs"

    def __init__(
        self, raster: Raster, encoding: Encoding, sink: Sink, whole: Callable[[], None] = lambda: None
    ) -> None:
        self._name = raster.name
        self._shape = raster.shape
        self._encoding = encoding
        self._sink = sink
        self._whole = whole
        self._next = 0
        self._warned = False
        self.chunks = (1,) * (len(self._shape) - 3) + (slab_length(self._shape), *self._shape[-2:])

    def write(self, window: Window, block: Block) -> None:
        """Take the next slab."""
        starts = tuple(s.start for s in window)
        at = int(np.ravel_multi_index(starts, self._shape))
        if at != self._next or block.values.shape[-2:] != self._shape[-2:]:
            raise RunError(f"{self._name}: a slab came out of order at {starts}; this is a defect of the source")
        self._mention_holes(block)
        self._sink.write(stored_bytes(self._encoding, block))
        self._next += block.values.size

    def finish(self) -> None:
        """Complete the file and write what lies beside it."""
        if self._next != int(np.prod(self._shape)):
            raise RunError(f"{self._name}: {self._next} values came, {int(np.prod(self._shape))} were expected")
        self._sink.close()
        self._whole()

    def abort(self) -> None:
        """Stop the threads and close the file."""
        self._sink.abort()

    def _mention_holes(self, block: Block) -> None:
        """Warn once if voxels without a value go into a type that has no NaN and no nodata."""
        if not self._warned and holes_lost(self._encoding, block):
            self._warned = True
            kept = f"{self._name}: voxels without a value are stored as {self._encoding.offset[0]:g}"
            warnings.warn(
                f"{kept}, {self._encoding.dtype} has no NaN; pass dtype='float32' to keep them apart",
                MetadataWarning,
                stacklevel=4,
            )


def stored_bytes(encoding: Encoding, block: Block) -> memoryview:
    """The stored values of a block in C order, little endian."""
    stored = encoding.encode(block.values, block.valid)
    stored = stored.astype(stored.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data


def holes_lost(encoding: Encoding, block: Block) -> bool:
    """Whether the block has voxels without a value, and the stored form nothing to say so."""
    holes = block.valid is not None and not block.valid.all()
    return holes and np.dtype(encoding.dtype).kind in "iu" and encoding.nodata[0] is None

"""Training pairs from rasters: what is decoded once and kept in memory, and which patches are drawn from it.

:func:`decode` reads a :class:`Reference` into :class:`Crop` tensors of normalised values, :class:`PatchSampler` draws
patches from these, and :class:`PairMaker` turns them on the device into pairs of a coarse and a fine batch. Every draw
is a function of (seed, step, sample).
"""

from sciSR.sampling.augmentation import Augmentation, Pair, PairMaker, margin_of, widened
from sciSR.sampling.crops import Crop, Reference, decode, hold_out, validation_crops
from sciSR.sampling.library import Library, RotatingMaker, decoded_bytes
from sciSR.sampling.patches import NoRoomError, Patch, PatchSampler

__all__ = [
    "Augmentation",
    "Crop",
    "Library",
    "NoRoomError",
    "Pair",
    "PairMaker",
    "Patch",
    "PatchSampler",
    "Reference",
    "RotatingMaker",
    "decode",
    "decoded_bytes",
    "hold_out",
    "margin_of",
    "validation_crops",
    "widened",
]

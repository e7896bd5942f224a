"""What the families with channel attention share: global statistics on fixed windows, or local ones, exact in tiles."""

from __future__ import annotations

from dataclasses import replace

from sciSR.errors import InputError
from sciSR.networks.family import Family
from sciSR.networks.spec import NetworkSpec

__all__ = ["Pooled"]

_WINDOW = {2: 128, 3: 48}
_HALO = {2: 16, 3: 8}


class Pooled(Family):
    """A family whose layers may look at the whole image.

    Attributes:
        pooling: odd window of the local statistics, or None: global.
    """

    pooling: int | None = None

    def check_pooling(self, pooling: int | None) -> int | None:
        """``pooling`` as it came, if it is None or an odd size.

        Raises:
            InputError: it is not.
        """
        if pooling is not None and (pooling < 1 or pooling % 2 == 0):
            raise InputError(
                f"{self.family}: pooling {pooling} is not an odd window of pixels, or None for the whole image"
            )
        return pooling

    def describe(self, reach: tuple[int, ...]) -> NetworkSpec:
        """Without local pooling nothing bounds the reach, and the network runs on a fixed grid of windows."""
        if self.pooling is not None:
            return super().describe(reach)
        halo = tuple(min(r, _HALO[self.ndim]) for r in reach)
        return replace(
            super().describe(reach),
            receptive_radius=None,
            halo=self.measured_halo or halo,
            exact_tiling=False,
            window=(_WINDOW[self.ndim],) * self.ndim,
        )

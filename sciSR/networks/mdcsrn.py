"""mDCSRN: densely connected blocks in three dimensions, made for brain MRI (Chen 2018, arXiv:1803.01417)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciSR.networks import receptive
from sciSR.networks.blocks import convolution, zero_
from sciSR.networks.family import AnySkip, Scale
from sciSR.networks.preupsampled import PreUpsampled
from sciSR.networks.receptive import Reach

__all__ = ["MDCSRN"]


class MDCSRN(PreUpsampled):
    """Multi-level densely connected network on a cubic upsampling; every block sees the outputs of all before it.

    The paper's b4u4 is ``blocks=4, units=4, growth=16``, with ``batch_norm=True`` and ``skip=None``.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        scale: whole factor for all axes, or per axis; 1: the input lies on the fine grid.
        out_channels: channels it gives; as many as it takes by default.
        growth: channels that each unit adds; twice as many enter a block.
        blocks: dense blocks.
        units: units of a block.
        batch_norm: normalise before each unit, as in the paper.
        skip: classical upsampling that a zero-initialised last layer is added to; None: as in the paper.
        value_range: length of the number range it works in.
    """

    family = "mdcsrn"

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None = None,
        growth: int = 16,
        blocks: int = 4,
        units: int = 4,
        batch_norm: bool = False,
        skip: AnySkip = "cubic",
        value_range: float | None = None,
    ) -> None:
        super().__init__(
            ndim=ndim,
            in_channels=in_channels,
            scale=scale,
            out_channels=out_channels,
            skip=skip,
            value_range=value_range,
            growth=growth,
            blocks=blocks,
            units=units,
            batch_norm=batch_norm,
        )
        self.prepare()
        self.depth = blocks * units
        entry = 2 * growth
        self.head = convolution(ndim, self.in_channels, entry)
        self.blocks = nn.ModuleList(DenseUnits(ndim, entry, growth, units, batch_norm) for _ in range(blocks))
        widths = [entry + b * (entry + units * growth) for b in range(1, blocks + 1)]
        self.compressors = nn.ModuleList(convolution(ndim, width, entry, 1) for width in widths[:-1])
        self.tail = convolution(ndim, widths[-1], self.out_channels, 1)
        if skip is not None:
            zero_(self.tail)

    def refine(self, fine: Tensor) -> Tensor:
        """The dense blocks on the fine grid."""
        x = self.head(fine)
        levels = [x]
        for number, block in enumerate(self.blocks):
            if number:
                x = self.compressors[number - 1](torch.cat(levels, 1))
            levels.append(block(x))
        result: Tensor = self.tail(torch.cat(levels, 1))
        return result

    def fine_path(self, axis: int) -> list[Reach]:
        """The head and every unit."""
        return [receptive.conv(3)] * (1 + self.depth)


class DenseUnits(nn.Module):
    """Units of (norm,) ELU and convolution, each on all that came before; gives input and all outputs together."""

    def __init__(self, ndim: int, in_channels: int, growth: int, units: int, batch_norm: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        self.units = nn.ModuleList()
        for number in range(units):
            width = in_channels + number * growth
            self.units.append(
                nn.Sequential(norm(width) if batch_norm else nn.Identity(), nn.ELU(), convolution(ndim, width, growth))
            )

    def forward(self, x: Tensor) -> Tensor:
        """``in_channels + units * growth`` channels."""
        for unit in self.units:
            x = torch.cat([x, unit(x)], 1)
        return x

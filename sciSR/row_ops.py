"""Operations on streams of rows, each keeping only the last rows that it still needs; see :mod:`sciSR.depth_first`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from sciSR.errors import RunError
from sciSR.networks.borders import pad_to_multiple
from sciSR.networks.upsamplers import CubicUpsampling

__all__ = [
    "ROWS",
    "ConvolutionRows",
    "CroppedRows",
    "Join",
    "NotStreamableError",
    "PaddedRows",
    "Pointwise",
    "RowOp",
    "TransposedRows",
    "UpsampledRows",
    "after",
    "joined",
]

ROWS = 2
"""Dimension of the rows in ``(b, c, rows, …)``."""


class NotStreamableError(RunError):
    """The network has an operation that does not run row by row; the message names it."""


class RowOp:
    """One operation on a stream of rows: takes the new rows, gives the rows that are ready, or None.

    The list of inputs is the operation's own; it may drop what it has taken over.
    """

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """The rows that are ready once the new rows ``inputs`` have come; ``last``: nothing follows."""
        raise NotImplementedError


class Pointwise(RowOp):
    """Any operation whose output rows come from one input row each."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's."""
        (x,) = inputs
        return None if x is None else self._function(x)


class Join(RowOp):
    """An operation on several streams of equal rate; the faster ones wait."""

    def __init__(self, function: Callable[[list[Tensor]], Tensor], count: int) -> None:
        self._function = function
        self._waiting: list[Tensor | None] = [None] * count

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's."""
        waiting = [joined(old, new) for old, new in zip(self._waiting, inputs, strict=True)]
        self._waiting = waiting
        ready = [w for w in waiting if w is not None]
        if len(ready) < len(waiting):
            return None
        rows = min(w.shape[ROWS] for w in ready)
        if rows == 0:
            return None
        self._waiting = [after(w, rows) for w in ready]
        return self._function([w.narrow(ROWS, 0, rows) for w in ready])


class ConvolutionRows(RowOp):
    """A convolution of any kernel, stride, dilation and groups."""

    def __init__(self, module: nn.Conv2d | nn.Conv3d) -> None:
        self._m = module
        if isinstance(module.padding, str):
            same = [(k - 1) * d for k, d in zip(module.kernel_size, module.dilation, strict=True)]
            pads = [(t // 2, t - t // 2) if module.padding == "same" else (0, 0) for t in same]
        else:
            pads = [(p, p) for p in module.padding]
        self._pads = pads
        self._span = (module.kernel_size[0] - 1) * module.dilation[0] + 1
        self._stride = int(module.stride[0])
        self._mode = module.padding_mode
        if self._mode not in ("zeros", "replicate", "reflect") or (self._mode == "reflect" and pads[0] != (0, 0)):
            raise NotStreamableError(f"a convolution with padding mode {self._mode}")
        self._kept: Tensor | None = None
        self._started = False

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's."""
        if inputs[0] is not None:
            x = inputs[0]
            if not self._started:
                x = self._edge(x, self._pads[0][0], first=True)
                self._started = True
            self._kept = joined(self._kept, x)
            inputs.clear()
            del x  # large rows need not outlive their copy
        if self._kept is None:
            return None
        if last:
            self._kept = self._edge(self._kept, self._pads[0][1], first=False)
        count = (self._kept.shape[ROWS] - self._span) // self._stride + 1
        if count <= 0:
            return None
        used = (count - 1) * self._stride + self._span
        source = self._kept.narrow(ROWS, 0, used)
        rest = self._kept.shape[ROWS] - count * self._stride
        self._kept = self._kept.narrow(ROWS, count * self._stride, rest).clone() if not last else None
        return self._convolved(source)

    def _edge(self, x: Tensor, rows: int, *, first: bool) -> Tensor:
        """``x`` with the rows beyond the true edge before or after it."""
        if rows == 0:
            return x
        if self._mode == "zeros":
            border = x.new_zeros(*x.shape[:ROWS], rows, *x.shape[ROWS + 1 :]).contiguous(memory_format=_layout(x))
        else:
            border = x.narrow(ROWS, 0 if first else x.shape[ROWS] - 1, 1).repeat_interleave(rows, dim=ROWS)
        return torch.cat([border, x] if first else [x, border], dim=ROWS)

    def _convolved(self, x: Tensor) -> Tensor:
        m = self._m
        side = self._pads[1:]
        if self._mode != "zeros" or any(a != b for a, b in side):
            flat = [p for pair in side[::-1] for p in pair] + [0, 0]
            x = F.pad(x, flat, mode="constant" if self._mode == "zeros" else self._mode)
            padding = [0] * (len(side) + 1)
        else:
            padding = [0, *(a for a, _ in side)]
        if _needs_onednn(x, m):
            call = torch.ops.aten.mkldnn_convolution.default
            return call(x, m.weight, m.bias, padding, list(m.stride), list(m.dilation), m.groups)  # type: ignore[no-any-return]
        function: Any = F.conv2d if x.dim() == 4 else F.conv3d
        result: Tensor = function(x, m.weight, m.bias, m.stride, padding, m.dilation, m.groups)
        return result


def _layout(x: Tensor) -> torch.memory_format:
    """The memory layout of ``x``, so that what is joined to it does not change it."""
    if x.stride(1) != 1 or x.shape[1] == 1:
        return torch.contiguous_format
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _needs_onednn(x: Tensor, m: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether PyTorch would take its slow path for this 3D convolution: float32, batch 1 and N*C*D*H <= 20480.

    Source: ``ConvParams::use_mkldnn`` in ATen/native/Convolution.cpp.
    """
    small = x.dim() == 5 and x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3] <= 20480
    return bool(small and x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.enabled)


class TransposedRows(RowOp):
    """A transposed convolution: each input row adds to ``kernel`` output rows, ``stride`` apart."""

    def __init__(self, module: nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
        self._m = module
        self._stride = int(module.stride[0])
        self._span = (module.kernel_size[0] - 1) * module.dilation[0] + 1
        self._skip = int(module.padding[0])
        self._trim = int(module.padding[0]) - int(module.output_padding[0])
        if self._trim < 0:
            raise NotStreamableError("a transposed convolution with more output padding than padding")
        self._tail: Tensor | None = None

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's."""
        (x,) = inputs
        if x is None:
            return self._flush(last)
        m = self._m
        function: Any = F.conv_transpose2d if x.dim() == 4 else F.conv_transpose3d
        padding, extra = [0, *m.padding[1:]], [0, *m.output_padding[1:]]
        full = function(x, m.weight, None, m.stride, padding, extra, m.groups, m.dilation)
        overlap = self._span - self._stride
        if overlap < 0:
            full = F.pad(full, [0, 0] * (full.dim() - 3) + [0, -overlap])
        if self._tail is not None and self._tail.shape[ROWS] > 0:
            full[:, :, : self._tail.shape[ROWS]] += self._tail
        ready = x.shape[ROWS] * self._stride
        self._tail = full[:, :, ready:].clone()
        return self._cut(self._biased(full.narrow(ROWS, 0, ready)), last)

    def _flush(self, last: bool) -> Tensor | None:
        return self._cut(None, True) if last else None

    def _cut(self, rows: Tensor | None, last: bool) -> Tensor | None:
        """Drop the rows that the padding removes at both ends; at the end let the tail out."""
        if last and self._tail is not None:
            tail = self._biased(self._tail)
            rows, self._tail = joined(rows, tail), None
            if rows is not None and self._trim:
                rows = rows.narrow(ROWS, 0, rows.shape[ROWS] - self._trim)
        if rows is None:
            return None
        drop = min(self._skip, rows.shape[ROWS])
        self._skip -= drop
        rows = rows.narrow(ROWS, drop, rows.shape[ROWS] - drop)
        return rows if rows.shape[ROWS] else None

    def _biased(self, rows: Tensor) -> Tensor:
        bias = self._m.bias
        return rows if bias is None else rows + bias.reshape(1, -1, *[1] * (rows.dim() - 2))


class UpsampledRows(RowOp):
    """A cubic upsampling: two input rows on each side, mirrored at the true edges only."""

    _REACH = 2

    def __init__(self, module: CubicUpsampling) -> None:
        self._m = module
        self._kept: Tensor | None = None
        self._given = 0

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """``_given`` rows of those kept are done already and stay for what follows them."""
        self._kept = joined(self._kept, inputs[0])
        if self._kept is None:
            return None
        rows = self._kept.shape[ROWS]
        stop = rows if last else rows - self._REACH
        if stop <= self._given:
            return None
        s = self._m.scale[0]
        fine: Tensor = self._m(self._kept).narrow(ROWS, self._given * s, (stop - self._given) * s)
        drop = max(0, stop - self._REACH)
        self._kept = self._kept.narrow(ROWS, drop, rows - drop).clone()
        self._given = stop - drop
        return fine


class PaddedRows(RowOp):
    """Far edges mirrored up to a multiple: the other axes at once, the rows when the last have come."""

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple
        self._count = 0
        self._kept: Tensor | None = None

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's."""
        (x,) = inputs
        new = 0 if x is None else x.shape[ROWS]
        self._count += new
        extra = -self._count % self._multiple if last else 0
        rows = joined(self._kept, x)
        if rows is None:
            return None
        if extra:
            n = self._count
            period = max(1, 2 * n - 2)
            mirrored = [min(k % period, period - k % period) for k in range(n, n + extra)]
            behind = n - rows.shape[ROWS]
            index = torch.tensor([k - behind for k in mirrored], device=rows.device)
            padded = torch.cat([rows, rows.index_select(ROWS, index)], ROWS)
        else:
            padded = rows
        ready = padded.narrow(ROWS, rows.shape[ROWS] - new, new + extra)
        keep = min(rows.shape[ROWS], self._multiple)
        self._kept = rows.narrow(ROWS, rows.shape[ROWS] - keep, keep).clone()
        if ready.shape[ROWS] == 0:
            return None
        padded_across: Tensor = pad_to_multiple(ready, self._multiple, ROWS + 1)
        return padded_across


class CroppedRows(RowOp):
    """The part of the fine rows that lies in the image before its far edges were padded."""

    def __init__(self, scale: tuple[int, ...]) -> None:
        self._scale = scale
        self._wanted = 0
        self._given = 0
        self._size: torch.Size | None = None
        self._waiting: Tensor | None = None

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """As every operation's."""
        fine, x = inputs
        if x is not None:
            self._wanted += x.shape[ROWS] * self._scale[0]
            self._size = x.shape
        self._waiting = joined(self._waiting, fine)
        if self._waiting is None or self._size is None:
            return None
        rows = min(self._waiting.shape[ROWS], self._wanted - self._given)
        if rows <= 0:
            return None
        ready = self._waiting.narrow(ROWS, 0, rows)
        self._waiting = after(self._waiting, rows)
        self._given += rows
        for dim, s in enumerate(self._scale[1:], ROWS + 1):
            ready = ready.narrow(dim, 0, self._size[dim] * s)
        return ready


def joined(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    """The rows ``new`` after the rows ``old``, either of which may be none."""
    if old is None or old.shape[ROWS] == 0:
        return new if new is not None else old
    return old if new is None else torch.cat([old, new], dim=ROWS)


def after(x: Tensor, rows: int) -> Tensor | None:
    """The rows after so many, in memory that holds no more than them."""
    left = x.shape[ROWS] - rows
    return x.narrow(ROWS, rows, left).clone() if left else None

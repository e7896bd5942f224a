"""Row programs: a convolution network run strip by strip, each layer keeping only the last rows it still needs.

The program is derived from the network itself (``torch.fx``), so no network is written twice. Rows run along the first
spatial axis: y of a scene, z of a volume. Nothing is computed twice and no layer's whole output ever exists, yet the
result is the whole-image result: zero rows stand where the network's own padding puts them, at the true edge.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from sciSR.errors import RunError
from sciSR.networks.attention import ChannelAttention
from sciSR.networks.blocks import crop_to, pad_to_multiple
from sciSR.networks.shuffle import PixelShuffle
from sciSR.networks.spec import SRNetwork
from sciSR.networks.upsamplers import CubicUpsampling

__all__ = ["NotStreamableError", "RowProgram", "RowStream", "derive"]

_ROWS = 2
"""Dimension of the rows in ``(b, c, rows, …)``."""

_POINTWISE_MODULES = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.ReLU6,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.Dropout3d,
)
_POINTWISE_FUNCTIONS = {
    F.relu,
    F.leaky_relu,
    F.elu,
    F.gelu,
    F.silu,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    F.tanh,
    F.sigmoid,
}
_JOINS = {operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, torch.add, torch.mul}
_IN_PLACE: dict[Any, Any] = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
"""In-place operations are replayed out of place: another operation may still wait for the same rows."""
_JOIN_METHODS = {"add", "add_", "mul", "mul_", "sub", "sub_"}
_POINTWISE_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone"}


class NotStreamableError(RunError):
    """The network has an operation that does not run row by row; the message names it."""


class _RowOp:
    """One operation on a stream of rows: takes the new rows, gives the rows that are ready, or None.

    The list of inputs is the operation's own; it may drop what it has taken over.
    """

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        raise NotImplementedError


class _Pointwise(_RowOp):
    """Any operation whose output rows come from one input row each."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        (x,) = inputs
        return None if x is None else self._function(x)


class _Join(_RowOp):
    """An operation on several streams of equal rate; the faster ones wait."""

    def __init__(self, function: Callable[[list[Tensor]], Tensor], count: int) -> None:
        self._function = function
        self._waiting: list[Tensor | None] = [None] * count

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        waiting = [_joined(old, new) for old, new in zip(self._waiting, inputs, strict=True)]
        self._waiting = waiting
        ready = [w for w in waiting if w is not None]
        if len(ready) < len(waiting):
            return None
        rows = min(w.shape[_ROWS] for w in ready)
        if rows == 0:
            return None
        self._waiting = [_after(w, rows) for w in ready]
        return self._function([w.narrow(_ROWS, 0, rows) for w in ready])


class _Conv(_RowOp):
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
        if inputs[0] is not None:
            x = inputs[0]
            if not self._started:
                x = self._edge(x, self._pads[0][0], first=True)
                self._started = True
            self._kept = _joined(self._kept, x)
            inputs.clear()
            del x  # large rows need not outlive their copy
        if self._kept is None:
            return None
        if last:
            self._kept = self._edge(self._kept, self._pads[0][1], first=False)
        count = (self._kept.shape[_ROWS] - self._span) // self._stride + 1
        if count <= 0:
            return None
        used = (count - 1) * self._stride + self._span
        source = self._kept.narrow(_ROWS, 0, used)
        rest = self._kept.shape[_ROWS] - count * self._stride
        self._kept = self._kept.narrow(_ROWS, count * self._stride, rest).clone() if not last else None
        return self._convolved(source)

    def _edge(self, x: Tensor, rows: int, *, first: bool) -> Tensor:
        """``x`` with the rows beyond the true edge before or after it."""
        if rows == 0:
            return x
        if self._mode == "zeros":
            border = x.new_zeros(*x.shape[:_ROWS], rows, *x.shape[_ROWS + 1 :]).contiguous(memory_format=_layout(x))
        else:
            border = x.narrow(_ROWS, 0 if first else x.shape[_ROWS] - 1, 1).repeat_interleave(rows, dim=_ROWS)
        return torch.cat([border, x] if first else [x, border], dim=_ROWS)

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
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return last if x.is_contiguous(memory_format=last) and x.shape[1] > 1 else torch.contiguous_format


def _needs_onednn(x: Tensor, m: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether PyTorch would take its slow path for this 3D convolution: float32, batch 1 and N*C*D*H <= 20480.

    Source: ``ConvParams::use_mkldnn`` in ATen/native/Convolution.cpp.
    """
    small = x.dim() == 5 and x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3] <= 20480
    return bool(small and x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.enabled)


class _Transposed(_RowOp):
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
        if self._tail is not None and self._tail.shape[_ROWS] > 0:
            full[:, :, : self._tail.shape[_ROWS]] += self._tail
        ready = x.shape[_ROWS] * self._stride
        self._tail = full[:, :, ready:].clone()
        return self._cut(self._biased(full.narrow(_ROWS, 0, ready)), last)

    def _flush(self, last: bool) -> Tensor | None:
        return self._cut(None, True) if last else None

    def _cut(self, rows: Tensor | None, last: bool) -> Tensor | None:
        """Drop the rows that the padding removes at both ends; at the end let the tail out."""
        if last and self._tail is not None:
            tail = self._biased(self._tail)
            rows, self._tail = _joined(rows, tail), None
            if rows is not None and self._trim:
                rows = rows.narrow(_ROWS, 0, rows.shape[_ROWS] - self._trim)
        if rows is None:
            return None
        drop = min(self._skip, rows.shape[_ROWS])
        self._skip -= drop
        rows = rows.narrow(_ROWS, drop, rows.shape[_ROWS] - drop)
        return rows if rows.shape[_ROWS] else None

    def _biased(self, rows: Tensor) -> Tensor:
        bias = self._m.bias
        return rows if bias is None else rows + bias.reshape(1, -1, *[1] * (rows.dim() - 2))


class _Upsampled(_RowOp):
    """A cubic upsampling: two input rows on each side, mirrored at the true edges only."""

    _REACH = 2

    def __init__(self, module: CubicUpsampling) -> None:
        self._m = module
        self._kept: Tensor | None = None
        self._given = 0

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        """``_given`` rows of those kept are done already and stay for what follows them."""
        self._kept = _joined(self._kept, inputs[0])
        if self._kept is None:
            return None
        rows = self._kept.shape[_ROWS]
        stop = rows if last else rows - self._REACH
        if stop <= self._given:
            return None
        s = self._m.scale[0]
        fine: Tensor = self._m(self._kept).narrow(_ROWS, self._given * s, (stop - self._given) * s)
        drop = max(0, stop - self._REACH)
        self._kept = self._kept.narrow(_ROWS, drop, rows - drop).clone()
        self._given = stop - drop
        return fine


class _Padded(_RowOp):
    """Far edges mirrored up to a multiple: the other axes at once, the rows when the last have come."""

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple
        self._count = 0
        self._kept: Tensor | None = None

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        (x,) = inputs
        new = 0 if x is None else x.shape[_ROWS]
        self._count += new
        extra = -self._count % self._multiple if last else 0
        rows = _joined(self._kept, x)
        if rows is None:
            return None
        if extra:
            n = self._count
            period = max(1, 2 * n - 2)
            mirrored = [min(k % period, period - k % period) for k in range(n, n + extra)]
            behind = n - rows.shape[_ROWS]
            index = torch.tensor([k - behind for k in mirrored], device=rows.device)
            padded = torch.cat([rows, rows.index_select(_ROWS, index)], _ROWS)
        else:
            padded = rows
        ready = padded.narrow(_ROWS, rows.shape[_ROWS] - new, new + extra)
        keep = min(rows.shape[_ROWS], self._multiple)
        self._kept = rows.narrow(_ROWS, rows.shape[_ROWS] - keep, keep).clone()
        if ready.shape[_ROWS] == 0:
            return None
        padded_across: Tensor = pad_to_multiple(ready, self._multiple, _ROWS + 1)
        return padded_across


class _Cropped(_RowOp):
    """The part of the fine rows that lies in the image before its far edges were padded."""

    def __init__(self, scale: tuple[int, ...]) -> None:
        self._scale = scale
        self._wanted = 0
        self._given = 0
        self._size: torch.Size | None = None
        self._waiting: Tensor | None = None

    def step(self, inputs: list[Tensor | None], last: bool) -> Tensor | None:
        fine, x = inputs
        if x is not None:
            self._wanted += x.shape[_ROWS] * self._scale[0]
            self._size = x.shape
        self._waiting = _joined(self._waiting, fine)
        if self._waiting is None or self._size is None:
            return None
        rows = min(self._waiting.shape[_ROWS], self._wanted - self._given)
        if rows <= 0:
            return None
        ready = self._waiting.narrow(_ROWS, 0, rows)
        self._waiting = _after(self._waiting, rows)
        self._given += rows
        for dim, s in enumerate(self._scale[1:], _ROWS + 1):
            ready = ready.narrow(dim, 0, self._size[dim] * s)
        return ready


def _joined(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    if old is None or old.shape[_ROWS] == 0:
        return new if new is not None else old
    return old if new is None else torch.cat([old, new], dim=_ROWS)


def _after(x: Tensor, rows: int) -> Tensor | None:
    left = x.shape[_ROWS] - rows
    return x.narrow(_ROWS, rows, left).clone() if left else None


@dataclass(frozen=True)
class RowProgram:
    """A network's residual as operations on rows; :meth:`start` begins a pass.

    Attributes:
        nodes: per operation, the numbers of the values it takes and how to make it; value 0 is the input.
        widest: the largest number of values that one input pixel becomes in any layer, for choosing strips.
    """

    nodes: tuple[tuple[tuple[int, ...], Callable[[], _RowOp]], ...]
    widest: int

    def start(self, *, gently: bool = False) -> RowStream:
        """A fresh pass over one image or batch of images.

        Args:
            gently: let the last rows out layer by layer, so that no layer gets more rows at once than in a strip
                before; slower where strips are small.
        """
        return RowStream(self, gently)


class RowStream:
    """One pass: feed rows from the first to the last, take refined rows as they get ready."""

    def __init__(self, program: RowProgram, gently: bool) -> None:
        self._gently = gently
        self._ops = [make() for _, make in program.nodes]
        self._inputs = [inputs for inputs, _ in program.nodes]
        uses = [i for inputs in self._inputs for i in inputs]
        self._last_use = {value: max(n for n, inputs in enumerate(self._inputs) if value in inputs) for value in uses}

    def feed(self, x: Tensor, *, last: bool) -> Tensor | None:
        """Refined rows that are ready after the rows ``x`` ``(b, c, rows, …)``, or None.

        ``last`` says that nothing follows; then all remaining rows come.
        """
        ready = self._run(0, [x], last and not self._gently)
        if last and self._gently:
            for number in range(len(self._ops)):
                ready = _joined(ready, self._run(number, [None] * (number + 1), True))
        return ready

    def _run(self, first: int, values: list[Tensor | None], ending: bool) -> Tensor | None:
        """The operations from ``first`` on, given the values before it; ``ending``: nothing follows."""
        for number in range(first, len(self._ops)):
            inputs = self._inputs[number]
            taken = [values[i] for i in inputs]
            for i in inputs:
                if self._last_use[i] == number:
                    values[i] = None
            values.append(self._ops[number].step(taken, ending and (number == first or not self._gently)))
        return values[-1]


def derive(network: SRNetwork) -> RowProgram:
    """The row program of ``network.residual``.

    Raises:
        NotStreamableError: the network has an operation that needs more than some rows, or that is not known.
    """
    if network.spec.receptive_radius is None:
        raise NotStreamableError("its receptive field has no bound")
    root = _Residual(network)
    tracer = _Tracer()
    try:
        graph = tracer.trace(root)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise NotStreamableError(f"its forward depends on the values or shapes it gets ({error})") from error
    return _program(root, graph, network)


class _Residual(nn.Module):
    def __init__(self, network: SRNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | None:
        return self.network.residual(x)


class _Tracer(fx.Tracer):
    """Keeps pixel shuffle and interpolation as one operation each; they ask for shapes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, PixelShuffle | CubicUpsampling | ChannelAttention)
        return whole or super().is_leaf_module(m, module_qualified_name)


def _program(root: nn.Module, graph: fx.Graph, network: SRNetwork) -> RowProgram:
    number: dict[fx.Node, int] = {}
    nodes: list[tuple[tuple[int, ...], Callable[[], _RowOp]]] = []
    modules = dict(root.named_modules())
    for node in graph.nodes:
        if node.op == "placeholder":
            number[node] = 0
        elif node.op == "output":
            (result,) = node.args
            if result not in number:
                raise NotStreamableError("it has no residual, or gives more than one tensor")
            if number[result] != len(nodes):
                raise NotStreamableError("its output is not its last operation")
        elif node.op != "get_attr":
            inputs, make = _operation(node, modules, root)
            nodes.append((tuple(number[i] for i in inputs), make))
            number[node] = len(nodes)
    return RowProgram(tuple(nodes), _widest(network))


def _widest(network: SRNetwork) -> int:
    """Channels times fine pixels per input pixel, at most, over the convolutions."""
    fine = 1
    for s in network.spec.scale:
        fine *= s
    widest = network.spec.in_channels
    early = fine if any(isinstance(m, CubicUpsampling) for m in network.modules()) else 1
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            widest = max(widest, early * module.out_channels, early * module.in_channels)
    return max(widest, network.spec.out_channels * fine)


def _operation(
    node: fx.Node, modules: dict[str, nn.Module], root: nn.Module
) -> tuple[list[fx.Node], Callable[[], _RowOp]]:
    """The inputs of a traced operation and a maker of its row form."""
    inputs = [n for n in node.all_input_nodes if n.op != "get_attr"]
    if node.op == "call_module":
        module = modules[str(node.target)]
        return inputs, _of_module(module)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.target is torch.cat or name == "concat":
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if dim != 1:
            raise NotStreamableError(f"a concatenation along dimension {dim}")
        return inputs, lambda: _Join(lambda parts: torch.cat(parts, dim=1), len(inputs))
    if node.target is pad_to_multiple:
        multiple = int(node.args[1])  # type: ignore[arg-type]
        return inputs, lambda: _Padded(multiple)
    if node.target is crop_to:
        scale = tuple(node.args[2])  # type: ignore[arg-type]
        return inputs, lambda: _Cropped(scale)
    pointwise = node.target in _POINTWISE_FUNCTIONS or (node.op == "call_method" and name in _POINTWISE_METHODS)
    joins = node.target in _JOINS or (node.op == "call_method" and name in _JOIN_METHODS)
    if not (pointwise or joins) or not inputs:
        raise NotStreamableError(f"the operation {name}")
    call = _replay(node, root)
    if len(inputs) == 1:
        return inputs, lambda: _Pointwise(lambda x: call([x]))
    return inputs, lambda: _Join(call, len(inputs))


def _of_module(module: nn.Module) -> Callable[[], _RowOp]:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        _Conv(module)
        return lambda: _Conv(module)
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        _Transposed(module)
        return lambda: _Transposed(module)
    if isinstance(module, CubicUpsampling):
        return lambda: _Upsampled(module)
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) and not module.training and module.track_running_stats:
        return lambda: _Pointwise(module)
    nearest = isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor is not None
    if nearest or isinstance(module, (*_POINTWISE_MODULES, nn.PixelShuffle, PixelShuffle)):
        return lambda: _Pointwise(module)
    raise NotStreamableError(f"the layer {type(module).__name__}")


def _replay(node: fx.Node, root: nn.Module) -> Callable[[list[Tensor]], Tensor]:
    """The traced call again, on the given tensors in place of its traced inputs."""
    order = [n for n in node.all_input_nodes if n.op != "get_attr"]

    def call(tensors: list[Tensor]) -> Tensor:
        found = dict(zip(order, tensors, strict=True))

        def value(n: fx.Node) -> Any:
            return found[n] if n in found else operator.attrgetter(str(n.target))(root)

        args = fx.node.map_arg(node.args, value)
        kwargs = fx.node.map_arg(node.kwargs, value)
        if node.op == "call_method":
            result: Tensor = getattr(args[0], str(node.target).rstrip("_"))(*args[1:], **kwargs)
        else:
            result = _IN_PLACE.get(node.target, node.target)(*args, **kwargs)
        return result

    return call

"""Row programs: a convolution network run strip by strip, each layer keeping only the last rows it still needs.

The program is derived from the network itself (``torch.fx``), so no network is written twice. Rows run along the first
spatial axis: y of a scene, z of a volume. Nothing is computed twice and no layer's whole output ever exists, yet the
result is the whole-image result: zero rows stand where the network's own padding puts them, at the true edge.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from sciSR.filter_rows import FilterRows, SummedRows
from sciSR.filters import AnyConv, FewFilter, Filter, TileFilter, is_few, is_tiled
from sciSR.low_precision import Halves
from sciSR.networks.attention import ChannelAttention
from sciSR.networks.borders import crop_to, pad_to_multiple
from sciSR.networks.shuffle import PixelShuffle
from sciSR.networks.spec import NetworkSpec, SRNetwork
from sciSR.networks.upsamplers import CubicUpsampling
from sciSR.row_ops import (
    ConvolutionRows,
    CroppedRows,
    Join,
    NotStreamableError,
    PaddedRows,
    Pointwise,
    RowOp,
    TransposedRows,
    UpsampledRows,
)
from sciSR.row_program import RowProgram

__all__ = ["NotStreamableError", "derive"]

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
"""Replayed out of place: one operation before may still wait for the rows, while those after take the result."""
_CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}
_JOIN_METHODS = {"add", "add_", "mul", "mul_", "sub", "sub_"}
_POINTWISE_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone"}


def derive(network: SRNetwork, *, fast: bool = False) -> RowProgram:
    """The row program of ``network.residual``.

    Args:
        network: frozen, on the device that it is to run on.
        fast: let the convolutions that allow it go through :mod:`sciSR.filters`.

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
    return _program(root, graph, network, fast)


class _Residual(nn.Module):
    def __init__(self, network: SRNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | None:
        return self.network.residual(x)


class _Proxy(fx.Proxy):
    """Tells sums in place from plain ones."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    """Keeps pixel shuffle and interpolation as one operation each; they ask for shapes."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, PixelShuffle | CubicUpsampling | ChannelAttention | Halves)
        return whole or super().is_leaf_module(m, module_qualified_name)


def _program(root: nn.Module, graph: fx.Graph, network: SRNetwork, fast: bool) -> RowProgram:
    number: dict[fx.Node, int] = {}
    widths: list[float] = []
    nodes: list[tuple[tuple[int, ...], Callable[[], RowOp]]] = []
    modules = dict(root.named_modules())
    width = _widths(graph, network.spec, modules)
    filters = _filters(graph, modules, width) if fast else {}
    along = {taken: node for node, filtered in filters.items() for taken in filtered.along}
    for node in graph.nodes:
        if node.op == "placeholder":
            number[node] = 0
        elif node.op == "output":
            (result,) = node.args
            if result not in number:
                raise NotStreamableError("it has no residual, or gives more than one tensor")
            if number[result] != len(nodes):
                raise NotStreamableError("its output is not its last operation")
        elif node in along:
            number[node] = number[along[node]]
        elif node.op != "get_attr":
            if filtered := filters.get(node):
                inputs, make = filtered.inputs, filtered.make
            else:
                inputs, make = _operation(node, modules, root, network.spec.ndim)
            nodes.append((tuple(number[i] for i in inputs), make))
            widths.append(width[node])
            if filtered and filtered.filters.planes > 1:
                nodes.append(((len(nodes),), partial(SummedRows, filtered.filters.planes)))
                widths.append(0)  # never wider than what it sums
            number[node] = len(nodes)
        if _changes_its_input(node, modules):
            number[node.args[0]] = number[node]  # what takes it later takes it changed
    unit = math.lcm(*(filtered.filters.tile[0] for filtered in filters.values()))
    widens = _widening(widths, nodes)
    widest, narrow = (math.ceil(max(network.spec.in_channels, *v)) for v in (widths, widths[:widens]))
    return RowProgram(tuple(nodes), widest, narrow, widens, unit, len(filters))


@dataclass(frozen=True)
class _Filtered:
    """A convolution in machine code of our own.

    Attributes:
        filters: that compute it.
        inputs: what it takes, and what is added.
        along: the operations after it that are computed with it.
    """

    filters: Filter
    inputs: list[fx.Node]
    along: tuple[fx.Node, ...] = ()

    def make(self) -> RowOp:
        return FilterRows(self.filters)


def _filters(
    graph: fx.Graph, modules: dict[str, nn.Module], width: Mapping[fx.Node, float]
) -> dict[fx.Node, _Filtered]:
    """The convolutions that are computed in our own code; one used twice is made ready once."""
    made: dict[tuple[Any, ...], Filter] = {}
    found: dict[fx.Node, _Filtered] = {}
    before: set[fx.Node] = set()
    for node in graph.nodes:
        module = _module(node, modules)
        if is_tiled(module):
            found[node] = _tiled(node, module, modules, [n for n in before if width.get(n) == width[node]], made)
        elif is_few(module):
            key = (module,)
            made[key] = made.get(key) or FewFilter(module)
            found[node] = _Filtered(made[key], list(node.all_input_nodes))
        before.add(node)
    return found


def _tiled(
    node: fx.Node,
    module: AnyConv,
    modules: dict[str, nn.Module],
    alike: Sequence[fx.Node],
    made: dict[tuple[Any, ...], Filter],
) -> _Filtered:
    """A convolution by tiles, with the shuffle or activation and the sum after it; ``alike``: what may be added."""
    inputs, along = list(node.all_input_nodes), []
    after = _only_user(node)
    follower = _module(after, modules)
    slope, fine = _slope(follower), _fine(follower)
    if after is not None and (slope is not None or fine is not None):
        along, after = [after], _only_user(after)
    other = None if fine else _other_summand(after, along[-1] if along else node)
    if after is not None and other is not None and other in alike:
        along, inputs = [*along, after], [*inputs, other]
    key = (module, follower if slope is not None or fine is not None else None)
    made[key] = made.get(key) or TileFilter(module, slope=slope, fine=fine)
    return _Filtered(made[key], inputs, tuple(along))


def _changes_its_input(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether an operation works in place."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return node.target in _IN_PLACE or bool(node.kwargs.get("inplace"))


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other_summand(node: fx.Node | None, summand: fx.Node) -> fx.Node | None:
    """What a plain sum of two adds to one of them."""
    if node is None or node.target not in (operator.add, operator.iadd, torch.add) or node.kwargs:
        return None
    others = [a for a in node.args if a is not summand]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _module(node: fx.Node | None, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node is not None and node.op == "call_module" else None


def _fine(module: nn.Module | None) -> tuple[int, ...] | None:
    """The factors of a pixel shuffle, or None for any other operation."""
    if isinstance(module, nn.PixelShuffle):
        return (module.upscale_factor, module.upscale_factor)
    return module.factors if isinstance(module, PixelShuffle) else None


def _slope(module: nn.Module | None) -> float | Tensor | None:
    """What an activation multiplies negative values by, or None for any other operation."""
    if isinstance(module, nn.ReLU):
        return 0.0
    if isinstance(module, nn.LeakyReLU):
        return float(module.negative_slope)
    return module.weight if isinstance(module, nn.PReLU) else None


def _widths(graph: fx.Graph, spec: NetworkSpec, modules: dict[str, nn.Module]) -> dict[fx.Node, float]:
    """How many values one input pixel becomes, per operation."""
    width: dict[fx.Node, float] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            width[node] = spec.in_channels
        elif node.op not in ("get_attr", "output"):
            width[node] = _width(node, width, modules, spec.ndim)
    return width


def _width(node: fx.Node, width: dict[fx.Node, float], modules: dict[str, nn.Module], ndim: int) -> float:
    taken = [width[i] for i in node.all_input_nodes if i in width]
    module = _module(node, modules)
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        return taken[0] * module.out_channels / module.in_channels / math.prod(module.stride)
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        return taken[0] * module.out_channels / module.in_channels * math.prod(module.stride)
    if isinstance(module, CubicUpsampling):
        return taken[0] * math.prod(module.scale)
    if isinstance(module, Halves):
        return 2 * taken[0]
    if isinstance(module, nn.Upsample):
        factors = module.scale_factor if isinstance(module.scale_factor, tuple) else (module.scale_factor,) * ndim
        return taken[0] * math.prod(float(f or 1) for f in factors)
    if node.target in _CONCATENATIONS:
        return sum(width.get(part, 0.0) for part in _parts(node))
    return max(taken, default=0.0)


def _parts(node: fx.Node) -> list[fx.Node]:
    """What a concatenation joins, one that comes twice twice."""
    return list(node.args[0] if node.args else node.kwargs["tensors"])  # type: ignore[arg-type]


def _widening(widths: Sequence[float], nodes: Sequence[tuple[tuple[int, ...], Any]]) -> int | None:
    """The operation of one input, in the second half, that more than doubles what was the most before it."""
    for number in range(max(1, len(widths) // 2), len(widths)):
        if widths[number] > 2 * max(widths[:number]) and len(nodes[number][0]) == 1:
            return number
    return None


def _operation(
    node: fx.Node, modules: dict[str, nn.Module], root: nn.Module, ndim: int
) -> tuple[list[fx.Node], Callable[[], RowOp]]:
    """The inputs of a traced operation and a maker of its row form."""
    inputs = [n for n in node.all_input_nodes if n.op != "get_attr"]
    if node.op == "call_module":
        module = modules[str(node.target)]
        return inputs, _of_module(module)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    constants = [operator.attrgetter(str(n.target))(root) for n in node.all_input_nodes if n.op == "get_attr"]
    if any(isinstance(c, Tensor) and c.dim() >= ndim and c.shape[-ndim] != 1 for c in constants):
        raise NotStreamableError(f"the operation {name} with a constant of so many rows")
    joined = node.target in _CONCATENATIONS
    if joined:
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if dim not in (1, -1 - ndim) or constants:
            raise NotStreamableError(f"a concatenation along dimension {dim}" + " with constants" * bool(constants))
    if node.target is pad_to_multiple:
        multiple = int(node.args[1])  # type: ignore[arg-type]
        return inputs, lambda: PaddedRows(multiple)
    if node.target is crop_to:
        scale = tuple(node.args[2])  # type: ignore[arg-type]
        return inputs, lambda: CroppedRows(scale)
    pointwise = node.target in _POINTWISE_FUNCTIONS or (node.op == "call_method" and name in _POINTWISE_METHODS)
    joins = joined or node.target in _JOINS or (node.op == "call_method" and name in _JOIN_METHODS)
    if not (pointwise or joins) or not inputs:
        raise NotStreamableError(f"the operation {name}")
    call = _replay(node, root)
    if len(inputs) == 1:
        return inputs, lambda: Pointwise(lambda x: call([x]))
    return inputs, lambda: Join(call, len(inputs))


def _of_module(module: nn.Module) -> Callable[[], RowOp]:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        ConvolutionRows(module)
        return lambda: ConvolutionRows(module)
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        TransposedRows(module)
        return lambda: TransposedRows(module)
    if isinstance(module, CubicUpsampling):
        return lambda: UpsampledRows(module)
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) and not module.training and module.track_running_stats:
        return lambda: Pointwise(module)
    nearest = isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor is not None
    if nearest or isinstance(module, (*_POINTWISE_MODULES, nn.PixelShuffle, PixelShuffle, Halves)):
        return lambda: Pointwise((lambda x: module(x.clone())) if getattr(module, "inplace", False) else module)
    raise NotStreamableError(f"the layer {type(module).__name__}")


def _replay(node: fx.Node, root: nn.Module) -> Callable[[list[Tensor]], Tensor]:
    """The traced call again, on the given tensors in place of its traced inputs."""
    order = [n for n in node.all_input_nodes if n.op != "get_attr"]

    def call(tensors: list[Tensor]) -> Tensor:
        found = dict(zip(order, tensors, strict=True))

        def value(n: fx.Node) -> Any:
            return found[n] if n in found else operator.attrgetter(str(n.target))(root)

        args = fx.node.map_arg(node.args, value)
        kwargs = {k: v for k, v in fx.node.map_arg(node.kwargs, value).items() if k != "inplace"}
        if node.op == "call_method":
            result: Tensor = getattr(args[0], str(node.target).rstrip("_"))(*args[1:], **kwargs)
        else:
            result = _IN_PLACE.get(node.target, node.target)(*args, **kwargs)
        return result

    return call

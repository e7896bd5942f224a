"""How much a result depends on what it should not depend on: spread over flips and turns, or over networks.

Voxelwise spread shows where a result is unstable. It is a weak sign of invented structure: networks that agree may be
wrong together.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sciSR.classical import CLASSICAL, build_classical
from sciSR.encoding import Encoding
from sciSR.errors import InputError, RunError
from sciSR.inference import upscale
from sciSR.networks import load_network
from sciSR.networks.spec import NetworkCard, NetworkSpec, SRNetwork
from sciSR.raster import Block, Raster, Window, windows

__all__ = ["Spread", "Turn", "Turned", "ensemble", "self_ensemble", "turns_for"]

_KEPT_BLOCKS = 4


@dataclass(frozen=True)
class Turn:
    """A symmetry of the pixel grid: the spatial axes that are flipped, then whether y and x change places.

    Attributes:
        flips: names of the flipped axes.
        swap: whether y and x are exchanged after the flips.
    """

    flips: tuple[str, ...] = ()
    swap: bool = False

    def apply(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        """The turned image ``(b, c, [z,] y, x)``."""
        dims = [axes.index(axis) + 2 for axis in self.flips]
        x = x.flip(dims) if dims else x
        return x.transpose(-2, -1) if self.swap else x

    def undo(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        """The image turned back."""
        x = x.transpose(-2, -1) if self.swap else x
        dims = [axes.index(axis) + 2 for axis in self.flips]
        return x.flip(dims) if dims else x


def turns_for(
    spec: NetworkSpec, grid_spacing: Mapping[str, float], which: Literal["auto", "flips", "all"] = "auto"
) -> list[Turn]:
    """The turns under which a network ought to give the same result.

    Flips always: sensors are symmetric. Exchanging y and x only where the network refines both by the same factor and
    takes the same windows along both, and where pixels are square to 1 %, for else it would see another sensor.

    Args:
        spec: of the network.
        grid_spacing: pixel size per axis, any unit.
        which: ``"flips"`` without exchanges; ``"all"`` refuses where exchanges are not allowed; ``"auto"`` leaves them
            out there.

    Raises:
        InputError: ``"all"`` where an exchange is not allowed.
    """
    square = abs(grid_spacing["y"] / grid_spacing["x"] - 1) <= 0.01
    alike = spec.scale[-1] == spec.scale[-2] and spec.alignment[-1] == spec.alignment[-2]
    swaps = square and alike
    if which == "all" and not swaps:
        raise InputError(
            f"uncertainty: y and x cannot change places: scale {spec.scale}, spacing {dict(grid_spacing)}; use flips"
        )
    flips = [
        tuple(axis for axis, on in zip(spec.axes, chosen, strict=True) if on)
        for chosen in product((False, True), repeat=spec.ndim)
    ]
    return [Turn(f, s) for s in ((False, True) if swaps and which != "flips" else (False,)) for f in flips]


class Turned(SRNetwork):
    """A network that sees its input turned, and whose result is turned back."""

    def __init__(self, network: SRNetwork, turn: Turn) -> None:
        super().__init__()
        self.network = network
        self.turn = turn
        self.arguments = dict(network.arguments)
        self.card = network.card or NetworkCard(name=network.family)

    @property
    def spec(self) -> NetworkSpec:
        """The network's; with strides a turned tile is not what the whole image would show."""
        spec = self.network.spec
        if not self.turn.swap:
            radius, halo, minimum = spec.receptive_radius, spec.halo, spec.minimum
        else:
            radius = None if spec.receptive_radius is None else _swapped(spec.receptive_radius)
            halo, minimum = _swapped(spec.halo), _swapped(spec.minimum)
        exact = spec.exact_tiling and all(a == 1 for a in spec.alignment)
        return replace(spec, receptive_radius=radius, halo=halo, minimum=minimum, exact_tiling=exact)

    def interpolate(self, x: Tensor) -> Tensor | None:
        """The network's interpolation of the turned image, turned back."""
        base = self.network.interpolate(self.turn.apply(x, self.network.spec.axes))
        return None if base is None else self.turn.undo(base, self.network.spec.axes)

    def residual(self, x: Tensor) -> Tensor | None:
        """The network's residual of the turned image, turned back."""
        detail = self.network.residual(self.turn.apply(x, self.network.spec.axes))
        return None if detail is None else self.turn.undo(detail, self.network.spec.axes)


def _swapped(values: tuple[int, ...]) -> tuple[int, ...]:
    return (*values[:-2], values[-1], values[-2])


@dataclass(frozen=True)
class Spread:
    """Mean and spread of several results.

    Attributes:
        mean: their mean; stored as the input is.
        std: their standard deviation (divisor n), physical, stored as float32.
        members: how many.
    """

    mean: Raster
    std: Raster
    members: int

    def stream(self) -> Iterator[tuple[Window, Block, Block]]:
        """Window, mean and deviation of every block once: both for the price of one."""
        source = self.mean.source
        assert isinstance(source, _Statistic)
        return source.members.stream()


def self_ensemble(
    raster: Raster,
    network: SRNetwork | str,
    *,
    turns: Literal["auto", "flips", "all"] | Sequence[Turn] = "auto",
    **options: Any,
) -> Spread:
    """Mean and spread of a network over flips and turns of its input; lazy, through the tile engine.

    The mean is the geometric self-ensemble of Timofte et al. 2016, doi:10.1109/CVPR.2016.206. Each turn costs one run.

    Args:
        raster: a volume or scene.
        network: a network, the name of shipped weights, a path, or a classical method.
        turns: which, see :func:`turns_for`, or a list of them.
        options: as for :func:`sciSR.inference.upscale`.

    Raises:
        InputError: no turn, one that is not allowed, or arguments that ``upscale`` refuses.
    """
    chosen = _network(network, raster, options)
    listed = turns_for(chosen.spec, raster.grid.spacing, turns) if isinstance(turns, str) else list(turns)
    return _spread([upscale(raster, Turned(chosen, turn), **options) for turn in listed], "turns")


def ensemble(raster: Raster, networks: Sequence[SRNetwork | str], **options: Any) -> Spread:
    """Mean and spread over networks trained apart (other seeds or families); lazy, through the tile engine.

    Deep ensembles: Lakshminarayanan et al. 2017, arXiv:1612.01474.

    Args:
        raster: a volume or scene.
        networks: networks, names or paths; all must reach the same grid.
        options: as for :func:`sciSR.inference.upscale`.

    Raises:
        InputError: no network, or results of different grids.
    """
    return _spread([upscale(raster, network, **options) for network in networks], "networks")


def _network(network: SRNetwork | str, raster: Raster, options: dict[str, Any]) -> SRNetwork:
    """The network itself, or the one of a name; what building a classical one takes is removed from ``options``."""
    if not isinstance(network, str):
        return network
    if network not in CLASSICAL:
        return load_network(network)
    axes = raster.grid.axes
    scale = options.get("scale") or 2
    factors = [math.ceil(scale.get(a, 1) if isinstance(scale, Mapping) else scale) for a in axes]
    return build_classical(network, ndim=len(axes), scale=factors, sensor=options.get("sensor"))


def _spread(results: list[Raster], over: str) -> Spread:
    if not results:
        raise InputError(f"uncertainty: no {over} came; give at least one")
    first = results[0]
    for result in results[1:]:
        if result.shape != first.shape or not result.grid.same_space(first.grid):
            raise InputError(
                f"uncertainty: results of shapes {first.shape} and {result.shape}; networks must reach the same grid"
            )
    members = _Members(results)
    note = {**first.provenance, "ensemble": f"{len(results)} {over}"}
    mean = first.replace(source=_Statistic(members, 0), provenance=MappingProxyType(note))
    std = mean.replace(
        source=_Statistic(members, 1),
        encoding=Encoding("float32", nodata=(math.nan,)),
        provenance=MappingProxyType({**note, "content": f"standard deviation over {over}"}),
        name=f"{first.name} (spread)",
    )
    return Spread(mean, std, len(results))


class _Members:
    """The results side by side; the last few blocks are kept, so that mean and deviation share them."""

    def __init__(self, results: list[Raster]) -> None:
        self.results = results
        self._cache: OrderedDict[Any, tuple[Block, Block]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, window: Window) -> tuple[Block, Block]:
        """Mean and deviation under ``window``."""
        key = tuple((p.start, p.stop) for p in window)
        with self._lock:
            if key in self._cache:
                return self._cache[key]
        pair = _statistics([result.read(window) for result in self.results])
        with self._lock:
            self._cache[key] = pair
            while len(self._cache) > _KEPT_BLOCKS:
                self._cache.popitem(last=False)
        return pair

    def stream(self) -> Iterator[tuple[Window, Block, Block]]:
        """Every block once: the members run side by side, where their engines cut the result alike."""
        first = self.results[0]
        if len({(type(r.source), r.source.chunks) for r in self.results}) > 1:
            for window in windows(first.shape, first.source.chunks):
                yield window, *self.read(window)
            return
        for parts in zip(*(result.stream() for result in self.results), strict=True):
            window = parts[0][0]
            if any(other != window for other, _ in parts):
                raise RunError(f"{first.name}: members of one engine came in other blocks; this is a defect of it")
            yield window, *_statistics([block for _, block in parts])


def _statistics(blocks: list[Block]) -> tuple[Block, Block]:
    """Mean and deviation in float64, by Welford's recurrence (1962, doi:10.1080/00401706.1962.10490022)."""
    dtype = blocks[0].values.dtype
    mean = np.zeros(blocks[0].values.shape, np.float64)
    square = np.zeros_like(mean)
    valid: NDArray[Any] | None = None
    for n, block in enumerate(blocks, 1):
        step = block.values - mean
        mean += step / n
        square += step * (block.values - mean)
        if block.valid is not None:
            valid = block.valid if valid is None else valid & block.valid
    return Block(mean.astype(dtype), valid), Block(np.sqrt(square / len(blocks)).astype(np.float32), valid)


class _Statistic:
    """One of the two as a source of blocks."""

    def __init__(self, members: _Members, which: int) -> None:
        self.members = members
        self._which = which

    @property
    def shape(self) -> tuple[int, ...]:
        return self.members.results[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self._which else self.members.results[0].dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.members.results[0].source.chunks

    def read(self, window: Window) -> Block:
        return self.members.read(window)[self._which]

    def stream(self) -> Iterator[tuple[Window, Block]]:
        for window, *pair in self.members.stream():
            yield window, pair[self._which]

    def record(self) -> dict[str, Any]:
        """The members' records, where they have one."""
        found: list[Callable[[], Any] | None] = [getattr(r.source, "record", None) for r in self.members.results]
        return {"executor": "ensemble", "members": [record() for record in found if record is not None]}

"""Classical super-resolution behind the networks' contract: models and baselines alike, by name.

Each method is an :class:`~sciSR.networks.spec.SRNetwork` without anything to train by gradients. All of its work is in
``interpolate``, so that an engine keeps it in float32 whatever the precision of residuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sciSR.errors import InputError

if TYPE_CHECKING:
    from sciSR.classical.method import Classical

__all__ = ["CLASSICAL", "build_classical", "classical_class"]

CLASSICAL: Mapping[str, str] = MappingProxyType(
    {
        "nearest": "sciSR.classical.interpolation:Nearest",
        "linear": "sciSR.classical.interpolation:Linear",
        "cubic": "sciSR.classical.interpolation:Cubic",
        "lanczos": "sciSR.classical.interpolation:Lanczos",
        "bspline": "sciSR.classical.interpolation:BSpline",
        "wiener": "sciSR.classical.phase_filter:Wiener",
        "ibp": "sciSR.classical.back_projection:BackProjection",
        "tv": "sciSR.classical.total_variation:TotalVariation",
    }
)
"""Name of a method -> ``module:class``, imported when needed."""


def classical_class(name: str) -> type[Classical]:
    """The class of a method.

    Raises:
        InputError: no method of this name.
    """
    if name not in CLASSICAL:
        near = get_close_matches(name, list(CLASSICAL), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"classical: no method {name!r}{hint}; there are {', '.join(CLASSICAL)}")
    module, _, attribute = CLASSICAL[name].partition(":")
    found: type[Classical] = getattr(import_module(module), attribute)
    return found


def build_classical(
    name: str, *, ndim: int, scale: Any, in_channels: int = 1, sensor: Any = None, **arguments: Any
) -> Classical:
    """A classical method, ready to run.

    Args:
        name: one of :data:`CLASSICAL`.
        ndim: spatial axes, 2 or 3.
        scale: whole factor for all axes, one per axis in array order, or ``{axis: factor}``.
        in_channels: channels it takes; 1 also runs on each band of a many-band raster by itself.
        sensor: what made the input coarse, for the methods that undo it: a :class:`~sciSR.sensors.Sensor`, its name,
            file or values; None: a Gaussian of one coarse pixel. Plain interpolation does not use it.
        arguments: the method's own; see its class.

    Raises:
        InputError: an unknown method or argument, or values that do not fit.

    Example:
        >>> import torch
        >>> build_classical("ibp", ndim=2, scale=2, sensor="box")(torch.ones(1, 1, 8, 8)).shape
        torch.Size([1, 1, 16, 16])
    """
    cls = classical_class(name)
    known = [*cls.own]
    for argument in arguments:
        if argument not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"{name}: no argument {argument!r}; {has}")
    if cls.uses_sensor:
        arguments["sensor"] = sensor
    return cls(ndim=ndim, scale=scale, in_channels=in_channels, **arguments)

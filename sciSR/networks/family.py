"""What every trained family of networks shares: its constructor's record, its classical skip and its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sciSR.errors import InputError
from sciSR.networks.receptive import Reach, radius
from sciSR.networks.skip import Skip
from sciSR.networks.spec import NetworkSpec, SRNetwork, WholeScale, axes_of, whole_scale

__all__ = ["AnySkip", "Family", "Scale"]

Scale = WholeScale
"""Refinement."""

AnySkip = str | Mapping[str, Any] | Skip | None
"""A :class:`~sciSR.networks.skip.Skip`, the name of an interpolation, its plain values, or None."""


class Family(SRNetwork):
    """A network whose layers were written here.

    A family names its layers in ``__init__``, runs them in :meth:`residual` and lists their reaches in :meth:`path`.

    Attributes:
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes.
        out_channels: channels it gives.
        scale: whole factor per spatial axis.
        skip: the classical upsampling that the residual is added to, or None.
        value_range: length of the number range it works in, or None where any numbers do.
    """

    def __init__(
        self,
        *,
        ndim: int,
        in_channels: int,
        scale: Scale,
        out_channels: int | None,
        skip: AnySkip,
        value_range: float | None,
        **own: Any,
    ) -> None:
        super().__init__()
        self.ndim = ndim
        self.scale = whole_scale(scale, ndim)
        self.in_channels = _count("in_channels", in_channels)
        self.out_channels = self.in_channels if out_channels is None else _count("out_channels", out_channels)
        self.skip = None if skip is None else Skip.of(skip)
        self.value_range = value_range
        for name, value in own.items():
            if name in _COUNTS and not isinstance(value, tuple):
                _count(name, value)
        if self.skip is not None:
            self.skip.check(ndim, self.scale)
            if self.in_channels != self.out_channels:
                raise InputError(
                    f"{self.family}: a residual on {self.skip.kernel} upsampling gives as many channels as it takes, "
                    f"but in_channels is {self.in_channels} and out_channels {self.out_channels}; pass skip=None"
                )
        self.arguments = {
            "ndim": ndim,
            "in_channels": self.in_channels,
            "scale": list(self.scale),
            "out_channels": self.out_channels,
            "skip": None if self.skip is None else self.skip.to_plain(),
            "value_range": value_range,
        } | {name: list(v) if isinstance(v, tuple) else v for name, v in own.items()}

    def path(self, axis: int) -> list[Reach]:
        """The reaches of the layers along one axis, in the order in which they run; of branches the widest."""
        raise NotImplementedError

    def interpolate(self, x: Tensor) -> Tensor | None:
        """The classical upsampling of ``x``, or None without a skip."""
        return None if self.skip is None else self.skip(x, self.scale)

    @property
    def interpolation_radius(self) -> tuple[int, ...]:
        """Input pixels per axis on each side that :meth:`interpolate` may use."""
        return (0,) * self.ndim if self.skip is None else self.skip.radius(self.scale)

    @property
    def spec(self) -> NetworkSpec:
        """What it can do, from its layers."""
        own = (radius(self.path(a), s, alignment=self.period(a)) for a, s in enumerate(self.scale))
        return self.describe(tuple(max(r, skip) for r, skip in zip(own, self.interpolation_radius, strict=True)))

    def describe(self, reach: tuple[int, ...]) -> NetworkSpec:
        """The spec for a receptive radius; families with strides, windows or pooling say more here."""
        return NetworkSpec(
            axes=axes_of(self.ndim),
            scale=self.scale,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            receptive_radius=reach,
            halo=self.measured_halo or reach,
            value_range=self.value_range,
        )

    def period(self, axis: int) -> int:
        """Input pixels after which the network's layers repeat along an axis (1 without strides)."""
        return 1


_COUNTS = frozenset({"features", "blocks", "groups", "growth", "layers", "units", "depth", "shrink", "reduction"})


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise InputError(f"network: {name} {value!r} is not a whole number of at least 1")
    return int(value)

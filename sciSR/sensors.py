"""What a sensor does to a scene: profile per axis, MTF per band, noise. Plain data, and the operator D it stands for.

A sensor is described on the *coarse* grid, so that one description serves every factor: widths are in coarse pixels
(or in millimetres, where a slice has a stated thickness). A slice thinner than its spacing leaves a gap (``fwhm`` below
1), a thicker one overlaps (above 1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sciSR.errors import InputError
from sciSR.grid import SPATIAL_AXES
from sciSR.kernels import FWHM_PER_SIGMA, Kernel, box_kernel, gaussian_kernel, ramped_kernel, sinc_kernel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Band", "Noise", "Profile", "Sensor", "fwhm_of_mtf"]

Scale = float | Sequence[float] | Mapping[str, float]
"""Factor for all spatial axes, one per axis in array order, or by axis name (others 1)."""

_T = TypeVar("_T")
_KINDS = ("gaussian", "box", "slr", "kspace", "none")


def fwhm_of_mtf(mtf: float) -> float:
    """Full width at half maximum, in pixels, of the Gaussian whose transfer function is ``mtf`` at Nyquist.

    A Gaussian of standard deviation s has the transfer function exp(-2 (pi f s)^2); at f = 1/2 cycle a pixel that is
    ``mtf`` for s = sqrt(-2 ln(mtf)) / pi (Aiazzi et al. 2006, doi:10.14358/PERS.72.5.591).

    Example:
        >>> round(fwhm_of_mtf(0.3), 3)
        1.163
    """
    return FWHM_PER_SIGMA * math.sqrt(-2 * math.log(mtf)) / math.pi


@dataclass(frozen=True)
class Profile:
    """How a coarse pixel weighs the scene along one axis.

    Attributes:
        kind: ``"gaussian"``; ``"box"``: the mean over ``fwhm``; ``"slr"``: a flat top with cosine flanks, as a slice
            excited by a Shinnar-Le Roux pulse has (Pauly et al. 1991, doi:10.1109/42.75611); ``"kspace"``: k-space cut
            at the coarse Nyquist frequency; ``"none"``: the axis is not made coarser.
        fwhm: full width at half maximum in coarse pixels; not used by ``"kspace"``.
        fwhm_mm: the same in millimetres; then ``fwhm`` follows from the coarse spacing (:meth:`Sensor.at`).
        fine_fwhm: width in *fine* pixels that the fine image already has. Gaussian widths add in squares, so the
            kernel that is left is ``sqrt(coarse^2 - fine^2)`` (as in Zhao et al. 2021, doi:10.1109/TMI.2020.3037187).
        edge: width of one flank as a part of ``fwhm``, for ``"slr"``. 0.49 is D/T for time-bandwidth product T = 4 and
            ripples of 1 % (Pauly et al., equations 23 and 24).
        lobes: side lobes kept of the sinc, for ``"kspace"``; a Lanczos window ends it.
    """

    kind: Literal["gaussian", "box", "slr", "kspace", "none"] = "gaussian"
    fwhm: float = 1.0
    fwhm_mm: float | None = None
    fine_fwhm: float = 0.0
    edge: float = 0.49
    lobes: int = 6

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"sensor: profile kind {self.kind!r} is not one of {', '.join(_KINDS)}")
        if not (math.isfinite(self.fwhm) and self.fwhm > 0):
            raise InputError(f"sensor: fwhm {self.fwhm} is not a positive width in coarse pixels")
        if self.fwhm_mm is not None and not (math.isfinite(self.fwhm_mm) and self.fwhm_mm > 0):
            raise InputError(f"sensor: fwhm_mm {self.fwhm_mm} is not a positive length")
        if not 0 <= self.edge <= 1:
            raise InputError(f"sensor: edge {self.edge} is not between 0 (box) and 1 (raised cosine)")
        if self.lobes < 1:
            raise InputError(f"sensor: lobes {self.lobes} is not at least 1")
        if not (math.isfinite(self.fine_fwhm) and self.fine_fwhm >= 0):
            raise InputError(f"sensor: fine_fwhm {self.fine_fwhm} is not a width in fine pixels")
        if self.fine_fwhm and self.kind != "gaussian":
            raise InputError(f"sensor: fine_fwhm is for gaussian profiles, this one is {self.kind}")

    def kernel(self, step: float) -> Kernel:
        """The kernel in fine pixels where one coarse pixel is ``step`` of them."""
        return _kernel(self, float(step))


@lru_cache(maxsize=512)
def _kernel(profile: Profile, step: float) -> Kernel:
    """Kernels are cached so that equal ones are the same object."""
    width = profile.fwhm * step
    if profile.kind == "gaussian":
        return gaussian_kernel(math.sqrt(max(width**2 - profile.fine_fwhm**2, 0.0)))
    if profile.kind == "box":
        return box_kernel(width)
    if profile.kind == "slr":
        return ramped_kernel(width, profile.edge)
    return sinc_kernel(step, profile.lobes)


@dataclass(frozen=True)
class Noise:
    """Noise of the coarse image.

    Attributes:
        kind: ``"none"``, ``"gaussian"``, or ``"rician"``: of the magnitude of a complex signal with Gaussian noise in
            both parts (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618); value 0 must mean no signal.
        std: standard deviation (of each part, for ``"rician"``) as a fraction of the data range.
    """

    kind: Literal["none", "gaussian", "rician"] = "none"
    std: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("none", "gaussian", "rician"):
            raise InputError(f"sensor: noise kind {self.kind!r} is not none, gaussian or rician")
        if not (math.isfinite(self.std) and self.std >= 0):
            raise InputError(f"sensor: noise std {self.std} is not a fraction of the range, 0 or more")

    @property
    def active(self) -> bool:
        """Whether there is any."""
        return self.kind != "none" and self.std > 0


@dataclass(frozen=True)
class Band:
    """One spectral band: its name, its MTF at the coarse Nyquist frequency, and what else it is called."""

    name: str
    mtf: float
    also: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.mtf < 1:
            raise InputError(f"sensor: MTF {self.mtf} of band {self.name} is not between 0 and 1")


@dataclass(frozen=True)
class Sensor:
    """How a coarse image comes from a fine one.

    Attributes:
        name: short name.
        z: profile along z; images without z do not use it.
        y: profile along y.
        x: profile along x.
        bands: bands whose MTF replaces the Gaussian width along y and x, in channel order.
        other_mtf: MTF of channels that are none of ``bands``; None: such channels are refused.
        noise: what is added at the end.
        description: one sentence.
        source: where the numbers come from.

    Example:
        >>> import torch
        >>> thick = Sensor("thick", z=Profile("gaussian", 1.0), y=Profile("none"), x=Profile("none"))
        >>> thick.apply(torch.ones(1, 1, 8, 5, 5), {"z": 4}).shape
        torch.Size([1, 1, 2, 5, 5])
    """

    name: str = "gaussian"
    z: Profile = field(default_factory=Profile)
    y: Profile = field(default_factory=Profile)
    x: Profile = field(default_factory=Profile)
    bands: tuple[Band, ...] = ()
    other_mtf: float | None = None
    noise: Noise = field(default_factory=Noise)
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.other_mtf is not None and not 0 < self.other_mtf < 1:
            raise InputError(f"sensor {self.name}: other_mtf {self.other_mtf} is not between 0 and 1")
        if self.bands and not self.y.kind == self.x.kind == "gaussian":
            raise InputError(f"sensor {self.name}: an MTF per band needs gaussian profiles along y and x")

    def at(self, spacing: Mapping[str, float]) -> Sensor:
        """This sensor with widths in millimetres turned into coarse pixels of ``spacing`` (mm, by axis name)."""
        changes: dict[str, Any] = {}
        for axis in SPATIAL_AXES:
            profile: Profile = getattr(self, axis)
            if profile.fwhm_mm is not None and axis in spacing:
                changes[axis] = replace(profile, fwhm=profile.fwhm_mm / spacing[axis], fwhm_mm=None)
        return replace(self, **changes) if changes else self

    def noiseless(self) -> Sensor:
        """This sensor without its noise."""
        return replace(self, noise=Noise()) if self.noise != Noise() else self

    def along(self, axis: str) -> Sensor:
        """A sensor that has along every axis the profile that this one has along ``axis``."""
        profile: Profile = getattr(self, axis)
        bands = () if axis == "z" else self.bands
        return replace(self, z=profile, y=profile, x=profile, bands=bands)

    def for_channels(self, names: Sequence[str | None]) -> Sensor:
        """This sensor with exactly one band per channel, found by name (``"B02"``, ``"b2 - blue"``, ``"blue"``).

        Raises:
            InputError: a channel is none of the bands and there is no ``other_mtf``.
        """
        if not self.bands:
            return self
        found = []
        for number, name in enumerate(names, 1):
            band = next((b for b in self.bands if name and _same_band(b, name)), None)
            if band is None and self.other_mtf is None:
                raise InputError(
                    f"sensor {self.name}: channel {number} ({name or 'unnamed'}) is none of its bands "
                    f"{', '.join(b.name for b in self.bands)}; name the channels after them"
                )
            found.append(band or Band(name or f"channel {number}", self.other_mtf or 0.0))
        return replace(self, bands=tuple(found))

    def factors(self, scale: Scale, ndim: int) -> tuple[float, ...]:
        """``scale`` as one factor per spatial axis in array order.

        Raises:
            InputError: a factor below 1, or another number of factors than axes.
        """
        axes = SPATIAL_AXES[-ndim:]
        if isinstance(scale, Mapping):
            unknown = sorted(set(scale) - set(axes))
            if unknown:
                raise InputError(f"scale: no spatial axis {', '.join(unknown)} here; name some of {', '.join(axes)}")
            factors = tuple(float(scale.get(axis, 1)) for axis in axes)
        elif isinstance(scale, Sequence):
            factors = tuple(float(f) for f in scale)
        else:
            factors = (float(scale),) * ndim
        if len(factors) != ndim:
            raise InputError(f"scale: {len(factors)} factors came for {ndim} spatial axes {', '.join(axes)}")
        for axis, factor in zip(axes, factors, strict=True):
            if not (math.isfinite(factor) and factor >= 1):
                raise InputError(f"scale: {factor:g} on axis {axis}; a sensor makes an image coarser, by 1 or more")
        return factors

    def kernels(self, axis: str, step: float, channels: int = 1) -> tuple[Kernel, ...]:
        """The kernels along ``axis`` in fine pixels, ``step`` of them a coarse pixel: one for all channels or one each.

        Raises:
            InputError: the axis has no profile, a width still in millimetres, or the channels are none of the bands.
        """
        profile: Profile = getattr(self, axis)
        if profile.kind == "none":
            raise InputError(
                f"sensor {self.name}: axis {axis} has no profile, yet it is to become {step:g} times coarser; "
                f"leave {axis} out of the scale or choose another sensor"
            )
        if profile.fwhm_mm is not None:
            raise InputError(
                f"sensor {self.name}: the width along {axis} is {profile.fwhm_mm:g} mm; call .at(spacing) with the "
                f"coarse spacing first"
            )
        if not self.bands or axis == "z":
            return (profile.kernel(step),)
        mtfs = self._mtfs(channels)
        return tuple(replace(profile, fwhm=fwhm_of_mtf(mtf)).kernel(step) for mtf in mtfs)

    def _mtfs(self, channels: int) -> tuple[float, ...]:
        mtfs = tuple(band.mtf for band in self.bands)
        if len(mtfs) != channels:
            if self.other_mtf is None:
                raise InputError(
                    f"sensor {self.name}: {channels} channels came for its {len(mtfs)} bands; pick them with "
                    f".for_channels(names)"
                )
            return (self.other_mtf,)
        return mtfs if len(set(mtfs)) > 1 else mtfs[:1]

    def split(self, channels: int) -> list[Sensor]:
        """One sensor that serves all of ``channels``, or one for each where their bands differ."""
        if not self.bands:
            return [self]
        return [replace(self, bands=(Band("band", mtf),)) for mtf in self._mtfs(channels)]

    def radius(self, scale: Scale, ndim: int | None = None) -> tuple[int, ...]:
        """Fine pixels beyond the ones under a coarse pixel, on each side, that can change its value; per axis.

        Args:
            scale: the factor or factors.
            ndim: number of spatial axes; may be left out where ``scale`` has one factor per axis.
        """
        count = ndim or (len(scale) if isinstance(scale, Sequence) else 2)
        factors = self.factors(scale, count)
        reach = []
        for axis, step in zip(SPATIAL_AXES[-count:], factors, strict=True):
            widest = 0.0
            if step > 1:
                widest = max(k.radius for k in self._every_kernel(axis, step)) - step / 2 + 0.5
            whole = float(step).is_integer()
            reach.append(max(0, math.floor(widest + 1e-9) if whole else math.ceil(widest) + 1))
        return tuple(reach)

    def _every_kernel(self, axis: str, step: float) -> tuple[Kernel, ...]:
        """The kernels of all bands and of other channels."""
        kernels = self.kernels(axis, step, len(self.bands)) if self.bands else self.kernels(axis, step)
        if self.bands and self.other_mtf is not None and axis != "z":
            kernels += (replace(getattr(self, axis), fwhm=fwhm_of_mtf(self.other_mtf)).kernel(step),)
        return kernels

    def apply(
        self,
        x: Tensor,
        scale: Scale,
        *,
        generator: torch.Generator | None = None,
        noise: bool = True,
        data_range: float = 1.0,
    ) -> Tensor:
        """The coarse image of ``x``: same field of view, centre-aligned, borders mirrored; differentiable.

        Args:
            x: floating tensor ``(b, c, [z,] y, x)``.
            scale: factor per spatial axis in array order, or by name, or one for all; need not be whole: the size is
                rounded and the step follows from it. An axis of factor 1 is left as it is.
            generator: of the noise; on the device of ``x``.
            noise: whether to add the sensor's noise.
            data_range: length of the range that ``noise.std`` is a fraction of.
        """
        from sciSR.resampling import sample_axis

        ndim = x.dim() - 2
        factors = self.factors(scale, ndim)
        for dim in sorted(range(ndim), key=lambda d: -factors[d]):
            n = x.shape[dim + 2]
            size = max(1, round(n * (1 / factors[dim])))
            if size < n:
                x = sample_axis(x, dim + 2, size, self.kernels(SPATIAL_AXES[-ndim:][dim], n / size, x.shape[1]))
        if noise and self.noise.active:
            x = self._with_noise(x, self.noise.std * data_range, generator)
        return x

    def adjoint(self, y: Tensor, scale: Scale) -> Tensor:
        """The transpose of :meth:`apply` without noise, for whole factors; ``(b, c, [z,] y, x)`` to fine pixels."""
        from sciSR.resampling import sample_axis_adjoint

        ndim = y.dim() - 2
        factors = self.factors(scale, ndim)
        for dim in sorted(range(ndim), key=lambda d: factors[d]):
            step = int(factors[dim])
            if step > 1:
                kernels = self.kernels(SPATIAL_AXES[-ndim:][dim], step, y.shape[1])
                y = sample_axis_adjoint(y, dim + 2, y.shape[dim + 2] * step, kernels)
        return y

    def _with_noise(self, x: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
        import torch

        def draw() -> Tensor:
            return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator) * std

        return x + draw() if self.noise.kind == "gaussian" else torch.hypot(x + draw(), draw())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or record."""
        values = asdict(self)
        values["bands"] = [asdict(band) for band in self.bands]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sensor:
        """The sensor of :meth:`to_dict`'s values, or of a file's: parts that are left out keep their default.

        ``axes`` may stand for z, y and x together.

        Raises:
            InputError: a key that a sensor does not have.
        """
        given = dict(values)
        shared = given.pop("axes", None)
        if shared is not None:
            for axis in SPATIAL_AXES:
                given.setdefault(axis, shared)
        _known(given, cls, "sensor")
        parts: dict[str, Any] = {k: v for k, v in given.items() if k not in (*SPATIAL_AXES, "noise", "bands")}
        for axis in SPATIAL_AXES:
            if axis in given:
                parts[axis] = _part(Profile, given[axis], f"sensor: {axis}")
        if "noise" in given:
            parts["noise"] = _part(Noise, given["noise"], "sensor: noise")
        parts["bands"] = tuple(_part(Band, band, "sensor: bands") for band in given.get("bands") or ())
        return cls(**parts)


def _part(kind: type[_T], values: Any, where: str) -> _T:
    if isinstance(values, kind):
        return values
    if isinstance(values, str) and kind is Profile:
        values = {"kind": values}
    if not isinstance(values, Mapping):
        raise InputError(
            f"{where}: {values!r} came, expected a mapping with {', '.join(f.name for f in _fields(kind))}"
        )
    _known(values, kind, where)
    return kind(**values)


def _fields(kind: Any) -> Any:
    return fields(kind)


def _known(values: Mapping[str, Any], kind: Any, where: str) -> None:
    names = [f.name for f in fields(kind)]
    for key in values:
        if key not in names:
            near = get_close_matches(str(key), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(names)}"
            raise InputError(f"{where}: unknown key {key!r}; {hint}")


def _same_band(band: Band, name: str) -> bool:
    """Whether a channel's name means this band: its code with or without a leading 0, or its common name."""
    codes = {code.upper() for code in re.findall(r"\bB0*(\d+A?)(?![0-9A-Z])", name.upper().replace("_", " "))}
    own = re.sub(r"^B0*", "", band.name.upper())
    if codes:
        return own in codes
    return band.also is not None and re.search(rf"\b{re.escape(band.also)}\b", name.lower()) is not None

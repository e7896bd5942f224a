"""Networks by name, and weights from files; torch and MONAI load when a network is built."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciSR.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from sciSR.networks.spec import SRNetwork

__all__ = [
    "FITTED",
    "NETWORKS",
    "build_network",
    "list_networks",
    "list_weights",
    "load_network",
    "network_class",
    "weights_path",
]

NETWORKS: dict[str, str] = {
    "carn": "sciSR.networks.carn:CARN",
    "drrn": "sciSR.networks.drrn:DRRN",
    "edsr": "sciSR.networks.edsr:EDSR",
    "encoder_decoder": "sciSR.networks.unet:EncoderDecoder",
    "espcn": "sciSR.networks.espcn:ESPCN",
    "fsrcnn": "sciSR.networks.fsrcnn:FSRCNN",
    "imdn": "sciSR.networks.imdn:IMDN",
    "mdcsrn": "sciSR.networks.mdcsrn:MDCSRN",
    "mobile": "sciSR.networks.mobile:MobileSR",
    "msrresnet": "sciSR.networks.srresnet:MSRResNet",
    "rcan": "sciSR.networks.rcan:RCAN",
    "rdn": "sciSR.networks.rdn:RDN",
    "rrdbnet": "sciSR.networks.rrdb:RRDBNet",
    "srcnn": "sciSR.networks.srcnn:SRCNN",
    "srresnet": "sciSR.networks.srresnet:SRResNet",
    "srvgg": "sciSR.networks.srvgg:SRVGG",
    "swinir": "sciSR.networks.swinir:SwinIR",
    "unet": "sciSR.networks.unet:UNet",
    "vdsr": "sciSR.networks.vdsr:VDSR",
}
"""Name of a family -> ``module:class``, imported when needed."""

FITTED: dict[str, str] = {
    "a-plus": "sciSR.classical.dictionary:APlus",
    "least-squares": "sciSR.classical.least_squares:LeastSquares",
    "sparse": "sciSR.classical.dictionary:Sparse",
}
"""Classical families whose weights come from regression: built and loaded like networks, but not trained."""


def list_networks() -> list[str]:
    """Names that :func:`build_network` takes."""
    return sorted(NETWORKS)


def network_class(family: str) -> type[SRNetwork]:
    """The class of a family.

    Raises:
        InputError: no family of this name.
    """
    table = FITTED if family in FITTED else NETWORKS
    if family not in table:
        raise InputError(
            f"network: no family {family!r}{_near(family, NETWORKS)}; there are {', '.join(list_networks())}"
        )
    module, _, name = table[family].partition(":")
    found: type[SRNetwork] = getattr(import_module(module), name)
    return found


def build_network(family: str, *, ndim: int, in_channels: int, scale: Any, **arguments: Any) -> SRNetwork:
    """An untrained network.

    Args:
        family: one of :func:`list_networks`.
        ndim: spatial axes, 2 or 3.
        in_channels: channels it takes and, unless ``out_channels`` says otherwise, gives.
        scale: whole factor for all axes, one per axis in array order, or ``{axis: factor}``.
        arguments: the family's own; see its class.

    Raises:
        InputError: an unknown family or argument, or values that do not fit.

    Example:
        >>> network = build_network("edsr", ndim=3, in_channels=1, scale={"z": 4}, features=8, blocks=2)
        >>> network.spec.scale
        (4, 1, 1)
    """
    cls = network_class(family)
    known = _parameters(cls)
    for name in arguments:
        if name not in known:
            raise InputError(f"{family}: no argument {name!r}{_near(name, known)}; it has {', '.join(known)}")
    return cls(ndim=ndim, in_channels=in_channels, scale=scale, **arguments)


def list_weights() -> list[str]:
    """Names of the weights that ship with the package."""
    folder = _weights_folder()
    return sorted(p.name.removesuffix(".safetensors") for p in folder.glob("*.safetensors")) if folder.is_dir() else []


def weights_path(name: str | os.PathLike[str]) -> Path:
    """The file of shipped weights, or of a path that is there.

    Raises:
        MissingFileError: neither.
    """
    text = os.fspath(name)
    if text in list_weights():
        return _weights_folder() / f"{text}.safetensors"
    path = Path(text)
    if path.is_file():
        return path
    shipped = list_weights()
    have = f"shipped weights are {', '.join(shipped)}" if shipped else "no weights ship with this installation"
    raise MissingFileError(f"{text}: no such file, and no weights of this name{_near(text, shipped)}; {have}")


def load_network(name: str | os.PathLike[str], **options: Any) -> SRNetwork:
    """A trained network, ready to run, from shipped weights, an own checkpoint, or a published PyTorch checkpoint.

    Args:
        name: one of :func:`list_weights`, or a path.
        options: what a published checkpoint does not say itself: ``scale``, ``residual_scale``, ``value_range``,
            ``padding``; see :mod:`sciSR.networks.foreign`. Own checkpoints take none.

    Raises:
        MissingFileError: no such file or name.
        CheckpointError: not a checkpoint, damaged, or its keys do not fit.
    """
    from sciSR.networks import checkpoint

    path = weights_path(name)
    if not checkpoint.is_own(path):
        from sciSR.networks.foreign import load_foreign

        foreign: SRNetwork = load_foreign(path, **options)
        return foreign
    if options:
        raise InputError(
            f"{path.name}: {', '.join(options)} cannot be set; a sciSR checkpoint says everything about itself"
        )
    return checkpoint.load_checkpoint(path)


def _weights_folder() -> Path:
    return Path(str(files("sciSR") / "weights"))


def _near(name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _parameters(cls: type[SRNetwork]) -> list[str]:
    from inspect import signature

    return [name for name in signature(cls).parameters if name != "self"]

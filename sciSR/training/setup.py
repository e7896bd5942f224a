"""What the settings of a run mean: the network, its physics, and the devices."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch

from sciSR.degradation import Sensor, load_sensor
from sciSR.errors import InputError
from sciSR.networks import build_network, load_network
from sciSR.networks.spec import SRNetwork
from sciSR.normalization import Normalization
from sciSR.sampling import Reference

__all__ = [
    "PRECISIONS",
    "band_names",
    "check_batch",
    "check_device",
    "launch",
    "network_of",
    "normalization_of",
    "per_axis",
    "plain_network",
    "processes",
    "sensor_of",
    "settings_of",
    "stand_down",
    "stated_sensor",
]

_S = TypeVar("_S")

PRECISIONS: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Name of a precision -> what Lightning Fabric calls it."""


def launch(device: str, devices: int, nodes: int, precision: str) -> Any:
    """A launched ``lightning_fabric.Fabric``; under torchrun its processes are the ones that there are.

    Raises:
        InputError: a precision or device that is none, or fp16 without a CUDA device.
    """
    from lightning_fabric import Fabric

    check_device(device, precision)
    kind, _, number = device.partition(":")
    devices, nodes = processes(devices, nodes)
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number else devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=PRECISIONS[precision],
    )
    fabric.launch()
    return fabric


def check_device(device: str, precision: str) -> None:
    """Raise InputError for a precision or device that is none, or fp16 without a CUDA device."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} came, expected one of {', '.join(PRECISIONS)}")
    kind = device.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"device: {device!r} came, expected auto, cpu, cuda, cuda:1 or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {device!r} was asked for, but torch sees no CUDA device here; use cpu or auto")
    if precision == "fp16" and (kind in ("cpu", "mps") or not torch.cuda.is_available()):
        raise InputError(f"precision: fp16 needs a CUDA device, device {device!r} has none; use bf16 or float32")


def processes(devices: int, nodes: int) -> tuple[int, int]:
    """Processes of a node, and nodes: as asked for, or under torchrun as there are."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return devices, nodes
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    return devices, int(os.environ["WORLD_SIZE"]) // devices


def check_batch(batch: int, world: int) -> None:
    """Raise InputError for patches that so many processes cannot share."""
    if batch % world:
        raise InputError(f"batch: {batch} patches cannot be shared by {world} processes; take a multiple of {world}")


def stand_down() -> bool:
    """Whether this is one of several processes that trained together and not the first, which does what follows.

    Their group ends; each process calls it once, after training.
    """
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        return False
    rank = group.get_rank()
    group.destroy_process_group()
    return bool(rank > 0)


def network_of(network: SRNetwork | str | Mapping[str, Any], references: Sequence[Reference]) -> SRNetwork:
    """The network that a setting means."""
    if isinstance(network, SRNetwork):
        return network
    if isinstance(network, str):
        return load_network(network)
    arguments = plain_network(network, references)
    return build_network(arguments.pop("family"), **arguments)


def plain_network(network: Mapping[str, Any], references: Sequence[Reference]) -> dict[str, Any]:
    """Family and arguments with what follows from the references."""
    arguments = dict(network)
    if "family" not in arguments:
        raise InputError(f"network: {dict(network)} names no family; write family: edsr, or the name of weights")
    if not references:
        raise InputError("training: no reference came; name at least one fine raster")
    first = references[0]
    arguments.setdefault("ndim", len(first.raster.grid.shape))
    arguments.setdefault("in_channels", len(first.bands or first.raster.channels))
    return arguments


def normalization_of(
    given: Normalization | Mapping[str, Any] | None, network: SRNetwork, teacher: SRNetwork | None = None
) -> Normalization:
    """The intensity map that a setting means; None: the weights' own, the teacher's, or percentile.

    Raises:
        InputError: another one than the teacher's, who would see other numbers than it was trained on.
    """
    own, theirs = (None if n is None or n.card is None else n.card.normalization for n in (network, teacher))
    if given is not None:
        recipe = settings_of(Normalization, given, "normalization")
    else:
        recipe = own or theirs or Normalization("percentile")
    if theirs is not None and replace(recipe, nonnegative=theirs.nonnegative) != theirs:
        raise InputError(
            f"teacher: it was trained with the normalization {theirs.to_dict()}, the network "
            f"{'is given' if given is not None else 'comes with'} {recipe.to_dict()}; both see the same input: set "
            "normalization to the teacher's, or take another teacher"
        )
    return recipe


def sensor_of(
    given: Sensor | str | Mapping[str, Any] | None,
    network: SRNetwork,
    references: Sequence[Reference],
    bands: Sequence[str] | None,
) -> Sensor | None:
    """The degradation that makes the coarse patches of these references; None for real pairs.

    Raises:
        InputError: none is stated, and there are not real pairs alone.
    """
    measured = bool(references) and all(r.low is not None for r in references)
    if measured:
        return None
    if given is None and network.card is not None:
        given = network.card.sensor
    stated = stated_sensor(given, network, references, bands)
    if stated is None:
        raise InputError("training: no sensor came; name the degradation to undo (sensor: mri), or give real pairs")
    return stated


def stated_sensor(
    given: Sensor | str | Mapping[str, Any] | None,
    network: SRNetwork,
    references: Sequence[Reference],
    bands: Sequence[str] | None,
) -> Sensor | None:
    """The sensor that a setting names, for the channels and pixels of these references; of real pairs too."""
    if given is None:
        return None
    first = references[0]
    coarse = first.raster.grid.coarsen(dict(zip(network.spec.axes, map(float, network.spec.scale), strict=True)))
    return load_sensor(given).for_channels(bands or _channel_names(first)).at(coarse.spacing)


def _channel_names(reference: Reference) -> list[str | None]:
    names = [channel.name for channel in reference.raster.channels]
    return names if reference.bands is None else [names[b] for b in reference.bands]


def settings_of(kind: type[_S], given: _S | Mapping[str, Any] | None, section: str) -> _S:
    """The settings themselves, or a dataclass of them from plain values; None: all as they are by default.

    Args:
        kind: the dataclass.
        given: the settings, or a value by name; lists become tuples.
        section: its name in messages.

    Raises:
        InputError: a setting that there is not, or a value of another kind than the setting has.

    Example:
        >>> from sciSR.sampling import Augmentation
        >>> settings_of(Augmentation, {"flip": False, "gain": [0.5, 2]}, "augment").gain
        (0.5, 2)
    """
    if given is not None and not isinstance(given, Mapping):
        return given
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in (given or {}).items()}
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # Python has no name for the type of dataclasses
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{section}: no setting {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        return kind(**values)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{section}: {values} came, which has a value of the wrong kind ({error})") from error


def per_axis(value: int | Mapping[str, int], axes: Sequence[str], what: str) -> tuple[int, ...]:
    """One whole number per axis, in array order."""
    named = dict(value) if isinstance(value, Mapping) else dict.fromkeys(axes, value)
    if set(named) != set(axes) or any(n < 1 for n in named.values()):
        raise InputError(f"{what}: {value} came; give a whole number above 0, or one for each of {', '.join(axes)}")
    return tuple(int(named[axis]) for axis in axes)


def band_names(given: Sequence[str] | None, references: Sequence[Reference], channels: int) -> list[str] | None:
    """The names that the checkpoint gives its channels."""
    if given is not None:
        if len(given) != channels:
            raise InputError(f"bands: {len(given)} names came for a network of {channels} channels")
        return list(given)
    names = _channel_names(references[0])
    return [str(n) for n in names] if len(names) == channels and all(names) else None

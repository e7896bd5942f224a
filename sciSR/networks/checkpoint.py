"""One safetensors file per network: weights, and in its header everything needed to use them again.

The header's one metadata entry is JSON with sorted keys: family and constructor arguments, spec with the measured halo,
normalization, sensor, bands and provenance. Loading runs no code from the file, and equal content gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sciSR.degradation import Sensor
from sciSR.errors import CheckpointError, InputError
from sciSR.files import whole_file
from sciSR.networks import build_network
from sciSR.networks.header import FORMAT, KEY, damaged, is_own, read_content
from sciSR.networks.spec import NetworkCard, NetworkSpec, SRNetwork
from sciSR.normalization import Normalization

__all__ = [
    "Header",
    "fit_weights",
    "is_own",
    "load_checkpoint",
    "read_card",
    "read_header",
    "save_checkpoint",
    "sha256",
]


@dataclass(frozen=True)
class Header:
    """What a checkpoint says without its weights.

    Attributes:
        family: the name in :data:`sciSR.networks.NETWORKS`.
        arguments: the constructor's keyword arguments.
        spec: what the network can do, its halo as measured.
        card: name, normalization, sensor, bands, provenance; without a checksum.
    """

    family: str
    arguments: Mapping[str, Any]
    spec: NetworkSpec
    card: NetworkCard


def save_checkpoint(
    network: SRNetwork,
    path: str | os.PathLike[str],
    *,
    normalization: Normalization | None,
    sensor: Sensor | None,
    bands: Sequence[str] | None,
    provenance: Mapping[str, Any],
    halo: Sequence[int] | None = None,
    name: str,
) -> Path:
    """Write a network to one file; it appears whole or not at all.

    Args:
        network: built by :func:`sciSR.networks.build_network`.
        path: the file, usually ``.safetensors``.
        normalization: how physical values become its input.
        sensor: the degradation it was trained to undo.
        bands: names of the channels it was trained on.
        provenance: what it was trained on and how; plain values, no time and no path if the bytes are to repeat.
        halo: input pixels per axis, from :func:`~sciSR.networks.receptive.measure_halo`; None: the network's own.
        name: short name of the weights.

    Returns:
        The path written.

    Raises:
        InputError: a network that no family builds, or a provenance that JSON cannot hold.
    """
    if not network.family:
        raise InputError(f"{name}: {type(network).__name__} belongs to no family and cannot be saved as a checkpoint")
    spec = network.spec.to_dict() | ({} if halo is None else {"halo": [int(h) for h in halo]})
    content = {
        "format": FORMAT,
        "name": name,
        "family": network.family,
        "arguments": network.arguments,
        "spec": spec,
        "normalization": None if normalization is None else normalization.to_dict(),
        "sensor": None if sensor is None else sensor.to_dict(),
        "bands": None if bands is None else list(bands),
        "provenance": dict(provenance),
    }
    try:
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: the checkpoint's metadata must be plain values: {error}") from error
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    target = Path(path)
    with whole_file(target) as temporary:
        save_file(tensors, temporary, metadata={KEY: text})
    return target


def read_header(path: str | os.PathLike[str]) -> Header:
    """Everything a checkpoint says, without reading its weights.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a checkpoint, or a damaged one.
    """
    file = Path(path)
    content = read_content(file)
    try:
        return _header(content)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(file, error) from error


def read_card(path: str | os.PathLike[str]) -> NetworkCard:
    """Name, normalization, sensor, bands and provenance of a checkpoint; its header only, so no checksum."""
    return read_header(path).card


def load_checkpoint(path: str | os.PathLike[str]) -> SRNetwork:
    """The network of a checkpoint, in evaluation mode, its card with the file's sha256.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a checkpoint, a damaged one, or one whose keys do not fit its family.
    """
    file = Path(path)
    header = read_header(file)
    try:
        network = build_network(header.family, **header.arguments)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{file.name}: family {header.family!r} cannot be built from it: {error}") from error
    fit_weights(network, load_file(file), file.name)
    network.measured_halo = header.spec.halo
    network.card = NetworkCard(
        name=header.card.name,
        normalization=header.card.normalization,
        sensor=header.card.sensor,
        bands=header.card.bands,
        provenance=header.card.provenance,
        checksum=sha256(file),
    )
    return network.eval()


def fit_weights(network: SRNetwork, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put ``tensors`` into ``network``.

    Raises:
        CheckpointError: keys that are missing, left over or of another shape; the message names them.
    """
    have = network.state_dict()
    missing = [k for k in have if k not in tensors]
    extra = [k for k in tensors if k not in have]
    other = [
        f"{k} {tuple(tensors[k].shape)} instead of {tuple(have[k].shape)}"
        for k in have
        if k in tensors and tensors[k].shape != have[k].shape
    ]
    wrong = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", other))
        if names
    ]
    if wrong:
        raise CheckpointError(f"{source}: the keys do not fit {network.family}: {'; '.join(wrong)}")
    network.load_state_dict(dict(tensors))


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal sha256 of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _header(content: dict[str, Any]) -> Header:
    spec: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["spec"].items()}
    normalization, sensor, bands = content["normalization"], content["sensor"], content["bands"]
    card = NetworkCard(
        name=content["name"],
        normalization=None if normalization is None else Normalization.from_dict(normalization),
        sensor=None if sensor is None else Sensor.from_dict(sensor),
        bands=None if bands is None else tuple(bands),
        provenance=content["provenance"],
    )
    return Header(content["family"], content["arguments"], NetworkSpec(**spec), card)

"""Weights from elsewhere: published PyTorch checkpoints, recognised by their keys, behind sciSR's own networks.

Files are read with ``weights_only``: nothing in them is ever run. Sizes are inferred from the tensors. What tensors
cannot tell is a keyword with the paper's value as default: ``scale`` (FSRCNN, SRCNN, VDSR, CARN; for SRCNN and VDSR 1
means that the input already lies on the fine grid), ``residual_scale``, ``value_range`` (length of the number range of
input and output: 255 for EDSR and RCAN, else 1) and ``padding`` of SRCNN.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sciSR.errors import CheckpointError, InputError, MissingFileError
from sciSR.networks import build_network
from sciSR.networks.checkpoint import save_checkpoint, sha256
from sciSR.networks.dialects import DIALECTS, Dialect, Options, Reading, Weights, recognise
from sciSR.networks.spec import NetworkCard, SRNetwork

__all__ = ["import_checkpoint", "load_foreign", "read_weights"]

_WRAPPERS = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "generator",
    "netG",
    "net_g",
)
"""Entries of a training checkpoint under which published codes keep the state dict, best first."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "generator.", "netG.", "net_g.")
"""What wrappers put before every key."""


def load_foreign(path: str | os.PathLike[str], **options: Any) -> SRNetwork:
    """A network of published weights, in evaluation mode.

    Args:
        path: ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` with a state dict, alone or under a usual entry.
        options: ``scale``, ``residual_scale``, ``value_range``, ``padding``; only where keys do not tell.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not weights, a pickled module, an unknown dialect, or keys that do not fit it.
        InputError: an option that is unknown, or that these weights contradict.
    """
    file = Path(path)
    chosen = _options(file, options)
    weights = read_weights(file)
    dialect = recognise(weights)
    if dialect is None:
        from sciSR.networks.spandrel import load_with_spandrel

        names = dict.fromkeys(known.name.split(",")[0].split(" with")[0] for known in DIALECTS)
        return load_with_spandrel(file, weights, list(names), options)
    for name in ("residual_scale", "padding"):
        if options.get(name) is not None and name not in dialect.options:
            raise InputError(f"{file.name}: {name} means nothing for {dialect.name}")
    network = _filled(file, dialect, _reading(file, dialect, weights, chosen), weights)
    network.card = NetworkCard(
        name=file.stem,
        provenance={"imported from": file.name, "dialect": dialect.name, "source": dialect.source},
        checksum=sha256(file),
    )
    return network.eval()


def import_checkpoint(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, name: str | None = None, **options: Any
) -> Path:
    """Published weights as a sciSR checkpoint.

    Args:
        source: the published file.
        target: the file to write, usually ``.safetensors``.
        name: short name of the weights; by default the target's without its ending.
        options: as for :func:`load_foreign`.

    Returns:
        The path written.
    """
    network = load_foreign(source, **options)
    if not network.family:
        raise CheckpointError(
            f"{Path(source).name}: read through spandrel, it belongs to no family of sciSR and cannot be converted"
        )
    card = network.card
    assert card is not None
    return save_checkpoint(
        network,
        target,
        normalization=None,
        sensor=None,
        bands=None,
        provenance={**card.provenance, "sha256": card.checksum},
        name=name or Path(target).name.removesuffix(".safetensors"),
    )


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict of a file: unwrapped, without common prefixes, floating tensors in float32.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a file of weights, or one that would have to run code.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{file}: no such checkpoint")
    content = _safetensors(file) if file.suffix.lower() == ".safetensors" else _torch(file)
    found = _unwrapped(content)
    if found is None:
        have = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        have = have or "nothing"
        raise CheckpointError(f"{file.name}: no state dict in it (it holds {have}); expected tensors by name")
    weights = {key: value.float() if value.is_floating_point() else value for key, value in found.items()}
    return _stripped(weights)


def _options(file: Path, options: Mapping[str, Any]) -> Options:
    known = [f.name for f in fields(Options)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"{file.name}: no option {', '.join(unknown)}; there are {', '.join(known)}")
    scale = options.get("scale")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int) or scale < 1):
        raise InputError(f"{file.name}: scale {scale!r} is not a whole number of at least 1")
    for name in ("value_range", "residual_scale"):
        value = options.get(name)
        if value is not None and not (_is_number(value) and value > 0):
            raise InputError(f"{file.name}: {name} {value!r} is not a number above 0")
    return Options(**options)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _reading(file: Path, dialect: Dialect, weights: Weights, options: Options) -> Reading:
    """What the dialect makes of the weights; its complaints name the file."""
    try:
        return dialect.read(weights, options)
    except (InputError, CheckpointError) as error:
        raise type(error)(f"{file.name}: {error}") from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file.name}: not a safetensors file, or a truncated one ({error})") from error


def _torch(file: Path) -> Any:
    """What torch.save wrote, of tensors and plain values only."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(file):
            raise CheckpointError(
                f"{file.name}: holds a pickled module or other Python objects, which sciSR never runs; in the program "
                f"that made it, export the weights: torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise CheckpointError(f"{file.name}: not a PyTorch checkpoint; expected what torch.save writes") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0].split(". ")[0] if " " in str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{file.name}: not a PyTorch checkpoint, or a truncated one ({first}); expected what torch.save writes"
        ) from error


def _is_pickle(file: Path) -> bool:
    """Whether a file is a zip archive or a pickle at all, so that only its content was refused."""
    with file.open("rb") as stream:
        start = stream.read(2)
    return start == b"PK" or start[:1] == b"\x80"


_HARMLESS: list[Any] = [
    OrderedDict,
    defaultdict,
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    # what pickles of numpy 1 and 2 call the function that makes a number of them
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]
"""What training programs leave beside the weights (a best PSNR, the settings): plain data without behaviour."""


def _unwrapped(content: Any) -> dict[str, Tensor] | None:
    """The state dict in ``content``, which it is itself or holds under a usual entry."""
    if not isinstance(content, Mapping):
        return None
    for name in _WRAPPERS:
        if isinstance(content.get(name), Mapping):
            inner = _unwrapped(content[name])
            if inner is not None:
                return inner
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return tensors or None


def _stripped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys without a prefix that all share, unless they are a known dialect with it."""
    while recognise(weights) is None:
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in weights)), None)
        if prefix is None:
            break
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _filled(file: Path, dialect: Dialect, reading: Reading, weights: Weights) -> SRNetwork:
    """The network with the weights in it.

    Raises:
        CheckpointError: keys that are missing, left over or of another shape, by their own names.
    """
    network = build_network(reading.family, **reading.arguments)
    state = network.state_dict()
    used: set[str] = set()
    missing: list[str] = []
    other: list[str] = []
    for ours, value in state.items():
        if ours.endswith("relative_position_index"):
            continue
        theirs = reading.theirs(ours)
        if theirs is None or theirs not in weights:
            missing.append(theirs or ours)
            continue
        used.add(theirs)
        if weights[theirs].shape != value.shape:
            other.append(f"{theirs} {tuple(weights[theirs].shape)} instead of {tuple(value.shape)}")
            continue
        state[ours] = weights[theirs]
    extra = [key for key in weights if key not in used and not reading.is_ignored(key)]
    wrong = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", other))
        if names
    ]
    if wrong:
        raise CheckpointError(f"{file.name}: looks like {dialect.name}, but keys do not fit: {'; '.join(wrong)}")
    network.load_state_dict(state)
    return network

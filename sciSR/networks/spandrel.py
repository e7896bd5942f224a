"""Everything else that spandrel knows, behind sciSR's spec; an optional extra (``pip install scisr[spandrel]``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sciSR.errors import CheckpointError, InputError
from sciSR.networks.checkpoint import sha256
from sciSR.networks.spec import NetworkCard, NetworkSpec, SRNetwork

__all__ = ["SpandrelNetwork", "load_with_spandrel"]

_WINDOW = 128
_HALO = 16


class SpandrelNetwork(SRNetwork):
    """A two-dimensional network that spandrel built; nothing is known of its reach, so it runs on fixed windows.

    Args:
        model: the module; takes and gives images of 0 to 1.
        scale: whole factor.
        in_channels: channels it takes.
        out_channels: channels it gives.
        multiple_of: its input's size must be a multiple of this; images are mirrored at their far edges to get there.
        minimum: least pixels per axis.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        scale: int,
        in_channels: int,
        out_channels: int,
        multiple_of: int = 1,
        minimum: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.least = -(-minimum // multiple_of) * multiple_of
        self.step = multiple_of
        self.arguments = {"scale": scale, "in_channels": in_channels, "out_channels": out_channels}

    @property
    def spec(self) -> NetworkSpec:
        """What spandrel says of it."""
        return NetworkSpec(
            axes=("y", "x"),
            scale=(self.scale, self.scale),
            in_channels=self.arguments["in_channels"],
            out_channels=self.arguments["out_channels"],
            receptive_radius=None,
            halo=self.measured_halo or (_HALO, _HALO),
            exact_tiling=False,
            alignment=(self.step, self.step),
            minimum=(1, 1),
            window=(_WINDOW, _WINDOW),
            value_range=1.0,
        )

    def residual(self, x: Tensor) -> Tensor:
        """Everything; there is no classical part."""
        from sciSR.networks.borders import pad_to_multiple

        multiple = self.least if min(x.shape[2:]) < self.least else self.step
        fine: Tensor = self.model(pad_to_multiple(x, multiple))
        return fine[..., : x.shape[2] * self.scale, : x.shape[3] * self.scale]


def load_with_spandrel(
    file: Path, weights: Mapping[str, Tensor], dialects: Sequence[str], options: Mapping[str, Any]
) -> SRNetwork:
    """A network of weights in none of sciSR's own dialects.

    Raises:
        CheckpointError: spandrel is not installed, cannot be imported, or does not know the weights either.
        InputError: options, which spandrel does not take.
    """
    keys = ", ".join(list(weights)[:3])
    unknown = f"{file.name}: the keys ({keys}, …) are in no dialect that sciSR reads ({', '.join(dialects)})"
    if find_spec("spandrel") is None:
        raise CheckpointError(f"{unknown}; more are read with spandrel: pip install 'scisr[spandrel]'")
    if set(options) - {"scale"}:
        raise InputError(
            f"{file.name}: read through spandrel, it takes no {', '.join(sorted(set(options) - {'scale'}))}"
        )
    try:
        spandrel: Any = import_module("spandrel")
    except (ImportError, RuntimeError) as error:
        raise CheckpointError(f"{unknown}; {_why_not(error)}") from error
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(weights))
    except spandrel.UnsupportedModelError as error:
        raise CheckpointError(f"{unknown}, nor does spandrel know them") from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise CheckpointError(f"{file.name}: {found.architecture.name} does not take one image and give one")
    if options.get("scale") not in (None, found.scale):
        raise InputError(f"scale: {options['scale']} was asked for, but these weights refine by {found.scale}")
    needs = found.size_requirements
    network = SpandrelNetwork(
        found.model,
        scale=int(found.scale),
        in_channels=int(found.input_channels),
        out_channels=int(found.output_channels),
        multiple_of=int(needs.multiple_of),
        minimum=int(needs.minimum),
    )
    network.card = NetworkCard(
        name=file.stem,
        provenance={"imported from": file.name, "dialect": f"{found.architecture.name}, by spandrel"},
        checksum=sha256(file),
    )
    return network.eval()


def _why_not(error: Exception) -> str:
    """What to do about a spandrel that is there and cannot be imported."""
    import torch

    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"spandrel cannot be imported ({reason}): it needs a torchvision that was built for torch {torch.__version__}; "
        f"install both from the same place"
    )

"""``scisr import``: published weights become a checkpoint that says everything about itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from sciSR.commands.upscale import given
from sciSR.console import Console
from sciSR.errors import InputError, MissingFileError
from sciSR.files import check_free
from sciSR.networks.checkpoint import is_own, read_header
from sciSR.networks.foreign import import_checkpoint

__all__ = ["run"]


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Convert the weights; gives the exit code."""
    source, target = Path(arguments.weights), Path(arguments.output)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: a checkpoint is written as .safetensors; choose this ending")
    check_free(target, arguments.overwrite)
    if not source.is_file():
        raise MissingFileError(f"{source}: no such file")
    if is_own(source):
        raise InputError(f"{source}: is a sciSR checkpoint already and can be used as it is (--model {source})")
    options = given(arguments, ("scale", "residual_scale", "value_range", "padding"))
    import_checkpoint(source, target, name=arguments.name, **options)
    header = read_header(target)
    scale = ", ".join(f"{axis}={s}" for axis, s in header.spec.scale_by_axis.items())
    dialect = header.card.provenance.get("dialect", header.family)
    console.say(f"weights  {target}  ({header.family}, read as {dialect}; scale {scale})")
    return 0

"""The run record ``<name>.run.json``: what was done to which bytes with what, enough to do it again.

A record holds no secret and is plain JSON; the output file itself holds neither time nor path, so that a run that is
repeated from its record gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sciSR import __version__
from sciSR.errors import ConfigError, InputError, MissingFileError
from sciSR.files import check_free, whole_file
from sciSR.pipeline import core_count

__all__ = [
    "FileFact",
    "RunRecord",
    "is_record",
    "is_remote",
    "machine_facts",
    "plain",
    "read_record",
    "sha256_of",
    "version_facts",
    "write_text",
]

FORMAT = 1
_PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel", "rasterio", "xarray", "dask", "pydantic", "safetensors")
_RESULT_PACKAGES = ("scisr", "torch", "monai", "numpy", "nibabel", "rasterio", "gdal")
"""Packages of which another version may give other bytes."""


_NUMBERS = re.compile(r"\[\s*-?\d[^\[\]{}\":]*\]")
"""A list of numbers in indented JSON."""


@dataclass(frozen=True)
class FileFact:
    """One file of a run.

    Attributes:
        path: as it was given.
        absolute: where that was, or None for an address.
        sha256: checksum of its bytes, or None for an address, which is not read whole.
        bytes: its size, or None for an address.
    """

    path: str
    absolute: str | None = None
    sha256: str | None = None
    bytes: int | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileFact:
        """The facts of a file as it lies there now; reads all of it."""
        text = os.fspath(path)
        if is_remote(text):
            return cls(text)
        file = Path(text)
        files = [p for p in file.rglob("*") if p.is_file()] if file.is_dir() else [file]
        return cls(text, str(file.resolve()), sha256_of(file), sum(p.stat().st_size for p in files))

    def locate(self) -> str:
        """Where the file lies now: at the path given, seen from the current directory, else where it lay.

        Raises:
            MissingFileError: at neither place.
        """
        if self.absolute is None or os.path.exists(self.path):
            return self.path
        if os.path.exists(self.absolute):
            return self.absolute
        raise MissingFileError(f"{self.path}: no such file; the record expects it there or at {self.absolute}")

    def verify(self, path: str) -> None:
        """Raise InputError if ``path`` does not hold the recorded bytes."""
        if self.sha256 is None:
            return
        found = sha256_of(Path(path))
        if found != self.sha256:
            raise InputError(
                f"{path}: its sha256 is {found[:12]}…, the record was made from {self.sha256[:12]}…; "
                "the file has changed: run the workflow itself, or give back the file of the record"
            )


@dataclass(frozen=True)
class RunRecord:
    """What one output was made from and how.

    Attributes:
        workflow: the resolved workflow of this one input, as :func:`sciSR.config.make_workflow` takes it; tile sizes,
            precision and device are those that were used.
        inputs: the input's files, the one that names it last.
        weights: the checkpoint, or None for a classical method.
        output: the file written.
        engine: tile plan, batch composition, backend, precision, intensity map, halo: what decided the bytes.
        grids: ``input`` and ``output``: shape, affine, spacing.
        values: how the input's stored numbers were read: type, scale, offset, nodata, unit, and for a scene where
            scale and offset come from.
        evaluation: the score table, or None.
        consistency: how well the result, degraded again, gives the input; or None.
        versions: of sciSR and what it stands on.
        machine: processor, threads, devices.
        timings: seconds per step.
        created: when, in UTC.
    """

    workflow: Mapping[str, Any]
    inputs: Sequence[FileFact]
    weights: FileFact | None
    output: FileFact
    engine: Mapping[str, Any]
    grids: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    consistency: Mapping[str, Any] | None = None
    trained: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values: dict[str, Any] = plain({"sciSR": __version__, "record": FORMAT, **asdict(self)})
        return values

    def write(self, path: Path, *, overwrite: bool = True) -> Path:
        """Write the record; it appears whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        return write_text(path, _NUMBERS.sub(_in_one_line, text) + "\n", overwrite=overwrite)

    def changed_versions(self) -> list[str]:
        """Where this installation differs from the record's, in what may change bytes: ``"torch 2.12.0 -> 2.13.0"``."""
        now = version_facts()
        names = [name for name in _RESULT_PACKAGES if name in self.versions]
        return [f"{n} {self.versions[n]} -> {now.get(n)}" for n in names if self.versions[n] != now.get(n)]


def is_record(path: str | os.PathLike[str]) -> bool:
    """Whether a file name is that of a run record."""
    return os.fspath(path).endswith(".run.json")


def read_record(path: str | os.PathLike[str]) -> RunRecord:
    """The record in a file.

    Raises:
        MissingFileError: no such file.
        ConfigError: not a run record, or one of a later sciSR.
    """
    file = Path(path)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not a run record: {error}") from error
    if not isinstance(values, dict) or "record" not in values or "workflow" not in values:
        raise ConfigError(f"{file}: not a run record: the keys record and workflow are missing")
    if values["record"] != FORMAT:
        raise ConfigError(
            f"{file}: record format {values['record']} came, this sciSR {__version__} reads {FORMAT}; "
            f"it was written by sciSR {values.get('sciSR')}"
        )
    try:
        rest = {key: value for key, value in values.items() if key not in ("sciSR", "record")}
        return RunRecord(
            **{
                **rest,
                "inputs": [FileFact(**fact) for fact in rest["inputs"]],
                "weights": None if rest["weights"] is None else FileFact(**rest["weights"]),
                "output": FileFact(**rest["output"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{file}: not a whole run record: {error}") from error


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes; of a folder, of its files' names and bytes in the order of their names.

    Raises:
        MissingFileError: no such file.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
            return digest.hexdigest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error


def is_remote(path: str) -> bool:
    """Whether a path is an address that is read through GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def version_facts() -> dict[str, str]:
    """Versions of Python, sciSR and the packages it stands on, as installed; GDAL's if it is loaded."""
    found = {"python": platform.python_version(), "scisr": __version__, **_package_versions()}
    gdal = getattr(sys.modules.get("rasterio"), "__gdal_version__", None)
    return found if gdal is None else {**found, "gdal": str(gdal)}


@cache
def _package_versions() -> dict[str, str]:
    """Of a process, whose files do not change: looking them up takes as long as refining a small tile."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_facts() -> dict[str, Any]:
    """Processor, cores, threads and system of this machine."""
    import torch

    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _in_one_line(found: re.Match[str]) -> str:
    return "[" + " ".join(found.group()[1:-1].split()) + "]"


def plain(value: Any) -> Any:
    """The same in JSON's kinds: tuples as lists, numpy numbers as numbers, paths as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> Path:
    """Write a small text file that appears whole or not at all.

    Raises:
        OutputExistsError: it is there and ``overwrite`` is false.
    """
    check_free(path, overwrite)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path

"""From a workflow file and its overrides to a checked :class:`Workflow`, and back to text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sciSR.config.workflow_file import Workflow
from sciSR.config.yaml_data import dump_yaml, parse_yaml, read_yaml
from sciSR.errors import ConfigError

__all__ = [
    "REFERENCES",
    "config_folders",
    "dump_workflow",
    "load_workflow",
    "make_workflow",
    "model_of",
    "workflow_schema",
]

REFERENCES = {
    "train": "train",
    "upscale": "upscale",
    "degrade": "degrade",
    "consistency": "consistency",
    "evaluate": "evaluate",
    "report": "report",
    "train.normalization": "normalizations",
    "upscale.normalization": "normalizations",
}
"""Sections for which a workflow may name a file, and the folder of ``configs/`` where a bare name is looked for."""

_SHORTHANDS = {"input": "path", "output": "path"}
"""Sections that may be written as one value, and the key that it then means."""


def load_workflow(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Workflow:
    """The workflow of a YAML file, with settings changed by ``overrides`` (``"upscale.scale=3"``).

    Raises:
        MissingFileError: no such file.
        ConfigError: not YAML, an unknown key, a value that does not fit; names the key and its near match.
    """
    file = Path(path)
    values = read_yaml(file)
    if not isinstance(values, dict):
        kind = "nothing" if values is None else type(values).__name__
        raise ConfigError(f"{file}: holds {kind}; a workflow holds keys and values, such as input: and upscale:")
    return make_workflow(values, overrides, name=str(file), folder=file.parent)


def make_workflow(
    values: Mapping[str, Any], overrides: Iterable[str] = (), *, name: str = "workflow", folder: Path | None = None
) -> Workflow:
    """The workflow of plain values, with the same checks as :func:`load_workflow`.

    Args:
        values: sections and keys, as the YAML has them.
        overrides: ``"section.key=value"``, the value in YAML.
        name: for messages.
        folder: where files that sections name are looked for, after the current directory.

    Raises:
        ConfigError: an unknown key or a value that does not fit.
    """
    raw: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    _expand_references(raw, name, folder)
    changed = [_override(raw, text, folder) for text in overrides]
    for key, section in _SHORTHANDS.items():
        if key in raw and raw[key] is not None and not isinstance(raw[key], dict):
            raw[key] = {section: raw[key]}
    try:
        return Workflow.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(_message(e, name, changed) for e in error.errors())) from None


def dump_workflow(workflow: Workflow, *, defaults: bool = True) -> str:
    """YAML text that loads to the same workflow; with every default written out, or without them."""
    return dump_yaml(workflow.model_dump(mode="json", exclude_defaults=not defaults))


def workflow_schema() -> dict[str, Any]:
    """JSON Schema of the workflow file, for editors."""
    schema = Workflow.model_json_schema()
    for key, section in _SHORTHANDS.items():
        full = schema["properties"][key]
        short = schema["$defs"][f"{key.capitalize()}Section"]["properties"][section]
        text = {k: v for k, v in short.items() if k in ("type", "anyOf", "items")}
        schema["properties"][key] = {"anyOf": [text, full], "description": full.get("description", "")}
    for key in REFERENCES:
        *parents, leaf = key.split(".")
        at = schema["$defs"][f"{parents[0].capitalize()}Section"] if parents else schema
        if leaf in at["properties"]:
            full = at["properties"][leaf]
            description = full.pop("description", "")
            at["properties"][leaf] = {"anyOf": [{"type": "string"}, full], "description": description}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "sciSR workflow"}


def config_folders() -> list[Path]:
    """Where the reusable facts lie: ``configs`` inside an installed package, or beside it in the repository."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]


def _expand_references(raw: dict[str, Any], name: str, folder: Path | None) -> None:
    """Replace, in place, each text that stands where a section is expected by the file that it names."""
    for key in sorted(REFERENCES, key=lambda k: k.count(".")):
        *parents, leaf = key.split(".")
        at: Any = raw
        for parent in parents:
            at = at.get(parent) if isinstance(at, dict) else None
        if isinstance(at, dict) and isinstance(at.get(leaf), str):
            at[leaf] = _referenced(at[leaf], key, name, folder)


def _referenced(text: str, key: str, name: str, folder: Path | None) -> dict[str, Any]:
    place = REFERENCES[key]
    if text.endswith((".yaml", ".yml")):
        tried = [Path(text), *([folder / text] if folder is not None and not Path(text).is_absolute() else [])]
    else:
        tried = [root / place / f"{text}.yaml" for root in config_folders()]
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        known = sorted({file.stem for root in config_folders() for file in (root / place).glob("*.yaml")})
        near = get_close_matches(text, known, n=1)
        listed = f"known: {', '.join(known)}" if known else "write the section out, or name a file"
        hint = f"did you mean {near[0]}?" if near else listed
        source = name if name.endswith(key) else f"{name}: {key}".removeprefix(": ")
        raise ConfigError(f"{source}: no file {text!r} in configs/{place}; {hint}")
    values = read_yaml(found)
    if not isinstance(values, dict):
        raise ConfigError(f"{found}: a section of keys and values was expected for {key}")
    for inner in REFERENCES:
        if inner.startswith(f"{key}.") and isinstance(values.get(inner.removeprefix(f"{key}.")), str):
            raise ConfigError(f"{found}: {inner} names another file; files are named one level deep only, write it out")
    return values


def _override(raw: dict[str, Any], text: str, folder: Path | None) -> str:
    """Apply ``section.key=value`` in place; gives the key.

    ``input=a.tif`` changes the path and keeps what stands beside it.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise ConfigError(f"--set {text}: expected section.key=value, such as upscale.scale=2")
    *parents, leaf = key.split(".")
    at: Any = raw
    for depth, parent in enumerate(parents):
        at = _enter(at, parent, ".".join(parents[: depth + 1]), text)
    if isinstance(at, list):
        at[_position(at, leaf, text)] = parse_yaml(value, f"--set {key}")
    else:
        new = parse_yaml(value, f"--set {key}")
        if key in _SHORTHANDS and isinstance(at.get(leaf), dict) and not isinstance(new, dict):
            at[leaf][_SHORTHANDS[key]] = new
        else:
            at[leaf] = new
    _expand_references(raw, f"--set {key}", folder)
    return key


def _enter(at: Any, step: str, path: str, text: str) -> Any:
    if isinstance(at, list):
        return at[_position(at, step, text)]
    inner = at.get(step)
    if inner is None:
        inner = at[step] = {}
    elif path in _SHORTHANDS and not isinstance(inner, dict):
        inner = at[step] = {_SHORTHANDS[path]: inner}
    elif not isinstance(inner, (dict, list)):
        raise ConfigError(f"--set {text}: {path} is {inner!r}, not a section; set it whole, such as {path}={{…}}")
    return inner


def _position(items: list[Any], step: str, text: str) -> int:
    if not step.isdigit() or int(step) >= len(items):
        raise ConfigError(f"--set {text}: {step!r} is no position in a list of {len(items)}; positions count from 0")
    return int(step)


def _message(error: Any, name: str, changed: list[str]) -> str:
    """One line for one of pydantic's errors: where, what came, what was expected."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    source = f"--set {key}" if any(key == c or c.startswith(f"{key}.") for c in changed) else f"{name}: {key}"
    source = source.removesuffix(": ").removeprefix(": ")
    came = error.get("input")
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown key; {_near(location)}"
    if error["type"] == "missing":
        return f"{source}: this key is missing"
    if error["type"] == "value_error":
        return f"{source}: {error['ctx']['error']}"
    if error["type"] == "literal_error":
        return f"{source}: {came!r} came, expected {error['ctx']['expected']}"
    if error["type"] in ("model_type", "dict_type"):
        return f"{source}: {came!r} came, expected a section of keys and values"
    message = error["msg"].replace("Input should be", "expected").replace("Value error, ", "")
    return f"{source}: {came!r} came; {message}"


def _near(location: list[str]) -> str:
    """A hint for a key that is not known: its near match here, its place elsewhere, or the keys that there are."""
    *parents, key = location
    here = _keys(parents)
    prefix = "".join(f"{parent}." for parent in parents)
    near = get_close_matches(key, here, n=1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    for section in ("", *_keys([])):
        there = _keys([section] if section else [])
        close = get_close_matches(key, there, n=1, cutoff=0.85)
        if close:
            return f"did you mean {section + '.' if section else ''}{close[0]}?"
    return f"known here: {', '.join(here)}"


def _keys(parents: list[str]) -> list[str]:
    """Names of the keys of a section."""
    model: type[BaseModel] | None = Workflow
    for parent in parents:
        if model is None or parent.isdigit():
            continue
        field = model.model_fields.get(parent)
        model = None if field is None else model_of(field.annotation)
    return [] if model is None else list(model.model_fields)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone, optional or in a tuple; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, UnionType) or get_args(annotation):
        return next((m for a in get_args(annotation) if (m := model_of(a)) is not None), None)
    return None

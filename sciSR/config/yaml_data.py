"""YAML as plain data: YAML 1.2's core scalars, no duplicate keys, no aliases, no tags, nothing evaluated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sciSR.errors import ConfigError, MissingFileError

__all__ = ["dump_yaml", "parse_yaml", "read_yaml"]

# YAML 1.2.2, section 10.3.2 (https://yaml.org/spec/1.2.2/#103-core-schema), so that "no" and "1:30" stay text and
# 1e-4 is a number
_CORE = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", "~nN\0"),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
}


class _DataLoader(yaml.SafeLoader):
    """SafeLoader of the core schema that refuses aliases and duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute, filled below

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose as SafeLoader does, without aliases."""
        if self.check_event(yaml.events.AliasEvent):
            # types-PyYAML leaves peek_event without types
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed; write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct as SafeLoader does, without duplicate keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(getattr(key, "value", ""))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} comes twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _integer(loader: _DataLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


for _tag, (_pattern, _first) in _CORE.items():
    _DataLoader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), [*_first.replace("\0", ""), ""])
_DataLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, name: str = "value") -> Any:
    """Plain values of a YAML text.

    Raises:
        ConfigError: it is not YAML, or uses more than data; names the line.
    """
    try:
        # a SafeLoader subclass: constructs plain values only
        return yaml.load(text, Loader=_DataLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{where}: not a YAML of plain values: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}: not a YAML of plain values: {reason}") from error


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        MissingFileError: no such file.
        ConfigError: it cannot be read as text, or is no YAML of plain values.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8; a workflow is YAML text") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def dump_yaml(values: Any) -> str:
    """YAML text of plain values, keys in the order they come."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)

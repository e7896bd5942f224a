"""Every key of a workflow with its kind, default and meaning, as one page of Markdown."""

from __future__ import annotations

import json
from typing import Any

from pydantic.fields import FieldInfo

from sciSR.config.loading import REFERENCES, model_of, workflow_schema
from sciSR.config.schema import Section
from sciSR.config.workflow_file import Workflow

__all__ = ["workflow_reference"]

_HEAD = """# The keys of a workflow

A workflow is a YAML file of plain values: no aliases, no tags, nothing evaluated. Unknown keys are errors.
A step that is not named is not done. `--set section.key=value` changes a key for one run.
Where it says *file*, the section may be the name of a file of `configs/`, or a path ending in `.yaml`.
This page is what `scisr check --keys` prints. [`workflow.schema.json`](workflow.schema.json) tells the same to editors.
"""


def workflow_reference() -> str:
    """The page; sections in the order of the steps, keys in the order of the models."""
    schema = workflow_schema()
    parts = [_HEAD]
    shown: dict[str, str] = {}
    for name, field in Workflow.model_fields.items():
        parts += _section(name, field, schema, shown)
    return "\n".join(parts).rstrip() + "\n"


def _section(path: str, field: FieldInfo, schema: dict[str, Any], shown: dict[str, str]) -> list[str]:
    """The table of a section and those of the sections in it; ``shown`` says where a model was told of already."""
    model = model_of(field.annotation)
    if model is None:
        return []
    many = " (a list)" if "tuple" in str(field.annotation) else ""
    file = " May be a *file*." if path in REFERENCES else ""
    if model.__name__ in shown:
        return [
            f"## {path}{many}\n",
            f"As [{shown[model.__name__]}](#{shown[model.__name__].replace('.', '')}).{file}\n",
        ]
    shown[model.__name__] = path
    about = " ".join((model.__doc__ or "").replace(":class:", "").replace(":func:", "").split()).replace("``", "`")
    lines = [f"## {path}{many}\n", f"{about}{file}\n", "| key | kind | default | meaning |", "|---|---|---|---|"]
    inner: list[str] = []
    for key, part in model.model_fields.items():
        properties = schema["$defs"][model.__name__]["properties"][key]
        default = "**needed**" if part.is_required() else f"`{json.dumps(_default(part), default=list)}`"
        meaning = (part.description or "").replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{key}` | {_kind(properties)} | {default} | {' '.join(meaning.split())} |")
        if model_of(part.annotation) is not None:
            inner += _section(f"{path}.{key}", part, schema, shown)
    return [*lines, "", *inner]


def _default(field: FieldInfo) -> Any:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return value.model_dump()
    return value


def _kind(schema: dict[str, Any]) -> str:
    """The kind of a value in a few words, from its JSON Schema."""
    if "anyOf" in schema:
        kinds = [_kind(option) for option in schema["anyOf"] if option.get("type") != "null"]
        kinds = [kind for kind in dict.fromkeys(kinds) if kind != "whole number" or "number" not in kinds]
        return " or ".join(kinds)
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "section"
    kind = schema.get("type", "any")
    if kind == "array":
        inside = schema.get("prefixItems", [schema.get("items", {})])
        return f"list of {_kind(inside[0])}"
    if kind == "object":
        values = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties", {}))
        return f"{{axis: {_kind(values)}}}" if "patternProperties" in schema else "section"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(str(kind), str(kind))

"""The page of all settings, made of the model."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from botplatform.docs.described import Settings
from botplatform.docs.docstrings import docstring, one_line
from botplatform.docs.tables import page, table

__all__ = ["settings_page"]

PREFIX = "BOTPLATFORM_"


class Section(NamedTuple):
    """A group of settings, and how its settings are reached."""

    key: str
    """Dotted, `[]` for an item of a list, `NAME` for a name of a mapping."""
    variable: str
    """Prefix of its variables; empty where only the whole list has one."""
    model: type[BaseModel]


def settings_page() -> str:
    """Return the page: every setting with default, variable and meaning."""
    about = (
        "From a YAML file (`--config FILE`, else what `BOTPLATFORM_CONFIG` names, else `botplatform.yaml` in the "
        "working directory), from variables, and from `--set KEY=VALUE`, each stronger than the one before. "
        "`botplatform config show` prints those in force, `botplatform config check` checks them. Unknown keys and "
        "wrong values are refused with their place; secrets are never printed. A list is written with commas or as "
        "JSON; a list of sections (`signals`, `strategies`) only whole, as JSON, or in the file."
    )
    parts = [about]
    for section in _sections():
        rows = [
            _row(section, name, field)
            for name, field in section.model.model_fields.items()
            if _inner(field.annotation) is None
        ]
        if rows:
            title = f"`{section.key}`" if section.key else "At the top"
            says = docstring(section.model) if section.key else ""
            parts += [f"## {title}", says, table(("Setting", "Variable", "Default", "Meaning"), rows)]
    return page("Settings", parts)


def _sections() -> Iterator[Section]:
    waiting = [Section("", PREFIX, Settings)]
    while waiting:
        section = waiting.pop(0)
        yield section
        below = []
        for name, field in section.model.model_fields.items():
            inner = _inner(field.annotation)
            if inner is None:
                continue
            suffix, model = inner
            key = f"{section.key}.{name}" if section.key else name
            variable = f"{section.variable}{name.upper()}__" if section.variable and suffix != "[]" else ""
            named = f"{variable}NAME__" if suffix == ".NAME" and variable else variable
            below.append(Section(key + suffix, named, model))
        waiting = below + waiting


def _inner(annotation: Any) -> tuple[str, type[BaseModel]] | None:
    """Return the section that a field holds, and how its items are written; None for a plain value."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "", annotation
    if get_origin(annotation) is tuple and _inner(get_args(annotation)[0]):
        return "[]", get_args(annotation)[0]
    if get_origin(annotation) is dict and _inner(get_args(annotation)[1]):
        return ".NAME", get_args(annotation)[1]
    return None


def _row(section: Section, name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    key = f"{section.key}.{name}" if section.key else name
    variable = f"`{section.variable}{name.upper()}`" if section.variable else "none"
    meaning = one_line(field.description or "")
    limits = _limits(field)
    return f"`{key}`", variable, _default(field), f"{meaning} {limits}".strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, SecretStr):
        return "none"
    if isinstance(value, dict | tuple):
        return f"`{msgspec.json.encode(value).decode()}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if str(value) else "none"


def _limits(field: FieldInfo) -> str:
    """Say in words what the model allows."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return f"One of {', '.join(f'`{choice}`' for choice in get_args(annotation))}."
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    said = [f"{words[n]} {getattr(m, n)}" for m in field.metadata for n in words if getattr(m, n, None) is not None]
    return f"({', '.join(said)})" if said else ""

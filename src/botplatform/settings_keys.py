"""The names of settings: finding one in the model, reading its text, and guessing what was meant."""

from __future__ import annotations

import types
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from botplatform.errors import SettingsError

Key: TypeAlias = tuple[str | int, ...]


def find_key(model: type[BaseModel], name: Sequence[str], place: str) -> tuple[Key, Any]:
    """Find a setting by its name; return its key and what its value has to be. Fields are found in any case."""
    key: list[str | int] = []
    annotation: Any = model
    for part in name:
        inner = _plain(annotation)
        if _is_model(inner):
            fields = inner.model_fields
            field = part if part in fields else part.lower()
            if field not in fields:
                asked = (*key, part.lower())
                raise SettingsError(f"{place}: unknown setting {'.'.join(map(str, asked))}{suggestion(model, asked)}")
            key.append(field)
            annotation = fields[field].annotation
        elif get_origin(inner) is dict:
            key.append(part)
            annotation = get_args(inner)[1]
        else:
            what = (
                "a list: give it whole, for example as JSON"
                if get_origin(inner) is tuple
                else "one value without parts"
            )
            raise SettingsError(f"{place}: {'.'.join(map(str, key))} is {what}")
    return tuple(key), annotation


def interpret(text: str, annotation: Any, place: str) -> Any:
    """Turn the text of a variable or option into what the model can check.

    Lists are `a,b` or JSON, mappings and sections JSON; the rest is the text itself, so that money stays exact.
    """
    inner = _plain(annotation)
    nothing = ("null", "none") if inner is SecretStr else ("", "null", "none")  # an empty secret is a mistake
    if inner is not annotation and text in nothing and type(None) in get_args(_bare(annotation)):
        return None
    if get_origin(inner) is tuple:
        if text.lstrip().startswith("["):
            return _parsed(text, place)
        return [part.strip() for part in text.split(",") if part.strip()]
    if _is_model(inner) or get_origin(inner) is dict or inner is Any:
        return _parsed(text, place)
    if get_origin(inner) is Literal and not all(isinstance(choice, str) for choice in get_args(inner)):
        return _parsed(text, place)
    return text


def _parsed(text: str, place: str) -> Any:
    from botplatform.settings_yaml import parse_value  # noqa: PLC0415  # most values need no YAML, which takes a while

    return parse_value(text, place)


def is_secret(model: type[BaseModel], key: Key) -> bool:
    """Tell whether the value of a key must not be shown."""
    annotation: Any = model
    for part in key:
        inner = _plain(annotation)
        if _is_model(inner):
            field = inner.model_fields.get(str(part))
            annotation = field.annotation if field else Any
        elif get_origin(inner) is tuple or get_origin(inner) is dict:
            annotation = get_args(inner)[-1 if get_origin(inner) is dict else 0]
    return SecretStr in (_plain(annotation), *get_args(_plain(annotation)))


def suggestion(model: type[BaseModel], key: Key) -> str:
    """Guess which setting an unknown key means; empty when nothing is near."""
    known = [".".join(name) for name in _names(model)]
    asked = ".".join(str(part) for part in key if not isinstance(part, int))
    last = asked.rsplit(".", 1)[-1]
    near = [name for name in known if name.rsplit(".", 1)[-1] == last][:1] or get_close_matches(asked, known, 1, 0.75)
    return f" (did you mean {near[0]}?)" if near else ""


def _names(model: type[BaseModel], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """List the names of all settings; those inside of a list's items stand without an index."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        found.append((*above, name))
        inner = _plain(field.annotation)
        if get_origin(inner) in (tuple, dict):
            inner = _plain(get_args(inner)[0 if get_origin(inner) is tuple else 1])
        if _is_model(inner):
            found += _names(inner, (*above, name))
    return found


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _plain(annotation: Any) -> Any:
    """Take away `Annotated` and `| None`."""
    bare = _bare(annotation)
    if get_origin(bare) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(bare) if kind is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else bare
    return bare


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)

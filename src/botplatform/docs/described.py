"""The settings with their descriptions: the docstrings below them, which only documents need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from botplatform.docs.docstrings import attributes
from botplatform.settings import Settings

__all__ = ["Settings", "describe"]


def describe(model: type[BaseModel]) -> None:
    """Give each field of a model, and of the models in it, the docstring below it as its description, on one line."""
    for section in dict.fromkeys(_sections(model)):
        fields = section.model_fields
        for each in attributes(section):
            if each.name in fields:
                fields[each.name].description = each.doc.replace("\\|", "|") or None
        section.model_rebuild(force=True)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation has in it, the inner ones first."""
    for inner in get_args(annotation):
        yield from _sections(inner)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _sections(field.annotation)
        yield annotation


describe(Settings)

"""Reading what the source says about classes: their docstrings, and those of their attributes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import Any, NamedTuple

__all__ = ["Attribute", "attributes", "docstring", "one_line"]


class Attribute(NamedTuple):
    """One attribute of a class, as its source has it."""

    name: str
    annotation: str
    """Empty where the source has none, as for members of an enum."""
    default: str
    """As written; empty for none."""
    doc: str


@cache
def attributes(kind: type[Any]) -> tuple[Attribute, ...]:
    """List the attributes that a class itself declares, each with the docstring below it, in order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: list[Attribute] = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            name, annotation, value = ast.unparse(node.target), ast.unparse(node.annotation), node.value
        elif isinstance(node, ast.Assign):
            name, annotation, value = ast.unparse(node.targets[0]), "", node.value
        else:
            continue
        doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        default = "" if value is None else ast.unparse(value)
        found.append(Attribute(name, annotation, default, one_line(str(doc))))
    return tuple(found)


def docstring(kind: type[Any]) -> str:
    """Return the docstring of a class, or an empty text."""
    return inspect.cleandoc(kind.__doc__ or "")


def one_line(text: str) -> str:
    """Put a text onto one line, fit for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")

"""The JSON schema of the chart's values, made of the model of the values and of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema

from botplatform.docs.chart_values import ChartValues
from botplatform.docs.docstrings import one_line

__all__ = ["MANAGED", "SECRETS", "values_schema"]

Node = dict[str, Any]

SECRETS: Final = ("nats.password", "storage.url", "exchange.secrets", "notifications.channels")
"""Settings that are secret, and cannot be given as values; a test compares with the model."""
MANAGED: Final = (
    "bus.backend",
    "nats.url",
    "nats.user",
    "nats.nkey_seed_file",
    "nats.credentials_file",
    "nats.tls_required",
    "nats.tls_ca_file",
    "nats.tls_cert_file",
    "nats.tls_key_file",
    "nats.inbox_prefix",
)
"""Settings that the chart makes of other values."""
PARTIAL: Final = ("Settings", "Component", "Engine")
"""Models of which values give a part only, the rest being somewhere else: they have no defaults here."""
_REF: Final = "#/$defs/"
_DECIMAL: Final = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_SIMPLE: Final = frozenset(("string", "number", "integer", "boolean", "null"))


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def values_schema() -> dict[str, object]:
    """Return the schema of `values.yaml`, in the draft that every version of Helm knows."""
    made = ChartValues.model_json_schema(schema_generator=_WithoutTitles)
    definitions: Node = made.pop("$defs")
    for name in PARTIAL:
        _make_partial(definitions, name)
    for key in (*SECRETS, *MANAGED):
        section, name = key.split(".")
        _remove(definitions, section, name)
    defaults = ChartValues().model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"config"})
    properties = {
        name: _with_defaults(node, defaults.get(name), definitions) for name, node in made.pop("properties").items()
    }
    properties["global"] = {"type": "object", "description": "What a chart that contains this one gives to all."}
    found = {"$schema": "http://json-schema.org/draft-07/schema#", **made, "properties": properties}
    found["$defs"] = dict(sorted(_reachable(found, definitions).items()))
    tidied = _changed(found, _tidy)
    assert isinstance(tidied, dict)
    return tidied


def _with_defaults(node: Node, default: object, definitions: Node) -> Node:
    """Put the values that a model has here into its properties: the same model may have others elsewhere."""
    node.pop("default", None)
    name = str(node.get("$ref", "")).removeprefix(_REF)
    if name in PARTIAL:
        return node
    if name:
        node = {**deepcopy(definitions[name]), **{key: value for key, value in node.items() if key != "$ref"}}
    if "properties" not in node:
        return node if default is None else {**node, "default": default}
    values = default if isinstance(default, dict) else {}
    node["properties"] = {
        key: _with_defaults(below, values.get(key), definitions) for key, below in node["properties"].items()
    }
    return node


def _make_partial(definitions: Node, name: str) -> None:
    """Take the defaults out of a definition and of all below it, which get names of their own where others use them."""
    done: dict[str, str] = {}

    def copied(old: str) -> str:
        if old not in done:
            done[old] = old if old == name else f"{name}.{old}"
            definitions[done[old]] = _changed(deepcopy(definitions[old]), without_default)
        return done[old]

    def without_default(node: Node) -> Node:
        node.pop("default", None)
        if str(node.get("$ref", "")).startswith(_REF):
            node["$ref"] = _REF + copied(node["$ref"].removeprefix(_REF))
        return node

    copied(name)


def _remove(definitions: Node, section: str, name: str) -> None:
    settings = definitions["Settings"]["properties"]
    below = definitions[settings[section]["$ref"].removeprefix(_REF)]
    del below["properties"][name]


def _reachable(root: Node, definitions: Node) -> Node:
    """Return the definitions that are used."""
    found: Node = {}

    def visit(node: Node) -> Node:
        name = str(node.get("$ref", "")).removeprefix(_REF)
        if name and name not in found:
            found[name] = definitions[name]
            _changed(deepcopy(definitions[name]), visit)
        return node

    _changed(deepcopy(root), visit)
    return found


def _changed(node: Any, change: Callable[[Node], Node]) -> Any:
    """Change every object of a schema, the outer ones first; what is named `properties` is no schema itself."""
    if isinstance(node, list):
        return [_changed(each, change) for each in node]
    if not isinstance(node, dict):
        return node
    changed = change(node)
    return {
        key: (
            {name: _changed(each, change) for name, each in value.items()}
            if key in ("properties", "patternProperties", "$defs") and isinstance(value, Mapping)
            else value
            if key in ("default", "enum", "const")
            else _changed(value, change)
        )
        for key, value in changed.items()
    }


def _tidy(node: Node) -> Node:
    """Say several plain types at once: then what is wrong is said in one sentence. Put descriptions on one line, and leave out what no schema needs."""
    for useless in ("writeOnly", "format"):
        node.pop(useless, None)
    if "description" in node:
        node["description"] = one_line(node["description"]).replace("\\|", "|")
    if node.get("type") == "object":
        node.pop("title", None)
    if "patternProperties" in node:
        node["additionalProperties"] = False
    kinds = node.get("anyOf", ())
    types = [kind.get("type") for kind in kinds]
    if kinds and len({*types} & _SIMPLE) == len(kinds) and not any("enum" in kind for kind in kinds):
        del node["anyOf"]
        for kind in kinds:
            node |= kind
        node["type"] = types
        if types == ["number", "string"]:
            node.setdefault("pattern", _DECIMAL)
    return node

"""The event messages as JSON Schema, made of the protobuf descriptors: what `MessageToDict` and protojson write.

Field names are those of the `.proto` files; 64-bit numbers are strings, enums the names of their values, as the JSON
mapping of protobuf has it. Descriptions are the comments of the `.proto` files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

import botplatform.events.v1.payloads as generated
from botplatform.core.events import MAX_CORRELATION_ID, MAX_ID, Event
from botplatform.docs.docstrings import attributes, docstring
from botplatform.events.v1 import event_pb2
from botplatform.options.v1 import options_pb2

__all__ = ["envelope", "message_schemas", "payload_field", "reference"]

DECIMAL: Final = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
SUBJECT_PART: Final = "^[^.*>\\s]{1,64}$"
WHOLE: Final = "^-?[0-9]+$"
LIMITS: Final[Mapping[str, int]] = {
    "id": MAX_ID,
    "causation_id": MAX_ID,
    "correlation_id": MAX_CORRELATION_ID,
}
_PLAIN: Final[Mapping[int, dict[str, Any]]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64", "pattern": WHOLE},
    FieldDescriptor.TYPE_SFIXED64: {"type": "string", "format": "int64", "pattern": WHOLE},
}
ENVELOPE: Final = cast("Descriptor", event_pb2.Event.DESCRIPTOR)
"""What every event travels in."""


def message_schemas() -> dict[str, Any]:
    """Return the schemas of all messages and enums that an event can hold, by their names; the envelope is not one."""
    schemas: dict[str, Any] = {}
    waiting = [field.message_type for field in ENVELOPE.fields if field.message_type is not None]
    enums: dict[str, EnumDescriptor] = {}
    while waiting:
        message = waiting.pop(0)
        if message.name in schemas or message.GetOptions().map_entry:
            continue
        schemas[message.name] = _message(message)
        for field in message.fields:
            inner = _value(field)
            if inner.message_type is not None:
                waiting.append(inner.message_type)
            if inner.enum_type is not None:
                enums[inner.enum_type.name] = inner.enum_type
    return schemas | {name: _enum(enum) for name, enum in sorted(enums.items())}


def reference(name: str) -> dict[str, str]:
    """Return a reference to the schema of a message or an enum."""
    return {"$ref": f"#/components/schemas/{name}"}


def envelope() -> dict[str, Any]:
    """Return the schema of what all events have in common."""
    docs = {each.name: each.doc for each in attributes(Event)}
    fields = [field for field in ENVELOPE.fields if field.containing_oneof is None]
    return {
        "type": "object",
        "description": docstring(Event).split("\n", 1)[0],
        "required": ["id", "type", "timestamp_ns", "created_ns", "source", "key"],
        "properties": {field.name: _described(field, docs[field.name]) for field in fields},
    }


def payload_field(event_type: str) -> str:
    """Return the field of the envelope that holds the payload of a type."""
    for field in ENVELOPE.oneofs_by_name["payload"].fields:
        if field.message_type is not None and event_type in _option(field.message_type, options_pb2.event_types):
            return str(field.name)
    raise KeyError(event_type)


def _message(message: Descriptor) -> dict[str, Any]:
    kind = getattr(generated, message.name)
    docs = {each.name: each.doc for each in attributes(kind)}
    schema: dict[str, Any] = {"type": "object", "description": _text(docstring(kind))}
    required = [
        field.name for field in message.fields if _option(field, options_pb2.required) and not _may_be_zero(field)
    ]
    if required:
        schema["required"] = required
    schema["properties"] = {field.name: _described(field, docs[field.name]) for field in message.fields}
    schema["x-protobuf-message"] = message.full_name
    return schema


def _described(field: FieldDescriptor, doc: str) -> dict[str, Any]:
    schema = _field(field)
    if "$ref" in schema:  # what stands beside a reference does not count
        schema = {"allOf": [schema]}
    return {"description": _text(doc), **schema}


def _field(field: FieldDescriptor) -> dict[str, Any]:
    if _is_map(field):
        return {"type": "object", "additionalProperties": _one(_value(field))}
    return {"type": "array", "items": _one(field)} if field.is_repeated else _one(field)


def _one(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        return dict(reference(field.message_type.name))
    if field.enum_type is not None:
        return dict(reference(field.enum_type.name))
    schema = dict(_PLAIN[field.type])
    if _option(field, options_pb2.decimal):
        schema |= {"format": "decimal", "pattern": DECIMAL}
    if _option(field, options_pb2.token):
        schema["pattern"] = SUBJECT_PART
    if field.containing_type is ENVELOPE and field.name in LIMITS:
        schema["maxLength"] = LIMITS[field.name]
    return schema


def _enum(enum: EnumDescriptor) -> dict[str, Any]:
    kind: type[StrEnum] = getattr(generated, enum.name)
    docs = {each.name: each.doc for each in attributes(kind)}
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    meanings = [
        f"- `{value.name}`: {_text(docs[short])}"
        for value in enum.values
        if (short := value.name.removeprefix(prefix)) in docs
    ]
    return {
        "type": "string",
        "description": "\n".join([_text(docstring(kind)), "", *meanings]),
        "enum": [value.name for value in enum.values],
    }


def _option(described: Any, option: Any) -> Any:
    """Return what a field or a message says of itself; protobuf's types do not know extensions of options."""
    return described.GetOptions().Extensions[option]


def _may_be_zero(field: FieldDescriptor) -> bool:
    """Tell whether a field is left out for a value that it may well have."""
    return not field.has_presence and field.cpp_type not in (
        FieldDescriptor.CPPTYPE_STRING,
        FieldDescriptor.CPPTYPE_ENUM,
    )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _value(field: FieldDescriptor) -> FieldDescriptor:
    """Return what a field holds: itself, or the values of a map."""
    if not _is_map(field):
        return field
    assert field.message_type is not None
    return field.message_type.fields_by_name["value"]


def _text(doc: str) -> str:
    return doc.replace("\\|", "|").strip()

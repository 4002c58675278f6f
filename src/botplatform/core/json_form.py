"""The event's JSON form: for logs, the command line and the browser. Lossless both ways.

The five names of the contract are at the top. Times are floats in seconds for people with the exact
nanoseconds as a string beside them, which win; money is a string, and a number is read exactly as it is
written; the order book is `{"bids": [[price, size], …], "asks": …}`. Defaults are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, Final, NoReturn

import msgspec

from botplatform.core.events import CATALOGUE, SPELLINGS, Event
from botplatform.core.json_reader import AS_PAYLOAD, read_struct, read_text, read_time, read_whole, refuse
from botplatform.errors import InvalidEvent
from botplatform.events.rules import shown
from botplatform.events.v1.payloads import SHAPES, FieldShape, OrderBook

__all__ = ["MAX_BYTES", "from_json", "parse", "to_dict", "to_json"]

MAX_BYTES: Final = 1024 * 1024
"""Largest JSON text that is read, in bytes."""
_NAMES: Final = (
    "type",
    "timestamp",
    "source",
    "payload",
    "correlation_id",
    "timestamp_ns",
    "created_ns",
    "id",
    "causation_id",
    "key",
)
_TEXTS: Final = ("source", "correlation_id", "id", "causation_id", "key")
_DEFAULTS: Final = {kind: {field.name: field.default for field in msgspec.structs.fields(kind)} for kind in SHAPES}


def to_json(event: Event) -> str:
    """Write an event as one line of JSON; `from_json` returns an equal event."""
    try:
        return msgspec.json.encode(to_dict(event)).decode()
    except UnicodeEncodeError as e:
        raise InvalidEvent(f"the event {event.type} has a text that is not valid Unicode: {e.reason}") from e


def to_dict(event: Event) -> dict[str, Any]:
    """Write an event as plain dicts, lists, strings and numbers."""
    return {
        "type": event.type,
        "timestamp": event.timestamp,
        "source": event.source,
        "payload": _write_struct(event.payload),
        "correlation_id": event.correlation_id,
        "timestamp_ns": str(event.timestamp_ns),
        "created_ns": str(event.created_ns),
        "id": event.id,
        "causation_id": event.causation_id,
        "key": event.key,
    }


def from_json(data: str | bytes | Mapping[str, Any], max_bytes: int = MAX_BYTES) -> Event:
    """Read an event from JSON text, or from what `to_dict` returns; raise `InvalidEvent` with the place of what is wrong.

    The users' other spellings are accepted. An `id` that is not given is made up, `created_ns` is by default
    the timestamp, and the rest as in `Event`.
    """
    given = dict(data) if isinstance(data, Mapping) else parse(data, max_bytes)
    kind = given.get("type")
    if type(kind) is not str:
        refuse(
            "type", "is missing: an event has a type like 'order.filled'" if kind is None else _not(kind, "a string")
        )
    event_type = SPELLINGS.get(kind, kind)
    struct = CATALOGUE.get(event_type)
    if struct is None:
        near = get_close_matches(event_type, CATALOGUE, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        refuse("type", f"is {shown(kind)}, which is not in the catalogue{hint}: known are {', '.join(CATALOGUE)}")
    payload = _payload_of(given, event_type)
    for name in given:
        if name not in _NAMES:
            near = get_close_matches(str(name), _NAMES, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            refuse(shown(name), f"is not a field of an event{hint}: its fields are {', '.join(_NAMES)}")
    texts: dict[str, Any] = {name: read_text(given[name], name) for name in _TEXTS if given.get(name) is not None}
    if "source" not in texts:
        refuse("source", "is missing: name the module that publishes the event")
    timestamp_ns = read_time(given, "timestamp", "")
    if not timestamp_ns:
        refuse("timestamp", "is missing: give seconds since the UNIX epoch, or nanoseconds as timestamp_ns")
    created = given.get("created_ns")
    return Event(
        type=event_type,
        payload=read_struct(payload, struct, "payload"),
        timestamp_ns=timestamp_ns,
        created_ns=0 if created is None else read_whole(created, "created_ns"),
        **texts,
    )


def parse(text: str | bytes, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Parse JSON text to a dict whose fractions are exact decimals; refuse NaN, Infinity and a name given twice."""
    if len(text) > max_bytes or (isinstance(text, str) and len(text.encode(errors="replace")) > max_bytes):
        raise InvalidEvent(f"the JSON is longer than {max_bytes} bytes: no event is that long")
    try:
        value = json.loads(text, parse_float=_number, parse_constant=_constant, object_pairs_hook=_object)
    except InvalidEvent:
        raise
    except RecursionError as e:
        raise InvalidEvent("the JSON is nested too deeply: an event has at most five levels") from e
    except ValueError as e:
        raise InvalidEvent(f"the text is not JSON: {e}") from e
    if type(value) is not dict:
        raise InvalidEvent(f"the JSON is {_not(value, 'an object with the fields of an event')[3:]}")
    return value


def _payload_of(given: dict[str, Any], event_type: str) -> Any:
    """Take the payload out of the event; it may stand under one of the users' names."""
    names = [name for name in ("payload", *AS_PAYLOAD) if name in given]
    names = [name for name in names if name == "payload" or event_type.split(".", 1)[0] in AS_PAYLOAD[name]]
    if not names:
        refuse("payload", f"is missing: the event {event_type} has one")
    if len(names) > 1:
        refuse(names[1], f"says the same as {names[0]}: give one of them")
    value = given.pop(names[0])
    if event_type == "signal.snapshot" and names[0] != "payload" and isinstance(value, dict) and "values" not in value:
        return {names[0]: value}
    return value


def _write_struct(value: Any) -> dict[str, Any]:
    kind = type(value)
    if kind is OrderBook:
        return {"bids": [list(level) for level in value.bids], "asks": [list(level) for level in value.asks]}
    written: dict[str, Any] = {}
    defaults = _DEFAULTS[kind]
    for field in SHAPES[kind]:
        item = getattr(value, field.name)
        default = defaults[field.name]
        if not field.required and type(item) is type(default) and item == default:
            continue
        if field.name.endswith("_ns"):
            written[field.name.removesuffix("_ns")] = item / 1e9
            written[field.name] = str(item)
        elif field.many == "list":
            written[field.name] = [_write(entry, field) for entry in item]
        elif field.many == "map":
            written[field.name] = {name: _write(entry, field) for name, entry in item.items()}
        else:
            written[field.name] = _write(item, field)
    return written


def _write(value: Any, field: FieldShape) -> Any:
    if field.kind == "message":
        return _write_struct(value)
    if field.kind == "decimal":
        return format(value, "f")
    return value.value if field.kind == "enum" else value


def _number(literal: str) -> Decimal:
    try:
        return Decimal(literal)
    except InvalidOperation:
        raise InvalidEvent(f"the JSON has the number {shown(literal)}, which is out of every range") from None


def _constant(literal: str) -> NoReturn:
    raise InvalidEvent(f"the JSON has {literal}: numbers have to be finite")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidEvent(f"the JSON has the name {shown(twice)} twice in one object: which one is meant?")
    return found


def _not(value: Any, wanted: str) -> str:
    return f"is {shown(value)}: it has to be {wanted}"

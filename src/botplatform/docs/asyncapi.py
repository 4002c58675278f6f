"""The AsyncAPI 3 document: every subject, message and engine, made of the descriptors and the declarations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import yaml

from botplatform.bus.jetstream.permissions import EXTRA_TYPES, RUNTIME_TYPES
from botplatform.bus.jetstream.setup import by_type_name
from botplatform.bus.jetstream.wire import MESSAGE_ID, TTL
from botplatform.core.events import CATALOGUE
from botplatform.core.patterns import matches
from botplatform.docs.docstrings import docstring
from botplatform.docs.json_schemas import envelope, message_schemas, payload_field, reference
from botplatform.settings import Settings
from botplatform.telemetry.span_ids import MAX_STATE

__all__ = ["asyncapi_document", "asyncapi_page"]

VERSION: Final = "3.0.0"
CONTENT_TYPE: Final = "application/protobuf"
PUBLISHED: Final = "evt.{domain}.{action}.{key}"
STORED: Final = "{domain}.{action}.{partition}.{key}"
OPERATED: Final = {"halt": "trading.halted", "reduce": "trading.reducing", "resume": "trading.resumed"}
"""What people publish with the command line."""
ABOUT: Final = """\
Engines never call each other: each publishes events and listens to events, and the log of events, a JetStream stream,
is the truth. A body is one protobuf message, `botplatform.events.v1.Event`, as declared in
`proto/botplatform/events/v1/`; the schemas here say the same in the JSON mapping of protobuf, with the names of the
`.proto` files. Fields with their default value may be missing there. `botplatform events decode` prints the JSON form
of the command line, which says money, times and order books more briefly.

Publish on `evt.<domain>.<action>.<key>`; the stream stores it as `<domain>.<action>.<partition>.<key>`, and the server
shows it to people as `<domain>.<action>`: watch with `nats sub 'order.*' --translate 'botplatform events decode'`.
Events of one key keep their order. A repeated `Nats-Msg-Id` is stored once.
"""


class _Readable(yaml.SafeDumper):
    """Writes texts of several lines as such, and everything where it stands, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the signature is PyYAML's
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _write_text)


def asyncapi_page(engines: Iterable[type[Any]], listens: dict[str, tuple[str, ...]]) -> str:
    """Return the document as YAML."""
    document = asyncapi_document(engines, listens)
    text = yaml.dump(document, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=120)
    return f"# Made of the code by `python -m botplatform.docs`; change the code instead.\n{text}"


def asyncapi_document(engines: Iterable[type[Any]], listens: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the document; `listens` has what an engine hears whose class does not say it."""
    given = [(each, _types(listens.get(each.name, getattr(each, "listens", ()))), _published(each)) for each in engines]
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "BotPlatform",
            "version": "v1",
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
            "tags": _tags(),
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": _servers(),
        "channels": {
            "published": _everything(PUBLISHED, "Where engines publish.", ("domain", "action", "key")),
            "log": _everything(
                STORED,
                f"The log, the stream `{Settings().bus.stream}`: where durable consumers of engines read.",
                ("domain", "action", "partition", "key"),
            ),
            **{name: _channel(name, given) for name in CATALOGUE},
        },
        "operations": dict(_operations(given)),
        "components": {
            "messages": {name: _message(name) for name in CATALOGUE},
            "schemas": {"Event": envelope(), **message_schemas(), "Headers": _headers()},
            "parameters": _parameters(),
        },
    }


Given = tuple[type[Any], tuple[str, ...], tuple[str, ...]]
"""An engine, the types that it hears, and those that it publishes."""


def _types(patterns: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(patterns)
    return tuple(name for name in CATALOGUE if any(matches(pattern, name) for pattern in wanted))


def _published(engine: type[Any]) -> tuple[str, ...]:
    return _types((*engine.publishes, *RUNTIME_TYPES, *EXTRA_TYPES.get(engine.name, ())))


def _tags() -> list[dict[str, str]]:
    kinds = {name.split(".")[0]: kind for name, kind in CATALOGUE.items()}
    return [{"name": domain, "description": docstring(kind).split("\n", 1)[0]} for domain, kind in kinds.items()]


def _tag(event_type: str) -> list[dict[str, str]]:
    return [{"name": event_type.partition(".")[0]}]


def _servers() -> dict[str, Any]:
    host = Settings().nats.url.removeprefix("nats://")
    about = "NATS 2.14 or newer with JetStream, set up by `botplatform setup`. The default of `nats.url`."
    return {"nats": {"host": host, "protocol": "nats", "description": about}}


def _everything(address: str, about: str, parameters: Iterable[str]) -> dict[str, Any]:
    return {
        "address": address,
        "description": about,
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in parameters},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in CATALOGUE},
    }


def _channel(name: str, given: Iterable[Given]) -> dict[str, Any]:
    by = [engine.name for engine, _, published in given if name in published]
    to = [engine.name for engine, heard, _ in given if name in heard]
    by += [f"botplatform {command}" for command, state in OPERATED.items() if state == name]
    who = f"Published by {_names(by) or 'no engine'}; heard by {_names(to) or 'no engine'}."
    return {
        "address": name,
        "title": name,
        "description": f"Every `{name}`, live and in order. {who} For JetStream consumers the stream "
        f"`{by_type_name(Settings().bus.stream)}` has the same subject.",
        "servers": [{"$ref": "#/servers/nats"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "tags": _tag(name),
    }


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _operations(given: Iterable[Given]) -> Iterable[tuple[str, dict[str, Any]]]:
    for engine, heard, published in given:
        about = docstring(engine)
        for action, channel, types, title in (
            ("receive", "log", heard, "listens to"),
            ("send", "published", published, "publishes"),
        ):
            if types:
                yield (
                    f"{engine.name}.{action}",
                    {
                        "action": action,
                        "title": f"{engine.name} {title}",
                        "summary": about.split("\n", 1)[0],
                        "channel": {"$ref": f"#/channels/{channel}"},
                        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in types],
                        "tags": [{"name": domain} for domain in dict.fromkeys(name.split(".")[0] for name in types)],
                    },
                )


def _message(name: str) -> dict[str, Any]:
    kind, field = CATALOGUE[name], payload_field(name)
    return {
        "name": name,
        "title": name,
        "summary": docstring(kind).split("\n", 1)[0],
        "contentType": CONTENT_TYPE,
        "tags": _tag(name),
        "correlationId": {
            "description": "The same for all events of one chain: `botplatform trace` shows them.",
            "location": "$message.payload#/correlation_id",
        },
        "headers": reference("Headers"),
        "payload": {
            "allOf": [
                reference("Event"),
                {
                    "type": "object",
                    "required": [field],
                    "properties": {"type": {"const": name}, field: reference(kind.__name__)},
                },
            ]
        },
        "x-protobuf-message": "botplatform.events.v1.Event",
    }


def _headers() -> dict[str, Any]:
    """Return the schema of the headers that `bus.jetstream.wire` writes."""
    return {
        "type": "object",
        "required": [MESSAGE_ID],
        "properties": {
            MESSAGE_ID: {"type": "string", "description": "The event's `id`: the server stores a repetition once."},
            "traceparent": {
                "type": "string",
                "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                "description": "W3C trace context: the trace id is the `correlation_id` where that is 32 hex digits, "
                "else the first 16 bytes of its SHA-256; the span is that which publishes the event.",
            },
            "tracestate": {
                "type": "string",
                "maxLength": MAX_STATE,
                "description": "W3C trace context, only where another program gave the trace one: it is passed on.",
            },
            TTL: {
                "type": "string",
                "pattern": "^(never|[0-9]+s)$",
                "description": "How long the log keeps it: ticks, signals and heartbeats for `bus.tick_ttl_s`.",
            },
        },
    }


def _parameters() -> dict[str, Any]:
    domains = list(dict.fromkeys(name.split(".")[0] for name in CATALOGUE))
    actions = list(dict.fromkeys(name.split(".")[1] for name in CATALOGUE))
    return {
        "domain": {"description": "The first part of the event's type.", "enum": domains},
        "action": {"description": "The second part of the event's type.", "enum": actions},
        "partition": {"description": "A hash of the key (FNV-1a, 32 bits, modulo the partitions of the stream)."},
        "key": {"description": "What must stay in order: the symbol, or the source where there is none."},
    }

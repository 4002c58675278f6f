"""Spans of ours as OTLP on the wire, written directly: a quarter of what the objects of the SDK and of protobuf take.

What is written is what the SDK's own encoder makes of the same spans; a test compares the two. The numbers of the
fields are those of `opentelemetry/proto/trace/v1/trace.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from botplatform.telemetry.attributes import attributes_of
from botplatform.telemetry.spans import Kind, Link, Note, Span, Value

__all__ = ["Resource", "encode_request", "encode_span"]

_KINDS: Final = {Kind.INTERNAL: 1, Kind.SERVER: 2, Kind.CLIENT: 3, Kind.PRODUCER: 4, Kind.CONSUMER: 5}
_ERROR: Final = b"\x18\x02"
_FLAGS: Final = b"\x85\x01\x00\x01\x00\x00"
"""That it is known that the parent is not remote: what the SDK says of every span of its own."""
_LINK_FLAGS: Final = b"\x35\x00\x01\x00\x00"
_TIMES: Final = Struct("<BQBQ").pack
_TIME: Final = Struct("<BQ").pack
_DOUBLE: Final = Struct("<Bd").pack


class Resource(NamedTuple):
    """What the spans of one engine come from, encoded."""

    resource: bytes
    scope: bytes
    schema_url: bytes = b""


def _number(value: int) -> bytes:
    """Encode a number of variable length."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


_LENGTHS: Final = tuple(_number(length) for length in range(2048))
_SHORT: Final = tuple(b"\x12%c\x0a%c" % (length + 2, length) for length in range(126))
"""What comes before a text of so many bytes, as the value of an attribute."""


def _part(tag: bytes, content: bytes) -> bytes:
    """Encode a field that has a length."""
    length = len(content)
    return tag + (_LENGTHS[length] if length < len(_LENGTHS) else _number(length)) + content


def _text(value: str) -> bytes:
    return value.encode("utf-8", "replace")  # half a character in somebody's text loses no batch


@lru_cache(maxsize=256)
def _key(key: str) -> bytes:
    return _part(b"\x0a", _text(key))


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _part(b"\x0a", _text(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _number(value & 0xFFFF_FFFF_FFFF_FFFF)
    return _DOUBLE(0x21, value)


def _pairs(tag: bytes, attributes: Mapping[str, Value]) -> list[bytes]:
    """Encode attributes; short texts, which nearly all are, with as few objects as it takes."""
    made: list[bytes] = []
    for key, value in attributes.items():
        name = _key(key)
        text = _text(value) if type(value) is str else b""
        if text and len(text) < len(_SHORT):
            made += (tag, _LENGTHS[len(name) + 4 + len(text)], name, _SHORT[len(text)], text)
        else:
            made.append(_part(tag, name + _part(b"\x12", _value(value))))
    return made


def _note(note: Note) -> bytes:
    return b"".join((_TIME(0x09, note.at_ns), _part(b"\x12", _text(note.name)), *_pairs(b"\x1a", note.attributes)))


def _link(link: Link) -> bytes:
    return b"\x0a\x10" + bytes.fromhex(link.trace) + b"\x12\x08" + bytes.fromhex(link.span) + _LINK_FLAGS


def encode_span(span: Span, system: str) -> bytes:
    """Return a span as OTLP; `system` is the `messaging.system`."""
    start, end = span.start_ns, max(span.start_ns, span.end_ns)
    parts = [b"\x0a\x10", bytes.fromhex(span.trace), b"\x12\x08", bytes.fromhex(span.id)]
    if span.state:
        parts.append(_part(b"\x1a", _text(span.state)))
    if span.parent:
        parts += (b"\x22\x08", bytes.fromhex(span.parent))
    parts += (_key_of_name(span.name), b"\x30", _LENGTHS[_KINDS[span.kind]], _TIMES(0x39, start, 0x41, end))
    parts += _pairs(b"\x4a", attributes_of(span, system))
    parts += [_part(b"\x5a", _note(note)) for note in span.notes]
    parts += [_part(b"\x6a", _link(link)) for link in span.links]
    failure = span.failure
    status = b"" if failure is None else _part(b"\x12", _text(failure.text or failure.type)) + _ERROR
    parts += (_part(b"\x7a", status), _FLAGS)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _key_of_name(name: str) -> bytes:
    return _part(b"\x2a", _text(name))


def encode_request(spans: Iterable[tuple[Resource, Iterable[bytes]]]) -> bytes:
    """Return what a collector is sent: the encoded spans of each resource."""
    return b"".join(_part(b"\x0a", _of_resource(resource, made)) for resource, made in spans)


def _of_resource(resource: Resource, spans: Iterable[bytes]) -> bytes:
    scope = b"".join((_part(b"\x0a", resource.scope), *(_part(b"\x12", span) for span in spans)))
    url = _part(b"\x1a", resource.schema_url) if resource.schema_url else b""
    return _part(b"\x0a", resource.resource) + _part(b"\x12", scope) + url

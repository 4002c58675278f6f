"""The ids of traces and spans: functions of the events, so that a parent can be named by anyone, at any time.

| span | its id |
| --- | --- |
| PRODUCER of an event | the first 16 digits of the event's id: what its `traceparent` header says |
| CONSUMER of an event in a group | a hash of the event's id and the group |
| CLIENT, a call of a venue | a hash of the id of the event it follows from, and of what was asked |

A replay and a new owner make the same ids again.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from botplatform.core.trace_id import span_id, trace_id, trace_of, traceparent

__all__ = [
    "Parent",
    "client_id",
    "consumer_id",
    "parse_traceparent",
    "producer_id",
    "read_traceparent",
    "read_tracestate",
    "trace_id",
    "trace_of",
    "traceparent",
]

_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})")
_HEADER: Final = b"\r\ntraceparent: "
_STATE_NAME: Final = b"tracestate"
_STATE: Final = re.compile(rb"\r\ntracestate:[ \t]*([^\r\n]*)", re.IGNORECASE)
_MEMBER: Final = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
MAX_STATE: Final = 512
"""Characters of a `tracestate` that are passed on: as many as W3C asks for."""
MAX_MEMBERS: Final = 32


class Parent(NamedTuple):
    """What a `traceparent` header says."""

    trace: str
    span: str
    sampled: bool
    """Whether whoever sent it traces it: only then there is a span of that id."""


producer_id: Final = span_id
"""Return the id of the span in which an event was published, by the event's id."""


def consumer_id(event_id: str, group: str) -> str:
    """Return the id of the span in which a group handles an event."""
    return _hashed("process", event_id, group)


def client_id(event_id: str, *asked: object) -> str:
    """Return the id of the span of a call of a venue: the event that it follows from, and what was asked."""
    return _hashed("call", event_id, *asked)


def _hashed(*parts: object) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).hexdigest()


def parse_traceparent(headers: bytes) -> Parent | None:
    """Find the `traceparent` in the headers of a message as they came; None for a missing or wrong one."""
    at = headers.find(_HEADER)
    if at < 0:  # other clients may write the name in another case
        at = headers.lower().find(_HEADER)
    if at < 0:
        return None
    begin = at + len(_HEADER)
    return _read(_PARENT.match(headers, begin, begin + 55))


def read_tracestate(headers: bytes) -> str:
    """Find the `tracestate` in the headers of a message as they came; empty for a missing, wrong or longer one."""
    if _STATE_NAME not in headers.lower():
        return ""
    found = [each.decode("ascii", "replace") for each in _STATE.findall(headers)]
    members = [member for member in (each.strip(" \t") for each in ",".join(found).split(",")) if member]
    state = ",".join(members)
    if len(state) > MAX_STATE or len(members) > MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return state


def read_traceparent(text: str) -> Parent | None:
    """Read a `traceparent` alone; None for a wrong one."""
    return _read(_PARENT.fullmatch(text.encode(errors="replace")))


def _read(found: re.Match[bytes] | None) -> Parent | None:
    if found is None:
        return None
    trace, span, flags = found.groups()
    return Parent(trace.decode(), span.decode(), bool(int(flags, 16) & 1))

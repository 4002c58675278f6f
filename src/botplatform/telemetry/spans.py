"""A span as the platform knows it: what happened, from when to when, and under what. Made after the fact.

It costs about a microsecond to make; whatever the SDK needs is worked out in the thread that exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, Self

from botplatform.core.events import Event

__all__ = ["Failure", "Kind", "Link", "Note", "Span", "Value"]

Value = str | int | float | bool


class Kind(StrEnum):
    """The kind of a span, as in OpenTelemetry."""

    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"
    CLIENT = "CLIENT"
    SERVER = "SERVER"
    INTERNAL = "INTERNAL"


class Note(NamedTuple):
    """Something that happened during a span: what OpenTelemetry calls a span event."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value] = {}


class Link(NamedTuple):
    """Another span that has to do with one, without being its parent."""

    trace: str
    span: str


class Failure(NamedTuple):
    """What went wrong in a span: its status is then an error."""

    type: str
    """`error.type`: an exception's class, or a reason code."""
    text: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return what an exception says; other people's may raise when they are asked."""
        try:
            return cls(type(error).__name__, str(error))
        except Exception as e:  # noqa: BLE001  # whatever their `__str__` raises
            return cls(type(error).__name__, f"it cannot be told: {type(e).__name__}")


class Span(NamedTuple):
    """One span."""

    service: str
    """The engine that it belongs to; `service.name` is made of it."""
    name: str
    kind: Kind
    trace: str
    id: str
    parent: str
    """Id of the parent in the same trace; empty for a root."""
    start_ns: int
    end_ns: int
    event: Event | None = None
    """The event that it is about; its attributes are made of it."""
    attributes: Mapping[str, Value] = {}
    """What cannot be told from the event."""
    notes: tuple[Note, ...] = ()
    links: tuple[Link, ...] = ()
    failure: Failure | None = None
    state: str = ""
    """The W3C `tracestate` of the trace, as another program gave it."""

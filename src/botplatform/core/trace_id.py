"""The trace id of a chain: what OpenTelemetry, the `traceparent` header and the event store know it by."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

from botplatform.core.events import Event

__all__ = ["as_trace_id", "span_id", "trace_id", "trace_of", "traceparent"]

_HEX: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")


@lru_cache(maxsize=4096)
def trace_id(correlation_id: str) -> str:
    """Return the OpenTelemetry trace id of a chain: the correlation id when that is 32 hex digits, else its hash.

    Dashes and capitals do not count: a UUID is its own trace id. An event without a correlation id is a chain of its
    own, under its `id`.
    """
    return as_trace_id(correlation_id) or hashlib.sha256(correlation_id.encode()).hexdigest()[:32]


def as_trace_id(text: str) -> str:
    """Return what a text is as a trace id, where it is one: 32 hex digits, lower case, not all zero; else nothing."""
    if _HEX.fullmatch(text):
        return text
    plain = text.replace("-", "").lower()
    return plain if _HEX.fullmatch(plain) else ""


def span_id(event_id: str) -> str:
    """Return the id of the span that publishes an event: the first 16 hex digits of its id, else those of its hash."""
    span = event_id[:16].lower()
    return span if _SPAN.fullmatch(span) else hashlib.sha256(event_id.encode()).hexdigest()[:16]


def trace_of(event: Event) -> str:
    """Return the trace id of an event: that of its chain; one without a chain is its own."""
    return trace_id(event.correlation_id or event.id)


def traceparent(event: Event, *, sampled: bool = False) -> str:
    """Return the W3C header that shows the chain of an event, and whether its publishing is traced."""
    return f"00-{trace_of(event)}-{span_id(event.id)}-{'01' if sampled else '00'}"

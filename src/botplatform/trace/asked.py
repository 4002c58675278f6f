"""What a person pasted: an id of any kind, a `traceparent`, or the address of a trace."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from botplatform.core.events import Event, OrderEvent
from botplatform.core.trace_id import as_trace_id, span_id, trace_id
from botplatform.errors import UnknownId
from botplatform.telemetry.summary import printable

__all__ = ["SHORTEST", "Asked", "read_asked"]

SHORTEST: Final = 8
"""Characters of an id that are enough, when only one chain has an id that begins with them."""
LONGEST: Final = 256
"""Characters of what is pasted, at most."""
_TRACEPARENT: Final = re.compile(r"\b[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\b", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"\bhttps?://\S*/trace/([0-9a-f]{32})\b", re.IGNORECASE)


class Asked(NamedTuple):
    """What to look for."""

    text: str
    """The id; of a `traceparent` its trace id."""
    trace_id: str = ""
    """The id as a trace id, where it can be one."""
    span_id: str = ""
    """Of a `traceparent`: the span, which is that of one event."""

    @property
    def shown(self) -> str:
        """The id as it may be shown on a terminal."""
        return printable(self.text)

    def meaning(self, event: Event) -> str:
        """Tell what the id is to an event: `event id`, `order id`, `trade id`, `correlation id`, `trace id`; or nothing."""
        text, payload = self.text, event.payload
        if event.correlation_id == text:
            return "correlation id"
        if event.id == text:
            return "event id"
        if type(payload) is OrderEvent:
            if payload.order_id == text:
                return "order id"
            if payload.trade_id == text:
                return "trade id"
        if self.trace_id and trace_id(event.correlation_id or event.id) == self.trace_id:
            return "trace id"
        return ""

    def beginning(self, event: Event) -> str:
        """Tell what begins with the id, in the words of `meaning`; or nothing, also where the id is too short."""
        text, payload = self.text, event.payload
        if len(text) < SHORTEST:
            return ""
        order = (payload.order_id, payload.trade_id) if type(payload) is OrderEvent else ("", "")
        ids = (event.correlation_id, event.id, *order)
        names = ("correlation id", "event id", "order id", "trade id")
        return next((name for name, each in zip(names, ids, strict=True) if each.startswith(text)), "")

    def points_at(self, event: Event) -> bool:
        """Tell whether an event is what was asked for itself, and not only in its chain."""
        if self.span_id:
            return span_id(event.id) == self.span_id
        return (self.meaning(event) or self.beginning(event)) in ("event id", "order id", "trade id")


def read_asked(text: str) -> Asked:
    """Read what was pasted; raise `UnknownId` for what cannot be an id."""
    given = text.strip()
    if found := _TRACEPARENT.search(given):
        trace, span = found[1].lower(), found[2].lower()
        return Asked(trace, trace, span)
    if found := _ADDRESS.search(given):
        return Asked(found[1].lower(), found[1].lower())
    if not given:
        raise UnknownId("the id is empty: give a correlation, order, trade, event or trace id, or a traceparent")
    if len(given) > LONGEST:
        raise UnknownId(f"the id has {len(given)} characters, and ids have {LONGEST} at most: paste one of them")
    return Asked(given, as_trace_id(given))

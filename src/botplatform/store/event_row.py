"""What an event is as a row of a store: the columns that it is found by, and its body."""

from __future__ import annotations

from typing import NamedTuple

from botplatform.core.events import Event, OrderEvent, to_wire
from botplatform.core.trace_id import trace_id
from botplatform.errors import StoreError
from botplatform.store.retention import SHORT_LIVED

__all__ = ["EventRow", "row_of"]


class EventRow(NamedTuple):
    """An event as a row; the names are those of the columns."""

    sequence: int | None
    id: str
    type: str
    key: str
    correlation_id: str
    trace_id: str | None
    """None where it is the correlation id itself, as ours are."""
    causation_id: str
    source: str
    timestamp_ns: int
    order_id: str | None
    trade_id: str | None
    short_lived: bool
    age_from_ns: int
    body: bytes


def row_of(event: Event, sequence: int | None) -> EventRow:
    """Return an event as a row; raise `StoreError` for one that cannot be written."""
    payload = event.payload
    order = payload if type(payload) is OrderEvent else None
    trace = trace_id(event.correlation_id or event.id)
    try:
        body = to_wire(event)
    except ValueError as e:  # text that is not Unicode, for example half of a surrogate pair
        raise StoreError(f"the event {event.type} {event.id!r} cannot be written to the event store: {e}") from e
    return EventRow(
        sequence,
        event.id,
        event.type,
        event.key,
        event.correlation_id,
        None if trace == event.correlation_id else trace,
        event.causation_id,
        event.source,
        event.timestamp_ns,
        None if order is None else order.order_id,
        (order.trade_id or None) if order is not None else None,
        event.type in SHORT_LIVED,
        event.created_ns,
        body,
    )

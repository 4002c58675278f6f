"""The statements of the event store in PostgreSQL, and what an event is as a row."""

from __future__ import annotations

from typing import Any, Final

from botplatform.core.events import CATALOGUE, Event, OrderEvent, to_wire
from botplatform.core.trace_id import trace_id
from botplatform.errors import StoreError
from botplatform.store.postgres_rows import as_id, as_text
from botplatform.store.retention import SHORT_LIVED

__all__ = ["BEGINNINGS", "INSERT", "LAST", "lookup_query", "prefix_query", "replay_query", "row_of"]

BEGINNINGS: Final = ("id", "correlation_id", "order_id", "trade_id")
"""Columns of which a beginning is enough to find an event."""
LAST: Final = "\U0010ffff"
"""Behind every character that an id has: what lies between a text and it with this begins with the text."""
ROW_BYTES: Final = 480
"""What an event takes beside its body and its ids, with its places in the indexes; measured."""
_COLUMNS: Final = "position, sequence, body"
_ROW: Final = (
    *(
        "sequence",
        "id",
        "type",
        "key",
        "correlation_id",
        "trace_id",
        "causation_id",
        "source",
        "timestamp_ns",
        "order_id",
    ),
    *("trade_id", "short_lived", "age_from_ns", "size", "body"),
)
# Positions are given by hand, which is safe where one writes at a time: a sequence of the server's would have gaps.
INSERT: Final = f"""
    INSERT INTO events (position, {", ".join(_ROW)})
    SELECT (SELECT coalesce(max(position), 0) FROM events) + given.place, {", ".join(f"given.{name}" for name in _ROW)}
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::bigint[], %s::text[], %s::text[], %s::boolean[], %s::bigint[], %s::integer[], %b::bytea[])
        WITH ORDINALITY AS given ({", ".join(_ROW)}, place)
    ORDER BY given.place ON CONFLICT (id) DO NOTHING RETURNING id, size
"""  # noqa: S608  # constants only
"""Takes one list for each column; returns the ids and sizes of those that are new."""


def lookup_query(column: str) -> str:
    """Return the statement that finds events by an indexed column, first to last."""
    some = f" AND {column} <> ''" if column == "causation_id" else ""  # as its index has it, or that is not used
    return f"SELECT {_COLUMNS} FROM events WHERE {column} = %s{some} ORDER BY position LIMIT %s"  # noqa: S608  # columns only


def prefix_query(column: str) -> str:
    """Return the statement that finds the first event of each id between two, by an indexed column."""
    return (
        f"SELECT {_COLUMNS} FROM events WHERE position IN (SELECT min(position) FROM events "  # noqa: S608  # columns only
        f"WHERE {column} >= %s AND {column} < %s GROUP BY {column} ORDER BY {column} LIMIT %s)"
    )


def replay_query(types: int) -> str:
    """Return the statement that reads one page of so many types; of all, when it is as many as there are.

    The types are merged, each from its index: nothing is sorted, and no other type is read.
    """
    span = "position > %s AND position <= %s"
    if types == len(CATALOGUE):
        return f"SELECT {_COLUMNS} FROM events WHERE {span} ORDER BY position LIMIT %s"  # noqa: S608  # constants
    one = f"SELECT {_COLUMNS} FROM events WHERE type = %s AND {span}"  # noqa: S608  # constants only
    return f"{' UNION ALL '.join([one] * types)} ORDER BY position LIMIT %s"


def row_of(event: Event, sequence: int | None) -> tuple[Any, ...]:
    """Return what `INSERT` takes of an event; raise `StoreError` for one that cannot be written."""
    payload = event.payload
    order = payload if type(payload) is OrderEvent else None
    trace = trace_id(event.correlation_id or event.id)
    try:
        body = to_wire(event)
    except ValueError as e:  # text that is not Unicode, for example half of a surrogate pair
        raise StoreError(f"the event {event.type} {event.id!r} cannot be written to the event store: {e}") from e
    ids = len(event.id) + len(event.correlation_id) + len(event.causation_id)
    return (
        sequence,
        event.id,
        event.type,
        event.key,
        as_text(event.correlation_id),
        None if trace == event.correlation_id else trace,
        as_text(event.causation_id),
        as_text(event.source),
        event.timestamp_ns,
        None if order is None else as_id(order.order_id),
        None if order is None or not order.trade_id else as_id(order.trade_id),
        event.type in SHORT_LIVED,
        event.created_ns,
        len(body) + 2 * ids + ROW_BYTES,
        body,
    )

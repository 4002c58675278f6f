"""How events are written to PostgreSQL: the statement, and what it takes of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from botplatform.core.events import Event
from botplatform.store.event_row import EventRow, row_of
from botplatform.store.postgres_rows import as_id, as_text

__all__ = ["INSERT", "columns_of"]

ROW_BYTES: Final = 480
"""What an event takes beside its body and its ids, with its places in the indexes; measured."""
_NAMES: Final = (*EventRow._fields, "size")
# Positions are given by hand, which is safe where one writes at a time: a sequence of the server's would have gaps.
INSERT: Final = f"""
    INSERT INTO events (position, {", ".join(_NAMES)})
    SELECT (SELECT coalesce(max(position), 0) FROM events) + given.place, {", ".join(f"given.{name}" for name in _NAMES)}
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::bigint[], %s::text[], %s::text[], %s::boolean[], %s::bigint[], %b::bytea[], %s::integer[])
        WITH ORDINALITY AS given ({", ".join(_NAMES)}, place)
    ORDER BY given.place ON CONFLICT (id) DO NOTHING RETURNING id, size
"""  # noqa: S608  # constants only
"""Takes `columns_of` events; returns the ids and sizes of those that are new."""


def columns_of(given: Sequence[tuple[Event, int | None]]) -> list[list[Any]]:
    """Return what `INSERT` takes: one list for each column. Raises `StoreError` for an event that cannot be written."""
    rows = [_sized(row_of(event, sequence)) for event, sequence in given]
    return [list(column) for column in zip(*rows, strict=True)]


def _sized(row: EventRow) -> tuple[Any, ...]:
    """Return a row with texts that PostgreSQL can hold, and about how many bytes it takes there."""
    ids = len(row.id) + len(row.correlation_id) + len(row.causation_id)
    held = row._replace(
        correlation_id=as_text(row.correlation_id),
        causation_id=as_text(row.causation_id),
        source=as_text(row.source),
        order_id=None if row.order_id is None else as_id(row.order_id),
        trade_id=None if row.trade_id is None else as_id(row.trade_id),
    )
    return (*held, len(row.body) + 2 * ids + ROW_BYTES)

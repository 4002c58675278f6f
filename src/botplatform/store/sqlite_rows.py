"""What retention and the journal do to the rows of a SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from botplatform.store.journal import FILL_COLUMNS, ORDER_COLUMNS, FillKey

__all__ = ["LASTING_QUERY", "SHORT_QUERY", "SqliteRows"]

# The newest row is never deleted: its position must not be given twice, and the log is continued from its sequence.
_NOT_NEWEST: Final = (
    "e.position <> (SELECT max(position) FROM events) AND "
    "e.sequence IS NOT (SELECT max(sequence) FROM events WHERE sequence IS NOT NULL)"
)
SHORT_QUERY: Final = f"""
    SELECT e.position,
        EXISTS (SELECT 1 FROM events AS l WHERE l.short_lived = 0 AND l.correlation_id <> ''
            AND l.correlation_id = CASE e.correlation_id WHEN '' THEN e.id ELSE e.correlation_id END)
        OR EXISTS (SELECT 1 FROM events AS l WHERE l.short_lived = 0 AND l.causation_id <> '' AND l.causation_id = e.id)
    FROM events AS e
    WHERE e.short_lived = 1 AND e.age_from_ns < ? AND {_NOT_NEWEST}
    ORDER BY e.age_from_ns LIMIT ?
"""  # noqa: S608  # constants only
"""Finds the oldest short-lived events: place, and whether anything lasting is in their chain or came of them."""
LASTING_QUERY: Final = f"""
    SELECT e.position, e.order_id,
        EXISTS (SELECT 1 FROM orders AS o WHERE o.is_open AND o.correlation_id = e.correlation_id),
        (SELECT max(l.age_from_ns) FROM events AS l WHERE l.short_lived = 0 AND l.correlation_id <> ''
            AND l.correlation_id = e.correlation_id)
    FROM events AS e
    WHERE e.short_lived = 0 AND e.age_from_ns < ? AND {_NOT_NEWEST}
    ORDER BY e.age_from_ns LIMIT ?
"""  # noqa: S608  # constants only
"""Finds the oldest lasting events: place, order, whether an order of the chain is open, and the chain's newest."""
_UPSERT_ORDER: Final = (
    f"INSERT INTO orders ({', '.join(ORDER_COLUMNS)}) VALUES ({', '.join('?' * len(ORDER_COLUMNS))}) "  # noqa: S608  # constants only
    f"ON CONFLICT (order_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in ORDER_COLUMNS[1:])}"
)
_INSERT_FILL: Final = (
    f"INSERT OR IGNORE INTO fills ({', '.join(FILL_COLUMNS)}) "  # noqa: S608  # constants only
    f"VALUES ({', '.join('?' * len(FILL_COLUMNS))})"
)


class SqliteRows:
    """The rows of a SQLite store, inside a transaction of the caller's.

    Pages that are freed are taken again, but the file does not shrink (`auto_vacuum` is off): moving pages about costs
    more than it gives to a file that will need them again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def used_bytes(self) -> int:
        """Return the bytes of the file that are in use, without free pages."""
        pages, free, size = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def prune_short(self, before_ns: int, limit: int) -> int:
        """Delete the oldest short-lived events, or mark them as lasting."""
        connection = self._connection
        found = connection.execute(SHORT_QUERY, (before_ns, limit)).fetchall()
        old = [(position,) for position, lasts in found if not lasts]
        connection.executemany("DELETE FROM events WHERE position = ?", old)
        lasting = [(position,) for position, lasts in found if lasts]
        connection.executemany("UPDATE events SET short_lived = 0 WHERE position = ?", lasting)
        return len(old)

    def prune_lasting(self, now_ns: int, keep_ns: int, limit: int) -> int:
        """Delete chains that are old as a whole, with their orders and fills."""
        connection = self._connection
        before_ns = now_ns - keep_ns
        old: list[tuple[int]] = []
        orders: set[str] = set()
        for position, order_id, is_open, newest_ns in connection.execute(LASTING_QUERY, (before_ns, limit)).fetchall():
            from_ns = now_ns if is_open else newest_ns
            if from_ns is not None and from_ns >= before_ns:
                connection.execute("UPDATE events SET age_from_ns = ? WHERE position = ?", (from_ns, position))
                continue
            old.append((position,))
            if order_id is not None:
                orders.add(order_id)
        connection.executemany("DELETE FROM events WHERE position = ?", old)
        for order_id in sorted(orders):
            if connection.execute("SELECT 1 FROM events WHERE order_id = ? LIMIT 1", (order_id,)).fetchone() is None:
                connection.execute("DELETE FROM fills WHERE order_id = ?", (order_id,))
                connection.execute("DELETE FROM orders WHERE order_id = ? AND NOT is_open", (order_id,))
        return len(old)

    def order_records(self, order_ids: Iterable[str]) -> dict[str, bytes]:
        """Return the records of the orders that are in the journal, by their ids."""
        one = "SELECT record FROM orders WHERE order_id = ?"
        found = {order_id: self._connection.execute(one, (order_id,)).fetchone() for order_id in order_ids}
        return {order_id: row[0] for order_id, row in found.items() if row is not None}

    def last_order_number(self) -> int:
        """Return the number of the newest order; 0 when there is none."""
        return int(self._connection.execute("SELECT coalesce(max(number), 0) FROM orders").fetchone()[0])

    def fill_orders(self, fills: Iterable[FillKey]) -> dict[FillKey, str]:
        """Return the ids of the orders for which executions were counted; nothing for those that were not."""
        one = "SELECT order_id FROM fills WHERE venue = ? AND symbol = ? AND trade_id = ?"
        found = {fill: self._connection.execute(one, fill).fetchone() for fill in fills}
        return {fill: row[0] for fill, row in found.items() if row is not None}

    def put(self, orders: Sequence[tuple[Any, ...]], fills: Sequence[tuple[Any, ...]]) -> None:
        """Write orders as they stand, and executions that are not there yet."""
        self._connection.executemany(_INSERT_FILL, fills)
        self._connection.executemany(_UPSERT_ORDER, orders)

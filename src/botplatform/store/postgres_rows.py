"""What retention and the journal do to the rows of a PostgreSQL store, and how values become what it can hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

from botplatform.store.journal import FILL_COLUMNS, ORDER_COLUMNS, FillKey
from botplatform.store.postgres_schema import Connection

__all__ = ["PostgresRows", "as_id", "as_text"]

LONGEST_ID: Final = 512
"""Bytes of an id that are indexed as they are, those of every event's: an index holds less than 2,700 of up to three."""
_INDEXED: Final = frozenset(("order_id", "trade_id", "venue", "symbol"))

# The newest row is never deleted: the log is continued from its sequence.
_NOT_NEWEST: Final = "e.position <> (SELECT max(position) FROM events) AND e.sequence IS DISTINCT FROM (SELECT max(sequence) FROM events)"
# Scalar queries with a limit: an EXISTS may be answered by reading all that lasts into a hash table first.
SHORT_QUERY: Final = f"""
    SELECT e.position,
        (SELECT 1 FROM events AS l WHERE NOT l.short_lived AND l.correlation_id <> ''
            AND l.correlation_id = CASE e.correlation_id WHEN '' THEN e.id ELSE e.correlation_id END LIMIT 1) IS NOT NULL
        OR (SELECT 1 FROM events AS l WHERE NOT l.short_lived AND l.causation_id <> '' AND l.causation_id = e.id
            LIMIT 1) IS NOT NULL
    FROM events AS e
    WHERE e.short_lived AND e.age_from_ns < %s AND {_NOT_NEWEST}
    ORDER BY e.age_from_ns LIMIT %s
"""  # noqa: S608  # constants only
"""Finds the oldest short-lived events: place, and whether anything lasting is in their chain or came of them."""
LASTING_QUERY: Final = f"""
    SELECT e.position, e.order_id,
        (SELECT 1 FROM orders AS o WHERE o.is_open AND o.correlation_id = e.correlation_id LIMIT 1) IS NOT NULL,
        (SELECT max(l.age_from_ns) FROM events AS l WHERE NOT l.short_lived AND l.correlation_id <> ''
            AND l.correlation_id = e.correlation_id)
    FROM events AS e
    WHERE NOT e.short_lived AND e.age_from_ns < %s AND {_NOT_NEWEST}
    ORDER BY e.age_from_ns LIMIT %s
"""  # noqa: S608  # constants only
"""Finds the oldest lasting events: place, order, whether an order of the chain is open, and the chain's newest."""
_DELETE: Final = """
    WITH gone AS (DELETE FROM events WHERE position = ANY(%s) RETURNING size)
    UPDATE store SET used_bytes = used_bytes - (SELECT coalesce(sum(size), 0) FROM gone)
"""
_UPSERT_ORDER: Final = (
    f"INSERT INTO orders (number, {', '.join(ORDER_COLUMNS)}) VALUES "  # noqa: S608  # constants only
    f"((SELECT coalesce(max(number), 0) + 1 FROM orders), {', '.join(['%s'] * len(ORDER_COLUMNS))}) "
    f"ON CONFLICT (order_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in ORDER_COLUMNS[1:])}"
)
_INSERT_FILL: Final = (
    f"INSERT INTO fills (number, {', '.join(FILL_COLUMNS)}) VALUES "  # noqa: S608  # constants only
    f"((SELECT coalesce(max(number), 0) + 1 FROM fills), {', '.join(['%s'] * len(FILL_COLUMNS))}) "
    "ON CONFLICT (venue, symbol, trade_id) DO NOTHING"
)
_FILL_ORDERS: Final = """
    SELECT venue, symbol, trade_id, order_id FROM fills
    WHERE (venue, symbol, trade_id) IN (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]))
"""


class PostgresRows:
    """The rows of a PostgreSQL store, inside a transaction of the caller's."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def _all(self, query: str, *bound: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), bound).fetchall()

    def used_bytes(self) -> int:
        """Return about how many bytes the events take, with their indexes, without what was freed."""
        return int(self._all("SELECT used_bytes FROM store")[0][0])

    def prune_short(self, before_ns: int, limit: int) -> int:
        """Delete the oldest short-lived events, or mark them as lasting."""
        found = self._all(SHORT_QUERY, before_ns, limit)
        lasting = [position for position, lasts in found if lasts]
        if lasting:
            self.connection.execute("UPDATE events SET short_lived = false WHERE position = ANY(%s)", (lasting,))
        return self._delete([position for position, lasts in found if not lasts])

    def prune_lasting(self, now_ns: int, keep_ns: int, limit: int) -> int:
        """Delete chains that are old as a whole, with their orders and fills."""
        before_ns = now_ns - keep_ns
        old: list[int] = []
        orders: set[str] = set()
        for position, order_id, is_open, newest_ns in self._all(LASTING_QUERY, before_ns, limit):
            from_ns = now_ns if is_open else newest_ns
            if from_ns is not None and from_ns >= before_ns:
                self.connection.execute("UPDATE events SET age_from_ns = %s WHERE position = %s", (from_ns, position))
                continue
            old.append(position)
            if order_id is not None:
                orders.add(order_id)
        deleted = self._delete(old)
        if orders:
            self._forget(sorted(orders))
        return deleted

    def _delete(self, positions: list[int]) -> int:
        if positions:
            self.connection.execute(_DELETE, (positions,))
        return len(positions)

    def _forget(self, orders: list[str]) -> None:
        """Take orders out of the journal of which no event is left."""
        left = {row[0] for row in self._all("SELECT DISTINCT order_id FROM events WHERE order_id = ANY(%s)", orders)}
        gone = [order_id for order_id in orders if order_id not in left]
        self.connection.execute("DELETE FROM fills WHERE order_id = ANY(%s)", (gone,))
        self.connection.execute("DELETE FROM orders WHERE order_id = ANY(%s) AND NOT is_open", (gone,))

    def order_records(self, order_ids: Iterable[str]) -> dict[str, bytes]:
        """Return the records of the orders that are in the journal, by their ids."""
        wanted = [as_id(each) for each in order_ids]
        return dict(self._all("SELECT order_id, record FROM orders WHERE order_id = ANY(%s)", wanted))

    def last_order_number(self) -> int:
        """Return the number of the newest order; 0 when there is none."""
        return int(self._all("SELECT coalesce(max(number), 0) FROM orders")[0][0])

    def fill_orders(self, fills: Iterable[FillKey]) -> dict[FillKey, str]:
        """Return the ids of the orders for which executions were counted; nothing for those that were not."""
        asked = {(as_id(venue), as_id(symbol), as_id(trade)): (venue, symbol, trade) for venue, symbol, trade in fills}
        if not asked:
            return {}
        found = self._all(_FILL_ORDERS, *(list(column) for column in zip(*asked, strict=True)))
        return {asked[row[0], row[1], row[2]]: row[3] for row in found}

    def put(self, orders: Sequence[tuple[Any, ...]], fills: Sequence[tuple[Any, ...]]) -> None:
        """Write orders as they stand, and executions that are not there yet."""
        with self.connection.cursor() as cursor:
            if fills:
                cursor.executemany(_INSERT_FILL.encode(), [_row(FILL_COLUMNS, fill) for fill in fills])
            if orders:
                cursor.executemany(_UPSERT_ORDER.encode(), [_row(ORDER_COLUMNS, order) for order in orders])


def _row(names: Sequence[str], values: tuple[Any, ...]) -> list[Any]:
    return [
        as_id(value) if name in _INDEXED else as_text(value) if isinstance(value, str) else value
        for name, value in zip(names, values, strict=True)
    ]


def as_text(value: str) -> str:
    """Return a text without what PostgreSQL's texts cannot hold: U+FFFD stands for U+0000, ? for half a surrogate pair."""
    text = str.replace(value, "\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode(errors="replace").decode()


def as_id(value: str) -> str:
    """Return an id as it is indexed: of one that is very long, the beginning and a hash."""
    text = as_text(value)
    data = text.encode()
    return text if len(data) <= LONGEST_ID else data[:LONGEST_ID].decode(errors="ignore") + sha256(data).hexdigest()

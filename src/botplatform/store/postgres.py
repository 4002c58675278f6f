"""The event store in a PostgreSQL database.

Writes go through one connection, one transaction per batch; a batch that may or may not have been written is written
again, and what is there counts once. Writers of one database wait for each other, so that what was written first has
the lower position, and a reader who goes on behind a position misses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, Final, Self

import msgspec
import psycopg

from botplatform.core.database_url import without_password
from botplatform.core.event_bus import check_pattern, matches
from botplatform.core.events import CATALOGUE, Event, OrderEvent, from_wire
from botplatform.core.seam import Clock
from botplatform.core.trace_id import as_trace_id
from botplatform.errors import InvalidEvent, StoreAway, StoreError
from botplatform.store import journal
from botplatform.store.event_store import StoredEvent, StoredFill
from botplatform.store.postgres_queries import (
    BEGINNINGS,
    INSERT,
    LAST,
    lookup_query,
    prefix_query,
    replay_query,
    row_of,
)
from botplatform.store.postgres_rows import PostgresRows, as_id, as_text
from botplatform.store.postgres_schema import Connection, connect, explained, prepare
from botplatform.store.retention import Keeper, Retention, StoreMeter
from botplatform.trading.orders import OrderRecord

__all__ = ["PostgresEventStore"]

PAGE: Final = 1_000
"""Rows in memory at once while reading."""
logger = logging.getLogger(__name__)


class PostgresEventStore:
    """Events, orders and fills in the PostgreSQL database at `url`, in tables of its own that are made at the first use.

    `read_only` looks up what is there and makes nothing. It connects when it is first used, and again whenever the
    connection was lost; a call then raises `StoreAway`, and may be repeated. What was written survives a crash of the
    server. Safe to use from any thread.

    With a `retention`, which needs a `clock`, what is too old is deleted behind each batch; without, all is kept. Its
    largest size is that of the events in use, with their indexes: about what the database takes before anything was deleted.
    """

    def __init__(self, url: str, *, read_only: bool = False, retention: tuple[Retention, Clock] | None = None) -> None:
        self.where = without_password(url)
        self._url = url
        self._read_only = read_only
        self._keeper = None if retention is None or read_only else Keeper(retention[0], self.where)
        self._clock = None if retention is None else retention[1]
        self._lock = RLock()
        self._connection: Connection | None = None
        self._closed = False
        self._kept = 0
        """The largest sequence that was written through this object: it must still be there after a reconnection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect now, make the tables or bring them up to date; raise `StoreError` when that cannot be."""
        with self._lock:
            self._connected()

    def _connected(self) -> Connection:
        """Return the connection; called under the lock."""
        if self._closed:
            raise StoreError(f"the event store {self.where} is closed: nothing can be read or written any more")
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = connect(self._url)
        try:
            prepare(connection, self.where, read_only=self._read_only)
            self._check_kept(connection)
            if self._keeper is not None:
                with explained(self.where, "measure"):
                    self._keeper.measured(PostgresRows(connection).used_bytes())
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _check_kept(self, connection: Connection) -> None:
        """Refuse to go on in a database that has lost what was written: it is read from the log again at a new start."""
        if not self._kept:
            return
        with explained(self.where, "read"):
            row = connection.execute("SELECT coalesce(max(sequence), 0) FROM events").fetchone()
        if row is None or row[0] < self._kept:
            raise StoreError(
                f"the database {self.where} has lost events that it had stored, after {row[0] if row else 0} of "
                f"{self._kept}, as one that is a copy may: start storage again, and it reads them from the log"
            )

    @contextmanager
    def _used(self, doing: str) -> Iterator[Connection]:
        """Hold the lock and the connection, which is let go of when it was lost."""
        with self._lock:
            connection = self._connected()
            try:
                with explained(self.where, doing):
                    yield connection
            except StoreAway:
                self._connection = None
                with suppress(psycopg.Error):
                    connection.close()
                raise

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[PostgresRows]:
        """Hold the lock and a transaction that no other writer is in; it is undone when anything is raised."""
        if self._read_only:
            raise StoreError(f"cannot {doing} the event store {self.where}: it can only be read here")
        with self._used(doing) as connection, connection.transaction():
            connection.execute("SELECT used_bytes FROM store FOR UPDATE")
            yield PostgresRows(connection)

    def append(self, events: Iterable[tuple[Event, int | None]]) -> int:
        """Keep events with their sequence in the log, all or none; return how many were new.

        A store with a largest size leaves ticks out while it is full.
        """
        everything = list(events)
        with self._lock:
            self._connected()  # what is left out depends on the size, which is known from here on
            given = everything if self._keeper is None else self._keeper.admit(everything)
            added = self._insert(given) if given else 0
        if everything and self._keeper is not None and self._clock is not None:
            self._keeper.meter.left_out += len(everything) - len(given)
            # The newest of what came, so that nothing goes early when the log is caught up with; but no clock that is fast.
            now_ns = min(self._clock.now_ns(), max(event.created_ns for event, _ in everything))
            self._prune(self._keeper, now_ns, len(everything))
        return added

    def _insert(self, given: Sequence[tuple[Event, int | None]]) -> int:
        columns = [list(column) for column in zip(*(row_of(event, sequence) for event, sequence in given), strict=True)]
        with self._transaction("write") as rows:
            new: dict[str, int] = dict(rows.connection.execute(INSERT.encode(), columns).fetchall())
            orders = {event.id: event for event, _ in reversed(given) if type(event.payload) is OrderEvent}
            unseen = [event for event, _ in given if event.id in new and orders.pop(event.id, None) is not None]
            if unseen:
                journal.write(rows, unseen)
            rows.connection.execute("UPDATE store SET used_bytes = used_bytes + %s", (sum(new.values()),))
        self._kept = max(self._kept, *(sequence or 0 for event, sequence in given if event.id in new), 0)
        return len(new)

    def _prune(self, keeper: Keeper, now_ns: int, written: int) -> None:
        """Delete some of what is too old; the next batch does it when the database is away."""
        try:
            with self._transaction("prune") as rows:
                keeper.prune(rows, now_ns, written)
                used = rows.used_bytes()
        except StoreAway:
            return
        keeper.measured(used)

    @property
    def meter(self) -> StoreMeter | None:
        """What was counted for the retention; None for a store that keeps everything."""
        return None if self._keeper is None else self._keeper.meter

    def read(
        self, patterns: Iterable[str] = ("*",), *, after: int = 0, until: int | None = None, limit: int | None = None
    ) -> Iterator[StoredEvent]:
        """Replay the events of the patterns behind position `after`, up to and with `until`, `limit` at most.

        A pattern that can match nothing raises `InvalidEvent`, at once.
        """
        wanted = [check_pattern(pattern) for pattern in patterns]
        types = [known for known in CATALOGUE if any(matches(pattern, known) for pattern in wanted)]
        return self._read(types, after, 2**63 - 1 if until is None else until, limit) if types else iter(())

    def _read(self, types: list[str], after: int, until: int, limit: int | None) -> Iterator[StoredEvent]:
        query, left = replay_query(len(types)), limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            named = types if len(types) < len(CATALOGUE) else [None]
            bound = [each for kind in named for each in ([] if kind is None else [kind]) + [after, until]]
            page = self._events(query, [*bound, size])
            yield from page
            if len(page) < size:
                return
            after = page[-1].position
            left = None if left is None else left - len(page)

    def by_id(self, event_id: str) -> StoredEvent | None:
        """Find an event; None when it is not there."""
        found = self._where("id", event_id, 1)
        return found[0] if found else None

    def by_correlation_id(self, correlation_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find all events of a chain, first to last, `limit` at most."""
        return self._where("correlation_id", correlation_id, limit)

    def by_order_id(self, order_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find the life of an order, first to last, `limit` at most."""
        return self._where("order_id", order_id, limit)

    def by_trade_id(self, trade_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find the events that report an execution, first to last, `limit` at most."""
        return self._where("trade_id", trade_id, limit)

    def by_trace_id(self, trace_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find all events whose chain has that OpenTelemetry trace id, first to last, `limit` at most."""
        wanted = as_trace_id(trace_id)
        found = self._where("trace_id", wanted, limit) + self._where("correlation_id", wanted, limit) if wanted else []
        return sorted(found, key=lambda each: each.position)[:limit]

    def by_causation_id(self, event_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find what came of an event directly, in whatever chain, first to last, `limit` at most."""
        return self._where("causation_id", event_id, limit) if event_id else []

    def beginning_with(self, start: str, *, limit: int = 10) -> list[StoredEvent]:
        """Find one event for each id, correlation id, order id and trade id that begins with a text."""
        begin, found = as_text(start), dict[int, StoredEvent]()
        for column in BEGINNINGS:
            for each in self._events(prefix_query(column), [begin, begin + LAST, limit]):
                found[each.position] = each
        return [found[position] for position in sorted(found)]

    def _where(self, column: str, value: str, limit: int) -> list[StoredEvent]:
        return self._events(lookup_query(column), [as_id(value), limit])

    def _events(self, query: str, bound: Sequence[Any]) -> list[StoredEvent]:
        return [self._decode(row) for row in self._rows(query, bound)]

    def _decode(self, row: tuple[Any, ...]) -> StoredEvent:
        position, sequence, body = row
        try:
            return StoredEvent(from_wire(body), sequence, position)
        except InvalidEvent as e:
            raise StoreError(f"the event at position {position} of the event store {self.where} is damaged: {e}") from e

    def _rows(self, query: str, bound: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._used("read") as connection:
            return connection.execute(query.encode(), bound).fetchall()

    def last_position(self) -> int:
        """Return the position of the newest event; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(position), 0) FROM events")[0][0])

    def last_sequence(self) -> int:
        """Return the largest sequence in the log that was written; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(sequence), 0) FROM events")[0][0])

    def order(self, order_id: str) -> OrderRecord | None:
        """Return an order as it stands; None when it is not in the journal."""
        rows = self._rows("SELECT record FROM orders WHERE order_id = %s", [as_id(order_id)])
        return self._order(rows[0][0]) if rows else None

    def orders(self, *, symbol: str | None = None, open_only: bool = False) -> Iterator[OrderRecord]:
        """List the journal of orders as they stand, oldest first."""
        flag = "is_open" if open_only else ""
        for row in self._journal(
            "number, record", "orders", {"symbol": None if symbol is None else as_id(symbol)}, flag
        ):
            yield self._order(row[1])

    def _order(self, record: bytes) -> OrderRecord:
        try:
            return journal.decode_order(record)
        except msgspec.MsgspecError as e:
            raise StoreError(f"an order in the event store {self.where} is damaged: {e}") from e

    def fills(self, *, symbol: str | None = None, order_id: str | None = None) -> Iterator[StoredFill]:
        """List the trade journal, in the order in which the executions were counted."""
        given = {"symbol": symbol, "order_id": order_id}
        wanted = {column: None if value is None else as_id(value) for column, value in given.items()}
        for row in self._journal(f"number, {', '.join(journal.FILL_COLUMNS)}", "fills", wanted):
            yield journal.fill_of_row(row[1:])

    def _journal(
        self, columns: str, table: str, wanted: Mapping[str, str | None], flag: str = ""
    ) -> Iterator[tuple[Any, ...]]:
        """Read a table of the journal by pages: no read lasts longer than one of them."""
        bound = {column: value for column, value in wanted.items() if value is not None}
        conditions = ["number > %s", *(f"{column} = %s" for column in bound), *([flag] if flag else [])]
        query = f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)} ORDER BY number LIMIT {PAGE}"  # noqa: S608  # constants only
        after = 0
        while page := self._rows(query, [after, *bound.values()]):
            yield from page
            after = page[-1][0]

    def close(self) -> None:
        """Let go of the connection; more than once is fine. Calls after it raise `StoreError`."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

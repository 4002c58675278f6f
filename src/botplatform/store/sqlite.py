"""The event store in one SQLite file.

Writes go through one connection, one transaction per batch. Readers, in this process or another, never wait for
the writer, nor it for them (write-ahead log).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, Self

import msgspec

from botplatform.core.event_bus import check_pattern, matches
from botplatform.core.events import CATALOGUE, Event, OrderEvent, from_wire, to_wire
from botplatform.core.seam import Clock
from botplatform.core.trace_id import as_trace_id, trace_id
from botplatform.errors import InvalidEvent, StoreBusy, StoreError
from botplatform.store import journal
from botplatform.store.event_store import StoredEvent, StoredFill
from botplatform.store.retention import SHORT_LIVED, Keeper, Retention, StoreMeter
from botplatform.store.schema import connect, explained
from botplatform.store.sqlite_rows import SqliteRows
from botplatform.trading.orders import OrderRecord

__all__ = ["SqliteEventStore"]

PAGE: Final = 1_000
"""Rows in memory at once while reading."""
BEGINNINGS: Final = ("id", "correlation_id", "order_id", "trade_id")
"""Columns of which a beginning is enough to find an event."""
LAST: Final = "\U0010ffff"
"""Behind every character that an id has: what lies between a text and it with this begins with the text."""
_IDS_AT_ONCE: Final = 500  # bound variables of one statement
_COLUMNS: Final = "position, sequence, body"
_INSERT: Final = (
    "INSERT OR IGNORE INTO events (sequence, id, type, key, correlation_id, trace_id, causation_id, source, "
    "timestamp_ns, order_id, trade_id, short_lived, age_from_ns, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class SqliteEventStore:
    """Events, orders and fills in the SQLite file at `path`, which is made when it is not there.

    `read_only` opens an existing file for lookups. `busy_timeout_s` is how long a call waits for another process.
    What was written survives a crash of the process; with `fsync`, of the machine too, at one disk flush per
    batch. Raises `StoreError` when the file cannot be opened or is something else. Safe to use from any thread.

    With a `retention`, which needs a `clock`, what is too old is deleted behind each batch; without, all is kept.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        read_only: bool = False,
        busy_timeout_s: float = 5.0,
        fsync: bool = False,
        retention: tuple[Retention, Clock] | None = None,
    ) -> None:
        self.path = str(path)
        self._keeper = None if retention is None or read_only else Keeper(retention[0], self.path)
        self._clock = None if retention is None else retention[1]
        self._lock = RLock()
        self._connection = connect(path, read_only=read_only, busy_timeout_s=busy_timeout_s, fsync=fsync)
        self._rows_of = SqliteRows(self._connection)
        if self._keeper is not None:
            with explained(self.path, "measure"):
                self._keeper.measured(self._rows_of.used_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def where(self) -> str:
        """The path of the file."""
        return self.path

    def connect(self) -> None:
        """Do nothing: the file is open."""

    def append(self, events: Iterable[tuple[Event, int | None]]) -> int:
        """Keep events with their sequence in the log, all or none; return how many were new.

        A store with a largest size leaves ticks out while it is full.
        """
        everything = list(events)
        given = everything if self._keeper is None else self._keeper.admit(everything)
        rows = [_row(event, sequence) for event, sequence in given]
        order_events = [event for event, _ in given if type(event.payload) is OrderEvent]
        with self._transaction("write") as connection:
            new_order_events = self._new(order_events)
            before = connection.total_changes
            connection.executemany(_INSERT, rows)
            added = connection.total_changes - before
            if new_order_events:
                journal.write(self._rows_of, new_order_events)
        if everything and self._keeper is not None and self._clock is not None:
            self._keeper.meter.left_out += len(everything) - len(given)
            # The newest of what came, so that nothing goes early when the log is caught up with; but no clock that is fast.
            now_ns = min(self._clock.now_ns(), max(event.created_ns for event, _ in everything))
            self._prune(self._keeper, now_ns, len(everything))
        return added

    def _prune(self, keeper: Keeper, now_ns: int, written: int) -> None:
        """Delete some of what is too old; the next batch does it when another process is in the way."""
        try:
            with self._transaction("prune"):
                keeper.prune(self._rows_of, now_ns, written)
        except StoreBusy:
            return
        with self._lock, explained(self.path, "measure"):
            keeper.measured(self._rows_of.used_bytes())

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        """Hold the lock and a transaction, which is undone when anything is raised."""
        with self._lock, explained(self.path, doing):
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @property
    def meter(self) -> StoreMeter | None:
        """What was counted for the retention; None for a store that keeps everything."""
        return None if self._keeper is None else self._keeper.meter

    def _new(self, events: Sequence[Event]) -> list[Event]:
        """Return those that are not in the store yet, each once."""
        by_id: dict[str, Event] = {}
        for event in events:
            by_id.setdefault(event.id, event)
        ids = list(by_id)
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[start : start + _IDS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            for (known,) in self._connection.execute(f"SELECT id FROM events WHERE id IN ({marks})", some):  # noqa: S608  # marks only
                del by_id[known]
        return list(by_id.values())

    def read(
        self, patterns: Iterable[str] = ("*",), *, after: int = 0, until: int | None = None, limit: int | None = None
    ) -> Iterator[StoredEvent]:
        """Replay the events of the patterns behind position `after`, up to and with `until`, `limit` at most.

        A pattern that can match nothing raises `InvalidEvent`, at once.
        """
        wanted = [check_pattern(pattern) for pattern in patterns]
        if not wanted:
            return iter(())
        query, types = replay_query(wanted)
        return self._read(query, types, after, 2**63 - 1 if until is None else until, limit)

    def _read(self, query: str, types: list[str], after: int, until: int, limit: int | None) -> Iterator[StoredEvent]:
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            bound: list[Any] = []
            for event_type in types:
                bound += [event_type, after, until]
            page = self._events(query, [*(bound or [after, until]), size])
            yield from page
            if len(page) < size:
                return
            after = page[-1].position
            left = None if left is None else left - len(page)

    def by_id(self, event_id: str) -> StoredEvent | None:
        """Find an event; None when it is not there."""
        found = self._events(f"SELECT {_COLUMNS} FROM events WHERE id = ?", [event_id])  # noqa: S608  # constants only
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
        found: dict[int, StoredEvent] = {}
        for column in BEGINNINGS:
            for each in self._events(prefix_query(column), [start, start + LAST, limit]):
                found[each.position] = each
        return [found[position] for position in sorted(found)]

    def _where(self, column: str, value: str, limit: int) -> list[StoredEvent]:
        return self._events(lookup_query(column), [value, limit])

    def _events(self, query: str, bound: Sequence[Any]) -> list[StoredEvent]:
        return [self._decode(row) for row in self._rows(query, bound)]

    def _decode(self, row: tuple[int, int | None, bytes]) -> StoredEvent:
        position, sequence, body = row
        try:
            return StoredEvent(from_wire(body), sequence, position)
        except InvalidEvent as e:
            raise StoreError(f"the event at position {position} of the event store {self.path} is damaged: {e}") from e

    def _rows(self, query: str, bound: Sequence[Any] = ()) -> list[Any]:
        with self._lock, explained(self.path, "read"):
            return self._connection.execute(query, bound).fetchall()

    def last_position(self) -> int:
        """Return the position of the newest event; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(position), 0) FROM events")[0][0])

    def last_sequence(self) -> int:
        """Return the largest sequence in the log that was written; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(sequence), 0) FROM events WHERE sequence IS NOT NULL")[0][0])

    def order(self, order_id: str) -> OrderRecord | None:
        """Return an order as it stands; None when it is not in the journal."""
        rows = self._rows("SELECT record FROM orders WHERE order_id = ?", [order_id])
        return self._order(rows[0][0]) if rows else None

    def orders(self, *, symbol: str | None = None, open_only: bool = False) -> Iterator[OrderRecord]:
        """List the journal of orders as they stand, oldest first."""
        flag = "is_open" if open_only else ""
        for row in self._journal("number, record", "orders", {"symbol": symbol}, flag):
            yield self._order(row[1])

    def _order(self, record: bytes) -> OrderRecord:
        try:
            return journal.decode_order(record)
        except msgspec.MsgspecError as e:
            raise StoreError(f"an order in the event store {self.path} is damaged: {e}") from e

    def fills(self, *, symbol: str | None = None, order_id: str | None = None) -> Iterator[StoredFill]:
        """List the trade journal, in the order in which the executions were counted."""
        wanted = {"symbol": symbol, "order_id": order_id}
        for row in self._journal(f"number, {', '.join(journal.FILL_COLUMNS)}", "fills", wanted):
            yield journal.fill_of_row(row[1:])

    def _journal(
        self, columns: str, table: str, wanted: Mapping[str, str | None], flag: str = ""
    ) -> Iterator[tuple[Any, ...]]:
        """Read a table of the journal by pages: no read lasts longer than one of them."""
        bound = {column: value for column, value in wanted.items() if value is not None}
        conditions = ["number > ?", *(f"{column} = ?" for column in bound), *([flag] if flag else [])]
        query = f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)} ORDER BY number LIMIT {PAGE}"  # noqa: S608  # constants only
        after = 0
        while page := self._rows(query, [after, *bound.values()]):
            yield from page
            after = page[-1][0]

    def close(self) -> None:
        """Let go of the file; more than once is fine. Calls after it raise `StoreError`."""
        with self._lock, explained(self.path, "close"):
            self._connection.close()


def lookup_query(column: str) -> str:
    """Return the statement that finds events by an indexed column, first to last."""
    some = f" AND {column} <> ''" if column == "causation_id" else ""  # as its index has it, or that is not used
    return f"SELECT {_COLUMNS} FROM events WHERE {column} = ?{some} ORDER BY position LIMIT ?"  # noqa: S608  # columns only


def prefix_query(column: str) -> str:
    """Return the statement that finds the first event of each id between two, by an indexed column."""
    return (
        f"SELECT {_COLUMNS} FROM events WHERE position IN "  # noqa: S608  # columns only
        f"(SELECT min(position) FROM events WHERE {column} >= ? AND {column} < ? GROUP BY {column} LIMIT ?)"
    )


def replay_query(patterns: list[str]) -> tuple[str, list[str]]:
    """Return the statement that reads one page, and the types to bind; none when all types are wanted.

    The types are merged, each from its index: nothing is sorted, and no other type is read.
    """
    types = [known for known in CATALOGUE if any(matches(pattern, known) for pattern in patterns)]
    span = "position > ? AND position <= ?"
    if len(types) == len(CATALOGUE):
        return f"SELECT {_COLUMNS} FROM events WHERE {span} ORDER BY position LIMIT ?", []  # noqa: S608  # constants
    one = f"SELECT {_COLUMNS} FROM events WHERE type = ? AND {span}"  # noqa: S608  # constants only
    return f"{' UNION ALL '.join([one] * len(types))} ORDER BY position LIMIT ?", types


def _row(event: Event, sequence: int | None) -> tuple[Any, ...]:
    payload = event.payload
    order = payload if type(payload) is OrderEvent else None
    trace = trace_id(event.correlation_id or event.id)
    try:
        body = to_wire(event)
    except ValueError as e:  # text that is not Unicode, for example half of a surrogate pair
        raise StoreError(f"the event {event.type} {event.id!r} cannot be written to the event store: {e}") from e
    return (
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

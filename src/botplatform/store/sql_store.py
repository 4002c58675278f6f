"""What the event stores do alike, whichever database they are in: look up, replay, and keep to the retention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import RLock
from typing import Any, ClassVar, Final, Self

import msgspec

from botplatform.core.events import CATALOGUE, Event, from_wire
from botplatform.core.patterns import check_pattern, matches
from botplatform.core.seam import Clock
from botplatform.core.trace_id import as_trace_id
from botplatform.errors import InvalidEvent, StoreError
from botplatform.store import journal
from botplatform.store.event_store import StoredEvent, StoredFill
from botplatform.store.queries import BEGINNINGS, LAST, lookup_query, prefix_query, replay_query
from botplatform.store.retention import Keeper, Retention, StoreMeter
from botplatform.trading.orders import OrderRecord

__all__ = ["PAGE", "SqlStore"]

PAGE: Final = 1_000
"""Rows in memory at once while reading."""


class SqlStore(ABC):
    """An event store in an SQL database; each kind of database adds how it is connected to, written and asked.

    `where` says where it is, for people. With a `retention`, which needs a `clock`, what is too old is deleted behind
    each batch; without, or with `read_only`, nothing is.
    """

    mark: ClassVar[str]
    """What stands for a value in a statement."""

    def __init__(self, where: str, *, read_only: bool, retention: tuple[Retention, Clock] | None) -> None:
        self.where = where
        self._keeper = None if retention is None or read_only else Keeper(retention[0], where)
        self._clock = None if retention is None else retention[1]
        self._lock = RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def connect(self) -> None:
        """Connect to the database, where that is not done yet."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database; more than once is fine. Calls after it raise `StoreError`."""

    @abstractmethod
    def _rows(self, query: str, bound: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query; raise `StoreError` when that cannot be."""

    @abstractmethod
    def _insert(self, given: Sequence[tuple[Event, int | None]]) -> int:
        """Write events with their sequence, and the journal, in one transaction; return how many were new."""

    @abstractmethod
    def _prune(self, keeper: Keeper, now_ns: int, written: int) -> None:
        """Delete some of what is too old; the next batch does it when that cannot be now."""

    def _id(self, value: str) -> str:
        """Return an id as the database indexes it."""
        return value

    def append(self, events: Iterable[tuple[Event, int | None]]) -> int:
        """Keep events with their sequence in the log, all or none; return how many were new.

        A store with a largest size leaves ticks out while it is full.
        """
        everything = list(events)
        with self._lock:
            self.connect()  # what is left out depends on the size, which is known from here on
            given = everything if self._keeper is None else self._keeper.admit(everything)
            added = self._insert(given) if given else 0
        if everything and self._keeper is not None and self._clock is not None:
            self._keeper.meter.left_out += len(everything) - len(given)
            # The newest of what came, so that nothing goes early when the log is caught up with; but no clock that is fast.
            now_ns = min(self._clock.now_ns(), max(event.created_ns for event, _ in everything))
            self._prune(self._keeper, now_ns, len(everything))
        return added

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
        query, left = replay_query(len(types), self.mark), limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            bound: list[Any] = [after, until]
            if len(types) < len(CATALOGUE):
                bound = [part for known in types for part in (known, after, until)]
            page = self._events(query, [*bound, size])
            yield from page
            if len(page) < size:
                return
            after = page[-1].position
            left = None if left is None else left - len(page)

    def by_id(self, event_id: str) -> StoredEvent | None:
        """Find an event; None when it is not there."""
        found = self._find("id", event_id, 1)
        return found[0] if found else None

    def by_correlation_id(self, correlation_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find all events of a chain, first to last, `limit` at most."""
        return self._find("correlation_id", correlation_id, limit)

    def by_order_id(self, order_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find the life of an order, first to last, `limit` at most."""
        return self._find("order_id", order_id, limit)

    def by_trade_id(self, trade_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find the events that report an execution, first to last, `limit` at most."""
        return self._find("trade_id", trade_id, limit)

    def by_trace_id(self, trace_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find all events whose chain has that OpenTelemetry trace id, first to last, `limit` at most."""
        wanted = as_trace_id(trace_id)
        found = self._find("trace_id", wanted, limit) + self._find("correlation_id", wanted, limit) if wanted else []
        return sorted(found, key=lambda each: each.position)[:limit]

    def by_causation_id(self, event_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find what came of an event directly, in whatever chain, first to last, `limit` at most."""
        return self._find("causation_id", event_id, limit) if event_id else []

    def beginning_with(self, start: str, *, limit: int = 10) -> list[StoredEvent]:
        """Find one event for each id, correlation id, order id and trade id that begins with a text."""
        found: dict[int, StoredEvent] = {}
        for column in BEGINNINGS:
            for each in self._events(prefix_query(column, self.mark), [start, start + LAST, limit]):
                found[each.position] = each
        return [found[position] for position in sorted(found)]

    def _find(self, column: str, value: str, limit: int) -> list[StoredEvent]:
        return self._events(lookup_query(column, self.mark), [self._id(value), limit])

    def _events(self, query: str, bound: Sequence[Any]) -> list[StoredEvent]:
        return [self._decode(row) for row in self._rows(query, bound)]

    def _decode(self, row: tuple[Any, ...]) -> StoredEvent:
        position, sequence, body = row
        try:
            return StoredEvent(from_wire(body), sequence, position)
        except InvalidEvent as e:
            raise StoreError(f"the event at position {position} of the event store {self.where} is damaged: {e}") from e

    def last_position(self) -> int:
        """Return the position of the newest event; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(position), 0) FROM events")[0][0])

    def last_sequence(self) -> int:
        """Return the largest sequence in the log that was written; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(sequence), 0) FROM events WHERE sequence IS NOT NULL")[0][0])

    def order(self, order_id: str) -> OrderRecord | None:
        """Return an order as it stands; None when it is not in the journal."""
        rows = self._rows(f"SELECT record FROM orders WHERE order_id = {self.mark}", [self._id(order_id)])  # noqa: S608  # constants
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
            raise StoreError(f"an order in the event store {self.where} is damaged: {e}") from e

    def fills(self, *, symbol: str | None = None, order_id: str | None = None) -> Iterator[StoredFill]:
        """List the trade journal, in the order in which the executions were counted."""
        wanted = {"symbol": symbol, "order_id": order_id}
        for row in self._journal(f"number, {', '.join(journal.FILL_COLUMNS)}", "fills", wanted):
            yield journal.fill_of_row(row[1:])

    def _journal(
        self, columns: str, table: str, wanted: Mapping[str, str | None], flag: str = ""
    ) -> Iterator[tuple[Any, ...]]:
        """Read a table of the journal by pages: no read lasts longer than one of them."""
        bound = {column: self._id(value) for column, value in wanted.items() if value is not None}
        named = (f"{column} = {self.mark}" for column in bound)
        conditions = [f"number > {self.mark}", *named, *([flag] if flag else [])]
        query = f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)} ORDER BY number LIMIT {PAGE}"  # noqa: S608  # constants only
        after = 0
        while page := self._rows(query, [after, *bound.values()]):
            yield from page
            after = page[-1][0]

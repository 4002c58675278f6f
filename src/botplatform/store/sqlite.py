"""The event store in one SQLite file.

Writes go through one connection, one transaction per batch. Readers, in this process or another, never wait for
the writer, nor it for them (write-ahead log).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import Clock
from botplatform.errors import StoreBusy
from botplatform.store import journal
from botplatform.store.event_row import EventRow, row_of
from botplatform.store.retention import Keeper, Retention
from botplatform.store.schema import connect, explained
from botplatform.store.sql_store import SqlStore
from botplatform.store.sqlite_rows import SqliteRows

__all__ = ["SqliteEventStore"]

_IDS_AT_ONCE: Final = 500  # bound variables of one statement
_INSERT: Final = (
    f"INSERT OR IGNORE INTO events ({', '.join(EventRow._fields)}) "  # noqa: S608  # constants only
    f"VALUES ({', '.join('?' * len(EventRow._fields))})"
)


class SqliteEventStore(SqlStore):
    """Events, orders and fills in the SQLite file at `path`, which is made when it is not there.

    `read_only` opens an existing file for lookups. `busy_timeout_s` is how long a call waits for another process.
    What was written survives a crash of the process; with `fsync`, of the machine too, at one disk flush per
    batch. Raises `StoreError` when the file cannot be opened or is something else. Safe to use from any thread.

    With a `retention`, which needs a `clock`, what is too old is deleted behind each batch; without, all is kept.
    """

    mark: ClassVar[str] = "?"

    def __init__(
        self,
        path: Path | str,
        *,
        read_only: bool = False,
        busy_timeout_s: float = 5.0,
        fsync: bool = False,
        retention: tuple[Retention, Clock] | None = None,
    ) -> None:
        super().__init__(str(path), read_only=read_only, retention=retention)
        self._connection = connect(path, read_only=read_only, busy_timeout_s=busy_timeout_s, fsync=fsync)
        self._rows_of = SqliteRows(self._connection)
        if self._keeper is not None:
            with explained(self.where, "measure"):
                self._keeper.measured(self._rows_of.used_bytes())

    def connect(self) -> None:
        """Do nothing: the file is open."""

    def _insert(self, given: Sequence[tuple[Event, int | None]]) -> int:
        rows = [row_of(event, sequence) for event, sequence in given]
        order_events = [event for event, _ in given if type(event.payload) is OrderEvent]
        with self._transaction("write") as connection:
            new_order_events = self._new(order_events)
            before = connection.total_changes
            connection.executemany(_INSERT, rows)
            added = connection.total_changes - before
            if new_order_events:
                journal.write(self._rows_of, new_order_events)
        return added

    def _prune(self, keeper: Keeper, now_ns: int, written: int) -> None:
        """Delete some of what is too old; the next batch does it when another process is in the way."""
        try:
            with self._transaction("prune"):
                keeper.prune(self._rows_of, now_ns, written)
        except StoreBusy:
            return
        with self._lock, explained(self.where, "measure"):
            keeper.measured(self._rows_of.used_bytes())

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        """Hold the lock and a transaction, which is undone when anything is raised."""
        with self._lock, explained(self.where, doing):
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

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

    def _rows(self, query: str, bound: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, explained(self.where, "read"):
            return self._connection.execute(query, bound).fetchall()

    def close(self) -> None:
        """Let go of the file; more than once is fine. Calls after it raise `StoreError`."""
        with self._lock, explained(self.where, "close"):
            self._connection.close()

"""The event store in a PostgreSQL database.

Writes go through one connection, one transaction per batch; a batch that may or may not have been written is written
again, and what is there counts once. Writers of one database wait for each other, so that what was written first has
the lower position, and a reader who goes on behind a position misses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import psycopg

from botplatform.core.database_url import without_password
from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import Clock
from botplatform.errors import StoreAway, StoreError
from botplatform.store import journal
from botplatform.store.event_store import StoredEvent
from botplatform.store.postgres_events import INSERT, columns_of
from botplatform.store.postgres_rows import PostgresRows, as_id, as_text
from botplatform.store.postgres_schema import Connection, connect, explained, prepare
from botplatform.store.retention import Keeper, Retention
from botplatform.store.sql_store import SqlStore

__all__ = ["PostgresEventStore"]


class PostgresEventStore(SqlStore):
    """Events, orders and fills in the PostgreSQL database at `url`, in tables of its own that are made at the first use.

    `read_only` looks up what is there and makes nothing. It connects when it is first used, and again whenever the
    connection was lost; a call then raises `StoreAway`, and may be repeated. What was written survives a crash of the
    server. Safe to use from any thread.

    With a `retention`, which needs a `clock`, what is too old is deleted behind each batch; without, all is kept. Its
    largest size is that of the events in use, with their indexes: about what the database takes before anything was deleted.
    """

    mark: ClassVar[str] = "%s"

    def __init__(self, url: str, *, read_only: bool = False, retention: tuple[Retention, Clock] | None = None) -> None:
        super().__init__(without_password(url), read_only=read_only, retention=retention)
        self._url = url
        self._read_only = read_only
        self._connection: Connection | None = None
        self._closed = False
        self._kept = 0
        """The largest sequence that was written through this object: it must still be there after a reconnection."""

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

    def _insert(self, given: Sequence[tuple[Event, int | None]]) -> int:
        columns = columns_of(given)
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

    def _rows(self, query: str, bound: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._used("read") as connection:
            return connection.execute(query.encode(), bound).fetchall()

    def _id(self, value: str) -> str:
        return as_id(value)

    def beginning_with(self, start: str, *, limit: int = 10) -> list[StoredEvent]:
        """Find one event for each id, correlation id, order id and trade id that begins with a text."""
        return super().beginning_with(as_text(start), limit=limit)

    def close(self) -> None:
        """Let go of the connection; more than once is fine. Calls after it raise `StoreError`."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

"""The tables of the event store, their version, and what SQLite's complaints mean for people."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from botplatform.errors import StoreBusy, StoreError
from botplatform.store.journal_tables import FILL_TERMS, ORDER_STATE, ORDER_TERMS

APPLICATION_ID: Final = 0x42504C41
"""Marks a file as an event store in its header (`PRAGMA application_id`); "BPLA" in ASCII."""
VERSION: Final = 3
"""Version of the tables (`PRAGMA user_version`)."""
MEMORY: Final = ":memory:"
"""A path that keeps the store in memory only, for tests."""

TABLES: Final = (
    """
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        sequence INTEGER,
        id TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        key TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        trace_id TEXT,
        causation_id TEXT NOT NULL,
        source TEXT NOT NULL,
        timestamp_ns INTEGER NOT NULL,
        order_id TEXT,
        trade_id TEXT,
        short_lived INTEGER NOT NULL,
        age_from_ns INTEGER NOT NULL,
        body BLOB NOT NULL
    )
    """,
    "CREATE INDEX events_by_correlation_id ON events (correlation_id)",
    # Only where it is not the correlation id itself: ours are.
    "CREATE INDEX events_by_trace_id ON events (trace_id) WHERE trace_id IS NOT NULL",
    "CREATE INDEX events_by_causation_id ON events (causation_id) WHERE causation_id <> ''",
    # An index ends in the position: this one replays one type without reading the others.
    "CREATE INDEX events_by_type ON events (type)",
    "CREATE INDEX events_by_sequence ON events (sequence) WHERE sequence IS NOT NULL",
    "CREATE INDEX events_by_order_id ON events (order_id) WHERE order_id IS NOT NULL",
    "CREATE INDEX events_by_trade_id ON events (trade_id) WHERE trade_id IS NOT NULL",
    # What retention asks: which are the oldest, and has a chain anything that lasts? Few events are in the last two.
    "CREATE INDEX events_by_age ON events (short_lived, age_from_ns)",
    """
    CREATE INDEX events_lasting ON events (correlation_id, age_from_ns)
    WHERE short_lived = 0 AND correlation_id <> ''
    """,
    "CREATE INDEX events_lasting_causes ON events (causation_id) WHERE short_lived = 0 AND causation_id <> ''",
    f"""
    CREATE TABLE orders (
        number INTEGER PRIMARY KEY,
        order_id TEXT NOT NULL UNIQUE,
        {ORDER_TERMS},
        is_open INTEGER NOT NULL,
        {ORDER_STATE},
        correlation_id TEXT NOT NULL,
        submitted_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        record BLOB NOT NULL
    )
    """,
    "CREATE INDEX orders_open ON orders (number) WHERE is_open",
    "CREATE INDEX orders_open_chains ON orders (correlation_id) WHERE is_open",
    f"""
    CREATE TABLE fills (
        number INTEGER PRIMARY KEY,
        venue TEXT NOT NULL,
        symbol TEXT NOT NULL,
        trade_id TEXT NOT NULL,
        order_id TEXT NOT NULL,
        {FILL_TERMS},
        timestamp_ns INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        UNIQUE (venue, symbol, trade_id)
    )
    """,
    "CREATE INDEX fills_by_order_id ON fills (order_id)",
)

_WHAT_TO_DO: Final = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; move the file away, or set storage.path to another one",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a copy, or move it away and replay the log",
    sqlite3.SQLITE_READONLY: "it can only be read; check the rights of the file and its directory, or set storage.path",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check storage.path and the rights of its directory",
    sqlite3.SQLITE_FULL: "the disk is full; make room and start again, nothing of the last batch was written",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written; check the file system",
}


@contextmanager
def explained(path: str, doing: str) -> Iterator[None]:
    """Turn what SQLite raises into a `StoreError` (`StoreBusy` when another process is in the way)."""
    try:
        yield
    except sqlite3.Error as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest tells variants apart
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy(
                f"cannot {doing} the event store {path}: another process holds it; stop that one, or set storage.path"
            ) from e
        raise StoreError(f"cannot {doing} the event store {path}: {_WHAT_TO_DO.get(code, str(e))}") from e


def connect(path: Path | str, *, read_only: bool, busy_timeout_s: float, fsync: bool) -> sqlite3.Connection:
    """Open the file, make or check its tables, and set it up for one writer and many readers.

    Raises `StoreError` when it is missing (read only), not an event store, of another version, or cannot be opened.
    """
    name = str(path)
    with explained(name, "open"):
        connection = _open(path, read_only=read_only, busy_timeout_s=busy_timeout_s)
        try:
            check_or_create(connection, name, read_only=read_only)
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        except BaseException:
            connection.close()
            raise
    return connection


def _open(path: Path | str, *, read_only: bool, busy_timeout_s: float) -> sqlite3.Connection:
    if str(path) == MEMORY:
        address = MEMORY
    else:
        file = Path(path)
        if read_only and not file.exists():
            raise StoreError(f"there is no event store at {path}: check storage.path, or run the storage engine first")
        if not read_only:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise StoreError(f"cannot make the directory of the event store {path}: {e.strerror}") from e
        address = f"{file.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    return sqlite3.connect(
        address, uri=address != MEMORY, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )


def check_or_create(connection: sqlite3.Connection, path: str, *, read_only: bool) -> None:
    """Make the tables in an empty file; refuse a file that is something else, or of another version."""
    application_id = _number(connection, "application_id")
    version = _number(connection, "user_version")
    if application_id == APPLICATION_ID:
        if version > VERSION:
            raise StoreError(
                f"the event store {path} was written by a newer version (its tables are version {version}, "
                f"this one knows {VERSION}): install a newer botplatform, or set storage.path"
            )
        if version < VERSION:
            raise StoreError(
                f"the event store {path} was written by an older version (its tables are version {version}, this one "
                f"knows {VERSION}): move the file away, and the next run begins a new one, or set storage.path"
            )
        return
    if read_only or connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
        raise StoreError(f"the SQLite database {path} is not an event store: set storage.path to another file")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _number(connection, "application_id") != APPLICATION_ID:  # another process may have been first
            for statement in TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])

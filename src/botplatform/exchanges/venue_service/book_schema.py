"""The tables of the venue's book, and opening the file for one process alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from botplatform.core.seam import random_id
from botplatform.errors import StoreBusy, StoreError

__all__ = ["explained", "open_book"]

APPLICATION_ID: Final = 0x42505642
"""Marks a file as a venue's book in its header (`PRAGMA application_id`); "BPVB" in ASCII."""
VERSION: Final = 1
BUSY_S: Final = 2
"""Seconds to wait for another process that holds the book: one that is just ending, for example."""
MEMORY: Final = ":memory:"

TABLES: Final = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE markets (symbol TEXT PRIMARY KEY, state BLOB NOT NULL)",
    # Every order that was ever taken; `number` counts the uses of an id, from 0.
    """
    CREATE TABLE orders (
        position INTEGER PRIMARY KEY,
        client_order_id TEXT NOT NULL,
        symbol TEXT NOT NULL,
        number INTEGER NOT NULL,
        taken_ns INTEGER NOT NULL,
        request BLOB NOT NULL,
        UNIQUE (client_order_id, symbol, number)
    )
    """,
    """
    CREATE TABLE reports (
        sequence INTEGER PRIMARY KEY,
        client_order_id TEXT NOT NULL,
        symbol TEXT NOT NULL,
        venue_order_id TEXT NOT NULL,
        trade_id TEXT NOT NULL,
        body BLOB NOT NULL
    )
    """,
    "CREATE INDEX reports_by_order ON reports (client_order_id, symbol)",
    "CREATE TABLE balances (currency TEXT PRIMARY KEY, cash TEXT NOT NULL, commission TEXT NOT NULL)",
)


@contextmanager
def explained(path: str, doing: str) -> Iterator[None]:
    """Turn what SQLite raises into a `StoreError` (`StoreBusy` when another process has the book)."""
    try:
        yield
    except sqlite3.Error as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest tells variants apart
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy(
                f"cannot {doing} the venue's book {path}: another process has it; stop that one, or set venue.book"
            ) from e
        raise StoreError(f"cannot {doing} the venue's book {path}: {e}; check the file, or set venue.book") from e


def open_book(path: Path | str, name: str, account_id: str, *, fsync: bool) -> sqlite3.Connection:
    """Open the book of an account at a venue, for this process alone; make it when it is not there.

    Raises `StoreError` for a file that is something else or the book of another account, `StoreBusy` for one that
    another process has.
    """
    where = str(path)
    if where != MEMORY:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"cannot make the directory of the venue's book {path}: {e.strerror}") from e
    with explained(where, "open"):
        connection = sqlite3.connect(where, timeout=BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
            connection.execute("BEGIN EXCLUSIVE")
            _create_or_check(connection, where, {"venue": name, "account_id": account_id})
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
    return connection


def _create_or_check(connection: sqlite3.Connection, where: str, whose: dict[str, str]) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        for statement in TABLES:
            connection.execute(statement)
        facts = {**whose, "book_id": random_id()}
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        return
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID or version != VERSION:
        raise StoreError(f"{where} is not a venue's book that this version can read: set venue.book to another file")
    found = dict(connection.execute("SELECT name, value FROM facts"))
    for fact, value in whose.items():
        if found.get(fact) != value:
            raise StoreError(
                f"the book {where} belongs to the {fact} {found.get(fact)!r}, not {value!r}: set venue.book to another"
            )

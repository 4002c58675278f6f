"""Opens the event store that the settings name: a SQLite file, or a PostgreSQL database."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from botplatform.core.seam import Clock
from botplatform.errors import MissingExtra
from botplatform.store.event_store import EventStore
from botplatform.store.retention import Retention
from botplatform.store.sqlite import SqliteEventStore

if TYPE_CHECKING:
    from botplatform.settings_storage import StorageSettings
    from botplatform.store.postgres import PostgresEventStore

__all__ = ["open_reader", "open_store", "prepare_store"]


def open_store(storage: StorageSettings, *, clock: Clock | None = None) -> EventStore:
    """Open the store to write to it.

    With a clock, events are kept as long as the settings say; without, as in a backtest, for ever. A file is opened
    at once, and `StoreError` raised when that fails; a database is connected to when it is first used.
    """
    limits = Retention(storage.keep_ticks_s * 10**9, storage.keep_s * 10**9, storage.max_bytes)
    retention = None if clock is None else (limits, clock)
    if storage.url is None:
        return SqliteEventStore(storage.path, retention=retention)
    return _postgres(storage.url.get_secret_value(), retention=retention)


def open_reader(storage: StorageSettings) -> EventStore:
    """Open the store for lookups; raise `StoreError` when it is not there."""
    if storage.url is None:
        return SqliteEventStore(storage.path, read_only=True)
    store = _postgres(storage.url.get_secret_value(), read_only=True)
    store.connect()
    return store


def prepare_store(storage: StorageSettings) -> str:
    """Make the tables of a database, or bring them up to date; return its address without password, for people.

    A file is made by the storage engine: for one this does nothing and returns an empty text.
    """
    if storage.url is None:
        return ""
    with _postgres(storage.url.get_secret_value()) as store:
        store.connect()
        return store.where


def _postgres(
    url: str, *, read_only: bool = False, retention: tuple[Retention, Clock] | None = None
) -> PostgresEventStore:
    if find_spec("psycopg") is None:
        raise MissingExtra("an event store in PostgreSQL needs psycopg: pip install 'botplatform[postgres]'")
    from botplatform.store.postgres import PostgresEventStore  # noqa: PLC0415  # an extra

    return PostgresEventStore(url, read_only=read_only, retention=retention)

"""The tables of the event store in PostgreSQL, their version, and what its complaints mean for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from botplatform.core.database_url import without_password
from botplatform.errors import StoreAway, StoreError
from botplatform.store.journal_tables import FILL_TERMS, ORDER_STATE, ORDER_TERMS

__all__ = ["VERSION", "Connection", "connect", "explained", "prepare"]

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
CONNECT_TIMEOUT_S: Final = 5
"""Seconds for each address of the server."""
SILENCE_MS: Final = 15_000
"""Milliseconds without an acknowledgement of the network after which a connection counts as lost."""
_SETUP_LOCK: Final = 0x42504C41
"""Held while tables are made; "BPLA" in ASCII."""
_SESSION: Final = (
    "SELECT set_config('search_path', 'botplatform', false), set_config('lock_timeout', '5s', false), "
    # A writer whose node is gone would keep its successors from writing for as long as the server waits for it: hours.
    "set_config('idle_in_transaction_session_timeout', '60s', false), "
    "set_config('statement_timeout', '120s', false), set_config('timezone', 'UTC', false), "
    # What is told to be written has to survive a crash of the server, whatever it does for others.
    "CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"
)
_VERSION_1: Final[tuple[LiteralString, ...]] = (
    """
    CREATE TABLE events (
        position BIGINT PRIMARY KEY,
        sequence BIGINT,
        id TEXT COLLATE "C" NOT NULL UNIQUE,
        type TEXT COLLATE "C" NOT NULL,
        key TEXT COLLATE "C" NOT NULL,
        correlation_id TEXT COLLATE "C" NOT NULL,
        trace_id TEXT COLLATE "C",
        causation_id TEXT COLLATE "C" NOT NULL,
        source TEXT COLLATE "C" NOT NULL,
        timestamp_ns BIGINT NOT NULL,
        order_id TEXT COLLATE "C",
        trade_id TEXT COLLATE "C",
        short_lived BOOLEAN NOT NULL,
        age_from_ns BIGINT NOT NULL,
        size INTEGER NOT NULL,
        body BYTEA NOT NULL
    ) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1)
    """,
    # Each has the position behind what is looked for: found in order, however much there is of it.
    "CREATE INDEX events_by_correlation_id ON events (correlation_id, position)",
    "CREATE INDEX events_by_trace_id ON events (trace_id, position) WHERE trace_id IS NOT NULL",
    "CREATE INDEX events_by_causation_id ON events (causation_id, position) WHERE causation_id <> ''",
    "CREATE INDEX events_by_type ON events (type, position)",
    "CREATE INDEX events_by_sequence ON events (sequence) WHERE sequence IS NOT NULL",
    "CREATE INDEX events_by_order_id ON events (order_id, position) WHERE order_id IS NOT NULL",
    "CREATE INDEX events_by_trade_id ON events (trade_id, position) WHERE trade_id IS NOT NULL",
    # What retention asks: which are the oldest, and has a chain anything that lasts? Few events are in the last two.
    "CREATE INDEX events_by_age ON events (short_lived, age_from_ns)",
    """
    CREATE INDEX events_lasting ON events (correlation_id, age_from_ns)
    WHERE NOT short_lived AND correlation_id <> ''
    """,
    "CREATE INDEX events_lasting_causes ON events (causation_id) WHERE NOT short_lived AND causation_id <> ''",
    f"""
    CREATE TABLE orders (
        number BIGINT PRIMARY KEY,
        order_id TEXT COLLATE "C" NOT NULL UNIQUE,
        {ORDER_TERMS},
        is_open BOOLEAN NOT NULL,
        {ORDER_STATE},
        correlation_id TEXT COLLATE "C" NOT NULL,
        submitted_ns BIGINT NOT NULL,
        updated_ns BIGINT NOT NULL,
        record BYTEA NOT NULL
    )
    """,
    "CREATE INDEX orders_open ON orders (number) WHERE is_open",
    "CREATE INDEX orders_open_chains ON orders (correlation_id) WHERE is_open",
    f"""
    CREATE TABLE fills (
        number BIGINT PRIMARY KEY,
        venue TEXT COLLATE "C" NOT NULL,
        symbol TEXT COLLATE "C" NOT NULL,
        trade_id TEXT COLLATE "C" NOT NULL,
        order_id TEXT COLLATE "C" NOT NULL,
        {FILL_TERMS},
        timestamp_ns BIGINT NOT NULL,
        event_id TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        UNIQUE (venue, symbol, trade_id)
    )
    """,
    "CREATE INDEX fills_by_order_id ON fills (order_id)",
)
MIGRATIONS: Final = (_VERSION_1,)
"""What makes each version of the tables of the one before."""
VERSION: Final = len(MIGRATIONS)
"""Version of the tables, kept in the only row of the table `store`."""

# Not to_regclass: within a transaction that may answer from a cache of before others made the tables.
_FIND_STORE: Final = (
    "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'botplatform' AND c.relname = 'store'"
)
# Classes and codes of PostgreSQL after which the same may succeed later: it is away, full, busy or read-only.
_LATER_CLASSES: Final = ("08", "53", "57", "58")
_LATER_CODES: Final = ("25006", "25P03", "40001", "40P01", "55P03")
_WHAT_TO_DO: Final = {
    "42501": "the user may not do that; give it the schema botplatform, or let `botplatform setup` run as its owner",
    "42P01": "a table is missing, or not found because a pooler shares sessions; connect to the server itself or to a "
    "pooler in session mode, else restore a copy",
    "3D000": "there is no such database; create it, or correct storage.url",
}


@contextmanager
def explained(where: str, doing: str) -> Iterator[None]:
    """Turn what PostgreSQL raises into a `StoreError` (`StoreAway` when trying again may help), without any secret."""
    try:
        yield
    except psycopg.Error as e:
        code = e.sqlstate or ""
        said = e.diag.message_primary or " ".join(str(e).split()) or type(e).__name__
        message = f"cannot {doing} the event store {where}: {_WHAT_TO_DO.get(code, said)}"
        lost = not code and isinstance(e, (psycopg.OperationalError, psycopg.InterfaceError))
        if lost or code.startswith(_LATER_CLASSES) or code in _LATER_CODES:
            raise StoreAway(message) from None
        raise StoreError(message) from None


def connect(url: str) -> Connection:
    """Open a connection to the database of `storage.url`; raise `StoreAway` when that cannot be."""
    where = without_password(url)
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:  # its words may repeat the password
        raise StoreError(f"storage.url {where} cannot be read by the PostgreSQL client: correct it") from None
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "botplatform",
        "tcp_user_timeout": SILENCE_MS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    with explained(where, "reach"):
        connection = psycopg.connect(autocommit=True, **{**defaults, **given, "client_encoding": "UTF8"})
        try:
            connection.execute(_SESSION)
        except BaseException:
            connection.close()
            raise
    return connection


def prepare(connection: Connection, where: str, *, read_only: bool) -> None:
    """Make the tables where there are none, or bring them up to date; refuse those of a newer version.

    Any number of processes may do so at the same time. Raises `StoreError` where they are missing (read only).
    """
    with explained(where, "open"):
        version = _version(connection)
        if version < VERSION and not read_only:
            version = _make(connection, where)
    if version > VERSION:
        raise StoreError(
            f"the event store {where} was written by a newer version (its tables are version {version}, this one knows "
            f"{VERSION}): install a newer botplatform, or set storage.url"
        )
    if not version:
        raise StoreError(f"there is no event store in {where}: check storage.url, or run `botplatform setup` first")
    if version < VERSION:
        raise StoreError(
            f"the tables of the event store {where} are version {version}, this one knows {VERSION}: "
            "run `botplatform setup` to bring them up to date"
        )


def _version(connection: Connection) -> int:
    """Return the version of the tables; 0 when there are none."""
    if connection.execute(_FIND_STORE).fetchone() is None:
        return 0
    row = connection.execute("SELECT version FROM botplatform.store").fetchone()
    return int(row[0]) if row else 0


def _make(connection: Connection, where: str) -> int:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
        version = _version(connection)  # another process may have been first
        if version >= VERSION:
            return version
        encoding = connection.execute("SHOW server_encoding").fetchone()
        if encoding != ("UTF8",):
            raise StoreError(f"the database {where} has another encoding than UTF8: create one with ENCODING 'UTF8'")
        if not version:
            # Not IF NOT EXISTS alone: that needs the right to make schemas even where it is there.
            if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'botplatform'").fetchone() is None:
                connection.execute("CREATE SCHEMA botplatform")
            connection.execute(
                "CREATE TABLE store (only_row BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row), "
                "version INTEGER NOT NULL, used_bytes BIGINT NOT NULL) WITH (fillfactor = 10)"
            )
            connection.execute("INSERT INTO store (version, used_bytes) VALUES (0, 0)")
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute("UPDATE store SET version = %s", (VERSION,))
        return VERSION

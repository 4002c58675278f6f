"""How long the event store keeps what, and how it stays below its largest size.

Ticks, signals and heartbeats are deleted when they are old enough, unless their chain has anything else: a decision
and what came of it keep the tick and the signal that led to it. Each is looked at once, when it is old enough: then it
is deleted, or marked as lasting. Near the largest size the oldest go sooner; at it, new ones are left out. Orders,
decisions and state are never left out, and deleted only when there is a limit for them too, by whole chains; then the
oldest go sooner at the largest size, which so holds whatever the rates are.

Rows are deleted in transactions of at most `MOST` rows, behind each batch that is written, about twice as many as came:
the file stops growing, because SQLite takes freed pages first. It does not shrink (`auto_vacuum` is off): moving pages
about costs more than it gives to a file that will need them again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from botplatform.core.events import CATALOGUE, Event

__all__ = ["GRACE_S", "SHORT_LIVED", "Keeper", "Retention", "StoreMeter"]

SHORT_LIVED: Final = frozenset(
    kind for kind in CATALOGUE if kind.startswith(("market.", "signal.")) or kind == "system.heartbeat"
)
"""Types that are kept for `storage.keep_ticks_s`: those that the log keeps for `bus.tick_ttl_s`."""
MOST: Final = 1_000
"""Rows that one transaction deletes or marks, at most."""
LEAST: Final = 200
"""Rows that are looked at behind a batch, however small it was, so that arrears are made up."""
GRACE_S: Final = 60
"""Seconds for which a tick is kept in any case: its decision may still be on its way."""
LASTING_GRACE_S: Final = 3_600
"""Seconds for which a finished chain is kept in any case, once there is a limit for them at all."""
PRUNE_AT: Final = 0.9
"""Share of the largest size from which the oldest ticks go sooner than `keep_ticks_s`."""
CALM_AT: Final = 0.85
"""Share below which they wait for their time again."""
SAY_AGAIN_AT: Final = 0.75
"""Share below which it is news when that begins once more: between the two above it comes and goes."""
ADMIT_AT: Final = 0.95
"""Share below which ticks are taken again, after the size was reached."""

# The newest row is never deleted: its position must not be given twice, and the log is continued from its sequence.
_NOT_NEWEST: Final = (
    "e.position <> (SELECT max(position) FROM events) AND "
    "e.sequence IS NOT (SELECT max(sequence) FROM events WHERE sequence IS NOT NULL)"
)
SHORT_QUERY: Final = f"""
    SELECT e.position,
        EXISTS (SELECT 1 FROM events AS l WHERE l.short_lived = 0 AND l.correlation_id <> ''
            AND l.correlation_id = CASE e.correlation_id WHEN '' THEN e.id ELSE e.correlation_id END)
        OR EXISTS (SELECT 1 FROM events AS l WHERE l.short_lived = 0 AND l.causation_id <> '' AND l.causation_id = e.id)
    FROM events AS e
    WHERE e.short_lived = 1 AND e.age_from_ns < ? AND {_NOT_NEWEST}
    ORDER BY e.age_from_ns LIMIT ?
"""  # noqa: S608  # constants only
"""Finds the oldest short-lived events: place, and whether anything lasting is in their chain or came of them."""
LASTING_QUERY: Final = f"""
    SELECT e.position, e.order_id,
        EXISTS (SELECT 1 FROM orders AS o WHERE o.is_open AND o.correlation_id = e.correlation_id),
        (SELECT max(l.age_from_ns) FROM events AS l WHERE l.short_lived = 0 AND l.correlation_id <> ''
            AND l.correlation_id = e.correlation_id)
    FROM events AS e
    WHERE e.short_lived = 0 AND e.age_from_ns < ? AND {_NOT_NEWEST}
    ORDER BY e.age_from_ns LIMIT ?
"""  # noqa: S608  # constants only
"""Finds the oldest lasting events: place, order, whether an order of the chain is open, and the chain's newest."""

_Given: TypeAlias = tuple[Event, int | None]
logger = logging.getLogger(__name__)


class Retention(NamedTuple):
    """How long a store keeps what. 0 is no limit, everywhere."""

    keep_ticks_ns: int = 0
    """Nanoseconds for which ticks, signals and heartbeats are kept; at least `GRACE_S`."""
    keep_ns: int = 0
    """Nanoseconds for which all else is kept; chains with an open order stay. At the largest size they go sooner."""
    max_bytes: int = 0
    """Bytes in use from which ticks, signals and heartbeats are left out."""


class StoreMeter:
    """What a store counts, for metrics; read from any thread."""

    __slots__ = ("left_out", "max_bytes", "pruned", "used_bytes")

    def __init__(self, max_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        """Largest size; 0 for none."""
        self.used_bytes = 0
        """Bytes of the file that are in use, without free pages."""
        self.pruned = 0
        """Events deleted since the store was opened."""
        self.left_out = 0
        """Events not written since then, because the largest size was reached."""


class Keeper:
    """Applies a `Retention` to the connection of a store; called under the store's lock.

    Time is given by the caller. An event's age counts from when it was made (`created_ns`), as that of the log does.
    """

    def __init__(self, retention: Retention, path: str) -> None:
        self.meter = StoreMeter(retention.max_bytes)
        self._retention = retention
        self._path = path
        self._full = False
        self._early = False
        self._said = False

    def admit(self, given: Sequence[_Given]) -> Sequence[_Given]:
        """Leave out ticks, signals and heartbeats while the store is full, except those of chains of the same batch."""
        if not self._full:
            return given
        chains: set[str] = set()
        for event, _ in given:
            if event.type not in SHORT_LIVED:
                chains.update((event.correlation_id, event.causation_id))
        chains.discard("")
        return [
            (event, sequence)
            for event, sequence in given
            if event.type not in SHORT_LIVED or event.correlation_id in chains or event.id in chains
        ]

    def measure(self, connection: sqlite3.Connection) -> None:
        """Look how large the store is, and say when it begins or ceases to be full."""
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        used = self.meter.used_bytes = (pages - free) * size
        largest = self._retention.max_bytes
        if not largest:
            return
        share = used / largest
        self._said = self._said and share >= SAY_AGAIN_AT
        if self._early and share < CALM_AT:
            self._early = False
        elif not self._early and share >= PRUNE_AT:
            self._early = True
            if not self._said:
                self._say_early(share)
        if self._full and share < ADMIT_AT:
            self._full = False
            logger.warning("the event store %s has room again: %d ticks were left out", self._path, self.meter.left_out)
        elif not self._full and share >= 1:
            self._full = True
            logger.error(
                "the event store %s has reached storage.max_bytes, %d bytes: ticks are left out and counted, orders are "
                "not%s; raise it together with the volume, or set or lower storage.keep_s",
                *(self._path, largest),
                ", but the oldest chains are deleted before storage.keep_s" if self._retention.keep_ns else "",
            )

    def _say_early(self, share: float) -> None:
        self._said = True
        logger.warning(
            "the event store %s is %.0f %% full: the oldest ticks are deleted before storage.keep_ticks_s; "
            "raise storage.max_bytes, or lower storage.keep_ticks_s",
            *(self._path, share * 100),
        )

    def prune(self, connection: sqlite3.Connection, now_ns: int, written: int) -> None:
        """Delete what is old enough, oldest first, a bounded number of rows; inside the caller's transaction."""
        limit = min(MOST, max(LEAST, 2 * written))
        keep_ticks_ns = GRACE_S * 10**9 if self._early else self._retention.keep_ticks_ns
        if keep_ticks_ns:
            self.meter.pruned += _prune_short(connection, now_ns - keep_ticks_ns, limit)
        keep_ns = self._retention.keep_ns
        if keep_ns:
            keep_ns = min(keep_ns, LASTING_GRACE_S * 10**9) if self._full else keep_ns
            self.meter.pruned += _prune_lasting(connection, now_ns, keep_ns, limit)


def _prune_short(connection: sqlite3.Connection, before_ns: int, limit: int) -> int:
    found = connection.execute(SHORT_QUERY, (before_ns, limit)).fetchall()
    old = [(position,) for position, lasts in found if not lasts]
    connection.executemany("DELETE FROM events WHERE position = ?", old)
    lasting = [(position,) for position, lasts in found if lasts]
    connection.executemany("UPDATE events SET short_lived = 0 WHERE position = ?", lasting)
    return len(old)


def _prune_lasting(connection: sqlite3.Connection, now_ns: int, keep_ns: int, limit: int) -> int:
    """Delete chains that are old as a whole, with their orders and fills.

    An event of a chain that is not is given the age of the chain's newest, so that it is not looked at again before.
    """
    before_ns = now_ns - keep_ns
    old: list[tuple[int]] = []
    orders: set[str] = set()
    for position, order_id, is_open, newest_ns in connection.execute(LASTING_QUERY, (before_ns, limit)).fetchall():
        from_ns = now_ns if is_open else newest_ns
        if from_ns is not None and from_ns >= before_ns:
            connection.execute("UPDATE events SET age_from_ns = ? WHERE position = ?", (from_ns, position))
            continue
        old.append((position,))
        if order_id is not None:
            orders.add(order_id)
    connection.executemany("DELETE FROM events WHERE position = ?", old)
    for order_id in sorted(orders):
        if connection.execute("SELECT 1 FROM events WHERE order_id = ? LIMIT 1", (order_id,)).fetchone() is None:
            connection.execute("DELETE FROM fills WHERE order_id = ?", (order_id,))
            connection.execute("DELETE FROM orders WHERE order_id = ? AND NOT is_open", (order_id,))
    return len(old)

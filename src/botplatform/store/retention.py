"""How long the event store keeps what, and how it stays below its largest size.

Ticks, signals and heartbeats are deleted when they are old enough, unless their chain has anything else: a decision
and what came of it keep the tick and the signal that led to it. Each is looked at once, when it is old enough: then it
is deleted, or marked as lasting. Near the largest size the oldest go sooner; at it, new ones are left out. Orders,
decisions and state are never left out, and deleted only when there is a limit for them too, by whole chains; then the
oldest go sooner at the largest size, which so holds whatever the rates are.

Rows are deleted in transactions of at most `MOST` rows, behind each batch that is written, about twice as many as came:
the store stops growing, because freed room is taken first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from botplatform.core.events import CATALOGUE, Event

__all__ = ["GRACE_S", "SHORT_LIVED", "Keeper", "Retention", "Rows", "StoreMeter"]

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
        """Bytes that are in use, without what was freed."""
        self.pruned = 0
        """Events deleted since the store was opened."""
        self.left_out = 0
        """Events not written since then, because the largest size was reached."""


class Rows(Protocol):
    """The rows of a store, inside a transaction of the caller's."""

    def prune_short(self, before_ns: int, limit: int) -> int:
        """Look at the oldest short-lived events made before a time, `limit` at most; return how many were deleted.

        Those whose chain has anything lasting, or of which anything lasting came, are marked as lasting instead.
        """

    def prune_lasting(self, now_ns: int, keep_ns: int, limit: int) -> int:
        """Delete chains that are old as a whole, with their orders and fills; return how many events went.

        An event of a chain that is not is given the age of the chain's newest, so that it is not looked at again
        before. The newest event of the store stays in any case.
        """


class Keeper:
    """Applies a `Retention` to the rows of a store; called under the store's lock.

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

    def measured(self, used: int) -> None:
        """Take how many bytes are in use, and say when the store begins or ceases to be full."""
        self.meter.used_bytes = used
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

    def prune(self, rows: Rows, now_ns: int, written: int) -> None:
        """Delete what is old enough, oldest first, a bounded number of rows; inside the caller's transaction."""
        limit = min(MOST, max(LEAST, 2 * written))
        keep_ticks_ns = GRACE_S * 10**9 if self._early else self._retention.keep_ticks_ns
        if keep_ticks_ns:
            self.meter.pruned += rows.prune_short(now_ns - keep_ticks_ns, limit)
        keep_ns = self._retention.keep_ns
        if keep_ns:
            keep_ns = min(keep_ns, LASTING_GRACE_S * 10**9) if self._full else keep_ns
            self.meter.pruned += rows.prune_lasting(now_ns, keep_ns, limit)

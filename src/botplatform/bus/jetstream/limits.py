"""How a log with a largest size never costs an order.

The log refuses what does not fit (`discard: new`), so room has to be kept: from 80 % full the janitor of the setup
role purges old ticks, and from 90 % publishers of ticks wait. Events that carry state always go through.

In a cluster of servers an acknowledged event is on several machines, but the server writes to disk only every two
minutes by default: a power cut of all of them loses what came since. `sync_advice` says what to set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.setup import list_groups
from botplatform.bus.jetstream.stored import Counters
from botplatform.core.events import Event
from botplatform.core.tasks import end
from botplatform.errors import BusError
from botplatform.settings import BusSettings

__all__ = ["Janitor", "Purged", "Room", "purge_ticks", "sync_advice"]

PURGE_AT: Final = 0.8
"""Share of the log's size from which old ticks are purged."""
PURGE_TO: Final = 0.65
"""Share that purging stops at."""
PAUSE_AT: Final = 0.9
"""Share from which publishers of ticks wait."""
RESUME_AT: Final = 0.85
"""Share below which they go on."""
HEARTBEATS_AT: Final = 0.95
"""Share from which heartbeats wait as well."""
SHORT_LIVED: Final = ("market.>", "signal.>", "system.heartbeat.>")
"""Stored subjects of what may be purged: measurements and signs of life, never decisions, orders or state."""
STEPS: Final = 8
LOOK_NS: Final = 10**9
WAIT_S: Final = 0.2
JANITOR_S: Final = 1.0
_TICKS: Final = ("market.", "signal.")

logger = logging.getLogger(__name__)


class Room:
    """How full the log is, for publishers of ticks; asked at most once a second, and when much was published since."""

    def __init__(self, connection: Connection, stream: str, counters: Counters) -> None:
        self._connection = connection
        self._clock = connection.clock
        self._stream = stream
        self._counters = counters
        self._share = 0.0
        self._paused = False
        self._looked_ns = 0
        self._budget = 0.0
        self._look: asyncio.Task[None] | None = None

    async def admit(self, events: Sequence[Event], sent_bytes: int, stored_bytes: int) -> None:
        """Wait until there is room for ticks; return at once for anything that carries state.

        `sent_bytes` is what this process has published so far, `stored_bytes` what of it the log has acknowledged:
        what is on its way and what comes between two looks is counted as well.
        """
        spent = sent_bytes >= self._budget
        if not spent and not self._paused and self._clock.monotonic_ns() - self._looked_ns < LOOK_NS:
            return
        limit = _limit(events)
        if limit is None:
            return
        if not spent and not self._full(limit):
            self._look_soon(stored_bytes)
            return
        await self._look_soon(stored_bytes)
        while self._full(limit):
            await self._clock.sleep(WAIT_S)
            await self._look_soon(stored_bytes)

    def mark_full(self) -> None:
        """Take note that the log has refused something for want of room."""
        self._share, self._budget = 1.0, 0.0
        self._pause()

    def may_wait(self, events: Sequence[Event]) -> bool:
        """Tell whether all of these may wait until there is room."""
        return _limit(events) is not None

    async def stop(self) -> None:
        """Stop looking."""
        await end(self._look)

    def _full(self, limit: float) -> bool:
        return self._paused if limit == PAUSE_AT else self._share >= limit

    def _look_soon(self, stored_bytes: int) -> asyncio.Task[None]:
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._ask(stored_bytes), name="room")
        return self._look

    async def _ask(self, stored_bytes: int) -> None:
        try:
            info = await self._connection.api(f"STREAM.INFO.{self._stream}")
        except BusError:  # publishing finds out by itself what is wrong
            self._share, self._budget, self._looked_ns = 0.0, float("inf"), self._clock.monotonic_ns()
            return
        self._looked_ns = self._clock.monotonic_ns()
        self._share = fullness(info)
        if self._share >= PAUSE_AT:
            self._pause()
        elif self._paused and self._share < RESUME_AT:
            self._paused = False
            logger.warning("the log %s is %.0f %% full: ticks go on", self._stream, self._share * 100)
        # Others publish as well: look again when a quarter of what is left was taken from here.
        largest = info["config"].get("max_bytes", -1)
        left = max(0.0, PAUSE_AT - self._share) * largest if largest > 0 else float("inf")
        self._budget = stored_bytes + left / 4

    def _pause(self) -> None:
        if self._paused:
            return
        self._paused = True
        self._counters.paused += 1
        logger.warning(
            "the log %s is %.0f %% full: ticks wait until old ones are purged, events that carry state go on; "
            "let `botplatform setup --watch` run, raise bus.max_bytes or lower bus.tick_ttl_s",
            self._stream,
            self._share * 100,
        )


class Purged:
    """What one look of the janitor did."""

    __slots__ = ("after", "before", "events", "unread")

    def __init__(self, before: float) -> None:
        self.before = before
        """Share of the log's size that was used before."""
        self.after = before
        """Share that is used now."""
        self.events = 0
        """Ticks that were purged."""
        self.unread = False
        """Whether some of them may not have been handled yet by a group that is behind."""


async def purge_ticks(connection: Connection, settings: BusSettings) -> Purged:
    """Purge the oldest ticks, signals and heartbeats when the log is more than 80 % full, until it is 65 %.

    What a group has not handled yet is spared while there is room; from 90 % it is purged as well, because orders
    go before ticks. Needs the permissions of the role `setup`. Raises `BusError` when the log does not answer.
    """
    stream = settings.stream
    info = await connection.api(f"STREAM.INFO.{stream}")
    purged = Purged(fullness(info))
    if purged.before < PURGE_AT:
        return purged
    last = int(info["state"]["last_seq"])
    handled = await _handled_by_all(connection, stream, last)
    await _purge(connection, stream, purged, handled)
    if purged.after >= PAUSE_AT - 0.01 and handled < last:
        unread = purged.events
        await _purge(connection, stream, purged, last)
        purged.unread = purged.events > unread
    return purged


class Janitor:
    """Keeps room in the log, for as long as `run` runs. One per log is enough; several do no harm."""

    def __init__(self, connection: Connection, settings: BusSettings, *, every_s: float = JANITOR_S) -> None:
        self._connection = connection
        self._settings = settings
        self._every_s = every_s
        self.purged = 0
        """Ticks purged so far."""

    async def run(self) -> None:
        """Look every second, until cancelled; a server that does not answer is waited for."""
        while True:
            try:
                found = await purge_ticks(self._connection, self._settings)
            except BusError as e:
                logger.warning("cannot look after the room in the log: %s", e)
            else:
                self._tell(found)
            await self._connection.clock.sleep(self._every_s)

    def _tell(self, found: Purged) -> None:
        self.purged += found.events
        if found.events:
            logger.warning(
                "the log %s was %.0f %% full: purged %d old ticks, now %.0f %%%s",
                self._settings.stream,
                found.before * 100,
                found.events,
                found.after * 100,
                "; some of them were not handled yet by a group that is far behind" if found.unread else "",
            )
        elif found.before >= PAUSE_AT:
            logger.error(
                "the log %s is %.0f %% full of events that are kept: raise bus.max_bytes before it refuses orders",
                self._settings.stream,
                found.before * 100,
            )


def sync_advice(settings: BusSettings) -> str:
    """Return what to set at the servers so that acknowledged events survive a power cut; empty for one copy.

    A user of the log cannot see how a server is set, so this is advice and not a finding.
    """
    if settings.replicas == 1:
        return ""
    return (
        f"the log has {settings.replicas} copies: set `sync_interval: always` in the `jetstream` block of each NATS "
        "server, or a power cut of all of them can lose up to two minutes of acknowledged events"
    )


def fullness(info: dict[str, Any]) -> float:
    """Return the share of its size that a stream uses; 0 for one without a limit."""
    largest = info["config"].get("max_bytes", -1)
    return float(info["state"]["bytes"] / largest) if largest > 0 else 0.0


def _limit(events: Sequence[Event]) -> float | None:
    """Return the share of fullness up to which events may be published; None for no limit."""
    limit = 0.0
    for event in events:
        if event.type.startswith(_TICKS):
            limit = max(limit, PAUSE_AT)
        elif event.type == "system.heartbeat":
            limit = max(limit, HEARTBEATS_AT)
        else:
            return None
    return limit


async def _handled_by_all(connection: Connection, stream: str, last: int) -> int:
    """Return the sequence up to which every group has handled the log."""
    groups = await list_groups(connection, stream)
    behind = [info for info in groups.values() if info["num_pending"] or info["num_ack_pending"]]
    return min((int(info["ack_floor"]["stream_seq"]) for info in behind), default=last)


async def _purge(connection: Connection, stream: str, purged: Purged, up_to: int) -> None:
    """Purge in steps, oldest first, until there is room enough or nothing is left up to a sequence."""
    first = await _oldest_tick(connection, stream)
    if not first or first > up_to:
        return
    for step in range(1, STEPS + 1):
        cut = first + (up_to + 1 - first) * step // STEPS
        for subject in SHORT_LIVED:
            answer = await connection.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": cut})
            purged.events += int(answer.get("purged", 0))
        purged.after = fullness(await connection.api(f"STREAM.INFO.{stream}"))
        if purged.after <= PURGE_TO:
            return


async def _oldest_tick(connection: Connection, stream: str) -> int:
    """Return the sequence of the oldest event that may be purged; 0 when there is none."""
    found = []
    for subject in SHORT_LIVED:
        answer = await connection.api_or_none(f"STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": subject})
        if answer is not None:
            found.append(int(answer["message"]["seq"]))
    return min(found, default=0)

"""A synthetic market at a steady rate: what happens under load, without a venue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from botplatform.core.event_bus import DurableEventBus
from botplatform.core.events import Event, MarketEvent
from botplatform.core.seam import Clock
from botplatform.core.tasks import end

__all__ = ["Load", "LoadReport"]

SHORTEST_PAUSE_S: Final = 0.005
"""Shortest pause between two batches: at higher rates a batch has more snapshots."""
BATCH: Final = 512
"""Most snapshots that are published together."""
LATE_S: Final = 0.1
"""Seconds behind the schedule from which on a snapshot counts as late."""


class LoadReport(NamedTuple):
    """What a load came to."""

    published: int
    """Snapshots that the log has acknowledged."""
    seconds: float
    """From the first one to the last acknowledgement."""
    wanted_rate: float
    """Snapshots a second that were asked for."""
    rate: float
    """Snapshots a second that were due and published."""
    late: int
    """Snapshots handed over more than 0.1 s after they were due."""
    worst_handover_ms: float
    """Longest time from due to handed over."""
    worst_stored_ms: float
    """Longest time from due to acknowledged by the log."""


class Load:
    """Publishes snapshots by a schedule that does not drift: the n-th is due n / `rate` seconds after the first.

    `take` numbers a snapshot and makes its events. What could not be published in time is published as soon as it
    can be; nothing is left out.
    """

    def __init__(
        self,
        bus: DurableEventBus,
        clock: Clock,
        snapshots: Iterator[MarketEvent],
        take: Callable[[MarketEvent], list[Event]],
        rate: float,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._snapshots = snapshots
        self._take = take
        self._rate = rate
        self._stopped = False
        self._given = 0
        self._stored = 0
        self._origin_ns = 0
        self._late = 0
        self._worst_handover_ns = 0
        self._worst_stored_ns = 0
        self._publishing: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """End it early: what is under way is still stored and reported."""
        self._stopped = True

    async def run(self, count: int = 0) -> LoadReport:
        """Publish `count` snapshots, 0 for as many as there are until `stop`. Raises what publishing raises."""
        self._origin_ns = self._clock.monotonic_ns()
        try:
            while not self._stopped and not (count and self._given >= count):
                due = self._due(self._clock.monotonic_ns())
                wanted = min(due, count) if count else due
                if self._given < wanted and not await self._hand_over(min(BATCH, wanted - self._given)):
                    break
                ahead_s = (self._due_ns(self._given) - self._clock.monotonic_ns()) / 1e9
                if ahead_s > 0:
                    await self._clock.sleep(max(SHORTEST_PAUSE_S, ahead_s))
            await self._wait_stored()
        finally:
            await end(self._publishing)
        return self._report()

    def _due(self, now_ns: int) -> int:
        """Return how many snapshots are due."""
        return int((now_ns - self._origin_ns) * self._rate / 1e9) + 1

    def _due_ns(self, number: int) -> int:
        return self._origin_ns + int(number * 1e9 / self._rate)

    async def _hand_over(self, size: int) -> bool:
        """Publish a batch once the one before is stored; tell whether there are more snapshots.

        Two at once would be faster, and out of order: the bus promises order within one call only.
        """
        snapshots = list(islice(self._snapshots, size))
        events = [event for snapshot in snapshots for event in self._take(snapshot)]
        await self._wait_stored()
        now_ns = self._clock.monotonic_ns()
        due_ns = self._due_ns(self._given)
        self._worst_handover_ns = max(self._worst_handover_ns, now_ns - due_ns)
        self._late += min(len(snapshots), max(0, self._due(now_ns - round(LATE_S * 1e9)) - self._given))
        self._given += len(snapshots)
        if events:
            self._publishing = asyncio.create_task(self._store(events, len(snapshots), due_ns))
            await asyncio.sleep(0)
        return len(snapshots) == size

    async def _store(self, events: list[Event], count: int, due_ns: int) -> None:
        await self._bus.publish_all(events)
        self._stored += count
        self._worst_stored_ns = max(self._worst_stored_ns, self._clock.monotonic_ns() - due_ns)

    async def _wait_stored(self) -> None:
        task, self._publishing = self._publishing, None
        if task is not None:
            await task

    def _report(self) -> LoadReport:
        seconds = (self._clock.monotonic_ns() - self._origin_ns) / 1e9
        planned_s = max(seconds, self._stored / self._rate)  # the last one's share of the schedule counts as well
        return LoadReport(
            self._stored,
            round(seconds, 3),
            self._rate,
            round(self._stored / planned_s, 1) if planned_s else 0.0,
            self._late,
            round(self._worst_handover_ns / 1e6, 1),
            round(self._worst_stored_ns / 1e6, 1),
        )

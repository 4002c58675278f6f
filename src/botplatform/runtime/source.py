"""Runs the market data engine: from a feed to roots on the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from botplatform.core.event_bus import DurableEventBus, Right
from botplatform.core.events import Event, MarketEvent
from botplatform.telemetry.metrics import EngineMeter

__all__ = ["SourceRunner"]

BATCH: Final = 256


class SourceRunner:
    """Publishes what a paced feed brings, in order.

    With `show_first` the simulated venue sees each snapshot before it is published: then nothing depends on
    which of two engines is quicker, and a run in lock-step decides as a backtest does.
    """

    def __init__(
        self,
        snapshots: AsyncIterator[MarketEvent],
        take: Callable[[MarketEvent], list[Event]],
        bus: DurableEventBus,
        *,
        show_first: Callable[[MarketEvent], Awaitable[bool]] | None = None,
        right: Right | None = None,
        batch: int = 1,
    ) -> None:
        self._snapshots = snapshots
        self._take = take
        self._bus = bus
        self._show_first = show_first
        self._batch = batch
        self._right = right
        self._abandoned = False
        self.meter: EngineMeter | None = None
        """Counts what is published."""
        self.published = 0

    async def run(self) -> None:
        """Publish until the feed ends."""
        waiting: list[Event] = []
        try:
            async for snapshot in self._snapshots:
                if self._show_first is not None and await self._show_first(snapshot):
                    await self._bus.wait_settled()
                waiting += self._take(snapshot)
                if len(waiting) >= self._batch:
                    ready, waiting = waiting, []
                    await self._flush(ready)
        finally:
            await self._flush(waiting)

    def abandon(self) -> None:
        """Publish nothing any more, not even what was taken: somebody else publishes these symbols."""
        self._abandoned = True

    async def _flush(self, events: list[Event]) -> None:
        if events and not self._abandoned:
            if self._right is not None and not self._right.valid:
                await self._right.wait_valid()
            await self._bus.publish_all(events, right=self._right)
            self.published += len(events)
            if self.meter is not None:
                self.meter.sent(events)

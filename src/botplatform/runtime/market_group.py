"""The market data of this process: one source for each partition of symbols that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from botplatform.core.event_bus import DurableEventBus, Right
from botplatform.core.log_scope import LogScope
from botplatform.core.seam import Clock
from botplatform.core.tasks import end
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.runtime.membership import Ownership
from botplatform.runtime.source import SourceRunner
from botplatform.telemetry.metrics import EngineMeter

__all__ = ["MarketDataGroup", "Source"]


class Source(NamedTuple):
    """A feed's runner and the engine that makes events of it."""

    runner: SourceRunner
    engine: MarketDataEngine


class MarketDataGroup:
    """Runs a source for each partition that has symbols: one publisher per symbol.

    `build` makes the source of a partition, with the ownership's epoch as the feed epoch, so that consumers can
    drop what an earlier publisher still sends; None for a partition without symbols.
    """

    def __init__(
        self,
        clock: Clock,
        bus: DurableEventBus,
        build: Callable[[Ownership, Right | None], Source | None],
        right: Callable[[Ownership], Right | None],
    ) -> None:
        self.name = MarketDataEngine.name
        self.started_ns = clock.now_ns()
        self.events_in = 0
        self.meter = EngineMeter(self.name, clock)
        self._bus = bus
        self._build = build
        self._right = right
        self._sources: dict[int, tuple[Source, asyncio.Task[None]]] = {}
        self._retired = 0
        self._changed = asyncio.Event()

    @property
    def events_out(self) -> int:
        """Events published since the process started."""
        return self._retired + sum(source.runner.published for source, _ in self._sources.values())

    async def acquired(self, ownership: Ownership) -> None:
        """Begin to publish the symbols of a partition."""
        source = self._build(ownership, self._right(ownership))
        if source is not None:
            source.runner.meter = self.meter
            with LogScope(self.name, ownership.partition).entered():
                task = asyncio.create_task(source.runner.run(), name=f"source-{ownership.partition}")
            task.add_done_callback(lambda _: self._changed.set())
            self._sources[ownership.partition] = (source, task)

    async def released(self, partition: int) -> None:
        """Publish what was taken, and stop."""
        await self._end(partition, abandon=False)

    async def lost(self, partition: int) -> None:
        """Stop at once."""
        await self._end(partition, abandon=True)

    async def _end(self, partition: int, *, abandon: bool) -> None:
        found = self._sources.pop(partition, None)
        if found is None:
            return
        source, task = found
        if abandon:
            source.runner.abandon()
        await end(task)
        self._retired += source.runner.published

    async def wait_ended(self) -> None:
        """Wait until every feed has ended and all that came of it is handled; raises what a feed raised."""
        while True:
            self._changed.clear()
            tasks = [task for _, task in self._sources.values()]
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
            if tasks and all(task.done() for task in tasks):
                await self._bus.wait_settled()
                return
            await self._changed.wait()

    async def watch_silence(self, clock: Clock, every_s: float) -> None:
        """Publish a warning about each symbol that has gone silent, until cancelled."""
        while True:
            await clock.sleep(every_s)
            for source, _ in list(self._sources.values()):
                silent = source.engine.idle(clock.now_ns())
                await self._bus.publish_all(silent)
                self.meter.sent(silent)

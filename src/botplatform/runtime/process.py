"""One process of the platform: chosen engines on a durable bus, with signs of life, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from botplatform.core.event_bus import DurableEventBus
from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.core.seam import Clock, derive_id
from botplatform.runtime.source import SourceRunner

__all__ = ["Process", "Worker"]

IDLE_EVERY_S: Final = 1.0
STOP_WITHIN_S: Final = 10.0
logger = logging.getLogger(__name__)


class Worker(Protocol):
    """What a process runs: an engine or a sink."""

    name: str
    started_ns: int
    events_in: int
    events_out: int

    async def start(self) -> None:
        """Begin to handle events."""

    async def stop(self) -> None:
        """Finish the event in hand, save and close."""


class Process:
    """Starts workers and a source, publishes their heartbeats, and stops them in the order of the flow.

    `run` returns when the source has ended and everything is settled, when `stop` was called, or raises what
    made a worker fail.
    """

    def __init__(
        self,
        bus: DurableEventBus,
        clock: Clock,
        workers: Sequence[Worker],
        *,
        instance: str,
        heartbeat_s: float,
        source: SourceRunner | None = None,
        idle: Callable[[int], list[Event]] | None = None,
        failed: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._workers = list(workers)
        self._instance = instance
        self._heartbeat_s = heartbeat_s
        self._source = source
        self._idle = idle
        self._failed = failed
        self._stop = asyncio.Event()
        self._started_ns = clock.now_ns()
        self._beats = 0

    def stop(self) -> None:
        """Ask the process to end: the source first, then the workers."""
        self._stop.set()

    async def run(self) -> None:
        """Run until the source has ended, `stop` is called or something fails."""
        started: list[Worker] = []
        tasks: list[asyncio.Task[None]] = []
        try:
            for worker in reversed(self._workers):
                await worker.start()
                started.append(worker)
            tasks = self._begin()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for worker in reversed(started):
                await self._stop_worker(worker)

    def _begin(self) -> list[asyncio.Task[None]]:
        jobs: list[Coroutine[Any, Any, None]] = [self._until_stopped(), self._heartbeats()]
        if self._source is not None:
            jobs.append(self._run_source(self._source))
        if self._idle is not None:
            jobs.append(self._watch_silence(self._idle))
        if self._failed is not None:
            jobs.append(self._failed())
        return [asyncio.create_task(job) for job in jobs]

    async def _until_stopped(self) -> None:
        await self._stop.wait()

    async def _run_source(self, source: SourceRunner) -> None:
        await source.run()
        await self._bus.wait_settled()

    async def _watch_silence(self, idle: Callable[[int], list[Event]]) -> None:
        while True:
            await self._clock.sleep(IDLE_EVERY_S)
            await self._bus.publish_all(idle(self._clock.now_ns()))

    async def _heartbeats(self) -> None:
        while True:
            await self._bus.publish_all(self._beat())
            await self._clock.sleep(self._heartbeat_s)

    def _beat(self) -> list[Event]:
        now = self._clock.now_ns()
        self._beats += 1
        states = [(w.name, w.started_ns, w.events_in, w.events_out) for w in self._workers]
        if self._source is not None:
            states.append(("market_data", self._started_ns, 0, self._source.published))
        return [self._heartbeat(now, *state) for state in states]

    def _heartbeat(self, now: int, name: str, started_ns: int, events_in: int, events_out: int) -> Event:
        payload = SystemEvent(
            module=name,
            message="alive",
            severity=Severity.INFO,
            instance=self._instance,
            uptime_s=(now - started_ns) / 1e9,
            events_in=events_in,
            events_out=events_out,
        )
        beat_id = derive_id(self._instance, "heartbeat", name, self._beats)
        return Event("system.heartbeat", payload, name, timestamp_ns=now, correlation_id=beat_id, id=beat_id)

    async def _stop_worker(self, worker: Worker) -> None:
        """Stop one worker within a bound, so that the others are stopped as well."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await worker.stop()
        except TimeoutError:
            logger.warning("%s did not stop within %g s: it is abandoned", worker.name, STOP_WITHIN_S)
        except Exception:
            logger.exception("%s failed while it stopped", worker.name)

"""One process of the platform: groups on a durable bus, with signs of life, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from botplatform.core.event_bus import DurableEventBus
from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.core.seam import Clock, derive_id
from botplatform.core.tasks import end
from botplatform.runtime.membership import Group, Ownership
from botplatform.telemetry.metrics import EngineMeter

__all__ = ["GroupRunner", "Job", "Members", "Process", "Solo"]

STOP_WITHIN_S: Final = 25.0
logger = logging.getLogger(__name__)

Job = Callable[[], Coroutine[Any, Any, None]]


class GroupRunner(Group, Protocol):
    """A group of this process, and what it has done."""

    name: str
    started_ns: int
    meter: EngineMeter

    @property
    def events_in(self) -> int:
        """Events handled since the process started."""

    @property
    def events_out(self) -> int:
        """Events published since the process started."""


class Members(Protocol):
    """How this process gets its share of the work."""

    async def join(self, handlers: Mapping[str, Group]) -> None:
        """Take a share, and keep it up."""

    async def leave(self) -> None:
        """Give everything back."""


class Solo:
    """The only process there is: everything is its own."""

    def __init__(self) -> None:
        self._handlers: Mapping[str, Group] = {}

    async def join(self, handlers: Mapping[str, Group]) -> None:
        """Take everything, the last ones in the flow first."""
        self._handlers = handlers
        for name, handler in reversed(list(handlers.items())):
            await handler.acquired(Ownership(name, 0, 1))

    async def leave(self) -> None:
        """Give everything back, the first ones in the flow first."""
        for handler in self._handlers.values():
            await handler.released(0)


class Process:
    """Joins the others with its groups, publishes their heartbeats, and leaves in order.

    `run` returns when `stop` was called or one of `ends` has ended, or raises what went wrong. `jobs` run beside.
    """

    def __init__(
        self,
        bus: DurableEventBus,
        clock: Clock,
        members: Members,
        groups: Mapping[str, GroupRunner],
        *,
        instance: str,
        heartbeat_s: float,
        jobs: tuple[Job, ...] = (),
    ) -> None:
        self.groups = dict(groups)
        self._bus = bus
        self._clock = clock
        self._members = members
        self._instance = instance
        self._heartbeat_s = heartbeat_s
        self._jobs = jobs
        self._stop = asyncio.Event()
        self._beats = 0
        self.started = False
        """It has joined the others and has its first share."""
        self.draining = False
        """Its end has begun."""
        self.failure = ""
        """Why it ended, when something went wrong."""

    def stop(self) -> None:
        """Ask the process to end."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop` is called, a job ends, or something fails; a job that ends ends the process."""
        tasks = [asyncio.create_task(job()) for job in (self._stop_asked, *self._jobs)]
        try:
            joining = asyncio.create_task(self._members.join(self.groups))
            await asyncio.wait([joining, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                joining.result()
                self.started = True
                tasks.append(asyncio.create_task(self._heartbeats()))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            else:
                await end(joining)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        except Exception as e:
            self.failure = str(e)
            raise
        finally:
            self.draining = True
            await end(*tasks)
            await self._leave()

    async def _stop_asked(self) -> None:
        await self._stop.wait()

    async def _leave(self) -> None:
        """Give everything back within a bound."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._members.leave()
        except TimeoutError:
            logger.warning("not everything stopped within %g s: the rest is abandoned, and taken over", STOP_WITHIN_S)
        except Exception:
            logger.exception("stopping failed: what was not saved is rebuilt from the log")

    async def _heartbeats(self) -> None:
        while True:
            self._beats += 1
            now = self._clock.now_ns()
            await self._bus.publish_all([self._heartbeat(now, group) for group in self.groups.values()])
            await self._clock.sleep(self._heartbeat_s)

    def _heartbeat(self, now: int, group: GroupRunner) -> Event:
        payload = SystemEvent(
            module=group.name,
            message="alive",
            severity=Severity.INFO,
            instance=self._instance,
            uptime_s=(now - group.started_ns) / 1e9,
            events_in=group.events_in,
            events_out=group.events_out,
        )
        beat_id = derive_id(self._instance, "heartbeat", group.name, self._beats)
        return Event("system.heartbeat", payload, group.name, timestamp_ns=now, correlation_id=beat_id, id=beat_id)

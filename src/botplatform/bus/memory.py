"""The log in memory: the durable bus's interface within one process, for trying things without a server.

It keeps no event beyond the process, and only the newest ones for replay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from botplatform.core.event_bus import (
    AsyncHandler,
    AsyncInMemoryEventBus,
    Conflation,
    Delivery,
    DeliveryHandler,
    Feature,
    Right,
)
from botplatform.core.events import Event
from botplatform.core.patterns import check_pattern, matches
from botplatform.core.tasks import end
from botplatform.core.trimmed import Trimmed
from botplatform.errors import BusError

__all__ = ["InMemoryLog"]

MAX_KEPT: Final = 100_000
MAX_WAITING: Final = 100_000


class _Group:
    """One group's queue and the task that empties it."""

    def __init__(self, name: str, patterns: tuple[str, ...], handler: DeliveryHandler) -> None:
        self.name = name
        self.handler = handler
        self.patterns = patterns
        self.waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    def wants(self, event: Event) -> bool:
        """Tell whether the group listens to such an event."""
        return any(matches(pattern, event.type) for pattern in self.patterns)


class InMemoryLog:
    """An in-process `DurableEventBus`: ordered, shared by groups, de-duplicated, replayable, gone with the process.

    `groups` maps a group to the patterns it listens to. A publisher waits while a group that wants its event has
    `max_waiting` events before it; a handler's own events never wait, because two groups could wait for each other.
    """

    features = Feature.ISOLATED | Feature.CAUSE_FIRST | Feature.ORDERED | Feature.REPLAY | Feature.DEDUPLICATED

    def __init__(
        self, groups: Mapping[str, tuple[str, ...]], *, keep: int = MAX_KEPT, max_waiting: int = MAX_WAITING
    ) -> None:
        self._patterns = {name: tuple(map(check_pattern, patterns)) for name, patterns in groups.items()}
        self._log: deque[Delivery] = deque(maxlen=keep)
        self._ids: dict[str, None] = {}
        self._sequence = 0
        self._groups: dict[str, _Group] = {}
        self._live = AsyncInMemoryEventBus()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keep = keep
        self._max_waiting = max_waiting
        self._room = asyncio.Condition()

    async def close(self) -> None:
        """Stop every group."""
        for name in list(self._groups):
            await self.detach(name)
        self._failed.cancel()

    async def publish(self, event: Event) -> None:
        """Append an event and queue it for every group that listens; the same id again is dropped."""
        if event.id not in self._ids:
            await self._wait_for_room(event)
        if event.id in self._ids:
            return
        if len(self._ids) >= self._keep:
            del self._ids[next(iter(self._ids))]
        self._ids[event.id] = None
        self._sequence += 1
        delivery = Delivery(event, self._sequence)
        self._log.append(delivery)
        for group in self._groups.values():
            if group.wants(event):
                group.waiting.put_nowait(delivery)
        await self._live.publish(event)

    async def _wait_for_room(self, event: Event) -> None:
        """Wait while a group is far behind; raise what made a delivery fail, because then it will not catch up."""
        if not self._is_full(event) or asyncio.current_task() in [group.task for group in self._groups.values()]:
            return
        async with self._room:
            while self._is_full(event):
                if self._failed.done():
                    self._failed.result()
                await self._room.wait()

    def _is_full(self, event: Event) -> bool:
        return any(group.waiting.qsize() >= self._max_waiting and group.wants(event) for group in self._groups.values())

    async def _made_room(self) -> None:
        async with self._room:
            self._room.notify_all()

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:  # noqa: ARG002  # as above
        """Publish in order."""
        for event in events:
            await self.publish(event)

    def subscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Await the handler for each event from now on that matches the pattern."""
        self._live.subscribe(event_type, handler)

    def unsubscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Stop awaiting the handler for the pattern; unknown ones are ignored."""
        self._live.unsubscribe(event_type, handler)

    async def attach(
        self,
        group: str,
        handler: DeliveryHandler,
        *,
        after: int | None = None,
        right: Right | None = None,  # noqa: ARG002  # within one process everything is its own
        conflation: Conflation | None = None,  # noqa: ARG002  # publishers wait for those that are behind
    ) -> None:
        """Deliver to a group, in order, one at a time; what is kept behind `after` comes first."""
        if group not in self._patterns or group in self._groups:
            raise BusError(f"the group {group} is unknown, or attached already: known are {', '.join(self._patterns)}")
        made = self._groups[group] = _Group(group, self._patterns[group], handler)
        for delivery in self._log:
            if delivery.sequence > (after or 0) and made.wants(delivery.event):
                made.waiting.put_nowait(delivery)
        made.task = asyncio.create_task(self._deliver(made))

    async def _deliver(self, group: _Group) -> None:
        while True:
            delivery = await group.waiting.get()
            try:
                await group.handler(delivery)
            except Exception as e:  # noqa: BLE001  # the delivery stops, and `wait_failed` raises it
                if not self._failed.done():
                    self._failed.set_exception(e)
                await self._made_room()
                return
            finally:
                group.waiting.task_done()
            if group.waiting.qsize() == self._max_waiting - 1:
                await self._made_room()

    async def detach(self, group: str, *, abandon: bool = False) -> None:
        """Finish what waits for the group, then stop; `abandon` stops at once."""
        found = self._groups.get(group)
        if found is not None and found.task is not None:
            if not found.task.done() and not abandon:
                await found.waiting.join()
            await end(found.task)
            del self._groups[group]
            await self._made_room()

    async def wait_failed(self) -> None:
        """Wait until a delivery fails, and raise the reason."""
        await asyncio.shield(self._failed)

    async def replay(
        self,
        patterns: Iterable[str],
        *,
        after: int = 0,
        until: int | None = None,
        partition: int | None = None,  # noqa: ARG002  # the whole log is one partition
    ) -> AsyncIterator[Delivery]:
        """Read what is kept of the log; it has one partition."""
        wanted, end = tuple(patterns), self._sequence if until is None else until
        for delivery in list(self._log):
            if after < delivery.sequence <= end and any(matches(p, delivery.event.type) for p in wanted):
                yield delivery

    async def last_sequence(self) -> int:
        """Return the sequence of the newest event."""
        return self._sequence

    async def trimmed(self) -> Trimmed:
        """Return how far it was trimmed on purpose: never."""
        return Trimmed()

    async def wait_settled(self) -> None:
        """Wait until every group has handled everything, and what came of it."""
        seen = -1
        while seen != self._sequence:
            seen = self._sequence
            for group in list(self._groups.values()):
                join = asyncio.ensure_future(group.waiting.join())
                await asyncio.wait({join, self._failed}, return_when=asyncio.FIRST_COMPLETED)
                if self._failed.done():
                    join.cancel()
                    self._failed.result()

"""A bus whose publisher writes the log records: each event is told once, by the process that published it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol, runtime_checkable
from weakref import WeakSet

from botplatform.core.event_bus import AsyncHandler, Conflation, Delivery, DeliveryHandler, DurableEventBus, Right
from botplatform.core.events import Event
from botplatform.core.trimmed import Trimmed
from botplatform.errors import BusError
from botplatform.telemetry.tracing import Tracing

__all__ = ["LoggedBus", "SharesGroups", "Works"]


@runtime_checkable
class SharesGroups(Protocol):
    """A bus whose groups several processes may share."""

    async def share(self, group: str, handler: DeliveryHandler, *, final: tuple[type[Exception], ...] = ()) -> None:
        """Deliver each event of a group to one of the processes."""


class Works(Protocol):
    """What works beside the bus, and publishes when it is done: the gateway to a venue."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""

    def wait_idle(self) -> Awaitable[None]:
        """Wait until it has nothing to do."""


class LoggedBus:
    """A `DurableEventBus` that calls `tell` for each event once it is in the log, and otherwise passes all on.

    With `tracing`, what is published is traced.
    """

    def __init__(
        self, bus: DurableEventBus, tell: Callable[[Event], object], *, tracing: Tracing | None = None
    ) -> None:
        self._bus = bus
        self._tell = tell
        self._tracing = tracing
        self._beside = WeakSet[Works]()  # each partition that comes brings one, and takes it along when it goes
        self.features = bus.features

    async def publish(self, event: Event) -> None:
        """Publish, then tell."""
        await self.publish_all((event,))

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
        """Publish in order, then tell."""
        given = list(events)
        if self._tracing is None or self._tracing.leaves_out(given):
            await self._bus.publish_all(given, right=right)
        else:
            await self._tracing.publish(given, partial(self._bus.publish_all, right=right))
        for event in given:
            self._tell(event)

    def subscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Pass on."""
        self._bus.subscribe(event_type, handler)

    def unsubscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Pass on."""
        self._bus.unsubscribe(event_type, handler)

    async def attach(
        self,
        group: str,
        handler: DeliveryHandler,
        *,
        after: int | None = None,
        right: Right | None = None,
        conflation: Conflation | None = None,
    ) -> None:
        """Pass on."""
        await self._bus.attach(group, handler, after=after, right=right, conflation=conflation)

    async def share(self, group: str, handler: DeliveryHandler, *, final: tuple[type[Exception], ...] = ()) -> None:
        """Pass on, and trace what is handled. Raises `BusError` on a bus that cannot."""
        if not isinstance(self._bus, SharesGroups):
            raise BusError(f"the group {group} cannot be shared on this bus: attach to it")
        traced = handler if self._tracing is None else self._tracing.shared(group, handler)
        await self._bus.share(group, traced, final=final)

    async def detach(self, group: str, *, abandon: bool = False) -> None:
        """Pass on."""
        await self._bus.detach(group, abandon=abandon)

    def replay(
        self, patterns: Iterable[str], *, after: int = 0, until: int | None = None, partition: int | None = None
    ) -> AsyncIterator[Delivery]:
        """Pass on."""
        return self._bus.replay(patterns, after=after, until=until, partition=partition)

    async def last_sequence(self) -> int:
        """Pass on."""
        return await self._bus.last_sequence()

    async def trimmed(self) -> Trimmed:
        """Pass on."""
        return await self._bus.trimmed()

    def settle_with(self, works: Works) -> None:
        """Count nothing as settled while this has something to do; it is not kept alive for that."""
        self._beside.add(works)

    async def wait_settled(self) -> None:
        """Wait until every group has handled everything, and nothing works beside the bus."""
        await self._bus.wait_settled()
        while not all(works.idle for works in list(self._beside)):
            for works in list(self._beside):
                await works.wait_idle()
            await self._bus.wait_settled()

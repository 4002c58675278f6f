"""A bus whose publisher writes the log records: each event is told once, by the process that published it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from botplatform.core.event_bus import AsyncHandler, Delivery, DeliveryHandler, DurableEventBus
from botplatform.core.events import Event

__all__ = ["LoggedBus"]


class LoggedBus:
    """A `DurableEventBus` that calls `tell` for each event once it is in the log, and otherwise passes all on."""

    def __init__(self, bus: DurableEventBus, tell: Callable[[Event], object]) -> None:
        self._bus = bus
        self._tell = tell
        self.features = bus.features

    async def publish(self, event: Event) -> None:
        """Publish, then tell."""
        await self._bus.publish(event)
        self._tell(event)

    async def publish_all(self, events: Iterable[Event]) -> None:
        """Publish in order, then tell."""
        given = list(events)
        await self._bus.publish_all(given)
        for event in given:
            self._tell(event)

    def subscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Pass on."""
        self._bus.subscribe(event_type, handler)

    def unsubscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Pass on."""
        self._bus.unsubscribe(event_type, handler)

    async def attach(self, group: str, handler: DeliveryHandler, *, after: int | None = None) -> None:
        """Pass on."""
        await self._bus.attach(group, handler, after=after)

    async def detach(self, group: str) -> None:
        """Pass on."""
        await self._bus.detach(group)

    def replay(self, patterns: Iterable[str], *, after: int = 0, until: int | None = None) -> AsyncIterator[Delivery]:
        """Pass on."""
        return self._bus.replay(patterns, after=after, until=until)

    async def last_sequence(self) -> int:
        """Pass on."""
        return await self._bus.last_sequence()

    async def wait_settled(self) -> None:
        """Pass on."""
        await self._bus.wait_settled()

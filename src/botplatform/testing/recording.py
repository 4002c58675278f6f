"""Buses that remember every event that they delivered."""

from __future__ import annotations

from botplatform.core.event_bus import MAX_WAITING, AsyncInMemoryEventBus, InMemoryEventBus
from botplatform.core.events import Event
from botplatform.core.patterns import check_pattern, matches


class Record:
    """The events that a bus delivered, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """All of them; also the `system.error` of handlers that raised."""

    def of(self, pattern: str) -> list[Event]:
        """Return the events whose type matches a pattern; raise `InvalidEvent` for one that can match nothing."""
        pattern = check_pattern(pattern)
        return [event for event in self.events if matches(pattern, event.type)]

    def last(self, pattern: str = "*") -> Event:
        """Return the newest event of a pattern; raise `AssertionError` when there is none."""
        found = self.of(pattern)
        assert found, f"no event of {pattern!r} was published; there were {', '.join(self.types()) or 'none'}"
        return found[-1]

    def chain(self, correlation_id: str) -> list[Event]:
        """Return the events that share a correlation id."""
        return [event for event in self.events if event.correlation_id == correlation_id]

    def types(self) -> list[str]:
        """Return the types of all events, in order."""
        return [event.type for event in self.events]

    def clear(self) -> None:
        """Forget what was recorded; subscriptions stay."""
        self.events.clear()


class RecordingBus(Record, InMemoryEventBus):
    """The synchronous bus in memory, which also records."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        Record.__init__(self)
        InMemoryEventBus.__init__(self, max_waiting)
        self.subscribe("*", self.events.append)


class AsyncRecordingBus(Record, AsyncInMemoryEventBus):
    """The asynchronous bus in memory, which also records."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        Record.__init__(self)
        AsyncInMemoryEventBus.__init__(self, max_waiting)
        self.subscribe("*", self._record)

    async def _record(self, event: Event) -> None:
        self.events.append(event)

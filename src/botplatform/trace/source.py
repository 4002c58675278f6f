"""Where events are found: the event store by its indexes, and the newest part of the log, held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from botplatform.core.events import Event
from botplatform.core.trace_id import as_trace_id
from botplatform.store.event_store import EventStore, StoredEvent
from botplatform.trace.asked import SHORTEST, Asked

__all__ = ["Found", "LogTail", "Source", "StoreSource", "Stored"]

MANY: Final = 1_000
"""Events of one order or trade, at most."""
MOST_CAUSES: Final = 100
"""Causes whose effects are searched for in the log at once."""


class Found(NamedTuple):
    """An event, and where it was found."""

    event: Event
    place: str
    """`store` or `log`."""
    sequence: int | None = None
    """Place in the log; None where there was none, as in a backtest."""
    position: int = 0
    """Place in the store; 0 for what is not from there."""


class Stored(NamedTuple):
    """A message of the log, not decoded yet: most are of other chains."""

    sequence: int
    subject: str
    data: bytes
    message_id: str = ""
    """Its header `Nats-Msg-Id`, which is the event's id."""
    traceparent: str = ""


class Source(Protocol):
    """Where events are found."""

    def named(self, asked: Asked) -> list[Found]:
        """Find events that the id means: one for a whole chain, all of an order or a trade."""

    def beginning(self, asked: Asked) -> list[Found]:
        """Find events that have an id which begins with what was asked for; some of each chain, not all chains."""

    def chain(self, correlation_id: str, limit: int) -> list[Found]:
        """Find the events of a chain, first to last."""

    def by_id(self, event_id: str) -> Found | None:
        """Find an event."""

    def effects(self, event_ids: Iterable[str]) -> list[Found]:
        """Find what came of events directly, in whatever chain."""


class StoreSource:
    """The event store."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    def named(self, asked: Asked) -> list[Found]:
        """Find events that the id means."""
        store, text = self._store, asked.text
        one = store.by_id(text)
        found = [] if one is None else [one]
        found += store.by_order_id(text, limit=MANY)
        found += store.by_trade_id(text, limit=MANY)
        found += store.by_correlation_id(text, limit=1)
        if asked.trace_id:
            found += store.by_trace_id(asked.trace_id, limit=MANY)
        return _of_store(found)

    def beginning(self, asked: Asked) -> list[Found]:
        """Find events that have an id which begins with what was asked for."""
        return _of_store(self._store.beginning_with(asked.text)) if len(asked.text) >= SHORTEST else []

    def chain(self, correlation_id: str, limit: int) -> list[Found]:
        """Find the events of a chain, first to last."""
        return _of_store(self._store.by_correlation_id(correlation_id, limit=limit))

    def by_id(self, event_id: str) -> Found | None:
        """Find an event."""
        found = self._store.by_id(event_id)
        return None if found is None else _of_store([found])[0]

    def effects(self, event_ids: Iterable[str]) -> list[Found]:
        """Find what came of events directly, in whatever chain."""
        return _of_store([each for one in event_ids for each in self._store.by_causation_id(one)])


def _of_store(events: Iterable[StoredEvent]) -> list[Found]:
    return [Found(each.event, "store", each.sequence, each.position) for each in events]


class LogTail:
    """The newest messages of the log. Only those that hold an id that is looked for are decoded.

    `decode` returns the event of a subject and a body, and None for what is none.
    """

    def __init__(self, messages: Iterable[Stored], decode: Callable[[str, bytes], Event | None]) -> None:
        self._messages = {message.sequence: message for message in messages}
        self._decode = decode
        self._ids = {message.message_id: message.sequence for message in self._messages.values() if message.message_id}
        self._events: dict[int, Found | None] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def named(self, asked: Asked) -> list[Found]:
        """Find events that the id means."""
        return [each for each in self._about(asked) if asked.meaning(each.event)]

    def beginning(self, asked: Asked) -> list[Found]:
        """Find events that have an id which begins with what was asked for."""
        return [each for each in self._about(asked) if asked.beginning(each.event)]

    def chain(self, correlation_id: str, limit: int) -> list[Found]:
        """Find the events of a chain, first to last."""
        found = [each for each in self._holding(correlation_id) if each.event.correlation_id == correlation_id]
        return found[:limit]

    def by_id(self, event_id: str) -> Found | None:
        """Find an event."""
        sequence = self._ids.get(event_id)
        if sequence is not None:
            return self._event(self._messages[sequence])
        return next((each for each in self._holding(event_id) if each.event.id == event_id), None)

    def effects(self, event_ids: Iterable[str]) -> list[Found]:
        """Find what came of events directly, in whatever chain."""
        causes = list(event_ids)[:MOST_CAUSES]
        return [each for one in causes for each in self._holding(one) if each.event.causation_id == one]

    def about(self, message: Stored, asked: Asked, chains: Iterable[str]) -> Found | None:
        """Return the event of one message that the id means or that is of one of the chains; None for any other."""
        if not _holds(message, asked) and not any(chain.encode() in message.data for chain in chains):
            return None
        found = self._event(message)
        if found is None or not (asked.meaning(found.event) or found.event.correlation_id in chains):
            return None
        return found

    def _about(self, asked: Asked) -> list[Found]:
        found = (self._event(message) for message in self._messages.values() if _holds(message, asked))
        return [each for each in found if each is not None]

    def _holding(self, text: str) -> list[Found]:
        wanted = text.encode()
        found = (self._event(message) for message in self._messages.values() if wanted in message.data)
        return [each for each in found if each is not None]

    def _event(self, message: Stored) -> Found | None:
        if message.sequence not in self._messages:
            return self._decoded(message)
        if message.sequence not in self._events:
            self._events[message.sequence] = self._decoded(message)
        return self._events[message.sequence]

    def _decoded(self, message: Stored) -> Found | None:
        event = self._decode(message.subject, message.data)
        return None if event is None else Found(event, "log", message.sequence)


def _holds(message: Stored, asked: Asked) -> bool:
    """Tell whether a message may be about an id: its body has it, or its header, because a trace id may be a hash."""
    if asked.text.encode() in message.data:
        return True
    trace = asked.trace_id
    return bool(trace) and (trace in message.traceparent or as_trace_id(message.message_id) == trace)

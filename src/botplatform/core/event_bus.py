"""The event bus: interfaces that every backend has, and the two buses in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar
from enum import Flag, auto
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from botplatform.core.events import SPELLINGS, Event, Severity, SystemEvent
from botplatform.core.log_scope import about
from botplatform.core.patterns import check_pattern, matches
from botplatform.core.seam import derive_id
from botplatform.core.trimmed import Trimmed
from botplatform.errors import BusOverflow

__all__ = [
    "AsyncEventBus",
    "AsyncHandler",
    "AsyncInMemoryEventBus",
    "Conflation",
    "Delivery",
    "DurableEventBus",
    "EventBus",
    "Feature",
    "Handler",
    "InMemoryEventBus",
    "Right",
    "handler_failed",
]

Handler = Callable[[Event], object]
AsyncHandler = Callable[[Event], Awaitable[object]]
AnyHandler = TypeVar("AnyHandler")

MAX_WAITING: Final = 1_000_000
"""Events that may wait in a bus in memory before publishing raises `BusOverflow`."""

logger = logging.getLogger(__name__)


@runtime_checkable
class EventBus(Protocol):
    """Publish and listen, synchronously."""

    def publish(self, event: Event) -> None:
        """Deliver an event to every handler whose pattern matches; inside a handler, after the current event."""

    def subscribe(self, event_type: str, handler: Handler) -> None:
        """Call the handler for each event whose type matches the pattern; each handler once per event."""

    def unsubscribe(self, event_type: str, handler: Handler) -> None:
        """Stop calling the handler for the pattern; unknown ones are ignored."""


@runtime_checkable
class AsyncEventBus(Protocol):
    """Publish and listen, asynchronously."""

    async def publish(self, event: Event) -> None:
        """Hand an event over; returns once the bus is responsible for it (a durable one: acknowledged)."""

    def subscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Await the handler for each event whose type matches the pattern."""

    def unsubscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Stop awaiting the handler for the pattern; unknown ones are ignored."""


class Feature(Flag):
    """What a backend can do beyond the interface; the conformance suite tests what is declared."""

    NONE = 0
    ISOLATED = auto()
    """A handler that raises is reported as `system.error`, and the others still run."""
    CAUSE_FIRST = auto()
    """Nobody sees an effect before its cause."""
    ORDERED = auto()
    """Events of one key arrive in the order in which they were published."""
    DURABLE = auto()
    """What was published outlives the processes."""
    GROUPS = auto()
    """Members of a group share the events: each event goes to one of them."""
    REPLAY = auto()
    """The log can be read again from any sequence."""
    DEDUPLICATED = auto()
    """The same id published twice within the window is stored once."""


class Delivery(NamedTuple):
    """An event as the log holds it."""

    event: Event
    sequence: int
    """Place in the log; what orders replay. Starts at 1."""
    redelivered: int = 0
    """How often it was delivered before and not acknowledged."""
    left_out: tuple[int, ...] = ()
    """Sequences of older ticks of the same symbol that were left out on purpose, because the group was behind."""
    headers: bytes | None = None
    """The headers that it came with, as they came; None on a bus that has none."""


class Conflation(NamedTuple):
    """When ticks may be left out: only `market.snapshot` that a newer one of the same symbol has overtaken."""

    waiting: int
    """Ticks are left out while at least so many events wait."""
    exact_until: int
    """None is left out up to this sequence."""


DeliveryHandler = Callable[[Delivery], Awaitable[object]]


class Right(Protocol):
    """The right to handle a group's events, which somebody else looks after."""

    @property
    def valid(self) -> bool:
        """Tell whether the group is ours for certain, now."""

    @property
    def ended(self) -> bool:
        """Tell whether somebody else has taken the group over: it will not be valid again."""

    @property
    def left_s(self) -> float:
        """Seconds for which the group is ours for certain; 0 or less when it is not."""

    async def wait_valid(self) -> None:
        """Wait until the group is ours for certain."""


@runtime_checkable
class DurableEventBus(AsyncEventBus, Protocol):
    """A bus with a log behind it: what engines run on outside of tests and backtests."""

    features: Feature

    async def attach(
        self,
        group: str,
        handler: DeliveryHandler,
        *,
        after: int | None = None,
        right: Right | None = None,
        conflation: Conflation | None = None,
    ) -> None:
        """Deliver to the group's durable consumer, in order, one at a time; acknowledge when the handler returns.

        `after` continues right behind that sequence of the log; None continues where the group stopped. With a
        `right`, nothing is delivered while that is not valid; with `conflation`, overtaken ticks may be left out. A
        handler that raises stops the delivery: the event is not acknowledged, and `wait_failed` raises.
        """

    async def detach(self, group: str, *, abandon: bool = False) -> None:
        """Finish the delivery in hand, acknowledge it and stop; `abandon` stops at once and acknowledges nothing."""

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
        """Publish in order, pipelined; returns when the log has acknowledged every one.

        By a `right` nothing is sent while that is not valid, and never when that has ended: then this waits until it
        is cancelled.
        """

    def replay(
        self, patterns: Iterable[str], *, after: int = 0, until: int | None = None, partition: int | None = None
    ) -> AsyncIterator[Delivery]:
        """Read a partition, or all (None), from behind `after` up to `until` (None: the present end of the log)."""

    async def last_sequence(self) -> int:
        """Return the sequence of the newest event in the log; 0 when it is empty."""

    async def trimmed(self) -> Trimmed:
        """Return how far the log was trimmed: replay from below that is of a part."""

    async def wait_settled(self) -> None:
        """Wait until every group has handled everything in the log, and what came of it."""


def handler_failed(event: Event, handler: object, error: BaseException, source: str = "event_bus") -> Event | None:
    """Log a handler's failure and make the `system.error` that reports it; None when the event was one itself."""
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    logger.error("handler %s failed on %s %s", name, event.type, event.id, exc_info=error, extra=about(event))
    if event.type == "system.error":
        return None
    message = f"the handler {name} raised {type(error).__name__} on {event.type}: {error}"
    payload = SystemEvent(name, message, Severity.ERROR, code="HANDLER_FAILED", event_id=event.id)
    return Event(
        "system.error",
        payload,
        source,
        timestamp_ns=event.timestamp_ns,
        created_ns=event.created_ns,
        correlation_id=event.correlation_id,
        causation_id=event.id,
        id=derive_id(event.id, "handler_failed", name),
    )


class Routes(dict[str, tuple[AnyHandler, ...]]):
    """The handlers of each event type: worked out when a type is first seen, and kept until a change."""

    def __init__(self) -> None:
        super().__init__()
        self._subscriptions: list[tuple[str, AnyHandler]] = []

    def __missing__(self, event_type: str) -> tuple[AnyHandler, ...]:
        """Work out the handlers of a type, in the order in which they subscribed, each once."""
        found: list[AnyHandler] = []
        for pattern, handler in self._subscriptions:
            if matches(pattern, event_type) and handler not in found:
                found.append(handler)
        return self.setdefault(event_type, tuple(found))

    def add(self, pattern: str, handler: AnyHandler) -> None:
        """Add a subscription; the same one twice counts once."""
        entry = (check_pattern(pattern), handler)
        if entry not in self._subscriptions:
            self._subscriptions.append(entry)
            self.clear()

    def discard(self, pattern: str, handler: AnyHandler) -> None:
        """Remove a subscription; an unknown one is ignored."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove((SPELLINGS.get(pattern, pattern), handler))
            self.clear()


class InMemoryEventBus:
    """The synchronous bus in memory: for backtests, replay and tests.

    `publish` returns when the event, and all that its handlers published, has been delivered. Handlers are
    isolated: one that raises is logged and reported as `system.error`, and the others still run. An event
    that is published inside a handler is delivered after the current one.
    """

    features = Feature.ISOLATED | Feature.CAUSE_FIRST | Feature.ORDERED

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._routes: Routes[Handler] = Routes()
        self._waiting: deque[Event] = deque()
        self._max_waiting = max_waiting
        self._busy = False

    def subscribe(self, event_type: str, handler: Handler) -> None:
        """Call the handler for each event whose type matches the pattern."""
        self._routes.add(event_type, handler)

    def unsubscribe(self, event_type: str, handler: Handler) -> None:
        """Stop calling the handler for the pattern, from the next event on; unknown ones are ignored."""
        self._routes.discard(event_type, handler)

    def publish(self, event: Event) -> None:
        """Deliver the event and everything that comes of it; inside a handler, after the current event.

        Raises `BusOverflow` when more than `max_waiting` events wait.
        """
        if self._busy:
            if len(self._waiting) >= self._max_waiting:
                raise BusOverflow(f"more than {self._max_waiting} events wait in the bus: handlers publish in a circle")
            self._waiting.append(event)
            return
        waiting = self._waiting
        if waiting:  # an interrupt left some over: they come first
            waiting.append(event)
            event = waiting.popleft()
        self._busy = True
        try:
            while True:
                for handler in self._routes[event.type]:
                    try:
                        handler(event)
                    except Exception as e:  # noqa: BLE001  # isolation: whatever a handler raises stays with it
                        self._report(event, handler, e)
                if not waiting:
                    return
                event = waiting.popleft()
        finally:
            self._busy = False

    def _report(self, event: Event, handler: Handler, error: Exception) -> None:
        report = handler_failed(event, handler, error)
        if report is not None:
            self._waiting.append(report)


class _Drain:
    """One event on its way through the asynchronous bus, with all that comes of it."""

    __slots__ = ("bus", "done", "waiting")

    def __init__(self, bus: AsyncInMemoryEventBus, event: Event) -> None:
        self.bus = bus
        self.waiting = deque([event])
        self.done = False


_DRAINS: ContextVar[tuple[_Drain, ...]] = ContextVar("botplatform_drains", default=())
"""The drains that the current code was called from, of all buses."""


class AsyncInMemoryEventBus:
    """The asynchronous bus in memory, with the rules of `InMemoryEventBus`.

    Outside of a handler, `publish` returns when the event and all that came of it has been delivered, and what
    several tasks publish is delivered one after the other, in the order of their calls. A caller that is
    cancelled stops waiting; what it published is delivered all the same. Inside a handler, also in tasks that
    the handler started and while it runs, `publish` returns at once, and the event follows the current one.
    """

    features = Feature.ISOLATED | Feature.CAUSE_FIRST | Feature.ORDERED

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._routes: Routes[AsyncHandler] = Routes()
        self._max_waiting = max_waiting
        self._turn = asyncio.Lock()
        self._deliveries: set[asyncio.Task[None]] = set()

    def subscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Await the handler for each event whose type matches the pattern."""
        self._routes.add(event_type, handler)

    def unsubscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Stop awaiting the handler for the pattern, from the next event on; unknown ones are ignored."""
        self._routes.discard(event_type, handler)

    async def publish(self, event: Event) -> None:
        """Deliver the event and everything that comes of it; inside a handler, after the current event.

        Raises `BusOverflow` when more than `max_waiting` events wait.
        """
        for drain in _DRAINS.get():
            if drain.bus is self and not drain.done:
                self._check_room(len(drain.waiting))
                drain.waiting.append(event)
                return
        self._check_room(len(self._deliveries))
        delivery = asyncio.create_task(self._deliver_all(_Drain(self, event)))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        await asyncio.shield(delivery)

    def _check_room(self, waiting: int) -> None:
        if waiting >= self._max_waiting:
            raise BusOverflow(f"more than {self._max_waiting} events wait in the bus: handlers publish in a circle")

    async def _deliver_all(self, drain: _Drain) -> None:
        async with self._turn:
            _DRAINS.set((*(outer for outer in _DRAINS.get() if not outer.done), drain))
            try:
                while drain.waiting:
                    event = drain.waiting.popleft()
                    for handler in self._routes[event.type]:
                        await self._call(handler, event, drain)
            finally:
                drain.done = True

    async def _call(self, handler: AsyncHandler, event: Event, drain: _Drain) -> None:
        try:
            await handler(event)
        except (Exception, asyncio.CancelledError) as e:  # isolation: what a handler raises stays with it
            task = asyncio.current_task()
            if isinstance(e, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the whole delivery is cancelled: the loop is closing
            report = handler_failed(event, handler, e)
            if report is not None:
                drain.waiting.append(report)


def describe(features: Feature) -> list[str]:
    """Name the declared features, for people."""
    return [flag.name.lower() for flag in Feature if flag in features and flag.name] or ["none"]

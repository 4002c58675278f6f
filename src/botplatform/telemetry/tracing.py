"""Traces of chains: spans are made after the fact, of the events, and nothing is ever started.

An event that is not traced costs a look at its header, and no call of the SDK.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from botplatform.core.event_bus import Delivery, DeliveryHandler
from botplatform.core.events import Event, OrderEvent, OrderStatus, SystemEvent
from botplatform.core.seam import Clock
from botplatform.telemetry.call import Call, Caused
from botplatform.telemetry.handling import Handling
from botplatform.telemetry.recovery import Recovery
from botplatform.telemetry.sampling import ALWAYS, FREQUENT, Sampler
from botplatform.telemetry.span_ids import (
    client_id,
    consumer_id,
    parse_traceparent,
    producer_id,
    read_tracestate,
    trace_of,
)
from botplatform.telemetry.spans import Failure, Kind, Link, Note, Span, Value
from botplatform.telemetry.turn import EXECUTION, Place, Turn

__all__ = ["Place", "Tracing"]

MAX_ROOTS: Final = 4096
MAX_SENT: Final = 100_000
"""Traced events that are remembered for a bus without headers."""
SOURCES: Final = frozenset({"market_data"})
"""Engines that publish and handle nothing."""
NEVER_SENT: Final = "NOT_AT_VENUE"
_FAILED: Final = frozenset({OrderStatus.REJECTED, OrderStatus.UNKNOWN})
_NOTHING: Final[Mapping[str, Handling]] = {}
AMISS: Final = "an event could not be traced; everything else goes on"
logger = logging.getLogger(__name__)
PublishAll = Callable[[Sequence[Event]], Awaitable[None]]


class Tracing:
    """The traces of one process. Its methods are called only where tracing is on.

    `emit` takes finished spans; `engines` are the names of all engines, because what others publish (an adapter, the
    gateway) belongs to execution. `headers` says whether the bus has any: in memory there are none. `nest` makes a span current for instrumentation of other people's.
    """

    def __init__(
        self,
        sampler: Sampler,
        emit: Callable[[Span], object],
        clock: Clock,
        *,
        engines: Collection[str],
        headers: bool = False,
        nest: Callable[[str, str], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.marked: dict[str, str] = {}
        """Ids of the events on their way to the log whose header says that they are traced, and their `tracestate`."""
        self.emit = emit
        self.clock = clock
        self.recovery = Recovery(self)
        self._sampler = sampler
        self._engines = frozenset(engines)
        self._nest = nest
        self.in_hand: dict[str, dict[str, Handling]] = {}
        """Events in hand, by the group that has them and their id; what each partition hears of, by the consumer."""
        self.latest: Handling | None = None
        """The hands that had the last event that passed."""
        self.passing: dict[Place, Handling] = {}
        """The hands of each place, which events may pass."""
        self._roots: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._sent: dict[str, None] = {}
        self._headers = headers

    def handling(self, place: Place) -> Handling:
        """Return what a consumer handles events in; a span ends when what came of its event is in the log."""
        hands = self.passing[place] = Handling(self, place)
        return hands

    def shared(self, group: str, handle: DeliveryHandler) -> DeliveryHandler:
        """Return the handler of a group that several processes share, with a span for each time that it is tried."""
        hands = self.handling(Place(group, shared=True))

        async def handle_traced(delivery: Delivery) -> None:
            with hands.take(delivery, self.clock.monotonic_ns()):
                await handle(delivery)

        return handle_traced

    def come(self, turn: Turn) -> None:
        """Take an event in hand that may be traced."""
        try:
            self._come(turn, turn.delivery.headers)
            if turn.sampled and self._nest is not None:
                nested = self._nest(turn.trace, turn.span)
                nested.__enter__()
                turn.nested = nested
        except Exception:
            logger.exception(AMISS)

    def gone(self, turn: Turn, error: BaseException | None) -> None:
        """Make the span of an event that was handled."""
        try:
            if turn.nested is not None:
                turn.nested.__exit__(None, None, None)
            if isinstance(error, asyncio.CancelledError):
                turn.note("cancelled", self.clock.now_ns())
            elif isinstance(error, Exception):
                turn.failure = turn.failure or Failure.of(error)
            if turn.sampled or turn.needed:
                self.consumed(turn)
        except Exception:
            logger.exception(AMISS)

    def _come(self, turn: Turn, headers: bytes | None) -> None:
        """Find out what an event came with."""
        event = turn.event
        if headers is None:
            known = event.id in self._sent
            turn.sampled = known or event.type in ALWAYS
            if known:
                turn.parent = producer_id(event.id)
            else:
                _begin_untraced(turn)
            return
        parent = parse_traceparent(headers)
        if parent is None or not parent.sampled:
            turn.sampled = event.type in ALWAYS
            _begin_untraced(turn)
        elif parent.trace == turn.trace:
            turn.sampled, turn.parent = True, parent.span
            self._take_state(turn, headers)
        else:  # the span of its publisher is in another trace: somebody makes one in this
            turn.sampled, turn.links = True, (Link(parent.trace, parent.span),)
            turn.parent, turn.begins = producer_id(event.id), turn.is_first

    def _take_state(self, turn: Turn, headers: bytes) -> None:
        """Remember the `tracestate` of a trace, which what comes of the event is published with."""
        state = read_tracestate(headers)
        if not state:
            return
        self._states.pop(turn.trace, None)
        if len(self._states) >= MAX_ROOTS:
            del self._states[next(iter(self._states))]
        self._states[turn.trace] = state

    def consumed(self, turn: Turn) -> None:
        """Emit the span of an event that was handled."""
        event, trace, span = turn.event, turn.trace, turn.span
        if self.recovery.is_old(turn):
            return
        if turn.begins:
            self.produced(event, "", event.created_ns, event.created_ns, links=turn.links, recovered=turn.recovered)
        parent = turn.parent
        if not parent:
            parent = self._roots.get(trace, "")
            if parent == span:
                parent = ""
            if not parent:
                self._begin(trace, span)
            if event.type in FREQUENT:
                turn.notes = (*_upstream(event), *turn.notes)
        name, now, attributes = f"process {event.type}", self.clock.now_ns(), turn.attributes()
        notes, failure = turn.notes, turn.failure
        start = event.created_ns if turn.recovered else turn.start_ns
        end = event.created_ns if turn.recovered else now
        self.emit(
            Span(
                *(turn.place.group, name, Kind.CONSUMER, trace, span, parent, start, end),
                *(event, attributes, notes, turn.links, failure, self._states.get(trace, "")),
            )
        )

    def _begin(self, trace: str, span: str) -> None:
        """Remember the root of a trace: whatever else of it has no parent comes under it."""
        if len(self._roots) >= MAX_ROOTS:
            del self._roots[next(iter(self._roots))]
        self._roots[trace] = span

    def leaves_out(self, events: Sequence[Event]) -> bool:
        """Tell at once of the most frequent case, events that came of one that is not traced, that they are not either."""
        hands = self.latest
        if hands is None or hands.turn is not None or hands.passing is None:
            return False
        cause, group = hands.passing.event.id, hands.place.group
        for event in events:
            if event.causation_id != cause or event.source != group or event.type not in FREQUENT:
                return False
        return True

    async def publish(self, events: Sequence[Event], publish_all: PublishAll) -> None:
        """Publish, with the header that says what is traced; spans end when the log has acknowledged."""
        traced = self._choose(events)
        if not traced:
            await publish_all(events)
            return
        start = self.clock.now_ns()
        failure: Failure | None = None
        states, marked = self._states, self.marked
        for event, _ in traced:
            marked[event.id] = states.get(trace_of(event), "") if states else ""
        if not self._headers:
            self._remember(event.id for event, _ in traced)
        try:
            await publish_all(events)
        except BaseException as e:
            failure = Failure.of(e)
            raise
        finally:
            for event, _ in traced:
                marked.pop(event.id, None)
            end = self.clock.now_ns()
            try:
                for event, parent in traced:
                    self.produced(event, parent, start, end, failure)
            except Exception:
                logger.exception(AMISS)

    def _choose(self, events: Sequence[Event]) -> Sequence[tuple[Event, str]]:
        """Return which events are traced, each with the id of its parent span."""
        try:
            if len(events) == 1:  # the most frequent case
                event = events[0]
                hands = self.in_hand.get(event.source, _NOTHING).get(event.causation_id)
                turn = None if hands is None else hands.turn
                if turn is not None and turn.sampled and turn.trace == trace_of(event):
                    turn.needed = True
                    return ((event, turn.span),)
            told_of = {event.causation_id for event in events if event.type not in FREQUENT} if len(events) > 1 else ()
            chosen = [event for event in events if event.type in ALWAYS or self._is_sampled(event, told_of)]
            batch = {event.id for event in events} if chosen else ()
            return [(event, self.parent_of(event, batch)) for event in chosen]
        except Exception:
            logger.exception(AMISS)
            return ()

    def _remember(self, ids: Iterable[str]) -> None:
        """Remember what is traced, for a bus whose deliveries do not say it."""
        self._sent.update(dict.fromkeys(ids))
        while len(self._sent) > MAX_SENT:
            del self._sent[next(iter(self._sent))]

    def _is_sampled(self, event: Event, told_of: Collection[str]) -> bool:
        """Tell whether an event is traced: as what it came of is; a root by ratio, or for what is told of it beside.

        `told_of` are the ids of what an event that is not frequent came of: of a tick, that the feed was silent before.
        """
        cause, source = event.causation_id, event.source
        if not cause:
            return event.id in told_of or self._sampler.root(event)
        hands = self._hands(cause, source)
        if hands is not None:
            turn = hands.turn
            return turn is not None and (turn.sampled or turn.failure is not None)
        return event.type not in FREQUENT or self._sampler.chain(trace_of(event))

    def _turn(self, event_id: str, group: str) -> Turn | None:
        """Return what is known of an event in hand, for a span that it may need."""
        hands = self._hands(event_id, group)
        return None if hands is None else hands.look()

    def _hands(self, event_id: str, group: str) -> Handling | None:
        latest = self.latest
        if latest is not None and latest.place.group == group and latest.has(event_id):
            return latest
        found = self.in_hand.get(group, _NOTHING).get(event_id)
        if found is None:
            found = next(
                (each for place, each in self.passing.items() if place.group == group and each.has(event_id)), None
            )
        return found or Handling.of_broadcast(event_id, group)

    def is_traced(self, event: Event, group: str) -> bool:
        """Tell whether an event that a group has in hand is traced."""
        hands = self._hands(event.id, group)
        return hands is not None and hands.turn is not None and hands.turn.sampled

    def is_sampled_chain(self, trace: str) -> bool:
        """Tell whether the ticks of a chain are traced, by its trace id."""
        return self._sampler.chain(trace)

    def parent_of(self, event: Event, batch: Collection[str] = ()) -> str:
        """Return the id of the span that an event was published in or because of; empty for a root."""
        cause, source = event.causation_id, event.source
        if not cause:
            return ""
        turn = self._turn(cause, source)
        if turn is not None and turn.trace == trace_of(event):
            turn.needed = True
            return turn.span
        if cause in batch or source in SOURCES:
            return producer_id(cause)
        if source in self._engines:
            return consumer_id(cause, source)
        return self._outside(event)

    def _outside(self, event: Event) -> str:
        """Return the parent of what an adapter or the gateway says, of an order or of what went wrong with one."""
        cause, payload = event.causation_id, event.payload
        if type(payload) is OrderEvent:
            if payload.status is OrderStatus.DENIED or payload.reason_code == NEVER_SENT:
                return producer_id(cause)
            self.recovery.need_call(cause)
            return client_id(cause, "submit")
        if type(payload) is SystemEvent and payload.code == "CANCEL_FAILED":
            return consumer_id(cause, EXECUTION)
        return producer_id(cause)

    def produced(
        self,
        event: Event,
        parent: str,
        start: int,
        end: int,
        failure: Failure | None = None,
        *,
        links: tuple[Link, ...] = (),
        recovered: bool = False,
    ) -> None:
        """Emit the span of an event that was published."""
        attributes: dict[str, Value] = {"botplatform.recovered": True} if recovered else {}
        payload = event.payload
        if failure is None and type(payload) is OrderEvent and payload.status in _FAILED:
            failure = Failure(payload.reason_code or payload.status.value, payload.reason_text)
        name, trace, span = f"publish {event.type}", trace_of(event), producer_id(event.id)
        self.emit(
            Span(
                *(self.service_of(event.source), name, Kind.PRODUCER, trace, span, parent, start, end),
                *(event, attributes, (), links, failure, self._states.get(trace, "")),
            )
        )

    def service_of(self, source: str) -> str:
        """Return the engine that publishes under a source."""
        return source if source in self._engines else EXECUTION

    def known(self, event: Event | None) -> None:
        """Take the news that an output was found in the log, because an earlier owner had published it."""
        turn = None if event is None else self._turn(event.causation_id, event.source)
        if event is not None and turn is not None and self.recovery.is_lost(event, turn.place):
            turn.needed = True

    def failed(self, event: Event, group: str, error: Exception, letter: str) -> None:
        """Take the news that an event in hand was put aside, as a dead letter."""
        turn = self._turn(event.id, group)
        if turn is not None:
            turn.failure = said = Failure.of(error)
            about: dict[str, Value] = {"exception.type": said.type, "exception.message": said.text}
            turn.note("dead letter", self.clock.now_ns(), about | {"botplatform.dead_letter": letter})

    def note(self, event: Event, group: str, name: str, **attributes: Value) -> None:
        """Add something that happened to the span of an event in hand."""
        turn = self._turn(event.id, group)
        if turn is not None:
            turn.note(name, self.clock.now_ns(), attributes)

    def call(self, operation: str, venue: str, order: Any, cause: Caused) -> Call:
        """Begin a call of a venue, as a context; see `Call`."""
        return Call(operation, venue, order, cause, emit=self.emit, now_ns=self.clock.now_ns, attempts=self.recovery)


def _begin_untraced(turn: Turn) -> None:
    """Say what is above an event whose publisher does not trace: one span for all that hear of it, where that is needed."""
    event, group = turn.event, turn.place.group
    if turn.everywhere:
        turn.parent, turn.begins = producer_id(event.id), turn.is_first
    elif group != EXECUTION and event.type in ALWAYS:  # execution begins the trace of a decision then
        turn.parent = consumer_id(event.id, EXECUTION)


def _upstream(event: Event) -> tuple[Note, ...]:
    """Say when what came before happened, where only this much of the chain is traced."""
    return (
        Note("market.snapshot", event.timestamp_ns, {"botplatform.event_id": event.causation_id or event.id}),
        Note(f"{event.type} made", event.created_ns, {"botplatform.event_id": event.id}),
    )

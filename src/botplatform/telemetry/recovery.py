"""The spans that a dead process had made and not sent: its successor makes them again, from the log, with equal ids.

A process sends spans every half a second, so `kill -9` loses the newest ones, and what others made below them would
hang in the air. Only what is always traced is made again, and only of the last moments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from botplatform.core.event_bus import Delivery
from botplatform.core.events import CATALOGUE, Event, OrderEvent
from botplatform.core.patterns import matches
from botplatform.telemetry.call import SUBMIT
from botplatform.telemetry.sampling import ALWAYS, FREQUENT
from botplatform.telemetry.span_ids import consumer_id, producer_id, trace_of
from botplatform.telemetry.spans import Kind, Span, Value
from botplatform.telemetry.turn import EVERYWHERE, Place, Turn

if TYPE_CHECKING:
    from botplatform.telemetry.tracing import Tracing

__all__ = ["LOOK_BACK", "Recovery", "rare"]

WINDOW_NS: Final = 2_000_000_000
"""How long before the last output of the dead process its spans may have been lost."""
LOOK_BACK: Final = 5_000
"""How far the log is read back for them, in events."""
EXECUTION: Final = "execution"
MAX_ATTEMPTS: Final = 1024
MAX_CALLS: Final = 1024
MAX_CAUSES: Final = 100
"""How far causes are followed: what somebody else published may even be its own cause."""


class _Window(NamedTuple):
    since: int
    """Spans of what was made earlier were sent."""
    last: int
    """Sequence of the dead owner's last output: it had handled what is before."""
    made: set[str]
    """Ids of spans that were made again."""


def rare(patterns: Iterable[str]) -> list[str]:
    """Return the types among those that patterns mean which are always traced."""
    given = tuple(patterns)
    return [kind for kind in CATALOGUE if kind not in FREQUENT and any(matches(one, kind) for one in given)]


def _is_traced(event: Event, found: Mapping[str, Delivery]) -> bool:
    """Tell whether an event was traced: as far as the causes that were found say."""
    for _ in range(MAX_CAUSES):
        if event.type in ALWAYS:
            return True
        cause = found.get(event.causation_id)
        if cause is None:
            break
        event = cause.event
    return False


class Recovery:
    """What earlier owners of this process's partitions may have left unsent."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._calls: dict[str, Event] = {}
        self._attempts: dict[str, int] = {}
        self._windows: dict[tuple[str, int | None], _Window] = {}

    async def recover(self, place: Place, sources: Collection[str], handled: int, log: AsyncIterator[Delivery]) -> None:
        """Make spans again of what a dead owner published last, and of what it had handled by its checkpoint.

        `handled` is the sequence of that checkpoint: what came later is handled again anyway.
        """
        found = {delivery.event.id: delivery async for delivery in log}
        own = [delivery for delivery in found.values() if delivery.event.source in sources]
        if not own:
            return
        since = max(delivery.event.created_ns for delivery in own) - WINDOW_NS
        window = self._windows[place.group, place.partition] = _Window(since, own[-1].sequence, set())
        for delivery in found.values():
            event = delivery.event
            if event.created_ns < since or not _is_traced(event, found):
                continue
            if event.source in sources:
                self._publish_again(place, event, found, handled)
            if event.source not in sources or place.group == EXECUTION:
                self._handle_again(place, delivery, handled, window)

    def _publish_again(self, place: Place, event: Event, found: dict[str, Delivery], handled: int) -> None:
        tracing, at, window = self._tracing, event.created_ns, self._windows[place.group, place.partition]
        if event.type == "order.submitted":
            if len(self._calls) >= MAX_CALLS:
                del self._calls[next(iter(self._calls))]
            self._calls[event.id] = event
        cause = found.get(event.causation_id)
        beside = cause is not None and cause.event.source == event.source == place.group
        if cause is not None and not beside and event.source == place.group:
            self._handle_again(place, cause, handled, window)
        if event.type == "strategy.decision":
            self._root_again(place, event, window)
        parent = tracing.parent_of(event, found if beside else ())
        if cause is not None and event.source == place.group and cause.event.type.startswith(EVERYWHERE):
            parent = Turn(cause, place, at).span
        tracing.produced(event, parent, at, at, recovered=True)

    def _handle_again(self, place: Place, delivery: Delivery, handled: int, window: _Window) -> None:
        turn = Turn(delivery, place, delivery.event.created_ns)
        if delivery.sequence > handled or turn.span in window.made:
            return
        window.made.add(turn.span)
        turn.recovered, turn.parent = True, producer_id(delivery.event.id)
        turn.begins = turn.everywhere and turn.is_first  # whether whoever published it has, the log does not tell
        self._tracing.consumed(turn)

    def _root_again(self, place: Place, decision: Event, window: _Window) -> None:
        """Make the span again that handled the signals of a decision: the signals themselves are not read back."""
        cause, trace, at = decision.causation_id, trace_of(decision), decision.created_ns
        span = consumer_id(cause, place.group)
        if span in window.made:
            return
        window.made.add(span)
        parent = producer_id(cause) if self._tracing.is_sampled_chain(trace) else ""
        attributes: dict[str, Value] = {"messaging.message.id": cause, "botplatform.recovered": True}
        name = "process signal.snapshot"
        self._tracing.emit(Span(place.group, name, Kind.CONSUMER, trace, span, parent, at, at, None, attributes))

    def is_old(self, turn: Turn) -> bool:
        """Tell whether a dead owner has handled this event already, and its span was sent long ago, or made again."""
        window = self._windows.get((turn.place.group, turn.place.partition)) if self._windows else None
        if window is None or turn.recovered or turn.delivery.sequence > window.last:
            return False
        turn.recovered = True
        return turn.span in window.made or not (turn.needed or turn.event.created_ns >= window.since)

    def is_lost(self, event: Event, place: Place) -> bool:
        """Tell whether the span of an output of a dead owner may not have been sent."""
        window = self._windows.get((place.group, place.partition))
        return window is not None and event.created_ns >= window.since

    def need_call(self, submitted: str) -> None:
        """Make the span of a call again whose report is there, where its own process may not have sent it."""
        event = self._calls.pop(submitted, None)
        if event is not None and type(event.payload) is OrderEvent:
            call = self._tracing.call(SUBMIT, event.payload.venue, event.payload, event)
            call.end(event.created_ns, event.created_ns, recovered=True)

    def attempts(self, submitted: str) -> int:
        """Return how often this process has sent an order to the venue so far."""
        return self._attempts.get(submitted, 0)

    def called(self, submitted: str) -> int:
        """Take the news that this process has sent an order to the venue; return how often it had done so before."""
        self._calls.pop(submitted, None)
        before = self._attempts.pop(submitted, 0)
        if len(self._attempts) >= MAX_ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[submitted] = before + 1
        return before

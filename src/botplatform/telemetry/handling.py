"""Events while they are handled: what tracing costs one that is not traced is here, below one microsecond."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final

from botplatform.core.event_bus import Delivery
from botplatform.telemetry.sampling import ALWAYS
from botplatform.telemetry.turn import Place, Turn

if TYPE_CHECKING:
    from botplatform.telemetry.tracing import Tracing

__all__ = ["Handling"]

UNTRACED: Final = b"-00\r\n"
"""The end of a `traceparent` header that says that its sender does not trace the event."""


_BROADCAST: Final[ContextVar[Handling | None]] = ContextVar("botplatform_broadcast", default=None)
"""The hands that the current code is in, where they have what each partition hears of: several may have it at once."""


class Handling:
    """The hands of one consumer, as a context that is used again for each event; what is raised in it goes through.

    It has one event at a time. `with handling.take(delivery, begun_ns) as traced:`, where `begun_ns` is of the
    monotonic clock, and `traced` tells whether the event is. For one that is not, nothing is made unless something
    traced comes of it.
    """

    __slots__ = ("_begun_ns", "_delivery", "_key", "_tracing", "place", "turn")

    def __init__(self, tracing: Tracing, place: Place) -> None:
        self.place = place
        self.turn: Turn | None = None
        """What is known of the event in hand for its span; None when there may be none."""
        self._tracing = tracing
        self._delivery: Delivery
        self._begun_ns = 0
        self._key = ("", "")

    def take(self, delivery: Delivery, begun_ns: int) -> Handling:
        """Take an event."""
        event, headers, tracing = delivery.event, delivery.headers, self._tracing
        self._delivery = delivery
        self._begun_ns = begun_ns
        self.turn = None
        self._key = key = (event.id, self.place.group)
        if headers is None or UNTRACED not in headers or event.type in ALWAYS:
            turn = self.look()
            if turn.everywhere:
                self._key = key = (event.id, self.place.slot or self.place.group)
                _BROADCAST.set(self)
            tracing.come(turn)
        tracing.in_hand[key] = self
        return self

    @classmethod
    def of_broadcast(cls, event_id: str, group: str) -> Handling | None:
        """Return the hands that the current code is in, where they are of that group and have that broadcast."""
        hands = _BROADCAST.get()
        if hands is None or hands.turn is None or hands.place.group != group or hands.turn.event.id != event_id:
            return None
        return hands

    def look(self) -> Turn:
        """Return what is known of the event in hand, from now on for a span."""
        turn = self.turn
        if turn is None:
            clock = self._tracing.clock
            start_ns = clock.now_ns() - (clock.monotonic_ns() - self._begun_ns)
            turn = self.turn = Turn(self._delivery, self.place, start_ns)
        return turn

    def __enter__(self) -> bool:
        """Begin; return whether the event is traced."""
        return self.turn is not None and self.turn.sampled

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; there is a span if the event is traced, or if something came of it that is."""
        tracing, turn = self._tracing, self.turn
        tracing.in_hand.pop(self._key, None)
        if turn is not None:
            if turn.everywhere:
                _BROADCAST.set(None)
            tracing.gone(turn, error)

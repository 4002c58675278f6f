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

    __slots__ = ("_among", "_begun_ns", "_delivery", "_mine", "_tracing", "passing", "place", "turn")

    def __init__(self, tracing: Tracing, place: Place) -> None:
        self.place = place
        self.turn: Turn | None = None
        """What is known of the event in hand for its span; None when there may be none."""
        self.passing: Delivery | None = None
        """An event in hand that passes: it is not traced, unless something traced comes of it."""
        self._tracing = tracing
        self._delivery: Delivery
        self._begun_ns = 0
        self._mine = self._among = tracing.in_hand.setdefault(place.group, {})

    def passes(self, delivery: Delivery, begun_ns: int) -> bool:
        """Tell whether an event passes, because it is not traced: by its header, and its type.

        Then it is in hand until `passing` is set to None, or until `end` where there is a `turn` by then. Any other
        has to be taken.
        """
        headers = delivery.headers
        if headers is None or UNTRACED not in headers or delivery.event.type in ALWAYS:
            return False
        self.passing = delivery
        self._begun_ns = begun_ns
        self.turn = None
        self._tracing.latest = self
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Have done with an event that passed; there is a span if something traced came of it."""
        self.passing = None
        if self.turn is not None:
            self._tracing.gone(self.turn, error)

    def has(self, event_id: str) -> bool:
        """Tell whether an event passes at present."""
        return self.passing is not None and self.passing.event.id == event_id

    def take(self, delivery: Delivery, begun_ns: int) -> Handling:
        """Take an event."""
        event, headers = delivery.event, delivery.headers
        self._delivery = delivery
        self._begun_ns = begun_ns
        self.turn = None
        among = self._mine
        if headers is None or UNTRACED not in headers or event.type in ALWAYS:
            turn, tracing = self.look(), self._tracing
            if turn.everywhere:
                among = tracing.in_hand.setdefault(self.place.slot or self.place.group, {})
                _BROADCAST.set(self)
            tracing.come(turn)
        self._among = among
        among[event.id] = self
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
            turn = self.turn = Turn(self.passing or self._delivery, self.place, start_ns)
        return turn

    def __enter__(self) -> bool:
        """Begin; return whether the event is traced."""
        return self.turn is not None and self.turn.sampled

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; there is a span if the event is traced, or if something came of it that is."""
        self._among.pop(self._delivery.event.id, None)
        turn = self.turn
        if turn is not None:
            if turn.everywhere:
                _BROADCAST.set(None)
            self._tracing.gone(turn, error)

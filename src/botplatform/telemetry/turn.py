"""An event in hand: what its CONSUMER span will be, if there is to be one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Final, NamedTuple

from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event
from botplatform.telemetry.span_ids import consumer_id, trace_of
from botplatform.telemetry.spans import Failure, Link, Note, Value

__all__ = ["EVERYWHERE", "Place", "Turn"]

NONE: Final[Mapping[str, Value]] = MappingProxyType({})
EVERYWHERE: Final = "trading."
"""What each partition hears of."""
EXECUTION: Final = "execution"
_BEGUN_IN: Final = {"market": "signals", "signal": "strategy", "strategy": EXECUTION, "order": EXECUTION}
_BEGUN_IN_ELSE: Final = "monitoring"


class Place(NamedTuple):
    """Where events are handled."""

    group: str
    """The engine: the consumer group, and the source of what it publishes."""
    partition: int | None = None
    slot: str = ""
    """Name of the consumer."""
    shared: bool = False
    """Several processes share the group: what fails in one is tried again by any."""


class Turn:
    """One event in the hands of one group."""

    sampled = False
    """It is traced because what it came of is, or because it always is."""
    needed = False
    """Something that is traced came of it, so it has to be there."""
    recovered = False
    """An earlier owner may have made this span, and not sent it."""
    parent = ""
    state = ""
    """The `tracestate` that the event came with."""
    begins = False
    """The span in which the event was published is made here: whoever published it made none in its trace."""
    links: tuple[Link, ...] = ()
    notes: tuple[Note, ...] = ()
    failure: Failure | None = None
    nested: AbstractContextManager[object] | None = None
    """Makes its span current for other people's instrumentation."""
    _trace = ""
    _span = ""

    def __init__(self, delivery: Delivery, place: Place, start_ns: int) -> None:
        self.event: Event = delivery.event
        self.delivery = delivery
        self.place = place
        self.start_ns = start_ns

    def note(self, name: str, at_ns: int, attributes: Mapping[str, Value] = NONE) -> None:
        """Add something that happened."""
        self.notes = (*self.notes, Note(name, at_ns, attributes))

    @property
    def everywhere(self) -> bool:
        """Whether each partition hears of the event."""
        return self.event.type.startswith(EVERYWHERE)

    @property
    def span(self) -> str:
        """The id of its span; each partition hears of changes of the trading state, so they are told apart there."""
        if not self._span:
            self._span = self._make_span()
        return self._span

    def _make_span(self) -> str:
        place = self.place
        group = place.slot or place.group if self.everywhere else place.group
        if place.shared and self.delivery.redelivered:
            group = f"{group}/{int(self.delivery.redelivered)}"
        return consumer_id(self.event.id, group)

    @property
    def trace(self) -> str:
        """The trace id."""
        if not self._trace:
            self._trace = trace_of(self.event)
        return self._trace

    @property
    def is_first(self) -> bool:
        """Whether of all that hear of the event this is the one that makes the span of its publishing, where nobody did."""
        kind = self.event.type.partition(".")[0]
        if self.everywhere:
            return self.place.group == EXECUTION and not self.place.partition
        return self.place.group == _BEGUN_IN.get(kind, _BEGUN_IN_ELSE)

    def attributes(self) -> dict[str, Value]:
        """Return what only the delivery knows."""
        found: dict[str, Value] = {
            "messaging.consumer.group.name": self.place.group,
            "messaging.nats.stream.sequence": self.delivery.sequence,
        }
        if self.place.partition is not None:
            found["botplatform.partition"] = self.place.partition
        if self.delivery.redelivered:
            found["botplatform.redelivered"] = True
            found["botplatform.delivery_count"] = self.delivery.redelivered + 1
        if self.recovered:
            found["botplatform.recovered"] = True
        return found

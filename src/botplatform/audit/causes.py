"""Causes: each event's has to stand before it in the log, and an engine answers them in their order."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container
from typing import Final, NamedTuple

from botplatform.audit.known import Known
from botplatform.audit.report import Findings, Rule
from botplatform.core.events import Event

__all__ = ["Causes"]

IN_ORDER: Final = frozenset({"signal.snapshot", "strategy.decision", "order.submitted"})
"""Types whose cause is the event that the engine had in hand, so that their causes never cross.

Others name an earlier cause on purpose: a fill that of its order, which may be older than the last one filled.
"""
NEVER_ROOTS: Final = ("signal.snapshot", "state.updated", "order.")
"""What cannot be without a cause; anything else may be published by a person."""
KEPT_CAUSES: Final = "order."
"""Types whose causes never expire: decisions and orders are kept."""
SHORT_LIVED: Final = ("market.", "signal.")
"""Types that expire."""
LATE_NS: Final = 60 * 10**9
"""How long after the oldest tick in the log an event's cause may have been older than that tick."""
EDGE_NS: Final = 5 * 10**9
"""How long after the oldest tick in the log others, and what answers them, may have expired while it was read."""
MAX_LANES: Final = 1_000_000

Resolved = Callable[[int, int], None]


class _Asked(NamedTuple):
    """Events whose cause was not seen lately: columns, because there may be millions."""

    causes: array[int]
    sequences: array[int]
    created: array[int]
    kept: bytearray
    lanes: array[int]
    """The number of the lane in which causes must not cross, from 1; 0 for none."""


class Causes:
    """Finds the cause of each event: at once when it is recent, at the end of the log otherwise."""

    def __init__(self, findings: Findings, known: Known, *, after: int, before_ns: int | None = None) -> None:
        self._findings = findings
        self._known = known
        self._after = after
        self._before_ns = before_ns
        self._asked = _Asked(array("q"), array("Q"), array("q"), bytearray(), array("L"))
        self._lanes: dict[tuple[str, str, str], int] = {}
        self._newest = array("Q", [0])
        self._horizon: tuple[int, int] | None = None

    def take(self, event: Event, sequence: int, *, lost: int) -> int:
        """Check an event's cause and return its place; 0 when it has none, or is only known at the end.

        `lost` is how many sequences before this one are not in the log.
        """
        kind, cause = event.type, event.causation_id
        if self._horizon is None and kind.startswith(SHORT_LIVED):
            self._horizon = (lost, event.created_ns)
        if not cause:
            if kind.startswith(NEVER_ROOTS):
                self._findings.add(Rule.NO_CAUSE, sequence, event.id, "{} of {} names no cause", kind, event.source)
            return 0
        place = self._known.find(hash(cause))
        lane = self._lane(event) if kind in IN_ORDER else 0
        if not place:
            asked = self._asked
            asked.causes.append(hash(cause))
            asked.sequences.append(sequence)
            asked.created.append(event.created_ns)
            asked.kept.append(kind.startswith(KEPT_CAUSES))
            asked.lanes.append(lane)
        elif lane:
            self._check_order(self._newest, lane, sequence, place, event.id)
        return place

    def at_edge(self, created_ns: int) -> bool:
        """Tell whether something of that time stands beside what has expired."""
        return self._horizon is not None and self._horizon[0] > 0 and created_ns <= self._horizon[1] + EDGE_NS

    def _lane(self, event: Event) -> int:
        """Number what one engine publishes of one type for one key."""
        lane = (event.type, event.source, event.key)
        number = self._lanes.get(lane, 0)
        if not number and len(self._lanes) < MAX_LANES:
            number = self._lanes[lane] = len(self._newest)
            self._newest.append(0)
        return number

    def _check_order(self, newest: array[int], lane: int, sequence: int, place: int, event_id: str) -> None:
        last = newest[lane]
        if place < last:
            names = list(self._lanes)[lane - 1]
            text = "{} of {} for {} comes of event {}, after one that comes of the later event {}"
            self._findings.add(Rule.CAUSES_CROSSED, sequence, event_id, text, *names, place, last)
        else:
            newest[lane] = place

    @property
    def open(self) -> array[int]:
        """The causes that have to be looked for in the whole log."""
        return self._asked.causes

    def finish(self, places: array[int], lost: int, repeated: Container[int], resolved: Resolved) -> None:
        """Judge what was open, given where each of `open` is in the log; tell `resolved` what was found.

        `repeated` are the places of events that stand in the log before, and were judged there.
        """
        horizon_lost, horizon_ns = self._horizon or (lost, 1 << 63)
        newest = array("Q", bytes(8 * len(self._newest)))  # old causes: compared with one another
        for index, place in enumerate(places):
            sequence = self._asked.sequences[index]
            if sequence in repeated:
                continue
            if place:
                if place > sequence:
                    self._findings.add(Rule.CAUSE_LATER, sequence, "", "its cause comes later, at {}", place)
                if lane := self._asked.lanes[index]:
                    self._check_order(newest, lane, sequence, place, "")
                resolved(sequence, place)
            elif self._may_lie_before(index):
                self._findings.add(Rule.CAUSE_GONE, sequence, "", "its cause may lie before {}", self._after + 1)
            elif horizon_lost and not self._asked.kept[index] and self._asked.created[index] <= horizon_ns + LATE_NS:
                self._findings.add(Rule.CAUSE_GONE, sequence, "", "its cause has expired")
            else:
                self._findings.add(Rule.NO_CAUSE, sequence, "", "its cause is not in the log")

    def _may_lie_before(self, index: int) -> bool:
        """Tell whether a cause may lie before what was read: that of an order whenever, others only for a while."""
        if not self._after or self._before_ns is None:
            return bool(self._after)
        return bool(self._asked.kept[index]) or self._asked.created[index] <= self._before_ns + LATE_NS

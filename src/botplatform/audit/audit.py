"""The audit of a log: fed one event after the other, in the order of the log, and pure."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from botplatform.audit.answers import Actions, Ticks
from botplatform.audit.causes import Causes
from botplatform.audit.feeds import Feeds
from botplatform.audit.known import Known
from botplatform.audit.report import AuditReport, Findings, Rule
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, MarketEvent, OrderEvent, SignalEvent, StrategyEvent, SystemEvent
from botplatform.errors import StateError
from botplatform.runtime.left_out import CONFLATED, left_out_by

__all__ = ["Audit"]

ANSWERER: Final = "signals"
"""The engine that answers snapshots: what it leaves out needs no answer."""
FINEST_MARK_NS: Final = 1_000_000
"""Least distance of two marks of how far the log's time has come: how exactly young events are told from old ones."""
MARKS: Final = 1_000
"""Marks that are kept."""


class Audit:
    """Counts what is missing, doubled, out of order and without a cause.

    `signal_sets` names the sets that have to answer each snapshot. What is unanswered and was made within the last
    `grace_s` seconds of the log (default 5) still waits. `after` is the sequence behind which reading began: what
    lies before it is not known; `before_ns` is the time by which all of that was stored, where it is known. Takes about 30 bytes of memory an event: no event is kept.
    """

    def __init__(
        self,
        *,
        signal_sets: Iterable[str] = ("default",),
        grace_s: float = 5.0,
        after: int = 0,
        before_ns: int | None = None,
    ) -> None:
        self._after = after
        self._grace_ns = round(grace_s * 1e9)
        self._mark_ns = max(FINEST_MARK_NS, self._grace_ns // MARKS)
        self._findings = Findings()
        self._ids = Known()
        self._trades = Known()
        self._orders = Known()
        self._decisions = Known()
        self._causes = Causes(self._findings, self._ids, after=after, before_ns=before_ns)
        self._feeds = Feeds(self._findings)
        self._ticks = Ticks(self._findings, signal_sets)
        self._actions = Actions(self._findings)
        self._marks: deque[tuple[int, int]] = deque([(0, 0)])
        self._events = 0
        self._first = 0
        self._last = after
        self._lost = 0
        self._take: dict[type, Callable[[Event, int, int], None]] = {
            MarketEvent: self._market,
            SignalEvent: self._signal,
            StrategyEvent: self._decision,
            OrderEvent: self._order,
            SystemEvent: self._system,
        }

    def feed(self, delivery: Delivery) -> None:
        """Take the next event of the log; raise `StateError` for one that does not stand behind the last one."""
        event, sequence = delivery.event, delivery.sequence
        gap = sequence - self._last - 1
        if gap:
            self._gap(sequence, gap)
        self._last = sequence
        self._events += 1
        if event.created_ns > self._marks[-1][0] + self._mark_ns:
            self._mark(event.created_ns, sequence)
        before = self._ids.add(hash(event.id), sequence)
        if before:
            self._findings.add(Rule.ID_TWICE, sequence, event.id, "{} is stored at {} already", event.type, before)
            return
        cause = self._causes.take(event, sequence, lost=self._lost)
        take = self._take.get(type(event.payload))
        if take is not None:
            take(event, sequence, cause)

    def _gap(self, sequence: int, gap: int) -> None:
        if gap < 0:
            raise StateError(f"the audit was given sequence {sequence} after {self._last}: read the log in its order")
        if not self._events:
            self._first = sequence
        self._lost += gap
        text = "{} sequences before this one are not in the log"
        self._findings.add(Rule.GONE, sequence, "", text, gap, count=gap)

    def _mark(self, created_ns: int, sequence: int) -> None:
        marks = self._marks
        marks.append((created_ns, sequence))
        while len(marks) > 1 and marks[1][0] < created_ns - self._grace_ns:
            marks.popleft()

    def _market(self, event: Event, sequence: int, _cause: int) -> None:
        snapshot = event.payload
        assert type(snapshot) is MarketEvent
        edge = self._causes.at_edge(event.created_ns)
        whole = not self._lost and not self._after
        wanted = self._feeds.take(event, snapshot, sequence, whole=whole, edge=edge)
        if edge:
            self._findings.add(Rule.EDGE, sequence, event.id, "this snapshot of {} is not judged", snapshot.symbol)
            wanted = False
        self._ticks.add(sequence, self._feeds.number(snapshot.symbol), wanted=wanted)

    def _signal(self, event: Event, sequence: int, cause: int) -> None:
        payload = event.payload
        assert type(payload) is SignalEvent
        if cause:
            self._ticks.answer(cause, payload.signal_name, sequence, event.id)
        elif event.causation_id:
            self._ticks.postpone(payload.signal_name, sequence)

    def _decision(self, event: Event, sequence: int, _cause: int) -> None:
        payload = event.payload
        assert type(payload) is StrategyEvent
        self._actions.decided(event, payload, sequence)
        if event.causation_id:
            self._once(self._decisions, Rule.DECISION_TWICE, sequence, event, (event.causation_id, payload.strategy))

    def _order(self, event: Event, sequence: int, _cause: int) -> None:
        order = event.payload
        assert type(order) is OrderEvent
        if event.type in ("order.submitted", "order.denied"):
            self._actions.answer(order)
            if event.type == "order.submitted" and order.decision_id:
                self._once(self._orders, Rule.ORDER_TWICE, sequence, event, (order.decision_id, order.action_index))
        elif order.trade_id:
            key = (order.venue, order.account_id, order.symbol, order.trade_id)
            self._once(self._trades, Rule.TRADE_TWICE, sequence, event, key)

    def _system(self, event: Event, _sequence: int, _cause: int) -> None:
        payload = event.payload
        assert type(payload) is SystemEvent
        if payload.code == CONFLATED:
            if event.source == ANSWERER:
                for tick in _left_out(event):
                    self._ticks.leave_out(tick)
        elif event.type == "system.error" and payload.event_id:
            self._actions.fail(payload.event_id)
            self._ticks.fail(self._ids.find(hash(payload.event_id)))

    def _once(self, known: Known, rule: Rule, sequence: int, event: Event, key: tuple[object, ...]) -> None:
        before = known.add(hash(key), sequence)
        if before:
            self._findings.add(rule, sequence, event.id, _AGAIN[rule], *key, before)

    def finish(self) -> AuditReport:
        """Return what was found. To be called once, at the end of the log."""
        repeated = self._settle()
        for known, rule in (
            (self._trades, Rule.TRADE_TWICE),
            (self._orders, Rule.ORDER_TWICE),
            (self._decisions, Rule.DECISION_TWICE),
        ):
            for before, sequence in known.settle(array("q"))[0]:
                if sequence not in repeated:
                    self._findings.add(rule, sequence, "", "the same is stored at {} already", before)
        self._feeds.finish()
        young_from = self._young_from()
        self._ticks.finish(young_from, self._feeds.symbols)
        self._actions.finish(young_from)
        tallies = {rule: self._findings.tallies[rule] for rule in Rule if rule in self._findings.tallies}
        return AuditReport(self._events, self._first or self._after + bool(self._events), self._last, tallies)

    def _settle(self) -> set[int]:
        """Judge what needs the whole log, old causes and old repetitions; return where the repetitions are."""
        doubled, places = self._ids.settle(self._causes.open)
        for before, sequence in doubled:
            self._findings.add(Rule.ID_TWICE, sequence, "", "the same id is stored at {} already", before)
        repeated = {sequence for _, sequence in doubled}
        self._causes.finish(places, self._lost, repeated, self._ticks.resolve)
        return repeated

    def _young_from(self) -> int:
        """Return the sequence from which on an event was made within the grace before the end."""
        edge = self._marks[-1][0] - self._grace_ns
        return next((sequence for created_ns, sequence in self._marks if created_ns >= edge), 0)


def _left_out(event: Event) -> set[int]:
    """Return what an event says was left out; nothing when it is not readable."""
    try:
        return left_out_by(event)
    except (ValueError, KeyError, TypeError):
        return set()


_AGAIN: Final = {
    Rule.DECISION_TWICE: "one more decision on the signal {} by {}: the first one is stored at {}",
    Rule.ORDER_TWICE: "one more order for the decision {}, action {}: the first one is stored at {}",
    Rule.TRADE_TWICE: "one more fill of {}/{} in {} with the trade id {}: the first one is stored at {}",
}

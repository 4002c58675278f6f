"""What has to be answered: snapshots by signals, and the actions of decisions by orders."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from botplatform.audit.report import Findings, Rule
from botplatform.core.events import ActionType, Event, OrderEvent, StrategyEvent

__all__ = ["Actions", "Ticks"]

MAX_OPEN: Final = 200_000
"""Decisions that wait for their orders; older ones count as missing."""
FAILED: Final = 1
WANTED: Final = 2
LEFT_OUT: Final = 4


class Ticks:
    """The snapshots, and which signal sets have answered each: a dozen bytes a snapshot."""

    def __init__(self, findings: Findings, signal_sets: Iterable[str]) -> None:
        self._findings = findings
        self._sequences = array("Q")
        self._symbols = array("L")
        self._states = bytearray()
        self._answers = {name: bytearray() for name in signal_sets}
        self._late: dict[str, array[int]] = {name: array("Q") for name in self._answers}

    def add(self, sequence: int, symbol: int, *, wanted: bool) -> None:
        """Remember a snapshot; `wanted` ones have to be answered."""
        self._sequences.append(sequence)
        self._symbols.append(symbol)
        self._states.append(WANTED if wanted else 0)
        for answers in self._answers.values():
            answers.append(0)

    def answer(self, tick: int, signal_set: str, sequence: int, event_id: str) -> None:
        """Take a `signal.snapshot` of the snapshot that is stored at `tick`."""
        answers = self._answers.get(signal_set)
        place = self._place(tick)
        if answers is None or place < 0:
            return
        if answers[place]:
            self._findings.add(
                Rule.SIGNAL_TWICE,
                sequence,
                event_id,
                "one more {} signal.snapshot of the snapshot {}",
                signal_set,
                tick,
            )
        answers[place] = 1

    def postpone(self, signal_set: str, sequence: int) -> None:
        """Take a `signal.snapshot` of which is not known yet what it answers: see `resolve`."""
        if signal_set in self._late:
            self._late[signal_set].append(sequence)

    def resolve(self, sequence: int, tick: int) -> None:
        """Say of which snapshot a postponed answer is; other events are ignored."""
        for name, late in self._late.items():
            place = bisect_left(late, sequence)
            if place < len(late) and late[place] == sequence:
                self.answer(tick, name, sequence, "")

    def fail(self, tick: int) -> None:
        """Note that the log has an error about a snapshot."""
        place = self._place(tick)
        if place >= 0:
            self._states[place] |= FAILED

    def leave_out(self, tick: int) -> None:
        """Note that a snapshot was left out on purpose."""
        place = self._place(tick)
        if place >= 0:
            self._states[place] |= LEFT_OUT

    def _place(self, tick: int) -> int:
        place = bisect_left(self._sequences, tick)
        return place if place < len(self._sequences) and self._sequences[place] == tick else -1

    def finish(self, young_from: int, symbols: Sequence[str]) -> None:
        """Report what has no answer."""
        for name, answers in self._answers.items():
            place = answers.find(0)
            while place >= 0:
                state, sequence, symbol = self._states[place], self._sequences[place], self._symbols[place]
                if state & WANTED:
                    rule = Rule.SIGNAL_MISSING
                    if state & LEFT_OUT:
                        rule = Rule.CONFLATED
                    elif state & FAILED:
                        rule = Rule.FAILED
                    elif sequence >= young_from:
                        rule = Rule.WAITING
                    text = "the snapshot of {} has no signal.snapshot of the set {}"
                    self._findings.add(rule, sequence, "", text, symbols[symbol], name)
                place = answers.find(0, place + 1)


class _Open:
    """A decision that waits for its orders."""

    __slots__ = ("failed", "left", "sequence", "symbol")

    def __init__(self, sequence: int, symbol: str, left: set[int]) -> None:
        self.sequence = sequence
        self.symbol = symbol
        self.left = left
        self.failed = False


class Actions:
    """The decisions whose actions are not all orders, or denied, yet."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._open: dict[str, _Open] = {}

    def decided(self, event: Event, decision: StrategyEvent, sequence: int) -> None:
        """Take a decision: each action but a cancel has to be answered."""
        left = {index for index, action in enumerate(decision.actions) if action.type is not ActionType.CANCEL}
        if not left:
            return
        self._open[event.id] = _Open(sequence, decision.symbol, left)
        if len(self._open) > MAX_OPEN:
            oldest = next(iter(self._open))
            self._report(oldest, self._open.pop(oldest), young_from=sequence)

    def answer(self, order: OrderEvent) -> None:
        """Take an `order.submitted` or `order.denied`."""
        waiting = self._open.get(order.decision_id)
        if waiting is not None:
            waiting.left.discard(order.action_index)
            if not waiting.left:
                del self._open[order.decision_id]

    def fail(self, event_id: str) -> None:
        """Note that the log has an error about an event."""
        waiting = self._open.get(event_id)
        if waiting is not None:
            waiting.failed = True

    def finish(self, young_from: int) -> None:
        """Report what has no answer."""
        for event_id, waiting in self._open.items():
            self._report(event_id, waiting, young_from)

    def _report(self, event_id: str, waiting: _Open, young_from: int) -> None:
        rule = Rule.ORDER_MISSING
        if waiting.failed:
            rule = Rule.FAILED
        elif waiting.sequence >= young_from:
            rule = Rule.WAITING
        indices = ", ".join(map(str, sorted(waiting.left)))
        text = "action {} of the decision on {} is neither submitted nor denied"
        self._findings.add(rule, waiting.sequence, event_id, text, indices, waiting.symbol, count=len(waiting.left))

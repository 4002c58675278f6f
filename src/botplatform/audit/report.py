"""What an audit found: a count and the first examples for each rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

__all__ = ["RULES", "AuditReport", "Finding", "Findings", "Kind", "Rule", "Tally"]

EXAMPLES: Final = 5
"""Examples that are kept of each rule."""


class Kind(StrEnum):
    """What a rule is about. Everything but `APART` makes a log unclean."""

    MISSING = "missing"
    DOUBLED = "doubled"
    OUT_OF_ORDER = "out of order"
    UNCAUSED = "without a cause"
    APART = "counted apart"


class Rule(StrEnum):
    """What is looked for."""

    TICK_MISSING = "tick missing"
    SIGNAL_MISSING = "signal missing"
    ORDER_MISSING = "order missing"
    ID_TWICE = "id twice"
    TICK_TWICE = "tick twice"
    SIGNAL_TWICE = "signal twice"
    DECISION_TWICE = "decision twice"
    ORDER_TWICE = "order twice"
    TRADE_TWICE = "trade twice"
    FEED_BACKWARDS = "feed backwards"
    TIME_BACKWARDS = "time backwards"
    CAUSES_CROSSED = "causes crossed"
    NO_CAUSE = "no cause"
    CAUSE_LATER = "cause later"
    WAITING = "still waiting"
    CONFLATED = "conflated"
    FAILED = "failed"
    CAUSE_GONE = "cause gone"
    EDGE = "at the edge"
    GONE = "gone"


RULES: Final[Mapping[Rule, tuple[Kind, str]]] = {
    Rule.TICK_MISSING: (Kind.MISSING, "a feed sequence of a symbol that is not in the log"),
    Rule.SIGNAL_MISSING: (Kind.MISSING, "a snapshot without the signal.snapshot of a signal set"),
    Rule.ORDER_MISSING: (Kind.MISSING, "an action of a decision without order.submitted and order.denied"),
    Rule.ID_TWICE: (Kind.DOUBLED, "an event id that is stored twice"),
    Rule.TICK_TWICE: (Kind.DOUBLED, "a feed sequence of a symbol under two ids"),
    Rule.SIGNAL_TWICE: (Kind.DOUBLED, "two signal.snapshot of one set for one snapshot"),
    Rule.DECISION_TWICE: (Kind.DOUBLED, "two decisions of one strategy on one signal"),
    Rule.ORDER_TWICE: (Kind.DOUBLED, "two order.submitted for one action of a decision"),
    Rule.TRADE_TWICE: (Kind.DOUBLED, "two fills with one trade id"),
    Rule.FEED_BACKWARDS: (Kind.OUT_OF_ORDER, "a feed epoch or sequence of a symbol that goes back"),
    Rule.TIME_BACKWARDS: (Kind.OUT_OF_ORDER, "a symbol's time that goes back"),
    Rule.CAUSES_CROSSED: (Kind.OUT_OF_ORDER, "outputs of an engine for one key, not in the order of their causes"),
    Rule.NO_CAUSE: (Kind.UNCAUSED, "an event whose cause is not in the log"),
    Rule.CAUSE_LATER: (Kind.UNCAUSED, "an event that stands before its cause"),
    Rule.WAITING: (Kind.APART, "unanswered, but young at the end of the log"),
    Rule.CONFLATED: (Kind.APART, "ticks left out on purpose, as the log says"),
    Rule.FAILED: (Kind.APART, "unanswered, and the log has a system.error about it"),
    Rule.CAUSE_GONE: (Kind.APART, "the cause has expired, or lies before the part that was read"),
    Rule.EDGE: (Kind.APART, "ticks beside those that have expired: what belongs to them may have expired as well"),
    Rule.GONE: (Kind.APART, "sequences of the log that were deleted or have expired"),
}
"""What each rule is about, and what one count of it is."""


class Finding(NamedTuple):
    """One example."""

    sequence: int
    """Place in the log."""
    event_id: str
    """The event's id; empty where only its sequence is remembered."""
    sentence: str


@dataclass
class Tally:
    """What one rule found."""

    count: int = 0
    examples: list[Finding] = field(default_factory=list)
    """The first ones."""


class Findings:
    """Counts by rule, with the first examples; sentences of others are never made."""

    def __init__(self) -> None:
        self.tallies: dict[Rule, Tally] = {}

    def add(self, rule: Rule, sequence: int, event_id: str, sentence: str, *values: object, count: int = 1) -> None:
        """Count; `values` fill the `{}` of the sentence."""
        tally = self.tallies.get(rule)
        if tally is None:
            tally = self.tallies[rule] = Tally()
        tally.count += count
        if len(tally.examples) < EXAMPLES:
            tally.examples.append(Finding(sequence, event_id, sentence.format(*values)))


@dataclass(frozen=True)
class AuditReport:
    """The result of an audit."""

    events: int
    """Events that were read."""
    first_sequence: int
    """Place of the first one in the log; 0 for an empty log."""
    last_sequence: int
    tallies: Mapping[Rule, Tally]
    """What was found; rules that found nothing are absent."""

    @property
    def clean(self) -> bool:
        """Whether nothing is missing, doubled, out of order or without a cause."""
        return all(RULES[rule][0] is Kind.APART for rule in self.tallies)

    def count(self, what: Rule | Kind) -> int:
        """Return how often a rule, or all rules of a kind, found something."""
        if isinstance(what, Rule):
            return self.tallies[what].count if what in self.tallies else 0
        return sum(tally.count for rule, tally in self.tallies.items() if RULES[rule][0] is what)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "clean": self.clean,
            "events": self.events,
            "first_sequence": self.first_sequence,
            "last_sequence": self.last_sequence,
            "kinds": {kind.value: self.count(kind) for kind in Kind},
            "rules": {
                rule.value: {
                    "kind": RULES[rule][0].value,
                    "count": tally.count,
                    "examples": [each._asdict() for each in tally.examples],
                }
                for rule, tally in self.tallies.items()
            },
        }

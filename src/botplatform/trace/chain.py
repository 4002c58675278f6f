"""A chain as it happened: each event under its cause, with the time since the start and since its cause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from botplatform.core.events import Event
from botplatform.trace.asked import Asked
from botplatform.trace.source import Found

__all__ = ["Chain", "Growing", "Step"]

REMEMBERED: Final = 100_000
"""Events of a chain that grows which are known as causes of others; the oldest are forgotten first."""
WIDEST: Final = 120
"""Characters of the guides of a tree, at most; what is deeper stands below one another."""


class Step(msgspec.Struct, frozen=True):
    """One event of a chain."""

    found: Found
    since_ns: int
    """Nanoseconds from the making of the chain's first event to that of this one."""
    hop_ns: int | None
    """Nanoseconds from the making of its cause to that of this one; None where the cause is not there."""
    depth: int = 0
    """How many causes are above it."""
    asked: bool = False
    """It is what was asked for itself."""
    apart: bool = False
    """It is of another chain: a cause of this one, or what came of it."""
    lost_cause: bool = False
    """It had a cause, which is not there any more."""

    @property
    def event(self) -> Event:
        """The event."""
        return self.found.event


class _Cause(msgspec.Struct, frozen=True):
    created_ns: int
    depth: int


class Growing:
    """A chain to which events are added as they are found, causes first; an event counts once."""

    def __init__(self, asked: Asked, chains: Iterable[str] = ()) -> None:
        self.asked = asked
        self.chains = dict.fromkeys(chains)
        """Correlation ids of the chain; empty until the first event where they are not known."""
        self._causes: dict[str, _Cause] = {}
        self._start_ns: int | None = None

    def add_all(self, events: Sequence[Found]) -> tuple[Step, ...]:
        """Add events, causes first; the time counts from the first one that is of the chain itself."""
        own = (each.event for each in events if (each.event.correlation_id or each.event.id) in self.chains)
        if self._start_ns is None and (first := next(own, None)) is not None:
            self._start_ns = first.created_ns
        return tuple(step for each in events if (step := self.add(each)) is not None)

    def add(self, found: Found) -> Step | None:
        """Return what an event is in the chain; None for one that was there."""
        event = found.event
        if event.id in self._causes:
            return None
        if self._start_ns is None:
            self._start_ns = event.created_ns
        if not self.chains:
            self.chains[event.correlation_id or event.id] = None
        cause = self._causes.get(event.causation_id)
        step = Step(
            found,
            event.created_ns - self._start_ns,
            None if cause is None else event.created_ns - cause.created_ns,
            0 if cause is None else cause.depth + 1,
            asked=self.asked.points_at(event),
            apart=(event.correlation_id or event.id) not in self.chains,
            lost_cause=cause is None and bool(event.causation_id),
        )
        self._causes[event.id] = _Cause(event.created_ns, step.depth)
        if len(self._causes) > REMEMBERED:
            del self._causes[next(iter(self._causes))]
        return step


class Chain(msgspec.Struct, frozen=True):
    """A chain, or several that one id means, as far as it is known."""

    asked: Asked
    meaning: str
    """What was asked for: `order id`, for example."""
    correlation_ids: tuple[str, ...]
    steps: tuple[Step, ...]
    """In the order of the log, causes before their effects."""
    cut: bool = False
    """There are more events than are shown."""

    def tree(self) -> Iterator[tuple[Step, str]]:
        """Iterate over the steps as a tree, each with the guides that lead to it: an event, then all that came of it.

        Siblings stand in the order of the log.
        """
        below: dict[str, list[Step]] = {}
        roots: list[Step] = []
        for step in self.steps:
            if step.hop_ns is None:
                roots.append(step)
            else:
                below.setdefault(step.event.causation_id, []).append(step)
        waiting = [(step, "", "") for step in reversed(roots)]
        while waiting:
            step, guide, inner = waiting.pop()
            yield step, guide
            effects = below.pop(step.event.id, [])
            for index, effect in reversed(list(enumerate(effects, 1))):
                ends = index == len(effects)
                outer = inner[-WIDEST:]
                waiting.append((effect, outer + ("└─ " if ends else "├─ "), outer + ("   " if ends else "│  ")))

    @property
    def span_ns(self) -> int:
        """Nanoseconds from the first event to the last."""
        return max((step.since_ns for step in self.steps), default=0)

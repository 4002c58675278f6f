"""A chain of events as a tree: each event under the one that caused it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from botplatform.core.events import Event
from botplatform.telemetry.summary import summarise

__all__ = ["ChainNode", "chain_tree", "offset"]


class ChainNode(msgspec.Struct, frozen=True):
    """One event of a chain, and what came of it."""

    id: str
    type: str
    source: str
    offset_ns: int
    """Nanoseconds of event time since the first event of the chain."""
    summary: str
    """What it says in one line, without its type."""
    effects: tuple[ChainNode, ...] = ()
    """What it caused, oldest first."""

    def walk(self) -> Iterator[ChainNode]:
        """Iterate over this event and all that came of it, causes first."""
        yield self
        for effect in self.effects:
            yield from effect.walk()


def chain_tree(events: Iterable[Event]) -> tuple[ChainNode, ...]:
    """Arrange events by what caused them; those whose cause is not among them are roots, in the order given."""
    unique = {event.id: event for event in events}
    if not unique:
        return ()
    start_ns = min(event.timestamp_ns for event in unique.values())
    effects: dict[str, list[Event]] = {}
    for event in unique.values():
        known = event.causation_id in unique and event.causation_id != event.id
        effects.setdefault(event.causation_id if known else "", []).append(event)

    def node(event: Event) -> ChainNode:
        caused = tuple(node(each) for each in effects.pop(event.id, ()))
        offset_ns = event.timestamp_ns - start_ns
        summary = summarise(event).removeprefix(event.type).strip()
        return ChainNode(event.id, event.type, event.source, offset_ns, summary, caused)

    return tuple(node(event) for event in effects.pop("", ()))


def offset(nanoseconds: int) -> str:
    """Write a distance in time for people: `+0 ms`, `+152 ms`, `+3.2 s`, `+2 min 5 s`, `+1 h 4 min`."""
    seconds = nanoseconds / 1e9
    if seconds < 1:
        return f"+{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"+{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"+{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    return f"+{hours} h {minutes} min"

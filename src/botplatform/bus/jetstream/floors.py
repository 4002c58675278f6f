"""How far the log may be trimmed: pure, from where everybody stands.

Removed is only what is old enough and what nobody needs any more: no group for going on behind its checkpoint, not
the event store, and not the stream by type. Who does not say where it stands stops everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from botplatform.core.trimmed import Trimmed

__all__ = ["Hold", "Limits", "Position", "Slot", "Verdict", "begin_of", "decide"]

UNKNOWN: Final = "unknown"
"""Why trimming waits: somebody does not say where it stands."""
CONSUMER: Final = "consumer"
"""Why trimming waits: a group has not handled, or not saved, an event that is old enough."""
COPY: Final = "copy"
"""Why trimming waits: the stream by type has not copied it yet."""


class Slot(NamedTuple):
    """One consumer of a group, by what its checkpoint and the server say."""

    name: str
    saved: int | None
    """Sequence that its checkpoint stands at, or that the event store has written; None where there is none."""
    acknowledged: int
    """Sequence up to which it has acknowledged everything."""
    stateless: bool = False
    """It keeps no state of its own: what it has acknowledged is all."""


class Position(NamedTuple):
    """Up to where a consumer needs nothing."""

    slot: Slot
    up_to: int


class Hold(NamedTuple):
    """Why events that are old enough stay."""

    reason: str
    """One of `unknown`, `consumer`, `copy`."""
    who: str
    """Consumer or stream that it is about."""
    text: str
    """A sentence for people."""


class Limits(NamedTuple):
    """What bounds trimming beside the groups, as sequences of the log."""

    aged: int
    """The newest event that is old enough."""
    last: int
    """The newest event of all, which always stays."""
    copied: int | None
    """The newest event that the stream by type has; None where there is no such stream."""
    bound: int
    """The sequence that one step may reach at most."""


class Verdict(NamedTuple):
    """What may be removed now."""

    up_to: int
    """Everything at or below this sequence; that of the mark for nothing new."""
    hold: Hold | None
    """Why it is less than what is old enough; None when it is not, but for the bound of one step."""


def begin_of(slot: Slot, trimmed: Trimmed) -> int | Hold:
    """Return the sequence behind which a consumer's next event is to be looked for, or why that is not known."""
    saved = slot.acknowledged if slot.stateless else slot.saved or 0
    if not slot.stateless and not trimmed.covers(slot.name, saved):
        stood = trimmed.places.get(slot.name, trimmed.sequence)
        found = "has no checkpoint" if slot.saved is None else f"has a checkpoint of {saved}"
        text = f"{slot.name} {found}, and stood at {stood} when the log was trimmed up to {trimmed.sequence}"
        return Hold(UNKNOWN, slot.name, text)
    return max(trimmed.sequence, min(saved, slot.acknowledged))


def decide(trimmed: Trimmed, positions: Iterable[Position | Hold], limits: Limits) -> Verdict:
    """Return how far to trim: never above any position, what is copied, what is old enough, nor the newest event."""
    floor, hold = min(limits.aged, limits.last - 1), None
    if limits.copied is not None and limits.copied < floor:
        floor = limits.copied
        hold = Hold(COPY, "by type", f"the stream by type has copied up to {floor} only")
    for position in positions:
        if isinstance(position, Hold):
            return Verdict(trimmed.sequence, position)
        if position.up_to < floor:
            floor, hold = position.up_to, _waits_for(position)
    return Verdict(max(trimmed.sequence, min(floor, limits.bound)), hold)


def _waits_for(position: Position) -> Hold:
    slot, needed = position.slot, position.up_to + 1
    if slot.stateless or (slot.saved is not None and slot.saved >= needed):
        stands = f"it has acknowledged up to {slot.acknowledged}"
    elif slot.saved is None:
        stands = "it has no checkpoint: it never ran here, or has saved nothing yet"
    else:
        stands = f"its checkpoint is of {slot.saved}"
    return Hold(CONSUMER, slot.name, f"{slot.name} still needs the event {needed}: {stands}")

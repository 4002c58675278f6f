"""Ticks that were left out on purpose: the log says which, so that whoever replays it leaves out the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.core.seam import derive_id

__all__ = ["CONFLATED", "left_out_by", "left_out_event"]

CONFLATED: Final = "CONFLATED"
"""Code of the `system.warning` that says it."""


def left_out_event(event: Event, sequences: Iterable[int], source: str, created_ns: int) -> Event:
    """Make the event that says which older ticks of its symbol were left out before `event`.

    `events_in` counts the ticks that came, `events_out` the one that was handled.
    """
    given = list(sequences)
    payload = SystemEvent(
        module=source,
        message=json.dumps({"left_out": given}),
        severity=Severity.WARNING,
        code=CONFLATED,
        symbol=event.key,
        event_id=event.id,
        events_in=len(given) + 1,
        events_out=1,
    )
    return Event(
        "system.warning",
        payload,
        source,
        timestamp_ns=event.timestamp_ns,
        created_ns=created_ns,
        correlation_id=event.correlation_id,
        causation_id=event.id,
        id=derive_id(event.id, source, CONFLATED),
    )


def left_out_by(event: Event) -> set[int]:
    """Return the sequences that an event says were left out; none for any other event."""
    payload = event.payload
    if type(payload) is not SystemEvent or payload.code != CONFLATED:
        return set()
    return set(json.loads(payload.message)["left_out"])

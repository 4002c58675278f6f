"""An event as a NATS message: protobuf body, and the headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from botplatform.core.events import Event, from_wire, to_wire
from botplatform.core.trace_id import trace_id, traceparent
from botplatform.errors import InvalidEvent

__all__ = ["Headers", "decode", "encode", "trace_id", "traceparent"]

MESSAGE_ID: Final = "Nats-Msg-Id"
TTL: Final = "Nats-TTL"
FOR_EVER: Final = "never"
_SHORT_LIVED: Final = ("market.", "signal.", "system.heartbeat")
"""What is kept for `tick_ttl_s` only; all else stays."""


class Headers:
    """Makes the headers of events; `tick_ttl_s` is how long ticks, signals and heartbeats are kept, in seconds."""

    def __init__(self, tick_ttl_s: int) -> None:
        self.traced: Mapping[str, str] = {}
        """Ids of the events whose publishing is traced, which their header says; each with its `tracestate`, or none."""
        self._ttl = f"{tick_ttl_s}s"
        self._of_type: dict[str, str] = {}

    def __call__(self, event: Event) -> dict[str, str]:
        """Return an event's headers: the id that the server drops repetitions by, the chain, and how long it is kept."""
        state = self.traced.get(event.id)
        made = {MESSAGE_ID: event.id, "traceparent": traceparent(event, sampled=state is not None)}
        if state:
            made["tracestate"] = state
        return made | {TTL: self._kept(event.type)}

    def block(self, event: Event) -> str:
        """Return the same headers as they go over the wire: ASCII, as an event's id is."""
        kept = self._of_type.get(event.type) or self._kept(event.type)
        state = self.traced.get(event.id)
        chain = traceparent(event, sampled=state is not None)
        if state:  # of the trace of another program: rare
            chain = f"{chain}\r\ntracestate: {state}"
        return f"NATS/1.0\r\n{MESSAGE_ID}: {event.id.strip()}\r\ntraceparent: {chain}\r\n{TTL}: {kept}\r\n\r\n"

    def _kept(self, event_type: str) -> str:
        kept = self._of_type.get(event_type)
        if kept is None:
            kept = self._of_type[event_type] = self._ttl if event_type.startswith(_SHORT_LIVED) else FOR_EVER
        return kept


encode = to_wire


def decode(data: bytes, expected_type: str) -> Event:
    """Decode a body; raise `InvalidEvent` for what is not an event, or not one of the type that its subject says.

    The permissions of NATS are for subjects: a body of another type would get around them.
    """
    if data[:1] in (b"{", b"["):
        raise InvalidEvent(
            f"a JSON body on {expected_type}: events on the wire are protobuf; `botplatform events publish` takes JSON"
        )
    event = from_wire(data)
    if event.type != expected_type:
        raise InvalidEvent(f"the event {event.id} is a {event.type}, but was published as {expected_type}")
    return event

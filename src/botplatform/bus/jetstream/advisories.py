"""What shared groups gave up, from the server's advisories: these name the event, and the log has its body."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.dead_letters import DeadLetterStream, original_headers, parse_message
from botplatform.bus.jetstream.setup import ADVISORIES
from botplatform.bus.jetstream.subjects import parse_stored
from botplatform.bus.jetstream.wire import decode
from botplatform.core.events import Event
from botplatform.errors import InvalidEvent

__all__ = ["GivenUp", "read_given_up"]


class GivenUp(NamedTuple):
    """An event that a shared group gave up."""

    group: str
    sequence: int
    """Place of the event in the log."""
    deliveries: int
    """How often it was delivered."""
    terminated: bool
    """Whether its handler ended it; else it was never answered: its processes died, or hung."""
    reason: str
    """What the handler raised; empty when it never answered."""
    time: datetime
    subject: str
    """Stored subject of the event; empty when the log no longer has it."""
    headers: dict[str, str]
    """Headers of the event, without those that are for the server."""
    event: Event | None
    """None when the log no longer has it, or when its body is no event."""

    @property
    def id(self) -> str:
        """The name that a person uses for it."""
        return f"{self.group}.{self.sequence}"


async def read_given_up(connection: Connection, log: str) -> list[GivenUp]:
    """Return what shared groups gave up, oldest first, each event once for a group; none where nothing is shared."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    after = 0
    while True:
        body = {"seq": after + 1, "next_by_subj": ">"}
        answer = await connection.api_or_none(f"STREAM.MSG.GET.{ADVISORIES}", body)
        if answer is None:
            break
        stored = parse_message(answer["message"])
        after = stored.sequence
        advisory = json.loads(stored.data)
        if advisory["stream"] == log:
            found[advisory["consumer"], advisory["stream_seq"]] = advisory
    letters = DeadLetterStream(connection, log)
    return [await _given_up(letters, advisory) for advisory in found.values()]


async def _given_up(letters: DeadLetterStream, advisory: dict[str, Any]) -> GivenUp:
    original = await letters.original(advisory["stream_seq"])
    event = None
    stored = None if original is None else parse_stored(original.subject)
    if original is not None and stored is not None:
        try:
            event = decode(original.data, stored.type)
        except InvalidEvent:
            event = None
    return GivenUp(
        group=advisory["consumer"],
        sequence=advisory["stream_seq"],
        deliveries=advisory["deliveries"],
        terminated=advisory["type"].endswith("terminated"),
        reason=advisory.get("reason", ""),
        time=datetime.fromisoformat(advisory["timestamp"]),
        subject="" if original is None else original.subject,
        headers={} if original is None else original_headers(original.headers),
        event=event,
    )

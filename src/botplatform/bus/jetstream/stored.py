"""What a stored message says: its event, and what the server adds to its delivery."""

from __future__ import annotations

import logging
from typing import NamedTuple

from botplatform.bus.jetstream.subjects import parse_stored
from botplatform.bus.jetstream.wire import decode
from botplatform.core.events import Event
from botplatform.errors import InvalidEvent

__all__ = ["Arrived", "Counters", "decode_stored", "parse_ack"]

logger = logging.getLogger(__name__)


class Counters:
    """What went wrong and was survived, for monitoring."""

    __slots__ = ("conflated", "dropped", "paused", "undecodable")

    def __init__(self) -> None:
        self.conflated = 0
        """Ticks that were left out on purpose, because a group was behind."""
        self.undecodable = 0
        """Bodies that are not events, or not of the type that their subject says."""
        self.dropped = 0
        """Events that a live subscription did not see, because its handlers were too slow."""
        self.paused = 0
        """Times that publishing of ticks began to wait, because the log was nearly full."""


class Arrived(NamedTuple):
    """What the reply subject of a delivery says."""

    deliveries: int
    sequence: int
    consumer_sequence: int
    pending: int


def parse_ack(reply: str) -> Arrived | None:
    """Take a reply subject apart; None for one that is not of a delivery. Both forms that servers use are known."""
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    return Arrived(int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]), int(tokens[at + 4]))


def decode_stored(subject: str, data: bytes, counters: Counters) -> Event | None:
    """Return the event of a stored message; count, log and skip what is none."""
    stored = parse_stored(subject)
    try:
        if stored is None:
            raise InvalidEvent(f"the subject {subject} is not that of a stored event")
        return decode(data, stored.type)
    except InvalidEvent as e:
        counters.undecodable += 1
        logger.warning("skipped a message on %s that is not an event: %s", subject, e)
        return None

"""What waits for a person: symbols that execution or portfolio cannot go on with, because an event could not be handled.

Skipping a fill and going on is a wrong position. So the symbol's later events wait in the log, in their order, new
orders of it are denied, and the other symbols go on. It is part of the checkpoint, so that every owner knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from botplatform.core.engine import EngineHost, Output, Step
from botplatform.core.events import Event, StrategyEvent
from botplatform.core.log_scope import about
from botplatform.errors import StateError

__all__ = [
    "PORTFOLIO",
    "QUARANTINING",
    "Aside",
    "Held",
    "Refuses",
    "Settling",
    "answer",
    "decode",
    "encode",
    "was_answered",
]

PORTFOLIO: Final = "portfolio"
QUARANTINING: Final = frozenset({"execution", PORTFOLIO})
"""Engines whose symbols are quarantined; the others go on without the event."""
logger = logging.getLogger(__name__)


@runtime_checkable
class Refuses(Protocol):
    """An engine that somebody waits for an answer of, also while it must not handle a symbol's events."""

    def refuse(self, event: Event) -> Sequence[Output]:
        """Answer an event of a quarantined symbol; raise nothing once the state has changed."""


class Held(msgspec.Struct, frozen=True):
    """What a symbol is quarantined for."""

    letter: str
    """Id of the dead letter."""
    first: int
    """Sequence of the first event that waits, which is that of the letter."""


class Settling(msgspec.Struct, frozen=True):
    """A decision that is being carried out: begun at the checkpoint that it is in, and begun again from there."""

    letter: str
    discard: bool


class Aside(msgspec.Struct):
    """What is put aside: part of the checkpoint."""

    held: dict[str, Held] = {}
    """The quarantined symbols."""
    settling: Settling | None = None

    def holds(self, event: Event) -> bool:
        """Tell whether an event has to wait."""
        return bool(self.held) and getattr(event.payload, "symbol", "") in self.held

    @property
    def first(self) -> int | None:
        """Sequence of the first event that waits; None when none does."""
        return min((held.first for held in self.held.values()), default=None)


def answer(host: EngineHost, event: Event, created_ns: int) -> Step | None:
    """Answer an event of a quarantined symbol, where somebody waits for that; None otherwise."""
    engine = host.engine
    if not isinstance(engine, Refuses):
        return None
    try:
        return host.wrap(event, engine.refuse(event), created_ns)
    except Exception as e:  # whatever is wrong with it, it waits for a person already
        told = "%s cannot even refuse %s %s"
        logger.warning(told, host.name, event.type, event.id, exc_info=e, extra=about(event))
        return None


def was_answered(host: EngineHost, event: Event) -> bool:
    """Tell whether an event that waited was answered meanwhile, and must not be acted on any more."""
    return type(event.payload) is StrategyEvent and isinstance(host.engine, Refuses)


def encode(aside: Aside) -> bytes:
    """Encode for a checkpoint; nothing put aside is nothing."""
    return msgspec.json.encode(aside) if aside.held or aside.settling else b""


def decode(data: bytes) -> Aside:
    """Decode from a checkpoint; raise `StateError` when it cannot be read."""
    try:
        return msgspec.json.decode(data, type=Aside) if data else Aside()
    except msgspec.MsgspecError as e:
        raise StateError(f"what the checkpoint says about quarantined symbols cannot be read: {e}") from e

"""Dead letters: events that an engine could not handle, and what a person decides about them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath
from traceback import extract_tb
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from botplatform.bus.jetstream.dead_letters import (
    DeadLetterStream,
    Stored,
    carried,
    control,
    original_headers,
)
from botplatform.bus.jetstream.setup import partition_consumer
from botplatform.core.event_bus import Right
from botplatform.core.events import Event, from_wire, to_wire
from botplatform.errors import InvalidEvent, StreamError
from botplatform.events.rules import as_token

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "MemoryDeadLetters",
    "News",
    "Ruling",
    "StreamDeadLetters",
    "Verdict",
    "letter_of",
]

ERROR_LIMIT: Final = 500
ALL: Final = "all"
FOR_EVER: Final = "never"
SKIPPED_KEPT: Final = "720h"
"""How long the dead letter of an engine is kept that has gone on without the event: 30 days."""


class Verdict(StrEnum):
    """What is to become of a dead letter, or became."""

    WAITING = "waiting"
    """Nobody has decided."""
    REQUEUE = "requeue"
    """Asked for: to be handled, and all that waits behind it."""
    DISCARD = "discard"
    """Asked for: to be left out; what waits behind it is handled."""
    REQUEUED = "requeued"
    """It was handled."""
    DISCARDED = "discarded"
    """It was left out."""


ASKED: Final = (Verdict.REQUEUE, Verdict.DISCARD)
SETTLED: Final = (Verdict.REQUEUED, Verdict.DISCARDED)


class Ruling(msgspec.Struct, frozen=True):
    """A decision about a dead letter, or what came of it."""

    verdict: Verdict = Verdict.WAITING
    at: int = 0
    """Sequence of the log behind which it was carried out; what replay does again in the same place."""
    by: str = ""
    """Who decided."""
    time_ns: int = 0
    attempts: int = 1
    """How often it failed."""
    error: str = ""
    """How it failed the last time; empty when it failed once only."""


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that an engine could not handle."""

    engine: str
    partition: int | None
    sequence: int
    """Place of the event in the log."""
    event: Event
    error_type: str
    error: str
    time_ns: int
    """When it failed, in nanoseconds."""
    symbol: str = ""
    """The symbol that is quarantined for it; empty where the engine has gone on without the event."""
    where: str = ""
    """File, line and function that raised."""
    subject: str = ""
    """The event's subject in the log."""
    headers: dict[str, str] = {}
    """The event's headers in the log."""
    ruling: Ruling = Ruling()
    revision: int = 0
    """Of the ruling, for replacing it by compare-and-set."""

    @property
    def slot(self) -> str:
        """Name of the consumer that the event was delivered to."""
        return self.engine if self.partition is None else partition_consumer(self.engine, self.partition)

    @property
    def id(self) -> str:
        """Its id: the same whenever, and however often, the event fails there."""
        return f"{self.slot}-{self.sequence}"

    @property
    def open(self) -> bool:
        """Tell whether nothing has become of it yet."""
        return self.ruling.verdict not in SETTLED


class News(NamedTuple):
    """What was decided since the last look."""

    asked: list[DeadLetter]
    """Letters that somebody wants requeued or discarded, in the order of the decisions."""
    place: int
    """Where the next look begins."""


def letter_of(
    engine: str, partition: int | None, sequence: int, event: Event, error: Exception, *, symbol: str, time_ns: int
) -> DeadLetter:
    """Make the dead letter of an event that an engine raised on."""
    frames = extract_tb(error.__traceback__)
    where = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    text = " ".join(str(error).split())[:ERROR_LIMIT]
    return DeadLetter(engine, partition, sequence, event, type(error).__name__, text, time_ns, symbol, where)


class DeadLetters(Protocol):
    """Where dead letters are kept."""

    async def put(self, letter: DeadLetter) -> DeadLetter:
        """Keep a letter, and return it as it is kept: the first one of its id stays."""

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a letter with its ruling; None when there is none."""

    async def read(self, slot: str = "") -> list[DeadLetter]:
        """Return the letters of a consumer, or all, with their rulings, oldest first."""

    async def news(self, slot: str, after: int) -> News:
        """Return what was asked for about a consumer's letters, behind a place; 0 is the beginning."""

    async def rule(self, letter: DeadLetter, ruling: Ruling, *, unless_changed: bool = False) -> None:
        """Replace a letter's ruling.

        With `unless_changed`, raise `StreamError` when somebody else has ruled since the letter was read.
        """

    async def hold(self, engine: str, symbol: str, letter_id: str, *, right: Right | None = None) -> None:
        """Say that a symbol is quarantined for a letter; for an empty id, that it no longer is.

        By a `right`, that changes nothing which somebody else has said since that was looked at.
        """

    async def held_for(self, engine: str, symbol: str) -> str:
        """Return the id of the letter that a symbol is quarantined for; empty when it is not."""


class MemoryDeadLetters:
    """Dead letters of one process: for the bus in memory, and for tests."""

    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}
        self._held: dict[tuple[str, str], str] = {}
        self._place = 0

    async def put(self, letter: DeadLetter) -> DeadLetter:
        """Keep a letter."""
        return self.letters.setdefault(letter.id, letter)

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a letter."""
        return self.letters.get(letter_id)

    async def read(self, slot: str = "") -> list[DeadLetter]:
        """Return the letters of a consumer, or all."""
        return [each for each in self.letters.values() if slot in ("", each.slot)]

    async def news(self, slot: str, after: int) -> News:
        """Return what was asked for behind a place."""
        found = sorted(self.letters.values(), key=lambda letter: letter.revision)
        new = [each for each in found if each.slot == slot and each.revision > after]
        return News([each for each in new if each.ruling.verdict in ASKED], self._place)

    async def rule(self, letter: DeadLetter, ruling: Ruling, *, unless_changed: bool = False) -> None:
        """Replace a letter's ruling."""
        if unless_changed and self.letters[letter.id].revision != letter.revision:
            raise _changed(letter)
        self._place += 1
        self.letters[letter.id] = replace(letter, ruling=ruling, revision=self._place)

    async def hold(self, engine: str, symbol: str, letter_id: str, *, right: Right | None = None) -> None:  # noqa: ARG002  # one process
        """Say for what a symbol is quarantined."""
        self._held[engine, symbol] = letter_id

    async def held_for(self, engine: str, symbol: str) -> str:
        """Return what a symbol is quarantined for."""
        return self._held.get((engine, symbol), "")


class StreamDeadLetters:
    """Dead letters in a stream of the log's server."""

    def __init__(self, stream: DeadLetterStream) -> None:
        self._stream = stream

    async def put(self, letter: DeadLetter) -> DeadLetter:
        """Keep a letter, with the event's body and headers as the log has them."""
        found = await self._stream.original(letter.sequence)
        headers = {} if found is None else found.headers
        made = replace(letter, subject="" if found is None else found.subject, headers=headers)
        data = to_wire(letter.event) if found is None else found.data
        sent = {**carried(headers), **_described(made), **control(made.id, _kept(made))}
        if await self._stream.put(_subject(made), data, sent, expected=0):
            return made
        return await self.get(made.id) or made

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a letter as the leader has it."""
        engine, partition, sequence = _parts(letter_id)
        pattern = f"dlq.{engine}.*.{partition}.{sequence}"
        found = await self._stream.last(pattern)
        if found is None:
            return None
        return _ruled(_letter(found), await self._stream.last(f"{found.subject}.ruling"))

    async def read(self, slot: str = "") -> list[DeadLetter]:
        """Return the letters of a consumer, or all."""
        found: dict[str, DeadLetter] = {}
        rulings: dict[str, Stored] = {}
        for stored in await self._stream.read(_pattern(slot)):
            if stored.subject.endswith(".ruling"):
                rulings[stored.subject.removesuffix(".ruling")] = stored
            elif not stored.subject.endswith(".held"):
                found[stored.subject] = _letter(stored)
        letters = [_ruled(letter, rulings.get(subject)) for subject, letter in found.items()]
        return sorted(letters, key=lambda letter: (letter.time_ns, letter.sequence))

    async def news(self, slot: str, after: int) -> News:
        """Return what was asked for behind a place."""
        asked, place = [], after
        for stored in await self._stream.read(_pattern(slot), after):
            place = stored.sequence
            subject, _, kind = stored.subject.rpartition(".")
            if kind != "ruling" or msgspec.json.decode(stored.data, type=Ruling).verdict not in ASKED:
                continue
            letter = await self._stream.last(subject)
            if letter is not None:
                asked.append(_ruled(_letter(letter), stored))
        return News(asked, place)

    async def rule(self, letter: DeadLetter, ruling: Ruling, *, unless_changed: bool = False) -> None:
        """Replace a letter's ruling."""
        subject, data = f"{_subject(letter)}.ruling", msgspec.json.encode(ruling)
        expected = letter.revision if unless_changed else None
        if not await self._stream.put(subject, data, {"Nats-TTL": _kept(letter)}, expected=expected):
            raise _changed(letter)

    async def hold(self, engine: str, symbol: str, letter_id: str, *, right: Right | None = None) -> None:
        """Say for what a symbol is quarantined."""
        subject, stored = f"dlq.{engine}.{as_token(symbol)}.held", False
        while not stored:
            found = await self._stream.last(subject)
            if right is not None and not right.valid:
                await right.wait_valid()  # for ever, until cancelled, when somebody has taken over
            expected = 0 if found is None else found.sequence
            stored = await self._stream.put(subject, letter_id.encode(), {"Nats-TTL": FOR_EVER}, expected=expected)

    async def held_for(self, engine: str, symbol: str) -> str:
        """Return what a symbol is quarantined for, as the leader has it."""
        found = await self._stream.last(f"dlq.{engine}.{as_token(symbol)}.held")
        return "" if found is None else found.data.decode()


def _changed(letter: DeadLetter) -> StreamError:
    return StreamError(f"somebody else has decided about {letter.id} meanwhile: look at it with `botplatform dlq show`")


def _kept(letter: DeadLetter) -> str:
    return FOR_EVER if letter.symbol else SKIPPED_KEPT


def _subject(letter: DeadLetter) -> str:
    partition = ALL if letter.partition is None else letter.partition
    return f"dlq.{letter.engine}.{letter.event.key}.{partition}.{letter.sequence}"


def _parts(letter_id: str) -> tuple[str, str, str]:
    """Take an id apart: engine, partition and sequence."""
    slot, _, sequence = letter_id.rpartition("-")
    engine, _, partition = slot.rpartition("-")
    if not sequence.isdigit() or not slot:
        raise InvalidEvent(f"{letter_id!r} is no id of a dead letter: `botplatform dlq list` shows them")
    return (engine, partition, sequence) if engine and partition.isdigit() else (slot, ALL, sequence)


def _pattern(slot: str) -> str:
    if not slot:
        return "dlq.>"
    engine, partition, _ = _parts(f"{slot}-0")
    return f"dlq.{engine}.*.{partition}.>"


def _described(letter: DeadLetter) -> dict[str, str]:
    texts: dict[str, Any] = {
        "Dlq-Id": letter.id,
        "Dlq-Engine": letter.engine,
        "Dlq-Sequence": letter.sequence,
        "Dlq-Subject": letter.subject,
        "Dlq-Error-Type": letter.error_type,
        "Dlq-Error": letter.error,
        "Dlq-Where": letter.where,
        "Dlq-Time": letter.time_ns,
        "Dlq-Quarantine": letter.symbol,
    }
    return {name: str(text).encode("ascii", "backslashreplace").decode() for name, text in texts.items() if text != ""}


def _letter(stored: Stored) -> DeadLetter:
    _, engine, _, partition, sequence = stored.subject.split(".")
    headers = stored.headers
    return DeadLetter(
        engine=engine,
        partition=None if partition == ALL else int(partition),
        sequence=int(sequence),
        event=from_wire(stored.data),
        error_type=headers.get("Dlq-Error-Type", ""),
        error=headers.get("Dlq-Error", ""),
        time_ns=int(headers.get("Dlq-Time", "0")),
        symbol=headers.get("Dlq-Quarantine", ""),
        where=headers.get("Dlq-Where", ""),
        subject=headers.get("Dlq-Subject", ""),
        headers=original_headers(headers),
    )


def _ruled(letter: DeadLetter, stored: Stored | None) -> DeadLetter:
    if stored is None:
        return letter
    return replace(letter, ruling=msgspec.json.decode(stored.data, type=Ruling), revision=stored.sequence)

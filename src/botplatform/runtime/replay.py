"""Replays a log in memory and compares: what the engines compute must be what the log holds.

Replay has no side effects: there is no venue and no channel here, and effects are never performed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from botplatform.core.engine import Engine, EngineHost
from botplatform.core.events import Event
from botplatform.runtime.dead_letters import DeadLetter, Verdict
from botplatform.runtime.quarantine import answer, was_answered

__all__ = ["Difference", "LogReplay", "ReplayReport"]

MAX_DIFFERENCES: Final = 100
MAX_SEQUENCE: Final = 2**63
RESTORED: Final = "state.restored"
"""What a process says that has taken an engine over; no input leads to it."""
RUNTIME_CODES: Final = frozenset({"ENGINE_FAILED", "HANDLER_FAILED", "QUARANTINED"})


class Difference(NamedTuple):
    """One output that the log and the replay do not agree about."""

    engine: str
    kind: str
    """`missing`: recorded, not computed; `extra`: computed, not recorded; `other`: not equal."""
    recorded: Event | None
    computed: Event | None


class ReplayReport(NamedTuple):
    """What a replay found."""

    events: int
    compared: int
    differences: list[Difference]


class LogReplay:
    """Feeds a log, event by event, to fresh engines; `finish` says whether it comes out as recorded.

    `letters` are the dead letters of the log: what was put aside is put aside again, and settled where it was.
    """

    def __init__(self, engines: Iterable[Engine], letters: Iterable[DeadLetter] = ()) -> None:
        given = list(letters)
        self._hosts = {engine.name: EngineHost(engine) for engine in engines}
        self._players = [_Player(host, given) for host in self._hosts.values()]
        self._computed: dict[str, tuple[str, Event]] = {}
        self._differences: list[Difference] = []
        self._events = 0
        self._compared = 0

    def engine(self, name: str) -> Engine:
        """Return an engine, with the state that the log so far gives it."""
        return self._hosts[name].engine

    def feed(self, event: Event, sequence: int = 0) -> None:
        """Take the next event of the log; its `sequence` matters where there are dead letters. Default: its number."""
        self._events += 1
        place = sequence or self._events
        for player in self._players:
            self._note_computed(player, player.settle(place))
        host = self._hosts.get(event.source)
        if host is not None and event.type in host.engine.publishes:
            self._compare(host.name, event)
        for player in self._players:
            if player.host.listens_to(event.type):
                self._note_computed(player, player.take(event, place))

    def _note_computed(self, player: _Player, events: Iterable[Event]) -> None:
        for made in events:
            self._computed[made.id] = (player.host.name, made)

    def _compare(self, engine: str, recorded: Event) -> None:
        if recorded.type == RESTORED or getattr(recorded.payload, "code", "") in RUNTIME_CODES:
            return
        self._compared += 1
        found = self._computed.pop(recorded.id, None)
        if found is None:
            self._note(Difference(engine, "missing", recorded, None))
        elif replace(found[1], created_ns=recorded.created_ns) != recorded:
            self._note(Difference(engine, "other", recorded, found[1]))

    def _note(self, difference: Difference) -> None:
        if len(self._differences) < MAX_DIFFERENCES:
            self._differences.append(difference)

    def finish(self) -> ReplayReport:
        """Say what differed; outputs that were computed and never recorded count as well."""
        for player in self._players:
            self._note_computed(player, player.settle(self._events + MAX_SEQUENCE))
        for engine, computed in self._computed.values():
            self._note(Difference(engine, "extra", None, computed))
        return ReplayReport(self._events, self._compared, self._differences)


class _Player:
    """One engine, with what its worker put aside: it plays again what happened, without asking anybody."""

    def __init__(self, host: EngineHost, letters: Iterable[DeadLetter]) -> None:
        self.host = host
        mine = [each for each in letters if each.engine == host.name]
        self._letters = {each.sequence: each for each in mine}
        self._due = sorted((each for each in mine if not each.open), key=lambda each: (each.ruling.at, each.sequence))
        self._held: dict[str, list[tuple[Event, int]]] = {}

    def take(self, event: Event, sequence: int) -> Iterable[Event]:
        """Handle an event, or put it aside; return what comes of it."""
        letter = self._letters.get(sequence)
        waiting = self._held.get(getattr(event.payload, "symbol", ""))
        if waiting is None and letter is None:
            return self.host.process(event, event.created_ns).events
        if waiting is not None:
            waiting.append((event, sequence))
        elif letter is not None and letter.symbol:
            self._held[letter.symbol] = [(event, sequence)]
        else:
            return ()
        answered = answer(self.host, event, event.created_ns)
        return answered.events if answered else ()

    def settle(self, before: int) -> Iterator[Event]:
        """Carry out what was decided before a place in the log."""
        while self._due and self._due[0].ruling.at < before:
            letter = self._due.pop(0)
            waiting = self._held.get(letter.symbol, []) if letter.symbol else [(letter.event, letter.sequence)]
            if waiting and waiting[0][1] == letter.sequence:
                yield from self._handle(letter, waiting)

    def _handle(self, letter: DeadLetter, waiting: list[tuple[Event, int]]) -> Iterator[Event]:
        self._held.pop(letter.symbol, None)
        for place, (event, sequence) in enumerate(waiting):
            first = place == 0
            if not first and sequence in self._letters:
                self._held[letter.symbol] = waiting[place:]
                return
            discarded = first and letter.ruling.verdict is Verdict.DISCARDED
            if not discarded and (first or not was_answered(self.host, event)):
                yield from self.host.process(event, event.created_ns).events

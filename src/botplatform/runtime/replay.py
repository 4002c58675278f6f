"""Replays a log in memory and compares: what the engines compute must be what the log holds.

Replay has no side effects: there is no venue and no channel here, and effects are never performed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from botplatform.core.engine import Engine, EngineHost
from botplatform.core.events import Event

__all__ = ["Difference", "LogReplay", "ReplayReport"]

MAX_DIFFERENCES: Final = 100
RUNTIME_CODES: Final = frozenset({"ENGINE_FAILED", "HANDLER_FAILED"})


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
    """Feeds a log, event by event, to fresh engines; `finish` says whether it comes out as recorded."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self._hosts = {engine.name: EngineHost(engine) for engine in engines}
        self._computed: dict[str, tuple[str, Event]] = {}
        self._differences: list[Difference] = []
        self._events = 0
        self._compared = 0

    def engine(self, name: str) -> Engine:
        """Return an engine, with the state that the log so far gives it."""
        return self._hosts[name].engine

    def feed(self, event: Event) -> None:
        """Take the next event of the log."""
        self._events += 1
        host = self._hosts.get(event.source)
        if host is not None and event.type in host.engine.publishes:
            self._compare(host.name, event)
        for host in self._hosts.values():
            if host.listens_to(event.type):
                for made in host.process(event, event.created_ns).events:
                    self._computed[made.id] = (host.name, made)

    def _compare(self, engine: str, recorded: Event) -> None:
        if getattr(recorded.payload, "code", "") in RUNTIME_CODES:
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
        for engine, computed in self._computed.values():
            self._note(Difference(engine, "extra", None, computed))
        return ReplayReport(self._events, self._compared, self._differences)

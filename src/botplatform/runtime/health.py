"""What a process tells a cluster about itself, over HTTP: alive, ready, started, its metrics and its lag.

| path | 200 when | for |
| --- | --- | --- |
| `/livez` | its event loop turns and nothing failed | restarting it |
| `/readyz` | it has started, is connected, has no problems and is not draining | taking it into account |
| `/startupz` | it has started | being patient with it |
| `/metrics` | always: Prometheus, as text, or OpenMetrics with exemplars | people; see `docs/metrics.md` |
| `/lag` | the log says how much is pending: `{"lag": 12}` | scaling |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.setup import list_groups
from botplatform.core.events import TradingState
from botplatform.errors import BusError
from botplatform.runtime.facts import AccountFacts, LogFacts, OrderFacts
from botplatform.runtime.health_metrics import StateCollector, Taken, new_registry
from botplatform.runtime.http_server import Request, Response, serve_http
from botplatform.settings_health import HealthSettings
from botplatform.store.retention import StoreMeter
from botplatform.telemetry.metrics import EngineMeter

__all__ = ["EngineStatus", "HealthState", "group_lag", "serve_health"]


@dataclass(slots=True)
class EngineStatus:
    """One engine of the process."""

    name: str
    events_in: int = 0
    """Events handled since the process started."""
    events_out: int = 0
    """Events published since the process started."""
    owned: Collection[int] = ()
    """Partitions that this process owns."""
    sequences: Mapping[int, int] = field(default_factory=dict)
    """Place in the log of the newest event that was handled, by partition."""
    checkpoint_age_s: Mapping[int, float] = field(default_factory=dict)
    """Seconds since the state was saved, by partition; 0 while nothing was handled since."""
    quarantined: int = 0
    """Symbols that wait for a person."""
    unreconciled: int | None = None
    """Partitions that have not compared with the venue and send nothing; None where the engine has no venue."""
    lag: Mapping[int, int] = field(default_factory=dict)
    """Events that wait, by partition; empty while that is not known."""
    meter: EngineMeter | None = None
    """What was counted and timed; None where nothing is."""
    stored: StoreMeter | None = None
    """What its event store counts; None where there is none."""
    store_refuses: bool | None = None
    """Whether its event store takes nothing at the moment; None where there is none."""


async def _no_lag() -> int:
    return 0


async def _look_at_nothing(state: HealthState) -> None:
    """Find nothing out."""


def _no_spans() -> int:
    return 0


@dataclass(slots=True)
class HealthState:
    """What there is to tell. The process sets it; `refresh`, where given, is called before each answer to do so."""

    started: bool = False
    """The start has finished."""
    draining: bool = False
    """The end has begun: not ready any more."""
    connected: bool = True
    """There is a connection to the bus."""
    failed: str = ""
    """Why the process cannot go on; empty while it can. Not alive any more."""
    problems: list[str] = field(default_factory=list)
    """Why it is not ready, each as a sentence: it is catching up, it does not own what it should."""
    engines: list[EngineStatus] = field(default_factory=list)
    publish_in_flight: int = 0
    """Events on their way to the log."""
    publish_window: int = 0
    """Events that may be on their way at once; 0: as many as there are."""
    publish_pauses: int = 0
    """Times that publishing of ticks began to wait since the process started, because the log was nearly full."""
    conflated: int = 0
    """Ticks left out since the process started."""
    undecodable: int = 0
    """Messages since the process started that were no events."""
    dropped_live: int = 0
    """Events that live views did not see since the process started."""
    reconnects: int = 0
    """Connections that came back since the process started."""
    failovers: int = 0
    """Partitions taken over from processes that had died, since the process started."""
    lapses: int = 0
    """Times that others had taken partitions over from here, since the process started."""
    lease_s: float = 0.0
    """Seconds without a sign of life after which others do; 0 on a bus without ownership."""
    orders: OrderFacts | None = None
    """The open orders; None where execution does not run here."""
    account: AccountFacts | None = None
    """What is held; None where portfolio does not run here."""
    log: LogFacts | None = None
    """The room in the log; None where nobody looks after it, or that is not known."""
    trading: TradingState | None = None
    """Whether trading is allowed; None where execution does not run here."""
    lag_known: bool = False
    """The log said in time how much waits."""
    dropped_spans: Callable[[], int] = _no_spans
    """Returns how many spans were thrown away since the process started."""
    lag: Callable[[], Awaitable[int]] = _no_lag
    """Returns how many events the groups of this process have pending, in all of its replicas; see `group_lag`."""
    refresh: Callable[[HealthState], None] | None = None
    """Brings the state up to date, as far as this process knows it."""
    look: Callable[[HealthState], Awaitable[None]] = _look_at_nothing
    """Called before `/metrics`: finds out what takes longer, and what only the log knows. May raise `BusError`."""
    registry: CollectorRegistry = field(default_factory=new_registry)
    """Where anybody may register further metrics."""

    def not_ready(self) -> list[str]:
        """Say why the process is not ready; nothing when it is."""
        reasons = [self.failed] if self.failed else []
        if not self.started:
            reasons.append("it has not finished starting")
        if self.draining:
            reasons.append("it is draining")
        if not self.connected:
            reasons.append("it is not connected to the bus")
        return [*reasons, *self.problems]


@asynccontextmanager
async def serve_health(settings: HealthSettings, state: HealthState) -> AsyncIterator[int]:
    """Serve while inside; yields the port, 0 when `health.port` is 0 and nothing is served.

    It runs on the event loop of the process, which is what `/livez` is about. Raises `SettingsError` when the port
    is in use.
    """
    if not settings.port:
        yield 0
        return
    answers = _Answers(state, settings.lag_timeout_s)
    try:
        async with serve_http(settings.host, settings.port, answers.answer) as port:
            yield port
    finally:
        answers.close()


class _Answers:
    """Answers each path from the state."""

    def __init__(self, state: HealthState, lag_timeout_s: float) -> None:
        self._state = state
        self._timeout_s = lag_timeout_s
        self._collector = StateCollector(state)
        state.registry.register(self._collector)
        self._paths: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/livez": self._live,
            "/readyz": self._ready,
            "/startupz": self._startup,
            "/metrics": self._metrics,
            "/lag": self._lag,
        }

    def close(self) -> None:
        """Take the state out of the registry."""
        self._state.registry.unregister(self._collector)

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        found = self._paths.get(request.path)
        if found is None:
            return _json(404, {"error": f"there is nothing here: ask for {', '.join(self._paths)}"})
        if self._state.refresh is not None:
            self._state.refresh(self._state)
        return await found(request)

    async def _live(self, _request: Request) -> Response:
        return _verdict([self._state.failed] if self._state.failed else [])

    async def _ready(self, _request: Request) -> Response:
        return _verdict(self._state.not_ready())

    async def _startup(self, _request: Request) -> Response:
        return _verdict([] if self._state.started else ["it has not finished starting"])

    async def _metrics(self, request: Request) -> Response:
        state = self._state
        state.lag_known = False
        with suppress(TimeoutError, BusError):
            async with asyncio.timeout(self._timeout_s):
                await state.look(state)
        encode, content_type = choose_encoder(request.accept)
        taken = Taken(state.registry.collect())
        return Response(200, await asyncio.to_thread(encode, taken), content_type)

    async def _lag(self, _request: Request) -> Response:
        try:
            async with asyncio.timeout(self._timeout_s):
                return _json(200, {"lag": await self._state.lag()})
        except TimeoutError:
            return _json(503, {"error": f"the log did not say within {self._timeout_s:g} s how much is pending"})
        except BusError as e:
            return _json(503, {"error": str(e)})


def _verdict(reasons: list[str]) -> Response:
    return _json(503, {"ok": False, "reasons": reasons}) if reasons else _json(200, {"ok": True})


def _json(status: int, value: dict[str, Any]) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False).encode() + b"\n")


GROUP_AND_PARTITION: Final = "-"


async def group_lag(connection: Connection, stream: str, groups: Iterable[str]) -> int:
    """Return how many events wait for the groups, over all partitions: not delivered, or not acknowledged.

    Raises `BusError` when the log does not answer.
    """
    wanted = set(groups)
    return sum(
        info["num_pending"] + info["num_ack_pending"]
        for name, info in (await list_groups(connection, stream)).items()
        if name in wanted or (_partition_of(name) and name.rpartition(GROUP_AND_PARTITION)[0] in wanted)
    )


def _partition_of(name: str) -> bool:
    return name.rpartition(GROUP_AND_PARTITION)[2].isdigit()

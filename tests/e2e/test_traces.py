"""Chains in a real Jaeger: what separate processes send, asked for by the `correlation_id` of the order's own event.

Market data, signals, strategy, execution and the venue are a process each; portfolio, storage, monitoring and
notifications share one. That one and strategy send over gRPC, asked for by a variable and by a setting, where the extra
is there; the others over HTTP. The everyday run asks for one chain, `pytest -m slow` for the others. Jaeger is `JAEGER_ALL_IN_ONE`, or `jaeger-all-in-one` on the PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.wire import trace_id
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent, OrderEvent
from botplatform.core.patterns import matches
from botplatform.core.seam import SystemClock, random_id
from botplatform.settings import Settings, load_settings

JAEGER = os.environ.get("JAEGER_ALL_IN_ONE", "") or shutil.which("jaeger-all-in-one") or ""
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        not JAEGER,
        reason="there is no Jaeger: build jaeger-all-in-one 1.76 (`.ci/run` does), and put it on the PATH or name it "
        "in JAEGER_ALL_IN_ONE",
    ),
]

HAS_GRPC = find_spec("grpc") is not None and find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
PATIENCE_S = 30.0
LEASE_S = 0.6
FEED, HAND = "FEEDUSDT", "HANDUSDT"
BUY, BOTH, REST = 101.0, 102.0, 103.0
"""Prices at which the strategies do something."""
STRATEGIES = """
from botplatform.strategies import Decided, Strategy, View, open_long


class Cued(Strategy):
    \"\"\"Buys when the price is a certain one.\"\"\"

    def decide(self, view: View) -> Decided:
        return open_long("0.2") if view.market.price in (101.0, 102.0) else None


class Second(Strategy):
    \"\"\"Buys as well at 102, and rests far below the market at 103.\"\"\"

    def decide(self, view: View) -> Decided:
        if view.market.price == 103.0:
            return open_long("0.1", limit_price="90")
        return open_long("0.1") if view.market.price == 102.0 else None


class Often(Strategy):
    \"\"\"Buys a little all the time.\"\"\"

    def decide(self, view: View) -> Decided:
        return open_long("1")
"""
HANDLERS = {"strategy", "execution", "portfolio", "storage", "monitoring", "notifications"}


class Span(NamedTuple):
    """A span as Jaeger has it."""

    id: str
    parent: str
    service: str
    name: str
    tags: dict[str, Any]
    notes: list[str]


class Trace(NamedTuple):
    """A trace as Jaeger has it."""

    spans: list[Span]

    @property
    def roots(self) -> list[Span]:
        """Each once: a dead process and its successor may both have sent the same one."""
        return list({span.id: span for span in self.spans if not span.parent}.values())

    @property
    def orphans(self) -> list[Span]:
        known = {span.id for span in self.spans}
        return [span for span in self.spans if span.parent and span.parent not in known]

    @property
    def edges(self) -> set[tuple[str, str]]:
        """From service to service, by parent and child."""
        by_id = {span.id: span for span in self.spans}
        found = {(by_id[span.parent].service, span.service) for span in self.spans if span.parent in by_id}
        return {(above.removeprefix("botplatform-"), below.removeprefix("botplatform-")) for above, below in found}

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def under(self, span: Span) -> list[str]:
        return sorted(f"{each.service}: {each.name}" for each in self.spans if each.parent == span.id)

    def tree(self, parent: str = "", depth: int = 0) -> str:
        lines = ""
        for span in self.spans:
            if span.parent == parent:
                lines += f"{'  ' * depth}{span.service.removeprefix('botplatform-')}: {span.name}\n"
                lines += self.tree(span.id, depth + 1)
        return lines


class Jaeger:
    """A Jaeger of this test's own."""

    def __init__(self, process: asyncio.subprocess.Process, otlp: str, grpc: str, api: str) -> None:
        self.process, self.otlp, self.grpc, self.api = process, otlp, grpc, api

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.api}{path}", timeout=10) as answer:
            return json.load(answer)

    def read(self, trace: str) -> Trace:
        try:
            found = self.get(f"/api/traces/{trace}")["data"]
        except urllib.error.HTTPError:
            return Trace([])
        return Trace([self._span(span, found[0]["processes"]) for span in found[0]["spans"]] if found else [])

    @staticmethod
    def _span(span: dict[str, Any], processes: dict[str, Any]) -> Span:
        parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        notes = [field["value"] for log in span["logs"] for field in log["fields"] if field["key"] == "event"]
        service = processes[span["processID"]]["serviceName"]
        return Span(span["spanID"], parents[0] if parents else "", service, span["operationName"], tags, notes)

    async def whole(self, trace: str, enough: Callable[[Trace], bool]) -> Trace:
        """Wait for a trace that has what it should and holds together, twice in a row: the rest is sent late."""
        found, before = Trace([]), -1
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = await asyncio.to_thread(self.read, trace)
                    whole = enough(found) and len(found.roots) == 1 and not found.orphans
                    if whole and before == len(found.spans):
                        return found
                    before = len(found.spans) if whole else -1
                    await asyncio.sleep(0.7)
        except TimeoutError:
            loose = [f"{each.service}: {each.name} {each.tags}" for each in found.roots + found.orphans]
            raise AssertionError(f"{trace} does not hold together: {loose}\n{found.tree()}") from None


@asynccontextmanager
async def jaeger() -> AsyncIterator[Jaeger]:
    http, grpc, api, *rest = free_ports(7)
    names = ("query.grpc-server", "collector.http-server", "collector.grpc-server", "admin.http")
    process = await asyncio.create_subprocess_exec(
        JAEGER,
        f"--collector.otlp.http.host-port=127.0.0.1:{http}",
        f"--collector.otlp.grpc.host-port=127.0.0.1:{grpc}",
        f"--query.http-server.host-port=127.0.0.1:{api}",
        *(f"--{name}.host-port=127.0.0.1:{port}" for name, port in zip(names, rest, strict=True)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    made = Jaeger(process, *(f"http://127.0.0.1:{port}" for port in (http, grpc, api)))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(OSError):
                    await asyncio.to_thread(made.get, "/api/services")
                    break
                await asyncio.sleep(0.1)
        yield made
    finally:
        process.kill()
        await process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


class Stage:
    """The log, the processes, Jaeger, and a market made by hand beside that of the market data process."""

    def __init__(self, bus: JetStreamEventBus, seen: Jaeger, overrides: list[str], directory: Path) -> None:
        self.bus, self.jaeger, self.overrides, self.directory = bus, seen, overrides, directory
        self.clock = SystemClock()
        self.processes: list[asyncio.subprocess.Process] = []

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        ours = ("BOTPLATFORM_", "OTEL_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PYTHONPATH": str(self.directory), **variables}

    async def start(
        self,
        *command: str,
        sets: tuple[str, ...] = (),
        crash_at: str = "",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> asyncio.subprocess.Process:
        arguments = [part for each in (*self.overrides, *sets) for part in ("--set", each)]
        environment = self.environment({"OTEL_EXPORTER_OTLP_ENDPOINT": self.jaeger.otlp, **variables})
        if crash_at:
            environment |= {"BOTPLATFORM_CRASH_AT": crash_at, "BOTPLATFORM_CRASH_POINTS": "1"}
        said = self.directory / f"{len(self.processes)}-{command[-1]}.txt"
        with said.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "botplatform.cli", *arguments, *command, stderr=file, env=environment
            )
        self.processes.append(process)
        async with asyncio.timeout(PATIENCE_S):
            while b"Ctrl-C ends" not in said.read_bytes():  # a small file
                assert process.returncode is None, said.read_text()  # a small file
                await asyncio.sleep(0.05)
        return process

    async def run(
        self,
        *engines: str,
        sets: tuple[str, ...] = (),
        crash_at: str = "",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> asyncio.subprocess.Process:
        named = [part for name in engines for part in ("--engine", name)]
        return await self.start("run", *named, sets=sets, crash_at=crash_at, variables=variables)

    async def command(self, *command: str) -> None:
        """Run a command to its end, as a person does who knows nothing of traces."""
        arguments = [part for each in self.overrides for part in ("--set", each)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "botplatform.cli", *arguments, *command, env=self.environment({})
        )
        assert await process.wait() == 0

    async def begin(self) -> None:
        """Start the processes, and wait until orders are sent."""
        feed = (f"symbols={FEED}", "strategies=[]", "feed.rate=3", "tracing.ratio=0.3")
        by_setting: tuple[str, ...] = ()
        by_variable: dict[str, str] = {}
        if HAS_GRPC:
            by_setting = (f"tracing.endpoint={self.jaeger.grpc}", "tracing.protocol=grpc")
            by_variable = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.jaeger.grpc, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        self.feed, *_ = await asyncio.gather(
            self.run("market_data", sets=feed),
            self.start("venue"),
            self.run("signals"),
            self.run("strategy", sets=by_setting),
            self.run("portfolio", "storage", "monitoring", "notifications", variables=by_variable),
        )
        self.execution = await self.run("execution")
        await self.trading()

    async def trading(self) -> None:
        """Wait until orders are sent: execution compares with the venue first, and denies what is decided meanwhile."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                chain = await self.show(BUY)
                answers = await self.until("order.*", chain, 2)
                if "order.denied" not in {event.type for event in answers}:
                    return

    async def show(self, price: float, chain: str = "") -> str:
        """Publish a snapshot of the market by hand, without tracing it, as other people's programs may."""
        now = self.clock.now_ns()
        made = random_id()
        payload = MarketEvent(HAND, price, timestamp_ns=now)
        chain = chain or made
        await self.bus.publish(
            Event("market.snapshot", payload, "test", timestamp_ns=now, correlation_id=chain, id=made)
        )
        return chain

    async def until(self, what: str, chain: str, count: int = 1) -> list[Event]:
        """Let the market go on until so many events of a type are in a chain."""
        began = self.clock.monotonic_ns()
        while True:
            log = [each.event async for each in self.bus.replay(["*"])]
            mine = [event for event in log if event.correlation_id == chain]
            found = [event for event in mine if matches(what, event.type)]
            if len(found) >= count:
                return found
            assert self.clock.monotonic_ns() - began < PATIENCE_S * 1e9, "\n".join(
                f"{event.source}: {event.type} {getattr(event.payload, 'reason_text', '')}" for event in mine
            )
            await asyncio.sleep(0.1)
            await self.show(100.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("traces")
    (directory / "cued_strategies.py").write_text(STRATEGIES)
    own = [
        {"name": name, "use": f"cued_strategies:{use}", "symbols": [symbol]}
        for name, use, symbol in (("cued", "Cued", HAND), ("second", "Second", HAND), ("often", "Often", FEED))
    ]
    async with AsyncExitStack() as stack:
        seen = await stack.enter_async_context(jaeger())
        server = await stack.enter_async_context(EmbeddedServer())
        overrides = [
            f"nats.url={server.url}",
            f"symbols={FEED},{HAND}",
            f"strategies={json.dumps(own)}",
            "bus.partitions=2",
            f"bus.lease_s={LEASE_S}",
            "bus.by_type=false",
            "exchange.kind=paper_venue",
            "exchange.latency_ms=0",
            "exchange.latency_jitter_ms=0",
            "exchange.partial_fill_share=0",
            "execution.request_timeout_s=5",
            "execution.max_decision_age_s=60",
            "risk.max_price_deviation=1",
            "notifications.throttle_s=0",
            "venue.poll_s=0.2",
            f"venue.book={directory}/venue.sqlite",
            f"storage.path={directory}/store.sqlite",
            "log.level=warning",
        ]
        settings: Settings = load_settings(None, (*overrides[:2], *overrides[3:]), environ={})
        bus = await stack.enter_async_context(
            await JetStreamEventBus.connect(
                settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
            )
        )
        made = Stage(bus, seen, overrides, directory)
        try:
            await made.begin()
            yield made
        finally:
            for process in made.processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()


def order_of(event: Event) -> OrderEvent:
    assert isinstance(event.payload, OrderEvent)
    return event.payload


def handled(trace: Trace, kind: str) -> set[str]:
    return {span.service.removeprefix("botplatform-") for span in trace.named(f"process {kind}")}


def complete(trace: Trace, fills: int = 1) -> bool:
    """Tell whether everybody has told of the fills and of what came of them."""
    told = Counter(span.service for span in trace.named("process order.filled"))
    return (
        handled(trace, "order.filled") >= HANDLERS
        and all(times >= fills for times in told.values())
        and handled(trace, "state.updated") >= {"storage", "monitoring", "notifications"}
        and handled(trace, "notification.alert") >= {"storage", "alert_sender"}
    )


async def test_an_order_is_found_under_the_correlation_id_of_its_event_from_the_decision_on(stage: Stage) -> None:
    chain = await stage.show(BUY)
    (filled,) = await stage.until("order.filled", chain)
    trace = await stage.jaeger.whole(filled.correlation_id, complete)
    (root,) = trace.roots
    assert (root.service, root.name) == ("botplatform-strategy", "process signal.snapshot")
    assert root.notes == ["market.snapshot", "signal.snapshot made"]
    assert trace.edges >= {
        ("strategy", "execution"),
        ("execution", "execution"),
        *(("execution", name) for name in HANDLERS),
        ("execution", "venue"),
        ("portfolio", "storage"),
        ("notifications", "alert_sender"),
    }
    (call,) = trace.named("submit paper")
    assert call.tags["span.kind"] == "client"
    assert trace.under(call) == [
        "botplatform-execution: publish order.accepted",
        "botplatform-execution: publish order.filled",
        "botplatform-venue: answer submit",
    ]
    (answer,) = trace.named("answer submit")
    assert answer.tags["span.kind"] == "server"
    assert trace.under(answer) == []
    now_ms = round(stage.clock.now_ns() / 1e6) + 60_000
    calls = await asyncio.to_thread(stage.jaeger.get, f"/api/dependencies?endTs={now_ms}&lookback=600000")
    assert ("botplatform-execution", "botplatform-venue") in {(each["parent"], each["child"]) for each in calls["data"]}
    (published,) = trace.named("publish order.filled")
    assert published.tags["messaging.system"] == "nats"
    assert published.tags["messaging.message.conversation_id"] == chain
    assert published.tags["botplatform.order_id"] == order_of(filled).order_id
    print(trace.tree())


@pytest.mark.slow
async def test_a_tick_that_is_sampled_begins_the_trace_in_market_data(stage: Stage) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            log = [each.event async for each in stage.bus.replay(["order.filled"])]
            mine = [event for event in log if order_of(event).symbol == FEED]
            sampled = [event for event in mine if trace_id(event.correlation_id)[18:] < f"{round(0.3 * 2**56):014x}"]
            if sampled and len(mine) > len(sampled):
                break
            await asyncio.sleep(0.2)
    trace = await stage.jaeger.whole(sampled[0].correlation_id, complete)
    assert (trace.roots[0].service, trace.roots[0].name) == ("botplatform-market_data", "publish market.snapshot")
    assert trace.edges >= {("market_data", "signals"), ("signals", "strategy"), ("strategy", "execution")}
    other = next(event for event in mine if event not in sampled)
    unsampled = await stage.jaeger.whole(other.correlation_id, complete)
    assert unsampled.roots[0].name == "process signal.snapshot"


@pytest.mark.slow
async def test_a_correlation_id_that_is_not_hexadecimal_is_found_by_its_hash_and_kept(stage: Stage) -> None:
    chain = await stage.show(BUY, "Bot 7: the 3rd try/é")
    await stage.until("order.filled", chain)
    trace = await stage.jaeger.whole(trace_id(chain), complete)
    assert {span.tags["botplatform.correlation_id"] for span in trace.named("publish order.filled")} == {chain}


@pytest.mark.slow
async def test_two_decisions_on_one_tick_share_their_root(stage: Stage) -> None:
    chain = await stage.show(BOTH)
    await stage.until("order.filled", chain, 2)
    trace = await stage.jaeger.whole(chain, lambda found: complete(found, 2))
    decided = trace.named("publish strategy.decision")
    assert {span.tags["botplatform.strategy"] for span in decided} == {"cued", "second"}
    assert {span.parent for span in decided} == {trace.roots[0].id}


@pytest.mark.slow
async def test_a_fill_long_after_the_order_is_in_its_trace(stage: Stage) -> None:
    chain = await stage.show(REST)
    await stage.until("order.accepted", chain)
    before = await stage.jaeger.whole(chain, lambda found: handled(found, "order.accepted") >= HANDLERS)
    assert not before.named("publish order.filled")
    await stage.show(89.0)
    await stage.until("order.filled", chain)
    trace = await stage.jaeger.whole(chain, complete)
    assert trace.named("publish order.filled")[0].parent == trace.named("submit paper")[0].id


@pytest.mark.slow
@pytest.mark.parametrize("point", ["submitted.after", "send.before", "send.after", "report.before", "report.after"])
async def test_execution_killed_in_the_middle_of_a_chain_leaves_one_whole_trace(stage: Stage, point: str) -> None:
    if stage.feed.returncode is None:
        stage.feed.terminate()
        await stage.feed.wait()
    stage.execution.terminate()
    await stage.execution.wait()
    dying = await stage.run("execution", crash_at=point)
    chains: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while dying.returncode is None:  # what is decided before it has compared with the venue is denied
            chains.append(await stage.show(BUY))
            await asyncio.sleep(0.4)
    assert dying.returncode == -signal.SIGKILL
    stage.execution = await stage.run("execution")
    last = [(await stage.until("order.*", chain, 2))[-1] for chain in chains]
    died = [chain for chain, event in zip(chains, last, strict=True) if event.type != "order.denied"]
    assert died, "no order was on its way"
    asked = 0
    for chain in died:
        await stage.until("order.filled", chain)
        trace = await stage.jaeger.whole(chain, complete)
        assert trace.roots[0].name == "process signal.snapshot"
        questions = trace.named("query paper")
        asked += len(questions)
        assert {each.parent for each in questions} <= {each.id for each in trace.named("publish order.submitted")}
        for question in questions:
            assert trace.under(question), "the venue has not told of it"
    assert asked or point == "report.after", "nobody asked what became of the order"


@pytest.mark.slow
async def test_a_halt_by_a_person_who_does_not_trace_has_one_root(stage: Stage) -> None:
    await stage.command("halt", "--reason", "a test of traces")
    await stage.command("resume", "--reason", "the test is over")
    changes = [each.event async for each in stage.bus.replay(["trading.*"])]
    for change in changes[-2:]:
        kind = change.type
        trace = await stage.jaeger.whole(change.correlation_id, lambda found, kind=kind: len(hearers(found, kind)) >= 5)  # type: ignore[misc]  # mypy cannot infer the default
        (root,) = trace.roots
        assert (root.service, root.name) == ("botplatform-operator", f"publish {kind}")
        assert {each.parent for each in trace.named(f"process {kind}")} == {root.id}
        assert sum(name == "execution" for name in hearers(trace, kind)) == 2, "both partitions hear of it"


def hearers(trace: Trace, kind: str) -> list[str]:
    """Name the engine of each span in which an event was handled."""
    return [span.service.removeprefix("botplatform-") for span in trace.named(f"process {kind}")]

"""Execution processes before the paper venue of another process, to be killed wherever one wants, and what the log says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.subjects import partition
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import ActionIntent, Event, MarketEvent, OrderEvent, OrderStatus, StrategyEvent
from botplatform.core.seam import SystemClock, derive_id
from botplatform.runtime.exchange_choice import build_remote_paper
from botplatform.settings import Settings, load_settings
from botplatform.trading.orders import Orders, client_order_id
from botplatform.trading.positions import Positions

PATIENCE_S = 120.0
LEASE_S = 0.6
COUNT = 4
"""Partitions."""
SYMBOLS = tuple(
    symbol
    for number in range(COUNT)
    for symbol in [f"S{each}USDT" for each in range(40) if partition(f"S{each}USDT", COUNT) == number][:2]
)
WAITING = """
import botplatform.bootstrap.platform, botplatform.cli, botplatform.cli.run, sys
sys.stdin.readline()
botplatform.cli.main()
"""
"""Begins as `botplatform` does once it is told to: importing takes half a second that the test can use."""


class Engine(NamedTuple):
    """A process of the execution engine."""

    process: asyncio.subprocess.Process
    port: int
    said: Path

    async def killed(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def died(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert await self.process.wait() == -signal.SIGKILL, self.said.read_text()

    async def paused(self) -> None:
        stat = Path(f"/proc/{self.process.pid}/stat")
        async with asyncio.timeout(PATIENCE_S):
            while not stopped(stat):  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)

    async def go(self) -> Engine:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()
        return self

    async def ready(self) -> bool:
        """Tell whether it says that it has what it should, and has compared that with the venue."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        answer = await reader.readline()
        writer.close()
        return b" 200 " in answer


def stopped(stat: Path) -> bool:
    return stat.read_text().rpartition(")")[2].split()[0] == "T"


class Ledger:
    """What the log says about orders, read on from where it was read last."""

    def __init__(self, bus: JetStreamEventBus) -> None:
        self.orders = Orders()
        self.positions = Positions()
        self.submitted: Counter[str] = Counter()
        self.trades: Counter[tuple[str, str]] = Counter()
        self.ids: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self._bus = bus
        self._place = 0

    async def read(self) -> None:
        async for delivery in self._bus.replay(["order.*"], after=self._place):
            event = delivery.event
            self._place = delivery.sequence
            assert isinstance(event.payload, OrderEvent)
            self.ids[event.id] += 1
            self.reasons[event.payload.order_id] = f"{event.source} {event.payload.reason_text}"
            self.submitted[event.payload.order_id] += event.type == "order.submitted"
            if event.payload.trade_id:
                self.trades[event.payload.symbol, event.payload.trade_id] += 1
            applied = self.orders.apply(event)
            if applied.fill is not None:
                self.positions.apply(applied.fill)

    def held(self) -> dict[tuple[str, str], Decimal]:
        return {(key.symbol, key.side): leg.quantity for key, leg in self.positions.legs() if leg.quantity}


class Theatre:
    """The server's log, the venue's process, a market made by hand, and execution processes that are killed."""

    def __init__(self, bus: JetStreamEventBus, settings: Settings, overrides: list[str], directory: Path) -> None:
        self.bus, self.overrides, self.directory = bus, overrides, directory
        self.clock = SystemClock()
        self.venue = build_remote_paper(settings)
        self.ledger = Ledger(bus)
        self.owners = Bucket(bus.connection, "partitions")
        self.processes: list[asyncio.subprocess.Process] = []
        self.engines: list[Engine] = []
        self.spares: dict[str, Engine] = {}
        self.market = asyncio.Event()
        self.wanted = 0

    async def start(self, *command: str, crash_at: str = "", port: int = 0) -> Engine:
        arguments = [part for each in (*self.overrides, f"health.port={port}") for part in ("--set", each)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        if crash_at:
            environment |= {"BOTPLATFORM_CRASH_AT": crash_at, "BOTPLATFORM_CRASH_POINTS": "1"}
        said = self.directory / f"{len(self.processes)}-{command[0]}.txt"
        with said.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WAITING, *arguments, *command),
                stdin=asyncio.subprocess.PIPE,
                stderr=file,
                env=environment,
            )
        self.processes.append(process)
        return Engine(process, port, said)

    async def prepare(self, *crash_at: str) -> None:
        """Begin to start processes that will be needed."""
        for each in crash_at:
            if each not in self.spares:
                self.spares[each] = await self._spare(each)

    async def execution(self, crash_at: str = "") -> Engine:
        await self.prepare(crash_at)
        engine = await self.spares.pop(crash_at).go()
        self.engines = [each for each in self.engines if each.process.returncode is None] + [engine]
        return engine

    async def _spare(self, crash_at: str) -> Engine:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return await self.start("run", "--engine", "execution", crash_at=crash_at, port=port)

    async def shared_by(self, *engines: Engine) -> None:
        """Wait until these processes have all partitions between them, and have compared them with the venue."""
        async with asyncio.timeout(PATIENCE_S):
            times = 0
            while times < 2:  # what has just been taken is not known to the process itself yet
                for engine in engines:
                    assert engine.process.returncode is None, engine.said.read_text()
                entries = await self.owners.entries()
                owners = [msgspec.json.decode(entry.value)["member"] for entry in entries.values()]
                mine = [owner for owner in owners if owner]
                whole = len(set(mine)) == len(engines) and len(mine) == len(owners) >= COUNT
                times = times + 1 if whole and all([await engine.ready() for engine in engines]) else 0
                await asyncio.sleep(0.02)

    async def move(self) -> None:
        """Let the market go on, unless it is told to wait."""
        number = 0
        while True:
            await self.market.wait()
            number += 1
            now = self.clock.now_ns()
            await self.bus.publish_all(
                Event(
                    "market.snapshot",
                    MarketEvent(symbol, 100.0, timestamp_ns=now),
                    "test",
                    timestamp_ns=now,
                    correlation_id=f"{symbol}-{number}",
                    id=f"{symbol}-{number}",
                )
                for symbol in SYMBOLS
            )
            await asyncio.sleep(0.05)

    async def decide(self, name: str, symbols: tuple[str, ...], actions: tuple[ActionIntent, ...]) -> dict[str, str]:
        """Let symbols decide at once; return the symbol by the id of each order that has to come of it."""
        expected: dict[str, str] = {}
        events = []
        for symbol in symbols:
            decision = derive_id(name, symbol)
            now = self.clock.now_ns()
            payload = StrategyEvent("test_strategy", symbol, actions)
            events.append(
                Event("strategy.decision", payload, "strategy", timestamp_ns=now, correlation_id=decision, id=decision)
            )
            expected |= {client_order_id(decision, index): symbol for index in range(len(actions))}
        await self.bus.publish_all(events)
        return expected

    async def settled(self, expected: dict[str, str]) -> list[str]:
        """Wait until all orders are done with and both sides hold the same; return those that were denied."""
        began = self.clock.monotonic_ns()
        while True:
            await self.ledger.read()
            found = [self.ledger.orders.get(order_id) for order_id in expected]
            done = [order for order in found if order is not None and not order.is_open]
            held, reported = self.ledger.held(), await self.venue.fetch_positions()
            if len(done) == len(expected) and reported == held:
                missed = [order for order in done if order.status is not OrderStatus.FILLED]
                return [f"{order.order_id} {order.status}: {self.ledger.reasons[order.order_id]}" for order in missed]
            if self.clock.monotonic_ns() - began > PATIENCE_S * 1e9:
                waiting = {key: order and order.status for key, order in zip(expected, found, strict=True)}
                raise AssertionError(f"waiting for {waiting}, {dict(expected)}; held {held}, at the venue {reported}")
            await asyncio.sleep(0.02)


@asynccontextmanager
async def theatre(directory: Path) -> AsyncIterator[Theatre]:
    async with EmbeddedServer() as server:
        overrides = [
            f"nats.url={server.url}",
            "symbols=" + ",".join(SYMBOLS),
            f"bus.partitions={COUNT}",
            f"bus.lease_s={LEASE_S}",
            "bus.by_type=false",
            "bus.checkpoint_every=10",
            "exchange.kind=paper_venue",
            "exchange.latency_ms=0",
            "exchange.latency_jitter_ms=0",
            "exchange.partial_fill_share=0.5",
            "execution.request_timeout_s=5",
            "execution.max_decision_age_s=60",
            "venue.poll_s=0.2",
            f"venue.book={directory}/venue.sqlite",
            "log.level=warning",
        ]
        settings = load_settings(None, tuple(overrides), environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            made = Theatre(bus, settings, overrides, directory)
            await (await made.start("venue")).go()
            await connected(made)
            moving = asyncio.create_task(made.move())
            try:
                yield made
            finally:
                moving.cancel()
                await asyncio.gather(moving, return_exceptions=True)
                await made.venue.close()
                for process in made.processes:
                    if process.returncode is None:
                        process.kill()
                    await process.wait()


async def connected(made: Theatre) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not made.venue.connected:
            with suppress(Exception):
                await made.venue.connect(lambda _: None)
            await asyncio.sleep(0.05)

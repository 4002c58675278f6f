"""Execution as several processes, before the paper venue as a process of its own, on a real server."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from benches.processes import running, started
from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.setup import ACCOUNTS
from botplatform.bus.jetstream.subjects import partition
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import ActionIntent, Event, MarketEvent, OrderEvent, PositionSide, StrategyEvent
from botplatform.core.seam import SystemClock, random_id
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.runtime.account_ledger import BucketRecords
from botplatform.runtime.exchange_choice import build_remote_paper
from botplatform.settings import Settings, load_settings
from botplatform.testing import intent
from botplatform.trading.orders import Orders
from botplatform.trading.positions import Positions

PATIENCE_S = 120.0
_ON_PARTITIONS = {partition(f"S{number}USDT", 16): f"S{number}USDT" for number in range(40)}
SYMBOLS = tuple(_ON_PARTITIONS[number] for number in sorted(_ON_PARTITIONS))[:8]
"""Eight symbols on eight partitions."""


class Stage:
    """The server's log, a venue process, execution processes that come and go, and a market made by hand."""

    def __init__(self, bus: JetStreamEventBus, settings: Settings, overrides: list[str]) -> None:
        self.bus, self.settings, self.overrides = bus, settings, overrides
        self.clock = SystemClock()
        self.venue: RemotePaperExchange = build_remote_paper(settings)
        self.processes: list[asyncio.subprocess.Process] = []
        self.price = 100.0
        self.decided = 0

    async def start(self, *command: str, says: bytes) -> asyncio.subprocess.Process:
        process = await started(self.overrides, *command, says=says)
        self.processes.append(process)
        return process

    async def execution(self) -> asyncio.subprocess.Process:
        return await self.start(*running("execution"), says=b"running execution")

    async def show(self) -> None:
        """Publish one snapshot of each symbol."""
        now = self.clock.now_ns()
        await self.bus.publish_all(
            Event(
                "market.snapshot",
                MarketEvent(symbol, self.price, timestamp_ns=now),
                "test",
                timestamp_ns=now,
                correlation_id=f"{symbol}-{now}",
                id=f"{symbol}-{now}",
            )
            for symbol in SYMBOLS
        )

    async def decide(self, symbol: str, *actions: ActionIntent) -> str:
        self.decided += 1
        made = random_id()
        payload = StrategyEvent("test_strategy", symbol, actions)
        now = self.clock.now_ns()
        await self.bus.publish(
            Event("strategy.decision", payload, "strategy", timestamp_ns=now, correlation_id=made, id=made)
        )
        return made

    async def trading(self) -> None:
        """Wait until every symbol is traded: a small order is accepted, and cancelled again."""
        missing = set(SYMBOLS)
        while missing:
            asked = [await self.decide(each, intent(size="0.06", limit_price="95")) for each in sorted(missing)]
            log = await self.until(partial(answered, asked))
            missing -= {each.symbol for each in of(log, "order.accepted")}
        for symbol in SYMBOLS:
            await self.decide(symbol, intent("cancel"))
        await self.until(lambda log: not still_open(log))

    async def log(self) -> list[Event]:
        return [delivery.event async for delivery in self.bus.replay(["order.*", "system.error", "system.warning"])]

    async def until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        """Let the market go on until the log says something."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.show()
                log = await self.log()
                if enough(log):
                    return log
                await asyncio.sleep(0.05)

    async def agreed(self, fills: int = 0) -> list[Event]:
        """Let the market go on until nothing is open and the log has the venue's positions."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.show()
                held, log = await self.venue.fetch_positions(), await self.log()
                if not still_open(log) and held == holding(log) and len(of(log, "order.filled")) >= fills:
                    return log
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        await self.venue.close()
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
async def stage(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with EmbeddedServer() as server:
        overrides = [
            f"nats.url={server.url}",
            "symbols=" + ",".join(SYMBOLS),
            "exchange.kind=paper_venue",
            "exchange.latency_ms=0",
            "exchange.latency_jitter_ms=0",
            "exchange.partial_fill_share=0.5",
            "exchange.spread_bps=0",
            "execution.request_timeout_s=2",
            "execution.max_decision_age_s=60",
            "venue.poll_s=0.2",
            f"venue.book={tmp_path}/venue.sqlite",
            "log.level=warning",
            *getattr(request, "param", ()),
        ]
        settings = load_settings(None, tuple(overrides), environ={})
        made = await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        )
        async with made as bus:
            stage = Stage(bus, settings, overrides)
            await stage.start("venue", says=b"the venue paper serves")
            await stage.venue.connect(lambda _: None)
            yield stage
            await stage.end()


def of(log: list[Event], kind: str) -> list[OrderEvent]:
    return [event.payload for event in log if event.type == kind and isinstance(event.payload, OrderEvent)]


def answered(decisions: list[str], log: list[Event]) -> bool:
    """Tell whether each decision's order was accepted or denied."""
    return set(decisions) <= {each.decision_id for each in of(log, "order.accepted") + of(log, "order.denied")}


def recorded(decisions: list[str], log: list[Event]) -> bool:
    """Tell whether an order, sent or denied, was made of each decision."""
    return set(decisions) <= {each.decision_id for each in of(log, "order.submitted") + of(log, "order.denied")}


def holding(log: list[Event]) -> dict[tuple[str, PositionSide], Decimal]:
    """Fold the log into what is held."""
    orders, positions = Orders(), Positions()
    for event in log:
        if isinstance(event.payload, OrderEvent):
            applied = orders.apply(event)
            if applied.fill is not None:
                positions.apply(applied.fill)
    return {(key.symbol, key.side): leg.quantity for key, leg in positions.legs() if leg.quantity}


def still_open(log: list[Event]) -> bool:
    """Tell whether an order is open by the log."""
    orders = Orders()
    for event in log:
        orders.apply(event)
    return bool(orders.open())


def doubled(log: list[Event]) -> list[str]:
    """Name what the log holds twice: an execution, or an event."""
    trades = Counter(f"{each.symbol} {each.trade_id}" for event in log if isinstance(each := event.payload, OrderEvent) and each.trade_id)  # fmt: skip
    ids = Counter(event.id for event in log)
    return [name for name, times in (*trades.items(), *ids.items()) if times > 1]


@pytest.mark.parametrize("stage", [("risk.max_account_notional=550",)], indirect=True)
async def test_eight_symbols_on_eight_partitions_fire_at_once_and_the_limit_holds(stage: Stage) -> None:
    assert len({partition(symbol, 16) for symbol in SYMBOLS}) == 8
    await asyncio.gather(stage.execution(), stage.execution())
    await stage.trading()
    warm = (await stage.venue.audit()).orders
    before = len(of(await stage.log(), "order.denied"))
    most = Decimal(0)

    async def watch() -> None:
        nonlocal most
        while True:
            held = await stage.venue.fetch_positions()
            most = max(most, sum(held.values(), Decimal(0)) * 100)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    for _ in range(3):
        await asyncio.gather(*(stage.decide(each, intent(size=1, limit_price="100")) for each in SYMBOLS))
    log = await stage.until(lambda log: len(of(log, "order.denied")) - before + len(of(log, "order.filled")) >= 24)
    denied = of(log, "order.denied")[before:]
    assert (len(of(log, "order.filled")), {each.reason_code for each in denied}) == (5, {"ACCOUNT_LIMIT"})
    assert (await stage.venue.audit()).orders == warm + 5, "what is denied never reaches the venue"
    for symbol in {each.symbol for each in of(log, "order.filled")}:
        await stage.decide(symbol, intent("close", size=3))
    await stage.until(lambda log: not holding(log) and not still_open(log))
    await asyncio.gather(*(stage.decide(each, intent(size=1, limit_price="100")) for each in SYMBOLS))
    await stage.until(lambda log: len(of(log, "order.denied")) == before + len(denied) + 3)
    log = await stage.agreed()
    watching.cancel()
    assert most == 500
    assert sum(holding(log).values()) == 5
    record, _ = await BucketRecords(Bucket(stage.bus.connection, ACCOUNTS), "paper").read()
    assert record.used == 500
    assert doubled(log) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [("risk.max_account_notional=550",)], indirect=True)
async def test_the_limit_holds_while_owners_are_killed_and_followed(stage: Stage) -> None:
    running = [await stage.execution(), await stage.execution()]
    await stage.trading()
    filled = 0
    for number in range(6):
        asked = await asyncio.gather(*(stage.decide(each, intent(size=1, limit_price="100")) for each in SYMBOLS))
        await asyncio.sleep(0.05 * number)
        victim = running.pop(0)
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
        running.append(await stage.execution())
        await stage.until(partial(recorded, asked))
        log = await stage.agreed()
        filled += len(holding(log))
        assert sum(holding(log).values()) <= 5
        assert doubled(log) == []
        for symbol, _ in holding(log):
            await stage.decide(symbol, intent("close", size=9))
        await stage.until(lambda log: not still_open(log))
    log = await stage.agreed()
    assert filled > 0
    assert (await stage.venue.audit()).repeated == {}
    assert [event.payload for event in log if event.type == "system.error"] == []
    record, _ = await BucketRecords(Bucket(stage.bus.connection, ACCOUNTS), "paper").read()
    assert record.used == sum(holding(log).values()) * 100


async def test_execution_is_killed_the_venue_fills_and_after_a_restart_each_fill_is_there_once(stage: Stage) -> None:
    resting = [intent(size="2", limit_price="95"), intent("open", "short", "1")]
    first = await stage.execution()
    await stage.trading()
    accepted = len(of(await stage.log(), "order.accepted"))
    for symbol in SYMBOLS[:4]:
        await stage.decide(symbol, *resting)
    await stage.until(lambda log: len(of(log, "order.accepted")) >= accepted + 8)
    for symbol in SYMBOLS[4:]:  # in mid-flight
        await stage.decide(symbol, *resting)
    first.send_signal(signal.SIGKILL)
    await first.wait()
    stage.price = 94.0
    async with asyncio.timeout(PATIENCE_S):
        while len([leg for leg in await stage.venue.fetch_positions() if leg[1] is PositionSide.LONG]) < 4:
            await stage.show()
            await asyncio.sleep(0.05)
    await stage.execution()
    fresh = await stage.decide(SYMBOLS[0], intent(size="0.5", limit_price="100"))
    await stage.until(lambda log: any(each.decision_id == fresh for each in of(log, "order.submitted")))
    log = await stage.agreed()
    assert doubled(log) == []
    assert (await stage.venue.audit()).repeated == {}
    found = [each for each in of(log, "order.filled") + of(log, "order.partial") if each.reconciliation]
    assert found, "what was filled while nobody listened was found by asking"
    assert [event.payload for event in log if event.type == "system.error"] == []
    late = await stage.decide(SYMBOLS[0], intent(size="0.5", limit_price="100"))
    await stage.until(lambda log: any(each.decision_id == late for each in of(log, "order.filled")))

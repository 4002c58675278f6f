"""Engines that fail on some events, on a bus with dead letters, and how to decide about these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import ClassVar

from benches.dead_letters import emptied, letters_of
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.engine import Engine, Output
from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import SystemClock, random_id
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.exchanges.paper.venue import PaperVenue
from botplatform.runtime.checkpoint import BucketCheckpoints
from botplatform.runtime.dead_letters import DeadLetter, Ruling, Verdict
from botplatform.runtime.execution_worker import ExecutionWorker
from botplatform.runtime.replay import LogReplay
from botplatform.runtime.trading_state import MemoryTradingState
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import ExchangeSettings, ExecutionSettings, PortfolioSettings, RiskSettings
from botplatform.testing import fill, market
from botplatform.trading.instruments import Instruments

PATIENCE_S = 60.0
BTC, ETH = "BTCUSDT", "ETHUSDT"
GROUPS = {"portfolio": PortfolioEngine.listens, "execution": ExecutionEngine.listens}
NUMBERS = count(1)


class FragilePortfolio(PortfolioEngine):
    """Raises, half-changed, on the trades in `POISON`."""

    POISON: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__(PortfolioSettings())

    def handle(self, event: Event) -> Sequence[Output]:
        outputs = super().handle(event)
        if isinstance(event.payload, OrderEvent) and event.payload.trade_id in self.POISON:
            raise ArithmeticError(f"cannot count {event.payload.trade_id}")
        return outputs


class FragileExecution(ExecutionEngine):
    """Raises, half-changed, on fills of the symbols in `POISON` that were made after a time."""

    POISON: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__(
            risk=RiskSettings(),
            execution=ExecutionSettings(),
            instruments=Instruments({}),
            symbols=(BTC, ETH),
            venue="paper",
            account_id="main",
        )

    def handle(self, event: Event) -> Sequence[Output]:
        outputs = super().handle(event)
        if event.type == "order.filled" and event.created_ns > self.POISON.get(event.key, event.created_ns):
            raise ArithmeticError(f"cannot fold {event.id}")
        return outputs


@asynccontextmanager
async def quarantine(server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    """Connect to a bus that is left empty, with engines that fail no more, for the next test."""
    async with emptied(server, GROUPS) as bus:
        yield bus
    FragilePortfolio.POISON = set()
    FragileExecution.POISON = {}


async def begin(worker: EngineWorker, bus: JetStreamEventBus) -> EngineWorker:
    worker.keep_dead_letters(letters_of(bus))
    await worker.start()
    return worker


async def start_portfolio(bus: JetStreamEventBus, kind: type[EngineWorker] = EngineWorker) -> EngineWorker:
    return await begin(kind(FragilePortfolio, bus, SystemClock(), BucketCheckpoints(bus.checkpoints)), bus)


async def start_execution(bus: JetStreamEventBus) -> EngineWorker:
    worker = ExecutionWorker(
        FragileExecution,
        bus,
        SystemClock(),
        BucketCheckpoints(bus.checkpoints),
        venue=PaperVenue(ExchangeSettings(latency_ms=0, latency_jitter_ms=0, partial_fill_share=0), Instruments({})),
        trading=MemoryTradingState(),
        max_decision_age_s=1e10,
    )
    return await begin(worker, bus)


def filled(symbol: str, price: int, quantity: str = "1", side: str = "BUY") -> Event:
    number = next(NUMBERS)
    return fill(
        str(price), quantity, symbol=symbol, side=side, order_id=f"o{number}", trade_id=f"t{number}", at_s=float(number)
    )


def tick(symbol: str, price: float) -> Event:
    now = SystemClock().now_ns()
    return market(symbol, price, at_s=now / 1e9, timestamp_ns=now, id=random_id())


def trade_of(event: Event) -> str:
    assert isinstance(event.payload, OrderEvent)
    return event.payload.trade_id


async def settle(bus: JetStreamEventBus, group: str) -> None:
    """Wait until a group has handled what is in the log."""

    async def done() -> bool:
        last = await bus.last_sequence()
        info = await bus.connection.api(f"CONSUMER.INFO.EVENTS.{group}")
        idle = not info["num_pending"] and not info["num_ack_pending"]
        return idle and last == await bus.last_sequence()

    for _ in range(2):
        await until(done)


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await done():
                return
            await asyncio.sleep(0.03)


async def log_of(bus: JetStreamEventBus, *patterns: str) -> list[Event]:
    return [delivery.event async for delivery in bus.replay(patterns or ("*",))]


async def decide(bus: JetStreamEventBus, verdict: Verdict, *, results: tuple[Verdict, ...] = ()) -> DeadLetter:
    """Decide about the one letter that is open, and wait for what comes of it."""
    letters = letters_of(bus)
    (letter,) = [each for each in await letters.read() if each.open]
    await letters.rule(letter, Ruling(verdict, by="somebody"), unless_changed=True)
    wanted = results or (Verdict.REQUEUED, Verdict.DISCARDED)

    async def settled() -> bool:
        found = await letters.get(letter.id)
        return found is not None and found.ruling.verdict in wanted

    await until(settled)
    return letter


def positions_of(engine: Engine) -> object:
    assert isinstance(engine, PortfolioEngine)
    account = engine.account
    return account.positions.state_hash(), account.realized_pnl, account.unrealized_pnl, account.commission


def counted(events: Sequence[Event]) -> object:
    """Return what a portfolio that can handle everything makes of events."""
    engine = PortfolioEngine(PortfolioSettings())
    for event in events:
        engine.handle(event)
    return positions_of(engine)


async def replays(bus: JetStreamEventBus, engine: Engine) -> None:
    replay = LogReplay([engine], await letters_of(bus).read())
    async for delivery in bus.replay(["*"]):
        replay.feed(delivery.event, delivery.sequence)
    report = replay.finish()
    assert report.differences == []
    assert report.compared > 0

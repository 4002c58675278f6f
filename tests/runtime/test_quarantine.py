"""A symbol of portfolio or execution that waits for a person: the others go on, and nothing of it is lost or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from itertools import count
from typing import ClassVar

import pytest

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.dead_letters import DeadLetterStream
from botplatform.bus.server import EmbeddedServer
from botplatform.core.engine import Engine, Output, Step
from botplatform.core.events import Event, OrderEvent, Severity, StateEvent, SystemEvent
from botplatform.core.seam import SystemClock, random_id
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.exchanges.paper.venue import PaperVenue
from botplatform.runtime.checkpoint import BucketCheckpoints
from botplatform.runtime.dead_letters import DeadLetter, Ruling, StreamDeadLetters, Verdict
from botplatform.runtime.execution_worker import ExecutionWorker
from botplatform.runtime.replay import LogReplay
from botplatform.runtime.trading_state import MemoryTradingState
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import (
    BusSettings,
    ExchangeSettings,
    ExecutionSettings,
    NatsSettings,
    PortfolioSettings,
    RiskSettings,
)
from botplatform.testing import decision, fill, intent, market
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


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    running = EmbeddedServer()
    asyncio.run(running.start())
    yield running
    running.stop()


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    settings = BusSettings(by_type=False, duplicate_window_s=1)
    async with await JetStreamEventBus.connect(NatsSettings(url=server.url), settings, groups=GROUPS) as made:
        yield made
        for stream in ("EVENTS", "KV_checkpoints", "DEAD_LETTERS"):
            await made.connection.api(f"STREAM.PURGE.{stream}", {})
    FragilePortfolio.POISON = set()
    FragileExecution.POISON = {}


def letters_of(bus: JetStreamEventBus) -> StreamDeadLetters:
    return StreamDeadLetters(DeadLetterStream(bus.connection, "EVENTS"))


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


async def test_the_other_symbols_go_on_and_requeued_it_is_as_if_nothing_had_been(bus: JetStreamEventBus) -> None:
    first = [tick(BTC, 100), tick(ETH, 10), filled(BTC, 100), filled(ETH, 10)]
    poison = filled(BTC, 110)
    later = [filled(ETH, 12), tick(BTC, 120), filled(BTC, 120, "2", "SELL"), filled(BTC, 130), tick(ETH, 13)]
    FragilePortfolio.POISON = {trade_of(poison)}
    worker = await start_portfolio(bus)
    await bus.publish_all([*first, poison, *later])
    await settle(bus, "portfolio")
    without = [event for event in (*first, *later) if event.key == ETH or event in first]
    assert positions_of(worker.host.engine) == counted(without)
    (error,) = [event.payload for event in await log_of(bus, "system.error")]
    assert isinstance(error, SystemEvent)
    assert (error.code, error.severity, error.symbol) == ("QUARANTINED", Severity.CRITICAL, BTC)
    assert await letters_of(bus).held_for("portfolio", BTC)

    await worker.stop()
    worker = await start_portfolio(bus)  # as another process does that takes over
    more = [filled(BTC, 140), filled(ETH, 14)]
    await bus.publish_all(more)
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*without, more[1]])

    FragilePortfolio.POISON = set()
    await decide(bus, Verdict.REQUEUE)
    await settle(bus, "portfolio")
    after = [filled(BTC, 150)]
    await bus.publish_all(after)
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*first, poison, *later, *more, *after])
    assert not await letters_of(bus).held_for("portfolio", BTC)
    recoveries = [event.payload for event in await log_of(bus, "system.recovery")]
    assert [(each.code, each.symbol) for each in recoveries if isinstance(each, SystemEvent)] == [
        ("QUARANTINE_LIFTED", BTC)
    ]
    updates = [event for event in await log_of(bus, "state.updated") if isinstance(event.payload, StateEvent)]
    assert len(updates) == len({event.causation_id for event in updates}) == 9, "each fill is answered once"
    await worker.stop()
    await replays(bus, FragilePortfolio())


async def test_discarded_it_alone_is_missing(bus: JetStreamEventBus) -> None:
    first, poison, later = [filled(BTC, 100), filled(ETH, 10)], filled(BTC, 110), [filled(BTC, 120), filled(ETH, 11)]
    FragilePortfolio.POISON = {trade_of(poison)}
    worker = await start_portfolio(bus)
    await bus.publish_all([*first, poison, *later])
    await settle(bus, "portfolio")
    await decide(bus, Verdict.DISCARD)
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*first, *later])
    await worker.stop()
    await replays(bus, FragilePortfolio())


async def test_what_fails_behind_it_waits_for_a_decision_of_its_own(bus: JetStreamEventBus) -> None:
    events = [filled(BTC, price) for price in (100, 110, 120, 130, 140)]
    FragilePortfolio.POISON = {trade_of(events[1]), trade_of(events[3])}
    worker = await start_portfolio(bus)
    await bus.publish_all(events)
    await settle(bus, "portfolio")
    await decide(bus, Verdict.REQUEUE, results=(Verdict.WAITING,))  # nothing has changed: it fails again
    assert positions_of(worker.host.engine) == counted(events[:1])
    FragilePortfolio.POISON = {trade_of(events[3])}
    await decide(bus, Verdict.REQUEUE)
    assert positions_of(worker.host.engine) == counted(events[:3])
    (open_one,) = [each for each in await letters_of(bus).read() if each.open]
    assert open_one.event == events[3]
    assert await letters_of(bus).held_for("portfolio", BTC) == open_one.id
    await worker.stop()
    worker = await start_portfolio(bus)
    FragilePortfolio.POISON = set()
    await decide(bus, Verdict.REQUEUE)
    assert positions_of(worker.host.engine) == counted(events)
    await worker.stop()
    await replays(bus, FragilePortfolio())


class Interrupted(EngineWorker):
    """Is killed when all that waited is handled, before that is saved."""

    async def _settled(self, *_: object) -> None:
        raise RuntimeError("killed")


async def killed_while_settling(bus: JetStreamEventBus, events: Sequence[Event], *, poison: Event) -> DeadLetter:
    """Leave behind what an owner does that handled all that waited behind `poison`, and was killed then."""
    FragilePortfolio.POISON = {trade_of(poison)}
    worker = await start_portfolio(bus, Interrupted)
    await bus.publish_all(events)
    await settle(bus, "portfolio")
    FragilePortfolio.POISON = set()
    letters = letters_of(bus)
    (letter,) = await letters.read()
    await letters.rule(letter, Ruling(Verdict.REQUEUE, by="somebody"))

    async def handled() -> bool:
        return len(await log_of(bus, "state.updated")) == len(events)

    await until(handled)
    await worker.abandon()
    return letter


async def test_killed_while_settling_the_next_owner_settles_and_doubles_nothing(bus: JetStreamEventBus) -> None:
    events = [filled(BTC, 100), filled(BTC, 110), filled(ETH, 10), filled(BTC, 120)]
    letter = await killed_while_settling(bus, events, poison=events[1])
    await asyncio.sleep(1.1)  # the server no longer drops what has the same id
    worker = await start_portfolio(bus)
    await bus.publish_all([filled(ETH, 11)])
    await settle(bus, "portfolio")
    found = await letters_of(bus).get(letter.id)
    assert found is not None
    assert found.ruling.verdict is Verdict.REQUEUED
    updates = await log_of(bus, "state.updated")
    assert len(updates) == len({event.id for event in updates}) == 5
    await worker.stop()
    await replays(bus, FragilePortfolio())


class Slow(EngineWorker):
    """Settles slowly, while it listens for decisions often."""

    async def _carry_out_late(self, event: Event, step: Step) -> None:
        await asyncio.sleep(0.3)
        await super()._carry_out_late(event, step)


async def test_what_is_still_being_settled_at_the_start_is_not_settled_a_second_time_beside(
    bus: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [filled(BTC, 100), filled(BTC, 110), filled(BTC, 120)]
    await killed_while_settling(bus, events, poison=events[1])
    monkeypatch.setattr("botplatform.runtime.poison.LOOK_S", 0.01)
    worker = await start_portfolio(bus, Slow)
    await bus.publish_all([filled(ETH, 11)])
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*events, (await log_of(bus, "order.*"))[-1]])
    assert worker._broken is None
    await worker.stop()


def wish(symbol: str, size: str = "1") -> Event:
    now = SystemClock().now_ns()
    return decision(intent(size=size), symbol=symbol, at_s=now / 1e9, id=random_id())


async def ask(bus: JetStreamEventBus, *symbols: str) -> list[str]:
    """Decide to open a little of each symbol, show the market, and return what became of the orders, in order."""
    wishes = [wish(symbol) for symbol in symbols]
    await bus.publish_all([*(tick(symbol, 100) for symbol in symbols), *wishes])
    await settle(bus, "execution")
    await bus.publish_all([tick(symbol, 101) for symbol in symbols])
    await settle(bus, "execution")
    ends: dict[str, str] = {}
    for event in await log_of(bus, "order.*"):
        if isinstance(event.payload, OrderEvent):
            ends[event.payload.decision_id] = event.payload.reason_code or event.payload.status
    return [ends.get(each.id, "nothing") for each in wishes]


async def test_orders_of_a_symbol_quarantined_in_execution_are_denied_until_it_trades_again(
    bus: JetStreamEventBus,
) -> None:
    worker = await start_execution(bus)
    assert await ask(bus, BTC, ETH) == ["FILLED", "FILLED"]
    FragileExecution.POISON = {BTC: SystemClock().now_ns()}
    assert await ask(bus, BTC, ETH) == ["FILLED", "FILLED"], "the venue does not care"
    assert await ask(bus, BTC, ETH) == ["QUARANTINED", "FILLED"]
    await worker.stop()
    worker = await start_execution(bus)
    assert await ask(bus, BTC, ETH) == ["QUARANTINED", "FILLED"]
    FragileExecution.POISON = {}
    await decide(bus, Verdict.REQUEUE)
    assert await ask(bus, BTC, ETH) == ["FILLED", "FILLED"]
    log = await log_of(bus)
    fold = PortfolioEngine(PortfolioSettings())
    for event in log:
        fold.handle(event)
    expected = fold.account.positions
    assert isinstance(worker.host.engine, ExecutionEngine)
    assert worker.host.engine.positions.state_hash() == expected.state_hash()
    assert expected.by_symbol(BTC)[0].quantity == Decimal(3)
    ids = [event.id for event in log]
    assert len(ids) == len(set(ids))
    submitted = [event.payload for event in log if event.type == "order.submitted"]
    assert len(submitted) == 8, "denied decisions never come back"
    await worker.stop()
    await replays(bus, FragileExecution())


async def test_orders_of_a_symbol_quarantined_in_portfolio_are_denied_at_the_last_gate(bus: JetStreamEventBus) -> None:
    worker = await start_execution(bus)
    letters = letters_of(bus)
    assert await ask(bus, BTC) == ["FILLED"]
    await letters.hold("portfolio", BTC, "portfolio-7")
    assert await ask(bus, BTC, ETH) == ["QUARANTINED", "FILLED"]
    denied = [event for event in await log_of(bus, "order.denied") if isinstance(event.payload, OrderEvent)]
    assert [event.source for event in denied] == ["gateway"]
    assert "portfolio-7" in getattr(denied[0].payload, "reason_text", "")
    await letters.hold("portfolio", BTC, "")
    assert await ask(bus, BTC) == ["FILLED"]
    await worker.stop()

"""A process that has taken an engine's state over says what it holds: `state.restored`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from botplatform.bus.memory import InMemoryLog
from botplatform.core.engine import Engine
from botplatform.core.event_bus import Conflation, DeliveryHandler, Right
from botplatform.core.events import Event, StateEvent
from botplatform.core.seam import SystemClock
from botplatform.engines.portfolio import PortfolioEngine
from botplatform.engines.strategy import StrategyEngine
from botplatform.errors import BusError, StreamError
from botplatform.runtime.checkpoint import MemoryCheckpoints
from botplatform.runtime.replay import LogReplay
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import PortfolioSettings, StrategySettings
from botplatform.testing import fill, market, order, signal

PATIENCE_S = 60.0


def portfolio() -> Engine:
    return PortfolioEngine(PortfolioSettings())


def strategy() -> Engine:
    return StrategyEngine(strategies=[StrategySettings(name="test_strategy", use="hedge")])


def bought(symbol: str, at_s: float) -> list[Event]:
    tick = market(symbol, at_s=at_s)
    name = f"of-{symbol}"
    filled = fill(100, 2, order_id=name, trade_id=name, symbol=symbol, at_s=at_s + 2, cause=tick)
    return [
        tick,
        signal(symbol=symbol, cause=tick),
        order(order_id=name, quantity=2, symbol=symbol, cause=tick),
        filled,
    ]


@asynccontextmanager
async def opened(groups: dict[str, tuple[str, ...]]) -> AsyncIterator[InMemoryLog]:
    log = InMemoryLog(groups)
    try:
        yield log
    finally:
        await log.close()


async def lives(build: Callable[[], Engine], *, times: int) -> list[Event]:
    """Run an engine so many times on one log, and return the log."""
    engine, checkpoints = build(), MemoryCheckpoints()
    async with opened({engine.name: tuple(engine.listens)}) as log:
        for life in range(times):
            worker = EngineWorker(build, log, SystemClock(), checkpoints)
            await worker.start()
            if not life:
                await log.publish_all([*bought("BTCUSDT", 0), *bought("ETHUSDT", 10)])
            async with asyncio.timeout(PATIENCE_S):
                await log.wait_settled()
            await worker.stop()
        return [delivery.event async for delivery in log.replay(("*",))]


def restored(log: list[Event]) -> list[StateEvent]:
    return [event.payload for event in log if event.type == "state.restored" and isinstance(event.payload, StateEvent)]


async def test_portfolio_says_the_positions_once_for_each_restart_and_not_at_the_first_start() -> None:
    log = await lives(portfolio, times=3)
    first, second = restored(log)
    assert set(first.positions) == {"BTCUSDT", "ETHUSDT"}
    leg = first.positions["BTCUSDT"].long
    assert leg is not None
    assert (leg.quantity, leg.avg_px_open) == (Decimal(2), Decimal(100))
    assert (second.positions, second.state_hash) == (first.positions, first.state_hash)
    assert len({event.id for event in log}) == len(log)


async def test_strategy_says_what_each_strategy_holds_in_all_symbols() -> None:
    (said,) = restored(await lives(strategy, times=2))
    held = said.strategies["test_strategy"]
    longs = {leg.symbol: leg.quantity for leg in held.legs if leg.quantity}
    assert longs == {"BTCUSDT": Decimal(2), "ETHUSDT": Decimal(2)}
    assert not said.positions


async def test_a_replay_of_the_log_computes_everything_else_and_misses_nothing() -> None:
    for build in (portfolio, strategy):
        log = await lives(build, times=2)
        replay = LogReplay([build()])
        for event in log:
            replay.feed(event)
        report = replay.finish()
        assert report.differences == []
        assert report.compared > 0


async def test_what_holds_nothing_says_nothing() -> None:
    checkpoints = MemoryCheckpoints()
    async with opened({"portfolio": tuple(PortfolioEngine.listens)}) as log:
        for at_s in (1, 2):
            worker = EngineWorker(portfolio, log, SystemClock(), checkpoints)
            await worker.start()
            await log.publish(market(at_s=at_s))
            await log.wait_settled()
            await worker.stop()
        assert checkpoints.saved
        assert restored([delivery.event async for delivery in log.replay(("*",))]) == []


class Refusing(InMemoryLog):
    """A log that has lost the consumer of a group, or refuses what is said of the take-over."""

    lost = False
    refused: str = ""

    async def attach(
        self,
        group: str,
        handler: DeliveryHandler,
        *,
        after: int | None = None,
        right: Right | None = None,
        conflation: Conflation | None = None,
    ) -> None:
        if self.lost:
            raise StreamError(f"there is no consumer for {group}")
        await super().attach(group, handler, after=after, right=right, conflation=conflation)

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
        given = list(events)
        if self.refused in [event.type for event in given]:
            raise BusError("it has 2000000 bytes, the server takes 1048576")
        await super().publish_all(given)


async def lived(log: InMemoryLog, checkpoints: MemoryCheckpoints, *events: Event) -> EngineWorker:
    worker = EngineWorker(portfolio, log, SystemClock(), checkpoints)
    await worker.start()
    await log.publish_all(events)
    async with asyncio.timeout(PATIENCE_S):
        await log.wait_settled()
    await worker.stop()
    return worker


async def test_a_start_that_fails_says_nothing_however_often_it_is_tried_again() -> None:
    log, checkpoints = Refusing({"portfolio": PortfolioEngine.listens}), MemoryCheckpoints()
    await lived(log, checkpoints, *bought("BTCUSDT", 0))
    log.lost = True
    for _ in range(3):
        with pytest.raises(StreamError, match="no consumer"):
            await lived(log, checkpoints)
    assert restored([delivery.event async for delivery in log.replay(("*",))]) == []
    await log.close()


async def test_what_cannot_be_said_stops_nobody() -> None:
    log, checkpoints = Refusing({"portfolio": PortfolioEngine.listens}), MemoryCheckpoints()
    await lived(log, checkpoints, *bought("BTCUSDT", 0))
    log.refused = "state.restored"
    worker = await lived(log, checkpoints, market(at_s=99))
    assert worker.events_in == 1
    await log.close()

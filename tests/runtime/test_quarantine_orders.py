"""A symbol that waits for a person, in execution or portfolio, gets no orders; the others trade on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from benches.dead_letters import letters_of
from benches.quarantine import (
    BTC,
    ETH,
    FragileExecution,
    decide,
    log_of,
    quarantine,
    replays,
    settle,
    start_execution,
    tick,
)
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import SystemClock, random_id
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.runtime.dead_letters import Verdict
from botplatform.settings import PortfolioSettings
from botplatform.testing import decision, intent


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    async with quarantine(server) as made:
        yield made


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

"""Whole processes: with an exchange of the user's own before them, their signs of life, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.bootstrap import PARTITIONED, PROCESSING, build_engine, groups, open_platform
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent, StateEvent, TradingState
from botplatform.core.plugins import load_path
from botplatform.errors import ExchangeError
from botplatform.runtime.replay import LogReplay
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.settings import Settings, load_settings
from botplatform.store.sqlite import SqliteEventStore

VENUE = f"{Path(__file__).with_name('network_venue.py')}:NetworkVenue"
PATIENCE_S = 60.0
STRATEGY = '''
from decimal import Decimal
from botplatform.strategies import Decided, Strategy, View, open_long

class AlwaysLong(Strategy):
    """Wants 0.01 at all times, and asks for what it lacks on every signal."""

    def decide(self, view: View) -> Decided:
        lacking = Decimal("0.01") - view.position.long.exposure
        return open_long(lacking) if lacking > 0 else None
'''
ENGINES = {"market_data", "signals", "strategy", "execution", "portfolio", "monitoring", "notifications", "storage"}


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    running = EmbeddedServer()
    asyncio.run(running.start())
    yield running
    running.stop()


def settings_for(folder: Path, *more: str, **parameters: Any) -> Settings:
    (folder / "always.py").write_text(STRATEGY)
    strategies = [{"name": "it", "use": f"{folder}/always.py:AlwaysLong"}]
    return load_settings(
        None,
        (
            "symbols=BTCUSDT",
            f"strategies={json.dumps(strategies)}",
            "feed.rate=100",
            f"exchange.kind={VENUE}",
            f"exchange.parameters={json.dumps({'price': 42_000, **parameters})}",
            "exchange.partial_fill_share=0",
            "log.level=error",
            f"storage.path={folder}/store.sqlite",
            *more,
        ),
        environ={},
    )


async def run(settings: Settings) -> list[Event]:
    """Run until the feed has ended and all is settled; return the log."""
    async with AsyncExitStack() as stack:
        if settings.bus.backend == "jetstream":
            bus = await JetStreamEventBus.connect(
                settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
            )
            await stack.enter_async_context(bus)
        platform = await stack.enter_async_context(open_platform(settings))
        await asyncio.wait_for(platform.process.run(), PATIENCE_S)
        return [delivery.event async for delivery in platform.bus.replay(["*"])]


def of(log: list[Event], kind: str) -> list[Event]:
    return [event for event in log if event.type == kind]


def sent(log: list[Event]) -> list[Event]:
    """Return the orders that were to go to the venue: what is decided before it was compared with the log is denied."""
    denied = {order_id(event) for event in of(log, "order.denied")}
    return [event for event in of(log, "order.submitted") if order_id(event) not in denied]


def order_id(event: Event) -> str:
    assert isinstance(event.payload, OrderEvent)
    return event.payload.order_id


def held(log: list[Event]) -> Decimal:
    states = [event.payload for event in of(log, "state.updated") if event.source == "portfolio"]
    assert isinstance(states[-1], StateEvent)
    long = states[-1].positions["BTCUSDT"].long
    assert long is not None
    return long.quantity


@pytest.mark.parametrize("backend", ["memory", "jetstream"])
async def test_a_venue_on_the_network_that_takes_a_second_while_a_hundred_signals_come_makes_one_position(
    tmp_path: Path, server: EmbeddedServer, backend: str
) -> None:
    made = load_path(VENUE).made
    made.clear()
    at = (f"bus.backend={backend}", f"nats.url={server.url}", "bus.partitions=2", "feed.limit=250")
    log = await run(settings_for(tmp_path, *at, delay_s=1.0))
    (submitted,), (filled,) = sent(log), of(log, "order.filled")
    between = log[log.index(submitted) : log.index(filled)]
    assert len(of(between, "signal.snapshot")) >= 50, "the platform went on while the venue was thinking"
    assert len(of(log, "signal.snapshot")) == 250
    assert sum(len(venue.received) for venue in made) == 1
    assert held(log) == Decimal("0.01")
    decided = {event.id: event.correlation_id for event in of(log, "strategy.decision")}
    assert submitted.correlation_id == filled.correlation_id == decided[submitted.causation_id]
    assert isinstance(filled.payload, OrderEvent)
    assert filled.payload.venue == filled.source == "far"


async def test_a_lost_answer_makes_one_position_as_well(tmp_path: Path) -> None:
    made = load_path(VENUE).made
    made.clear()
    log = await run(settings_for(tmp_path, "bus.backend=memory", "feed.limit=200", fault="drop"))
    assert len(of(log, "order.unknown")) == len(of(log, "order.filled")) == 1
    assert sum(len(venue.received) for venue in made) == 1
    assert held(log) == Decimal("0.01")


async def test_a_venue_that_breaks_the_gateway_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "bus.backend=memory", fault="cancelled")
    async with open_platform(settings) as platform:
        with pytest.raises(ExchangeError, match="far"):
            await asyncio.wait_for(platform.process.run(), PATIENCE_S)


async def test_every_engine_shows_signs_of_life_until_it_is_stopped_and_storage_has_it_all(tmp_path: Path) -> None:
    more = ("bus.backend=memory", "exchange.kind=paper", "exchange.parameters={}", "monitoring.heartbeat_s=0.1")
    settings = settings_for(tmp_path, *more)
    async with open_platform(settings) as platform:
        running = asyncio.create_task(platform.process.run())
        async with asyncio.timeout(PATIENCE_S):
            alive: set[str] = set()
            while not alive >= ENGINES:
                await asyncio.sleep(0.05)
                beats = [found.event async for found in platform.bus.replay(["system.heartbeat"])]
                alive = {beat.source for beat in beats}
        platform.process.stop()
        await asyncio.wait_for(running, PATIENCE_S)
        seen = await platform.bus.last_sequence()
        await asyncio.sleep(0.3)
        assert await platform.bus.last_sequence() == seen, "nothing comes after the end"
        log = {found.event.id async for found in platform.bus.replay(["*"])}
    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        assert {found.event.id for found in store.read(["*"])} == log


async def test_storage_goes_on_behind_what_it_has_itself(tmp_path: Path, server: EmbeddedServer) -> None:
    paper = ("exchange.kind=paper", "exchange.parameters={}", "feed.limit=50", f"nats.url={server.url}")
    settings = settings_for(tmp_path, *paper, "bus.partitions=2")
    await run(settings)
    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        first = store.last_sequence()
    log = await run(settings)
    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        stored = [found.event.id for found in store.read(["*"])]
        assert store.last_sequence() > first > 0
    assert len(stored) == len(set(stored))
    assert {event.id for event in log if event.type != "system.heartbeat"} <= set(stored)


@pytest.mark.parametrize("kind", ["paper", VENUE])
async def test_what_the_last_gate_denies_is_in_the_log_and_replays(tmp_path: Path, kind: str) -> None:
    more = ("bus.backend=memory", f"exchange.kind={kind}", "feed.limit=60")
    settings = settings_for(tmp_path, *more)
    async with open_platform(settings) as platform:
        await platform.trading.write(
            TradingStateRecord(TradingState.HALTED, "halted, and execution has not heard of it")
        )
        await asyncio.wait_for(platform.process.run(), PATIENCE_S)
        log = [delivery.event async for delivery in platform.bus.replay(["*"])]
    denied = [event.payload for event in of(log, "order.denied") if event.source == "gateway"]
    assert {order.reason_code for order in denied if isinstance(order, OrderEvent)} == {"HALTED"}
    assert len(of(log, "order.submitted")) == len(denied) > 0
    assert of(log, "order.accepted") == of(log, "order.filled") == []
    replay = LogReplay(build_engine(name, settings) for name in PROCESSING)
    for event in log:
        replay.feed(event)
    assert replay.finish().differences == []

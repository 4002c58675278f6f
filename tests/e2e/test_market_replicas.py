"""Several market data processes share the symbols: one publisher each, and time never goes back for a consumer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from benches.processes import running, started
from botplatform.audit import audit_log
from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent
from botplatform.settings import load_settings

SYMBOLS = tuple(f"SYM{number:02}" for number in range(12))
PATIENCE_S = 120.0


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[JetStreamEventBus]:
    async with EmbeddedServer() as server:
        settings = load_settings(None, overrides(server.url), environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as connected:
            yield connected


def overrides(url: str) -> list[str]:
    return [f"symbols={','.join(SYMBOLS)}", f"nats.url={url}", "feed.rate=20", "log.level=error"]


def epochs(log: list[Event]) -> dict[str, int]:
    found: dict[str, int] = {}
    for event in log:
        if isinstance(event.payload, MarketEvent):
            found[event.key] = event.payload.feed_epoch
    return found


async def wait_for(bus: JetStreamEventBus, enough: Callable[[list[Event]], bool]) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            log = [delivery.event async for delivery in bus.replay(["market.snapshot"])]
            if enough(log):
                return log
            await asyncio.sleep(0.3)


async def test_symbols_move_between_processes_with_one_publisher_each(bus: JetStreamEventBus) -> None:
    url = bus.connection.client.connected_url.geturl()  # type: ignore[union-attr]  # it is connected
    first = await started(overrides(url), *running("market_data"))
    await wait_for(bus, lambda log: set(epochs(log)) == set(SYMBOLS))
    second = await started(overrides(url), *running("market_data"))  # takes its share over
    moved = await wait_for(bus, lambda log: 2 in epochs(log).values() and len(set(epochs(log).values())) > 1)
    shared = {symbol for symbol, epoch in epochs(moved).items() if epoch > 1}
    assert 0 < len(shared) < len(SYMBOLS)
    first.send_signal(signal.SIGKILL)
    await first.wait()
    await wait_for(bus, lambda log: all(epoch > 1 for epoch in epochs(log).values()))
    second.send_signal(signal.SIGTERM)
    _, errors = await second.communicate()
    assert second.returncode == 0, errors.decode()

    log = [delivery.event async for delivery in bus.replay(["market.snapshot"])]
    published = defaultdict(list)
    for event in log:
        assert isinstance(event.payload, MarketEvent)
        published[event.key].append((event.payload.feed_epoch, event.payload.feed_sequence))
    for symbol, places in published.items():
        assert places == sorted(set(places)), f"{symbol} goes back, or has two publishers"
    report = await audit_log(bus, signal_sets=())
    assert report.clean, report


async def test_a_second_signal_ends_at_once_and_the_exit_code_says_so(bus: JetStreamEventBus) -> None:
    url = bus.connection.client.connected_url.geturl()  # type: ignore[union-attr]  # it is connected
    process = await started(overrides(url), *running("market_data"))
    os.kill(process.pid, signal.SIGSTOP)  # so that both signals are there before either is heard
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    await asyncio.wait_for(process.wait(), PATIENCE_S)
    assert process.returncode == 3

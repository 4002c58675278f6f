"""Stopping, and being killed, loses nothing and doubles nothing: shown on the log of a real server."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from benches.processes import running, started
from botplatform.bootstrap import PARTITIONED, PROCESSING, build_engine, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent
from botplatform.runtime.replay import LogReplay
from botplatform.settings import Settings, load_settings
from botplatform.store.sqlite import SqliteEventStore

SYMBOLS = "BTCUSDT,ETHUSDT"
PATIENCE_S = 120.0


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[JetStreamEventBus]:
    async with EmbeddedServer() as server:
        settings = settings_at(server.url, tmp_path)
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as connected:
            yield connected


def overrides(url: str, tmp_path: Path) -> list[str]:
    return [
        f"symbols={SYMBOLS}",
        f"nats.url={url}",
        f"storage.path={tmp_path}/store.sqlite",
        "feed.rate=40",
        "bus.checkpoint_every=50",
        "exchange.partial_fill_share=0.5",
        "execution.max_decision_age_s=60",
        "log.level=warning",
    ]


def settings_at(url: str, tmp_path: Path) -> Settings:
    return load_settings(None, overrides(url, tmp_path), environ={})


async def wait_until(bus: JetStreamEventBus, enough: Callable[[list[Event]], bool]) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            log = [delivery.event async for delivery in bus.replay(["*"])]
            if enough(log):
                return log
            await asyncio.sleep(0.5)


def fills(log: list[Event]) -> list[OrderEvent]:
    return [
        event.payload
        for event in log
        if event.type in ("order.partial", "order.filled") and isinstance(event.payload, OrderEvent)
    ]


def last_stored(tmp_path: Path) -> int:
    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        return store.last_sequence()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_three_runs_on_one_log_are_one_run(bus: JetStreamEventBus, tmp_path: Path, how: signal.Signals) -> None:
    url = bus.connection.client.connected_url.geturl()  # type: ignore[union-attr]
    for round_ in range(1, 4):
        process = await started(overrides(url, tmp_path), *running())
        await wait_until(bus, lambda log, least=round_ * 6: len(fills(log)) >= least)  # type: ignore[misc]
        process.send_signal(how)
        _, errors = await process.communicate()
        if how is signal.SIGTERM:
            assert process.returncode == 0, errors.decode()
    process = await started(
        overrides(url, tmp_path), *running(*PROCESSING, "storage")
    )  # handles what the last kill left behind
    end = await bus.last_sequence()
    async with asyncio.timeout(PATIENCE_S):
        while last_stored(tmp_path) < end:  # noqa: ASYNC110  # a file tells of nothing
            await asyncio.sleep(0.2)
        await bus.wait_settled()
    process.send_signal(signal.SIGTERM)
    await process.communicate()

    log = [delivery.event async for delivery in bus.replay(["*"])]
    assert max(Counter(event.id for event in log).values()) == 1
    orders = Counter(
        (event.payload.decision_id, event.payload.action_index)
        for event in log
        if event.type == "order.submitted" and isinstance(event.payload, OrderEvent)
    )
    assert max(orders.values()) == 1
    assert max(Counter(fill.trade_id for fill in fills(log)).values()) == 1

    replay = LogReplay(build_engine(name, settings_at(url, tmp_path)) for name in PROCESSING)
    for event in log:
        replay.feed(event)
    assert replay.finish().differences == []

    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        stored = {found.event.id for found in store.read(["*"])}
    kept = {delivery.event.id async for delivery in bus.replay(["*"], until=end)}
    assert kept <= stored
    assert stored <= {event.id for event in log}

"""The same engines decide the same, on the bus in memory and on a real JetStream, live and in replay."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from botplatform.bootstrap import PARTITIONED, PROCESSING, build_backtest, build_engine, groups, open_platform
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, to_wire
from botplatform.feeds.recording import open_recording
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.replay import LogReplay
from botplatform.settings import Settings, load_settings

LOG_ID = "parity"
SNAPSHOTS = 250


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of trades, made from the synthetic market."""
    path = tmp_path / "trades.csv"
    market = SyntheticMarket(("BTCUSDT",), seed=3, rate=10, start_ns=1_700_000_000_000_000_000, limit=SNAPSHOTS)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "id", "side", "price", "amount", "cost"])
        for number, snapshot in enumerate(market):
            side = "buy" if snapshot.buy_volume > snapshot.sell_volume else "sell"
            price, amount = snapshot.price, snapshot.volume
            rows.writerow([snapshot.timestamp_ns // 1_000_000, number, side, price, amount, price * amount])
    return path


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer() as running:
        yield running


def settings_for(recording: Path, tmp_path: Path, *more: str) -> Settings:
    return load_settings(
        None,
        (
            "symbols=BTCUSDT",
            f"bus.log_id={LOG_ID}",
            f"storage.path={tmp_path}/store.sqlite",
            "feed.kind=file",
            f"feed.path={recording}",
            "exchange.partial_fill_share=0.5",
            "exchange.reject_share=0.1",
            "execution.max_decision_age_s=60",
            *more,
        ),
        environ={},
    )


def backtest_log(settings: Settings, recording: Path) -> list[Event]:
    log: list[Event] = []
    run = build_backtest(settings, observers=[log.append])
    for snapshot in open_recording(recording, "BTCUSDT"):
        run.show(snapshot)
    return log


async def jetstream_log(settings: Settings, server: EmbeddedServer) -> list[Event]:
    nats = settings.nats.model_copy(update={"url": server.url})
    ready = settings.model_copy(update={"nats": nats})
    async with await JetStreamEventBus.connect(
        ready.nats, ready.bus, groups=groups(ready), partitioned=PARTITIONED
    ) as bus:
        async with open_platform(ready) as platform:
            await asyncio.wait_for(platform.process.run(), 120)
        return [delivery.event async for delivery in bus.replay(["*"])]


def decisions_and_orders(log: list[Event]) -> list[tuple[str, str, str, str, object]]:
    wanted = [event for event in log if event.type.startswith(("strategy.", "order."))]
    return [(event.type, event.id, event.correlation_id, event.causation_id, event.payload) for event in wanted]


def test_the_same_input_gives_a_byte_identical_log(recording: Path, tmp_path: Path) -> None:
    settings = settings_for(recording, tmp_path)
    first = [to_wire(event) for event in backtest_log(settings, recording)]
    assert len(first) > SNAPSHOTS * 2
    assert [to_wire(event) for event in backtest_log(settings, recording)] == first


def test_another_seed_of_the_venue_gives_another_log(recording: Path, tmp_path: Path) -> None:
    one = decisions_and_orders(backtest_log(settings_for(recording, tmp_path), recording))
    other = decisions_and_orders(backtest_log(settings_for(recording, tmp_path, "exchange.seed=8"), recording))
    assert one != other


async def test_jetstream_in_lock_step_decides_as_the_backtest_does(
    recording: Path, tmp_path: Path, server: EmbeddedServer
) -> None:
    settings = settings_for(recording, tmp_path, "feed.pace=settled")
    in_memory = decisions_and_orders(backtest_log(settings, recording))
    on_jetstream = decisions_and_orders(await jetstream_log(settings, server))
    assert len([entry for entry in in_memory if entry[0] == "order.filled"]) > 3
    assert on_jetstream == in_memory


async def test_the_log_of_a_free_run_replayed_gives_the_recorded_outputs(
    recording: Path, tmp_path: Path, server: EmbeddedServer
) -> None:
    settings = settings_for(recording, tmp_path, "feed.pace=flat")
    log = await jetstream_log(settings, server)
    replay = LogReplay(build_engine(name, settings) for name in PROCESSING)
    for event in log:
        replay.feed(event)
    report = replay.finish()
    assert report.differences == []
    assert report.compared > SNAPSHOTS


def test_replay_notices_what_was_changed(recording: Path, tmp_path: Path) -> None:
    settings = settings_for(recording, tmp_path)
    log = backtest_log(settings, recording)
    missing = next(event for event in log if event.type == "strategy.decision")
    replay = LogReplay(build_engine(name, settings) for name in PROCESSING)
    for event in log:
        if event is not missing:
            replay.feed(event)
    assert {("strategy", "extra"), ("execution", "missing")} <= {
        (each.engine, each.kind) for each in replay.finish().differences
    }

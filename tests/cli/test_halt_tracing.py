"""Trading is halted whatever is wrong with the tracing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.connection import connect_nats
from botplatform.bus.jetstream.setup import setup
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.run import _change_state
from botplatform.core.events import TradingState
from botplatform.runtime.trading_state import BucketTradingState
from botplatform.settings import Settings, load_settings


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    async with EmbeddedServer(tmp_path / "nats") as server:
        settings = load_settings(None, [f"nats.url={server.url}", "bus.partitions=2"], environ={})
        async with await connect_nats(settings.nats, name="setup") as connection:
            await setup(connection, settings.bus, groups(settings), PARTITIONED)
        yield settings


async def test_trading_is_halted_though_the_variables_for_tracing_make_no_sense(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    await _change_state(settings, TradingState.HALTED, "a test")
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name="operator") as bus:
        record = await BucketTradingState(bus.trading).read()
        (event,) = [delivery.event async for delivery in bus.replay(("trading.*",))]
    assert (record.state, event.type) == (TradingState.HALTED, "trading.halted")

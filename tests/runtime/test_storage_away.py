"""The database of the event store is away: the platform trades on, says so, and nothing is missing afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest

from botplatform.bootstrap import ENGINES, PARTITIONED, Platform, groups, open_platform
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent
from botplatform.settings import Settings, load_settings
from botplatform.store.postgres import PostgresEventStore
from botplatform.testing.postgres import PASSWORD, PostgresServer, how_to_get_it, postgres_server

PATIENCE_S = 120.0


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    reason = how_to_get_it()
    if reason:
        pytest.skip(reason)
    with postgres_server() as server:
        yield server


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(tmp_path_factory.mktemp("nats")) as made:
        yield made


def made(server: EmbeddedServer, url: str) -> Settings:
    overrides = (
        *("symbols=BTCUSDT", "feed.rate=50", "exchange.kind=paper", "monitoring.heartbeat_s=0.2", "log.level=error"),
        *(f"nats.url={server.url}", "bus.partitions=2", f"storage.url={url}", "storage.flush_s=0.05"),
    )
    return load_settings(None, overrides, environ={})


async def set_up(settings: Settings) -> None:
    async with await JetStreamEventBus.connect(
        settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
    ):
        """Make the log."""


def told(platform: Platform) -> list[str]:
    """Why the process is not ready."""
    assert platform.health.refresh is not None
    platform.health.refresh(platform.health)
    return platform.health.not_ready()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not what():  # noqa: ASYNC110  # a server and a thread are what is waited for
            await asyncio.sleep(0.05)


def _has(store: PostgresEventStore, sequence: int) -> bool:
    return store.last_sequence() >= sequence


async def test_a_database_that_is_away_at_the_start_and_killed_later_costs_no_event(
    database: PostgresServer, server: EmbeddedServer
) -> None:
    url = database.new_database()
    settings: Settings = load_settings(
        None,
        (
            *(
                "symbols=BTCUSDT",
                "feed.rate=50",
                "exchange.kind=paper",
                "monitoring.heartbeat_s=0.2",
                "log.level=error",
            ),
            *(f"nats.url={server.url}", "bus.partitions=2", f"storage.url={url}", "storage.flush_s=0.05"),
        ),
        environ={},
    )
    async with await JetStreamEventBus.connect(
        settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
    ):
        pass
    database.stop()
    async with open_platform(settings, ENGINES) as platform:
        running = asyncio.create_task(platform.process.run())
        await until(lambda: any("nothing is stored: cannot reach the event store" in each for each in told(platform)))
        assert PASSWORD not in " ".join(told(platform))
        before = await platform.bus.last_sequence()
        await asyncio.sleep(0.5)
        assert await platform.bus.last_sequence() > before, "everything else goes on"
        await asyncio.to_thread(database.start)
        await until(lambda: not told(platform))
        with PostgresEventStore(url, read_only=True) as reader:
            await until(lambda: reader.last_sequence() > before)
        database.stop(signal.SIGKILL)
        await until(lambda: any("nothing is stored" in each for each in told(platform)))
        await asyncio.to_thread(database.start)
        await until(lambda: not told(platform))
        platform.process.stop()
        await asyncio.wait_for(running, PATIENCE_S)
        log = [found.event.id async for found in platform.bus.replay(["*"])]
    with PostgresEventStore(url, read_only=True) as store:
        stored = [found.event.id for found in store.read()]
    assert stored == log


async def test_a_process_that_ends_while_the_database_is_away_ends_soon_and_the_next_one_stores_the_rest(
    database: PostgresServer, server: EmbeddedServer
) -> None:
    url = database.new_database()
    settings = made(server, url)
    await set_up(settings)
    for away in (True, False):
        async with open_platform(settings, ENGINES) as platform:
            running = asyncio.create_task(platform.process.run())
            await until(lambda: platform.process.started and not told(platform))
            with PostgresEventStore(url, read_only=True) as reader:
                at = await platform.bus.last_sequence()
                await until(partial(_has, reader, at))
            if away:
                database.stop()
                await until(lambda: any("nothing is stored" in each for each in told(platform)))
            platform.process.stop()
            await asyncio.wait_for(running, PATIENCE_S)
            log = [found.event.id async for found in platform.bus.replay(["*"])]
        if away:
            await asyncio.to_thread(database.start)
    with PostgresEventStore(url, read_only=True) as store:
        assert [found.event.id for found in store.read()] == log


async def test_a_store_that_is_ahead_of_the_log_is_said(
    postgres: PostgresServer, server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.new_database()
    other = Event("market.snapshot", MarketEvent("BTCUSDT", 1.0), "feed", timestamp_ns=1, id="of-another-log")
    with PostgresEventStore(url) as store:
        store.append([(other, 1_000_000)])
    settings = made(server, url)
    await set_up(settings)
    async with open_platform(settings, ("storage",)) as platform:
        running = asyncio.create_task(platform.process.run())
        await until(lambda: platform.process.started and not told(platform))
        platform.process.stop()
        await asyncio.wait_for(running, PATIENCE_S)
    assert "has events up to 1000000, but the log ends at " in caplog.text

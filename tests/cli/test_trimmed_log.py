"""Commands on a log that was trimmed beside a running platform: each says that it is not whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from typer.testing import CliRunner

from botplatform.bootstrap import PARTITIONED, consumers, groups, open_platform
from botplatform.bus.jetstream import JetStreamEventBus, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.cli import app
from botplatform.cli.invocation import hoisted
from botplatform.core.seam import SystemClock
from botplatform.runtime.trimmer import Trimmer
from botplatform.settings import Settings, load_settings
from botplatform.store.sqlite import SqliteEventStore

DAYS_NS: Final = 3 * 86_400 * 10**9
OLD: Final = {"type": "notification.alert", "id": "by-hand", "payload": {"text": "hello"}}


class Later(SystemClock):
    """Three days later."""

    def now_ns(self) -> int:
        return super().now_ns() + DAYS_NS


class Place(NamedTuple):
    """A platform that has run, with a log that was trimmed while it did."""

    settings: Settings
    options: list[str]
    bus: JetStreamEventBus
    gone: int
    """Sequence up to which the log was trimmed."""

    async def botplatform(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Run a command here: starting a process takes longer than what it does."""
        result = await asyncio.to_thread(CliRunner().invoke, app, hoisted([*self.options, *arguments]), input=given)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with EmbeddedServer() as server:
        overrides = [
            *(f"nats.url={server.url}", "symbols=BTCUSDT", "feed.rate=200", "bus.partitions=2", "log.level=warning"),
            *(f"storage.path={tmp_path}/store.sqlite", "bus.checkpoint_within_s=0.2", "storage.flush_s=0.1"),
        ]
        settings = load_settings(None, overrides, environ={})
        options = [part for each in overrides for part in ("--set", each)]
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            gone = await _trimmed_while_it_runs(settings)
            await _run_again(settings)
            yield Place(settings, options, bus, gone)


async def _trimmed_while_it_runs(settings: Settings) -> int:
    """Run all engines until the log could be trimmed by some hundred events, and end them in order."""
    async with (
        open_platform(settings) as platform,
        await connect_nats(settings.nats, name="setup", clock=Later()) as later,
    ):
        trimmer = Trimmer(later, settings.bus, consumers(settings))
        running = asyncio.create_task(platform.process.run())
        async with asyncio.timeout(60):
            while trimmer.facts is None or trimmer.facts.trimmed < 300:
                await asyncio.sleep(0.1)
                await trimmer.look()
        platform.process.stop()
        await running
        return (await platform.bus.trimmed()).sequence


async def _run_again(settings: Settings) -> None:
    """Start the platform on the trimmed log, let it go on for a while, and end it in order."""
    async with open_platform(settings) as platform:
        before = await platform.bus.last_sequence()
        running = asyncio.create_task(platform.process.run())
        async with asyncio.timeout(60):
            while await platform.bus.last_sequence() < before + 200:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.05)
        platform.process.stop()
        await running


async def test_what_is_left_of_a_trimmed_log_is_clean_and_each_command_says_what_is_gone(place: Place) -> None:
    said = f"the log was trimmed up to {place.gone}"
    code, out, err = await place.botplatform("audit", "--json")
    report = json.loads(out)
    assert (code, report["first_sequence"]) == (0, place.gone + 1), report
    assert f"{said}: only what came later is audited" in err
    code, out, err = await place.botplatform("events", "tail", "--from-start", "--limit", "1")
    assert f"{said}: what came before is not shown" in err
    assert json.loads(out)["type"]
    with SqliteEventStore(place.settings.storage.path, read_only=True) as store:
        order = next(iter(store.orders())).order_id
    code, out, err = await place.botplatform("trace", order, "--json")
    assert (code, err) == (0, ""), "the event store has the whole chain"
    lost = place.settings.storage.path.with_name("lost.sqlite")
    _, _, err = await place.botplatform("trace", order, "--json", "--set", f"storage.path={lost}")
    assert f"was trimmed up to {place.gone:,}: what came before is in the event store" in err
    code, out, err = await place.botplatform("events", "publish", given=json.dumps(OLD))
    assert f"{said}: an event that was published before that is not recognised" in err

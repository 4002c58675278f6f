"""`botplatform load` and `botplatform audit` as commands, on a real server, around real engines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from botplatform.bootstrap import PROCESSING, open_platform
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.load import symbol_names
from botplatform.core.events import Event, MarketEvent
from botplatform.settings import Settings, load_settings

SYMBOLS = symbol_names(6)


class Place(NamedTuple):
    """A server that is set up, and how to reach it."""

    settings: Settings
    options: list[str]
    bus: JetStreamEventBus

    async def botplatform(self, *arguments: str) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "botplatform.cli", *self.options, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")},
        )

    async def audit(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, err = await self.botplatform("audit", "--json", "--grace", "0", *arguments)
        assert err == ""
        return code, json.loads(out)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with EmbeddedServer() as server:
        overrides = [
            f"nats.url={server.url}",
            f"symbols={','.join(SYMBOLS)}",
            f"storage.path={tmp_path}/store.sqlite",
            "exchange.partial_fill_share=0.5",
            "execution.max_decision_age_s=60",
            "log.level=warning",
        ]
        settings = load_settings(None, overrides, environ={})
        options = [part for each in overrides for part in ("--set", each)]
        made = Place(settings, options, None)  # type: ignore[arg-type]  # `setup` comes first
        code, _, err = await made.botplatform("setup")
        assert code == 0, err
        async with await JetStreamEventBus.connect(settings.nats, settings.bus) as bus:
            yield made._replace(bus=bus)


async def log_of(bus: JetStreamEventBus) -> list[Event]:
    return [delivery.event async for delivery in bus.replay(["*"])]


async def run_under_load(place: Place) -> None:
    """Let all engines trade the market of a load, and end when all of it is handled."""
    engines = [*PROCESSING, "storage"]
    async with open_platform(place.settings, engines) as platform:
        running = asyncio.create_task(platform.process.run())
        code, out, _ = await place.botplatform(
            "load", "--symbols", str(len(SYMBOLS)), "--rate", "600", "--count", "900", "--json"
        )
        assert code == 0
        assert json.loads(out)["published"] == 900
        await platform.bus.wait_settled()
        platform.process.stop()
        await running


def found(report: dict[str, Any]) -> dict[str, int]:
    return {rule: tally["count"] for rule, tally in report["rules"].items()}


async def test_a_real_run_is_clean_and_what_is_wrong_in_its_log_is_found(place: Place) -> None:
    await run_under_load(place)
    code, report = await place.audit()
    assert (code, report["clean"], report["rules"]) == (0, True, {}), report
    log = await log_of(place.bus)
    assert report["events"] == len(log) > 1_900

    def last(kind: str) -> Event:
        return next(event for event in reversed(log) if event.type == kind)

    seen = last("market.snapshot")
    assert isinstance(seen.payload, MarketEvent)
    hole = replace(seen.payload, feed_sequence=seen.payload.feed_sequence + 3)
    fill = next(event for event in reversed(log) if event.type in ("order.partial", "order.filled"))
    again = [seen, last("signal.snapshot"), last("strategy.decision"), last("order.submitted"), fill]
    await place.bus.publish_all(
        [
            *(replace(event, id=f"again-{number}") for number, event in enumerate(again)),
            replace(last("order.accepted"), id="uncaused", causation_id="nowhere"),
            replace(seen, payload=hole, id="hole", timestamp_ns=seen.timestamp_ns - 10**9),
        ]
    )
    code, report = await place.audit()
    assert code == 1
    expected = {
        "tick missing": 2,
        "tick twice": 1,
        "signal twice": 1,
        "decision twice": 1,
        "order twice": 1,
        "trade twice": 1,
        "time backwards": 1,
        "no cause": 1,
    }
    # The last snapshot has no signal, and what the copy of the decision asks for was answered for the first one only.
    assert {**expected, **found(report)} == found(report)
    assert report["kinds"]["doubled"] == 5
    example = report["rules"]["trade twice"]["examples"][0]
    assert (example["sequence"], example["event_id"]) == (len(log) + 5, "again-4")

    code, out, _ = await place.botplatform("audit")
    assert code == 1
    assert "the log is not clean" in out
    assert "trade twice" in out
    assert "again-4" in out
    assert (await place.audit("--until", str(len(log))))[0] == 0, "up to there it was clean"


async def test_every_load_has_a_feed_epoch_of_its_own(place: Place) -> None:
    for epoch in (1, 2):
        code, out, err = await place.botplatform("load", "--symbols", "3", "--rate", "500", "--count", "60", "--json")
        assert (code, err) == (0, "")
        report = json.loads(out)
        assert (report["feed_epoch"], report["published"], report["symbols"]) == (epoch, 60, 3)
    log = await log_of(place.bus)
    assert len(log) == 120
    assert {event.key for event in log} == {"SYM00", "SYM01", "SYM02"}
    code, report = await place.audit()
    assert code == 1
    assert set(found(report)) == {"signal missing", "still waiting"}, "no engine was there"
    assert (await place.audit("--after", "60"))[1]["events"] == 60


async def test_a_load_ends_in_order_when_it_is_stopped(place: Place) -> None:
    process = await place.start("load", "--symbols", "2", "--rate", "200")
    async with asyncio.timeout(60):
        while await place.bus.last_sequence() < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    published = int(out.split()[0].replace(b",", b""))
    assert published == await place.bus.last_sequence()
    assert b"/s of 200.0/s" in out


async def test_the_audit_of_an_empty_log_is_clean(place: Place) -> None:
    code, out, _ = await place.botplatform("audit")
    assert code == 0
    assert "nothing is missing, doubled, out of order or without a cause" in out


async def test_what_is_no_event_is_unreadable(place: Place) -> None:
    await place.bus.connection.client.request("evt.order.filled.X", b"garbage", timeout=10)
    code, out, err = await place.botplatform("audit", "--json")
    assert (code, json.loads(out)["unreadable"], json.loads(out)["clean"]) == (1, 1, True)
    assert "order.filled" in err


async def test_what_cannot_be_audited_is_refused(place: Place) -> None:
    code, _, err = await place.botplatform("audit", "--after", "5", "--until", "5")
    assert (code, err) == (4, "botplatform: --until 5 does not lie behind --after 5: nothing would be read\n")
    code, _, err = await place.botplatform("audit", "--set", "bus.backend=memory")
    assert code == 4
    assert "bus.backend" in err

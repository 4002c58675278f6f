"""A log with a small largest size, on the real server: a flood of ticks never costs an order."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.jetstream.limits import PAUSE_AT, Janitor, Room, fullness, purge_ticks, sync_advice
from botplatform.bus.jetstream.stored import Counters
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.errors import LogFull
from botplatform.settings import BusSettings, NatsSettings

MIB = 1024**2


def ticks(count: int, start: int = 0) -> list[Event]:
    return [testing.market(f"S{i % 8}", 1.0 + i, id=f"tick-{i}") for i in range(start, start + count)]


def orders(count: int, start: int = 0) -> list[Event]:
    return [testing.order("order.filled", id=f"order-{i}") for i in range(start, start + count)]


@asynccontextmanager
async def small_log(server: EmbeddedServer, max_bytes: int, **groups: list[str]) -> AsyncIterator[JetStreamEventBus]:
    bus = BusSettings(max_bytes=max_bytes, by_type=False)
    async with await JetStreamEventBus.connect(NatsSettings(url=server.url), bus, groups=groups) as made:
        yield made


async def share(bus: JetStreamEventBus) -> float:
    return fullness(await bus.connection.api("STREAM.INFO.EVENTS"))


async def fill_to(bus: JetStreamEventBus, wanted: float) -> int:
    """Publish ticks, as if nobody looked at the room, until the log is that full; return how many."""
    settings = NatsSettings(url=bus.connection.where)
    count = 0
    async with await JetStreamEventBus.connect(settings, BusSettings()) as careless:
        careless._publisher._room = Careless(careless.connection, "EVENTS", Counters())
        while await share(bus) < wanted:
            await careless.publish_all(ticks(50, start=count))
            count += 50
    return count


class Careless(Room):
    async def admit(self, events: Sequence[Event], sent_bytes: int, stored_bytes: int) -> None:
        pass


@asynccontextmanager
async def janitor(bus: JetStreamEventBus, max_bytes: int) -> AsyncIterator[Janitor]:
    made = Janitor(bus.connection, BusSettings(max_bytes=max_bytes), every_s=0.1)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_flood_of_ticks_never_costs_an_order(empty_server: EmbeddedServer) -> None:
    """Some 6 MB of ticks through a log of 2 MiB, from two publishers, with orders all the time."""
    flood, many = 12_000, 300
    async with (
        small_log(empty_server, 2 * MIB) as bus,
        small_log(empty_server, 2 * MIB) as other,
        janitor(bus, 2 * MIB) as cleaning,
    ):
        flooding = asyncio.gather(bus.publish_all(ticks(flood)), other.publish_all(ticks(flood, start=flood)))
        for event in orders(many):
            await other.publish(event)
            await asyncio.sleep(0.005)
        async with asyncio.timeout(60):
            await flooding
        assert cleaning.purged > flood / 2
        assert [d.event.id async for d in bus.replay(["order.*"])] == [f"order-{i}" for i in range(many)]
        left = [int(d.event.id.removeprefix("tick-")) async for d in bus.replay(["market.*"])]
        for part in ([i for i in left if i < flood], [i for i in left if i >= flood]):
            assert part == sorted(set(part))
        assert await share(bus) < PAUSE_AT
        assert bus.counters.paused + other.counters.paused > 0


async def test_ticks_wait_for_room_and_orders_and_heartbeats_do_not(
    empty_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_log(empty_server, MIB) as bus:
        await fill_to(bus, 0.91)
        waiting = asyncio.gather(bus.publish_all(ticks(10, start=100_000)), bus.publish(testing.signal(id="signal")))
        async with asyncio.timeout(60):
            await bus.publish_all(orders(5))
            await bus.publish(
                testing.event("system.heartbeat", SystemEvent("test", "alive", Severity.INFO), id="alive")
            )
        await asyncio.sleep(0.5)
        assert not waiting.done()
        assert bus.counters.paused == 1
        assert [record.getMessage() for record in caplog.records if "ticks wait until" in record.getMessage()] != []
        assert len([record for record in caplog.records if "ticks wait until" in record.getMessage()]) == 1
        assert (await purge_ticks(bus.connection, BusSettings(max_bytes=MIB))).events > 0
        async with asyncio.timeout(60):
            await waiting
        assert [d.event.id async for d in bus.replay(["market.*"])][-10:] == [
            f"tick-{i}" for i in range(100_000, 100_010)
        ]
        assert len([d async for d in bus.replay(["order.*"])]) == 5


async def test_a_tick_that_was_refused_for_want_of_room_is_stored_once_there_is_some(
    empty_server: EmbeddedServer,
) -> None:
    async with small_log(empty_server, MIB) as bus:
        with pytest.raises(LogFull):
            await bus.publish_all(orders(10_000))
        room = bus._publisher._room
        room._paused, room._budget, room._looked_ns = False, float("inf"), bus.connection.clock.monotonic_ns()
        publishing = asyncio.create_task(bus.publish_all(ticks(3)))
        async with asyncio.timeout(60):
            while not bus.counters.paused:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.01)
        assert not publishing.done()
        await bus.connection.api("STREAM.PURGE.EVENTS", {"keep": 100})
        async with asyncio.timeout(60):
            await publishing
        assert [d.event.id async for d in bus.replay(["market.*"])] == ["tick-0", "tick-1", "tick-2"]


async def test_purging_takes_the_oldest_ticks_only_and_stops_when_there_is_room(empty_server: EmbeddedServer) -> None:
    settings = BusSettings(max_bytes=MIB)
    async with small_log(empty_server, MIB) as bus:
        await bus.publish_all([testing.decision(id="decision"), *orders(20)])
        assert (await purge_ticks(bus.connection, settings)).events == 0
        count = await fill_to(bus, 0.82)
        found = await purge_ticks(bus.connection, settings)
        assert (found.before > 0.8, found.unread) == (True, False)
        assert 0.4 < found.after < 0.7
        kept = [int(d.event.id.removeprefix("tick-")) async for d in bus.replay(["market.*"])]
        assert kept == list(range(count - len(kept), count))
        assert found.events == count - len(kept)
        assert len([d async for d in bus.replay(["order.*", "strategy.*"])]) == 21


async def test_ticks_that_a_group_has_not_handled_are_spared_until_orders_need_the_room(
    empty_server: EmbeddedServer,
) -> None:
    settings = BusSettings(max_bytes=MIB)
    async with small_log(empty_server, MIB, slow=["market.*"]) as bus:
        count = await fill_to(bus, 0.82)
        spared = await purge_ticks(bus.connection, settings)
        assert (spared.events, spared.unread) == (0, False)
        await bus.publish_all(orders(1000, start=1000)[: int(MIB * 0.1 / 600)])
        await fill_to(bus, 0.91)
        needed = await purge_ticks(bus.connection, settings)
        assert needed.unread
        assert needed.after < 0.8
        taken: list[str] = []

        async def take(delivery: Delivery) -> None:
            taken.append(delivery.event.id)

        await bus.attach("slow", take)
        await bus.wait_settled()
        assert taken == [d.event.id async for d in bus.replay(["market.*"])]
        assert len(taken) < count + 5000


async def test_a_log_that_is_full_of_orders_is_reported_and_nothing_is_purged(
    empty_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_log(empty_server, MIB) as bus:
        with pytest.raises(LogFull):
            await bus.publish_all(orders(10_000))
        before = await bus.connection.api("STREAM.INFO.EVENTS")
        async with janitor(bus, MIB), asyncio.timeout(60):
            while "raise bus.max_bytes before it refuses orders" not in caplog.text:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.01)
        after = await bus.connection.api("STREAM.INFO.EVENTS")
        assert before["state"]["messages"] == after["state"]["messages"]


async def test_the_janitor_outlives_a_server_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with EmbeddedServer() as server:
        settings = NatsSettings(url=server.url, request_timeout_s=0.2)
        async with await JetStreamEventBus.connect(settings, BusSettings(), groups={}) as bus, janitor(bus, MIB):
            await asyncio.to_thread(server.stop)
            async with asyncio.timeout(60):
                while "cannot look after the room in the log" not in caplog.text:  # noqa: ASYNC110  # the server does it
                    await asyncio.sleep(0.01)


async def test_setup_watch_keeps_room_until_it_is_stopped(empty_server: EmbeddedServer) -> None:
    arguments = [f"nats.url={empty_server.url}", f"bus.max_bytes={MIB}", "bus.by_type=false"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "botplatform.cli", "setup", "--watch"),
        *(part for each in arguments for part in ("--set", each)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    assert "watching the room" in (await process.stderr.readline()).decode()
    settings = NatsSettings(url=empty_server.url)
    async with await JetStreamEventBus.connect(settings, BusSettings(max_bytes=MIB, by_type=False)) as bus:
        await fill_to(bus, 0.91)  # no group has handled anything: spared until orders need the room
        async with asyncio.timeout(60):
            while await share(bus) > 0.7:  # noqa: ASYNC110  # the process does it
                await asyncio.sleep(0.05)
            assert "old ticks" in (await process.stderr.readline()).decode()
    process.terminate()
    await process.stderr.read()
    assert await process.wait() == 0


async def test_looking_costs_nothing_while_there_is_room(bus: JetStreamEventBus) -> None:
    asked = 0

    class Counting(Room):
        async def _ask(self, stored_bytes: int) -> None:
            nonlocal asked
            asked += 1
            await super()._ask(stored_bytes)

    room = bus._publisher._room = Counting(bus.connection, "EVENTS", Counters())
    for event in ticks(300):
        await room.admit([event], 0, 0)
    for event in orders(300):
        await room.admit([event], 10**12, 0)
    assert asked == 1


def test_copies_need_their_servers_to_write_at_once() -> None:
    assert sync_advice(BusSettings()) == ""
    assert "`sync_interval: always`" in sync_advice(BusSettings(replicas=3))

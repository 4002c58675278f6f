"""Publishing across the death of the server, and what the log refuses."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, OrderBook
from botplatform.errors import BusError, LogFull, StreamError
from botplatform.settings import BusSettings, NatsSettings

SYMBOLS = [f"S{number}" for number in range(8)]


def ticks(count: int, start: int = 0) -> list[Event]:
    return [testing.market(SYMBOLS[i % 8], 1.0 + i, id=f"tick-{i}") for i in range(start, start + count)]


async def kill(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.stop)


async def test_killing_the_server_with_events_in_flight_loses_doubles_and_reorders_nothing(tmp_path: Path) -> None:
    total = 30_000
    server = EmbeddedServer(tmp_path)
    await server.start()
    port = server.port
    bus = await JetStreamEventBus.connect(
        NatsSettings(url=server.url), BusSettings(publish_window=1024), groups={"all": ["*"]}
    )
    taken: list[str] = []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.event.id)

    await bus.attach("all", take)
    publishing = asyncio.create_task(bus.publish_all(ticks(total)))
    in_flight = []
    for threshold in (5_000, 15_000):
        async with asyncio.timeout(60):
            while len(taken) < threshold:  # noqa: ASYNC110  # every turn of the loop counts
                await asyncio.sleep(0)
        in_flight.append(bus._publisher.in_flight)
        await kill(server)
        server = EmbeddedServer(tmp_path, port=port)
        await server.start()
    async with asyncio.timeout(60):
        await publishing
        await bus.wait_settled()
    expected = [f"tick-{index}" for index in range(total)]
    assert max(in_flight) > 0
    assert [delivery.event.id async for delivery in bus.replay(["*"])] == expected
    assert taken == expected
    await bus.close()
    await asyncio.to_thread(server.stop)


async def test_publishing_waits_while_the_server_is_away(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    port = server.port
    async with await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(), groups={}) as bus:
        await bus.publish(testing.market(id="before"))
        await kill(server)
        publishers = [asyncio.create_task(bus.publish(event)) for event in ticks(50)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in publishers)
        server = EmbeddedServer(tmp_path, port=port)
        await server.start()
        async with asyncio.timeout(60):
            await asyncio.gather(*publishers)
        found = [delivery.event.id async for delivery in bus.replay(["*"])]
        assert found == ["before", *(f"tick-{index}" for index in range(50))]
    await asyncio.to_thread(server.stop)


async def test_a_server_that_does_not_answer_is_taken_for_lost(tmp_path: Path) -> None:
    """A stopped process keeps its connections: only the missing acknowledgement shows it."""
    async with EmbeddedServer(tmp_path) as server:
        settings = NatsSettings(url=server.url, request_timeout_s=0.4)
        async with await JetStreamEventBus.connect(settings, BusSettings(), groups={}) as bus:
            os.kill(server.pid, signal.SIGSTOP)
            publishing = asyncio.create_task(bus.publish_all(ticks(100)))
            await asyncio.sleep(1.2)
            assert not publishing.done()
            os.kill(server.pid, signal.SIGCONT)
            async with asyncio.timeout(60):
                await publishing
            assert [d.event.id async for d in bus.replay(["*"])] == [f"tick-{index}" for index in range(100)]


async def test_a_full_log_refuses_orders_with_a_clear_error_and_keeps_what_it_has(empty_server: EmbeddedServer) -> None:
    settings = NatsSettings(url=empty_server.url)
    async with await JetStreamEventBus.connect(settings, BusSettings(max_bytes=1024**2), groups={}) as bus:
        stored = 0

        async def fill_up() -> None:
            nonlocal stored
            for index in range(10_000):
                await bus.publish(testing.order("order.filled", id=f"order-{index}"))
                stored += 1

        with pytest.raises(
            LogFull, match=r"the log EVENTS refused order\.filled order-\d+: .*raise bus\.max_bytes"
        ) as e:
            await fill_up()
        assert e.value.event_ids == {f"order-{stored}"}
        assert stored > 100
        assert await bus.last_sequence() == stored
        assert [d.sequence async for d in bus.replay(["*"])] == list(range(1, stored + 1))
        await bus.connection.api("STREAM.PURGE.EVENTS", {"filter": "order.>"})
        await bus.publish(testing.order("order.filled"))
        assert [d.event.type async for d in bus.replay(["order.*"])] == ["order.filled"]


async def test_a_large_order_book_arrives_whole_and_one_too_large_is_refused_by_name(bus: JetStreamEventBus) -> None:
    levels = tuple(float(index) for index in range(50_000))
    tick = testing.market(orderbook=OrderBook(levels, levels, levels, levels), id="large")
    await bus.publish(tick)
    assert [d.event async for d in bus.replay(["*"])] == [tick]
    huge = tuple(float(index) for index in range(400_000))
    too_large = testing.market(orderbook=OrderBook(huge, huge, huge, huge), id="huge")
    with pytest.raises(BusError, match=r"refused market\.snapshot huge: it has \d+ bytes and the server takes 8388608"):
        await bus.publish(too_large)
    await bus.publish(testing.market(id="after"))
    assert await bus.last_sequence() == 2


async def test_the_window_bounds_what_is_on_its_way(empty_server: EmbeddedServer) -> None:
    settings = NatsSettings(url=empty_server.url)
    async with await JetStreamEventBus.connect(settings, BusSettings(publish_window=7), groups={}) as bus:
        most = 0

        def watched() -> Iterator[Event]:
            nonlocal most
            for event in ticks(500):
                most = max(most, bus._publisher.in_flight)
                yield event

        await bus.publish_all(watched())
        assert 0 < most <= 7
        assert await bus.last_sequence() == 500


async def test_publishing_to_a_log_that_was_deleted_says_so(bus: JetStreamEventBus) -> None:
    await bus.publish(testing.market())
    await bus.connection.api("STREAM.DELETE.EVENTS")
    with pytest.raises(StreamError, match="run `botplatform setup`"):
        async with asyncio.timeout(60):
            await bus.publish(testing.market(id="lost"))


async def test_after_closing_publishing_fails_and_does_not_hang(empty_server: EmbeddedServer) -> None:
    bus = await JetStreamEventBus.connect(NatsSettings(url=empty_server.url), BusSettings(), groups={})
    await bus.close()
    await bus.close()
    with pytest.raises(BusError, match="closed"):
        await bus.publish(testing.market())


async def test_the_headers_show_the_chain_and_how_long_an_event_is_kept(bus: JetStreamEventBus) -> None:
    client = await nats.connect(bus.connection.where)
    shown = await client.subscribe("*.*")
    await client._flush_pending(force_flush=True)  # nats-py's `flush` asks ahead of what it has not sent
    await client.flush()
    chain = "0af7651916cd43dd8448eb211c80319c"
    await bus.publish(testing.market(id="b7ad6b7169203331aaaaaaaaaaaaaaaa", correlation_id=chain))
    message = await shown.next_msg(60)
    assert message.subject == "market.snapshot"
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == "b7ad6b7169203331aaaaaaaaaaaaaaaa"
    assert message.headers["traceparent"] == f"00-{chain}-b7ad6b7169203331-00"
    await client.close()


async def test_ticks_expire_and_orders_stay(empty_server: EmbeddedServer) -> None:
    settings = NatsSettings(url=empty_server.url)
    async with await JetStreamEventBus.connect(settings, BusSettings(tick_ttl_s=1), groups={}) as bus:
        await bus.publish_all([testing.market(), testing.order("order.filled"), testing.signal()])
        async with asyncio.timeout(60):
            while [d.event.type async for d in bus.replay(["*"])] != ["order.filled"]:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.1)
        assert await bus.last_sequence() == 3


async def test_what_was_not_sent_is_dropped_with_the_connection(bus: JetStreamEventBus) -> None:
    """Else it would overtake, on the next connection, what was lost with this one."""
    client = bus.connection.client
    client._pending.append(b"PUB overtaking 0\r\n\r\n")
    await bus.connection._lost()
    assert client._pending == []
    await bus.connection._back()


async def test_what_the_server_has_forgotten_the_ids_of_is_not_stored_twice(empty_server: EmbeddedServer) -> None:
    """Stored, never acknowledged to us, and sent again only after the window in which the server knows repetitions."""
    settings = NatsSettings(url=empty_server.url, request_timeout_s=2.5)
    async with await JetStreamEventBus.connect(settings, BusSettings(duplicate_window_s=1), groups={}) as bus:
        await bus.publish_all(ticks(10))
        client = bus.connection.client
        deaf = {sid: sub for sid, sub in client._subs.items() if sub.subject == f"{bus._publisher._inbox}.*"}
        for sid in deaf:
            del client._subs[sid]
        publishing = asyncio.create_task(bus.publish_all(ticks(600, start=10)))
        async with asyncio.timeout(60):
            while await bus.last_sequence() < 610:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.02)
        client._subs.update(deaf)
        async with asyncio.timeout(60):
            await publishing
        await bus.publish_all(ticks(10, start=610))
        assert [d.event.id async for d in bus.replay(["*"])] == [f"tick-{index}" for index in range(620)]

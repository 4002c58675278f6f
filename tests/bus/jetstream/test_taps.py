"""What a person, or a program of others, sees with plain NATS and plain JetStream."""

from __future__ import annotations

import asyncio
import logging

import nats
import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, from_wire
from botplatform.settings import BusSettings, NatsSettings

ORDERS = ["order.submitted", "order.accepted", "order.partial", "order.filled", "order.cancelled"]


def story(count: int) -> list[Event]:
    made: list[Event] = []
    for index in range(count):
        made.append(testing.market(id=f"m{index}"))
        made += [testing.order(one, symbol="BTCUSDT", id=f"{one}-{index}") for one in ORDERS]
    return made


async def until_seen(seen: list[Event], count: int) -> None:
    async with asyncio.timeout(60):
        while len(seen) < count:  # noqa: ASYNC110  # seen from outside only
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("subject", "expected"), [("order.filled", 1), ("order.*", len(ORDERS)), ("order.>", len(ORDERS))]
)
async def test_plain_nats_subscriptions_see_every_event_exactly_once(
    bus: JetStreamEventBus, subject: str, expected: int
) -> None:
    client = await nats.connect(bus.connection.where)
    seen: list[Event] = []

    async def show(message: Msg) -> None:
        event = from_wire(message.data)
        assert event.type == message.subject
        seen.append(event)

    await client.subscribe(subject, cb=show)
    await client.subscribe("system.warning", cb=show)
    await client._flush_pending(force_flush=True)  # nats-py's `flush` asks ahead of what it has not sent
    await client.flush()
    published = story(20)
    await bus.publish_all(published)
    await until_seen(seen, 20 * expected)
    await client.flush()
    await asyncio.sleep(0.1)  # long enough for a second copy to come
    wanted = [event for event in published if event.type == subject or (expected > 1 and event.type in ORDERS)]
    assert seen == wanted
    await client.close()


async def test_a_plain_jetstream_consumer_binds_durably_to_one_type(bus: JetStreamEventBus) -> None:
    """With nats-py alone, as in somebody else's program; a second run goes on where the first stopped."""
    client = await nats.connect(bus.connection.where)
    stream = client.jetstream()
    await bus.publish_all(story(5))
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT)
    consumer = await stream.pull_subscribe("order.filled", durable="report", stream="EVENTS_BY_TYPE", config=config)
    first: list[Msg] = []
    while len(first) < 3:  # the stream by type follows the log a moment later
        first += await consumer.fetch(3 - len(first), timeout=5)
    for message in first:
        await message.ack()
    await consumer.unsubscribe()
    await bus.publish_all([testing.order("order.filled", id="late")])
    consumer = await stream.pull_subscribe("order.filled", durable="report", stream="EVENTS_BY_TYPE")
    second: list[Msg] = []
    while len(second) < 3:
        second += await consumer.fetch(3 - len(second), timeout=5)
    found = [from_wire(message.data) for message in (*first, *second)]
    assert [event.id for event in found] == [*(f"order.filled-{index}" for index in range(5)), "late"]
    assert {message.subject for message in (*first, *second)} == {"order.filled"}
    assert all(event.type == "order.filled" for event in found)
    await client.close()


async def test_without_by_type_there_is_no_second_stream(empty_server: EmbeddedServer) -> None:
    settings = NatsSettings(url=empty_server.url)
    async with await JetStreamEventBus.connect(settings, BusSettings(by_type=False), groups={}) as bus:
        await bus.publish(testing.market())
        assert await bus.connection.api_or_none("STREAM.INFO.EVENTS_BY_TYPE") is None


@pytest.mark.parametrize(("pattern", "subject"), [("order.filled", "order.filled"), ("order.*", "order.*")])
async def test_a_subscription_asks_the_server_for_no_more_than_its_pattern(
    bus: JetStreamEventBus, pattern: str, subject: str
) -> None:
    seen: list[Event] = []

    async def show(event: Event) -> None:
        seen.append(event)

    bus.subscribe(pattern, show)
    await bus.publish_all(story(3))
    await until_seen(seen, 3)
    assert bus._taps._subject == subject
    assert {event.type.split(".")[0] for event in seen} == {"order"}


async def test_widening_a_subscription_under_load_shows_nothing_twice_and_misses_nothing(
    bus: JetStreamEventBus,
) -> None:
    orders: list[Event] = []
    markets: list[Event] = []

    async def show_order(event: Event) -> None:
        orders.append(event)

    async def show_market(event: Event) -> None:
        markets.append(event)

    bus.subscribe("order.filled", show_order)
    await bus.ready()
    published = [testing.order("order.filled", id=f"f{index}") for index in range(2000)]
    publishing = asyncio.create_task(bus.publish_all(published))
    await until_seen(orders, 100)
    bus.subscribe("order.*", show_order)
    await until_seen(orders, 600)
    bus.subscribe("market.*", show_market)
    await publishing
    await bus.publish(testing.market())
    await until_seen(markets, 1)
    assert [event.id for event in orders] == [event.id for event in published]


async def test_bodies_that_are_not_events_are_counted_logged_and_skipped(
    bus: JetStreamEventBus, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a live subscription nor a group stops for them."""
    seen: list[Event] = []
    taken: list[str] = []

    async def show(event: Event) -> None:
        seen.append(event)

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.event.id)

    bus.subscribe("order.*", show)
    await bus.attach("everything", take)
    client = await nats.connect(bus.connection.where)
    stream = client.jetstream()
    await bus.publish(testing.order("order.submitted", id="good-1"))
    with caplog.at_level(logging.WARNING):
        await stream.publish("evt.order.filled.BTCUSDT", b'{"type": "order.filled"}')
        await stream.publish("evt.order.filled.BTCUSDT", b"\xff\xfe")
        await client.publish("order.filled", b"around the log")
        await bus.publish(testing.order("order.filled", id="good-2"))
        await until_seen(seen, 2)
        await bus.wait_settled()
    assert [event.id for event in seen] == taken == ["good-1", "good-2"]
    assert bus.counters.undecodable == 4
    assert "JSON body on order.filled" in caplog.text
    assert [d.event.id async for d in bus.replay(["order.*"])] == ["good-1", "good-2"]
    await client.close()


async def test_a_subscription_goes_on_after_the_server_came_back() -> None:
    server = EmbeddedServer()
    await server.start()
    async with await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(), groups={}) as bus:
        seen: list[Event] = []

        async def show(event: Event) -> None:
            seen.append(event)

        bus.subscribe("order.*", show)
        await bus.publish(testing.order("order.submitted"))
        await until_seen(seen, 1)
        await bus.connection.client.force_reconnect()
        await bus.publish(testing.order("order.filled"))
        await until_seen(seen, 2)
        assert [event.type for event in seen] == ["order.submitted", "order.filled"]
    await asyncio.to_thread(server.stop)

"""What a bus with a log must do beyond every bus: remember, replay, and share among groups, as far as it declares that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benches.buses import (
    FEATURES,
    KINDS,
    PATIENCE_S,
    Collector,
    Taken,
    World,
    connect,
    having,
    orders,
    the_bus,
    ticks,
    until,
)
from botplatform import testing
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery, Feature
from botplatform.core.events import Event

durable, grouped = having(Feature.DURABLE), having(Feature.GROUPS)
replayed, deduplicated = having(Feature.REPLAY), having(Feature.DEDUPLICATED)


@deduplicated
async def test_the_same_id_twice_is_stored_and_shown_once(world: World) -> None:
    bus, seen = the_bus(world), Collector()
    bus.subscribe("market.*", seen.handle)
    tick = testing.market()
    for _ in range(3):
        await bus.publish(tick)
    await bus.publish_all([tick, tick])
    assert await bus.last_sequence() == 1
    await world.settled()
    assert seen.ids == [tick.id]


@replayed
async def test_the_log_can_be_read_from_any_sequence(world: World) -> None:
    bus = the_bus(world)
    published = ticks(1200)
    await bus.publish_all(published)
    whole = [delivery async for delivery in bus.replay(["*"])]
    assert [delivery.event for delivery in whole] == published
    assert [delivery.sequence for delivery in whole] == list(range(1, 1201))
    part = [delivery.sequence async for delivery in bus.replay(["market.*"], after=700, until=710)]
    assert part == list(range(701, 711))
    assert [d.sequence async for d in bus.replay(["*"], after=1199)] == [1200]
    assert [d async for d in bus.replay(["*"], after=1200)] == []
    assert [d async for d in bus.replay(["order.*"])] == []


@replayed
async def test_a_replay_of_several_patterns_keeps_the_order_of_the_log(world: World) -> None:
    bus = the_bus(world)
    events: list[Event] = []
    for index in range(20):
        events += [
            testing.market(id=f"m{index}"),
            testing.signal(id=f"s{index}"),
            testing.order("order.filled", id=f"o{index}"),
        ]
    await bus.publish_all(events)
    wanted = [event.id for event in events if event.type != "signal.snapshot"]
    found = [d.event.id async for d in bus.replay(["order.filled", "order.*", "market.snapshot"])]
    assert found == wanted


@replayed
async def test_an_empty_log_replays_nothing(world: World) -> None:
    bus = the_bus(world)
    assert await bus.last_sequence() == 0
    assert [d async for d in bus.replay(["*"])] == []


@durable
async def test_a_group_gets_its_events_in_order_and_goes_on_where_it_stopped(world: World) -> None:
    bus, taken, later = the_bus(world), Taken(), Taken()
    await bus.publish_all([*ticks(300), *orders("order.submitted", "order.filled")])
    await bus.attach("orders", taken.handle)
    await until(lambda: len(taken.deliveries) == 2)
    assert taken.ids == ["order.submitted-BTCUSDT", "order.filled-BTCUSDT"]
    assert [delivery.sequence for delivery in taken.deliveries] == [301, 302]
    await bus.detach("orders")
    await bus.publish_all(orders("order.rejected"))
    await bus.attach("orders", later.handle)
    await until(lambda: bool(later.deliveries))
    assert later.ids == ["order.rejected-BTCUSDT"]
    assert len(taken.deliveries) == 2


@durable
async def test_a_group_can_begin_again_behind_any_sequence(world: World) -> None:
    bus, first, again = the_bus(world), Taken(), Taken()
    await bus.publish_all(ticks(20))
    await bus.attach("everything", first.handle)
    await until(lambda: len(first.deliveries) == 20)
    await bus.detach("everything")
    await bus.attach("everything", again.handle, after=15)
    await until(lambda: len(again.deliveries) == 5)
    assert again.ids == [f"tick-{index}" for index in range(15, 20)]


@durable
async def test_a_handler_that_raises_stops_its_group_and_the_event_comes_again(world: World) -> None:
    bus, again = the_bus(world), Taken()
    handled: list[str] = []

    async def breaks(delivery: Delivery) -> None:
        if delivery.event.id == "tick-5":
            raise ValueError("cannot")
        handled.append(delivery.event.id)

    await bus.publish_all(ticks(10))
    await bus.attach("everything", breaks)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ValueError, match="cannot"):
            await bus.wait_failed()
    assert handled == [f"tick-{index}" for index in range(5)]
    await bus.detach("everything")
    await bus.attach("everything", again.handle)
    await until(lambda: len(again.deliveries) == 5)
    assert again.ids == [f"tick-{index}" for index in range(5, 10)]


@durable
async def test_settled_means_that_all_that_came_of_it_is_handled(world: World) -> None:
    bus, done = the_bus(world), Taken()

    async def decides(delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        await bus.publish(testing.decision(cause=delivery.event))

    async def executes(delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        await bus.publish(testing.order("order.submitted", cause=delivery.event))

    async def takes(delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        await done.handle(delivery)

    await bus.attach("ticks", decides)
    await bus.attach("helpers", executes)
    await bus.attach("orders", takes)
    await bus.attach("everything", Taken().handle)
    for index in range(1, 6):
        await bus.publish(testing.market(id=f"tick-{index}"))
        await bus.wait_settled()
        assert len(done.deliveries) == index
        assert await bus.last_sequence() == 3 * index


@durable
async def test_settled_waits_for_groups_of_other_processes(world: World, nats_server: EmbeddedServer) -> None:
    bus, slow, rest = the_bus(world), Taken(), Taken()

    async def takes(delivery: Delivery) -> None:
        await asyncio.sleep(0.02)
        await slow.handle(delivery)

    async with await connect(nats_server) as other:
        await other.attach("everything", takes)
        for group in ("orders", "ticks", "helpers"):
            await bus.attach(group, rest.handle)
        await bus.publish_all(ticks(20))
        await bus.wait_settled()
        assert len(slow.deliveries) == len(rest.deliveries) == 20


@grouped
async def test_members_of_a_group_share_its_events(world: World, nats_server: EmbeddedServer) -> None:
    bus, one, two = the_bus(world), Taken(), Taken()
    async with await connect(nats_server) as other:
        await bus.attach("everything", one.handle)
        await other.attach("everything", two.handle, standby=True)
        await bus.publish_all(ticks(300))
        await until(lambda: len(one.deliveries) >= 100)
        await bus.detach("everything")
        await bus.publish_all(ticks(100, start=300))
        await until(lambda: len(one.deliveries) + len(two.deliveries) >= 400)
        assert one.ids + two.ids == [f"tick-{index}" for index in range(400)]
        assert two.deliveries


@grouped
async def test_groups_do_not_take_events_from_each_other(world: World) -> None:
    bus, one, two = the_bus(world), Taken(), Taken()
    await bus.attach("everything", one.handle)
    await bus.attach("ticks", two.handle)
    await bus.publish_all(ticks(50))
    await until(lambda: len(one.deliveries) == len(two.deliveries) == 50)
    assert one.ids == two.ids


@pytest.mark.parametrize("kind", [kind for kind in KINDS if Feature.DURABLE in FEATURES[kind]])
async def test_what_was_published_outlives_the_server_and_the_process(kind: str, tmp_path: Path) -> None:
    taken, rest = Taken(), Taken()
    async with EmbeddedServer(tmp_path) as server, await connect(server) as bus:
        log_id = bus.log_id()
        await bus.publish_all(ticks(30))
        await bus.attach("everything", taken.handle)
        await until(lambda: len(taken.deliveries) == 30)
        await bus.detach("everything")
        await bus.publish_all(ticks(5, start=30))
        await bus.checkpoints.put("strategy", b"state", expected=0)
    async with EmbeddedServer(tmp_path) as server, await connect(server) as bus:
        assert bus.log_id() == log_id
        assert [d.event.id async for d in bus.replay(["*"])] == [f"tick-{index}" for index in range(35)]
        entry = await bus.checkpoints.get("strategy")
        assert entry is not None
        assert entry.value == b"state"
        await bus.attach("everything", rest.handle)
        await until(lambda: len(rest.deliveries) == 5)
        assert rest.ids == [f"tick-{index}" for index in range(30, 35)]

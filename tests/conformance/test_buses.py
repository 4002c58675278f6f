"""What every bus must do, and what each must do beyond that when it declares a feature.

A new backend is added to `KINDS`; each test runs on every kind that declares what the test needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import nats
import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import AsyncInMemoryEventBus, Delivery, DurableEventBus, Feature, InMemoryEventBus
from botplatform.core.events import Event, OrderBook, Severity, SystemEvent
from botplatform.errors import InvalidEvent
from botplatform.settings import BusSettings, NatsSettings

Handler = Callable[[Event], Coroutine[Any, Any, None]]
GROUPS = {"everything": ["*"], "orders": ["order.*"], "ticks": ["market.snapshot"], "helpers": ["strategy.decision"]}
PATIENCE_S = 60.0


class World(Protocol):
    """A bus, and how to wait until all that was published has been seen."""

    features: Feature

    async def publish(self, event: Event) -> None: ...
    def subscribe(self, pattern: str, handler: Handler) -> None: ...
    def unsubscribe(self, pattern: str, handler: Handler) -> None: ...
    async def settled(self) -> None: ...


class SyncWorld:
    """The synchronous bus: a handler runs to its end at once, because nothing here waits."""

    features = InMemoryEventBus.features

    def __init__(self, bus: InMemoryEventBus) -> None:
        self.bus = bus
        self._plain: dict[Handler, Callable[[Event], object]] = {}

    async def publish(self, event: Event) -> None:
        self.bus.publish(event)

    def subscribe(self, pattern: str, handler: Handler) -> None:
        self.bus.subscribe(pattern, self._plain.setdefault(handler, _to_its_end(handler)))

    def unsubscribe(self, pattern: str, handler: Handler) -> None:
        self.bus.unsubscribe(pattern, self._plain.setdefault(handler, _to_its_end(handler)))

    async def settled(self) -> None:
        """Wait for nothing: publishing returns when all is delivered."""


def _to_its_end(handler: Handler) -> Callable[[Event], object]:
    @functools.wraps(handler)
    def call(event: Event) -> None:
        with contextlib.suppress(StopIteration):
            handler(event).send(None)
            raise AssertionError("a handler on the synchronous bus waited")

    return call


class AsyncWorld:
    """The asynchronous bus in memory."""

    features = AsyncInMemoryEventBus.features

    def __init__(self, bus: AsyncInMemoryEventBus) -> None:
        self.bus = bus
        self.publish = self.bus.publish
        self.subscribe = self.bus.subscribe
        self.unsubscribe = self.bus.unsubscribe

    async def settled(self) -> None:
        """Wait for nothing: publishing returns when all is delivered."""


MARKERS = 8


class DurableWorld:
    """A bus with a log: what it shows comes after `publish` returns, in the order of the log."""

    features = JetStreamEventBus.features

    def __init__(self, bus: JetStreamEventBus) -> None:
        self.bus = bus
        self.publish = bus.publish
        self.subscribe = bus.subscribe
        self.unsubscribe = bus.unsubscribe
        self._markers = 0
        self._seen = asyncio.Event()

    async def settled(self) -> None:
        """Wait until a marker is seen that was published last: then all before it was.

        Each marker carries a chain on by at least one event, so that a few are enough where one always causes another.
        """
        self.bus.subscribe("system.warning", self._marker_seen)
        for _ in range(MARKERS):
            self._markers += 1
            self._seen.clear()
            before = await self.bus.last_sequence()
            await self.bus.publish(warning(f"marker-{self._markers}"))
            async with asyncio.timeout(PATIENCE_S):
                await self._seen.wait()
            if await self.bus.last_sequence() == before + 1:  # nothing came beside the marker, or behind it
                return

    async def _marker_seen(self, event: Event) -> None:
        if event.id == f"marker-{self._markers}":
            self._seen.set()


FEATURES = {
    "memory": SyncWorld.features,
    "recording": SyncWorld.features,
    "async_memory": AsyncWorld.features,
    "async_recording": AsyncWorld.features,
    "jetstream": DurableWorld.features,
}
KINDS = tuple(FEATURES)


def having(needed: Feature) -> pytest.MarkDecorator:
    """Run a test on the buses that declare a feature."""
    return pytest.mark.parametrize("world", [kind for kind in KINDS if needed in FEATURES[kind]], indirect=True)


every_bus = pytest.mark.parametrize("world", KINDS, indirect=True)
isolated, cause_first, ordered = having(Feature.ISOLATED), having(Feature.CAUSE_FIRST), having(Feature.ORDERED)
durable, grouped = having(Feature.DURABLE), having(Feature.GROUPS)
replayed, deduplicated = having(Feature.REPLAY), having(Feature.DEDUPLICATED)


async def connect(server: EmbeddedServer) -> JetStreamEventBus:
    return await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(partitions=4), groups=GROUPS)


async def wipe(server: EmbeddedServer) -> None:
    client = await nats.connect(server.url)
    manager = client.jsm()
    for stream in await manager.streams_info():
        assert stream.config.name is not None
        await manager.delete_stream(stream.config.name)
    await client.close()


@pytest.fixture
async def world(request: pytest.FixtureRequest, nats_server: EmbeddedServer) -> AsyncIterator[World]:
    if request.param in ("memory", "recording"):
        yield SyncWorld(InMemoryEventBus() if request.param == "memory" else testing.RecordingBus())
    elif request.param in ("async_memory", "async_recording"):
        yield AsyncWorld(AsyncInMemoryEventBus() if request.param == "async_memory" else testing.AsyncRecordingBus())
    else:
        await wipe(nats_server)
        async with await connect(nats_server) as bus:
            yield DurableWorld(bus)


def warning(event_id: str) -> Event:
    return testing.event("system.warning", SystemEvent("test", "look", Severity.WARNING), id=event_id)


def orders(*types: str, symbol: str = "BTCUSDT") -> list[Event]:
    return [testing.order(one, symbol=symbol, id=f"{one}-{symbol}") for one in types]


class Collector:
    """A handler that keeps what it saw, markers aside."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    async def handle(self, event: Event) -> None:
        if not event.id.startswith("marker-"):
            self.events.append(event)


# What every bus does


@every_bus
async def test_an_exact_type_gets_that_type_only(world: World) -> None:
    seen = Collector()
    world.subscribe("order.filled", seen.handle)
    for event in [testing.market(), *orders("order.submitted", "order.filled", "order.rejected")]:
        await world.publish(event)
    await world.settled()
    assert seen.types == ["order.filled"]


@every_bus
@pytest.mark.parametrize("pattern", ["order.*", "order.>"])
async def test_a_domain_pattern_gets_the_whole_domain_and_nothing_else(world: World, pattern: str) -> None:
    seen = Collector()
    world.subscribe(pattern, seen.handle)
    for event in [testing.market(), *orders("order.submitted", "order.filled"), testing.decision()]:
        await world.publish(event)
    await world.settled()
    assert seen.types == ["order.submitted", "order.filled"]


@every_bus
@pytest.mark.parametrize("pattern", ["*", ">", "*.*"])
async def test_the_pattern_of_everything_gets_everything_once(world: World, pattern: str) -> None:
    seen = Collector()
    world.subscribe(pattern, seen.handle)
    events = [testing.market(), testing.signal(), testing.decision(), *orders("order.submitted", "order.filled")]
    for event in events:
        await world.publish(event)
    await world.settled()
    assert seen.ids == [event.id for event in events]


@every_bus
async def test_a_pattern_that_no_event_matches_is_refused(world: World) -> None:
    with pytest.raises(InvalidEvent, match=r"matches no event type.*known types are"):
        world.subscribe("orders.*", Collector().handle)


@every_bus
async def test_the_other_spelling_is_accepted_in_patterns_and_events(world: World) -> None:
    american, british, domain = Collector(), Collector(), Collector()
    world.subscribe("order.canceled", american.handle)
    world.subscribe("order.cancelled", british.handle)
    world.subscribe("order.*", domain.handle)
    await world.publish(testing.order("order.canceled"))
    await world.settled()
    assert american.types == british.types == domain.types == ["order.cancelled"]


@every_bus
async def test_after_unsubscribing_nothing_comes(world: World) -> None:
    left, stayed = Collector(), Collector()
    for collector in (left, stayed):
        world.subscribe("order.*", collector.handle)
    first, second = orders("order.submitted", "order.filled")
    await world.publish(first)
    await world.settled()
    world.unsubscribe("order.*", left.handle)
    await world.publish(second)
    await world.settled()
    assert left.types == ["order.submitted"]
    assert stayed.types == ["order.submitted", "order.filled"]


@every_bus
async def test_unsubscribing_what_never_subscribed_is_ignored(world: World) -> None:
    seen = Collector()
    world.subscribe("order.*", seen.handle)
    world.unsubscribe("order.filled", seen.handle)
    world.unsubscribe("order.*", Collector().handle)
    await world.publish(testing.order("order.filled"))
    await world.settled()
    assert seen.types == ["order.filled"]


@every_bus
async def test_a_handler_sees_an_event_once_however_often_it_subscribed(world: World) -> None:
    seen = Collector()
    for pattern in ("order.filled", "order.filled", "order.*", "*"):
        world.subscribe(pattern, seen.handle)
    await world.publish(testing.order("order.filled"))
    await world.settled()
    assert seen.types == ["order.filled"]


@every_bus
async def test_a_subscription_made_later_sees_what_comes_later(world: World) -> None:
    early, late = Collector(), Collector()
    world.subscribe("order.*", early.handle)
    await world.publish(testing.order("order.submitted"))
    await world.settled()
    world.subscribe("market.*", late.handle)
    world.subscribe("order.*", late.handle)
    await world.publish(testing.market())
    await world.publish(testing.order("order.filled"))
    await world.settled()
    assert early.types == ["order.submitted", "order.filled"]
    assert late.types == ["market.snapshot", "order.filled"]


@every_bus
async def test_a_handler_may_subscribe_another_and_leave(world: World) -> None:
    seen = Collector()

    async def once(event: Event) -> None:
        world.unsubscribe("order.submitted", once)
        world.subscribe("order.filled", seen.handle)
        await world.publish(testing.order("order.filled", cause=event))

    world.subscribe("order.submitted", once)
    for index in range(3):
        await world.publish(testing.order("order.submitted", id=f"s{index}"))
    await world.settled()
    assert seen.types == ["order.filled"]


@every_bus
async def test_what_arrives_is_what_was_published(world: World) -> None:
    seen = Collector()
    world.subscribe("*", seen.handle)
    book = OrderBook((100.5, 100.25), (1.0, 2.5), (100.75, 101.0), (0.125, 4.0))
    tick = testing.market("BTC-USDT", 100.625, orderbook=book, at_s=1.000000001, correlation_id="any string: ü€ \n {}")
    fill = testing.order("order.filled", price=Decimal("0.10"), quantity=Decimal("1E-8"), cause=tick)
    for event in (tick, fill):
        await world.publish(event)
    await world.settled()
    assert seen.events == [tick, fill]
    assert str(seen.events[1].payload.price) == "0.10"  # type: ignore[union-attr]  # it is an OrderEvent


@every_bus
async def test_nobody_can_change_what_another_one_sees(world: World) -> None:
    refused: list[str] = []
    seen = Collector()

    async def vandal(event: Event) -> None:
        for target, name in ((event, "source"), (event.payload, "price")):
            try:
                setattr(target, name, 0)
            except (AttributeError, TypeError):
                refused.append(name)

    world.subscribe("market.*", vandal)
    world.subscribe("market.*", seen.handle)
    tick = testing.market()
    await world.publish(tick)
    await world.settled()
    assert refused == ["source", "price"]
    assert seen.events == [tick]


@every_bus
async def test_many_publishers_at_once_lose_and_double_nothing(world: World) -> None:
    seen = Collector()
    world.subscribe("market.*", seen.handle)

    async def publisher(symbol: str) -> None:
        for index in range(40):
            await world.publish(testing.market(symbol, 1.0 + index, id=f"{symbol}-{index}"))
            await asyncio.sleep(0)

    await asyncio.gather(*(publisher(f"S{number}") for number in range(5)))
    await world.settled()
    assert sorted(seen.ids) == sorted(f"S{number}-{index}" for number in range(5) for index in range(40))


# Isolation


@isolated
async def test_a_handler_that_raises_is_reported_and_the_others_run(world: World) -> None:
    seen, errors = Collector(), Collector()

    async def broken(_: Event) -> None:
        raise ValueError("boom")

    world.subscribe("order.filled", broken)
    world.subscribe("order.filled", seen.handle)
    world.subscribe("system.error", errors.handle)
    fill = testing.order("order.filled", correlation_id="chain")
    await world.publish(fill)
    await world.settled()
    assert seen.types == ["order.filled"]
    [report] = errors.events
    assert isinstance(report.payload, SystemEvent)
    assert "boom" in report.payload.message
    assert "broken" in report.payload.module
    assert (report.causation_id, report.correlation_id) == (fill.id, "chain")


@isolated
async def test_a_handler_of_errors_that_raises_is_not_reported_for_ever(world: World) -> None:
    calls: list[str] = []

    async def broken(event: Event) -> None:
        calls.append(event.type)
        raise ValueError("boom")

    world.subscribe("*", broken)
    await world.publish(testing.market())
    await world.settled()
    assert calls.count("system.error") >= 1
    assert calls.count("market.snapshot") == 1


# Order


@cause_first
async def test_nobody_sees_an_effect_before_its_cause(world: World) -> None:
    first, last = Collector(), Collector()

    async def executes(event: Event) -> None:
        await world.publish(testing.order("order.submitted", cause=event))
        await world.publish(testing.order("order.filled", cause=event))

    async def alerts(event: Event) -> None:
        await world.publish(testing.event("system.heartbeat", SystemEvent("x", "y", Severity.INFO), cause=event))

    world.subscribe("*", first.handle)
    world.subscribe("strategy.decision", executes)
    world.subscribe("order.submitted", alerts)
    world.subscribe("*", last.handle)
    await world.publish(testing.decision())
    await world.settled()
    assert first.types == last.types
    assert first.types[0] == "strategy.decision"
    assert sorted(first.types) == sorted(["strategy.decision", "order.submitted", "order.filled", "system.heartbeat"])
    assert first.types.index("order.submitted") < first.types.index("system.heartbeat")


@ordered
async def test_events_of_one_key_arrive_in_order_for_every_subscriber(world: World) -> None:
    exact, domain = Collector(), Collector()
    world.subscribe("market.snapshot", exact.handle)
    world.subscribe("*", domain.handle)

    async def publisher(symbol: str) -> None:
        for index in range(50):
            await world.publish(testing.market(symbol, 1.0 + index, id=f"{symbol}-{index}"))

    await asyncio.gather(*(publisher(symbol) for symbol in ("A", "B", "C")))
    await world.settled()
    for seen in (exact, domain):
        for symbol in ("A", "B", "C"):
            assert [event.id for event in seen.events if event.key == symbol] == [f"{symbol}-{i}" for i in range(50)]


# Beyond the interface


class Taken:
    """A handler of a group that keeps what it was given."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    @property
    def ids(self) -> list[str]:
        return [delivery.event.id for delivery in self.deliveries]

    async def handle(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for is seen from outside only
            await asyncio.sleep(0.005)


def ticks(count: int, start: int = 0) -> list[Event]:
    return [testing.market("ABCD"[i % 4], 1.0 + i, id=f"tick-{i}") for i in range(start, start + count)]


def the_bus(world: World) -> JetStreamEventBus:
    assert isinstance(world, DurableWorld)
    assert isinstance(world.bus, DurableEventBus)
    return world.bus


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

"""What every bus must do, and what each must do beyond that when it declares that it isolates or orders.

Each test runs on every kind that declares what the test needs.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from benches.buses import Collector, World, every_bus, having, orders
from botplatform import testing
from botplatform.core.event_bus import Feature
from botplatform.core.events import Event, OrderBook, Severity, SystemEvent
from botplatform.errors import InvalidEvent

isolated, cause_first, ordered = having(Feature.ISOLATED), having(Feature.CAUSE_FIRST), having(Feature.ORDERED)


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

from __future__ import annotations

import asyncio

from botplatform.core.event_bus import AsyncEventBus, AsyncInMemoryEventBus
from botplatform.core.events import Event, MarketEvent, SystemEvent
from botplatform.errors import BusOverflow
from botplatform.testing import AsyncRecordingBus, market, order, signal


async def fail(event: Event) -> None:
    raise RuntimeError("broken")


def prices(*ticks: Event) -> list[float]:
    return [tick.payload.price for tick in ticks if isinstance(tick.payload, MarketEvent)]


async def soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_it_is_an_asynchronous_event_bus() -> None:
    assert isinstance(AsyncInMemoryEventBus(), AsyncEventBus)


async def test_a_handler_that_raises_is_reported_and_the_others_still_run() -> None:
    bus = AsyncRecordingBus()
    seen: list[Event] = []

    async def see(event: Event) -> None:
        seen.append(event)

    bus.subscribe("market.*", fail)
    bus.subscribe("market.*", see)
    await bus.publish(market())
    assert seen == [market()]
    assert bus.types() == ["market.snapshot", "system.error"]


async def test_publishing_returns_when_all_that_came_of_it_is_delivered_causes_first() -> None:
    bus = AsyncRecordingBus()

    async def answer(event: Event) -> None:
        await bus.publish(signal(cause=event))
        assert bus.types() == ["market.snapshot"]
        await soon()

    bus.subscribe("market.*", answer)
    await bus.publish(market())
    assert bus.types() == ["market.snapshot", "signal.snapshot"]


async def test_what_several_tasks_publish_is_delivered_one_chain_after_the_other() -> None:
    bus = AsyncRecordingBus()

    async def answer(event: Event) -> None:
        await asyncio.sleep(0.001 if prices(event)[0] % 2 else 0)
        await bus.publish(signal(cause=event))

    async def publisher(price: float) -> None:
        tick = market(price=price)
        await bus.publish(tick)
        assert [event.type for event in bus.chain(tick.id)] == ["market.snapshot", "signal.snapshot"]

    bus.subscribe("market.*", answer)
    await asyncio.gather(*(publisher(float(number)) for number in range(20)))
    assert prices(*bus.of("market.*")) == list(map(float, range(20)))
    assert bus.types() == ["market.snapshot", "signal.snapshot"] * 20


async def test_a_publisher_waits_for_its_own_event_only() -> None:
    bus = AsyncInMemoryEventBus()
    stop = False

    async def flood() -> None:
        while not stop:
            await bus.publish(market())

    flooding = asyncio.create_task(flood())
    await soon()
    await asyncio.wait_for(bus.publish(order()), 5)
    stop = True
    await flooding


async def test_a_publisher_that_is_cancelled_stops_waiting_but_its_event_is_delivered() -> None:
    bus = AsyncRecordingBus()
    go = asyncio.Event()

    async def slow(event: Event) -> None:
        await go.wait()
        await bus.publish(signal(cause=event))

    bus.subscribe("market.*", slow)
    first = asyncio.create_task(bus.publish(market(at_s=1)))
    second = asyncio.create_task(bus.publish(market(at_s=2)))
    await soon()
    first.cancel()
    second.cancel()
    await asyncio.wait((first, second))
    assert (first.cancelled(), second.cancelled()) == (True, True)
    go.set()
    await asyncio.wait_for(bus.publish(order()), 5)
    assert bus.types() == ["market.snapshot", "signal.snapshot"] * 2 + ["order.submitted"]


async def test_a_handler_that_is_cancelled_by_itself_is_a_failure_like_any_other() -> None:
    bus = AsyncRecordingBus()

    async def cancelled(event: Event) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    bus.subscribe("market.*", cancelled)
    await asyncio.wait_for(bus.publish(market()), 5)
    payload = bus.last("system.error").payload
    assert isinstance(payload, SystemEvent)
    assert "raised CancelledError" in payload.message


async def test_a_task_that_a_handler_started_can_publish_while_it_runs_and_afterwards() -> None:
    bus = AsyncRecordingBus()
    tasks: list[asyncio.Task[None]] = []
    later = asyncio.Event()

    async def now_and_later(event: Event) -> None:
        await bus.publish(signal(cause=event))
        await later.wait()
        await bus.publish(order(cause=event))

    async def start(event: Event) -> None:
        tasks.append(asyncio.create_task(now_and_later(event)))
        await soon()

    bus.subscribe("market.*", start)
    await asyncio.wait_for(bus.publish(market()), 5)
    assert bus.types() == ["market.snapshot", "signal.snapshot"]
    later.set()
    await asyncio.wait_for(tasks[0], 5)
    assert bus.types() == ["market.snapshot", "signal.snapshot", "order.submitted"]


async def test_a_handler_may_await_tasks_that_publish() -> None:
    bus = AsyncRecordingBus()

    async def spread(event: Event) -> None:
        await asyncio.gather(*(bus.publish(signal({"n": float(n)}, cause=event)) for n in range(3)))

    bus.subscribe("market.*", spread)
    await asyncio.wait_for(bus.publish(market()), 5)
    assert bus.types() == ["market.snapshot"] + ["signal.snapshot"] * 3


async def test_two_buses_may_publish_to_each_other_from_handlers() -> None:
    one, other = AsyncRecordingBus(), AsyncRecordingBus()

    async def there(event: Event) -> None:
        await other.publish(event)

    async def back(event: Event) -> None:
        await one.publish(signal(cause=event))

    one.subscribe("market.*", there)
    other.subscribe("market.*", back)
    await asyncio.wait_for(one.publish(market()), 5)
    assert (one.types(), other.types()) == (["market.snapshot", "signal.snapshot"], ["market.snapshot"])


async def test_subscribing_and_unsubscribing_inside_a_handler_hold_from_the_next_event_on() -> None:
    bus = AsyncInMemoryEventBus()
    seen: list[str] = []

    async def see(event: Event) -> None:
        seen.append(event.type)

    async def change(event: Event) -> None:
        bus.subscribe("market.*", see)
        bus.unsubscribe("market.*", change)

    bus.subscribe("market.*", change)
    await bus.publish(market())
    await bus.publish(market())
    assert seen == ["market.snapshot"]


async def test_more_events_than_may_wait_are_refused() -> None:
    bus = AsyncInMemoryEventBus(max_waiting=3)
    refused: list[BusOverflow] = []

    async def spread(event: Event) -> None:
        try:
            for _ in range(5):
                await bus.publish(signal(cause=event))
        except BusOverflow as e:
            refused.append(e)

    bus.subscribe("market.*", spread)
    await bus.publish(market())
    assert [str(error)[:27] for error in refused] == ["more than 3 events wait in "]
    outside = await asyncio.gather(*(bus.publish(order()) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in outside] == [type(None)] * 3 + [BusOverflow] * 2
    await bus.publish(order())

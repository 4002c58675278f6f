from __future__ import annotations

from decimal import Decimal

import pytest

from botplatform.core.events import Event, OrderEvent
from botplatform.errors import InvalidEvent
from botplatform.testing import (
    START_NS,
    AsyncRecordingBus,
    RecordingBus,
    decision,
    fill,
    intent,
    market,
    order,
    signal,
)


def test_the_same_arguments_make_the_same_event() -> None:
    assert market("ETHUSDT", 7.0, at_s=1.5) == market("ETHUSDT", 7.0, at_s=1.5)
    assert market(price=1.0).id != market(price=2.0).id
    assert signal({"rsi": 1.0}).id != signal({"rsi": 2.0}).id
    assert market(at_s=1).id != market(at_s=2).id


def test_times_count_from_the_start() -> None:
    assert market(at_s=2.5).timestamp_ns == START_NS + 2_500_000_000


def test_a_cause_gives_its_chain_on() -> None:
    tick = market()
    result = decision(intent("close", "short", "0.5"), cause=tick)
    assert tick.correlation_id == tick.id
    assert (result.causation_id, result.correlation_id) == (tick.id, tick.id)
    assert order(correlation_id="mine", cause=tick).correlation_id == "mine"


def test_a_fill_is_partial_until_nothing_is_left() -> None:
    first = fill(100, 3, last_qty="1", trade_id="a")
    second = fill(101, 3, last_qty=2, filled_qty=3, trade_id="b")
    assert (first.type, second.type) == ("order.partial", "order.filled")
    assert isinstance(first.payload, OrderEvent)
    assert (first.payload.leaves_qty, first.payload.status.value) == (Decimal(2), "PARTIALLY_FILLED")


def test_the_recording_bus_keeps_everything_in_order_of_delivery() -> None:
    bus = RecordingBus()

    def answer(event: Event) -> None:
        bus.publish(signal(cause=event))

    def fail(event: Event) -> None:
        raise RuntimeError("broken")

    bus.subscribe("market.*", answer)
    bus.subscribe("signal.*", fail)
    tick = market()
    bus.publish(tick)
    assert bus.types() == ["market.snapshot", "signal.snapshot", "system.error"]
    assert bus.of("signal.snapshot") == bus.of("signal.*") == [bus.events[1]]
    assert bus.chain(tick.id) == bus.events
    assert bus.last("market.*") is tick
    bus.clear()
    bus.publish(tick)
    assert len(bus.events) == 3


def test_asking_for_what_was_never_published_says_so() -> None:
    bus = RecordingBus()
    with pytest.raises(AssertionError, match=r"no event of 'order\.filled'"):
        bus.last("order.filled")
    with pytest.raises(InvalidEvent, match="matches no event type"):
        bus.of("orders.*")


async def test_the_asynchronous_bus_records_too() -> None:
    bus = AsyncRecordingBus()
    await bus.publish(market())
    assert bus.types() == ["market.snapshot"]

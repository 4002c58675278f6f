from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.event_bus import EventBus, InMemoryEventBus
from botplatform.core.events import Event, SystemEvent
from botplatform.errors import BusOverflow, InvalidEvent
from botplatform.testing import RecordingBus, decision, fill, market, order, signal


def fail(event: Event) -> None:
    raise RuntimeError("broken")


def test_it_is_an_event_bus() -> None:
    assert isinstance(InMemoryEventBus(), EventBus)


def test_a_handler_gets_what_its_pattern_means_and_each_event_once() -> None:
    bus = InMemoryEventBus()
    seen: list[Event] = []
    for pattern in ("order.filled", "order.*", "order.*", "*"):
        bus.subscribe(pattern, seen.append)
    filled = fill()
    bus.publish(filled)
    assert seen == [filled]


def test_handlers_are_called_in_the_order_of_their_subscriptions() -> None:
    bus = InMemoryEventBus()
    calls: list[int] = []
    for number, pattern in enumerate(("*", "market.snapshot", "market.*")):
        bus.subscribe(pattern, lambda _, number=number: calls.append(number))  # type: ignore[misc]
    bus.publish(market())
    assert calls == [0, 1, 2]


def test_unsubscribing_one_pattern_leaves_the_others() -> None:
    bus = InMemoryEventBus()
    seen: list[Event] = []
    bus.subscribe("order.*", seen.append)
    bus.subscribe("*", seen.append)
    bus.unsubscribe("*", seen.append)
    bus.unsubscribe("*", seen.append)
    bus.unsubscribe("nothing.like.this", seen.append)
    bus.publish(market())
    bus.publish(order())
    assert seen == [order()]


def test_the_other_spelling_subscribes_and_unsubscribes_the_same() -> None:
    bus = InMemoryEventBus()
    seen: list[Event] = []
    bus.subscribe("order.canceled", seen.append)
    bus.publish(order("order.cancelled"))
    bus.unsubscribe("order.cancelled", seen.append)
    bus.publish(order("order.cancelled"))
    assert len(seen) == 1


def test_a_pattern_that_means_nothing_is_refused_at_once() -> None:
    with pytest.raises(InvalidEvent, match="matches no event type"):
        InMemoryEventBus().subscribe("orders.*", fail)


def test_a_handler_that_raises_is_reported_and_the_others_still_run(caplog: pytest.LogCaptureFixture) -> None:
    bus = RecordingBus()
    seen: list[Event] = []
    bus.subscribe("market.*", fail)
    bus.subscribe("market.*", seen.append)
    tick = market()
    bus.publish(tick)
    assert seen == [tick]
    report = bus.last("system.error")
    assert isinstance(report.payload, SystemEvent)
    assert (report.causation_id, report.correlation_id) == (tick.id, tick.correlation_id)
    assert report.timestamp_ns == tick.timestamp_ns
    assert "fail raised RuntimeError on market.snapshot: broken" in report.payload.message
    assert (report.payload.event_id, report.payload.code) == (tick.id, "HANDLER_FAILED")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info is not None


def test_a_handler_of_errors_that_raises_is_logged_and_makes_no_new_error(caplog: pytest.LogCaptureFixture) -> None:
    bus = RecordingBus()
    bus.subscribe("*", fail)
    bus.publish(market())
    assert bus.types() == ["market.snapshot", "system.error"]
    assert len(caplog.records) == 2


def test_the_same_failure_is_reported_by_the_same_event() -> None:
    reports = []
    for _ in range(2):
        bus = RecordingBus()
        bus.subscribe("market.*", fail)
        bus.publish(market())
        reports.append(bus.last("system.error"))
    assert reports[0] == reports[1]


def test_nobody_sees_an_effect_before_its_cause() -> None:
    bus = InMemoryEventBus()
    seen: list[str] = []

    def answer(event: Event) -> None:
        bus.publish(signal(cause=event))

    bus.subscribe("market.*", answer)
    bus.subscribe("*", lambda event: seen.append(event.type))
    bus.publish(market())
    assert seen == ["market.snapshot", "signal.snapshot"]


@given(fan_out=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_every_observer_sees_every_event_once_in_the_same_order_causes_first(fan_out: list[int]) -> None:
    bus = InMemoryEventBus()
    logs: list[list[Event]] = [[], [], []]
    todo = list(fan_out)

    def spread(event: Event) -> None:
        for number in range(todo.pop(0) if todo else 0):
            bus.publish(market(cause=event, price=float(number), at_s=len(todo)))

    bus.subscribe("*", logs[0].append)
    bus.subscribe("market.*", spread)
    bus.subscribe("market.snapshot", logs[1].append)
    bus.subscribe("*", logs[2].append)
    bus.publish(market())
    assert logs[0] == logs[1] == logs[2]
    known: set[str] = {""}
    for event in logs[0]:
        assert event.causation_id in known
        known.add(event.id)
    assert len(logs[0]) == 1 + sum(fan_out[: len(fan_out) - len(todo)])


def test_subscribing_inside_a_handler_holds_from_the_next_event_on() -> None:
    bus = InMemoryEventBus()
    seen: list[Event] = []

    def join(event: Event) -> None:
        bus.subscribe("market.*", seen.append)
        bus.publish(decision(cause=event))

    bus.subscribe("market.*", join)
    bus.subscribe("strategy.*", lambda _: bus.subscribe("order.*", seen.append))
    bus.publish(market(at_s=1))
    bus.publish(market(at_s=2))
    bus.publish(order(at_s=3))
    assert seen == [market(at_s=2), order(at_s=3)]


def test_unsubscribing_inside_a_handler_holds_from_the_next_event_on() -> None:
    bus = InMemoryEventBus()
    once: list[Event] = []
    other: list[Event] = []

    def leave(event: Event) -> None:
        once.append(event)
        bus.unsubscribe("market.*", leave)
        bus.unsubscribe("market.*", other.append)

    bus.subscribe("market.*", leave)
    bus.subscribe("market.*", other.append)
    bus.publish(market(at_s=1))
    bus.publish(market(at_s=2))
    assert once == other == [market(at_s=1)]


def test_a_circle_of_handlers_ends_with_an_overflow_that_is_reported() -> None:
    bus = InMemoryEventBus(max_waiting=10)
    errors: list[Event] = []

    def double(event: Event) -> None:
        bus.publish(event)
        bus.publish(event)
        if errors:
            bus.unsubscribe("market.*", double)

    bus.subscribe("market.*", double)
    bus.subscribe("system.error", errors.append)
    bus.publish(market())
    assert isinstance(errors[0].payload, SystemEvent)
    assert "raised BusOverflow" in errors[0].payload.message
    assert "more than 10 events wait" in errors[0].payload.message


def test_outside_of_handlers_publishing_never_overflows() -> None:
    bus = InMemoryEventBus(max_waiting=0)
    bus.publish(market())
    nested: list[Callable[[], None]] = []

    def inside(event: Event) -> None:
        with pytest.raises(BusOverflow):
            bus.publish(event)
        nested.append(lambda: None)

    bus.subscribe("*", inside)
    bus.publish(market())
    assert len(nested) == 1


def test_an_interrupt_leaves_the_bus_usable_and_the_order_right() -> None:
    bus = RecordingBus()

    def interrupt(event: Event) -> None:
        bus.publish(signal(cause=event))
        bus.unsubscribe("market.*", interrupt)
        raise KeyboardInterrupt

    bus.subscribe("market.*", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bus.publish(market())
    bus.publish(order())
    assert bus.types() == ["market.snapshot", "signal.snapshot", "order.submitted"]

"""Events that are not traced pass without a context: what comes of them is judged as if they were in one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType

import pytest

from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event
from botplatform.core.seam import SystemClock
from botplatform.telemetry.handling import Handling
from botplatform.telemetry.nesting import Nested
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.span_ids import consumer_id, producer_id, traceparent
from botplatform.telemetry.spans import Span
from botplatform.telemetry.tracing import Place, Tracing
from botplatform.testing import decision, market, signal


class Process:
    """One process of the strategy engine, and the spans that it made; by its own ratio it would trace all."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.tracing = Tracing(
            Sampler(1.0), self.spans.append, SystemClock(), engines=("strategy",), headers=True, nest=Nested
        )

    def hands(self, partition: int) -> Handling:
        return self.tracing.handling(Place("strategy", partition, f"strategy-{partition}"))

    async def publish(self, *events: Event) -> None:
        async def publish_all(_events: Sequence[Event]) -> None:
            """Take them."""

        if not self.tracing.leaves_out(events):
            await self.tracing.publish(events, publish_all)


def delivered(event: Event, *, sampled: bool = False) -> Delivery:
    header = f"NATS/1.0\r\nNats-Msg-Id: {event.id}\r\ntraceparent: {traceparent(event, sampled=sampled)}\r\n\r\n"
    return Delivery(event, 1, headers=header.encode())


def heard(symbol: str = "BTCUSDT") -> Event:
    return signal(symbol=symbol, cause=market(symbol=symbol))


def of_strategy(cause: Event) -> Event:
    """Let the strategy engine publish an event of a frequent type."""
    return signal(source="strategy", cause=cause)


def test_what_is_traced_does_not_pass() -> None:
    hands = Process().hands(1)
    assert hands.passes(delivered(heard()), 0)
    assert not hands.passes(delivered(heard(), sampled=True), 0)
    assert not hands.passes(delivered(decision(cause=heard())), 0)
    assert not hands.passes(Delivery(heard(), 1), 0)


async def test_of_an_event_that_passes_nothing_is_traced() -> None:
    process, event = Process(), heard()
    hands = process.hands(1)
    assert hands.passes(delivered(event), 0)
    assert process.tracing.leaves_out([of_strategy(event)])
    await process.publish(of_strategy(event))
    assert process.tracing.leaves_out([of_strategy(event), of_strategy(event)])
    assert not process.tracing.leaves_out([of_strategy(event), of_strategy(heard("ETHUSDT"))])
    assert not process.tracing.leaves_out([of_strategy(event), decision(cause=event)])
    assert hands.turn is None
    assert process.spans == []


async def test_a_decision_on_an_event_that_passes_brings_the_span_that_handled_it() -> None:
    process, event = Process(), heard()
    hands = process.hands(1)
    assert hands.passes(delivered(event), 0)
    made = decision(cause=event)
    await process.publish(made)
    hands.end()
    published, handled = process.spans
    assert (published.id, published.parent) == (producer_id(made.id), handled.id)
    assert (handled.id, handled.parent) == (consumer_id(event.id, "strategy"), "")


async def test_of_two_partitions_that_take_turns_each_event_is_known() -> None:
    process, first, second = Process(), heard(), heard("ETHUSDT")
    one, other = process.hands(1), process.hands(2)
    assert one.passes(delivered(first), 0)
    assert other.passes(delivered(second), 0)
    await process.publish(of_strategy(first))
    await process.publish(of_strategy(second))
    assert process.spans == []
    made = decision(cause=first)
    await process.publish(made)
    assert process.spans[0].parent == consumer_id(first.id, "strategy")
    assert (one.turn is None, other.turn is None) == (False, True)


@pytest.mark.parametrize("by", ["flag", "end"])
async def test_an_event_that_has_passed_is_not_in_hand_any_more(by: str) -> None:
    process, event = Process(), heard()
    hands = process.hands(1)
    assert hands.passes(delivered(event), 0)
    if by == "flag":
        hands.passing = None
    else:
        hands.end()
    await process.publish(of_strategy(event))
    assert len(process.spans) == 1  # judged by its chain, of which this process would trace all


async def test_what_an_event_fails_with_is_told_where_it_has_a_span() -> None:
    process, event = Process(), heard()
    hands = process.hands(1)
    assert hands.passes(delivered(event), 0)
    hands.end(ValueError("wrong"))
    assert process.spans == []
    assert hands.passes(delivered(event), 0)
    await process.publish(decision(cause=event))
    hands.end(ValueError("wrong"))
    failure = process.spans[1].failure
    assert failure is not None
    assert (failure.type, failure.text) == ("ValueError", "wrong")


@pytest.mark.parametrize("sampled", [False, True])
async def test_only_what_is_sampled_calls_opentelemetry(*, sampled: bool) -> None:
    process, event, called = Process(), heard(), set[str]()
    hands, delivery = process.hands(1), delivered(event, sampled=sampled)

    def note(frame: FrameType, _what: str, _about: object) -> None:
        called.add(frame.f_globals.get("__name__", "").partition(".")[0])

    sys.setprofile(note)
    try:
        if hands.passes(delivery, 0):
            await process.publish(of_strategy(event))
            hands.end()
        else:
            with hands.take(delivery, 0):
                await process.publish(of_strategy(event))
    finally:
        sys.setprofile(None)
    assert "botplatform" in called
    assert ("opentelemetry" in called) is sampled
    assert len(process.spans) == (2 if sampled else 0)

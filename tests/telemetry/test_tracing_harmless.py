"""Whatever goes wrong while something is traced, no engine and no order hears of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest

from botplatform.core.engine import Cause
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event
from botplatform.core.seam import SystemClock
from botplatform.telemetry.export import SpanQueue
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.span_ids import traceparent
from botplatform.telemetry.spans import Kind, Span
from botplatform.telemetry.tracing import Place, Tracing
from botplatform.telemetry.writes import WriteSpans
from botplatform.testing import market, order, signal


class Mute(Exception):
    """An exception that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def broken(_span: Span) -> None:
    raise ValueError("a mistake in tracing")


def tracing(told: list[Span] | None = None) -> Tracing:
    return Tracing(
        Sampler(1.0), broken if told is None else told.append, SystemClock(), engines=("portfolio",), headers=True
    )


def delivered(event: Event) -> Delivery:
    header = f"NATS/1.0\r\nNats-Msg-Id: {event.id}\r\ntraceparent: {traceparent(event, sampled=True)}\r\n\r\n"
    return Delivery(event, 1, headers=header.encode())


def test_an_event_is_handled_once_though_it_cannot_be_traced(caplog: pytest.LogCaptureFixture) -> None:
    handled = []
    event = order(cause=market())
    with caplog.at_level(logging.ERROR), tracing().handling(Place("portfolio")).take(delivered(event), 0):
        handled.append(event)
    assert handled == [event]
    assert [record.message for record in caplog.records] == ["an event could not be traced; everything else goes on"]


async def test_events_are_published_once_though_they_cannot_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Event] = []

    async def publish_all(events: Sequence[Event]) -> None:
        published.extend(events)

    tick = market()
    given = [tick, signal(cause=tick), order(cause=tick)]
    traced = tracing()
    await traced.publish(given, publish_all)
    assert published == given
    assert traced.marked == {}

    def wrong(*_: object) -> str:
        raise KeyError("a mistake in tracing")

    monkeypatch.setattr(traced, "parent_of", wrong)
    await traced.publish(given, publish_all)
    assert published == [*given, *given]


async def test_what_an_engine_raises_goes_through_as_it_is() -> None:
    async def publish_all(_events: Sequence[Event]) -> None:
        raise Mute

    told: list[Span] = []
    event = order(cause=market())
    with pytest.raises(Mute), tracing(told).handling(Place("portfolio")).take(delivered(event), 0):
        raise Mute
    with pytest.raises(Mute):
        await tracing(told).publish([event], publish_all)
    with pytest.raises(Mute), tracing(told).call("submit", "paper", event.payload, Cause(event.id, "")):
        raise Mute
    assert [span.failure and span.failure.type for span in told] == ["Mute"] * 3


def test_an_order_that_the_venue_took_is_taken_though_the_call_cannot_be_traced() -> None:
    event = order(cause=market())
    with tracing().call("submit", "paper", event.payload, Cause(event.id, "")):
        taken = True
    assert taken


async def test_a_tick_is_traced_for_what_is_told_of_it_beside() -> None:
    told: list[Span] = []

    async def publish_all(_events: Sequence[Event]) -> None:
        """Take them."""

    traced = Tracing(Sampler(0.0), told.append, SystemClock(), engines=("market_data",), headers=True)
    first, second = market(at_s=1), market(at_s=2)
    await traced.publish([first, second, order(cause=second)], publish_all)
    assert [span.event and span.event.id for span in told if span.name == "publish market.snapshot"] == [second.id]


def test_a_batch_that_is_written_after_the_loop_has_ended_is_written() -> None:
    loop = asyncio.new_event_loop()
    writes = WriteSpans(tracing([]), loop)
    loop.close()
    writes.written(1)


class Clinging:
    """A sender that hangs until it is closed, or not, and fails when it is."""

    def __init__(self, *, hangs: bool) -> None:
        self.sending = threading.Event()
        self.go_on = threading.Event()
        if not hangs:
            self.go_on.set()

    def send(self, spans: Sequence[Span]) -> bool:
        self.sending.set()
        self.go_on.wait(20)
        return bool(spans)

    def close(self) -> None:
        self.go_on.set()
        raise OSError("the connection was never open")


@pytest.mark.parametrize("hangs", [True, False])
def test_an_exporter_that_cannot_be_closed_ends_no_process(caplog: pytest.LogCaptureFixture, *, hangs: bool) -> None:
    sender = Clinging(hangs=hangs)
    queue = SpanQueue(lambda: sender, limit=10, flush_s=0.01)
    queue.put(Span("execution", "a test", Kind.INTERNAL, "1" * 32, "2" * 16, "", 1, 2))
    assert sender.sending.wait(20)
    with caplog.at_level(logging.WARNING):
        queue.close(0.05 if hangs else 20)
    told = [record.message for record in caplog.records if "did not end in order" in record.message]
    assert told == ["the exporter of spans did not end in order: OSError: the connection was never open"]

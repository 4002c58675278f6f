"""What other programs, people and the log itself do to a trace: foreign headers, broadcasts, deliveries that come again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pytest

from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, NotificationEvent, TradingEvent, TradingState
from botplatform.core.seam import SystemClock, random_id
from botplatform.errors import BusError
from botplatform.runtime.logged_bus import LoggedBus
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.span_ids import producer_id, trace_of, traceparent
from botplatform.telemetry.spans import Kind, Link, Span
from botplatform.telemetry.tracing import Place, Tracing
from botplatform.testing import decision, market, signal

ENGINES = ("signals", "strategy", "execution", "storage", "monitoring", "notifications", "operator")
OTHER = Link("b" * 32, "00f067aa0ba902b7")


class Process:
    """The tracing of one process."""

    def __init__(self, ratio: float = 0.0) -> None:
        self.told: list[Span] = []
        self.tracing = Tracing(Sampler(ratio), self.told.append, SystemClock(), engines=ENGINES, headers=True)
        self.headers: dict[str, dict[str, str]] = {}

    async def publish(self, *events: Event) -> None:
        async def log(given: Iterable[Event]) -> None:
            for event in given:
                state = self.tracing.marked.get(event.id)
                self.headers[event.id] = {"traceparent": traceparent(event, sampled=state is not None)}
                if state:
                    self.headers[event.id] |= {"tracestate": state}

        await self.tracing.publish(events, log)

    async def handle(
        self, place: Place, event: Event, headers: Mapping[str, str], *outputs: Event, redelivered: int = 0
    ) -> None:
        with self.tracing.handling(place).take(delivery(event, headers, redelivered), 0):
            await asyncio.sleep(0)
            await self.publish(*outputs)


def delivery(event: Event, headers: Mapping[str, str], redelivered: int = 0) -> Delivery:
    lines = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
    return Delivery(event, 7, redelivered, headers=f"NATS/1.0\r\nNats-Msg-Id: {event.id}{lines}\r\n\r\n".encode())


def untraced(event: Event) -> dict[str, str]:
    return {"traceparent": traceparent(event)}


def root_of(spans: Iterable[Span]) -> Span:
    """Return the one root of a trace that holds together."""
    spans = list(spans)
    assert [span.name for span in spans if span.parent and span.parent not in {each.id for each in spans}] == []
    assert max(Counter(span.id for span in spans).values()) == 1
    (root,) = (span for span in spans if not span.parent)
    return root


def halt() -> Event:
    made = random_id()
    payload = TradingEvent(TradingState.HALTED, "a test", "somebody")
    return Event("trading.halted", payload, "operator", timestamp_ns=1, correlation_id=made, id=made)


def alert(cause: Event, text: str) -> Event:
    payload = NotificationEvent(text, rule="halt")
    return Event(
        "notification.alert",
        payload,
        "notifications",
        timestamp_ns=1,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        id=random_id(),
    )


PLACES = [
    Place("storage"),
    Place("monitoring"),
    *(Place("execution", number, f"execution-{number}") for number in range(3)),
    *(Place("notifications", number, f"notifications-{number}") for number in range(2)),
]


@pytest.mark.parametrize("order", [PLACES, PLACES[::-1]], ids=["execution late", "execution early"])
async def test_a_halt_by_a_command_that_does_not_trace_has_one_root_whoever_hears_of_it_first(
    order: Sequence[Place],
) -> None:
    told: list[Span] = []
    halted = halt()
    for place in order:  # a process each
        process = Process()
        await process.handle(place, halted, untraced(halted))
        told += process.told
    root = root_of(told)
    assert (root.service, root.name, root.kind) == ("operator", "publish trading.halted", Kind.PRODUCER)
    assert root.id == producer_id(halted.id)
    assert Counter(span.service for span in told if span.parent == root.id)["execution"] == 3


async def test_a_halt_that_is_traced_is_published_once() -> None:
    process, halted = Process(), halt()
    await process.publish(halted)
    for place in PLACES:
        await process.handle(place, halted, process.headers[halted.id])
    assert root_of(process.told).name == "publish trading.halted"


@pytest.mark.parametrize("is_traced", [True, False])
async def test_two_partitions_of_one_process_that_have_one_broadcast_at_once_are_told_apart(*, is_traced: bool) -> None:
    process, halted = Process(), halt()
    headers = {"traceparent": traceparent(halted, sampled=is_traced)}
    places = [Place("notifications", number, f"notifications-{number}") for number in range(2)]
    alerts = [alert(halted, str(number)) for number in range(2)]
    both, ready = asyncio.Barrier(2), asyncio.Event()

    async def work(place: Place, output: Event) -> None:
        with process.tracing.handling(place).take(delivery(halted, headers), 0) as traced:
            assert traced
            await both.wait()  # both have it in hand
            if place.partition:
                await ready.wait()  # the other one has let go of it
            await process.publish(output)
        ready.set()

    await asyncio.gather(*map(work, places, alerts))
    handled = {span.attributes["botplatform.partition"]: span.id for span in process.told if span.kind is Kind.CONSUMER}
    assert len(set(handled.values())) == 2
    published = {span.event.id: span.parent for span in process.told if span.event in alerts and span.event}
    assert published == {alerts[number].id: handled[number] for number in range(2)}
    assert not any(process.tracing.in_hand.values())


async def test_an_event_of_another_trace_begins_one_of_its_own_with_a_link() -> None:
    told: list[Span] = []
    tick = market(correlation_id="a" * 32)
    headers = {"traceparent": f"00-{OTHER.trace}-{OTHER.span}-01"}
    for place in (
        Place("storage"),
        Place("monitoring"),
        Place("execution", 1, "execution-1"),
        Place("signals", 3, "s"),
    ):
        process = Process()
        await process.handle(place, tick, headers)
        told += process.told
    root = root_of(told)
    assert (root.name, root.trace, root.links) == ("publish market.snapshot", "a" * 32, (OTHER,))
    assert all(span.links == (OTHER,) for span in told)
    assert len(told) == 5


async def test_another_trace_that_is_not_sampled_is_none() -> None:
    process, tick = Process(), market(correlation_id="a" * 32)
    await process.handle(Place("signals"), tick, {"traceparent": f"00-{OTHER.trace}-{OTHER.span}-00"})
    assert process.told == []


async def test_the_state_of_a_trace_of_others_goes_along_the_whole_chain() -> None:
    process = Process()
    tick = market(correlation_id="a" * 32)
    made = signal(cause=tick)
    decided = decision(cause=made)
    parent = f"00-{'a' * 32}-{OTHER.span}-01"
    await process.handle(Place("signals"), tick, {"traceparent": parent, "tracestate": "rojo=1, congo=2"}, made)
    assert process.headers[made.id]["tracestate"] == "rojo=1,congo=2"
    second = Process()
    await second.handle(Place("strategy"), made, process.headers[made.id], decided)
    assert second.headers[decided.id] == {
        "traceparent": traceparent(decided, sampled=True),
        "tracestate": "rojo=1,congo=2",
    }
    assert {span.state for span in (*process.told, *second.told)} == {"rojo=1,congo=2"}
    assert process.told[-1].parent == OTHER.span


async def test_a_state_that_makes_no_sense_and_that_of_another_trace_are_left_out() -> None:
    process = Process()
    for number, (trace, state) in enumerate([("a" * 32, "not a state"), (OTHER.trace, "rojo=1")]):
        tick = market(correlation_id="a" * 32, at_s=number)
        made = signal(cause=tick)
        headers = {"traceparent": f"00-{trace}-{OTHER.span}-01", "tracestate": state}
        await process.handle(Place("signals"), tick, headers, made)
        assert process.headers[made.id] == {"traceparent": traceparent(made, sampled=True)}


async def test_states_of_very_many_traces_are_not_kept_for_ever() -> None:
    process = Process()
    for number in range(5_000):
        tick = market(correlation_id=f"{number + 1:032x}", at_s=number)
        headers = {"traceparent": f"00-{trace_of(tick)}-{OTHER.span}-01", "tracestate": "rojo=1"}
        await process.handle(Place("signals"), tick, headers)
    assert len(process.tracing._states) <= 4096


@pytest.mark.parametrize(("redelivered", "count"), [(0, None), (1, 2), (4, 5)])
async def test_how_often_an_event_was_delivered_is_told_where_that_was_more_than_once(
    redelivered: int, count: int | None
) -> None:
    process, decided = Process(), decision()
    await process.handle(
        Place("execution"), decided, {"traceparent": traceparent(decided, sampled=True)}, redelivered=redelivered
    )
    (span,) = process.told
    assert span.attributes.get("botplatform.delivery_count") == count
    assert span.attributes.get("botplatform.redelivered", False) is (count is not None)


class SharingBus:
    """A bus of which only the shared groups are looked at."""

    features = None

    def __init__(self) -> None:
        self.handler: object = None

    async def share(self, group: str, handler: object, *, final: tuple[type[Exception], ...] = ()) -> None:
        assert (group, final) == ("desk", (KeyError,))
        self.handler = handler


async def test_a_shared_group_has_a_span_for_each_time_that_an_event_is_tried() -> None:
    process, bus, tried = Process(), SharingBus(), 0
    decided = decision()
    headers = {"traceparent": traceparent(decided, sampled=True)}
    made = alert(decided, "done")

    async def work(_delivery: Delivery) -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise ConnectionError(f"away {tried}")
        await process.publish(made)

    await LoggedBus(bus, lambda _: None, tracing=process.tracing).share("desk", work, final=(KeyError,))  # type: ignore[arg-type]  # as much of a bus as is needed
    handle = bus.handler
    assert callable(handle)
    for number in range(2):
        with pytest.raises(ConnectionError, match=f"away {number + 1}"):
            await handle(delivery(decided, headers, number))
    await handle(delivery(decided, headers, 2))
    spans = [span for span in process.told if span.name == "process strategy.decision"]
    assert len({span.id for span in spans}) == 3
    assert {span.parent for span in spans} == {producer_id(decided.id)}
    assert [span.failure and span.failure.text for span in spans] == ["away 1", "away 2", None]
    assert [span.attributes["messaging.consumer.group.name"] for span in spans] == ["desk"] * 3
    assert [span.attributes.get("botplatform.delivery_count") for span in spans] == [None, 2, 3]


async def test_a_bus_that_has_no_shared_groups_says_so() -> None:
    class Plain:
        features = None

    with pytest.raises(BusError, match="cannot be shared"):
        await LoggedBus(Plain(), lambda _: None).share("desk", lambda _: asyncio.sleep(0))  # type: ignore[arg-type]  # as above

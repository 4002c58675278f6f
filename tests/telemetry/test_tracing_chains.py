"""The spans of runs of the platform: one root for each chain, no orphan, nested as things came of each other."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from opentelemetry.trace import SpanContext, get_current_span

from botplatform.bootstrap import ENGINES, open_platform
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import SystemClock
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.settings import load_settings
from botplatform.settings_tracing import TracingSettings
from botplatform.telemetry.handling import Handling
from botplatform.telemetry.sampling import ALWAYS, Sampler
from botplatform.telemetry.setup_tracing import open_tracing
from botplatform.telemetry.span_ids import consumer_id, producer_id, traceparent
from botplatform.telemetry.spans import Kind, Span
from botplatform.telemetry.tracing import Place, Tracing
from botplatform.testing import decision, market, order, signal

NAMES = (*ENGINES, "alert_sender")


class Told(list[Span]):
    """What was traced."""

    def tracing(self, ratio: float = 0.0, *, headers: bool = False) -> Tracing:
        return Tracing(Sampler(ratio), self.append, SystemClock(), engines=NAMES, headers=headers)

    def chains(self) -> dict[str, list[Span]]:
        found = defaultdict(list)
        for span in self:
            found[span.trace].append(span)
        return found

    def named(self, name: str) -> list[Span]:
        return [span for span in self if span.name == name]


def root_of(spans: Iterable[Span]) -> Span:
    """Return the one root of a trace that holds together."""
    spans = list(spans)
    ids = Counter(span.id for span in spans)
    assert [span.name for span in spans if ids[span.id] > 1] == []
    assert [(span.service, span.name) for span in spans if span.parent and span.parent not in ids] == []
    (root,) = (span for span in spans if not span.parent)
    return root


async def run(tmp_path: Path, ratio: float, *more: str, clock: SystemClock | None = None) -> Told:
    told = Told()
    settings = load_settings(
        None,
        (
            "bus.backend=memory",
            "symbols=BTCUSDT",
            "feed.pace=flat",
            "feed.limit=400",
            "log.level=error",
            f"storage.path={tmp_path}/store.sqlite",
            *more,
        ),
        environ={},
    )
    async with open_platform(settings, tracing=told.tracing(ratio), clock=clock) as platform:
        await platform.process.run()
    return told


async def test_a_chain_of_a_tick_that_is_not_sampled_begins_where_the_decision_was_made(tmp_path: Path) -> None:
    told = await run(tmp_path, 0.0)
    decisions = told.named("publish strategy.decision")
    assert decisions
    for span in decisions:
        root = root_of(told.chains()[span.trace])
        assert (root.service, root.name, root.kind) == ("strategy", "process signal.snapshot", Kind.CONSUMER)
        assert span.parent == root.id
        assert [note.name for note in root.notes] == ["market.snapshot", "signal.snapshot made"]
    assert not told.named("publish market.snapshot")


async def test_a_sampled_chain_is_nested_from_the_tick_to_the_alert(tmp_path: Path) -> None:
    told = await run(tmp_path, 1.0)
    by_id = {span.id: span for span in told}
    for spans in told.chains().values():
        root_of(spans)
    filled = told.named("publish order.filled")[0]
    above, at = [], filled
    while at.parent:
        at = by_id[at.parent]
        above.append((at.service, at.name))
    assert above == [
        ("execution", "submit paper"),
        ("execution", "publish order.submitted"),
        ("execution", "process strategy.decision"),
        ("strategy", "publish strategy.decision"),
        ("strategy", "process signal.snapshot"),
        ("signals", "publish signal.snapshot"),
        ("signals", "process market.snapshot"),
        ("market_data", "publish market.snapshot"),
    ]
    heard = {span.service for span in told.named("process order.filled") if span.parent == filled.id}
    assert heard == {"execution", "strategy", "portfolio", "storage", "monitoring", "notifications"}


@pytest.mark.parametrize("ratio", [0.2, 0.5])
async def test_whatever_is_sampled_every_chain_has_one_root_and_no_orphan(tmp_path: Path, ratio: float) -> None:
    told = await run(tmp_path, ratio, "exchange.reject_share=0.3", "exchange.partial_fill_share=0.5")
    for spans in told.chains().values():
        root_of(spans)
    begun = {root_of(spans).name for spans in told.chains().values()}
    assert begun >= {"publish market.snapshot", "process signal.snapshot"}


async def test_two_decisions_on_one_tick_share_their_root(tmp_path: Path) -> None:
    both = [{"name": name, "use": "ema_cross"} for name in ("one", "two")]
    told = await run(tmp_path, 0.0, f"strategies={json.dumps(both)}")
    decisions = told.named("publish strategy.decision")
    together = defaultdict(set)
    for span in decisions:
        together[span.trace].add(span.parent)
    assert Counter(span.trace for span in decisions).most_common(1)[0][1] == 2
    for trace, parents in together.items():
        assert parents == {root_of(told.chains()[trace]).id}


async def test_a_rejection_is_an_error_in_its_chain(tmp_path: Path) -> None:
    told = await run(tmp_path, 0.0, "exchange.reject_share=1")
    span = told.named("publish order.rejected")[0]
    assert span.failure is not None
    assert span.failure.type
    root_of(told.chains()[span.trace])


async def test_storage_tells_of_its_writes_with_links_to_what_is_in_them(tmp_path: Path) -> None:
    told = await run(tmp_path, 0.0)
    handled = {(span.trace, span.id) for span in told if span.service == "storage" and span.kind is Kind.CONSUMER}
    linked = {tuple(link) for span in told.named("write events") for link in span.links}
    assert linked
    assert linked <= handled


async def test_an_engine_that_fails_on_a_tick_is_told_though_the_tick_was_not_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, seen = SignalsEngine.handle, 0

    def failing(engine: SignalsEngine, event: Event) -> object:
        nonlocal seen
        seen += 1
        if seen == 20:
            raise ValueError("no such price")
        return handle(engine, event)

    monkeypatch.setattr(SignalsEngine, "handle", failing)
    told = await run(tmp_path, 0.0)
    (failed,) = (span for span in told if span.failure is not None and span.failure.type == "ValueError")
    assert (failed.service, failed.name) == ("signals", "process market.snapshot")
    assert "dead letter" in [note.name for note in failed.notes]
    assert root_of(told.chains()[failed.trace]) == failed
    assert [span.parent for span in told.named("publish system.error")] == [failed.id]


def hands(tracing: Tracing, group: str, delivery: Delivery) -> Handling:
    """Return a context in which a group has an event."""
    return tracing.handling(Place(group)).take(delivery, tracing.clock.monotonic_ns())


class Deliveries:
    """One event after the other, handled and published by hand, as with headers on JetStream."""

    def __init__(self, ratio: float = 0.0) -> None:
        self.told = Told()
        self.tracing = self.told.tracing(ratio, headers=True)
        self.flags: dict[str, bool] = {}
        self.sequence = 0

    async def publish(self, *events: Event) -> None:
        async def log(given: Iterable[Event]) -> None:
            self.flags |= {event.id: event.id in self.tracing.marked for event in given}

        await self.tracing.publish(events, log)

    async def handle(self, group: str, event: Event, *outputs: Event, header: str | None = None) -> None:
        self.sequence += 1
        header = traceparent(event, sampled=self.flags.get(event.id, False)) if header is None else header
        block = f"NATS/1.0\r\nNats-Msg-Id: {event.id}\r\ntraceparent: {header}\r\n\r\n".encode()
        with hands(self.tracing, group, Delivery(event, self.sequence, headers=block)):
            await self.publish(*outputs)


def caused(event: Event, cause: Event, source: str) -> Event:
    """Say what caused an event, as the runtime does."""
    return Event(
        event.type,
        event.payload,
        source,
        timestamp_ns=cause.timestamp_ns,
        correlation_id=cause.correlation_id or cause.id,
        causation_id=cause.id,
    )


async def test_an_output_has_the_flag_of_its_input_and_a_decision_always_has_it() -> None:
    by_hand = Deliveries()
    tick = market(correlation_id="chain")
    signals = caused(signal(), tick, "signals")
    decided = caused(decision(), signals, "strategy")
    await by_hand.publish(tick)
    await by_hand.handle("signals", tick, signals)
    await by_hand.handle("strategy", signals, decided)
    assert by_hand.flags == {tick.id: False, signals.id: False, decided.id: True}
    assert [span.name for span in by_hand.told] == ["publish strategy.decision", "process signal.snapshot"]
    await by_hand.handle("signals", tick, signals, header=traceparent(tick, sampled=True))
    assert by_hand.flags[signals.id]


async def test_the_header_of_another_program_is_the_parent() -> None:
    by_hand = Deliveries()
    tick = market(correlation_id="a" * 32)
    await by_hand.handle("signals", tick, header=f"00-{'a' * 32}-00f067aa0ba902b7-01")
    (span,) = by_hand.told
    assert (span.trace, span.parent, span.id) == ("a" * 32, "00f067aa0ba902b7", consumer_id(tick.id, "signals"))


async def test_a_decision_of_a_program_that_does_not_trace_begins_in_execution_whoever_hears_of_it_first() -> None:
    first, second = Deliveries(), Deliveries()
    decided = decision()
    await first.handle("storage", decided)
    await second.handle("execution", decided)
    root = root_of([*first.told, *second.told])
    assert root.service == "execution"


async def test_a_late_fill_comes_under_the_call_that_a_process_long_gone_had_made() -> None:
    first, second = Deliveries(), Deliveries()
    submitted = order("order.submitted", source="execution")
    await first.publish(submitted)
    payload = submitted.payload
    assert isinstance(payload, OrderEvent)
    with first.tracing.call("submit", "paper", payload, submitted):
        pass
    filled = caused(order("order.filled"), submitted, "paper")
    await second.publish(filled)
    (call,) = first.told.named("submit paper")
    assert [span.parent for span in second.told] == [call.id]
    assert call.parent == producer_id(submitted.id)


async def test_a_refused_publish_is_an_error_and_goes_on_raising() -> None:
    by_hand = Deliveries()

    async def refuse(_: Iterable[Event]) -> None:
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        await by_hand.tracing.publish([decision()], refuse)
    assert by_hand.told[0].failure == ("RuntimeError", "no room")
    assert not by_hand.tracing.marked


def test_what_is_always_traced_can_be_told_from_the_type() -> None:
    assert all(event.type in ALWAYS for event in (decision(), order()))


@pytest.mark.parametrize("sampled", [True, False])
async def test_instrumentation_inside_of_a_handler_finds_the_span_where_the_chain_is_sampled(sampled: bool) -> None:
    traces = open_tracing(
        TracingSettings(enabled=True, stop_within_s=0),
        {"OTEL_TRACES_EXPORTER": "console"},
        SystemClock(),
        engines=NAMES,
        running=NAMES,
        instance="i",
    )
    assert traces is not None
    tick, found = market(), list[SpanContext]()

    block = f"NATS/1.0\r\ntraceparent: {traceparent(tick, sampled=sampled)}\r\n\r\n".encode()
    traces.tracing.emit = list[Span]().append
    with hands(traces.tracing, "signals", Delivery(tick, 1, headers=block)) as traced:
        assert traced == sampled
        found.append(get_current_span().get_span_context())
    traces.close()
    expected = int(consumer_id(tick.id, "signals"), 16) if sampled else 0
    assert [context.span_id for context in found] == [expected]
    assert not get_current_span().get_span_context().is_valid


async def test_what_is_published_is_the_same_with_tracing_and_without() -> None:
    by_hand, given = Deliveries(ratio=1.0), [market(), decision(), order()]
    seen: list[Event] = []

    async def log(events: Iterable[Event]) -> None:
        seen.extend(events)

    await by_hand.tracing.publish(given, log)
    assert seen == given

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from botplatform.core.engine import CancelOrder, Cause, Emit, Engine, EngineHost, Output, SubmitOrder, output_id
from botplatform.core.events import Event, OrderEvent, SignalEvent
from botplatform.errors import UndeclaredEvent
from botplatform.testing import decision, market, order

VALUES = SignalEvent("BTCUSDT", "default", {"rsi": 50.0})


class Scripted:
    name: ClassVar[str] = "scripted"
    listens: ClassVar[tuple[str, ...]] = ("market.*", "order.filled")
    publishes: ClassVar[tuple[str, ...]] = ("signal.snapshot", "order.submitted")

    def __init__(self, *outputs: Output) -> None:
        self.outputs = outputs

    def handle(self, event: Event) -> Sequence[Output]:
        return self.outputs

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None: ...


def payload_of(event: Event) -> OrderEvent:
    assert isinstance(event.payload, OrderEvent)
    return event.payload


def test_what_has_the_four_methods_is_an_engine() -> None:
    assert isinstance(Scripted(), Engine)


def test_an_output_takes_times_and_chain_from_what_the_engine_handled() -> None:
    tick = market(at_s=5, correlation_id="chain")
    step = EngineHost(Scripted(Emit("signal.snapshot", VALUES))).process(tick, created_ns=99)
    made = step.events[0]
    assert (made.source, made.causation_id, made.correlation_id) == ("scripted", tick.id, "chain")
    assert (made.timestamp_ns, made.created_ns) == (tick.timestamp_ns, 99)
    assert made.id == output_id(tick.id, "scripted", 0)


def test_the_same_input_gives_the_same_events_whenever_it_runs() -> None:
    outputs = [Emit("signal.snapshot", VALUES)] * 3
    first, again = (EngineHost(Scripted(*outputs)).process(market(), created_ns=1) for _ in range(2))
    assert first == again
    assert len({event.id for event in first.events}) == 3
    assert EngineHost(Scripted(*outputs)).process(market(at_s=1), created_ns=1).events[0].id != first.events[0].id


def test_an_output_with_a_cause_belongs_to_the_chain_of_its_cause() -> None:
    decided = decision(correlation_id="of the decision")
    emit = Emit("order.submitted", order().payload, Cause(decided.id, decided.correlation_id))
    made = EngineHost(Scripted(emit)).process(market(correlation_id="of the tick"), created_ns=1).events[0]
    assert (made.causation_id, made.correlation_id) == (decided.id, "of the decision")


def test_effects_name_the_event_that_they_follow_from() -> None:
    tick, submitted = market(), order()
    cancel = CancelOrder(payload_of(submitted))
    emit = Emit("order.submitted", submitted.payload, effect=SubmitOrder(payload_of(submitted)))
    step = EngineHost(Scripted(cancel, emit)).process(tick, created_ns=1)
    assert [(pending.effect, pending.cause) for pending in step.effects] == [
        (cancel, tick),
        (SubmitOrder(payload_of(submitted)), step.events[0]),
    ]
    assert [event.type for event in step.events] == ["order.submitted"]


def test_publishing_what_was_not_declared_is_an_error() -> None:
    host = EngineHost(Scripted(Emit("order.filled", order("order.filled").payload)))
    with pytest.raises(UndeclaredEvent, match=r"scripted published order\.filled, which it does not declare: add it"):
        host.process(market(), created_ns=1)


@pytest.mark.parametrize(
    ("event_type", "heard"),
    [("market.snapshot", True), ("order.filled", True), ("order.partial", False), ("system.error", False)],
)
def test_an_engine_hears_what_it_declares(event_type: str, heard: Any) -> None:
    assert EngineHost(Scripted()).listens_to(event_type) is heard


def test_nothing_comes_of_nothing() -> None:
    step = EngineHost(Scripted()).process(market(), created_ns=1)
    assert (list(step.events), list(step.effects)) == ([], [])

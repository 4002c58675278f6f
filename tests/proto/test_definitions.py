from __future__ import annotations

import re
import runpy
from decimal import Decimal
from pathlib import Path
from typing import Any

import google.protobuf
import msgspec
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from botplatform.core.events import CATALOGUE, Event, OrderBook, from_wire, to_wire
from botplatform.core.json_form import from_json, to_json
from botplatform.errors import InvalidEvent
from botplatform.events.v1 import event_pb2, order_pb2, payloads
from botplatform.testing import decision, fill, market, order, signal
from botplatform.testing.generators import events

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "src" / "botplatform" / "events" / "v1"
# The catalogue of the contract: types, and the fields to honour.
CONTRACT = {
    "market.snapshot": ("symbol", "price", "mark_price", "orderbook", "volume", "timestamp"),
    "signal.snapshot": ("symbol", "signal_name", "values"),
    "strategy.decision": ("strategy", "symbol", "actions"),
    **dict.fromkeys(
        ("order.submitted", "order.filled", "order.partial", "order.rejected", "order.cancelled"),
        ("order_id", "symbol", "side", "price", "quantity", "status"),
    ),
    **dict.fromkeys(("state.updated", "state.snapshot", "state.restored"), ("positions", "strategies", "timestamp")),
    **dict.fromkeys(
        ("system.error", "system.warning", "system.heartbeat", "system.recovery"), ("module", "message", "severity")
    ),
    "notification.alert": ("text", "priority", "recipients"),
}
ADDED = ("order.accepted", "order.denied", "order.expired", "order.unknown")


@pytest.mark.parametrize("event_type", sorted(CONTRACT))
def test_every_type_of_the_contract_has_the_fields_to_honour(event_type: str) -> None:
    fields = CATALOGUE[event_type].__struct_fields__
    assert set(CONTRACT[event_type]) <= set(fields)


def test_the_contract_is_that_of_the_shared_page() -> None:
    page = next((parent / "shared" / "EVENTS.md" for parent in ROOT.parents if (parent / "shared").is_dir()), None)
    if page is None or not page.exists():
        pytest.skip("the shared page EVENTS.md is not beside this checkout")
    rows = re.findall(r"^\| \w+Event \| (.+?) \| (.+?) \|$", page.read_text(), re.MULTILINE)
    assert len(rows) == 7
    types = {name for row in rows for name in re.findall(r"`(\w+\.\w+)`", row[0])}
    assert types == set(CONTRACT)
    for names, fields in rows:
        for event_type in re.findall(r"`(\w+\.\w+)`", names):
            named = [field for field in re.findall(r"`(\w+)`", fields) if field in dir(CATALOGUE[event_type])]
            assert set(named) <= set(CONTRACT[event_type]) | {"type", "side", "size"}


@pytest.mark.parametrize("event_type", ADDED)
def test_what_the_five_order_types_cannot_say_has_types_of_its_own(event_type: str) -> None:
    assert CATALOGUE[event_type] is payloads.OrderEvent


def test_the_actions_of_a_decision_have_type_side_and_size() -> None:
    assert {"type", "side", "size"} <= set(payloads.ActionIntent.__struct_fields__)
    assert [*payloads.ActionType][:2] == ["open", "close"]
    assert [*payloads.ActionSide] == ["long", "short"]
    assert [*payloads.Side] == ["BUY", "SELL"]


def test_the_event_has_the_fields_of_its_message_and_the_seconds() -> None:
    arms = {field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    wire = {field.name for field in event_pb2.Event.DESCRIPTOR.fields} - arms
    assert set(Event.__struct_fields__) == wire | {"payload", "timestamp"}


@pytest.mark.parametrize("kind", list(payloads.SHAPES), ids=lambda kind: kind.__name__)
def test_every_struct_has_the_fields_of_its_message(kind: type[msgspec.Struct]) -> None:
    pool: Any = event_pb2.DESCRIPTOR.pool
    message = pool.FindMessageTypeByName(f"botplatform.events.v1.{kind.__name__}")
    declared = {field.name for field in message.fields}
    assert set(kind.__struct_fields__) - {"timestamp"} == declared
    assert {shape.name for shape in payloads.SHAPES[kind]} == declared


def test_every_payload_has_an_arm_of_its_own() -> None:
    arms = {field.message_type.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}  # type: ignore[union-attr]
    assert arms == {kind.__name__ for kind in CATALOGUE.values()}


def test_the_zero_of_every_enum_says_nothing() -> None:
    checked = 0
    for name in ("market", "notification", "order", "signal", "state", "strategy", "system", "trading"):
        module: Any = __import__(f"botplatform.events.v1.{name}_pb2", fromlist=["DESCRIPTOR"])
        for enum in module.DESCRIPTOR.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")
            members = list(getattr(payloads, enum.name))
            assert len(members) == len(enum.values) - 1
            assert getattr(payloads, f"{enum.name.upper()}_BY_NUMBER") == (None, *members)
            checked += 1
    assert checked >= 10


def test_the_generated_code_is_not_newer_than_the_runtime() -> None:
    header = (GENERATED / "event_pb2.py").read_text()
    found = re.search(r"Protobuf Python Version: (\d+)\.(\d+)\.(\d+)", header)
    assert found is not None
    runtime = tuple(map(int, re.findall(r"\d+", google.protobuf.__version__)[:3]))
    assert tuple(map(int, found.groups())) <= runtime


def test_the_generated_code_is_that_of_the_definitions(tmp_path: Path) -> None:
    written = runpy.run_path(str(ROOT / "proto" / "codegen"))["generate"](tmp_path)
    assert {path.name for path in written if path.is_file()} >= {"payloads.py", "wire.py", "event_pb2.py"}
    for path in written:
        if path.is_file():
            assert path.read_bytes() == (GENERATED / path.name).read_bytes(), f"{path.name}: run `python proto/codegen`"


def test_every_definition_is_documented() -> None:
    undocumented = re.findall(r'^    """"""$', (GENERATED / "payloads.py").read_text(), re.MULTILINE)
    assert undocumented == []
    for kind in payloads.SHAPES:
        assert kind.__doc__


@given(event=events())
@settings(deadline=None, max_examples=60)
def test_the_same_event_makes_the_same_bytes(event: Event) -> None:
    data = to_wire(event)
    assert to_wire(from_wire(data)) == data
    assert to_wire(from_json(to_json(event))) == data


SAMPLES = [market(orderbook=OrderBook((1.0,), (2.0,))), signal(), decision(), order(), fill()]


@given(data=st.binary(max_size=300))
@example(b"")
@settings(deadline=None)
def test_garbage_on_the_wire_is_refused_and_nothing_else_is_raised(data: bytes) -> None:
    with pytest.raises(InvalidEvent):
        from_wire(data)


@given(sample=st.sampled_from(SAMPLES), place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=500)
def test_an_event_with_one_byte_changed_is_read_or_refused(sample: Event, place: float, byte: int) -> None:
    data = bytearray(to_wire(sample))
    data[int(place * len(data))] = byte
    try:
        event = from_wire(bytes(data))
    except InvalidEvent:
        return
    assert from_wire(to_wire(event)) == event


def changed(event: Event, change: Any) -> bytes:
    message = event_pb2.Event.FromString(to_wire(event))
    change(message)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.ClearField("order"), "has no payload that this version knows"),
        (lambda m: setattr(m.order, "side", 99), r"OrderEvent\.side has the unknown enum number 99: .*newer version"),
        (lambda m: setattr(m.order, "side", -1), "unknown enum number -1"),
        (lambda m: setattr(m.order, "side", 0), r"OrderEvent\.side is None: it has to be one of BUY, SELL"),
        (lambda m: setattr(m.order, "quantity", ""), "OrderEvent.quantity is '': that is not a decimal number"),
        (lambda m: setattr(m.order, "quantity", "1e1000000"), "more than 64 digits"),
        (lambda m: setattr(m.order, "quantity", "1e-1000000"), "more than 64 digits"),
        (lambda m: setattr(m.order, "quantity", "9" * 100_000), "too long"),
        (lambda m: setattr(m.order, "quantity", "0." + "0" * 60 + "1" * 150), "more than 64 digits"),
        (lambda m: setattr(m.order, "quantity", "NaN"), "finite"),
        (lambda m: setattr(m.order, "symbol", "a.b"), "token"),
        (lambda m: setattr(m.order, "order_id", ""), r"OrderEvent\.order_id is empty"),
        (lambda m: setattr(m, "type", "order.lost"), "not in the catalogue"),
        (lambda m: setattr(m, "type", "market.snapshot"), "has a payload of type OrderEvent"),
        (lambda m: setattr(m, "source", ""), "has no source"),
        (lambda m: setattr(m, "timestamp_ns", 0), "has no timestamp"),
        (lambda m: setattr(m, "timestamp_ns", -5), "whole number"),
        (lambda m: setattr(m, "correlation_id", "x" * 129), "correlation_id"),
        (
            lambda m: m.market.CopyFrom(event_pb2.Event.FromString(to_wire(market())).market),
            "payload of type MarketEvent",
        ),
    ],
)
def test_a_wrong_message_is_refused_with_a_sentence(change: Any, says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        from_wire(changed(order(), change))


def test_a_payload_of_a_newer_version_is_refused() -> None:
    message = event_pb2.Event.FromString(to_wire(order()))
    message.ClearField("order")
    newer = message.SerializeToString() + bytes([(99 << 3 | 2) & 0x7F | 0x80, (99 << 3 | 2) >> 7, 0])
    with pytest.raises(InvalidEvent, match="no payload that this version knows"):
        from_wire(newer)


def test_a_field_of_a_newer_version_is_left_out() -> None:
    newer = to_wire(order()) + bytes([(200 << 3) & 0x7F | 0x80, (200 << 3) >> 7, 1])
    assert from_wire(newer) == order()


def test_a_zero_with_a_huge_exponent_stays_small_on_the_wire() -> None:
    zero = from_wire(changed(order(), lambda m: setattr(m.order, "quantity", "0e999999")))
    assert len(to_wire(zero)) < 500


def test_money_is_a_decimal_string_without_exponent() -> None:
    message = event_pb2.Event.FromString(to_wire(fill(Decimal("1E+3"), Decimal("0.00000001"))))
    assert (message.order.last_px, message.order.last_qty) == ("1000", "0.00000001")


def test_the_definitions_say_required_only_where_a_default_would_lie() -> None:
    required = {kind.__name__: [s.name for s in shapes if s.required] for kind, shapes in payloads.SHAPES.items()}
    assert required["OrderEvent"] == ["order_id", "symbol", "side", "quantity", "status"]
    assert required["MarketEvent"] == ["symbol", "price"]


def test_the_options_travel_with_the_compiled_definitions() -> None:
    proto = descriptor_pb2.FileDescriptorProto()
    order_pb2.DESCRIPTOR.CopyToProto(proto)
    assert "botplatform/options/v1/options.proto" in proto.dependency

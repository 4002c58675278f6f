from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import (
    CATALOGUE,
    ActionType,
    MarketEvent,
    OrderBook,
    OrderEvent,
    OrderStatus,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    from_wire,
    to_wire,
)
from botplatform.core.json_form import from_json, parse, to_dict, to_json
from botplatform.errors import InvalidEvent
from botplatform.testing import decision, fill, intent, market, order, signal
from botplatform.testing.generators import events

ENVELOPE = {"source": "me", "timestamp": 1700000000.5}


def read(event_type: str, payload: Any, **more: Any) -> Any:
    return from_json(json.dumps({"type": event_type, "payload": payload, **ENVELOPE, **more}))


ONE_TYPE_PER_PAYLOAD = sorted({kind: event_type for event_type, kind in CATALOGUE.items()}.values())


@pytest.mark.parametrize("event_type", ONE_TYPE_PER_PAYLOAD)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_event_survives_json_and_the_wire(event_type: str, data: st.DataObject) -> None:
    event = data.draw(events(event_type))
    text = to_json(event)
    assert from_json(text) == event
    assert from_json(to_dict(event)) == event
    assert from_wire(to_wire(event)) == event
    assert to_json(from_wire(to_wire(event))) == text
    assert to_wire(from_json(text)) == to_wire(event)


def test_the_five_names_of_the_contract_are_at_the_top() -> None:
    given_event = order(correlation_id="chain-1")
    form = json.loads(to_json(given_event))
    assert form["type"] == "order.submitted"
    assert form["timestamp"] == given_event.timestamp
    assert form["source"] == "execution"
    assert form["payload"]["quantity"] == "1"
    assert form["correlation_id"] == "chain-1"
    assert form["timestamp_ns"] == str(given_event.timestamp_ns)


def test_nested_times_are_seconds_for_people_and_exact_strings() -> None:
    form = to_dict(market(timestamp_ns=1700000000123456789))["payload"]
    assert form["timestamp"] == pytest.approx(1700000000.1234567)
    assert form["timestamp_ns"] == "1700000000123456789"


def test_defaults_are_left_out_but_required_fields_never() -> None:
    form = to_dict(market("BTCUSDT", 0.0, timestamp_ns=0))["payload"]
    assert form == {"symbol": "BTCUSDT", "price": 0.0}


def test_nanoseconds_win_over_seconds() -> None:
    event = read("market.snapshot", {"symbol": "A", "price": 1}, timestamp_ns="1700000000000000007", timestamp=5)
    assert event.timestamp_ns == 1700000000000000007


def test_seconds_are_read_exactly_as_they_are_written() -> None:
    event = from_json(
        '{"type":"market.snapshot","source":"x","timestamp":1700000000.123456789,"payload":{"symbol":"A","price":1}}'
    )
    assert event.timestamp_ns == 1700000000123456789


def test_a_number_for_money_is_read_exactly() -> None:
    text = '{"type":"strategy.decision","source":"x","timestamp":1.5,"payload":{"strategy":"s","symbol":"A",'
    text += '"actions":[{"type":"open","side":"long","size":0.12345678901234567890123}]}}'
    event = from_json(text)
    assert isinstance(event.payload, StrategyEvent)
    assert event.payload.actions[0].size == Decimal("0.12345678901234567890123")


@pytest.mark.parametrize("size", ["0.1", 0.1, 1, Decimal("0.1")])
def test_money_in_a_dict_may_be_a_number(size: Any) -> None:
    form = to_dict(decision())
    form["payload"]["actions"][0]["size"] = size
    event = from_json(form)
    assert isinstance(event.payload, StrategyEvent)
    assert event.payload.actions[0].size == Decimal(str(size))


def test_the_order_book_is_levels_of_price_and_size() -> None:
    event = market(orderbook=OrderBook((10.0, 9.0), (1.0, 2.0), (11.0,), (3.0,)))
    assert to_dict(event)["payload"]["orderbook"] == {"bids": [[10.0, 1.0], [9.0, 2.0]], "asks": [[11.0, 3.0]]}


@pytest.mark.parametrize(
    "book",
    [
        {"bids": [[10, 1], [9, 2]], "asks": [[11, 3]]},
        {"bid_prices": [10, 9], "bid_sizes": [1, 2], "ask_prices": [11], "ask_sizes": [3]},
        {"bids": [{"price": 10, "size": 1}, {"size": 2, "price": 9}], "asks": [{"price": 11, "size": 3}]},
        {"bids": [[10, 1], [9, 2]], "ask_prices": [11], "ask_sizes": [3]},
    ],
)
def test_an_order_book_is_read_as_levels_or_packed(book: dict[str, Any]) -> None:
    event = read("market.snapshot", {"symbol": "A", "price": 1, "orderbook": book})
    assert event.payload.orderbook == OrderBook((10.0, 9.0), (1.0, 2.0), (11.0,), (3.0,))


def test_enums_are_read_in_any_case() -> None:
    event = read("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [
        {"type": "OPEN", "side": "Long", "size": "1", "order_type": "limit", "limit_price": "5"}]})  # fmt: skip
    assert event.payload.actions[0].type is ActionType.OPEN
    assert event.payload.actions[0].order_type == "LIMIT"


def test_order_canceled_is_another_spelling() -> None:
    payload = {"order_id": "o", "symbol": "A", "side": "buy", "quantity": "1", "status": "cancelled"}
    event = read("order.canceled", payload)
    assert event.type == "order.cancelled"
    assert event.payload.status is OrderStatus.CANCELLED


def test_strategy_name_and_action_intents_are_other_spellings() -> None:
    payload = {"strategy_name": "s", "symbol": "A", "action_intents": [{"type": "close", "side": "short", "size": 2}]}
    event = read("strategy.decision", payload)
    assert event.payload == StrategyEvent("s", "A", (intent("close", "short", 2),))


@pytest.mark.parametrize("name", ["market_snapshot", "snapshot"])
def test_a_market_snapshot_may_stand_under_the_users_names(name: str) -> None:
    fields = {"symbol": "A", "price": 1.5}
    at_the_top = from_json({"type": "market.snapshot", **ENVELOPE, name: fields})
    inside = read("market.snapshot", {name: fields})
    beside = read("market.snapshot", {"symbol": "A", name: fields})
    assert at_the_top.payload == inside.payload == beside.payload == MarketEvent("A", 1.5)


@pytest.mark.parametrize("name", ["signal_snapshot", "snapshot"])
def test_signal_values_may_stand_under_the_users_names(name: str) -> None:
    wanted = SignalEvent("A", "default", {"rsi": 50.0})
    fields = {"symbol": "A", "signal_name": "default", "values": {"rsi": 50}}
    assert from_json({"type": "signal.snapshot", **ENVELOPE, name: fields}).payload == wanted
    assert read("signal.snapshot", {name: fields}).payload == wanted
    values_only = {"symbol": "A", "signal_name": "default", name: {"rsi": 50}}
    assert read("signal.snapshot", values_only).payload == wanted


def test_a_state_may_stand_under_snapshot() -> None:
    fields = {"positions": {"A": {"long": {"symbol": "A", "position_side": "LONG", "quantity": "1.50"}}}}
    event = read("state.snapshot", {"snapshot": fields})
    assert isinstance(event.payload, StateEvent)
    long = event.payload.positions["A"].long
    assert long is not None
    assert long.quantity == Decimal("1.5")


def test_null_is_absent() -> None:
    event = read("market.snapshot", {"symbol": "A", "price": 1, "orderbook": None, "venue": None}, correlation_id=None)
    assert (event.correlation_id, event.payload.venue) == ("", "")


GOOD_ACTION = {"type": "open", "side": "long", "size": "1"}
MARKET = {"symbol": "A", "price": 1}


@pytest.mark.parametrize(
    ("event_type", "payload", "more", "says"),
    [
        ("market.snapshot", MARKET | {"prise": 1}, {}, r"payload\.prise is not a field of MarketEvent \(did you mean 'price'"),
        ("market.snapshot", {}, {}, r"payload lacks symbol and price: MarketEvent has to have them"),
        ("market.snapshot", MARKET | {"price": "1"}, {}, r"payload\.price is '1': it has to be a number"),
        ("market.snapshot", MARKET | {"price": True}, {}, r"payload\.price is True: it has to be a number"),
        ("market.snapshot", MARKET | {"symbol": ["A"]}, {}, r"payload\.symbol is \['A'\]: it has to be a string"),
        ("market.snapshot", MARKET | {"symbol": "A.B"}, {}, r"MarketEvent\.symbol is 'A\.B'.*subject"),
        ("market.snapshot", MARKET | {"feed_epoch": 1.5}, {}, r"payload\.feed_epoch.*whole number"),
        ("market.snapshot", MARKET | {"feed_epoch": -1}, {}, r"MarketEvent\.feed_epoch is -1"),
        ("market.snapshot", MARKET | {"timestamp_ns": "soon"}, {}, r"payload\.timestamp_ns is 'soon'"),
        ("market.snapshot", MARKET | {"timestamp": -1}, {}, r"payload\.timestamp is -1.*seconds since"),
        ("market.snapshot", MARKET | {"timestamp": "x"}, {}, r"payload\.timestamp is 'x'"),
        ("market.snapshot", MARKET | {"orderbook": []}, {}, r"payload\.orderbook is \[\]: it has to be an object"),
        ("market.snapshot", MARKET | {"orderbook": {"bids": [[1]]}}, {}, r"payload\.orderbook\.bids\[0\] is \[1\]"),
        ("market.snapshot", MARKET | {"orderbook": {"bids": {}}}, {}, r"payload\.orderbook\.bids is \{\}"),
        ("market.snapshot", MARKET | {"orderbook": {"asks": [[1, "x"]]}}, {}, r"asks\[0\]\[1\] is 'x'"),
        ("market.snapshot", MARKET | {"orderbook": {"bid_prices": [1]}}, {}, r"bids has 1 prices and 0 sizes"),
        ("market.snapshot", MARKET | {"orderbook": {"bids": [], "bid_sizes": []}}, {}, r"bids says the same as"),
        ("market.snapshot", MARKET | {"snapshot": {"price": 2}}, {}, r"snapshot\.price says something else"),
        ("market.snapshot", MARKET | {"snapshot": 7}, {}, r"payload\.snapshot is 7"),
        ("market.snapshot", MARKET, {"snapshot": MARKET}, r"snapshot says the same as payload"),
        ("market.snapshot", 5, {}, r"payload is 5: it has to be an object with the fields of MarketEvent"),
        ("market.snapshot", MARKET, {"sorce": "x"}, r"'sorce' is not a field of an event \(did you mean 'source'"),
        ("market.snapshot", MARKET, {"source": None}, r"source is missing"),
        ("market.snapshot", MARKET, {"source": 5}, r"source is 5: it has to be a string"),
        ("market.snapshot", MARKET, {"timestamp": None}, r"timestamp is missing"),
        ("market.snapshot", MARKET, {"timestamp_ns": -4}, r"timestamp_ns is -4"),
        ("market.snapshot", MARKET, {"id": "a\nb"}, r"has the id 'a\\nb'"),
        ("market.snapshot", MARKET, {"correlation_id": "x" * 129}, r"correlation_id"),
        ("market.snapshot", MARKET, {"key": "a b"}, r"Event\.key is 'a b'"),
        ("market.snapshot", MARKET, {"signal_snapshot": {}}, r"'signal_snapshot' is not a field"),
        ("signal.snapshot", {"symbol": "A", "signal_name": "s", "values": {"rsi": "x"}}, {}, r"values\['rsi'\] is 'x'"),
        ("signal.snapshot", {"symbol": "A", "signal_name": "s", "values": []}, {}, r"payload\.values is \[\]"),
        ("signal.snapshot", {"symbol": "A", "signal_name": "s", "values": {"": 1}}, {}, r"values has the name ''"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": {}}, {}, r"actions is \{\}: it has to be a list"),
        ("strategy.decision", {"strategy": "s", "strategy_name": "t"}, {}, r"strategy_name says the same as strategy"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [GOOD_ACTION, GOOD_ACTION | {"sise": 1}]}, {},
         r"payload\.actions\[1\]\.sise is not a field of ActionIntent \(did you mean 'size'"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [GOOD_ACTION | {"size": "much"}]}, {},
         r"payload\.actions\[0\]\.size is 'much': that is not a decimal number"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [GOOD_ACTION | {"size": "NaN"}]}, {}, r"finite"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [GOOD_ACTION | {"size": "1e100000"}]}, {},
         r"size is '1e100000': more than 64 digits"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [GOOD_ACTION | {"side": "up"}]}, {},
         r"payload\.actions\[0\]\.side is 'up': it has to be one of long, short"),
        ("strategy.decision", {"strategy": "s", "symbol": "A", "actions": [GOOD_ACTION | {"post_only": 1}]}, {},
         r"post_only is 1: it has to be true or false"),
        ("order.filed", {}, {}, r"type is 'order\.filed'.*did you mean 'order\.filled'"),
        ("Order", {}, {}, r"not in the catalogue"),
        (5, {}, {}, r"type is 5: it has to be a string"),
        (None, {}, {}, r"type is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(
    event_type: Any, payload: Any, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidEvent, match=says):
        read(event_type, payload, **more)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "has to be an object"),
        ('{"a":NaN}', "has NaN: numbers have to be finite"),
        ('{"a":-Infinity}', "has -Infinity"),
        ('{"a":1,"a":2}', "'a' twice"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a":1e99999999999999999999}', "out of every range"),
        ('{"a":' + "9" * 5000 + "}", "not JSON"),
        ('{"a":"' + "x" * 1_100_000 + '"}', "longer than 1048576 bytes"),
        (b'{"a":"\xff"}', "not JSON"),
        ('{"type":"order.filled"}', "payload is missing"),
    ],
)
def test_text_that_is_no_event_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        from_json(text)


def test_half_a_surrogate_pair_is_refused_both_ways() -> None:
    with pytest.raises(InvalidEvent, match="surrogate"):
        read("market.snapshot", MARKET | {"venue": "\ud800"})
    event = market(venue="\ud800")
    with pytest.raises(InvalidEvent, match="not valid Unicode"):
        to_json(event)
    with pytest.raises(InvalidEvent, match="not valid Unicode"):
        to_wire(event)


def test_a_long_wrong_value_makes_a_short_message() -> None:
    with pytest.raises(InvalidEvent) as refused:
        read("market.snapshot", MARKET | {"price": "x" * 100_000})
    assert len(str(refused.value)) < 300


@given(text=st.text() | st.binary())
@settings(deadline=None)
def test_garbage_is_refused_and_nothing_else_is_raised(text: str | bytes) -> None:
    with pytest.raises(InvalidEvent):
        from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(original=events(), data=st.data())
@settings(deadline=None, max_examples=300)
def test_an_event_with_one_field_changed_to_anything_is_read_or_refused(original: Any, data: st.DataObject) -> None:
    form = to_dict(original)
    inside = data.draw(st.booleans())
    target = form["payload"] if inside and form["payload"] else form
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    try:
        event = from_json(form)
    except InvalidEvent:
        return
    assert from_json(to_json(event)) == event


def test_to_dict_is_what_json_says() -> None:
    for event in (market(), signal(), decision(), order(), fill()):
        assert msgspec.json.decode(to_json(event)) == to_dict(event)


def test_parse_keeps_fractions_exact() -> None:
    assert parse('{"size": 0.1}')["size"] == Decimal("0.1")


def test_reading_a_dict_leaves_it_alone() -> None:
    form = to_dict(market())
    before = json.dumps(form)
    from_json(form)
    assert json.dumps(form) == before


def test_an_order_event_says_its_money_as_strings() -> None:
    event = fill("100.50", "0.5", commission="0.0001")
    form = to_dict(event)["payload"]
    assert (form["last_px"], form["last_qty"], form["commission"]) == ("100.50", "0.5", "0.0001")
    again = from_json(to_json(event)).payload
    assert isinstance(again, OrderEvent)
    assert str(again.last_px) == "100.50"

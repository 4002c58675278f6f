from __future__ import annotations

import sys
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import (
    ActionIntent,
    ActionSide,
    ActionType,
    Event,
    MarketEvent,
    OrderBook,
    Position,
    PositionLeg,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    SystemEvent,
    to_wire,
)
from botplatform.errors import InvalidEvent
from botplatform.events import rules
from botplatform.testing import decision, event, intent, market, order, signal

TICK = MarketEvent("BTCUSDT", 42000.0)


def make(**changes: Any) -> Event:
    fields: dict[str, Any] = {"type": "market.snapshot", "payload": TICK, "source": "feed", "timestamp": 1.5}
    return Event(**(fields | changes))


def test_only_type_payload_source_and_a_time_are_needed() -> None:
    made = make()
    assert (made.timestamp_ns, made.created_ns, made.key) == (1_500_000_000, 1_500_000_000, "BTCUSDT")
    assert (made.correlation_id, made.causation_id) == ("", "")
    assert made.id != make().id


def test_nanoseconds_win_over_seconds() -> None:
    assert make(timestamp=5.0, timestamp_ns=1_700_000_000_123_456_789).timestamp == 1_700_000_000.1234567


def test_another_spelling_of_a_type_becomes_the_usual_one() -> None:
    payload = order("order.cancelled").payload
    assert make(type="order.canceled", payload=payload).type == "order.cancelled"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "market"}, "'market' is not of the form <domain>.<action>"),
        ({"type": "market.snapshot.x"}, "not of the form"),
        ({"type": "Market.Snapshot"}, "not of the form"),
        ({"type": "market.snapshot\n"}, "not of the form"),
        ({"type": ""}, "not of the form"),
        ({"type": None}, "not of the form"),
        ({"type": "market.tick"}, r"'market\.tick' is not in the catalogue: known are market\.snapshot"),
        ({"type": "weather.rain"}, r"not in the catalogue: known are market\.snapshot, notification"),
        ({"type": "signal.snapshot"}, "has a payload of type MarketEvent: it has to be SignalEvent"),
        ({"payload": {}}, "has a payload of type dict: it has to be MarketEvent"),
        ({"payload": None}, "has a payload of type NoneType"),
        ({"source": ""}, "has no source: name the module"),
        ({"source": None}, "has no source"),
        ({"timestamp": 0.0}, "has no timestamp: give seconds, or nanoseconds"),
        ({"timestamp": float("nan")}, r"Event\.timestamp is nan: it has to be finite"),
        ({"timestamp": float("inf")}, "finite"),
        ({"timestamp": -1.0}, "seconds since the UNIX epoch, not before it"),
        ({"timestamp": "now"}, r"Event\.timestamp is 'now': it has to be a number"),
        ({"timestamp": 1e300}, "seconds since the UNIX epoch"),
        ({"timestamp_ns": 1.5}, r"Event\.timestamp_ns is 1\.5: it has to be a whole number"),
        ({"timestamp_ns": -1}, "whole number"),
        ({"timestamp_ns": 2**63}, "whole number"),
        ({"created_ns": 2**63}, r"Event\.created_ns is 9223372036854775808"),
        ({"created_ns": -1}, r"Event\.created_ns is -1"),
        ({"correlation_id": "x" * 129}, "up to 128 characters"),
        ({"correlation_id": 5}, "correlation_id 5: it has to be a string"),
        ({"causation_id": "x" * 129}, "causation_id"),
        ({"causation_id": None}, "causation_id None"),
        ({"id": "a\r\nNats-TTL: 1s"}, "printable ASCII characters, because it travels in a header"),
        ({"id": "é"}, "printable ASCII"),
        ({"id": "x" * 129}, "up to 128"),
        ({"id": 5}, "the id 5"),
        ({"key": "a.b"}, r"Event\.key is 'a\.b'.*token of a NATS subject"),
        ({"key": "a b"}, r"Event\.key"),
        ({"key": 5}, r"Event\.key is 5"),
        ({"key": ["a"]}, r"Event\.key is \['a'\]"),
    ],
)
def test_a_wrong_event_is_refused_with_a_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        make(**changes)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: MarketEvent("BTC USDT", 1.0), r"MarketEvent\.symbol is 'BTC USDT'.*token of a NATS subject"),
        (lambda: MarketEvent("BTC.USDT", 1.0), "token"),
        (lambda: MarketEvent("BTC*", 1.0), "token"),
        (lambda: MarketEvent("BTC>", 1.0), "token"),
        (lambda: MarketEvent("", 1.0), "token"),
        (lambda: MarketEvent("ÄPFEL", 1.0), "token"),
        (lambda: MarketEvent("X" * 65, 1.0), "token"),
        (lambda: MarketEvent(["A"], 1.0), "token"),  # type: ignore[arg-type]
        (lambda: MarketEvent("A", float("nan")), r"MarketEvent\.price is nan: it has to be finite"),
        (lambda: MarketEvent("A", float("inf")), "finite"),
        (lambda: MarketEvent("A", 10**400), "finite"),
        (lambda: MarketEvent("A", 10**5000), "finite"),
        (lambda: MarketEvent("A", "1"), "has to be a number"),  # type: ignore[arg-type]
        (lambda: MarketEvent("A", True), "has to be a number"),
        (lambda: MarketEvent("A", 1.0, mark_price=float("-inf")), r"mark_price is -inf"),
        (lambda: MarketEvent("A", 1.0, volume=float("nan")), r"volume is nan"),
        (lambda: MarketEvent("A", 1.0, timestamp_ns=-5), r"timestamp_ns is -5"),
        (lambda: MarketEvent("A", 1.0, feed_epoch=-1), r"feed_epoch is -1.*from 0 to 18446744073709551615"),
        (lambda: MarketEvent("A", 1.0, feed_epoch=True), "feed_epoch is True"),
        (lambda: MarketEvent("A", 1.0, orderbook={}), "has to be of type OrderBook"),  # type: ignore[arg-type]
        (lambda: MarketEvent("A", 1.0, venue=None), "venue is None: it has to be a string"),  # type: ignore[arg-type]
        (lambda: OrderBook((1.0,), ()), "bids has 1 prices and 0 sizes"),
        (lambda: OrderBook((), (), (1.0,), (1.0, 2.0)), "asks has 1 prices and 2 sizes"),
        (lambda: OrderBook((float("nan"),), (1.0,)), r"bid_prices\[0\] is nan"),
        (lambda: OrderBook("12", "34"), "has to be a sequence of numbers"),  # type: ignore[arg-type]
        (lambda: SignalEvent("A", "", {}), r"SignalEvent\.signal_name is empty: it has to be given"),
        (lambda: SignalEvent("A", "s", {"rsi": float("nan")}), r"values\['rsi'\] is nan"),
        (lambda: SignalEvent("A", "s", {1: 1.0}), "has the name 1"),  # type: ignore[dict-item]
        (lambda: SignalEvent("A", "s", {"": 1.0}), "has the name ''"),
        (lambda: SignalEvent("A", "s", [1.0]), "has to map names"),  # type: ignore[arg-type]
        (lambda: intent(size=0.1), "is the float 0.1: money is a Decimal or a decimal string, never a float"),  # type: ignore[arg-type]
        (lambda: intent(size="x"), "that is not a decimal number"),
        (lambda: intent(size="NaN"), "finite"),
        (lambda: intent(size=Decimal("Infinity")), "finite"),
        (lambda: intent(size=Decimal("sNaN")), "finite"),
        (lambda: intent(size=Decimal("1e65")), "more than 64 digits"),
        (lambda: intent(size=Decimal("1e-65")), "more than 64 digits"),
        (lambda: intent(size=Decimal("1e999999")), "more than 64 digits"),
        (lambda: intent(size="1" * 1000), "too long"),
        (lambda: intent(size=True), "is the bool True"),
        (lambda: intent(size=None), "has to be a Decimal"),  # type: ignore[arg-type]
        (lambda: intent("buy"), "'buy': it has to be one of open, close, cancel"),
        (lambda: intent(side=7), "7: it has to be one of long, short"),  # type: ignore[arg-type]
        (lambda: intent(post_only=1), "has to be true or false"),
        (lambda: StrategyEvent("s", "A", ({},)), r"actions\[0\] is \{\}: it has to be of type ActionIntent"),  # type: ignore[arg-type]
        (lambda: StrategyEvent("s", "A", "xy"), "has to be a sequence of ActionIntent"),  # type: ignore[arg-type]
        (lambda: StateEvent(positions={"A": {}}), r"positions\['A'\] is \{\}"),  # type: ignore[dict-item]
        (lambda: StateEvent(positions=[]), "has to map names"),  # type: ignore[arg-type]
        (lambda: SystemEvent(""), r"SystemEvent\.module is empty"),
        (lambda: order(price=1.5), r"OrderEvent\.price is the float 1\.5"),
    ],
)  # fmt: skip
def test_a_wrong_payload_is_refused_with_a_sentence(build: Any, says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        build()


def test_what_is_safe_to_convert_is_converted() -> None:
    tick = MarketEvent("A", 5, orderbook=OrderBook([1], [2.0]))  # type: ignore[arg-type]
    assert (type(tick.price), tick.orderbook) == (float, OrderBook((1.0,), (2.0,)))
    action = ActionIntent("OPEN", "Short", "0.50")  # type: ignore[arg-type]
    assert (action.type, action.side, str(action.size)) == (ActionType.OPEN, ActionSide.SHORT, "0.50")


class Reason(StrEnum):
    STALE = "STALE"


def test_a_member_of_an_enum_may_be_a_text() -> None:
    made = SystemEvent("m", code=Reason.STALE)
    assert (type(made.code), made.code) == (str, "STALE")


def test_a_zero_with_a_huge_exponent_is_a_plain_zero() -> None:
    assert str(intent(size=Decimal("0e-999999")).size) == "0"
    assert str(PositionLeg(quantity=Decimal("0e999999")).quantity) == "0"


def test_a_source_that_is_no_token_still_makes_a_key() -> None:
    alert = SystemEvent("m", symbol="a b")
    assert make(type="system.error", payload=SystemEvent("m"), source="my.module > 1").key == "my_module___1"
    assert make(type="system.error", payload=alert).key == "a_b"


NESTED = event(
    "state.updated",
    StateEvent(positions={"A": Position(long=PositionLeg("A"))}, legs=(PositionLeg("A"),)),
)


@pytest.mark.parametrize(
    "frozen",
    [
        market(),
        market().payload,
        OrderBook((1.0,), (1.0,)),
        decision(),
        intent(),
        NESTED,
        NESTED.payload,
        NESTED.payload.legs[0],  # type: ignore[union-attr]
        NESTED.payload.positions["A"],  # type: ignore[union-attr]
        NESTED.payload.positions["A"].long,  # type: ignore[union-attr]
    ],
    ids=lambda item: type(item).__name__,
)
def test_nothing_in_an_event_can_be_changed(frozen: Any) -> None:
    for name in frozen.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(frozen, name, getattr(frozen, name))
        with pytest.raises((AttributeError, TypeError)):
            delattr(frozen, name)
        if sys.version_info < (3, 13):  # which lets this way round any class through
            with pytest.raises(TypeError):
                object.__setattr__(frozen, name, None)
    with pytest.raises(AttributeError):
        frozen.something_new = 1


def test_mappings_and_sequences_in_a_payload_cannot_be_changed() -> None:
    given = {"rsi": 50.0}
    levels = [1.0]
    made = signal(given).payload
    book = OrderBook(levels, levels)  # type: ignore[arg-type]
    given["rsi"] = 1.0
    levels.append(2.0)
    assert isinstance(made, SignalEvent)
    assert made.values == {"rsi": 50.0}
    assert book.bids == ((1.0, 1.0),)
    with pytest.raises(TypeError):
        made.values["rsi"] = 1.0  # type: ignore[index]
    with pytest.raises(TypeError):
        book.bid_prices[0] = 2.0  # type: ignore[index]
    for mapping in (made.values, NESTED.payload.positions, StateEvent().positions):  # type: ignore[union-attr]
        for change in ("clear", "update", "pop", "setdefault", "__setitem__", "__delitem__"):
            assert not hasattr(mapping, change)


def test_a_map_is_walked_through_in_the_same_order_everywhere() -> None:
    one, other = signal({"b": 1.0, "a": 2.0}), signal({"a": 2.0, "b": 1.0})
    assert list(one.payload.values) == list(other.payload.values) == ["a", "b"]  # type: ignore[union-attr]
    assert to_wire(one) == to_wire(other)


def test_events_are_equal_by_value() -> None:
    assert market() == market()
    assert market() != market(price=1.0)


@given(symbol=st.text(max_size=70))
def test_a_symbol_is_accepted_exactly_when_it_can_be_a_subject_token(symbol: str) -> None:
    right = 0 < len(symbol) <= 64 and all("!" <= letter <= "~" and letter not in ".*>" for letter in symbol)
    if right:
        assert MarketEvent(symbol, 1.0).symbol == symbol
    else:
        with pytest.raises(InvalidEvent):
            MarketEvent(symbol, 1.0)


@given(text=st.text())
def test_any_text_can_be_made_a_token(text: str) -> None:
    if text:
        assert MarketEvent(rules.as_token(text), 1.0).symbol


def test_the_known_tokens_are_bounded() -> None:
    for number in range(10_000):
        MarketEvent(f"S{number}", 1.0)
    assert len(rules.KNOWN_TOKENS) <= 4_096

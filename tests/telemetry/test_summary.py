"""Each type of event in one line."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from botplatform.core.events import (
    CATALOGUE,
    ActionIntent,
    ActionSide,
    ActionType,
    Event,
    MarketEvent,
    NotificationEvent,
    OrderBook,
    OrderEvent,
    OrderStatus,
    OrderType,
    Payload,
    Position,
    PositionLeg,
    PositionSide,
    Priority,
    Side,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    StrategyState,
    SystemEvent,
    TradingEvent,
    TradingState,
)
from botplatform.core.order_rules import STATUS_OF
from botplatform.telemetry.summary import amount, cents, summarise

D = Decimal


def line(event_type: str, payload: Payload) -> str:
    if isinstance(payload, OrderEvent):
        payload = replace(payload, status=STATUS_OF[event_type])
    return summarise(Event(event_type, payload, source="test", timestamp_ns=1))


def order(**fields: object) -> OrderEvent:
    given = {"quantity": D("0.01"), "status": OrderStatus.FILLED, "strategy": "ema_cross", **fields}
    return OrderEvent("o1", "BTCUSDT", Side.BUY, **given)  # type: ignore[arg-type]


CASES: list[tuple[str, Payload, str]] = [
    ("market.snapshot", MarketEvent("BTCUSDT", 42000.5, volume=1.5), "BTCUSDT 42000.5 volume 1.5"),
    (
        "market.snapshot",
        MarketEvent("XRPETH", 0.0000012, orderbook=OrderBook((1.0,), (2.0,), (1.5,), (2.0,))),
        "XRPETH 0.0000012 bid 1 ask 1.5",
    ),
    ("signal.snapshot", SignalEvent("BTCUSDT", "default", {"rsi": 55.123456789}), "BTCUSDT default: rsi=55.1235"),
    ("signal.snapshot", SignalEvent("BTCUSDT", "default"), "BTCUSDT default: warming up"),
    (
        "strategy.decision",
        StrategyEvent(
            "hedge",
            "BTCUSDT",
            (
                ActionIntent(ActionType.OPEN, ActionSide.LONG, D("0.010"), limit_price=D("42000.50")),
                ActionIntent(ActionType.CANCEL, ActionSide.SHORT, D(1)),
            ),
            "cross\nup",
        ),
        "BTCUSDT open long 0.01 @ 42000.5, cancel all short (hedge): cross up",
    ),
    (
        "order.filled",
        order(last_qty=D("0.01"), last_px=D("42000.50"), price=D(42001)),
        "BTCUSDT BUY 0.01 @ 42000.5 (ema_cross)",
    ),
    ("order.submitted", order(order_type=OrderType.MARKET, price=D(42001)), "BTCUSDT BUY 0.01 (ema_cross)"),
    ("order.submitted", order(order_type=OrderType.LIMIT, price=D(42001)), "BTCUSDT BUY 0.01 @ 42001 (ema_cross)"),
    (
        "order.rejected",
        order(reason_code="MARGIN", reason_text="not enough"),
        "BTCUSDT BUY 0.01 (ema_cross): MARGIN: not enough",
    ),
    (
        "state.updated",
        StateEvent(
            timestamp_ns=1,
            positions={
                "BTCUSDT": Position(long=PositionLeg(quantity=D(2), avg_px_open=D("10.0"))),
                "ETHUSDT": Position(),
            },
            equity=D("99.50"),
            drawdown=D("0.0512345"),
        ),
        "BTCUSDT long 2 @ 10, ETHUSDT flat, equity 99.5, drawdown 5.12 %",
    ),
    (
        "state.updated",
        StateEvent(
            timestamp_ns=1,
            strategies={
                "hedge": StrategyState(
                    legs=(PositionLeg("BTCUSDT", PositionSide.SHORT, quantity=D(1), avg_px_open=D(5)),)
                ),
                "mine": StrategyState(stopped_reason="it raised"),
            },
        ),
        "hedge BTCUSDT short 1 @ 5, mine stopped: it raised",
    ),
    ("system.heartbeat", SystemEvent("signals", uptime_s=3.2, events_in=9), "signals up 3 s, 9 in, 0 out, lag 0"),
    ("system.error", SystemEvent("signals", "it broke", code="X", symbol="BTCUSDT"), "signals BTCUSDT X: it broke"),
    (
        "notification.alert",
        NotificationEvent("look", Priority.HIGH, suppressed=3),
        "[high] look (and 3 held back)",
    ),
    ("trading.halted", TradingEvent(TradingState.HALTED, "too fast", "anna"), "HALTED by anna: too fast"),
]


@pytest.mark.parametrize(("event_type", "payload", "expected"), CASES)
def test_says_what_happened_in_one_line(event_type: str, payload: Payload, expected: str) -> None:
    assert line(event_type, payload) == f"{event_type} {expected}"


def test_every_payload_class_has_a_line() -> None:
    assert {type(payload) for _, payload, _ in CASES} == set(CATALOGUE.values())


def test_long_free_text_is_cut() -> None:
    assert len(line("system.error", SystemEvent("m", "x" * 10_000))) < 400


def test_many_positions_are_counted_and_not_listed() -> None:
    positions = {f"S{number:02}": Position() for number in range(20)}
    assert line("state.updated", StateEvent(timestamp_ns=1, positions=positions)).endswith("S07 flat and 12 more")


@given(st.text(min_size=1))
def test_a_message_never_breaks_the_line_or_the_terminal(text: str) -> None:
    assert line("system.warning", SystemEvent("m", text)).isprintable()
    assert line("order.denied", order(reason_code=text)).isprintable()


def test_colours_cannot_be_smuggled_in() -> None:
    assert line("system.error", SystemEvent("a\nb", "\x1b[31mred")) == "system.error a b: \ufffd[31mred"


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
def test_an_amount_keeps_its_value_and_has_no_exponent(value: Decimal) -> None:
    assert D(amount(value)) == value
    assert "E" not in amount(value)


def test_cents_are_rounded_however_large_the_number_is() -> None:
    assert (cents(D("1.005")), cents(D("2.50")), cents(D("-0.001"))) == ("1", "2.5", "0")
    assert cents(D("1e60")) == "1" + "0" * 60

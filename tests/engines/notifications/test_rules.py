"""The rules by themselves: levels with play, and what an alert says."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import (
    CATALOGUE,
    OrderEvent,
    OrderStatus,
    Position,
    PositionLeg,
    PositionSide,
    Priority,
    Severity,
    Side,
    StateEvent,
    SystemEvent,
    TradingEvent,
    TradingState,
)
from botplatform.engines.notifications import rules

D = Decimal


def order(**fields: object) -> OrderEvent:
    given = {"quantity": D("0.5"), "status": OrderStatus.FILLED, "strategy": "hedge", "venue": "paper", **fields}
    return OrderEvent("o1", "BTCUSDT", Side.BUY, **given)  # type: ignore[arg-type]


def holding(quantity: str, avg: str = "100", unrealized: str = "0", side: str = "long") -> StateEvent:
    leg = PositionLeg(quantity=D(quantity), avg_px_open=D(avg), unrealized_pnl=D(unrealized))
    return StateEvent(timestamp_ns=1, positions={"BTCUSDT": Position(**{side: leg})})


def test_a_fill_says_what_at_which_price_and_for_whom() -> None:
    payload = order(
        position_side=PositionSide.LONG, trade_id="t", last_qty=D("0.20"), last_px=D("42000.50"), filled_qty=D("0.2")
    )
    alert = rules.order("order.partial", payload, fills=True)
    assert alert is not None
    assert alert.text == "BTCUSDT: BUY 0.2 filled at 42000.5 (hedge, long leg, 0.2 of 0.5 done)"
    assert (alert.rule, alert.priority, alert.symbol) == ("fill", Priority.LOW, "BTCUSDT")
    assert rules.order("order.partial", payload, fills=False) is None


@pytest.mark.parametrize(
    ("event_type", "rule", "priority"),
    [
        ("order.rejected", "rejection", Priority.HIGH),
        ("order.denied", "denial", Priority.NORMAL),
        ("order.unknown", "unknown_order", Priority.CRITICAL),
    ],
)
def test_what_did_not_work_says_why(event_type: str, rule: str, priority: Priority) -> None:
    alert = rules.order(event_type, order(reason_code="MARGIN", reason_text="too little", price=D(9)), fills=True)
    assert alert is not None
    assert (alert.rule, alert.priority) == (rule, priority)
    assert alert.text.startswith("BTCUSDT: the order to BUY 0.5 at 9 (hedge) was ")
    assert alert.text.endswith(": MARGIN: too little")


@pytest.mark.parametrize("event_type", ["order.submitted", "order.accepted", "order.cancelled", "order.expired"])
def test_the_usual_life_of_an_order_is_no_news(event_type: str) -> None:
    assert event_type in CATALOGUE
    assert rules.order(event_type, order(), fills=True) is None


@pytest.mark.parametrize(
    ("event_type", "severity", "rule", "priority"),
    [
        ("system.error", None, "error", Priority.HIGH),
        ("system.error", Severity.CRITICAL, "error", Priority.CRITICAL),
        ("system.warning", None, "warning", Priority.NORMAL),
        ("system.warning", Severity.ERROR, "warning", Priority.HIGH),
        ("system.warning", Severity.INFO, "warning", Priority.LOW),
    ],
)
def test_errors_are_as_urgent_as_they_say(
    event_type: str, severity: Severity | None, rule: str, priority: Priority
) -> None:
    alert = rules.system(event_type, SystemEvent("signals", "it broke", severity, "X", symbol="BTCUSDT"))
    assert alert is not None
    assert (alert.rule, alert.priority, alert.scope) == (rule, priority, "BTCUSDT")
    assert alert.text == f"{rule} in signals BTCUSDT X: it broke"


@pytest.mark.parametrize("module", ["alert_sender", "notifications"])
def test_a_failing_channel_raises_no_alert_about_itself(module: str) -> None:
    assert rules.system("system.error", SystemEvent(module, "the channel is down")) is None


@pytest.mark.parametrize(
    ("event_type", "state", "priority"),
    [
        ("trading.halted", TradingState.HALTED, Priority.CRITICAL),
        ("trading.reducing", TradingState.REDUCING, Priority.HIGH),
        ("trading.resumed", TradingState.ACTIVE, Priority.NORMAL),
    ],
)
def test_the_trading_state_is_always_news(event_type: str, state: TradingState, priority: Priority) -> None:
    alert = rules.trading(event_type, TradingEvent(state, "too fast", "anna"), "e1")
    assert alert.priority is priority
    assert alert.text.endswith("by anna: too fast")


def test_a_leg_is_worth_its_mark_price_on_both_sides() -> None:
    leg = PositionLeg(quantity=D(2), avg_px_open=D(100), unrealized_pnl=D(30))
    assert rules.value_of(leg, PositionSide.LONG) == D(230)
    assert rules.value_of(leg, PositionSide.SHORT) == D(170)


@pytest.mark.parametrize("side", ["long", "short"])
def test_a_large_leg_alerts_when_it_passes_the_limit_and_each_multiple(side: str) -> None:
    levels: dict[str, int] = {}

    def alerts(quantity: str) -> list[str]:
        return [alert.text for alert in rules.large_positions(holding(quantity, side=side), D(1000), levels)]

    assert alerts("10") == []
    assert alerts("10.01") == [f"BTCUSDT: the {side} leg is worth 1001, more than 1000 (10.01 at an average of 100)"]
    assert alerts("15") == []
    assert len(alerts("20.5")) == 1
    assert alerts("19") == []  # the play: still counts as above twice the limit
    assert alerts("20.5") == []
    assert alerts("0") == []
    assert levels == {}
    assert len(alerts("11")) == 1


def test_a_limit_of_zero_turns_a_rule_off() -> None:
    assert list(rules.large_positions(holding("1000000"), D(0), {})) == []
    assert rules.drawdown(StateEvent(timestamp_ns=1, drawdown=D("0.9")), D(0), {}) is None


def test_a_drawdown_alerts_once_while_it_hovers_at_the_limit() -> None:
    levels: dict[str, int] = {}

    def alert(drawdown: str) -> bool:
        state = StateEvent(timestamp_ns=1, drawdown=D(drawdown), equity=D("94.999"))
        return rules.drawdown(state, D("0.05"), levels) is not None

    values = ["0.05", "0.0501", "0.0499", "0.0502", "0.046", "0.051", "0.044", "0.051", "0.101"]
    assert [alert(value) for value in values] == [False, True, False, False, False, False, False, True, True]


def test_a_drawdown_says_how_far_and_what_is_left() -> None:
    found = rules.drawdown(StateEvent(timestamp_ns=1, drawdown=D("0.0512"), equity=D("94.88")), D("0.05"), {})
    assert found is not None
    assert found.text == "the drawdown is 5.12 %, more than 5 %; equity is 94.88"


@given(
    st.integers(0, 10),
    st.decimals(D(0), D("1e60"), allow_nan=False),
    st.decimals(D("0.0001"), D("1e60"), allow_nan=False),
)
def test_a_level_is_never_below_zero_never_fails_and_is_settled_by_one_step(
    before: int, value: Decimal, limit: Decimal
) -> None:
    level = rules.step_level(before, value, limit)
    assert level >= 0
    assert rules.step_level(level, value, limit) == level


@given(st.decimals(D("-1e60"), D("1e60"), places=30), st.decimals(D(0), D("1e60"), places=30))
def test_no_amount_of_money_breaks_the_rules(amount: Decimal, quantity: Decimal) -> None:
    state = StateEvent(
        timestamp_ns=1,
        positions={"X": Position(long=PositionLeg(quantity=quantity, avg_px_open=quantity, unrealized_pnl=amount))},
        drawdown=quantity,
        equity=amount,
    )
    for alert in rules.large_positions(state, D("0.01"), {}):
        assert alert.text
    rules.drawdown(state, D("0.05"), {})

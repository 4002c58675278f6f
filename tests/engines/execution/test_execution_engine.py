"""The execution engine: one order per action, checked, rounded, never twice, and in its decision's chain."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from benches.execution_engine import engine, holding, only, orders_of, report, trading
from botplatform.core.engine import CancelOrder, Emit, Engine, EngineHost, SubmitOrder
from botplatform.core.events import OrderStatus, OrderType, PositionSide, ReasonBy, Side, TradingState
from botplatform.engines.execution.engine import KEEP_DECISIONS
from botplatform.errors import StateError
from botplatform.testing import decision, intent
from botplatform.trading.orders import client_order_id
from botplatform.trading.reasons import Reason


def test_it_is_an_engine() -> None:
    assert isinstance(engine(), Engine)


def test_rule_4_the_intent_carries_the_effect_and_nothing_else_sends_an_order() -> None:
    (output,) = engine().handle(decision())
    assert isinstance(output, Emit)
    assert output.type == "order.submitted"
    assert output.effect == SubmitOrder(output.payload)  # type: ignore[arg-type]
    assert output.cause is None


def test_an_order_is_made_of_an_action() -> None:
    made = only(engine().handle(decision(intent("open", "short", "1.239"), id="d", strategy="s")))
    assert made.order_id == made.client_order_id == client_order_id("d", 0)
    assert (made.side, made.position_side, made.reduce_only) == (Side.SELL, PositionSide.SHORT, False)
    assert (str(made.quantity), made.leaves_qty, made.order_type) == ("1.23", made.quantity, OrderType.MARKET)
    assert (made.price, made.strategy, made.decision_id, made.action_index) == (Decimal(100), "s", "d", 0)
    assert (made.venue, made.account_id, made.status) == ("paper", "paper", OrderStatus.SUBMITTED)


@pytest.mark.parametrize(("side", "rounded"), [("long", "99.0"), ("short", "99.5")])
def test_rule_27_limit_and_size_are_rounded_by_the_instrument(side: str, rounded: str) -> None:
    action = intent("open", side, "1.239", limit_price=Decimal("99.3"))
    made = only(engine().handle(decision(action)))
    assert (made.order_type, str(made.price), str(made.quantity)) == (OrderType.LIMIT, rounded, "1.23")


def test_rule_5_a_decision_that_is_delivered_again_makes_nothing() -> None:
    made = engine()
    decided = decision(intent("open"), intent("open", "short"), id="d")
    assert len(made.handle(decided)) == 2
    assert made.handle(decided) == ()
    restored = engine(None)
    restored.restore(made.snapshot())
    assert restored.handle(decided) == ()


def test_rule_5_an_order_that_is_known_is_not_made_again_even_when_its_decision_was_forgotten() -> None:
    made = engine()
    decided = decision(id="d")
    first = only(made.handle(decided))
    for n in range(KEEP_DECISIONS):
        made.handle(decision(intent("cancel"), id=f"other-{n}"))
    assert made.handle(decided) == []
    assert [record.order_id for record in made.orders.open()] == [first.order_id]


def test_an_order_counts_before_it_is_back_from_the_log_and_its_echo_changes_nothing() -> None:
    made = engine()
    host = EngineHost(made)
    step = host.process(decision(intent("cancel"), intent("open"), id="d", correlation_id="chain"), 5)
    (submitted,) = step.events
    (record,) = made.orders.open()
    assert (record.submitted_id, record.correlation_id) == (submitted.id, "chain")
    before = made.snapshot()
    assert host.process(submitted, 6).events == []
    assert made.snapshot() == before


def test_order_events_belong_to_the_chain_of_their_decision() -> None:
    host = EngineHost(engine())
    decided = decision(intent("open"), intent("close", "short"), correlation_id="chain")
    submitted, denied = host.process(decided, 5).events
    assert (submitted.type, denied.type) == ("order.submitted", "order.denied")
    assert {submitted.correlation_id, denied.correlation_id} == {"chain"}
    assert {submitted.causation_id, denied.causation_id} == {decided.id}


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (intent(size=0), Reason.INVALID_SIZE),
        (intent(size=-1), Reason.INVALID_SIZE),
        (intent(size="0.019"), Reason.BELOW_MIN_QUANTITY),
        (intent(size="0.02"), Reason.BELOW_MIN_NOTIONAL),
        (intent(size=1001), Reason.MAX_ORDER_NOTIONAL),
        (intent(limit_price=Decimal(50)), Reason.PRICE_DEVIATION),
        (intent(limit_price=Decimal(0)), Reason.INVALID_PRICE),
        (intent(order_type="LIMIT"), Reason.INVALID_PRICE),
        (intent(order_type="MARKET", limit_price=Decimal(100)), Reason.INVALID_PRICE),
        (intent(time_in_force="GTD"), Reason.INVALID_TIME_IN_FORCE),
        (intent(post_only=True), Reason.INVALID_TIME_IN_FORCE),
        (intent("close"), Reason.NOTHING_TO_CLOSE),
    ],
)
def test_what_may_not_be_sent_is_denied_with_a_reason_and_without_an_effect(action: Any, reason: Reason) -> None:
    made = engine()
    (output,) = made.handle(decision(action))
    assert isinstance(output, Emit)
    denied = only([output])
    assert (output.type, output.effect) == ("order.denied", None)
    assert (denied.status, denied.reason_code, denied.reason_by) == (OrderStatus.DENIED, reason, ReasonBy.RISK)
    assert denied.reason_text
    assert denied.leaves_qty == 0
    assert made.orders.open() == []


def test_a_symbol_that_is_not_traded_or_has_no_market_is_denied() -> None:
    assert only(engine().handle(decision(symbol="DOGEUSDT"))).reason_code == Reason.UNKNOWN_SYMBOL
    assert only(engine().handle(decision(symbol="ETHUSDT"))).reason_code == Reason.NO_MARKET


def test_its_own_denials_do_not_come_back_as_orders() -> None:
    made = engine()
    host = EngineHost(made)
    (denied,) = host.process(decision(intent(size=0)), 5).events
    before = made.snapshot()
    assert made.handle(denied) == ()
    assert made.snapshot() == before


def test_rule_24_filled_and_working_and_unknown_quantities_all_count_towards_the_limit() -> None:
    made = engine(max_position_notional=Decimal(1_000))
    filled = only(made.handle(decision(intent(size=4), id="filled")))
    made.handle(report(filled, "fill"))
    unknown = only(made.handle(decision(intent(size=3), id="unknown")))
    made.handle(report(unknown, "unknown"))
    only(made.handle(decision(intent(size=2), id="submitted")))
    over = only(made.handle(decision(intent(size="1.01"), id="over")))
    assert over.reason_code == Reason.MAX_POSITION_NOTIONAL
    assert only(made.handle(decision(intent(size=1), id="fits"))).status is OrderStatus.SUBMITTED
    assert only(made.handle(decision(intent("open", "short", 5), id="other-leg"))).status is OrderStatus.SUBMITTED


def test_rule_24_actions_of_one_decision_see_one_another() -> None:
    made = engine(max_open_orders=2)
    outputs = made.handle(decision(*[intent(size=1)] * 3))
    assert [payload.status for payload in orders_of(outputs)] == [
        OrderStatus.SUBMITTED,
        OrderStatus.SUBMITTED,
        OrderStatus.DENIED,
    ]
    assert orders_of(outputs)[2].reason_code == Reason.MAX_OPEN_ORDERS


def test_exposure_is_released_when_an_order_ends_without_filling() -> None:
    made = engine(max_position_notional=Decimal(1_000))
    first = only(made.handle(decision(intent(size=10), id="first")))
    assert only(made.handle(decision(intent(size=1), id="no-room"))).reason_code == Reason.MAX_POSITION_NOTIONAL
    made.handle(report(first, "rejected"))
    assert only(made.handle(decision(intent(size=1), id="room"))).status is OrderStatus.SUBMITTED


def test_rule_23_close_short_only_ever_cuts_the_short_leg() -> None:
    made = engine()
    holding(made, "long", "5")
    assert only(made.handle(decision(intent("close", "short"), id="a"))).reason_code == Reason.NOTHING_TO_CLOSE
    holding(made, "short", "2")
    cut = only(made.handle(decision(intent("close", "short", 3), id="b")))
    assert (cut.side, cut.position_side, cut.reduce_only) == (Side.BUY, PositionSide.SHORT, True)
    assert (cut.quantity, cut.leaves_qty) == (Decimal(2), Decimal(2))
    made.handle(report(cut, "fill"))
    long, short = made.positions.by_symbol("BTCUSDT")
    assert (long.quantity, short.quantity) == (Decimal(5), Decimal(0))


def test_rule_23_a_strategy_closes_only_what_is_its_own() -> None:
    made = engine()
    holding(made, "long", "5", strategy="mine")
    other = only(made.handle(decision(intent("close"), strategy="theirs")))
    assert other.reason_code == Reason.NOTHING_TO_CLOSE
    holding(made, "long", "4", strategy="theirs")
    only(made.handle(decision(intent("close", "long", 5), strategy="mine")))
    assert only(made.handle(decision(intent("close", "long", 9), strategy="theirs"))).quantity == 4


def test_closing_counts_what_is_being_closed_already() -> None:
    made = engine()
    holding(made, "long", "5")
    first = only(made.handle(decision(intent("close", "long", 3), id="a")))
    second = only(made.handle(decision(intent("close", "long", 3), id="b")))
    assert (first.quantity, second.quantity) == (Decimal(3), Decimal(2))
    assert only(made.handle(decision(intent("close", "long", 3), id="c"))).reason_code == Reason.NOTHING_TO_CLOSE
    made.handle(report(first, "cancelled"))
    assert only(made.handle(decision(intent("close", "long", 9), id="d"))).quantity == 3


def test_rule_14_halted_denies_all_orders_and_lets_cancels_pass() -> None:
    made = engine()
    holding(made, "long", "5")
    resting = only(made.handle(decision(intent(limit_price=Decimal(99)), id="rests")))
    made.handle(trading(TradingState.HALTED, "flash crash"))
    outputs = made.handle(decision(intent("open"), intent("close"), intent("cancel"), id="halted"))
    assert [payload.reason_code for payload in orders_of(outputs)] == [Reason.HALTED, Reason.HALTED]
    assert "flash crash" in orders_of(outputs)[0].reason_text
    (cancel,) = [output for output in outputs if isinstance(output, CancelOrder)]
    assert cancel.order.order_id == resting.order_id


def test_rule_14_reducing_lets_only_through_what_cuts_exposure() -> None:
    made = engine()
    holding(made, "long", "5")
    made.handle(trading(TradingState.REDUCING))
    outputs = made.handle(decision(intent("open"), intent("close"), id="reducing"))
    assert [payload.reason_code for payload in orders_of(outputs)] == [Reason.REDUCING, ""]


def test_rule_14_the_trading_state_survives_a_restore_and_ends_with_a_resume() -> None:
    made = engine()
    made.handle(trading(TradingState.HALTED, "why"))
    restored = engine(None)
    restored.restore(made.snapshot())
    assert only(restored.handle(decision(id="a"))).reason_code == Reason.HALTED
    restored.handle(trading(TradingState.ACTIVE))
    assert only(restored.handle(decision(id="b"))).status is OrderStatus.SUBMITTED


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff", b'{"orders": 1}'])
def test_garbage_is_no_state(garbage: bytes) -> None:
    with pytest.raises(StateError, match="cannot be restored"):
        engine().restore(garbage)


def test_the_state_fits_into_a_checkpoint_after_any_number_of_orders() -> None:
    made = engine()
    for n in range(1_200):
        opened = only(made.handle(decision(intent("open" if n % 2 == 0 else "close"), id=f"{n:032}")))
        made.handle(report(opened, "fill"))
    assert len(made.snapshot()) < 500_000

"""What strategies see and what they can ask for."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import (
    ActionIntent,
    ActionSide,
    ActionType,
    MarketEvent,
    OrderType,
    PositionSide,
    TimeInForce,
)
from botplatform.errors import InvalidEvent
from botplatform.events.rules import EMPTY
from botplatform.strategies import (
    LegView,
    PositionView,
    View,
    cancel,
    close_long,
    close_short,
    open_long,
    open_short,
)
from botplatform.trading.positions import Leg

AMOUNTS = st.decimals(min_value=0, max_value=1000, places=3)


def view(price: float, position: PositionView | None = None, mark_price: float | None = None) -> View:
    snapshot = MarketEvent("BTCUSDT", price, timestamp_ns=1, mark_price=mark_price)
    return View(snapshot, EMPTY, position or PositionView(), 1)


@pytest.mark.parametrize(
    ("make", "kind", "side"),
    [
        (open_long, ActionType.OPEN, ActionSide.LONG),
        (close_long, ActionType.CLOSE, ActionSide.LONG),
        (open_short, ActionType.OPEN, ActionSide.SHORT),
        (close_short, ActionType.CLOSE, ActionSide.SHORT),
    ],
)
def test_actions_at_the_market_and_at_a_limit(
    make: Callable[..., ActionIntent], kind: ActionType, side: ActionSide
) -> None:
    assert make("0.5") == ActionIntent(kind, side, Decimal("0.5"), OrderType.MARKET)
    limit = make(1, limit_price="99.5", time_in_force=TimeInForce.IOC, post_only=True)
    expected = ActionIntent(kind, side, Decimal(1), OrderType.LIMIT, Decimal("99.5"), TimeInForce.IOC, post_only=True)
    assert limit == expected


@pytest.mark.parametrize("size", [0.1, True, "one", None])
def test_a_size_that_is_not_exact_is_refused(size: Any) -> None:
    with pytest.raises(InvalidEvent, match="the size of an action"):
        open_long(size)


def test_cancel_means_one_order_or_all_of_a_leg() -> None:
    assert cancel(PositionSide.SHORT).side is ActionSide.SHORT
    assert cancel(PositionSide.SHORT).order_id == ""
    assert cancel(PositionSide.LONG, "abc").order_id == "abc"


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_exposure_and_what_can_be_closed(held: Decimal, working: Decimal, intended: Decimal, closing: Decimal) -> None:
    leg = LegView(PositionSide.LONG, Leg(held), working, intended, closing)
    assert leg.exposure == held + working + intended
    assert leg.closable == max(Decimal(0), held - closing)
    assert leg.quantity == held


def test_both_legs_are_there_at_once_and_net_is_a_view() -> None:
    long, short = LegView(PositionSide.LONG, Leg(Decimal(3))), LegView(PositionSide.SHORT, Leg(Decimal(1)))
    position = PositionView(long, short)
    assert position.net == Decimal(2)
    assert not position.is_idle
    assert PositionView().is_idle


def test_unrealized_profit_is_at_the_mark_price_where_there_is_one() -> None:
    long = LegView(PositionSide.LONG, Leg(Decimal(2), Decimal(200)))
    short = LegView(PositionSide.SHORT, Leg(Decimal(2), Decimal(200)))
    assert view(110.0).unrealized_pnl(long) == Decimal(20)
    assert view(110.0).unrealized_pnl(short) == Decimal(-20)
    assert view(110.0, mark_price=105.0).unrealized_pnl(long) == Decimal(10)
    assert view(110.0).unrealized_pnl(LegView(PositionSide.LONG)) == Decimal(0)


@given(st.decimals(min_value=1, max_value=10**6, places=2), st.floats(0.001, 1e6))
def test_a_size_is_worth_its_notional_and_not_more(notional: Decimal, price: float) -> None:
    size = view(price).size_of(notional)
    worth = size * Decimal(str(price))
    assert notional * Decimal("0.9998") <= worth <= notional


def test_without_a_price_there_is_no_size() -> None:
    assert view(0.0).size_of(Decimal(100)) == Decimal(0)

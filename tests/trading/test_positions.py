"""Position arithmetic: nothing is lost to rounding, no leg flips, and the order of legs does not matter."""

from __future__ import annotations

from decimal import Decimal, localcontext
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import PositionSide
from botplatform.errors import StateError
from botplatform.trading.positions import CONTEXT, FLAT, Leg, LegKey, Positions, total

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
D = Decimal


class Step:
    """What a test does to a leg: the parts of a fill that positions read."""

    def __init__(
        self,
        *,
        opens: bool,
        quantity: str | Decimal,
        price: str | Decimal,
        commission: str | Decimal = "0",
        side: PositionSide = LONG,
        symbol: str = "BTCUSDT",
        strategy: str = "s",
    ) -> None:
        self.quantity, self.price, self.commission = D(quantity), D(price), D(commission)
        self.order = SimpleNamespace(
            account_id="a", venue="paper", symbol=symbol, strategy=strategy, position_side=side, opens=opens
        )


def applied(positions: Positions, *steps: Step) -> LegKey:
    key: LegKey | None = None
    for step in steps:
        fill: Any = step
        key = positions.apply(fill)
    assert key is not None
    return key


def money(*texts: str) -> tuple[Decimal, ...]:
    return tuple(map(D, texts))


quantities = st.decimals("0.00001", "1000", places=5, allow_nan=False)
prices = st.decimals("0.01", "100000", places=2, allow_nan=False)
fees = st.decimals("-10", "10", places=4, allow_nan=False)
steps = st.builds(
    Step,
    opens=st.booleans(),
    quantity=quantities,
    price=prices,
    commission=fees,
    side=st.sampled_from([LONG, SHORT]),
    symbol=st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    strategy=st.sampled_from(["trend", "hedge"]),
)


def test_a_long_leg_earns_when_the_price_rises_and_keeps_its_average_on_a_partial_close() -> None:
    positions = Positions()
    key = applied(
        positions,
        Step(opens=True, quantity="1", price="100", commission="0.05"),
        Step(opens=True, quantity="3", price="120", commission="0.18"),
        Step(opens=False, quantity="2", price="130", commission="0.13"),
    )
    leg = positions.leg(key)
    assert (leg.quantity, leg.avg_px_open, leg.realized_pnl, leg.commission) == money("2", "115", "30", "0.36")
    assert leg.unrealized_pnl(D(125), LONG) == 20


def test_a_short_leg_earns_when_the_price_falls() -> None:
    leg = FLAT.apply_fill(opens=True, quantity=D(2), price=D(100), commission=D(0), side=SHORT)
    assert leg.unrealized_pnl(D(90), SHORT) == 20
    leg = leg.apply_fill(opens=False, quantity=D(2), price=D(95), commission=D(0), side=SHORT)
    assert (leg.quantity, leg.realized_pnl, leg.avg_px_open) == money("0", "10", "0")


def test_a_long_and_a_short_leg_are_held_at_once_and_closing_one_leaves_the_other() -> None:
    positions = Positions()
    long = applied(positions, Step(opens=True, quantity="1", price="100"))
    short = applied(positions, Step(opens=True, quantity="2", price="100", side=SHORT))
    applied(positions, Step(opens=False, quantity="2", price="90", side=SHORT))
    assert positions.leg(long).quantity == 1
    assert positions.leg(short) == Leg(realized_pnl=D(20))
    assert [leg.quantity for leg in positions.by_symbol("BTCUSDT")] == [1, 0]


def test_closing_more_than_is_held_closes_what_is_held_and_says_how_much_was_too_much() -> None:
    leg = FLAT.apply_fill(opens=True, quantity=D(1), price=D(100), commission=D(0), side=LONG)
    leg = leg.apply_fill(opens=False, quantity=D(5), price=D(110), commission=D(1), side=LONG)
    assert (leg.quantity, leg.realized_pnl, leg.commission, leg.excess_qty) == money("0", "10", "1", "4")


@pytest.mark.parametrize(("quantity", "price"), [("0", "1"), ("-1", "1"), ("1", "-1")])
def test_an_impossible_fill_is_refused(quantity: str, price: str) -> None:
    with pytest.raises(StateError, match="cannot be"):
        FLAT.apply_fill(opens=True, quantity=D(quantity), price=D(price), commission=D(0), side=LONG)


def test_thirds_are_closed_without_losing_a_fraction() -> None:
    positions = Positions()
    key = applied(
        positions,
        Step(opens=True, quantity="2", price="10"),
        Step(opens=True, quantity="1", price="11"),
        *[Step(opens=False, quantity="1", price="12")] * 3,
    )
    assert positions.leg(key) == Leg(realized_pnl=D(5))


@given(st.lists(steps, max_size=40), prices)
def test_cash_flows_are_exactly_profit_less_fees(history: list[Step], mark: Decimal) -> None:
    positions, cash = Positions(), D(0)
    for step in history:
        side, opens = step.order.position_side, step.order.opens
        key = LegKey("a", "paper", step.order.symbol, step.order.strategy, side)
        before = positions.leg(key)
        applied(positions, step)
        counted = abs(CONTEXT.subtract(positions.leg(key).quantity, before.quantity))
        assert counted == (step.quantity if opens else min(step.quantity, before.quantity))
        buys = opens is (side is LONG)
        worth = CONTEXT.multiply(counted, step.price)
        cash = CONTEXT.subtract(CONTEXT.add(cash, -worth if buys else worth), step.commission)
    profit = D(0)
    for key, leg in positions.legs():
        assert leg.quantity >= 0
        assert leg.excess_qty >= 0
        assert leg.quantity or leg.cost_open == 0
        held = CONTEXT.multiply(leg.quantity, mark)
        cash = CONTEXT.add(cash, held if key.side is LONG else -held)
        for part in (leg.realized_pnl, leg.unrealized_pnl(mark, key.side), -leg.commission):
            profit = CONTEXT.add(profit, part)
    assert cash == profit


@given(st.lists(steps, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_fills_of_different_legs_is_irrelevant(history: list[Step], random: Any) -> None:
    straight, shuffled = Positions(), Positions()
    legs: dict[tuple[str, str, PositionSide], list[Step]] = {}
    for step in history:
        applied(straight, step)
        legs.setdefault((step.order.symbol, step.order.strategy, step.order.position_side), []).append(step)
    waiting = list(legs.values())
    while waiting:
        queue = random.choice(waiting)
        applied(shuffled, queue.pop(0))
        waiting = [each for each in waiting if each]
    assert dict(shuffled.legs()) == dict(straight.legs())
    assert shuffled.state_hash() == straight.state_hash()


@given(st.lists(steps, max_size=20), st.integers(1, 12))
def test_the_callers_decimal_context_changes_nothing(history: list[Step], precision: int) -> None:
    usual, narrow = Positions(), Positions()
    for step in history:
        applied(usual, step)
        with localcontext(prec=precision):
            applied(narrow, step)
    with localcontext(prec=precision):
        assert narrow.state_hash() == usual.state_hash()
        assert narrow.snapshot() == usual.snapshot()


@given(st.lists(steps, max_size=20))
def test_a_snapshot_restores_to_equal_positions(history: list[Step]) -> None:
    positions, again = Positions(), Positions()
    for step in history:
        applied(positions, step)
    again.restore(positions.snapshot())
    assert dict(again.legs()) == dict(positions.legs())
    assert again.snapshot() == positions.snapshot()
    assert again.state_hash() == positions.state_hash()
    assert again.by_symbol("BTCUSDT") == positions.by_symbol("BTCUSDT")


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[1]", b"\xff\xfe", b'[["a","v","s","t","UP",{}]]'])
def test_garbage_is_not_restored(garbage: bytes) -> None:
    with pytest.raises(StateError, match="cannot be restored"):
        Positions().restore(garbage)


def test_the_hash_tells_different_positions_apart_and_ignores_how_zeros_are_written() -> None:
    one, same, other = Positions(), Positions(), Positions()
    applied(one, Step(opens=True, quantity="1", price="100"))
    applied(same, Step(opens=True, quantity="1.000", price="100.0"))
    applied(other, Step(opens=True, quantity="1.001", price="100"))
    assert one.state_hash() == same.state_hash() != other.state_hash()


def test_totals_of_a_symbol_sum_the_legs_of_all_strategies() -> None:
    positions = Positions()
    applied(
        positions,
        Step(opens=True, quantity="1", price="100", strategy="trend"),
        Step(opens=True, quantity="3", price="200", strategy="hedge"),
        Step(opens=True, quantity="7", price="9", symbol="ETHUSDT"),
    )
    long, short = positions.by_symbol("BTCUSDT")
    assert (long.quantity, long.avg_px_open, short) == (*money("4", "175"), FLAT)
    assert positions.symbols() == ("BTCUSDT", "ETHUSDT")
    assert positions.is_open("ETHUSDT")
    assert not positions.is_open("SOLUSDT")
    assert total([]) == FLAT

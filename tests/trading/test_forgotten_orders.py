"""A fill counts once, also when its order was forgotten long ago."""

from __future__ import annotations

from decimal import Decimal

from botplatform.core.events import Event, OrderStatus
from botplatform.testing import order
from botplatform.trading.orders import Orders, Problem


def life(number: int) -> list[Event]:
    name, at = f"o{number}", float(number)
    submitted = order("order.submitted", order_id=name, quantity="1", at_s=at)
    filled = order(
        "order.filled",
        order_id=name,
        quantity="1",
        status=OrderStatus.FILLED,
        trade_id=f"t{number}",
        last_qty="1",
        last_px="100",
        at_s=at + 0.5,
    )
    return [submitted, filled]


def test_a_fill_repeated_after_its_order_was_forgotten_does_not_count_again() -> None:
    orders = Orders(keep=10)
    counted = Decimal(0)
    first = life(0)
    for number in range(50):
        for event in first if number == 0 else life(number):
            fill = orders.apply(event).fill
            counted += fill.quantity if fill else 0
    assert counted == 50
    assert orders.get("o0") is None
    applied = orders.apply(first[1])
    assert (applied.fill, applied.problem) == (None, Problem.UNKNOWN_ORDER)
    assert orders.apply(life(51)[0]).problem is None

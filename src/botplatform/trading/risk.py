"""Our own limits, checked before an order is recorded as submitted: a pure function of the order and what is known.

Orders that cut exposure are let through by the limits on size: a position must never be stuck because closing it
is too large an order.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from botplatform.core.events import OrderEvent, OrderType, TimeInForce, TradingState
from botplatform.settings import RiskSettings
from botplatform.trading.instruments import Instrument
from botplatform.trading.reasons import Reason

__all__ = ["Denial", "RiskContext", "check"]


class Denial(NamedTuple):
    """Why an order may not be sent."""

    reason: Reason
    text: str


class RiskContext(NamedTuple):
    """What an order is checked against."""

    limits: RiskSettings
    instrument: Instrument
    state: TradingState
    """Whether trading is allowed."""
    state_reason: str
    market_price: Decimal | None
    """The latest price of the symbol; None when none was seen."""
    leg_qty: Decimal
    """What the account holds of the leg that the order changes, all strategies together."""
    opening_qty: Decimal
    """What works, or is on its way, to make that leg larger; orders of unknown outcome count in full."""
    open_orders: int
    """Orders of the symbol that are at work or on their way."""


def check(order: OrderEvent, context: RiskContext) -> Denial | None:
    """Say why an order, rounded by its instrument, may not be sent; None when it may.

    The first reason found is returned: the trading state, then the order itself, then the instrument, then the limits.
    """
    return (
        _trading_state(order, context)
        or _shape(order)
        or _price(order, context)
        or _instrument(order, context)
        or _limits(order, context)
    )


def _trading_state(order: OrderEvent, context: RiskContext) -> Denial | None:
    why = context.state_reason or "no reason was given"
    if context.state is TradingState.HALTED:
        return Denial(Reason.HALTED, f"trading is halted: {why}")
    if context.state is TradingState.REDUCING and not order.reduce_only:
        return Denial(Reason.REDUCING, f"only orders that cut exposure may pass: {why}")
    return None


def _shape(order: OrderEvent) -> Denial | None:
    limit, lifetime = order.order_type is OrderType.LIMIT, order.time_in_force
    if limit and (order.price is None or order.price <= 0):
        return Denial(
            Reason.INVALID_PRICE, f"a LIMIT order needs a limit price above zero on the tick, not {order.price}"
        )
    if lifetime is TimeInForce.GTD:
        return Denial(Reason.INVALID_TIME_IN_FORCE, "GTD needs an end, which actions cannot say: use GTC and cancel")
    if order.post_only and (not limit or lifetime is not TimeInForce.GTC):
        return Denial(
            Reason.INVALID_TIME_IN_FORCE, f"post_only goes with LIMIT GTC only, not {order.order_type} {lifetime}"
        )
    return None


def _price(order: OrderEvent, context: RiskContext) -> Denial | None:
    market = context.market_price
    if market is None or market <= 0:
        return Denial(Reason.NO_MARKET, f"no price of {order.symbol} was seen yet")
    if order.order_type is OrderType.LIMIT and order.price is not None:
        most = Decimal(repr(context.limits.max_price_deviation))
        if abs(order.price - market) > most * market:
            return Denial(
                Reason.PRICE_DEVIATION,
                f"the limit {order.price} is more than {most:%} from the market at {market} (risk.max_price_deviation)",
            )
    return None


def _instrument(order: OrderEvent, context: RiskContext) -> Denial | None:
    refused = context.instrument.refusal(order.quantity, _value_price(order, context), reduces=order.reduce_only)
    return None if refused is None else Denial(*refused)


def _limits(order: OrderEvent, context: RiskContext) -> Denial | None:
    if order.reduce_only:
        return None
    limits, price = context.limits, _value_price(order, context)
    notional = order.quantity * price
    if notional > limits.max_order_notional:
        return Denial(
            Reason.MAX_ORDER_NOTIONAL,
            f"the order is worth {notional:f}, the limit risk.max_order_notional is {limits.max_order_notional}",
        )
    exposure = (context.leg_qty + context.opening_qty) * price + notional
    if exposure > limits.max_position_notional:
        return Denial(
            Reason.MAX_POSITION_NOTIONAL,
            f"the {order.position_side} leg of {order.symbol} would be worth {exposure:f}, working orders included, "
            f"the limit risk.max_position_notional is {limits.max_position_notional}",
        )
    if context.open_orders >= limits.max_open_orders:
        return Denial(
            Reason.MAX_OPEN_ORDERS,
            f"{context.open_orders} orders of {order.symbol} are at work, "
            f"the limit risk.max_open_orders is {limits.max_open_orders}",
        )
    return None


def _value_price(order: OrderEvent, context: RiskContext) -> Decimal:
    """Return the price that an order is valued at: the market's, or its own limit where that is higher."""
    market = context.market_price or Decimal(0)
    return max(market, order.price) if order.order_type is OrderType.LIMIT and order.price is not None else market

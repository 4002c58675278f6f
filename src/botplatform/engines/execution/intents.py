"""From an action of a decision to an order: side, leg, rounding; and the payloads that are made of orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from botplatform.core.events import (
    ActionIntent,
    ActionSide,
    ActionType,
    Event,
    OrderEvent,
    OrderStatus,
    OrderType,
    PositionSide,
    ReasonBy,
    Side,
    StrategyEvent,
    TimeInForce,
)
from botplatform.trading.instruments import Instrument
from botplatform.trading.orders import OrderRecord, client_order_id
from botplatform.trading.risk import Denial

__all__ = ["denied", "leg_of", "order_of", "order_payload"]

ZERO: Final = Decimal(0)


def leg_of(action: ActionIntent) -> PositionSide:
    """Return the leg that an action means."""
    return PositionSide.LONG if action.side is ActionSide.LONG else PositionSide.SHORT


def order_of(
    decision: Event,
    index: int,
    instrument: Instrument,
    market_price: Decimal | None,
    *,
    venue: str,
    account_id: str,
) -> OrderEvent:
    """Make the order that an open or close action asks for, rounded by its instrument.

    An action with a limit price is a LIMIT order unless it says otherwise. A market order carries the price that
    it is checked at. Closing is `reduce_only`. The quantity may round to zero: the risk check refuses that.
    """
    wanted = decision.payload
    assert type(wanted) is StrategyEvent
    action = wanted.actions[index]
    leg = leg_of(action)
    opens = action.type is ActionType.OPEN
    side = Side.BUY if opens is (leg is PositionSide.LONG) else Side.SELL
    kind = action.order_type or (OrderType.MARKET if action.limit_price is None else OrderType.LIMIT)
    price = market_price
    if kind is OrderType.LIMIT:
        price = None if action.limit_price is None else instrument.round_price(action.limit_price, side)
    made = client_order_id(decision.id, index)
    quantity = instrument.round_quantity(action.size)
    return OrderEvent(
        order_id=made,
        symbol=wanted.symbol,
        side=side,
        quantity=quantity,
        status=OrderStatus.SUBMITTED,
        price=price,
        client_order_id=made,
        venue=venue,
        account_id=account_id,
        strategy=wanted.strategy,
        position_side=leg,
        order_type=kind,
        time_in_force=action.time_in_force or TimeInForce.GTC,
        post_only=action.post_only,
        reduce_only=not opens,
        filled_qty=ZERO,
        leaves_qty=quantity,
        decision_id=decision.id,
        action_index=index,
    )


def denied(order: OrderEvent, denial: Denial) -> OrderEvent:
    """Return the payload of the `order.denied` of an order that never was submitted."""
    return replace(
        order,
        status=OrderStatus.DENIED,
        leaves_qty=ZERO,
        reason_code=denial.reason.value,
        reason_text=denial.text,
        reason_by=ReasonBy.RISK,
    )


def order_payload(order: OrderRecord) -> OrderEvent:
    """Return an order as it stands, as a payload: what a request to cancel it carries."""
    return OrderEvent(
        order_id=order.order_id,
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        status=order.status,
        price=order.price,
        client_order_id=order.order_id,
        venue_order_id=order.venue_order_id,
        venue=order.venue,
        account_id=order.account_id,
        strategy=order.strategy,
        position_side=order.position_side,
        order_type=order.order_type,
        time_in_force=order.time_in_force,
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        filled_qty=order.filled_qty,
        leaves_qty=order.leaves_qty,
        avg_px=order.avg_px,
        decision_id=order.decision_id,
        action_index=order.action_index,
        version=order.version,
    )

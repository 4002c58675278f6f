"""What a strategy can ask for, one function per action.

Sizes are in units of the base currency, above zero, `Decimal` (or its string): a float is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from botplatform.core.events import ActionIntent, ActionSide, ActionType, OrderType, PositionSide, TimeInForce
from botplatform.events.rules import money

__all__ = ["Decision", "cancel", "close_long", "close_short", "open_long", "open_short"]

Amount = Decimal | str | int

_SIDES: Final = {PositionSide.LONG: ActionSide.LONG, PositionSide.SHORT: ActionSide.SHORT}


class Decision(Struct, frozen=True):
    """What a strategy decided, with the reason in words for people."""

    actions: Sequence[ActionIntent]
    reason: str = ""


def open_long(
    size: Amount,
    *,
    limit_price: Amount | None = None,
    time_in_force: TimeInForce | None = None,
    post_only: bool = False,
) -> ActionIntent:
    """Buy to make the long leg larger: at the market, or at `limit_price` or better (GTC unless said otherwise)."""
    return _order(ActionType.OPEN, ActionSide.LONG, size, limit_price, time_in_force, post_only=post_only)


def close_long(
    size: Amount,
    *,
    limit_price: Amount | None = None,
    time_in_force: TimeInForce | None = None,
    post_only: bool = False,
) -> ActionIntent:
    """Sell to make the long leg smaller; never beyond flat."""
    return _order(ActionType.CLOSE, ActionSide.LONG, size, limit_price, time_in_force, post_only=post_only)


def open_short(
    size: Amount,
    *,
    limit_price: Amount | None = None,
    time_in_force: TimeInForce | None = None,
    post_only: bool = False,
) -> ActionIntent:
    """Sell to make the short leg larger."""
    return _order(ActionType.OPEN, ActionSide.SHORT, size, limit_price, time_in_force, post_only=post_only)


def close_short(
    size: Amount,
    *,
    limit_price: Amount | None = None,
    time_in_force: TimeInForce | None = None,
    post_only: bool = False,
) -> ActionIntent:
    """Buy to make the short leg smaller; never beyond flat."""
    return _order(ActionType.CLOSE, ActionSide.SHORT, size, limit_price, time_in_force, post_only=post_only)


def cancel(side: PositionSide, order_id: str = "") -> ActionIntent:
    """Ask to cancel one working order of a leg; without an id, all of them. A request: the order may still fill."""
    return ActionIntent(ActionType.CANCEL, _SIDES[side], Decimal(0), order_id=order_id)


def _order(
    kind: ActionType,
    side: ActionSide,
    size: Amount,
    limit_price: Amount | None,
    time_in_force: TimeInForce | None,
    *,
    post_only: bool,
) -> ActionIntent:
    return ActionIntent(
        kind,
        side,
        money(size, "the size of an action"),
        OrderType.MARKET if limit_price is None else OrderType.LIMIT,
        None if limit_price is None else money(limit_price, "the limit price of an action"),
        time_in_force,
        post_only,
    )

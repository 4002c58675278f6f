"""From what a venue reports to the `order.*` events of the log, with ids that are a function of the report.

The same report always makes the same event, so the log keeps it once, whoever publishes it and however often.
"""

from __future__ import annotations

from typing import Any, Final

from botplatform.core.engine import Cause
from botplatform.core.events import Event, OrderEvent, OrderStatus, ReasonBy
from botplatform.core.seam import derive_id
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import ExchangeReport
from botplatform.trading.orders import OrderRecord
from botplatform.trading.reasons import Reason

__all__ = ["denied_event", "report_to_event", "unknown_event"]

TYPE_OF: Final[dict[OrderStatus, str]] = {
    OrderStatus.ACCEPTED: "order.accepted",
    OrderStatus.PARTIALLY_FILLED: "order.partial",
    OrderStatus.FILLED: "order.filled",
    OrderStatus.REJECTED: "order.rejected",
    OrderStatus.CANCELLED: "order.cancelled",
    OrderStatus.EXPIRED: "order.expired",
}
"""The type of the event by what the venue says the status is."""


def report_to_event(
    report: ExchangeReport,
    order: OrderRecord | OrderEvent,
    cause: Cause,
    source: str,
    created_ns: int,
    *,
    reconciliation: bool = False,
) -> Event:
    """Make the event that a report stands for.

    What the venue does not know (strategy, leg, decision) comes from `order`, the chain from `cause`, the time
    from the report. `reconciliation` marks what was found by asking. Raises `ExchangeError` for a status that a
    venue cannot report, and for a report about another order.
    """
    kind = TYPE_OF.get(report.status)
    if kind is None:
        raise ExchangeError(
            f"{source} reports the order {report.client_order_id} as {report.status}, which only we can say: "
            f"an adapter reports one of {', '.join(TYPE_OF)}"
        )
    if report.client_order_id != order.order_id:
        raise ExchangeError(
            f"a report of {source} about the order {report.client_order_id} was matched with {order.order_id}: "
            "match reports by client_order_id"
        )
    refused = report.status is OrderStatus.REJECTED or bool(report.reason_code)
    payload = _payload(
        order,
        report.status,
        price=order.price if report.price is None else report.price,
        venue_order_id=report.venue_order_id,
        trade_id=report.trade_id,
        last_qty=report.last_qty,
        last_px=report.last_px,
        filled_qty=report.filled_qty,
        leaves_qty=report.leaves_qty,
        avg_px=report.avg_px,
        commission=report.commission,
        commission_currency=report.commission_currency,
        liquidity_side=report.liquidity_side,
        reason_code=report.reason_code,
        reason_text=report.reason_text,
        reason_by=ReasonBy.VENUE if refused else None,
        version=report.version,
        reconciliation=reconciliation,
    )
    what = report.trade_id or f"{report.version}/{report.status}"
    made = derive_id(order.venue, order.account_id, report.symbol, report.venue_order_id, report.client_order_id, what)
    return Event(kind, payload, source, 0.0, report.timestamp_ns, created_ns, cause.correlation_id, cause.id, made)


def denied_event(
    order: OrderRecord | OrderEvent,
    cause: Cause,
    reason: Reason,
    text: str,
    *,
    timestamp_ns: int,
    created_ns: int,
    source: str = "execution",
) -> Event:
    """Make the `order.denied` of the last gate: the order was recorded as submitted, and never sent."""
    why = {"reason_code": reason.value, "reason_text": text, "reason_by": ReasonBy.RISK}
    payload = _payload(order, OrderStatus.DENIED, price=order.price, **why)
    return _ours("order.denied", payload, cause, source, (timestamp_ns, created_ns))


def unknown_event(
    order: OrderRecord | OrderEvent,
    cause: Cause,
    reason: Reason,
    text: str,
    *,
    timestamp_ns: int,
    created_ns: int,
    source: str = "execution",
) -> Event:
    """Make the `order.unknown` of an order that was sent and not answered: its exposure stays reserved."""
    why = {"reason_code": reason.value, "reason_text": text, "reason_by": ReasonBy.TIMEOUT}
    payload = _payload(order, OrderStatus.UNKNOWN, price=order.price, **why)
    return _ours("order.unknown", payload, cause, source, (timestamp_ns, created_ns))


def _ours(kind: str, payload: OrderEvent, cause: Cause, source: str, times: tuple[int, int]) -> Event:
    """Make an event that we say ourselves: at most one of its kind for each order. `times`: happened, made."""
    timestamp_ns, created_ns = times
    made = derive_id(payload.venue, payload.account_id, payload.symbol, payload.order_id, payload.status)
    return Event(kind, payload, source, 0.0, timestamp_ns, created_ns, cause.correlation_id, cause.id, made)


def _payload(order: OrderRecord | OrderEvent, status: OrderStatus, **fields: Any) -> OrderEvent:
    return OrderEvent(
        order_id=order.order_id,
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        status=status,
        client_order_id=order.order_id,
        venue=order.venue,
        account_id=order.account_id,
        strategy=order.strategy,
        position_side=order.position_side,
        order_type=order.order_type,
        time_in_force=order.time_in_force,
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        decision_id=order.decision_id,
        action_index=order.action_index,
        **fields,
    )

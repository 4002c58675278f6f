"""What the gateway to a venue says on its own account, as events: refusals, and what a person should hear of."""

from __future__ import annotations

from botplatform.core.engine import Cause
from botplatform.core.events import Event, OrderEvent, OrderStatus, Severity, SystemEvent
from botplatform.core.seam import derive_id
from botplatform.engines.execution.intents import order_payload
from botplatform.exchanges.exchange import ExchangeReport
from botplatform.exchanges.reports import denied_event, report_to_event, unknown_event
from botplatform.runtime.gate import GATEWAY
from botplatform.trading.orders import OrderRecord
from botplatform.trading.reasons import Reason

__all__ = [
    "cancel_failed",
    "denied",
    "never_there",
    "refused_by_venue",
    "report_refused",
    "submitted_again",
    "unknown",
]

MESSAGE_LIMIT = 500


def submitted_again(order: OrderRecord) -> Event:
    """Make the `order.submitted` again that the log has: what an earlier owner had to send, and did not."""
    payload, name, time_ns = order_payload(order), "execution", order.submitted_ns
    chain, caused_by = order.correlation_id, order.decision_id
    return Event("order.submitted", payload, name, 0.0, time_ns, time_ns, chain, caused_by, order.submitted_id)


def denied(order: OrderEvent, cause: Cause, reason: Reason, text: str, now_ns: int) -> Event:
    """Make the `order.denied` of an order that was refused at the last gate."""
    return denied_event(order, cause, reason, text, timestamp_ns=now_ns, created_ns=now_ns, source=GATEWAY)


def unknown(order: OrderEvent, cause: Cause, reason: Reason, text: str, now_ns: int) -> Event:
    """Make the `order.unknown` of an order that was sent and not answered."""
    return unknown_event(order, cause, reason, text, timestamp_ns=now_ns, created_ns=now_ns, source=GATEWAY)


def refused_by_venue(order: OrderEvent | OrderRecord, cause: Cause, venue: str, text: str, now_ns: int) -> Event:
    """Make the `order.rejected` of an order that the venue refused when it was called."""
    return _rejected(order, cause, venue, Reason.VENUE_REFUSED, text, now_ns)


def never_there(order: OrderEvent | OrderRecord, cause: Cause, venue: str, now_ns: int) -> Event:
    """Make the `order.rejected` of an order that the venue, asked about it, never had."""
    text = f"{venue} states that it never had this order"
    return _rejected(order, cause, venue, Reason.NOT_AT_VENUE, text, now_ns)


def report_refused(order: OrderEvent | OrderRecord, cause: Cause, venue: str, error: Exception, now_ns: int) -> Event:
    """Make the `system.error` of a report that makes no sense; the venue is asked about the order instead."""
    text = f"a report of {venue} about {order.order_id} makes no sense, so the venue is asked again: {error}"
    return _system("system.error", "REPORT_REFUSED", Severity.ERROR, order, cause, text, now_ns)


def cancel_failed(order: OrderEvent, cause: Event, venue: str, why: str, now_ns: int) -> Event:
    """Make the `system.warning` of a request to cancel that did not go through."""
    text = f"the cancel of {order.order_id} at {venue} did not go through, so the order works on: {why}"
    chain = Cause(cause.id, cause.correlation_id)
    return _system("system.warning", "CANCEL_FAILED", Severity.WARNING, order, chain, text, now_ns)


def _rejected(  # noqa: PLR0917  # private, called twice
    order: OrderEvent | OrderRecord, cause: Cause, venue: str, reason: Reason, text: str, now_ns: int
) -> Event:
    report = ExchangeReport(
        client_order_id=order.order_id,
        symbol=order.symbol,
        status=OrderStatus.REJECTED,
        venue_order_id="",
        version=0,
        timestamp_ns=now_ns,
        side=order.side,
        quantity=order.quantity,
        reason_code=reason.value,
        reason_text=text,
    )
    return report_to_event(report, order, cause, venue, now_ns)


def _system(  # noqa: PLR0917  # private, called twice
    kind: str,
    code: str,
    severity: Severity,
    order: OrderEvent | OrderRecord,
    cause: Cause,
    text: str,
    now_ns: int,
) -> Event:
    payload = SystemEvent(GATEWAY, text[:MESSAGE_LIMIT], severity, code=code, symbol=order.symbol, event_id=cause.id)
    made = derive_id(cause.id, order.order_id, code, text)
    return Event(kind, payload, GATEWAY, 0.0, now_ns, now_ns, cause.correlation_id, cause.id, made)

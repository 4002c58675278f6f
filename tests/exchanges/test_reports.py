"""From reports of a venue to events of the log: the same report always makes the same event."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from botplatform.core.engine import Cause
from botplatform.core.events import OrderEvent, OrderStatus, ReasonBy, Side
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import ExchangeReport
from botplatform.exchanges.reports import denied_event, report_to_event, unknown_event
from botplatform.testing import order
from botplatform.trading.orders import Orders
from botplatform.trading.reasons import Reason

SUBMITTED = order("order.submitted", decision_id="decision", action_index=1, reduce_only=True, correlation_id="chain")
CAUSE = Cause(SUBMITTED.id, "chain")


def report(**fields: Any) -> ExchangeReport:
    known: dict[str, Any] = {
        "client_order_id": "order-1",
        "symbol": "BTCUSDT",
        "status": OrderStatus.FILLED,
        "venue_order_id": "v-1",
        "version": 2,
        "timestamp_ns": 5_000,
        "side": Side.BUY,
        "quantity": Decimal(1),
        "filled_qty": Decimal(1),
        "avg_px": Decimal(100),
        "trade_id": "t-1",
        "last_qty": Decimal(1),
        "last_px": Decimal(100),
        "commission": Decimal("0.05"),
        "commission_currency": "USDT",
    }
    return ExchangeReport(**(known | fields))


def submitted_payload() -> OrderEvent:
    assert isinstance(SUBMITTED.payload, OrderEvent)
    return SUBMITTED.payload


def test_a_report_becomes_an_event_in_the_chain_of_its_decision() -> None:
    event = report_to_event(report(), submitted_payload(), CAUSE, "paper", 6_000)
    assert (event.type, event.source, event.timestamp_ns, event.created_ns) == ("order.filled", "paper", 5_000, 6_000)
    assert (event.correlation_id, event.causation_id) == ("chain", SUBMITTED.id)
    payload = event.payload
    assert isinstance(payload, OrderEvent)
    assert (payload.strategy, payload.decision_id, payload.action_index) == ("test_strategy", "decision", 1)
    assert (payload.trade_id, payload.last_px, payload.commission) == ("t-1", Decimal(100), Decimal("0.05"))
    assert payload.reduce_only


def test_the_record_of_an_order_serves_as_well_as_its_intent() -> None:
    orders = Orders()
    orders.apply(SUBMITTED)
    record = orders.get("order-1")
    assert record is not None
    from_record = report_to_event(report(), record, CAUSE, "paper", 6_000)
    assert from_record == report_to_event(report(), submitted_payload(), CAUSE, "paper", 6_000)


@pytest.mark.parametrize(
    "changed",
    [{"trade_id": "t-2"}, {"venue_order_id": "v-2"}, {"trade_id": "", "version": 3}, {"trade_id": "", "version": 4}],
)
def test_ids_are_a_function_of_the_report(changed: dict[str, Any]) -> None:
    first = report_to_event(report(), submitted_payload(), CAUSE, "paper", 1)
    again = report_to_event(report(), submitted_payload(), CAUSE, "paper", 2)
    other = report_to_event(report(**changed), submitted_payload(), CAUSE, "paper", 1)
    assert first.id == again.id
    assert other.id != first.id


def test_a_rejection_says_that_the_venue_said_it() -> None:
    rejected = report(status=OrderStatus.REJECTED, trade_id="", reason_code="VENUE_REFUSED", reason_text="no funds")
    payload = report_to_event(rejected, submitted_payload(), CAUSE, "paper", 1).payload
    assert isinstance(payload, OrderEvent)
    assert (payload.reason_code, payload.reason_text, payload.reason_by) == (
        "VENUE_REFUSED",
        "no funds",
        ReasonBy.VENUE,
    )


@pytest.mark.parametrize("status", [OrderStatus.SUBMITTED, OrderStatus.DENIED, OrderStatus.UNKNOWN])
def test_a_status_that_only_we_can_say_is_refused_from_a_venue(status: OrderStatus) -> None:
    with pytest.raises(ExchangeError, match="only we can say"):
        report_to_event(report(status=status), submitted_payload(), CAUSE, "paper", 1)


def test_a_report_of_another_order_is_refused() -> None:
    with pytest.raises(ExchangeError, match="match reports by client_order_id"):
        report_to_event(report(client_order_id="order-2"), submitted_payload(), CAUSE, "paper", 1)


def test_rule_25_the_last_gate_denies_with_a_reason() -> None:
    denied = denied_event(
        submitted_payload(), CAUSE, Reason.STALE_DECISION, "6 s old", timestamp_ns=5_000, created_ns=6_000
    )
    again = denied_event(submitted_payload(), CAUSE, Reason.HALTED, "halted", timestamp_ns=7_000, created_ns=8_000)
    assert (denied.type, denied.source, denied.correlation_id) == ("order.denied", "execution", "chain")
    assert isinstance(denied.payload, OrderEvent)
    assert (denied.payload.status, denied.payload.reason_code) == (OrderStatus.DENIED, "STALE_DECISION")
    assert denied.payload.reason_by is ReasonBy.RISK
    assert denied.id == again.id


def test_rule_6_an_unknown_outcome_is_not_a_rejection() -> None:
    event = unknown_event(submitted_payload(), CAUSE, Reason.TIMEOUT, "10 s", timestamp_ns=5_000, created_ns=6_000)
    assert event.type == "order.unknown"
    orders = Orders()
    orders.apply(SUBMITTED)
    orders.apply(event)
    (record,) = orders.open()
    assert (record.status, record.leaves_qty) == (OrderStatus.UNKNOWN, Decimal(1))

"""What the execution engine makes of requests to cancel and of what venues report."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from benches.execution_engine import engine, only, problems, report
from botplatform.core.engine import CancelOrder, Emit
from botplatform.core.events import OrderStatus, Severity, SystemEvent
from botplatform.testing import decision, fill, intent


def cancels(outputs: Any) -> list[str]:
    assert all(isinstance(output, CancelOrder) for output in outputs)
    return [output.order.order_id for output in outputs]


def test_a_cancel_asks_for_the_working_orders_of_the_strategys_leg() -> None:
    made = engine()
    names = {}
    for name, side, strategy in (
        ("mine", "long", "test_strategy"),
        ("finished", "long", "test_strategy"),
        ("other-leg", "short", "test_strategy"),
        ("theirs", "long", "theirs"),
    ):
        names[name] = only(made.handle(decision(intent("open", side), strategy=strategy, id=name)))
    made.handle(report(names["finished"], "fill"))
    assert cancels(made.handle(decision(intent("cancel"), id="c"))) == [names["mine"].order_id]
    assert cancels(made.handle(decision(intent("cancel", "short"), id="d"))) == [names["other-leg"].order_id]


def test_a_cancel_may_name_its_order() -> None:
    made = engine()
    first, second = (only(made.handle(decision(id=name))) for name in ("a", "b"))
    assert cancels(made.handle(decision(intent("cancel", order_id=second.order_id), id="c"))) == [second.order_id]
    made.handle(report(first, "fill"))
    assert made.handle(decision(intent("cancel", order_id=first.order_id), id="d")) == []
    theirs = decision(intent("cancel", order_id=second.order_id), id="e", strategy="theirs")
    assert problems(made.handle(theirs)) == [("system.warning", "UNKNOWN_ORDER", Severity.WARNING)]


def test_rule_7_a_request_to_cancel_leaves_the_order_at_work_until_the_venue_says_so() -> None:
    made = engine()
    opened = only(made.handle(decision()))
    made.handle(decision(intent("cancel"), id="c"))
    assert len(made.orders.open()) == 1
    made.handle(report(opened, "cancelled", 2))
    made.handle(report(opened, "fill", 3))
    assert made.positions.by_symbol("BTCUSDT")[0].quantity == 1


def test_rule_8_a_fill_counts_once_in_the_position_and_a_conflict_is_told() -> None:
    made = engine()
    opened = only(made.handle(decision()))
    filled = report(opened, "fill")
    assert made.handle(filled) == made.handle(filled) == ()
    conflict = report(opened, "fill", 2, price=99, trade_id=f"{opened.order_id}-1")
    assert problems(made.handle(conflict)) == [("system.warning", "CONFLICTING_FILL", Severity.WARNING)]
    leg, _ = made.positions.by_symbol("BTCUSDT")
    assert (leg.quantity, leg.avg_px_open) == (Decimal(1), Decimal(100))


def test_rule_10_an_overfill_is_refused_and_told_as_critical() -> None:
    made = engine()
    opened = only(made.handle(decision()))
    made.handle(report(opened, "fill"))
    over = report(opened, "fill", 2)
    outputs = made.handle(over)
    assert problems(outputs) == [("system.error", "OVERFILL", Severity.CRITICAL)]
    (output,) = outputs
    assert isinstance(output, Emit)
    assert isinstance(output.payload, SystemEvent)
    assert (output.payload.symbol, output.payload.event_id) == ("BTCUSDT", over.id)
    assert made.positions.by_symbol("BTCUSDT")[0].quantity == 1


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        ("fill", "accepted", ("system.warning", "STALE_REPORT", Severity.INFO)),
        ("rejected", "cancelled", ("system.warning", "ILLEGAL_TRANSITION", Severity.WARNING)),
    ],
)
def test_rule_11_reports_that_cannot_be_are_told(first: str, then: str, expected: tuple[Any, ...]) -> None:
    made = engine()
    opened = only(made.handle(decision()))
    made.handle(report(opened, first, 2))
    assert problems(made.handle(report(opened, then, 3))) == [expected]


def test_a_report_of_a_foreign_order_is_told() -> None:
    outputs = engine().handle(fill(position_side=None))
    assert problems(outputs) == [("system.warning", "UNKNOWN_ORDER", Severity.WARNING)]


def test_rule_6_pending_are_the_orders_whose_outcome_nobody_knows() -> None:
    made = engine()
    names = [only(made.handle(decision(id=name))) for name in ("submitted", "unknown", "accepted", "filled", "denied")]
    for one, kind in zip(names[1:], ("unknown", "accepted", "fill", "denied"), strict=True):
        made.handle(report(one, kind))
    assert [record.decision_id for record in made.pending] == ["submitted", "unknown"]


def test_rule_25_a_denial_of_the_last_gate_ends_the_order_and_frees_its_exposure() -> None:
    made = engine(max_position_notional=Decimal(100))
    stale = only(made.handle(decision(id="a")))
    assert made.handle(report(stale, "denied", reason_code="STALE_DECISION")) == ()
    assert made.pending == []
    assert only(made.handle(decision(id="b"))).status is OrderStatus.SUBMITTED

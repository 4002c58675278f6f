"""The life of an order, folded from its events: TRADING.md rules 5 and 7 to 11."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import Event, OrderStatus, PositionSide, Side
from botplatform.testing import fill, market, order
from botplatform.trading.orders import (
    FINISHED,
    TRANSITIONS,
    Applied,
    OrderRecord,
    Orders,
    Problem,
    client_order_id,
    opens_leg,
)

S = OrderStatus
QUANTITY = 10


def step(kind: str, number: int, **fields: Any) -> Event:
    return order(f"order.{kind}", quantity=QUANTITY, id=f"event-{number}", version=number, **fields)


def execution(number: int, quantity: int | str, price: int | str = 100, **fields: Any) -> Event:
    given_fields: dict[str, Any] = {"trade_id": f"trade-{number}", "commission": "0.1", "version": number} | fields
    return fill(price, QUANTITY, last_qty=quantity, id=f"event-{number}", **given_fields)


def told(*values: Any) -> tuple[Any, ...]:
    return values


def folded(*events: Event) -> tuple[Orders, OrderRecord]:
    orders = Orders()
    for event in events:
        orders.apply(event)
    record = orders.get("order-1")
    assert record is not None
    return orders, record


def test_the_life_of_an_order_that_fills_in_two_executions() -> None:
    orders = Orders()
    submitted = orders.apply(step("submitted", 1))
    assert submitted.previous is None
    assert submitted.order is not None
    assert submitted.order.status is S.SUBMITTED
    assert submitted.order.submitted_id == "event-1"
    accepted = orders.apply(step("accepted", 2, venue_order_id="v-1"))
    assert told(accepted.previous, accepted.order and accepted.order.status) == (S.SUBMITTED, S.ACCEPTED)
    first = orders.apply(execution(3, 4, 100))
    assert first.fill is not None
    assert told(first.fill.quantity, first.fill.price, first.fill.commission) == (4, 100, Decimal("0.1"))
    assert first.order is not None
    assert told(first.order.status, first.order.filled_qty, first.order.leaves_qty) == (S.PARTIALLY_FILLED, 4, 6)
    last = orders.apply(execution(4, 6, 110))
    assert last.order is not None
    assert told(last.order.status, last.order.filled_qty, last.order.leaves_qty) == (S.FILLED, 10, 0)
    assert last.order.avg_px == 106
    assert last.order.commission == Decimal("0.2")
    assert last.order.venue_order_id == "v-1"
    assert orders.open() == []


def test_rule_5_the_client_order_id_is_a_pure_function_of_decision_and_action() -> None:
    assert client_order_id("decision", 0) == client_order_id("decision", 0)
    ids = {client_order_id(f"decision-{n}", action) for n in range(50) for action in range(20)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,36}", made) for made in ids)


@pytest.mark.parametrize("late", ["cancelled", "expired"])
def test_rule_7_a_finished_order_may_still_fill_and_completes(late: str) -> None:
    orders, record = folded(step("submitted", 1), execution(2, 4), step(late, 3))
    status = record.status
    assert told(record.leaves_qty, record.is_open) == (0, False)
    again = orders.apply(execution(4, 2))
    assert again.fill is not None
    assert again.problem is None
    assert told(record.status, record.filled_qty) == (status, 6)
    orders.apply(execution(5, 4))
    assert record.status is S.FILLED


def test_rule_8_a_fill_counts_once_whatever_event_brings_it() -> None:
    orders, record = folded(step("submitted", 1), execution(2, 4))
    same_event = orders.apply(execution(2, 4))
    assert told(same_event.fill, same_event.problem) == (None, Problem.DUPLICATE_FILL)
    other_event = orders.apply(execution(3, 4, trade_id="trade-2"))
    assert told(other_event.fill, other_event.problem) == (None, Problem.DUPLICATE_FILL)
    assert told(record.filled_qty, record.commission) == (4, Decimal("0.1"))


@pytest.mark.parametrize(("quantity", "price"), [(5, 100), (4, 101)])
def test_rule_8_the_same_trade_id_with_other_numbers_keeps_the_first(quantity: int, price: int) -> None:
    orders, record = folded(step("submitted", 1), execution(2, 4))
    applied = orders.apply(execution(3, quantity, price, trade_id="trade-2"))
    assert told(applied.fill, applied.problem) == (None, Problem.CONFLICTING_FILL)
    assert told(record.filled_qty, record.avg_px, record.trades) == (4, 100, {"trade-2": (4, 100)})


def test_rule_8_a_trade_id_counts_for_one_order_per_venue_and_symbol() -> None:
    orders, _ = folded(step("submitted", 1), execution(2, 4))
    other = orders.apply(execution(3, 4, order_id="order-2", trade_id="trade-2"))
    assert told(other.fill, other.problem) == (None, Problem.CONFLICTING_FILL)
    elsewhere = orders.apply(execution(4, 4, order_id="order-3", symbol="ETHUSDT", trade_id="trade-2"))
    assert elsewhere.fill is not None


def test_rule_9_a_fill_before_the_acknowledgement() -> None:
    orders, record = folded(step("submitted", 1), execution(3, 10))
    applied = orders.apply(step("accepted", 2))
    assert told(applied.fill, applied.problem) == (None, Problem.STALE_REPORT)
    assert told(record.status, record.filled_qty, record.version) == (S.FILLED, 10, 3)


def test_rule_9_a_fill_before_the_order_was_seen_makes_the_record() -> None:
    orders = Orders()
    applied = orders.apply(execution(2, 4))
    assert applied.fill is not None
    assert applied.order is not None
    assert told(applied.previous, applied.order.status) == (None, S.PARTIALLY_FILLED)
    submitted = orders.apply(step("submitted", 1, correlation_id="chain"))
    assert submitted.problem is None
    assert told(applied.order.status, applied.order.submitted_id) == (S.PARTIALLY_FILLED, "event-1")
    assert applied.order.correlation_id == "chain"


def test_rule_9_the_rest_of_an_ioc_order_is_cancelled() -> None:
    _, record = folded(step("submitted", 1), step("accepted", 2), execution(3, 4), step("cancelled", 4))
    assert told(record.status, record.filled_qty, record.leaves_qty) == (S.CANCELLED, 4, 0)


def test_rule_9_expiry_after_a_partial_fill() -> None:
    _, record = folded(step("submitted", 1), execution(2, 4), step("expired", 3))
    assert told(record.status, record.filled_qty) == (S.EXPIRED, 4)


def test_rule_10_an_overfill_is_refused() -> None:
    orders, record = folded(step("submitted", 1), execution(2, 8))
    applied = orders.apply(execution(3, 3))
    assert told(applied.fill, applied.problem) == (None, Problem.OVERFILL)
    assert told(record.filled_qty, record.status) == (8, S.PARTIALLY_FILLED)
    assert orders.apply(execution(4, 2)).fill is not None


@pytest.mark.parametrize("finished", sorted(FINISHED))
@pytest.mark.parametrize("kind", ["accepted", "unknown", "submitted"])
def test_rule_11_a_stale_report_never_moves_a_finished_order(finished: OrderStatus, kind: str) -> None:
    last = execution(9, QUANTITY) if finished is S.FILLED else step(finished.lower(), 9)
    orders, record = folded(step("submitted", 1), last)
    applied = orders.apply(step(kind, 5))
    assert applied.problem is Problem.STALE_REPORT
    assert told(applied.previous, record.status) == (finished, finished)
    assert "event-5" in record.reports


def test_a_rejected_order_does_not_become_cancelled() -> None:
    orders, record = folded(step("submitted", 1), step("rejected", 2, reason_code="VENUE_REFUSED"))
    assert orders.apply(step("cancelled", 3)).problem is Problem.ILLEGAL_TRANSITION
    assert record.status is S.REJECTED


def test_a_fill_of_a_rejected_order_is_counted_because_money_moved_and_told() -> None:
    orders, record = folded(step("submitted", 1), step("rejected", 2))
    applied = orders.apply(execution(3, 4))
    assert applied.fill is not None
    assert applied.problem is Problem.ILLEGAL_TRANSITION
    assert told(record.status, record.filled_qty) == (S.REJECTED, 4)


@pytest.mark.parametrize("said", [S.ACCEPTED, S.REJECTED, S.CANCELLED, S.DENIED])
def test_rule_6_an_unknown_order_stays_open_until_somebody_knows(said: OrderStatus) -> None:
    orders, record = folded(step("submitted", 1), step("unknown", 2))
    assert orders.open() == [record]
    assert record.leaves_qty == QUANTITY
    assert orders.apply(step(said.lower(), 3)).problem is None
    assert record.status is said


@pytest.mark.parametrize("missing", [{"trade_id": ""}, {"last_px": None}, {"last_qty": 0}, {"last_px": 0}])
def test_a_fill_that_cannot_be_counted_changes_nothing(missing: dict[str, Any]) -> None:
    orders, record = folded(step("submitted", 1), step("accepted", 2))
    complete = {"trade_id": "t", "last_qty": 10, "last_px": 100} | missing
    applied = orders.apply(step("filled", 3, **complete))
    assert told(applied.fill, applied.problem) == (None, Problem.INVALID_FILL)
    assert told(record.status, record.filled_qty) == (S.ACCEPTED, 0)


def test_the_number_of_fills_decides_that_an_order_is_filled_not_what_the_report_calls_it() -> None:
    _, record = folded(step("submitted", 1), order("order.filled", quantity=10, trade_id="t", last_qty=4, last_px=5))
    assert told(record.status, record.leaves_qty) == (S.PARTIALLY_FILLED, 6)


@pytest.mark.parametrize("missing", [{"position_side": None}, {"strategy": ""}])
def test_a_report_that_names_no_strategy_or_leg_is_of_no_order_of_ours(missing: dict[str, Any]) -> None:
    orders = Orders()
    assert orders.apply(execution(1, 4, **missing)) == Applied(None, None, Problem.UNKNOWN_ORDER, None)
    assert orders.open() == []


def test_a_report_about_another_symbol_is_not_folded() -> None:
    orders, record = folded(step("submitted", 1))
    assert orders.apply(execution(2, 4, symbol="ETHUSDT")).problem is Problem.UNKNOWN_ORDER
    assert record.filled_qty == 0


def test_an_event_that_is_no_order_is_told() -> None:
    assert Orders().apply(market()).problem is Problem.UNKNOWN_ORDER


def test_finished_orders_stay_resolvable_up_to_the_bound() -> None:
    orders = Orders(keep=2)
    for n in range(4):
        orders.apply(order("order.submitted", order_id=f"o{n}"))
        orders.apply(fill(100, 1, order_id=f"o{n}", trade_id=f"t{n}"))
    assert [orders.get(f"o{n}") is not None for n in range(4)] == [False, False, True, True]
    assert set(orders.trade_orders.values()) == {"o2", "o3"}


def test_open_orders_are_listed_oldest_first_also_after_a_restore() -> None:
    orders = Orders()
    for name, symbol in (("z", "BTCUSDT"), ("a", "ETHUSDT"), ("m", "BTCUSDT")):
        orders.apply(order("order.submitted", order_id=name, symbol=symbol))
    data = msgspec.json.encode(orders, order="deterministic")
    restored = msgspec.json.decode(data, type=Orders)
    for fold in (orders, restored):
        assert [record.order_id for record in fold.open()] == ["z", "a", "m"]
        assert [record.order_id for record in fold.open("BTCUSDT")] == ["z", "m"]
    assert msgspec.json.encode(restored, order="deterministic") == data


@pytest.mark.parametrize(
    ("side", "leg", "opens"),
    [
        (Side.BUY, PositionSide.LONG, True),
        (Side.SELL, PositionSide.LONG, False),
        (Side.BUY, PositionSide.SHORT, False),
        (Side.SELL, PositionSide.SHORT, True),
    ],
)
def test_what_opens_a_leg(side: Side, leg: PositionSide, opens: bool) -> None:
    assert opens_leg(side, leg) is opens


def test_the_transition_table_knows_every_status_and_never_leads_out_of_the_finished_ones() -> None:
    assert set(TRANSITIONS) == set(OrderStatus)
    for status in FINISHED:
        assert TRANSITIONS[status] <= {S.FILLED}
    for status, targets in TRANSITIONS.items():
        assert all(status not in TRANSITIONS[target] for target in targets), f"{status} can come again"


@st.composite
def lives(draw: st.DrawFn) -> list[Event]:
    """All reports of one order, as a venue may make them."""
    events = [step("submitted", 1)]
    if draw(st.booleans()):
        events.append(step("unknown", 0))
    end = draw(st.sampled_from(["rejected", "denied", "cancelled", "expired", None]))
    if end in ("rejected", "denied"):
        return [*events, step(end, 2)]
    if draw(st.booleans()):
        events.append(step("accepted", 2))
    parts = draw(st.lists(st.decimals("0.001", 4, places=3), max_size=6))
    done, number = Decimal(0), 3
    ends_after = draw(st.integers(0, len(parts)))
    for index, part in enumerate([*parts, None]):
        if end and index == ends_after:
            events.append(step(end, number))
            number += 1
        if part is not None and done + part <= QUANTITY:
            done += part
            events.append(execution(number, str(part), str(draw(st.decimals("0.01", 99_999, places=2)))))
            number += 1
    if draw(st.booleans()) and done < QUANTITY:
        events.append(execution(number, str(QUANTITY - done), 100))
    return events


def outcome(events: list[Event]) -> tuple[Any, ...]:
    _, record = folded(*events)
    return (
        record.status,
        record.filled_qty,
        record.leaves_qty,
        record.avg_px,
        record.commission,
        record.trades,
        record.version,
        record.submitted_id,
    )


@settings(max_examples=300)
@given(st.data())
def test_any_permutation_and_repetition_of_the_reports_ends_in_the_same_order(data: st.DataObject) -> None:
    events = data.draw(lives())
    repeated = data.draw(st.lists(st.sampled_from(events), max_size=5))
    shuffled = data.draw(st.permutations(events + repeated))
    assert outcome(shuffled) == outcome(events)


@settings(max_examples=200)
@given(st.data())
def test_fills_are_handed_out_once_and_sum_up_to_the_order(data: st.DataObject) -> None:
    events = data.draw(lives())
    orders = Orders()
    applied = [orders.apply(event) for event in data.draw(st.permutations(events + events))]
    fills = [one.fill for one in applied if one.fill is not None]
    record = orders.get("order-1")
    assert record is not None
    assert sum((one.quantity for one in fills), Decimal(0)) == record.filled_qty <= record.quantity
    assert len({one.trade_id for one in fills}) == len(fills)
    assert record.is_open is (record.order_id in orders.working)
    assert record.filled_qty + record.leaves_qty == record.quantity or not record.is_open


@settings(max_examples=100)
@given(st.data())
def test_a_restore_in_the_middle_changes_nothing(data: st.DataObject) -> None:
    events = data.draw(lives())
    cut = data.draw(st.integers(0, len(events)))
    whole, halves = Orders(), Orders()
    for event in events:
        whole.apply(event)
    for event in events[:cut]:
        halves.apply(event)
    halves = msgspec.json.decode(msgspec.json.encode(halves, order="deterministic"), type=Orders)
    for event in events[cut:]:
        halves.apply(event)
    assert msgspec.json.encode(halves, order="deterministic") == msgspec.json.encode(whole, order="deterministic")

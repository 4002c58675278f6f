"""What an `order.*` event cannot say is refused when it is made, with a sentence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from botplatform.core.events import CATALOGUE, Event, OrderEvent, OrderStatus, Side, from_wire, to_wire
from botplatform.core.json_form import from_json, to_dict
from botplatform.core.order_rules import STATUS_OF
from botplatform.errors import InvalidEvent
from botplatform.testing import fill, order


def made(event_type: str, status: OrderStatus, **fields: Any) -> Event:
    payload = OrderEvent("order-1", "BTCUSDT", Side.BUY, fields.pop("quantity", Decimal(1)), status, **fields)
    return Event(event_type, payload, "paper", timestamp_ns=1, id="it")


def test_every_type_of_an_order_has_its_status() -> None:
    assert set(STATUS_OF) == {event_type for event_type, kind in CATALOGUE.items() if kind is OrderEvent}
    assert set(STATUS_OF.values()) == set(OrderStatus)


@pytest.mark.parametrize("event_type", STATUS_OF)
@pytest.mark.parametrize("status", OrderStatus)
def test_a_status_that_contradicts_the_type_is_refused(event_type: str, status: OrderStatus) -> None:
    if status is STATUS_OF[event_type]:
        assert made(event_type, status).payload.status is status  # type: ignore[union-attr]  # it is an OrderEvent
        return
    with pytest.raises(InvalidEvent, match=f"{event_type} of the order order-1 has the status {status}: it has to be"):
        made(event_type, status)


def test_the_other_spelling_of_a_type_is_checked_as_well() -> None:
    assert made("order.canceled", OrderStatus.CANCELLED).type == "order.cancelled"
    with pytest.raises(InvalidEvent, match="the status FILLED"):
        made("order.canceled", OrderStatus.FILLED)


@pytest.mark.parametrize("name", ["quantity", "price", "last_qty", "last_px", "filled_qty", "avg_px"])
def test_an_amount_below_zero_is_refused(name: str) -> None:
    with pytest.raises(InvalidEvent, match=f"has the {name} -0.001: it cannot be below zero"):
        made("order.filled", OrderStatus.FILLED, **{name: Decimal("-0.001")})


def test_a_zero_with_a_sign_is_a_zero_and_a_rebate_is_below_zero() -> None:
    assert made("order.filled", OrderStatus.FILLED, last_px=Decimal("-0")).type == "order.filled"
    rebate = fill(commission="-0.5").payload
    assert isinstance(rebate, OrderEvent)
    assert rebate.commission == Decimal("-0.5")


def test_what_was_denied_says_what_was_asked_for() -> None:
    denied = made("order.denied", OrderStatus.DENIED, quantity=Decimal(-1))
    assert from_wire(to_wire(denied)) == denied


def test_what_comes_from_outside_is_checked_like_what_is_made_here() -> None:
    filled = to_dict(order("order.filled"))
    filled["payload"]["status"] = "DENIED"
    with pytest.raises(InvalidEvent, match="has the status DENIED: it has to be FILLED"):
        from_json(filled)
    rejected = to_wire(order("order.rejected"))
    with pytest.raises(InvalidEvent, match="has the status REJECTED: it has to be FILLED"):
        from_wire(rejected.replace(b"order.rejected", b"order.filled\x18\x00"[:12]).replace(b"\x12\x0e", b"\x12\x0c"))

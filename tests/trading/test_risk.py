"""Our own limits: each reason, and that cutting exposure is never stopped by a limit on size."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from botplatform.core.events import OrderEvent, TradingState
from botplatform.settings import InstrumentSettings, RiskSettings
from botplatform.testing import order
from botplatform.trading.instruments import Instrument
from botplatform.trading.reasons import Reason
from botplatform.trading.risk import RiskContext, check

LIMITS = RiskSettings(
    max_order_notional=Decimal(1_000),
    max_position_notional=Decimal(2_500),
    max_open_orders=3,
    max_price_deviation=0.1,
)
CONTEXT = RiskContext(
    limits=LIMITS,
    instrument=Instrument.of("BTCUSDT", InstrumentSettings.model_validate({})),
    state=TradingState.ACTIVE,
    state_reason="",
    market_price=Decimal(100),
    leg_qty=Decimal(0),
    opening_qty=Decimal(0),
    open_orders=0,
)


def wanted(**fields: Any) -> OrderEvent:
    payload = order("order.submitted", **({"quantity": 2} | fields)).payload
    assert isinstance(payload, OrderEvent)
    return payload


LIMIT = {"order_type": "LIMIT", "price": Decimal(100)}


@pytest.mark.parametrize(
    ("fields", "context", "reason"),
    [
        ({}, {}, None),
        (LIMIT, {}, None),
        ({}, {"state": TradingState.HALTED}, Reason.HALTED),
        ({"reduce_only": True}, {"state": TradingState.HALTED}, Reason.HALTED),
        ({}, {"state": TradingState.REDUCING}, Reason.REDUCING),
        ({"reduce_only": True}, {"state": TradingState.REDUCING}, None),
        ({}, {"market_price": None}, Reason.NO_MARKET),
        ({}, {"market_price": Decimal(0)}, Reason.NO_MARKET),
        ({"order_type": "LIMIT"}, {}, Reason.INVALID_PRICE),
        ({"order_type": "LIMIT", "price": Decimal(0)}, {}, Reason.INVALID_PRICE),
        (LIMIT | {"price": Decimal(110)}, {}, None),
        (LIMIT | {"price": Decimal("110.01")}, {}, Reason.PRICE_DEVIATION),
        (LIMIT | {"price": Decimal("89.99")}, {}, Reason.PRICE_DEVIATION),
        (LIMIT | {"time_in_force": "GTD"}, {}, Reason.INVALID_TIME_IN_FORCE),
        (LIMIT | {"post_only": True}, {}, None),
        (LIMIT | {"post_only": True, "time_in_force": "IOC"}, {}, Reason.INVALID_TIME_IN_FORCE),
        ({"post_only": True}, {}, Reason.INVALID_TIME_IN_FORCE),
        ({"quantity": 0}, {}, Reason.BELOW_MIN_QUANTITY),
        ({"quantity": Decimal("0.049")}, {}, Reason.BELOW_MIN_NOTIONAL),
        ({"quantity": Decimal("0.049"), "reduce_only": True}, {}, None),
        ({"quantity": 10}, {}, None),
        ({"quantity": Decimal("10.001")}, {}, Reason.MAX_ORDER_NOTIONAL),
        (LIMIT | {"price": Decimal(101), "quantity": 10}, {}, Reason.MAX_ORDER_NOTIONAL),
        ({"quantity": 20, "reduce_only": True}, {}, None),
        ({}, {"leg_qty": Decimal(23)}, None),
        ({}, {"leg_qty": Decimal(20), "opening_qty": Decimal(3)}, None),
        ({}, {"leg_qty": Decimal(20), "opening_qty": Decimal("3.1")}, Reason.MAX_POSITION_NOTIONAL),
        ({"reduce_only": True}, {"leg_qty": Decimal(90)}, None),
        ({}, {"open_orders": 3}, Reason.MAX_OPEN_ORDERS),
        ({"reduce_only": True}, {"open_orders": 3}, None),
    ],
)
def test_what_is_denied_and_why(fields: dict[str, Any], context: dict[str, Any], reason: Reason | None) -> None:
    denial = check(wanted(**fields), CONTEXT._replace(**context))
    assert (denial.reason if denial else None) is reason


def test_a_denial_says_the_numbers_and_the_setting() -> None:
    denial = check(wanted(quantity=11), CONTEXT)
    assert denial is not None
    assert "1100" in denial.text
    assert "risk.max_order_notional is 1000" in denial.text


def test_a_halt_is_told_with_its_reason() -> None:
    denial = check(wanted(), CONTEXT._replace(state=TradingState.HALTED, state_reason="flash crash"))
    assert denial is not None
    assert "flash crash" in denial.text


def test_checking_changes_nothing() -> None:
    payload = wanted()
    copy = replace(payload)
    check(payload, CONTEXT)
    assert payload == copy

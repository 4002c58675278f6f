"""The last gate and the dates of decisions: neither old ones nor ones from the future pass."""

from __future__ import annotations

import pytest

from botplatform.core.events import OrderEvent
from botplatform.runtime.gate import refusal
from botplatform.runtime.trading_state import MAY_TRADE
from botplatform.testing import order
from botplatform.trading.reasons import Reason


@pytest.mark.parametrize(("age_s", "passes"), [(0, True), (4.9, True), (5.1, False), (-4.9, True), (-5.1, False)])
def test_a_decision_passes_only_while_its_date_is_near(age_s: float, passes: bool) -> None:
    payload = order().payload
    assert isinstance(payload, OrderEvent)
    refused = refusal(payload, MAY_TRADE, round(age_s * 1e9), 5.0)
    assert (refused is None) is passes
    if refused is not None:
        assert refused[0] is Reason.STALE_DECISION

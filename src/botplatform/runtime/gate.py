"""The last gate before a venue: checked in the process that is about to call, just before it calls."""

from __future__ import annotations

from typing import Final

from botplatform.core.events import OrderEvent, TradingState
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.trading.reasons import Reason

__all__ = ["GATEWAY", "refusal"]

GATEWAY: Final = "gateway"
"""The source of what the gateways before a venue say on their own account: denied at the last gate, unknown."""


def refusal(order: OrderEvent, trading: TradingStateRecord, age_ns: int, max_age_s: float) -> tuple[Reason, str] | None:
    """Say why an order must not be sent now; None lets it through.

    `age_ns` is how long ago its decision was made. REDUCING lets only orders through that cut exposure.
    """
    if trading.state is TradingState.HALTED:
        return Reason.HALTED, f"trading is halted: {trading.reason or 'no reason was given'}"
    if trading.state is TradingState.REDUCING and not order.reduce_only:
        return Reason.REDUCING, f"only orders that cut exposure may pass: {trading.reason or 'no reason was given'}"
    if age_ns < -max_age_s * 1e9:
        text = f"the decision is dated {-age_ns / 1e9:.3f} s in the future: set the clocks right"
        return Reason.STALE_DECISION, f"{text}; execution.max_decision_age_s is {max_age_s:g} s, either way"
    if age_ns > max_age_s * 1e9:
        return (
            Reason.STALE_DECISION,
            f"the decision is {age_ns / 1e9:.3f} s old, the limit execution.max_decision_age_s is {max_age_s:g} s",
        )
    return None

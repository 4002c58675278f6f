"""What a person hears of a reconciliation, as events."""

from __future__ import annotations

from typing import Final

from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.core.seam import derive_id
from botplatform.exchanges.exchange import Exchange
from botplatform.runtime.gate import GATEWAY
from botplatform.trading.reconciliation import (
    Action,
    WarnConflictingFill,
    WarnForeignOrder,
    WarnForgottenOrder,
    WarnOverfill,
    WarnPositionDrift,
    WarnStillOpen,
)

__all__ = ["not_reconciled", "warning_of"]

MESSAGE_LIMIT: Final = 500


def warning_of(action: Action, exchange: Exchange, began_ns: int, now_ns: int) -> Event:
    """Make the event of a difference that is left: an error where a position is wrong, else a warning."""
    code, symbol, text = _words(action, exchange.venue)
    wrong = isinstance(action, WarnPositionDrift | WarnOverfill | WarnStillOpen)
    return _event(exchange, code, symbol, text, wrong=wrong, of=(began_ns, *action), now_ns=now_ns)


def not_reconciled(exchange: Exchange, began_ns: int, failures: int, why: str, now_ns: int) -> Event:
    """Make the `system.error` of a venue that cannot be compared with: nothing is sent until it can."""
    text = (
        f"{exchange.venue} could not be compared with the log in {failures} attempts, so nothing is sent to it: {why}"
    )
    return _event(exchange, "NOT_RECONCILED", "", text, wrong=True, of=(began_ns, failures), now_ns=now_ns)


def _words(action: Action, venue: str) -> tuple[str, str, str]:
    """Return code, symbol and sentence."""
    if isinstance(action, WarnForeignOrder):
        text = f"the order {action.order_id} ({action.venue_order_id}) works at {venue} and is none of ours"
        return "FOREIGN_ORDER", action.symbol, f"{text}: cancel it there if nobody else trades on this account"
    if isinstance(action, WarnForgottenOrder):
        text = f"{venue} states that it never had the order {action.order_id}, which has executions in the log"
        return "FORGOTTEN_ORDER", action.symbol, f"{text}: has the venue begun a new book?"
    if isinstance(action, WarnStillOpen):
        text = f"the order {action.order_id} is {action.ours} by the log and works at {venue}"
        return "STILL_OPEN", action.symbol, f"{text}: cancel it there"
    if isinstance(action, WarnConflictingFill):
        text = f"the execution {action.trade_id} of {action.order_id} is {action.theirs} at {venue} and {action.ours}"
        return "CONFLICTING_FILL", action.symbol, f"{text} in the log, which keeps the first"
    if isinstance(action, WarnOverfill):
        text = f"{venue} lists {action.quantity} as {action.trade_id} of {action.order_id}, more than was asked for"
        return "OVERFILL", action.symbol, f"{text}: it is not counted"
    assert isinstance(action, WarnPositionDrift)
    text = f"the {action.side} leg of {action.symbol} is {action.theirs} at {venue} and {action.ours} in the log"
    return "POSITION_DRIFT", action.symbol, f"{text}, and no order of ours explains it"


def _event(
    exchange: Exchange, code: str, symbol: str, text: str, *, wrong: bool, of: tuple[object, ...], now_ns: int
) -> Event:
    made = derive_id("reconciliation", exchange.venue, exchange.account_id, code, symbol, *of)
    payload = SystemEvent(
        GATEWAY, text[:MESSAGE_LIMIT], Severity.ERROR if wrong else Severity.WARNING, code=code, symbol=symbol
    )
    kind = "system.error" if wrong else "system.warning"
    return Event(kind, payload, GATEWAY, 0.0, now_ns, now_ns, made, "", made)

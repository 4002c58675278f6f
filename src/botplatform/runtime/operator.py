"""What people do to a running platform: halt, reduce and resume trading, durably and with a reason."""

from __future__ import annotations

from typing import Final

from botplatform.core.event_bus import DurableEventBus
from botplatform.core.events import Event, TradingEvent, TradingState
from botplatform.core.seam import Clock, random_id
from botplatform.runtime.trading_state import TradingStateRecord, TradingStateStore

__all__ = ["change_trading_state"]

TYPES: Final = {
    TradingState.ACTIVE: "trading.resumed",
    TradingState.REDUCING: "trading.reducing",
    TradingState.HALTED: "trading.halted",
}


async def change_trading_state(
    bus: DurableEventBus, store: TradingStateStore, clock: Clock, state: TradingState, *, reason: str, changed_by: str
) -> TradingStateRecord:
    """Store the state, from where the last gate reads it, then announce it; return what it was before.

    It holds from the moment it is stored: the next order at any gate meets it, whether or not anybody has heard
    the announcement.
    """
    before = await store.read()
    now = clock.now_ns()
    await store.write(TradingStateRecord(state, reason, changed_by, now))
    event_id = random_id()
    payload = TradingEvent(state, reason, changed_by)
    await bus.publish(Event(TYPES[state], payload, "operator", timestamp_ns=now, correlation_id=event_id, id=event_id))
    return before

"""The last gate before a venue on the network: everything that is asked just before an order is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from botplatform.core.event_bus import Right
from botplatform.core.events import OrderEvent
from botplatform.core.seam import Clock
from botplatform.runtime.gate import refusal
from botplatform.runtime.reconciler import Reconciler
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.trading.reasons import Reason

__all__ = ["LastGate"]

Refusal = tuple[Reason, str]


class LastGate(NamedTuple):
    """What an order has to pass: the right to send, the reconciliation, the trading state, its age, the account."""

    clock: Clock
    trading: Callable[[], Awaitable[TradingStateRecord]]
    room: Callable[[OrderEvent], Awaitable[Refusal | None]] | None
    right: Callable[[], Right | None]
    reconciler: Reconciler
    max_age_s: float

    async def ask(self, order: OrderEvent, decided_ns: int, *, again: bool) -> tuple[Refusal | None, int]:
        """Say why an order must not be sent, and when it was looked at; the trading state is read last.

        The time is taken before the right to send is looked at: however long the process is paused afterwards,
        the request is as old as it is. With `again` the reconciliation itself sends; what was decided before it began
        waits for its end, in the order of its symbol, as long as it is not too old; what is decided meanwhile is denied.
        """
        while True:
            refused = await self._refusal(order, decided_ns, again=again)
            if refused is None and self.room is not None:
                refused = await self.room(order) or await self._refusal(order, decided_ns, again=again)
            checked_ns, right = self.clock.now_ns(), self.right()
            compared = again or refused is not None or self.reconciler.done
            if compared and (right is None or right.valid):
                return refused, checked_ns

    async def _refusal(self, order: OrderEvent, decided_ns: int, *, again: bool) -> Refusal | None:
        """Say why an order must not be sent; wait while somebody else may have the right to send it."""
        right = self.right()
        if right is not None and not right.valid:
            await right.wait_valid()
        text = None if again else await self.reconciler.refusal(decided_ns, self.max_age_s)
        if text is not None:
            return Reason.STALE_DECISION, text
        trading = await self.trading()
        return refusal(order, trading, self.clock.now_ns() - decided_ns, self.max_age_s)

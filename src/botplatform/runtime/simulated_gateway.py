"""The gateway to a venue that lives in this process: effects go in, `order.*` events come out, synchronously."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from botplatform.core.engine import CancelOrder, Cause, PendingEffect, SubmitOrder
from botplatform.core.events import Event, MarketEvent, OrderEvent, OrderType, PositionSide, TimeInForce
from botplatform.core.seam import Clock
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest, SimulatedExchange
from botplatform.exchanges.reports import denied_event, report_to_event
from botplatform.runtime.gate import GATEWAY, refusal
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.trading.orders import FINISHED, OrderRecord
from botplatform.trading.reasons import Reason

__all__ = ["SimulatedGateway", "order_request"]

MAX_CONTEXTS: Final = 10_000
"""Orders at the venue that are remembered here beside the engine's state, which has them as well: only open ones."""


def order_request(order: OrderEvent) -> OrderRequest:
    """Translate an order's intent into what the venue gets."""
    return OrderRequest(
        client_order_id=order.order_id,
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        order_type=order.order_type or OrderType.MARKET,
        price=order.price if order.order_type is OrderType.LIMIT else None,
        time_in_force=order.time_in_force or TimeInForce.GTC,
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        position_side=order.position_side or PositionSide.LONG,
    )


class SimulatedGateway:
    """Shows the market to the venue, sends it what passes the last gate, and makes events of its reports."""

    def __init__(
        self,
        venue: SimulatedExchange,
        clock: Clock,
        max_decision_age_s: float,
        lookup: Callable[[str], OrderRecord | None],
    ) -> None:
        self.venue = venue
        self.source = venue.venue
        self._clock = clock
        self._max_age_s = max_decision_age_s
        self._lookup = lookup
        self._contexts: dict[str, tuple[OrderEvent, Cause]] = {}

    def on_market(self, snapshot: MarketEvent) -> list[Event]:
        """Move the venue on to this snapshot; return what it reports."""
        reports = self.venue.on_market(snapshot)
        return self._events(reports) if reports else []

    def refusal(self, pending: PendingEffect, trading: TradingStateRecord) -> tuple[Reason, str] | None:
        """Ask the last gate about an effect; cancels always pass."""
        effect = pending.effect
        if type(effect) is not SubmitOrder:
            return None
        return refusal(effect.order, trading, self._clock.now_ns() - pending.triggered_ns, self._max_age_s)

    def perform(
        self,
        pending: PendingEffect,
        trading: TradingStateRecord | None,
        no_room: tuple[Reason, str] | None = None,
    ) -> list[Event]:
        """Carry out one effect; return what the venue, or the last gate, says at once.

        Without a trading state the gate is open: only for what is known to have passed it before a restart.
        `no_room` says that the limit of the account leaves no room.
        """
        effect = pending.effect
        if type(effect) is SubmitOrder:
            refused = no_room if trading is None else self.refusal(pending, trading) or no_room
            return self._submit(effect.order, pending, refused)
        if type(effect) is CancelOrder:
            return self._events(self.venue.cancel(effect.order.order_id, effect.order.symbol))
        return []

    def _submit(self, order: OrderEvent, pending: PendingEffect, refused: tuple[Reason, str] | None) -> list[Event]:
        now, submitted = self._clock.now_ns(), pending.cause
        cause = Cause(submitted.id, submitted.correlation_id)
        if refused is not None:
            reason, text = refused
            at_ns = submitted.timestamp_ns
            return [denied_event(order, cause, reason, text, timestamp_ns=at_ns, created_ns=now, source=GATEWAY)]
        if len(self._contexts) >= MAX_CONTEXTS:
            self._contexts.pop(next(iter(self._contexts)))
        self._contexts[order.order_id] = (order, cause)
        return self._events(self.venue.submit(order_request(order)))

    def _events(self, reports: list[ExchangeReport]) -> list[Event]:
        now = self._clock.now_ns()
        events = []
        for report in reports:
            context = self._context(report.client_order_id)
            if context is not None:
                order, cause = context
                if report.status in FINISHED:
                    self._contexts.pop(report.client_order_id, None)
                events.append(report_to_event(report, order, cause, source=self.source, created_ns=now))
        return events

    def _context(self, order_id: str) -> tuple[OrderEvent | OrderRecord, Cause] | None:
        """Find what an order was for: sent by this process, or known to the engine from the log."""
        sent = self._contexts.get(order_id)
        if sent is not None:
            return sent
        record = self._lookup(order_id)
        return None if record is None else (record, Cause(record.submitted_id, record.correlation_id))

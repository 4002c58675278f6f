"""The log and the venue, as reconciliation compares them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from botplatform.core.engine import Cause
from botplatform.core.events import Event, OrderStatus, PositionSide, Side
from botplatform.exchanges.reports import report_to_event
from botplatform.testing import order
from botplatform.trading.orders import Orders
from botplatform.trading.positions import Positions
from botplatform.trading.reconciliation import Action, Ours, PublishReport, RejectNeverThere
from botplatform.trading.venue_report import ExchangeReport

S = OrderStatus
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
BTC_LONG = ("BTCUSDT", LONG)
PROVES_NS = 1_000


def report(status: OrderStatus, filled: int | str = 0, order_id: str = "order-1", **fields: Any) -> ExchangeReport:
    given: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "quantity": Decimal(4),
        "venue_order_id": f"venue-{order_id}",
        "version": 1,
        "timestamp_ns": 1,
        "avg_px": Decimal(100) if Decimal(filled) else None,
    }
    return ExchangeReport(client_order_id=order_id, status=status, filled_qty=Decimal(filled), **(given | fields))


def execution(
    number: int, last: int | str = 1, filled: int | str = 1, price: int = 100, **fields: Any
) -> ExchangeReport:
    status = S.FILLED if Decimal(filled) == 4 else S.PARTIALLY_FILLED
    numbers = {"last_qty": Decimal(last), "last_px": Decimal(price)}
    return report(status, filled, trade_id=f"trade-{number}", **(numbers | fields))


class Log:
    """Orders and legs, folded from events, as the log has them."""

    def __init__(self, *events: Event) -> None:
        self.orders, self.positions = Orders(), Positions()
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        applied = self.orders.apply(event)
        if applied.fill is not None:
            self.positions.apply(applied.fill)

    @property
    def ours(self) -> Ours:
        held = {
            (symbol, side): leg.quantity
            for symbol in self.positions.symbols()
            for side, leg in zip(PositionSide, self.positions.by_symbol(symbol), strict=True)
            if leg.quantity
        }
        return Ours({**self.orders.finished, **self.orders.working}, held)

    def do(self, actions: Iterable[Action]) -> None:
        """Do what has to be published."""
        for action in actions:
            if isinstance(action, PublishReport):
                known = self.orders.get(action.order_id)
                assert known is not None
                cause = Cause(known.submitted_id, known.correlation_id)
                self.take(report_to_event(action.report, known, cause, "paper", 0, reconciliation=True))
            elif isinstance(action, RejectNeverThere):
                self.take(order("order.rejected", order_id=action.order_id, quantity=4))


def publishes(*reports: ExchangeReport) -> list[Action]:
    return [PublishReport(each.client_order_id, each) for each in reports]

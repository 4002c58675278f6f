"""What a venue says about one order, in our words."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from botplatform.core.events import LiquiditySide, OrderStatus, Side

__all__ = ["ExchangeReport"]


class ExchangeReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a venue says about one order: an answer, an execution report or the result of a query."""

    client_order_id: str
    symbol: str
    status: OrderStatus
    """ACCEPTED, PARTIALLY_FILLED, FILLED, REJECTED, CANCELLED or EXPIRED."""
    venue_order_id: str
    version: int
    """Grows with each report about the order; with `venue_order_id` it names the report."""
    timestamp_ns: int
    """When the venue says it happened."""
    side: Side
    quantity: Decimal
    price: Decimal | None = None
    filled_qty: Decimal = Decimal(0)
    leaves_qty: Decimal = Decimal(0)
    avg_px: Decimal | None = None
    trade_id: str = ""
    """Of a fill: the venue's id of the execution."""
    last_qty: Decimal | None = None
    last_px: Decimal | None = None
    commission: Decimal | None = None
    commission_currency: str = ""
    liquidity_side: LiquiditySide | None = None
    reason_code: str = ""
    reason_text: str = ""

"""The paper venue with a plain market, what is sent to it, and what it told."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from botplatform.core.events import MarketEvent, OrderBook, OrderStatus, OrderType, Side
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.paper.venue import PaperVenue
from botplatform.settings import ExchangeSettings, InstrumentSettings
from botplatform.trading.instruments import Instruments

S = OrderStatus
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
BOOK = OrderBook((99.0, 98.0, 97.0), (1.0, 2.0, 4.0), (101.0, 102.0, 103.0), (1.0, 2.0, 4.0))


def venue(**changed: Any) -> PaperVenue:
    plain: dict[str, Any] = {"latency_ms": 100, "latency_jitter_ms": 0, "partial_fill_share": 0, "spread_bps": 100}
    lots = InstrumentSettings(tick_size=Decimal("0.01"), lot_step=Decimal("0.01"))
    return PaperVenue(ExchangeSettings(**(plain | changed)), Instruments({"BTCUSDT": lots}))


def at(seconds: float, price: float = 100.0, **fields: Any) -> MarketEvent:
    return MarketEvent(fields.pop("symbol", "BTCUSDT"), price, timestamp_ns=START + round(seconds * SECOND), **fields)


def buy(name: str = "a", quantity: str = "1", **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY} | fields
    return OrderRequest(client_order_id=name, quantity=Decimal(quantity), **known)


def limit(name: str = "a", price: str = "100", quantity: str = "1", **fields: Any) -> OrderRequest:
    return buy(name, quantity, order_type=OrderType.LIMIT, price=Decimal(price), **fields)


def close(name: str = "c", quantity: str = "1", **fields: Any) -> OrderRequest:
    return buy(name, quantity, side=Side.SELL, reduce_only=True, **fields)


def told(reports: list[ExchangeReport]) -> list[tuple[str, OrderStatus]]:
    return [(report.client_order_id, report.status) for report in reports]


def fills(reports: list[ExchangeReport]) -> list[tuple[str, str]]:
    return [(str(report.last_qty), str(report.last_px)) for report in reports if report.trade_id]

"""The journal of orders and fills: the `order.*` events of one transaction, folded into the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from botplatform.core.events import Event, LiquiditySide, OrderEvent, PositionSide, Side
from botplatform.store.event_store import StoredFill
from botplatform.trading.orders import Fill, OrderRecord, Orders

__all__ = ["FILL_COLUMNS", "decode_order", "fill_of_row", "write"]

FILL_COLUMNS: Final = ", ".join(StoredFill._fields)
ORDER_COLUMNS: Final = (
    "order_id, symbol, venue, account_id, strategy, side, position_side, order_type, time_in_force, quantity, price, "
    "status, is_open, filled_qty, avg_px, commission, venue_order_id, reason_code, reason_text, decision_id, "
    "correlation_id, submitted_ns, updated_ns, record"
)
_NAMES: Final = ORDER_COLUMNS.split(", ")
_UPSERT_ORDER: Final = (
    f"INSERT INTO orders ({ORDER_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))}) "  # noqa: S608  # constants only
    f"ON CONFLICT (order_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])}"
)
_INSERT_FILL: Final = (
    f"INSERT OR IGNORE INTO fills ({FILL_COLUMNS}) "  # noqa: S608  # constants only
    f"VALUES ({', '.join('?' * len(StoredFill._fields))})"
)
_UNBOUNDED: Final = 1 << 30  # the fold lives for one transaction only, and must not forget within it


def decode_order(record: bytes) -> OrderRecord:
    """Return an order as it was written; raise `msgspec.MsgspecError` for anything else."""
    return msgspec.json.decode(record, type=OrderRecord)


def fill_of_row(row: tuple[Any, ...]) -> StoredFill:
    """Return a fill of a row of `FILL_COLUMNS`."""
    raw = StoredFill._make(row)
    return raw._replace(
        side=Side(raw.side),
        position_side=PositionSide(raw.position_side),
        quantity=Decimal(raw.quantity),
        price=Decimal(raw.price),
        commission=Decimal(raw.commission),
        liquidity_side=None if raw.liquidity_side is None else LiquiditySide(raw.liquidity_side),
    )


def write(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Fold new `order.*` events into the tables, inside the caller's transaction.

    The fold is that of `trading.orders`, on the records as they were written: nothing is kept between two calls,
    so that a crash leaves the journal equal to the events.
    """
    orders = Orders(keep=_UNBOUNDED)
    changed: dict[str, int] = {}
    for event in events:
        report = event.payload
        assert type(report) is OrderEvent
        _load(connection, orders, report)
        applied = orders.apply(event)
        if applied.order is None:
            continue
        if report.reason_code and not applied.order.reason_code:
            applied.order.reason_code, applied.order.reason_text = report.reason_code, report.reason_text
        changed[applied.order.order_id] = event.timestamp_ns
        if applied.fill is not None:
            connection.execute(_INSERT_FILL, _fill_row(applied.fill, event, report))
    for order_id, updated_ns in changed.items():
        order = orders.get(order_id)
        assert order is not None
        connection.execute(_UPSERT_ORDER, _order_row(order, updated_ns))


def _load(connection: sqlite3.Connection, orders: Orders, report: OrderEvent) -> None:
    """Put what the journal knows of the order, and of the execution, into the fold."""
    order = orders.get(report.order_id)
    if order is None:
        row = connection.execute("SELECT record FROM orders WHERE order_id = ?", (report.order_id,)).fetchone()
        if row is None:
            count = connection.execute("SELECT coalesce(max(number), 0) FROM orders").fetchone()[0]
            orders.count = max(orders.count, count)
        else:
            order = decode_order(row[0])
            (orders.working if order.is_open else orders.finished)[order.order_id] = order
            for trade_id in order.trades:
                orders.trade_orders[_trade_key(order.venue, order.symbol, trade_id)] = order.order_id
    if report.trade_id:
        venue = report.venue if order is None else order.venue
        found = connection.execute(
            "SELECT order_id FROM fills WHERE venue = ? AND symbol = ? AND trade_id = ?",
            (venue, report.symbol, report.trade_id),
        ).fetchone()
        if found is not None:
            orders.trade_orders[_trade_key(venue, report.symbol, report.trade_id)] = found[0]


def _trade_key(venue: str, symbol: str, trade_id: str) -> str:
    return f"{venue}|{symbol}|{trade_id}"  # as the fold in trading.orders writes it


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _order_row(order: OrderRecord, updated_ns: int) -> tuple[Any, ...]:
    return (
        order.order_id,
        order.symbol,
        order.venue,
        order.account_id,
        order.strategy,
        order.side,
        order.position_side,
        order.order_type,
        order.time_in_force,
        str(order.quantity),
        _text(order.price),
        order.status,
        order.is_open,
        str(order.filled_qty),
        _text(order.avg_px),
        str(order.commission),
        order.venue_order_id,
        order.reason_code,
        order.reason_text,
        order.decision_id,
        order.correlation_id,
        order.submitted_ns,
        updated_ns,
        msgspec.json.encode(order, order="deterministic"),
    )


def _fill_row(fill: Fill, event: Event, report: OrderEvent) -> tuple[Any, ...]:
    order = fill.order
    return (
        order.venue,
        order.symbol,
        fill.trade_id,
        order.order_id,
        order.account_id,
        order.strategy,
        order.side,
        order.position_side,
        str(fill.quantity),
        str(fill.price),
        str(fill.commission),
        fill.commission_currency,
        report.liquidity_side,
        event.timestamp_ns,
        event.id,
        order.correlation_id,
    )

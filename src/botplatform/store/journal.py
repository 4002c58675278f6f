"""The journal of orders and fills: the `order.*` events of one transaction, folded into the tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from botplatform.core.events import Event, LiquiditySide, OrderEvent, PositionSide, Side
from botplatform.store.event_store import StoredFill
from botplatform.trading.orders import Fill, OrderRecord, Orders

__all__ = ["FILL_COLUMNS", "ORDER_COLUMNS", "FillKey", "JournalRows", "decode_order", "fill_of_row", "write"]

FILL_COLUMNS: Final = StoredFill._fields
ORDER_COLUMNS: Final = (
    *("order_id", "symbol", "venue", "account_id", "strategy", "side", "position_side", "order_type", "time_in_force"),
    *("quantity", "price", "status", "is_open", "filled_qty", "avg_px", "commission", "venue_order_id", "reason_code"),
    *("reason_text", "decision_id", "correlation_id", "submitted_ns", "updated_ns", "record"),
)
FillKey: TypeAlias = tuple[str, str, str]
"""Venue, symbol and trade id: an execution counts once for them."""
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


class JournalRows(Protocol):
    """The tables of orders and fills, inside a transaction of the caller's."""

    def order_records(self, order_ids: Iterable[str]) -> Mapping[str, bytes]:
        """Return the records of the orders that are in the journal, by their ids."""

    def last_order_number(self) -> int:
        """Return the number of the newest order; 0 when there is none."""

    def fill_orders(self, fills: Iterable[FillKey]) -> Mapping[FillKey, str]:
        """Return the ids of the orders for which executions were counted; nothing for those that were not."""

    def put(self, orders: Sequence[tuple[Any, ...]], fills: Sequence[tuple[Any, ...]]) -> None:
        """Write orders (`ORDER_COLUMNS`) as they stand, and executions (`FILL_COLUMNS`) that are not there yet."""


def write(rows: JournalRows, events: Sequence[Event]) -> None:
    """Fold new `order.*` events into the tables, inside the caller's transaction.

    The fold is that of `trading.orders`, on the records as they were written: nothing is kept between two calls,
    so that a crash leaves the journal equal to the events.
    """
    orders = _known(rows, [report for event in events if type(report := event.payload) is OrderEvent])
    changed: dict[str, int] = {}
    fills: list[tuple[Any, ...]] = []
    for event in events:
        report = event.payload
        assert type(report) is OrderEvent
        applied = orders.apply(event)
        if applied.order is None:
            continue
        if report.reason_code and not applied.order.reason_code:
            applied.order.reason_code, applied.order.reason_text = report.reason_code, report.reason_text
        changed[applied.order.order_id] = event.timestamp_ns
        if applied.fill is not None:
            fills.append(_fill_row(applied.fill, event, report))
    written = []
    for order_id, updated_ns in changed.items():
        order = orders.get(order_id)
        assert order is not None
        written.append(_order_row(order, updated_ns))
    rows.put(written, fills)


def _known(rows: JournalRows, reports: Sequence[OrderEvent]) -> Orders:
    """Return the fold of what the journal knows of the orders, and of the executions, that are reported on."""
    orders = Orders(keep=_UNBOUNDED, count=rows.last_order_number())
    venues: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        venues[report.order_id].add(report.venue)
    for record in rows.order_records(venues).values():
        order = decode_order(record)
        venues[order.order_id].add(order.venue)
        (orders.working if order.is_open else orders.finished)[order.order_id] = order
        for trade_id in order.trades:
            orders.trade_orders[_trade_key(order.venue, order.symbol, trade_id)] = order.order_id
    asked = dict.fromkeys(
        (venue, report.symbol, report.trade_id)
        for report in reports
        if report.trade_id
        for venue in sorted(venues[report.order_id])
    )
    for key, order_id in rows.fill_orders(asked).items():
        orders.trade_orders[_trade_key(*key)] = order_id
    return orders


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

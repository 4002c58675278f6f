"""Events with sensible defaults: the same arguments make the same event, its id included.

Each builder takes the payload's fields by name, and for the envelope `at_s` (seconds after `START_NS`),
`source`, `cause` (the event that this one came of), `correlation_id` and `id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from botplatform.core.events import (
    SPELLINGS,
    ActionIntent,
    Event,
    MarketEvent,
    OrderEvent,
    Payload,
    Side,
    SignalEvent,
    StrategyEvent,
)
from botplatform.core.order_rules import STATUS_OF
from botplatform.core.seam import derive_id

START_NS: Final = 1_700_000_000_000_000_000
"""When tests begin: 14 November 2023, 22:13:20 UTC."""


def event(
    type: str,  # noqa: A002  # the event's own name for it
    payload: Payload,
    *,
    source: str = "test",
    at_s: float = 0.0,
    cause: Event | None = None,
    correlation_id: str = "",
    id: str = "",  # noqa: A002  # the event's own name for it
) -> Event:
    """Make an event; without `cause` and `correlation_id` it is the root of its own chain."""
    timestamp_ns = _time_ns(at_s)
    causation_id = cause.id if cause else ""
    made_id = id or derive_id("test", type, source, timestamp_ns, causation_id, correlation_id, payload)
    return Event(
        type,
        payload,
        source,
        timestamp_ns=timestamp_ns,
        correlation_id=correlation_id or (cause.correlation_id if cause else made_id),
        causation_id=causation_id,
        id=made_id,
    )


def market(
    symbol: str = "BTCUSDT",
    price: float = 100.0,
    *,
    source: str = "market_data",
    at_s: float = 0.0,
    cause: Event | None = None,
    correlation_id: str = "",
    id: str = "",  # noqa: A002  # the event's own name for it
    **fields: Any,
) -> Event:
    """Make a `market.snapshot`; further fields are those of `MarketEvent`."""
    payload = MarketEvent(symbol, price, timestamp_ns=fields.pop("timestamp_ns", _time_ns(at_s)), **fields)
    return event(
        "market.snapshot", payload, source=source, at_s=at_s, cause=cause, correlation_id=correlation_id, id=id
    )


def signal(
    values: Mapping[str, float] | None = None,
    symbol: str = "BTCUSDT",
    *,
    signal_name: str = "default",
    source: str = "signals",
    at_s: float = 0.0,
    cause: Event | None = None,
    correlation_id: str = "",
    id: str = "",  # noqa: A002  # the event's own name for it
) -> Event:
    """Make a `signal.snapshot`; its values are by default those of a quiet market."""
    calm = {"ema_fast": 100.0, "ema_slow": 100.0, "rsi": 50.0, "cvd": 0.0}
    payload = SignalEvent(symbol, signal_name, calm if values is None else values)
    return event(
        "signal.snapshot", payload, source=source, at_s=at_s, cause=cause, correlation_id=correlation_id, id=id
    )


def intent(type: str = "open", side: str = "long", size: Decimal | str | int = 1, **fields: Any) -> ActionIntent:  # noqa: A002  # the catalogue's name for it
    """Make an action of a decision; further fields are those of `ActionIntent`."""
    return ActionIntent(type, side, size, **fields)  # type: ignore[arg-type]  # spellings become what they mean


def decision(
    *actions: ActionIntent,
    symbol: str = "BTCUSDT",
    strategy: str = "test_strategy",
    reason: str = "",
    source: str = "strategy",
    at_s: float = 0.0,
    cause: Event | None = None,
    correlation_id: str = "",
    id: str = "",  # noqa: A002  # the event's own name for it
) -> Event:
    """Make a `strategy.decision`; without actions it opens one unit of the long leg."""
    payload = StrategyEvent(strategy, symbol, actions or (intent(),), reason)
    return event(
        "strategy.decision", payload, source=source, at_s=at_s, cause=cause, correlation_id=correlation_id, id=id
    )


def order(
    type: str = "order.submitted",  # noqa: A002  # the event's own name for it
    *,
    order_id: str = "order-1",
    symbol: str = "BTCUSDT",
    side: Side | str = Side.BUY,
    quantity: Decimal | str | int = 1,
    source: str = "execution",
    at_s: float = 0.0,
    cause: Event | None = None,
    correlation_id: str = "",
    id: str = "",  # noqa: A002  # the event's own name for it
    **fields: Any,
) -> Event:
    """Make an `order.*` event of the paper venue with the status that goes with its type.

    It buys for the long leg, or sells for the short leg, at market; further fields are those of `OrderEvent`.
    """
    side = Side(side)
    defaults: dict[str, Any] = {
        "status": STATUS_OF.get(SPELLINGS.get(type, type)),
        "client_order_id": order_id,
        "venue": "paper",
        "account_id": "paper",
        "strategy": "test_strategy",
        "position_side": "LONG" if side is Side.BUY else "SHORT",
        "order_type": "MARKET",
        "time_in_force": "GTC",
    }
    payload = OrderEvent(order_id, symbol, side, quantity, **(defaults | fields))  # type: ignore[arg-type]  # str is money
    return event(type, payload, source=source, at_s=at_s, cause=cause, correlation_id=correlation_id, id=id)


def fill(
    price: Decimal | str | int = 100,
    quantity: Decimal | str | int = 1,
    *,
    last_qty: Decimal | str | int | None = None,
    filled_qty: Decimal | str | int | None = None,
    trade_id: str = "trade-1",
    commission: Decimal | str | int = 0,
    **fields: Any,
) -> Event:
    """Make one execution of an order: `order.filled` when nothing is left of `quantity`, else `order.partial`.

    `last_qty` is this execution (by default all), `filled_qty` the sum so far (by default `last_qty`).
    """
    asked = Decimal(quantity)
    last = asked if last_qty is None else Decimal(last_qty)
    done = last if filled_qty is None else Decimal(filled_qty)
    defaults: dict[str, Any] = {
        "source": "paper",
        "quantity": asked,
        "last_qty": last,
        "last_px": Decimal(price),
        "filled_qty": done,
        "leaves_qty": max(asked - done, Decimal(0)),
        "avg_px": Decimal(price),
        "trade_id": trade_id,
        "commission": Decimal(commission),
        "commission_currency": "USDT",
        "liquidity_side": "TAKER",
    }
    return order("order.filled" if done >= asked else "order.partial", **(defaults | fields))


def _time_ns(at_s: float) -> int:
    return START_NS + round(at_s * 1e9)

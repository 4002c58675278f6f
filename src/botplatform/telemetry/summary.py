"""Every event as one line for people: in log records, the report, the live view and `events tail`.

>>> from botplatform.core.events import Event, MarketEvent
>>> summarise(Event("market.snapshot", MarketEvent("BTCUSDT", 42000.5), source="feed", timestamp=1.0))
'market.snapshot BTCUSDT 42000.5'
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from botplatform.core.events import (
    ActionIntent,
    Event,
    MarketEvent,
    NotificationEvent,
    OrderEvent,
    OrderType,
    Position,
    PositionLeg,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    SystemEvent,
    TradingEvent,
)

__all__ = ["TYPE_STYLES", "amount", "cents", "printable", "summarise", "utc"]

TYPE_STYLES: Final = {
    "market": "blue",
    "signal": "cyan",
    "strategy": "magenta",
    "order": "yellow",
    "state": "green",
    "notification": "bright_magenta",
    "system": "red",
    "trading": "red",
}
"""The colour of an event on a terminal, by the first part of its type."""

MAX_TEXT: Final = 300
"""Characters of free text in a summary; what is longer is cut and marked with an ellipsis."""
MAX_ITEMS: Final = 8
"""Positions, actions or values in a summary; the rest is counted."""


def amount(value: Decimal | float | None) -> str:
    """Write a number for people: no exponent, no zeros at the end; an absent one is `?`."""
    if value is None:
        return "?"
    if isinstance(value, Decimal):
        text = format(value, "f")
    else:
        text = f"{value:.10g}"
        if "e" in text:
            text = format(Decimal(text), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("", "-0") else text


def cents(value: Decimal) -> str:
    """Write a number for people with two decimals at most."""
    return amount(Decimal(f"{value:.2f}"))


def utc(time_ns: int) -> str:
    """Write a moment as `2022-01-01 00:00:00`, UTC; a dash for none."""
    return "-" if time_ns <= 0 else datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def summarise(event: Event) -> str:
    """Tell an event in one line: its type, then what matters of its payload.

    It never raises, and has no line breaks and no control characters: it is safe on a terminal.
    """
    line = f"{event.type} {_DETAILS[type(event.payload)](event.payload)}".rstrip()
    return line if line.isprintable() else printable(line)


def printable(text: str) -> str:
    """Replace what would move a terminal's cursor, or change its colours: blanks by a blank, the rest by a mark."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def _some(items: list[str]) -> str:
    rest = len(items) - MAX_ITEMS
    return ", ".join(items[:MAX_ITEMS]) + (f" and {rest} more" if rest > 0 else "")


def _market(payload: MarketEvent) -> str:
    parts = [payload.symbol, amount(payload.price)]
    book = payload.orderbook
    if book is not None and book.bid_prices and book.ask_prices:
        parts.append(f"bid {amount(book.bid_prices[0])} ask {amount(book.ask_prices[0])}")
    if payload.volume:
        parts.append(f"volume {amount(payload.volume)}")
    return " ".join(parts)


def _signal(payload: SignalEvent) -> str:
    values = [f"{name}={amount(float(f'{value:.6g}'))}" for name, value in sorted(payload.values.items())]
    return f"{payload.symbol} {payload.signal_name}: {_some(values) or 'warming up'}"


def _action(action: ActionIntent) -> str:
    if action.type == "cancel":
        return f"cancel {action.order_id or f'all {action.side}'}"
    limit = "" if action.limit_price is None else f" @ {amount(action.limit_price)}"
    return f"{action.type} {action.side} {amount(action.size)}{limit}"


def _strategy(payload: StrategyEvent) -> str:
    actions = _some([_action(action) for action in payload.actions]) or "nothing to do"
    reason = f": {_line(payload.reason)}" if payload.reason else ""
    return f"{payload.symbol} {actions} ({payload.strategy}){reason}"


def _order(payload: OrderEvent) -> str:
    quantity, price = payload.quantity, payload.price
    if payload.last_qty is not None:
        quantity, price = payload.last_qty, payload.last_px
    elif payload.order_type is OrderType.MARKET:
        price = None
    at = "" if price is None else f" @ {amount(price)}"
    who = f" ({payload.strategy})" if payload.strategy else ""
    reason = _line(": ".join(part for part in (payload.reason_code, payload.reason_text) if part))
    return f"{payload.symbol} {payload.side} {amount(quantity)}{at}{who}" + (f": {reason}" if reason else "")


def _leg(name: str, leg: PositionLeg | None) -> str:
    if leg is None or not leg.quantity:
        return ""
    return f" {name} {amount(leg.quantity)} @ {amount(leg.avg_px_open)}"


def _position(symbol: str, position: Position) -> str:
    return symbol + ((_leg("long", position.long) + _leg("short", position.short)) or " flat")


def _strategy_state(name: str, state: Any) -> str:
    if state.stopped_reason:
        return f"{name} stopped: {_line(state.stopped_reason)}"
    legs = [f"{leg.symbol}{_leg(str(leg.position_side).lower(), leg)}" for leg in state.legs if leg.quantity]
    return f"{name} {_some(legs) or 'flat'}"


def _state(payload: StateEvent) -> str:
    items = [_position(symbol, position) for symbol, position in sorted(payload.positions.items())]
    items += [_strategy_state(name, state) for name, state in sorted(payload.strategies.items())]
    parts = [_some(items)]
    if payload.equity is not None:
        parts.append(f"equity {amount(payload.equity)}")
    if payload.drawdown:
        parts.append(f"drawdown {cents(payload.drawdown * 100)} %")
    return ", ".join(part for part in parts if part)


def _system(payload: SystemEvent) -> str:
    if not payload.message and (payload.uptime_s or payload.events_in):
        return f"{payload.module} up {payload.uptime_s:.0f} s, {payload.events_in} in, {payload.events_out} out, lag {payload.lag}"
    about = " ".join(part for part in (payload.module, payload.symbol, payload.code) if part)
    return f"{about}: {_line(payload.message)}" if payload.message else about


def _notification(payload: NotificationEvent) -> str:
    held = f" (and {payload.suppressed} held back)" if payload.suppressed else ""
    return f"[{payload.priority or 'normal'}] {_line(payload.text)}{held}"


def _trading(payload: TradingEvent) -> str:
    by = f" by {_line(payload.changed_by)}" if payload.changed_by else ""
    reason = f": {_line(payload.reason)}" if payload.reason else ""
    return f"{payload.state}{by}{reason}"


_DETAILS: Final[dict[type, Callable[[Any], str]]] = {
    MarketEvent: _market,
    SignalEvent: _signal,
    StrategyEvent: _strategy,
    OrderEvent: _order,
    StateEvent: _state,
    SystemEvent: _system,
    NotificationEvent: _notification,
    TradingEvent: _trading,
}

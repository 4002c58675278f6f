"""The rules: what of an event people should hear, as pure functions from payloads to alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from decimal import ROUND_CEILING, Decimal
from typing import Final, NamedTuple

from botplatform.core.events import (
    OrderEvent,
    PositionLeg,
    PositionSide,
    Priority,
    Severity,
    StateEvent,
    SystemEvent,
    TradingEvent,
)
from botplatform.telemetry.summary import amount, cents

__all__ = [
    "SENDER",
    "Alert",
    "Levels",
    "drawdown",
    "fill",
    "large_positions",
    "order",
    "step_level",
    "system",
    "trading",
]

Levels = MutableMapping[str, int]
"""How many whole limits each watched value exceeded when it was last seen, by name; where 0, absent."""

SENDER: Final = "alert_sender"
"""The module that sends alerts: its own failures raise none, or a broken channel would alert about itself forever."""
HIGHEST_LEVEL: Final = Decimal(1_000_000)

RELEASE: Final = Decimal("0.9")
"""A level is left when the value is below this share of it: values that hover at a limit alert once."""


class Alert(NamedTuple):
    """Something that people should hear, before throttling."""

    rule: str
    """The rule that raised it."""
    text: str
    priority: Priority
    scope: str
    """What the rule is throttled by: the symbol, or what stands for it."""
    content: str
    """The same for what would say the same thing again."""
    symbol: str = ""
    once: bool = False
    """The same content is never told again; otherwise, not while the throttle holds it."""
    urgent: bool = False
    """Only the same content is held back, not the rule."""


def order(event_type: str, payload: OrderEvent, *, fills: bool) -> Alert | None:
    """Tell of a fill (where wanted), a rejection, a denial, or an order whose outcome nobody knows."""
    if event_type in ("order.filled", "order.partial"):
        return fill(payload) if fills else None
    told = _ORDERS.get(event_type)
    if told is None:
        return None
    rule, words, priority = told
    why = ": ".join(part for part in (payload.reason_code, payload.reason_text) if part)
    return Alert(
        rule,
        f"{_order(payload)} {words}" + (f": {why}" if why else ""),
        priority,
        payload.symbol,
        f"{event_type} {payload.order_id}",
        payload.symbol,
        once=True,
        urgent=priority is Priority.CRITICAL,
    )


def fill(payload: OrderEvent) -> Alert:
    """Tell of one execution, once per venue, symbol and trade id."""
    quantity = payload.quantity if payload.last_qty is None else payload.last_qty
    price = payload.avg_px if payload.last_px is None else payload.last_px
    leg = "" if payload.position_side is None else f", {payload.position_side.lower()} leg"
    done = "" if payload.filled_qty is None else f", {amount(payload.filled_qty)} of {amount(payload.quantity)} done"
    text = (
        f"{payload.symbol}: {payload.side} {amount(quantity)} filled at {amount(price)} ({payload.strategy}{leg}{done})"
    )
    execution = payload.trade_id or f"{payload.order_id} {payload.version} {amount(payload.filled_qty)}"
    content = f"fill {payload.venue} {payload.symbol} {execution}"
    return Alert("fill", text, Priority.LOW, payload.symbol, content, payload.symbol, once=True)


def _order(payload: OrderEvent) -> str:
    at = "" if payload.price is None else f" at {amount(payload.price)}"
    strategy = payload.strategy or "no strategy"
    return f"{payload.symbol}: the order to {payload.side} {amount(payload.quantity)}{at} ({strategy})"


_ORDERS: Final[Mapping[str, tuple[str, str, Priority]]] = {
    "order.rejected": ("rejection", "was rejected by the venue", Priority.HIGH),
    "order.denied": ("denial", "was denied by our own check", Priority.NORMAL),
    "order.unknown": (
        "unknown_order",
        "was sent, and nobody knows what came of it; its exposure stays reserved until the venue says",
        Priority.CRITICAL,
    ),
}


def system(event_type: str, payload: SystemEvent) -> Alert | None:
    """Tell of an error or a warning; how bad it says it is decides the priority."""
    if payload.module in (SENDER, "notifications"):
        return None
    rule = "error" if event_type == "system.error" else "warning"
    priority = _PRIORITIES.get(payload.severity, Priority.HIGH if rule == "error" else Priority.NORMAL)
    scope = payload.symbol or payload.module
    about = " ".join(part for part in (payload.module, payload.symbol, payload.code) if part)
    text = f"{rule} in {about}: {payload.message or 'no message'}"
    content = f"{rule} {payload.module} {payload.symbol} {payload.code} {payload.message}"
    return Alert(rule, text, priority, scope, content, payload.symbol, urgent=priority is Priority.CRITICAL)


_PRIORITIES: Final[Mapping[Severity | None, Priority]] = {
    Severity.INFO: Priority.LOW,
    Severity.WARNING: Priority.NORMAL,
    Severity.ERROR: Priority.HIGH,
    Severity.CRITICAL: Priority.CRITICAL,
}


def trading(event_type: str, payload: TradingEvent, event_id: str) -> Alert:
    """Tell of a change of the trading state; none is ever held back."""
    words, priority = _TRADING[event_type]
    by = f" by {payload.changed_by}" if payload.changed_by else ""
    why = f": {payload.reason}" if payload.reason else ""
    return Alert("trading", f"{words}{by}{why}", priority, event_id, event_id, once=True, urgent=True)


_TRADING: Final[Mapping[str, tuple[str, Priority]]] = {
    "trading.halted": ("trading was halted", Priority.CRITICAL),
    "trading.reducing": ("trading is limited to orders that cut exposure", Priority.HIGH),
    "trading.resumed": ("trading was resumed", Priority.NORMAL),
}


def large_positions(payload: StateEvent, limit: Decimal, levels: Levels) -> Iterator[Alert]:
    """Tell of each leg that is worth more than the limit, and again at each further multiple of it.

    A leg is that of one symbol and side, over all strategies, at the mark price. A limit of 0 turns the rule off.
    """
    if not limit:
        return
    for symbol, position in payload.positions.items():
        for side, leg in ((PositionSide.LONG, position.long), (PositionSide.SHORT, position.short)):
            value = Decimal(0) if leg is None else value_of(leg, side)
            if _rises(f"large_position {symbol} {side}", value, limit, levels):
                assert leg is not None
                text = (
                    f"{symbol}: the {side.lower()} leg is worth {cents(value)}, "
                    f"more than {amount(limit)} ({amount(leg.quantity)} at an average of {amount(leg.avg_px_open)})"
                )
                content = f"large_position {symbol} {side} {levels[f'large_position {symbol} {side}']}"
                yield Alert("large_position", text, Priority.HIGH, f"{symbol} {side}", content, symbol)


def value_of(leg: PositionLeg, side: PositionSide) -> Decimal:
    """Return what a leg is worth at the mark price: quantity times average, and the profit that is not realised."""
    cost = leg.quantity * leg.avg_px_open
    return cost + leg.unrealized_pnl if side is PositionSide.LONG else cost - leg.unrealized_pnl


def drawdown(payload: StateEvent, limit: Decimal, levels: Levels) -> Alert | None:
    """Tell when the drawdown passes the limit, and again at each further multiple of it; 0 turns the rule off."""
    value = payload.drawdown
    if not limit or value is None or not _rises("drawdown", value, limit, levels):
        return None
    share = cents(value * 100)
    equity = "" if payload.equity is None else f"; equity is {cents(payload.equity)}"
    text = f"the drawdown is {share} %, more than {amount(limit * 100)} %{equity}"
    return Alert("drawdown", text, Priority.HIGH, "", f"drawdown {levels['drawdown']}")


def _rises(name: str, value: Decimal, limit: Decimal, levels: Levels) -> bool:
    if value <= limit and name not in levels:
        return False
    before = levels.get(name, 0)
    now = step_level(before, value, limit)
    if now:
        levels[name] = now
    else:
        levels.pop(name, None)
    return now > before


def step_level(before: int, value: Decimal, limit: Decimal) -> int:
    """Return how many whole limits a value exceeds, given the level before: up at once, down with some play."""
    multiple = min(value / limit, HIGHEST_LEVEL)
    reached = max(int(multiple.to_integral_value(ROUND_CEILING)) - 1, 0)  # the limit itself is not more than it
    return reached if reached > before or multiple < before * RELEASE else before

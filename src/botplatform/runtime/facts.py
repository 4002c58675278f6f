"""What the engines of a process know about trading, taken out of their state when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from botplatform.core.events import OrderStatus, PositionSide
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.portfolio.engine import PortfolioEngine

__all__ = ["AccountFacts", "LogFacts", "OrderFacts", "account_facts", "order_facts"]

OPEN = (OrderStatus.SUBMITTED, OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.UNKNOWN)
"""What an order may be while it is not finished."""


@dataclass(slots=True)
class OrderFacts:
    """The orders of this process's partitions."""

    open: dict[OrderStatus, int] = field(default_factory=lambda: dict.fromkeys(OPEN, 0))
    """Orders that are not finished, by status."""


class LogFacts(NamedTuple):
    """The log, as whoever looks after its room has found it."""

    used: float
    """Share of its size that is used."""
    trimmed: int
    """Sequence up to which it was trimmed; 0 for never."""
    trimmed_s: float
    """What was stored later is still there: seconds since the UNIX epoch."""
    removed: int
    """Events that this process has removed because they were covered."""
    hold: tuple[str, str] | None
    """Why older events stay, and because of whom; None where none do."""


@dataclass(slots=True)
class AccountFacts:
    """What is held, and what it is worth."""

    held: dict[tuple[str, PositionSide], Decimal]
    """Quantity by symbol and side, over all strategies; flat ones are absent."""
    legs: dict[PositionSide, int]
    """Legs that hold something: one per account, venue, symbol, strategy and side."""
    realized: Decimal
    unrealized: Decimal
    fees: Decimal
    equity: Decimal
    drawdown: Decimal


def order_facts(engines: Iterable[ExecutionEngine]) -> OrderFacts:
    """Count the open orders of some engines."""
    found = OrderFacts()
    for status, count in Counter(order.status for engine in engines for order in engine.orders.open()).items():
        found.open[status] = count
    return found


def account_facts(engine: PortfolioEngine) -> AccountFacts:
    """Take what portfolio has: sums are made when asked, an account is a few fields."""
    account = engine.account
    held: dict[tuple[str, PositionSide], Decimal] = {}
    legs = dict.fromkeys(PositionSide, 0)
    for key, leg in account.positions.legs():
        if leg.quantity:
            place = key.symbol, key.side
            held[place] = held.get(place, Decimal(0)) + leg.quantity
            legs[key.side] += 1
    return AccountFacts(
        held,
        legs,
        account.realized_pnl,
        account.unrealized_pnl,
        account.commission,
        account.equity,
        account.drawdown,
    )

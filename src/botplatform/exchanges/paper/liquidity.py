"""What one market snapshot offers to take: the levels of its book, or a spread around its price; given away once."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final, NamedTuple

from botplatform.core.events import MarketEvent, Side
from botplatform.trading.instruments import Instrument

__all__ = ["Liquidity", "Take"]

CONTEXT: Final = Context(prec=34)
_BUY: Final = Side.BUY  # looked up once: members of an enum are slow to look up


class Take(NamedTuple):
    """A quantity taken at one price."""

    price: Decimal
    quantity: Decimal


class _Level:
    __slots__ = ("left", "price")

    def __init__(self, price: float, size: float) -> None:
        self.price = Decimal(repr(price))
        self.left = Decimal(repr(size))


class _Side:
    """The levels of one side, made exact only as far as somebody looks."""

    __slots__ = ("_made", "_prices", "_sizes")

    def __init__(self, prices: tuple[float, ...], sizes: tuple[float, ...]) -> None:
        self._prices = prices
        self._sizes = sizes
        self._made: list[_Level] = []

    def __iter__(self) -> Iterator[_Level]:
        yield from self._made
        for index in range(len(self._made), len(self._prices)):
            level = _Level(self._prices[index], self._sizes[index])
            self._made.append(level)
            yield level


class Liquidity:
    """The liquidity of one snapshot, for all orders that see it: what one takes is gone for the next.

    With an order book it is the sizes of the levels. Without one it has no end, at `half_spread` (a share) from the
    price; the price is rounded to the tick, against the taker, where a tick is no more than half the spread.
    """

    __slots__ = ("_half", "_instrument", "_quotes", "_sides", "_snapshot")

    def __init__(self, snapshot: MarketEvent, instrument: Instrument, half_spread: Decimal) -> None:
        self._snapshot = snapshot
        self._instrument = instrument
        self._half = half_spread
        self._sides: dict[Side, _Side] = {}
        self._quotes: dict[Side, Decimal] = {}

    def out_of_reach(self, side: Side, limit: Decimal) -> bool:
        """Tell, in 0.3 µs, that the market surely did not come to an order that rests at `limit`."""
        snapshot, book, buys = self._snapshot, self._snapshot.orderbook, side is _BUY
        if book is not None:
            prices = book.ask_prices if buys else book.bid_prices
            if not prices:
                return True
            nearest = prices[0]
        else:
            extreme = snapshot.low if buys else snapshot.high
            nearest = snapshot.price if extreme is None else extreme
        return nearest > float(limit) if buys else nearest < float(limit)

    def take(self, side: Side, quantity: Decimal, limit: Decimal | None) -> list[Take]:
        """Take up to a quantity, best price first, no worse than `limit`; all of it is gone afterwards."""
        if self._snapshot.orderbook is None:
            price = self._quote(side)
            return [Take(price, quantity)] if _within(price, limit, side) and price > 0 else []
        taken = []
        for level in self._side(side):
            if quantity <= 0 or not _within(level.price, limit, side):
                break
            part = self._instrument.round_quantity(min(level.left, quantity))
            if part > 0:
                level.left -= part
                quantity -= part
                taken.append(Take(level.price, part))
        return taken

    def holds(self, side: Side, quantity: Decimal, limit: Decimal | None) -> bool:
        """Tell whether a quantity can be taken whole, no worse than `limit`."""
        if self._snapshot.orderbook is None:
            return self.crosses(side, limit)
        within = (level.left for level in self._side(side) if _within(level.price, limit, side))
        return sum(map(self._instrument.round_quantity, within), Decimal(0)) >= quantity

    def crosses(self, side: Side, limit: Decimal | None) -> bool:
        """Tell whether an order would meet a resting one now."""
        if self._snapshot.orderbook is None:
            price = self._quote(side)
            return price > 0 and _within(price, limit, side)
        best = next((level for level in self._side(side) if level.left > 0), None)
        return best is not None and _within(best.price, limit, side)

    def take_resting(self, side: Side, quantity: Decimal, limit: Decimal) -> list[Take]:
        """Take what came to an order that rested at `limit` since the last snapshot; all of it is filled at `limit`.

        Where the feed has candles and no book, their range says how far the market came.
        """
        snapshot = self._snapshot
        if snapshot.orderbook is not None:
            met = sum((taken.quantity for taken in self.take(side, quantity, limit)), Decimal(0))
            return [Take(limit, met)] if met else []
        extreme = snapshot.low if side is _BUY else snapshot.high
        nearest = self._quote(side) if extreme is None else self._around(extreme, side)
        return [Take(limit, quantity)] if nearest > 0 and _within(nearest, limit, side) else []

    def _side(self, side: Side) -> _Side:
        """Return the levels that a taker of this side meets."""
        levels = self._sides.get(side)
        if levels is None:
            book = self._snapshot.orderbook
            assert book is not None
            buys = side is _BUY
            levels = self._sides[side] = _Side(
                book.ask_prices if buys else book.bid_prices, book.ask_sizes if buys else book.bid_sizes
            )
        return levels

    def _quote(self, side: Side) -> Decimal:
        quote = self._quotes.get(side)
        if quote is None:
            quote = self._quotes[side] = self._around(self._snapshot.price, side)
        return quote

    def _around(self, price: float, side: Side) -> Decimal:
        middle = Decimal(repr(price))
        half = CONTEXT.multiply(middle, self._half)
        buys = side is _BUY
        quote = CONTEXT.add(middle, half) if buys else CONTEXT.subtract(middle, half)
        tick = self._instrument.tick_size
        if tick > half:
            return quote
        steps = CONTEXT.divide(quote, tick).to_integral_value(ROUND_CEILING if buys else ROUND_FLOOR, CONTEXT)
        return CONTEXT.multiply(steps, tick)


def _within(price: Decimal, limit: Decimal | None, side: Side) -> bool:
    if limit is None:
        return True
    return price <= limit if side is _BUY else price >= limit

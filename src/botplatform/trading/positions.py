"""Position arithmetic: the legs of every strategy, folded from fills, in exact decimals.

A leg is kept per (account, venue, symbol, strategy, side); a long and a short leg can be held at once, and a
closing fill only ever cuts its own leg. What was paid for the open quantity is kept as one exact sum
(`cost_open`), not as an average, so that nothing is lost to rounding:

    cash flows of a leg  =  realized profit + unrealized profit - commission,  exactly

Only two numbers are ever rounded, half to even: the cost that a partial close releases, to `VALUE_QUANTUM`
(what it loses stays in `cost_open`), and the average price, to `AVERAGE_DIGITS`, which is a view for people.
All arithmetic runs in `CONTEXT`: 34 significant digits, whatever the caller's decimal context is.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from botplatform.core.events import PositionSide
from botplatform.errors import StateError

if TYPE_CHECKING:
    from botplatform.trading.orders import Fill

__all__ = ["AVERAGE_DIGITS", "CONTEXT", "FLAT", "VALUE_QUANTUM", "Leg", "LegKey", "Positions", "exact", "total"]

CONTEXT: Final = Context(prec=34, rounding=ROUND_HALF_EVEN)
"""The decimal context of all position arithmetic: products and sums of money are exact within 34 digits."""
VALUE_QUANTUM: Final = Decimal("1E-12")
"""Smallest step, in the quote currency, of the cost that a partial close releases."""
AVERAGE_DIGITS: Final = 16
"""Significant digits of an average price."""

_AVERAGE: Final = Context(prec=AVERAGE_DIGITS, rounding=ROUND_HALF_EVEN)
_ZERO: Final = Decimal(0)
_LONG: Final = PositionSide.LONG  # looked up once: members of an enum are slow to look up
_add, _subtract, _multiply = CONTEXT.add, CONTEXT.subtract, CONTEXT.multiply


@lru_cache(maxsize=256)
def exact(price: float) -> Decimal:
    """Return a measured price as the decimal that it is written as: several engines ask for the same one in turn."""
    return Decimal(repr(price + 0.0))  # -0.0 is 0.0


class LegKey(NamedTuple):
    """Whose leg it is."""

    account_id: str
    venue: str
    symbol: str
    strategy: str
    side: PositionSide


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One leg of a position; a new one holds nothing."""

    quantity: Decimal = _ZERO
    """Held, in units of the base currency; never below zero."""
    cost_open: Decimal = _ZERO
    """What the quantity held was worth when it was opened, in the quote currency: quantity times price, summed."""
    realized_pnl: Decimal = _ZERO
    """Profit of what was closed, before fees, in the quote currency."""
    commission: Decimal = _ZERO
    """Fees paid, in the quote currency; negative for rebates."""
    excess_qty: Decimal = _ZERO
    """Closed by fills beyond what was held, and not counted: anything but zero asks for reconciliation."""

    @property
    def avg_px_open(self) -> Decimal:
        """Average price at which what is held was opened, to 16 significant digits; zero when flat."""
        return _AVERAGE.divide(self.cost_open, self.quantity) if self.quantity else _ZERO

    def apply_fill(
        self, *, opens: bool, quantity: Decimal, price: Decimal, commission: Decimal, side: PositionSide
    ) -> Leg:
        """Return the leg after a fill: larger where it `opens`, smaller otherwise.

        A close never flips the leg: closing more than is held closes what is held and adds the rest to
        `excess_qty`. The commission counts in full either way. Raises `StateError` for a quantity that is not
        above zero, or a price below zero.
        """
        if quantity <= 0 or price < 0:
            raise StateError(f"a fill of {quantity} at {price} cannot be: quantity is above 0, price at least 0")
        paid = CONTEXT.add(self.commission, commission)
        if opens:
            return Leg(
                CONTEXT.add(self.quantity, quantity),
                CONTEXT.add(self.cost_open, CONTEXT.multiply(quantity, price)),
                self.realized_pnl,
                paid,
                self.excess_qty,
            )
        closed = min(quantity, self.quantity)
        released = self._cost_of(closed)
        worth = CONTEXT.multiply(closed, price)
        sold, bought = (worth, released) if side is _LONG else (released, worth)
        return Leg(
            CONTEXT.subtract(self.quantity, closed),
            CONTEXT.subtract(self.cost_open, released),
            CONTEXT.add(self.realized_pnl, CONTEXT.subtract(sold, bought)),
            paid,
            CONTEXT.add(self.excess_qty, CONTEXT.subtract(quantity, closed)),
        )

    def _cost_of(self, quantity: Decimal) -> Decimal:
        if quantity == self.quantity:
            return self.cost_open
        share = CONTEXT.divide(CONTEXT.multiply(self.cost_open, quantity), self.quantity)
        return share.quantize(VALUE_QUANTUM, context=CONTEXT)

    def unrealized_pnl(self, mark: Decimal, side: PositionSide) -> Decimal:
        """Return the profit of what is held, at a mark price, before fees, in the quote currency."""
        worth = CONTEXT.multiply(self.quantity, mark)
        if side is _LONG:
            return CONTEXT.subtract(worth, self.cost_open)
        return CONTEXT.subtract(self.cost_open, worth)


FLAT: Final = Leg()
"""A leg that holds nothing and never did."""


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A leg with its key, as state is serialised."""

    account_id: str
    venue: str
    symbol: str
    strategy: str
    side: PositionSide
    leg: Leg


class Positions:
    """All legs, folded from fills. Whoever feeds it counts each fill once; `Orders` sees to that.

    There is one leg per key that ever had a fill, so its size is bounded by accounts, symbols and strategies.
    """

    def __init__(self) -> None:
        self._legs: dict[LegKey, Leg] = {}
        self._keys: dict[str, list[LegKey]] = {}

    def apply(self, fill: Fill) -> LegKey:
        """Take a fill into its leg, and return which leg that is. The leg of an order is its `position_side`."""
        order = fill.order
        key = LegKey(order.account_id, order.venue, order.symbol, order.strategy, order.position_side)
        leg = self.leg(key).apply_fill(
            opens=order.opens,
            quantity=fill.quantity,
            price=fill.price,
            commission=fill.commission,
            side=key.side,
        )
        self._put(key, leg)
        return key

    def _put(self, key: LegKey, leg: Leg) -> None:
        if key not in self._legs:
            self._keys.setdefault(key.symbol, []).append(key)
        self._legs[key] = leg

    def leg(self, key: LegKey) -> Leg:
        """Return a leg; one that never had a fill is flat."""
        return self._legs.get(key, FLAT)

    def legs(self, symbol: str | None = None) -> Iterable[tuple[LegKey, Leg]]:
        """Return the legs that ever had a fill, in the order of their first one."""
        if symbol is None:
            return self._legs.items()
        legs = self._legs
        return [(key, legs[key]) for key in self._keys.get(symbol, ())]

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that ever had a fill, in the order of their first one."""
        return tuple(self._keys)

    def is_open(self, symbol: str) -> bool:
        """Tell whether any leg of the symbol holds something."""
        return any(self._legs[key].quantity for key in self._keys.get(symbol, ()))

    def by_symbol(self, symbol: str) -> tuple[Leg, Leg]:
        """Return the long and the short leg of a symbol, each summed over accounts, venues and strategies."""
        legs = self.legs(symbol)
        return (
            total([leg for key, leg in legs if key.side is _LONG]),
            total([leg for key, leg in legs if key.side is PositionSide.SHORT]),
        )

    def state_hash(self) -> str:
        """Return a hash of all legs: the same for the same legs, however they are ordered or their zeros written."""
        lines = sorted("\x1f".join((*key, *map(_plain, msgspec.structs.astuple(leg)))) for key, leg in self.legs())
        return blake2b("\x1e".join(lines).encode(), digest_size=16).hexdigest()

    def snapshot(self) -> bytes:
        """Return all legs; `restore` takes them back."""
        return msgspec.json.encode([_Entry(*key, leg) for key, leg in self.legs()], order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace all legs by those that `snapshot` returned; raise `StateError` for anything else."""
        try:
            entries = msgspec.json.decode(data, type=list[_Entry])
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(f"positions cannot be restored: {e}; replay the log from its beginning instead") from e
        self._legs, self._keys = {}, {}
        for entry in entries:
            self._put(LegKey(entry.account_id, entry.venue, entry.symbol, entry.strategy, entry.side), entry.leg)


def total(legs: Iterable[Leg]) -> Leg:
    """Sum legs of one side."""
    result = FLAT
    for leg in legs:
        result = leg if result is FLAT else _sum(result, leg)
    return result


def _sum(one: Leg, other: Leg) -> Leg:
    return Leg(
        _add(one.quantity, other.quantity),
        _add(one.cost_open, other.cost_open),
        _add(one.realized_pnl, other.realized_pnl),
        _add(one.commission, other.commission),
        _add(one.excess_qty, other.excess_qty),
    )


def _plain(value: Decimal) -> str:
    return format(value.normalize(CONTEXT), "f") if value else "0"

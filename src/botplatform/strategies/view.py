"""What a strategy sees: one symbol, at one moment, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

from msgspec import Struct

from botplatform.core.events import MarketEvent, PositionSide
from botplatform.trading.positions import FLAT, Leg

__all__ = ["LegView", "PositionView", "View"]

ZERO: Final = Decimal(0)
_SIZES: Final = Context(prec=5, rounding=ROUND_DOWN)


class LegView(Struct, frozen=True, gc=False):
    """One leg of the strategy's own position, with everything that it has already asked for."""

    side: PositionSide
    leg: Leg = FLAT
    """The fills, folded."""
    working_qty: Decimal = ZERO
    """Asked of the venue and not yet filled, in orders that make the leg larger."""
    intended_qty: Decimal = ZERO
    """Decided and not yet an order, in actions that make the leg larger."""
    closing_qty: Decimal = ZERO
    """Decided or asked for, and not yet filled, in actions and orders that make the leg smaller."""

    @property
    def quantity(self) -> Decimal:
        """Held, in units of the base currency; never below zero."""
        return self.leg.quantity

    @property
    def avg_px_open(self) -> Decimal:
        """Average price at which what is held was opened; zero when flat."""
        return self.leg.avg_px_open

    @property
    def realized_pnl(self) -> Decimal:
        """Profit of what was closed, before fees, in the quote currency."""
        return self.leg.realized_pnl

    @property
    def exposure(self) -> Decimal:
        """How large the leg becomes if all goes through: filled + working + intended. Open only what it lacks."""
        asked = self.working_qty + self.intended_qty if self.working_qty or self.intended_qty else ZERO
        return self.leg.quantity + asked if asked else self.leg.quantity

    @property
    def closable(self) -> Decimal:
        """What is held and not yet being closed."""
        return max(ZERO, self.leg.quantity - self.closing_qty)


class PositionView(Struct, frozen=True, gc=False):
    """The strategy's two legs in a symbol; both can be held at once."""

    long: LegView = LegView(PositionSide.LONG)
    short: LegView = LegView(PositionSide.SHORT)

    @property
    def net(self) -> Decimal:
        """What is held long less what is held short."""
        return self.long.leg.quantity - self.short.leg.quantity

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, working or intended on either leg."""
        return not (self.long.exposure or self.short.exposure)


class View(Struct, frozen=True, gc=False):
    """All that a strategy may know when it decides: nothing in it is newer than the signals that it decides on."""

    market: MarketEvent
    """The snapshot that the signals were computed from."""
    signals: Mapping[str, float]
    """Value by name, over all signal sets; a value that is not warmed up is absent."""
    position: PositionView
    """The strategy's own legs in this symbol."""
    timestamp_ns: int
    """The time: nanoseconds since the UNIX epoch, UTC. There is no other clock."""

    @property
    def symbol(self) -> str:
        """What is traded."""
        return self.market.symbol

    @property
    def price(self) -> float:
        """The last price."""
        return self.market.price

    def unrealized_pnl(self, leg: LegView) -> Decimal:
        """Return the profit of what a leg holds, at the mark price (or the last one), before fees."""
        if not leg.leg.quantity:
            return ZERO
        mark = self.market.price if self.market.mark_price is None else self.market.mark_price
        return leg.leg.unrealized_pnl(Decimal(str(mark)), leg.side)

    def size_of(self, notional: Decimal) -> Decimal:
        """Return the quantity that is worth `notional` at the last price, to 5 significant digits, rounded down.

        Zero when there is no price above zero. Execution rounds it to the instrument's lot step.
        """
        price = Decimal(str(self.market.price))
        if price <= 0:
            return ZERO
        return Decimal(format(_SIZES.divide(notional, price), "f"))  # 10, not 1E+1

"""Instruments: a venue's rules for one symbol, and the rounding of orders by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final

from msgspec import Struct

from botplatform.core.events import Side
from botplatform.settings import InstrumentSettings
from botplatform.trading.reasons import Reason

__all__ = ["Instrument", "Instruments"]

CONTEXT: Final = Context(prec=140)
"""Wide enough for every amount that an event may carry, to the last digit of every step."""
MAX_MADE: Final = 1_024
"""Symbols with the default rules that are remembered."""


class Instrument(Struct, frozen=True, kw_only=True):
    """The rules for the orders of one symbol. Prices are in the quote currency, quantities in the base currency."""

    symbol: str
    tick_size: Decimal
    lot_step: Decimal
    min_quantity: Decimal
    min_notional: Decimal
    quote_currency: str

    @classmethod
    def of(cls, symbol: str, settings: InstrumentSettings) -> Instrument:
        """Make the instrument that the settings describe."""
        return cls(
            symbol=symbol,
            tick_size=settings.tick_size,
            lot_step=settings.lot_step,
            min_quantity=settings.min_quantity,
            min_notional=settings.min_notional,
            quote_currency=settings.quote_currency,
        )

    def round_price(self, price: Decimal, side: Side) -> Decimal:
        """Round a limit price to a multiple of the tick size, never to a more aggressive one: a BUY down, a SELL up."""
        return _to_step(price, self.tick_size, ROUND_FLOOR if side is Side.BUY else ROUND_CEILING)

    def round_quantity(self, quantity: Decimal) -> Decimal:
        """Round a quantity down to a multiple of the lot step: never more than was asked for."""
        return _to_step(quantity, self.lot_step, ROUND_FLOOR)

    def refusal(self, quantity: Decimal, price: Decimal, *, reduces: bool = False) -> tuple[Reason, str] | None:
        """Say why the venue would not take a rounded order of this size; None when it would.

        An order that `reduces` its leg may be worth less than the minimum, so that a small rest can be closed.
        """
        if quantity <= 0 or quantity < self.min_quantity:
            return (
                Reason.BELOW_MIN_QUANTITY,
                f"{quantity} {self.symbol} is less than the smallest quantity {self.min_quantity}",
            )
        notional = quantity * price
        if notional < self.min_notional and not reduces:
            return (
                Reason.BELOW_MIN_NOTIONAL,
                f"{quantity} {self.symbol} at {price} is worth {notional:f}, less than {self.min_notional} {self.quote_currency}",
            )
        return None


class Instruments(Mapping[str, Instrument]):
    """Instruments by symbol. A symbol that the settings do not name has the default rules."""

    def __init__(self, settings: Mapping[str, InstrumentSettings] | None = None) -> None:
        self._known = {symbol: Instrument.of(symbol, rules) for symbol, rules in (settings or {}).items()}
        self._made: dict[str, Instrument] = {}
        self._defaults = InstrumentSettings.model_validate({})

    def __getitem__(self, symbol: str) -> Instrument:
        found = self._known.get(symbol) or self._made.get(symbol)
        if found is None:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            found = self._made[symbol] = Instrument.of(symbol, self._defaults)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _to_step(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    steps = CONTEXT.divide(value, step).to_integral_value(rounding=rounding, context=CONTEXT)
    return CONTEXT.multiply(steps, step).quantize(step, context=CONTEXT)

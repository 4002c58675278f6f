"""Instruments for recordings of symbols whose venue's rules nobody gave."""

from __future__ import annotations

from decimal import Decimal

from botplatform.settings import InstrumentSettings

__all__ = ["instrument_for"]

PRICE_DIGITS = 6
"""Significant digits of a price: 0.0014 is quoted in steps of 0.00000001, 42000 in steps of 0.1."""
LOT_VALUE_EXPONENT = -2
"""The power of ten of a lot's value in the quote currency: about a hundredth."""


def instrument_for(price: float) -> InstrumentSettings:
    """Make up plausible rules from one price: six significant digits, lots worth a hundredth, no smallest value.

    >>> instrument_for(42000.0).tick_size, instrument_for(42000.0).lot_step
    (Decimal('0.1'), Decimal('0.000001'))
    """
    magnitude = Decimal(repr(price)).adjusted()
    lot = Decimal(1).scaleb(LOT_VALUE_EXPONENT - magnitude)
    return InstrumentSettings(
        tick_size=Decimal(1).scaleb(magnitude - PRICE_DIGITS + 1),
        lot_step=lot,
        min_quantity=lot,
        min_notional=Decimal(0),
    )

"""Numbers for people: exact values shown with as many digits as they deserve, profit in colour."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from rich.text import Text

__all__ = ["duration", "money", "price", "profit", "share"]

_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_CENT: Final = Decimal("0.01")


def money(value: Decimal, *, sign: bool = False) -> str:
    """Write an amount: two decimals from 0.01 up, four significant digits below."""
    if value == 0:
        return "0.00"
    quantum = _CENT if abs(value) >= _CENT else Decimal((0, (1,), max(value.adjusted() - 3, -12)))
    rounded = value.quantize(quantum, context=_WIDE)
    return format(rounded, "+,f" if sign else ",f")


def profit(value: Decimal) -> Text:
    """Write a profit with its sign: green above zero, red below."""
    return Text(money(value, sign=True), style="green" if value > 0 else "red" if value < 0 else "dim")


def share(value: Decimal | float | None) -> str:
    """Write a share as percent, with more digits when it is tiny; an absent one as a dash."""
    if value is None:
        return "-"
    percent = float(value) * 100
    return f"{percent:.2f} %" if percent == 0 or abs(percent) >= 0.01 else f"{percent:.1g} %"


def price(value: Decimal | float) -> str:
    """Write a price with about seven significant digits; 0, of a market that was not seen yet, as a dash."""
    number = Decimal(repr(value)) if isinstance(value, float) else value
    if number == 0:
        return "-"
    places = max(2, min(12, 6 - number.adjusted()))
    text = format(number.quantize(Decimal((0, (1,), -places)), context=_WIDE), ",f")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def duration(seconds: float) -> str:
    """Write how long something took: `350 ms`, `12.3 s`, `5 min 20 s`, `3 h 20 min`, `31 d 2 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"

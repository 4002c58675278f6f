"""The example `ema_cross`: trade with the trend, long and short."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from msgspec import Meta

from botplatform.core.events import ActionIntent
from botplatform.strategies.actions import Decision, close_long, close_short, open_long, open_short
from botplatform.strategies.strategy import Decided, Strategy
from botplatform.strategies.trend import NotNegative, trend_of
from botplatform.strategies.view import View

__all__ = ["EmaCross"]

_UP: Final = 1


class EmaCross(Strategy):
    """Holds a long leg while the fast EMA is above the slow one, and a short leg while it is below.

    It opens only while the RSI confirms it (not overbought for a long leg, not oversold for a short one), and not
    again before `cooldown_s` has passed; the opposite cross closes at once. A cross counts when the averages are
    apart by `band_bps`, so that a flat market does not make it trade to and fro.
    """

    notional: Decimal = Decimal(1000)
    """Value of a leg when it is opened, in the quote currency; above 0. Default: 1000."""
    allow_short: bool = True
    """Whether it opens short legs as well. Default: true."""
    band_bps: NotNegative = 0.5
    """How far apart the averages have to be for a cross to count, in basis points of the slow one. Default: 0.5."""
    overbought: Annotated[float, Meta(ge=0, le=100)] = 70.0
    """No long leg is opened while the RSI is at this or above. Default: 70."""
    oversold: Annotated[float, Meta(ge=0, le=100)] = 30.0
    """No short leg is opened while the RSI is at this or below. Default: 30."""
    cooldown_s: NotNegative = 10.0
    """Seconds, of event time, between two openings, and until a close that was denied is tried again. Default: 10."""
    fast: str = "ema_fast"
    """Name of the fast average's value. Default: ema_fast."""
    slow: str = "ema_slow"
    """Name of the slow average's value. Default: ema_slow."""
    rsi: str = "rsi"
    """Name of the RSI's value. Default: rsi."""
    _trend: int = 0
    _opened_ns: int = 0
    _closed_ns: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be."""
        if not self.notional > 0:
            raise ValueError("notional has to be above 0")

    def needs(self) -> tuple[str, ...]:
        """Name both averages and the RSI."""
        return (self.fast, self.slow, self.rsi)

    def decide(self, view: View) -> Decided:
        """Close what is against the trend, open what goes with it."""
        signals = view.signals
        trend = trend_of(signals[self.fast], signals[self.slow], self.band_bps, self._trend)
        if not trend:
            return None
        if trend != self._trend:
            self._trend, self._closed_ns = trend, 0
        position = view.position
        against, along = (position.short, position.long) if trend == _UP else (position.long, position.short)
        actions: list[ActionIntent] = []
        if against.leg.quantity and self._is_over(self._closed_ns, view) and against.closable:
            self._closed_ns = view.timestamp_ns
            actions.append((close_short if trend == _UP else close_long)(against.closable))
        if self._is_over(self._opened_ns, view) and self._confirms(signals[self.rsi]) and not along.exposure:
            size = view.size_of(self.notional)
            if size:
                self._opened_ns = view.timestamp_ns
                actions.append((open_long if trend == _UP else open_short)(size))
        if not actions:
            return None
        return Decision(actions, f"{self.fast} is {'above' if trend == _UP else 'below'} {self.slow}")

    def _is_over(self, since_ns: int, view: View) -> bool:
        return view.timestamp_ns - since_ns >= self.cooldown_s * 1e9

    def _confirms(self, rsi: float) -> bool:
        return rsi < self.overbought if self._trend == _UP else self.allow_short and rsi > self.oversold

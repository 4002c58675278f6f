"""The example `hedge`: a long leg that stays, and a short leg that protects it while the market falls."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from msgspec import Meta

from botplatform.strategies.actions import Decision, close_short, open_long, open_short
from botplatform.strategies.strategy import Decided, Strategy
from botplatform.strategies.trend import NotNegative, trend_of
from botplatform.strategies.view import PositionView, View

__all__ = ["Hedge"]

_SECOND_NS: Final = 1_000_000_000


class Hedge(Strategy):
    """Holds a core long leg, and at the same time a short leg against it while the market turns down.

    The core is opened as soon as the signals are warmed up, and kept. The hedge is opened when the trend is down
    and either the RSI is weak or, where volumes are known, sellers outweigh buyers (the cumulative volume delta is
    below its own average); it is closed when the trend is up again and the RSI has recovered. Between two
    decisions at least `cooldown_s` passes.
    """

    notional: Decimal = Decimal(2000)
    """Value of the core when it is opened, in the quote currency; above 0. Default: 2000."""
    ratio: Decimal = Decimal(1)
    """Share of the core that the hedge covers: above 0, up to 1. Default: 1."""
    band_bps: NotNegative = 0.5
    """How far apart the averages have to be for the trend to turn, in basis points. Default: 0.5."""
    weak: Annotated[float, Meta(ge=0, le=100)] = 45.0
    """The market counts as weak while the RSI is below this. Default: 45."""
    recovered: Annotated[float, Meta(ge=0, le=100)] = 50.0
    """The hedge is kept while the RSI is below this. Default: 50."""
    cooldown_s: NotNegative = 5.0
    """Seconds, of event time, between two decisions. Default: 5."""
    cvd_period: Annotated[int, Meta(ge=2)] = 50
    """Snapshots over which the average of the cumulative volume delta is taken. Default: 50."""
    fast: str = "ema_fast"
    """Name of the fast average's value. Default: ema_fast."""
    slow: str = "ema_slow"
    """Name of the slow average's value. Default: ema_slow."""
    rsi: str = "rsi"
    """Name of the RSI's value. Default: rsi."""
    cvd: str = "cvd"
    """Name of the cumulative volume delta's value, used where there is one. Default: cvd."""
    _trend: int = 0
    _changed_ns: int = 0
    _cvd_average: float | None = None

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be."""
        if not (self.notional > 0 and 0 < self.ratio <= 1):
            raise ValueError("notional has to be above 0, and ratio above 0 and at most 1")

    def needs(self) -> tuple[str, ...]:
        """Name both averages and the RSI; the volume delta is used where there is one."""
        return (self.fast, self.slow, self.rsi)

    def decide(self, view: View) -> Decided:
        """Open the core where it is missing; then hedge it, or stop hedging."""
        signals = view.signals
        self._trend = trend_of(signals[self.fast], signals[self.slow], self.band_bps, self._trend)
        selling = self._sellers_outweigh(signals.get(self.cvd))
        position = view.position
        if view.timestamp_ns - self._changed_ns < self.cooldown_s * _SECOND_NS:
            return None
        if not position.long.exposure:
            return self._open_core(view)
        rsi = signals[self.rsi]
        if self._trend < 0 and (rsi < self.weak or selling):
            return self._protect(view, position)
        if self._trend > 0 and rsi >= self.recovered and position.short.closable:
            self._changed_ns = view.timestamp_ns
            return Decision((close_short(position.short.closable),), "the market has recovered")
        return None

    def _open_core(self, view: View) -> Decided:
        size = view.size_of(self.notional)
        if not size:
            return None
        self._changed_ns = view.timestamp_ns
        return Decision((open_long(size),), "the core is missing")

    def _protect(self, view: View, position: PositionView) -> Decided:
        wanted = position.long.quantity * self.ratio
        if not wanted or position.short.exposure:
            return None
        self._changed_ns = view.timestamp_ns
        return Decision((open_short(wanted),), "the market turns down")

    def _sellers_outweigh(self, cvd: float | None) -> bool:
        if cvd is None:
            return False
        average = cvd if self._cvd_average is None else self._cvd_average
        self._cvd_average = average = average + (cvd - average) * (2.0 / (self.cvd_period + 1))
        return cvd < average

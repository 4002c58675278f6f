"""The built-in signals: EMA and RSI as TA-Lib computes them, and cumulative volume delta. Each tick costs O(1)."""

from __future__ import annotations

from botplatform.core.events import MarketEvent
from botplatform.engines.signals.registry import register_signal
from botplatform.engines.signals.signal import Period, Signal

__all__ = ["Cvd", "Ema", "Rsi"]

_NO_MOVEMENT = 1e-14


@register_signal("ema")
class Ema(Signal):
    """Exponential moving average of the price over `period` snapshots (default 12), equal to TA-Lib's EMA.

    The weight of the newest price is 2 / (period + 1); the first value is the mean of the first `period` prices.
    """

    period: Period = 12
    _count: int = 0
    _value: float = 0.0

    def update(self, snapshot: MarketEvent) -> float | None:
        """Take the next price; None for the first `period` - 1."""
        period = self.period
        if self._count >= period:
            value = self._value
            self._value = value = (snapshot.price - value) * (2.0 / (period + 1)) + value
            return value
        self._count += 1
        self._value += snapshot.price
        if self._count < period:
            return None
        self._value /= period
        return self._value


@register_signal("rsi")
class Rsi(Signal):
    """Relative strength index by Wilder over `period` changes (default 14), from 0 to 100, equal to TA-Lib's RSI.

    Where the price did not move at all it is 0, as in TA-Lib.
    """

    period: Period = 14
    _count: int = -1
    _price: float = 0.0
    _gain: float = 0.0
    _loss: float = 0.0

    def update(self, snapshot: MarketEvent) -> float | None:
        """Take the next price; None for the first `period`."""
        price, period = snapshot.price, self.period
        change = price - self._price
        self._price = price
        if self._count < period:
            return self._warm_up(change)
        gain, loss = self._gain * (period - 1), self._loss * (period - 1)
        if change < 0.0:
            loss -= change
        else:
            gain += change
        self._gain = gain = gain / period
        self._loss = loss = loss / period
        moved = gain + loss
        return 100.0 * (gain / moved) if moved >= _NO_MOVEMENT else 0.0

    def _warm_up(self, change: float) -> float | None:
        self._count += 1
        if self._count == 0:
            return None
        if change < 0.0:
            self._loss -= change
        else:
            self._gain += change
        if self._count < self.period:
            return None
        self._gain /= self.period
        self._loss /= self.period
        moved = self._gain + self._loss
        return 100.0 * (self._gain / moved) if moved >= _NO_MOVEMENT else 0.0


@register_signal("cvd")
class Cvd(Signal):
    """Cumulative volume delta: what aggressive buyers took less what aggressive sellers gave, since the start.

    Where a feed does not say who was the aggressor and has only `volume`, all of it counts for one side: of a
    candle, up where it closed above its open, down below, and not at all where they are equal; otherwise up where
    the price is above the last one, down below, and where it is the same, as the last time (the tick rule).
    Absent until something was traded.
    """

    _total: float = 0.0
    _traded: bool = False
    _price: float | None = None
    _direction: int = 0

    def update(self, snapshot: MarketEvent) -> float | None:
        """Take the volumes of the next snapshot."""
        price, last = snapshot.price, self._price
        if last is not None and price != last:
            self._direction = 1 if price > last else -1
        self._price = price
        delta = snapshot.buy_volume - snapshot.sell_volume
        if snapshot.buy_volume or snapshot.sell_volume:
            self._traded = True
        elif snapshot.volume:
            opened = snapshot.open
            sign = self._direction if opened is None else (price > opened) - (price < opened)
            delta = sign * snapshot.volume
            self._traded = True
        self._total += delta
        return self._total if self._traded else None

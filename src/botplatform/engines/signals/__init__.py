"""Signals: numbers computed from market snapshots, one set of them per `signal.snapshot`.

A signal of your own is a class with `update`, registered under a name or named by dotted path:

    @register_signal("spread")
    class Spread(Signal):
        def update(self, snapshot: MarketEvent) -> float | None:
            book = snapshot.orderbook
            return book.ask_prices[0] - book.bid_prices[0] if book else None
"""

from __future__ import annotations

from botplatform.engines.signals.engine import SignalsEngine
from botplatform.engines.signals.indicators import Cvd, Ema, Rsi
from botplatform.engines.signals.registry import (
    SignalKind,
    describe_signals,
    find_signal,
    register_signal,
    signal_names,
)
from botplatform.engines.signals.signal import Period, Signal

__all__ = [
    "Cvd",
    "Ema",
    "Period",
    "Rsi",
    "Signal",
    "SignalKind",
    "SignalsEngine",
    "describe_signals",
    "find_signal",
    "register_signal",
    "signal_names",
]

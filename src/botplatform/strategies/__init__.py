"""Strategies: the public API for writing one, and two examples, `ema_cross` and `hedge`.

from decimal import Decimal
from botplatform.strategies import Decided, Strategy, View, close_long, open_long

class FollowTheTrend(Strategy):
    size: Decimal = Decimal("0.01")

    def needs(self) -> tuple[str, ...]:
        return ("ema_fast", "ema_slow")

    def decide(self, view: View) -> Decided:
        long, up = view.position.long, view.signals["ema_fast"] > view.signals["ema_slow"]
        if up and not long.exposure:
            return open_long(self.size)
        if not up and long.closable:
            return close_long(long.closable)
        return None
"""

from __future__ import annotations

from botplatform.core.events import ActionIntent, PositionSide, TimeInForce
from botplatform.strategies.actions import Decision, cancel, close_long, close_short, open_long, open_short
from botplatform.strategies.ema_cross import EmaCross
from botplatform.strategies.hedge import Hedge
from botplatform.strategies.loading import describe_strategies, find_strategy, make_strategy
from botplatform.strategies.strategy import Decided, Strategy
from botplatform.strategies.view import LegView, PositionView, View

__all__ = [
    "ActionIntent",
    "Decided",
    "Decision",
    "EmaCross",
    "Hedge",
    "LegView",
    "PositionSide",
    "PositionView",
    "Strategy",
    "TimeInForce",
    "View",
    "cancel",
    "close_long",
    "close_short",
    "describe_strategies",
    "find_strategy",
    "make_strategy",
    "open_long",
    "open_short",
]

"""Strategy: combines market, signals and positions, asks the strategies, publishes what they decide."""

from __future__ import annotations

from botplatform.engines.strategy.engine import StrategyEngine

__all__ = ["StrategyEngine"]

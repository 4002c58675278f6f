"""Market data: snapshots become the roots of all chains; gaps and silence are reported."""

from __future__ import annotations

from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.market_data.roots import Roots

__all__ = ["MarketDataEngine", "Roots"]

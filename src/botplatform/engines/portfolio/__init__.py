"""Portfolio: folds fills into positions per leg, profit and equity."""

from botplatform.engines.portfolio.engine import PortfolioEngine

__all__ = ["PortfolioEngine"]

"""The paper exchange: a venue inside the process that fills against the market it is shown."""

from botplatform.exchanges.paper.adapter import PaperExchange
from botplatform.exchanges.paper.venue import PaperVenue

__all__ = ["PaperExchange", "PaperVenue"]

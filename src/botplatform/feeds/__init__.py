"""Market data from outside: recordings, the synthetic market, and the pace at which snapshots come."""

from __future__ import annotations

from botplatform.feeds.feed import Pace, paced
from botplatform.feeds.recording import Recording, normalise_symbol, open_recording
from botplatform.feeds.synthetic import SyntheticMarket

__all__ = ["Pace", "Recording", "SyntheticMarket", "normalise_symbol", "open_recording", "paced"]
